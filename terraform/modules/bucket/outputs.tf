output "arn" {
  description = "ARN of the bucket, known once the bucket is closed to the public and to plain HTTP."
  value       = aws_s3_bucket.this.arn

  depends_on = [
    aws_s3_bucket_policy.this,
    aws_s3_bucket_public_access_block.this,
    aws_s3_bucket_server_side_encryption_configuration.this,
  ]
}

output "name" {
  description = "Name of the bucket, known once the bucket is closed to the public and to plain HTTP."
  value       = aws_s3_bucket.this.id

  depends_on = [
    aws_s3_bucket_policy.this,
    aws_s3_bucket_public_access_block.this,
    aws_s3_bucket_server_side_encryption_configuration.this,
  ]
}
