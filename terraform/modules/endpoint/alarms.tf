locals {
  alarm_period_s = 60
  alarm_periods  = 2
  # One period more, for a request that comes in the middle of one and for the metric to arrive.
  alarm_s = local.alarm_period_s * (local.alarm_periods + 1)

  rollback_alarm_names = sort(concat(
    [for alarm in aws_cloudwatch_metric_alarm.errors : alarm.alarm_name],
    [for alarm in aws_cloudwatch_metric_alarm.latency : alarm.alarm_name],
  ))
}

resource "aws_cloudwatch_metric_alarm" "errors" {
  for_each = toset(keys(var.variants))

  alarm_name          = "${var.name}-rollback-errors-${each.key}"
  alarm_actions       = var.alarm_topic_arn[*]
  alarm_description   = "More than ${var.thresholds.error_percent} % of the requests to variant ${each.key} of ${var.name} fail. Rolls back a release in progress."
  comparison_operator = "GreaterThanThreshold"
  dimensions          = { EndpointName = var.name, VariantName = each.key }
  evaluation_periods  = local.alarm_periods
  metric_name         = "Invocation5XXErrors"
  namespace           = "AWS/SageMaker"
  ok_actions          = var.alarm_topic_arn[*]
  period              = local.alarm_period_s
  # SageMaker writes 1 for each request that failed and 0 for each other, so the average is the share that failed.
  statistic          = "Average"
  threshold          = var.thresholds.error_percent / 100
  treat_missing_data = "notBreaching"

  # CloudWatch keeps an alarm while a composite alarm names it: that one has to change first. What an alarm here refers to is made before it
  # is destroyed as well, so it refers to no resource.
  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_cloudwatch_metric_alarm" "latency" {
  for_each = toset(keys(var.variants))

  alarm_name                            = "${var.name}-rollback-latency-${each.key}"
  alarm_actions                         = var.alarm_topic_arn[*]
  alarm_description                     = "1 % of the requests to variant ${each.key} of ${var.name} take more than ${var.thresholds.latency_p99_ms} ms in the container. Rolls back a release in progress."
  comparison_operator                   = "GreaterThanThreshold"
  dimensions                            = { EndpointName = var.name, VariantName = each.key }
  evaluate_low_sample_count_percentiles = "ignore"
  evaluation_periods                    = local.alarm_periods
  extended_statistic                    = "p99"
  metric_name                           = "ModelLatency"
  namespace                             = "AWS/SageMaker"
  ok_actions                            = var.alarm_topic_arn[*]
  period                                = local.alarm_period_s
  threshold                             = var.thresholds.latency_p99_ms * 1000
  treat_missing_data                    = "notBreaching"

  # CloudWatch keeps an alarm while a composite alarm names it: that one has to change first. What an alarm here refers to is made before it
  # is destroyed as well, so it refers to no resource.
  lifecycle {
    create_before_destroy = true
  }
}
