output "policy_arn" {
  description = "ARN of the scaling policy."
  value       = aws_appautoscaling_policy.this.arn
}

output "policy_name" {
  description = "Name of the scaling policy."
  value       = aws_appautoscaling_policy.this.name
}

output "resource_id" {
  description = "Application Auto Scaling's name of the variant, by which its activities can be asked for."
  value       = aws_appautoscaling_target.this.resource_id
}
