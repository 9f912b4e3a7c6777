resource "aws_s3_bucket" "this" {
  #checkov:skip=CKV_AWS_18:Access logs are optional (access_log_bucket): the bucket that receives them belongs to the account, not to one project
  #checkov:skip=CKV_AWS_144:Data and models can be made again from their sources; a second region would double the storage cost
  #checkov:skip=CKV_AWS_145:SSE-S3 encrypts everything by default; KMS is optional (kms_key_arn) because each key and request is paid for
  #checkov:skip=CKV2_AWS_62:Nothing acts on object events
  bucket        = var.name
  force_destroy = var.force_destroy
}

resource "aws_s3_bucket_public_access_block" "this" {
  bucket = aws_s3_bucket.this.id

  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "this" {
  bucket = aws_s3_bucket.this.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "this" {
  bucket = aws_s3_bucket.this.id

  rule {
    # A bucket key spares one KMS request for each object; without a key of our own it means nothing.
    bucket_key_enabled = var.kms_key_arn != null

    apply_server_side_encryption_by_default {
      kms_master_key_id = var.kms_key_arn
      sse_algorithm     = var.kms_key_arn == null ? "AES256" : "aws:kms"
    }
  }
}

resource "aws_s3_bucket_versioning" "this" {
  bucket = aws_s3_bucket.this.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "this" {
  bucket = aws_s3_bucket.this.id

  rule {
    id     = "abort-multipart"
    status = "Enabled"

    filter {}

    abort_incomplete_multipart_upload {
      days_after_initiation = var.lifecycle_days.abort_multipart
    }
  }

  rule {
    id     = "expire-noncurrent"
    status = "Enabled"

    filter {}

    expiration {
      expired_object_delete_marker = true
    }

    noncurrent_version_expiration {
      noncurrent_days = var.lifecycle_days.noncurrent
    }
  }

  dynamic "rule" {
    for_each = {
      capture     = var.lifecycle_days.capture
      checkpoints = var.lifecycle_days.checkpoints
    }

    content {
      id     = "expire-${rule.key}"
      status = "Enabled"

      expiration {
        days = rule.value
      }

      filter {
        prefix = "${rule.key}/"
      }
    }
  }

  # S3 refuses rules for noncurrent versions while the bucket keeps none.
  depends_on = [aws_s3_bucket_versioning.this]
}

resource "aws_s3_bucket_logging" "this" {
  count = var.access_log_bucket == null ? 0 : 1

  bucket        = aws_s3_bucket.this.id
  target_bucket = var.access_log_bucket.name
  target_prefix = var.access_log_bucket.prefix

  # Folders by day let Athena read one day without the others.
  target_object_key_format {
    partitioned_prefix {
      partition_date_source = "EventTime"
    }
  }
}

resource "aws_s3_bucket_policy" "this" {
  bucket = aws_s3_bucket.this.id
  policy = data.aws_iam_policy_document.bucket.json

  # S3 takes one change of a bucket's access settings at a time and answers the second with a conflict.
  depends_on = [
    aws_s3_bucket_ownership_controls.this,
    aws_s3_bucket_public_access_block.this,
  ]
}
