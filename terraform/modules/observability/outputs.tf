output "alarm_names" {
  description = "Names of the alarms, the composite one left out."
  value       = local.alarm_names
}

output "dashboard_name" {
  description = "Name of the dashboard; null without a service."
  value       = one(aws_cloudwatch_dashboard.this[*].dashboard_name)
}

output "dashboard_url" {
  description = "Address of the dashboard in the console; null without a service."
  value       = local.has_service ? "https://${local.region}.console.aws.amazon.com/cloudwatch/home?region=${local.region}#dashboards/dashboard/${one(aws_cloudwatch_dashboard.this[*].dashboard_name)}" : null
}

output "topic_arn" {
  description = "ARN of the topic that alarms and the budget write to."
  value       = local.topic_arn

  # Who writes to the topic needs its policy.
  depends_on = [aws_sns_topic_policy.this]
}

output "unhealthy_alarm_arn" {
  description = "ARN of the composite alarm; null without a service."
  value       = one(aws_cloudwatch_composite_alarm.unhealthy[*].arn)
}
