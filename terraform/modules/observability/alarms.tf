locals {
  # Stands for no service too, so that the shapes below stay the same; nothing is made of it then.
  service = var.service == null ? {
    alias_name              = ""
    dead_letter_queue_name  = null
    endpoint_name           = ""
    function_name           = ""
    max_capacity            = null
    provisioned_concurrency = false
    rollback_alarm_names    = tolist([])
    variant_names           = tolist([])
  } : var.service

  # Metrics of the alias: those of the function as a whole would count other versions too.
  alias = {
    FunctionName = local.service.function_name
    Resource     = "${local.service.function_name}:${local.service.alias_name}"
  }

  # Unhealthy means that callers get no or late answers; the composite alarm reports it once. The others announce trouble and report themselves.
  health_alarms = { for key, alarm in {
    endpoint-errors = {
      description = "More than ${var.thresholds.endpoint_error_percent} % of the endpoint's answers are 5xx. Look at /aws/sagemaker/Endpoints/${local.service.endpoint_name}."
      threshold   = var.thresholds.endpoint_error_percent
      expression  = "100 * (${join(" + ", [for i in range(length(local.service.variant_names)) : "FILL(errors${i}, 0)"])}) / (${join(" + ", [for i in range(length(local.service.variant_names)) : "FILL(requests${i}, 0)"])})"
      label       = "5xx of the endpoint (%)"
      metrics = merge([for i, variant in local.service.variant_names : {
        "errors${i}"   = { namespace = "AWS/SageMaker", metric = "Invocation5XXErrors", stat = "Sum", dimensions = { EndpointName = local.service.endpoint_name, VariantName = variant } }
        "requests${i}" = { namespace = "AWS/SageMaker", metric = "Invocations", stat = "Sum", dimensions = { EndpointName = local.service.endpoint_name, VariantName = variant } }
      }]...)
    }
    endpoint-latency = {
      description = "The slowest hundredth of the model's answers takes more than ${var.thresholds.endpoint_latency_ms} ms. Look at instances, CPU and concurrency on the dashboard."
      threshold   = var.thresholds.endpoint_latency_ms
      # SageMaker counts microseconds.
      expression = "MAX(METRICS(\"latency\")) / 1000"
      label      = "p99 of model latency (ms)"
      metrics = { for i, variant in local.service.variant_names :
        "latency${i}" => { namespace = "AWS/SageMaker", metric = "ModelLatency", stat = "p99", dimensions = { EndpointName = local.service.endpoint_name, VariantName = variant } }
      }
    }
    function-failures = {
      description = "More than ${var.thresholds.function_failure_percent} % of the function's calls fail or answer 5xx. Look at /aws/lambda/${local.service.function_name}."
      threshold   = var.thresholds.function_failure_percent
      # The function answers its own failures; Lambda counts only those that it does not survive.
      expression = "100 * (FILL(errors, 0) + FILL(failed, 0)) / invocations"
      label      = "Failed calls (%)"
      metrics = {
        errors      = { namespace = "AWS/Lambda", metric = "Errors", stat = "Sum", dimensions = local.alias }
        failed      = { namespace = "Kennel", metric = "Failed", stat = "Sum", dimensions = { service = local.service.function_name } }
        invocations = { namespace = "AWS/Lambda", metric = "Invocations", stat = "Sum", dimensions = local.alias }
      }
    }
    function-throttles = {
      description = "Lambda turns calls away with 429. Raise reserved_concurrency, or the account's quota of concurrent executions."
      threshold   = 0
      expression  = "throttles"
      label       = "Throttled calls"
      metrics = {
        throttles = { namespace = "AWS/Lambda", metric = "Throttles", stat = "Sum", dimensions = local.alias }
      }
    }
  } : key => alarm if local.has_service }

  warning_alarms = { for key, alarm in {
    dead-letters = local.service.dead_letter_queue_name == null ? null : {
      description = "Asynchronous calls failed for good and wait in ${local.service.dead_letter_queue_name}. Read them, mend the cause, send them again or purge the queue."
      namespace   = "AWS/SQS"
      metric      = "ApproximateNumberOfMessagesVisible"
      statistic   = "Maximum"
      dimensions  = { QueueName = local.service.dead_letter_queue_name }
      threshold   = 0
      minutes     = 1
    }
    function-spillover = !local.service.provisioned_concurrency ? null : {
      description = "Calls find no warm environment and meet cold starts. Raise provisioned concurrency, or let it scale."
      namespace   = "AWS/Lambda"
      metric      = "ProvisionedConcurrencySpilloverInvocations"
      statistic   = "Sum"
      dimensions  = local.alias
      threshold   = 0
      minutes     = 5
    }
  } : key => alarm if alarm != null }

  has_capacity_alarm = local.service.max_capacity != null

  alarm_names = concat(
    [for key in keys(local.health_alarms) : "${var.name}-${key}"],
    [for key in keys(local.warning_alarms) : "${var.name}-${key}"],
    local.has_capacity_alarm ? ["${var.name}-endpoint-at-capacity"] : [],
  )
}

resource "aws_cloudwatch_metric_alarm" "health" {
  for_each = local.health_alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.description
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.threshold
  evaluation_periods  = 5
  datapoints_to_alarm = 3
  # No calls, no trouble.
  treat_missing_data = "notBreaching"

  metric_query {
    id          = "result"
    expression  = each.value.expression
    label       = each.value.label
    return_data = true
  }

  dynamic "metric_query" {
    for_each = each.value.metrics

    content {
      id = metric_query.key

      metric {
        namespace   = metric_query.value.namespace
        metric_name = metric_query.value.metric
        dimensions  = metric_query.value.dimensions
        stat        = metric_query.value.stat
        period      = 60
      }
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "warning" {
  for_each = local.warning_alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.description
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.threshold
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = each.value.statistic
  period              = 60
  evaluation_periods  = each.value.minutes
  treat_missing_data  = "notBreaching"
  alarm_actions       = [local.topic_arn]
  ok_actions          = [local.topic_arn]
}

resource "aws_cloudwatch_metric_alarm" "capacity" {
  count = local.has_capacity_alarm ? 1 : 0

  alarm_name          = "${var.name}-endpoint-at-capacity"
  alarm_description   = "A variant has had the ${local.service.max_capacity} instances that autoscaling may give it for 15 minutes. Raise max_capacity (and the quota), or take a larger instance type."
  comparison_operator = "GreaterThanOrEqualToThreshold"
  threshold           = local.service.max_capacity
  evaluation_periods  = 15
  treat_missing_data  = "notBreaching"
  alarm_actions       = [local.topic_arn]
  ok_actions          = [local.topic_arn]

  metric_query {
    id          = "result"
    expression  = "MAX(METRICS(\"instances\"))"
    label       = "Instances"
    return_data = true
  }

  dynamic "metric_query" {
    for_each = { for i, variant in local.service.variant_names : "instances${i}" => variant }

    content {
      id = metric_query.key

      # SageMaker publishes no count of instances; each of them reports its CPU once a minute.
      metric {
        namespace   = "/aws/sagemaker/Endpoints"
        metric_name = "CPUUtilization"
        dimensions  = { EndpointName = local.service.endpoint_name, VariantName = metric_query.value }
        stat        = "SampleCount"
        period      = 60
      }
    }
  }
}

resource "aws_cloudwatch_composite_alarm" "unhealthy" {
  count = local.has_service ? 1 : 0

  alarm_name        = "${var.name}-service-unhealthy"
  alarm_description = "Callers get no or late answers. The alarms that set this one off say why; the dashboard ${var.name} shows them side by side."
  alarm_rule = join(" OR ", [
    for name in concat(values(aws_cloudwatch_metric_alarm.health)[*].alarm_name, local.service.rollback_alarm_names) : "ALARM(\"${name}\")"
  ])
  alarm_actions = [local.topic_arn]
  ok_actions    = [local.topic_arn]
}
