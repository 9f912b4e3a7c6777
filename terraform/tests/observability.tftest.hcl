provider "aws" { region = "us-east-1" }

variables {
  name = "kennel-dev"

  service = {
    alias_name             = "live"
    dead_letter_queue_name = "kennel-dev-classify-failed"
    endpoint_name          = "kennel-dev"
    function_name          = "kennel-dev-classify"
    max_capacity           = 4
    rollback_alarm_names   = ["kennel-dev-rollback-errors"]
    variant_names          = ["blue", "green"]
  }
}

run "foundation" {
  command = plan

  module {
    source = "./modules/observability"
  }

  variables {
    alarm_emails   = ["team@example.com"]
    budget         = { limit_usd = 200, emails = ["boss@example.com"], tag = { key = "project", value = "kennel" } }
    job_log_groups = ["/aws/sagemaker/TrainingJobs", "/aws/sagemaker/NotebookInstances"]
    service        = null
  }

  assert {
    condition     = aws_sns_topic.this[0].name == "kennel-dev-alarms" && aws_sns_topic.this[0].kms_master_key_id == null && aws_sns_topic_subscription.email["team@example.com"].protocol == "email"
    error_message = "A topic and its subscription."
  }

  assert {
    condition     = { for group in values(aws_cloudwatch_log_group.jobs) : group.name => group.retention_in_days } == { "/aws/sagemaker/NotebookInstances" = 30, "/aws/sagemaker/TrainingJobs" = 30 }
    error_message = "The log groups of jobs have a retention."
  }

  assert {
    condition     = aws_budgets_budget.this[0].name == "kennel-dev" && aws_budgets_budget.this[0].limit_amount == "200" && aws_budgets_budget.this[0].time_unit == "MONTHLY" && one(aws_budgets_budget.this[0].cost_filter).values == tolist(["user:project$kennel"])
    error_message = "The budget is monthly and counts what carries the project's tag."
  }

  assert {
    condition     = { for notification in aws_budgets_budget.this[0].notification : notification.notification_type => notification.threshold } == { ACTUAL = 80, FORECASTED = 100 }
    error_message = "The budget reports 80 % spent and a forecast above 100 %."
  }

  assert {
    condition     = alltrue([for notification in aws_budgets_budget.this[0].notification : notification.subscriber_email_addresses == toset(["boss@example.com"])])
    error_message = "The budget writes to its addresses."
  }

  assert {
    condition     = length(aws_cloudwatch_dashboard.this) + length(aws_cloudwatch_composite_alarm.unhealthy) + length(aws_cloudwatch_metric_alarm.health) + length(aws_cloudwatch_metric_alarm.warning) + length(aws_cloudwatch_metric_alarm.capacity) == 0
    error_message = "Without a service there is nothing to watch."
  }

  assert {
    condition     = output.dashboard_name == null && output.dashboard_url == null && output.unhealthy_alarm_arn == null && length(output.alarm_names) == 0
    error_message = "Without a service there are no names of it."
  }
}

run "topic_policy" {
  command = plan

  module {
    source = "./modules/observability"
  }

  assert {
    condition = { for statement in jsondecode(aws_sns_topic_policy.this[0].policy).Statement : statement.Sid => [statement.Effect, statement.Principal, statement.Action, statement.Resource, statement.Condition] } == {
      AlarmsOfThisProject = ["Allow", { Service = "cloudwatch.amazonaws.com" }, "sns:Publish", "arn:aws:sns:us-east-1:123456789012:kennel-dev-alarms", {
        ArnLike      = { "aws:SourceArn" = "arn:aws:cloudwatch:us-east-1:123456789012:alarm:kennel-dev-*" }
        StringEquals = { "aws:SourceAccount" = "123456789012" }
      }]
      BudgetsOfThisAccount = ["Allow", { Service = "budgets.amazonaws.com" }, "sns:Publish", "arn:aws:sns:us-east-1:123456789012:kennel-dev-alarms", {
        ArnLike      = { "aws:SourceArn" = "arn:aws:budgets::123456789012:*" }
        StringEquals = { "aws:SourceAccount" = "123456789012" }
      }]
      DenyPlainHttp = ["Deny", "*", "sns:Publish", "arn:aws:sns:us-east-1:123456789012:kennel-dev-alarms", {
        Bool = { "aws:SecureTransport" = "false" }
      }]
    }
    error_message = "Only this project's alarms and this account's budgets write to the topic, over TLS."
  }
}

run "serving" {
  command = plan

  module {
    source = "./modules/observability"
  }

  variables {
    topic_arn = "arn:aws:sns:us-east-1:123456789012:kennel-dev-alarms"
  }

  assert {
    condition     = length(aws_sns_topic.this) == 0 && length(aws_sns_topic_policy.this) == 0 && output.topic_arn == "arn:aws:sns:us-east-1:123456789012:kennel-dev-alarms"
    error_message = "A given topic is used and none is made."
  }

  assert {
    condition = toset(output.alarm_names) == toset([
      "kennel-dev-dead-letters",
      "kennel-dev-endpoint-at-capacity",
      "kennel-dev-endpoint-errors",
      "kennel-dev-endpoint-latency",
      "kennel-dev-function-failures",
      "kennel-dev-function-spillover",
      "kennel-dev-function-throttles",
    ])
    error_message = "These alarms watch the service."
  }

  assert {
    condition     = toset(output.alarm_names) == toset(concat(values(aws_cloudwatch_metric_alarm.health)[*].alarm_name, values(aws_cloudwatch_metric_alarm.warning)[*].alarm_name, aws_cloudwatch_metric_alarm.capacity[*].alarm_name))
    error_message = "The output names the alarms there are."
  }

  assert {
    condition     = aws_cloudwatch_composite_alarm.unhealthy[0].alarm_rule == join(" OR ", [for alarm in ["endpoint-errors", "endpoint-latency", "function-failures", "function-throttles", "rollback-errors"] : "ALARM(\"kennel-dev-${alarm}\")"])
    error_message = "The service is unhealthy when callers get no or late answers, and while a release rolls back."
  }

  assert {
    condition     = aws_cloudwatch_composite_alarm.unhealthy[0].alarm_name == "kennel-dev-service-unhealthy" && aws_cloudwatch_composite_alarm.unhealthy[0].alarm_actions == toset(["arn:aws:sns:us-east-1:123456789012:kennel-dev-alarms"])
    error_message = "The composite alarm writes to the topic."
  }

  assert {
    condition     = alltrue([for alarm in concat(values(aws_cloudwatch_metric_alarm.warning), aws_cloudwatch_metric_alarm.capacity) : alarm.alarm_actions == toset(["arn:aws:sns:us-east-1:123456789012:kennel-dev-alarms"])])
    error_message = "Warnings write to the topic themselves."
  }

  assert {
    condition     = alltrue([for alarm in values(aws_cloudwatch_metric_alarm.health) : alarm.alarm_actions == null && alarm.treat_missing_data == "notBreaching"])
    error_message = "What the composite alarm reports is not reported twice, and no calls are no trouble."
  }

  assert {
    condition = { for query in aws_cloudwatch_metric_alarm.health["endpoint-errors"].metric_query : query.id => query.expression == "" ? "${query.metric[0].metric_name} ${query.metric[0].dimensions.VariantName} ${query.metric[0].stat}" : query.expression } == {
      result    = "100 * (FILL(errors0, 0) + FILL(errors1, 0)) / (FILL(requests0, 0) + FILL(requests1, 0))"
      errors0   = "Invocation5XXErrors blue Sum"
      errors1   = "Invocation5XXErrors green Sum"
      requests0 = "Invocations blue Sum"
      requests1 = "Invocations green Sum"
    }
    error_message = "The endpoint's error rate counts all variants."
  }

  assert {
    condition     = toset([for query in aws_cloudwatch_metric_alarm.health["endpoint-latency"].metric_query : query.metric[0].stat if query.expression == ""]) == toset(["p99"]) && aws_cloudwatch_metric_alarm.health["endpoint-latency"].threshold == 1000
    error_message = "The 99th percentile of latency is watched, in ms."
  }

  assert {
    condition     = { for query in aws_cloudwatch_metric_alarm.capacity[0].metric_query : query.id => query.metric[0].stat if query.expression == "" } == { instances0 = "SampleCount", instances1 = "SampleCount" } && aws_cloudwatch_metric_alarm.capacity[0].threshold == 4 && aws_cloudwatch_metric_alarm.capacity[0].evaluation_periods == 15
    error_message = "Fifteen minutes with the most instances are reported."
  }
}

run "dashboard" {
  command = plan

  module {
    source = "./modules/observability"
  }

  variables {
    cost_markdown = "| Resource | USD |"
  }

  assert {
    condition     = aws_cloudwatch_dashboard.this[0].dashboard_name == "kennel-dev" && output.dashboard_url == "https://us-east-1.console.aws.amazon.com/cloudwatch/home?region=us-east-1#dashboards/dashboard/kennel-dev"
    error_message = "The dashboard has the project's name and an address."
  }

  assert {
    condition = alltrue(flatten([for i, a in jsondecode(aws_cloudwatch_dashboard.this[0].dashboard_body).widgets : [
      for j, b in jsondecode(aws_cloudwatch_dashboard.this[0].dashboard_body).widgets :
      i == j || a.x + a.width <= b.x || b.x + b.width <= a.x || a.y + a.height <= b.y || b.y + b.height <= a.y
    ]]))
    error_message = "Widgets overlap."
  }

  assert {
    condition     = alltrue([for widget in jsondecode(aws_cloudwatch_dashboard.this[0].dashboard_body).widgets : widget.x >= 0 && widget.x + widget.width <= 24 && widget.width >= 1 && widget.height >= 1])
    error_message = "A widget is outside the dashboard's 24 columns."
  }

  # Names and dimensions as AWS and the function publish them.
  assert {
    condition = toset(flatten([
      for widget in jsondecode(aws_cloudwatch_dashboard.this[0].dashboard_body).widgets : [
        for metric in try(widget.properties.metrics, []) :
        join(" ", concat([metric[0], metric[1]], [for i, word in slice(metric, 2, length(metric)) : word if i % 2 == 0 && can(tostring(word))]))
        if can(tostring(metric[0]))
      ]
      ])) == toset([
      "/aws/sagemaker/Endpoints CPUUtilization EndpointName VariantName",
      "/aws/sagemaker/Endpoints MemoryUtilization EndpointName VariantName",
      "AWS/Billing EstimatedCharges Currency",
      "AWS/Billing EstimatedCharges ServiceName Currency",
      "AWS/Lambda ConcurrentExecutions FunctionName Resource",
      "AWS/Lambda Duration FunctionName Resource",
      "AWS/Lambda Errors FunctionName Resource",
      "AWS/Lambda Invocations FunctionName Resource",
      "AWS/Lambda ProvisionedConcurrencySpilloverInvocations FunctionName Resource",
      "AWS/Lambda ProvisionedConcurrencyUtilization FunctionName Resource",
      "AWS/Lambda Throttles FunctionName Resource",
      "AWS/SageMaker ConcurrentRequestsPerModel EndpointName VariantName",
      "AWS/SageMaker Invocation4XXErrors EndpointName VariantName",
      "AWS/SageMaker Invocation5XXErrors EndpointName VariantName",
      "AWS/SageMaker Invocations EndpointName VariantName",
      "AWS/SageMaker InvocationsPerInstance EndpointName VariantName",
      "AWS/SageMaker ModelLatency EndpointName VariantName",
      "AWS/SageMaker OverheadLatency EndpointName VariantName",
      "Kennel Answered service",
      "Kennel ColdStart function_name service",
      "Kennel EndpointTime service",
      "Kennel Failed service",
      "Kennel FetchTime service",
      "Kennel Refused service",
    ])
    error_message = "A widget shows a metric that nobody publishes."
  }

  assert {
    condition = toset(flatten([
      for widget in jsondecode(aws_cloudwatch_dashboard.this[0].dashboard_body).widgets : [
        for metric in try(widget.properties.metrics, []) :
        [for i, word in slice(metric, 2, length(metric)) : word if i % 2 == 1 && can(tostring(word))]
        if can(tostring(metric[0])) && try(metric[0] != "AWS/Billing", false)
      ]
    ])) == toset(["blue", "green", "kennel-dev", "kennel-dev-classify", "kennel-dev-classify:live"])
    error_message = "A widget shows something else than this service."
  }

  # Each expression of a graph names a metric of the same graph.
  assert {
    condition = alltrue(flatten([
      for widget in jsondecode(aws_cloudwatch_dashboard.this[0].dashboard_body).widgets : [
        for metric in try(widget.properties.metrics, []) :
        contains([for other in widget.properties.metrics : try(other[length(other) - 1].id, "")], split(" ", metric[0].expression)[0])
        if !can(tostring(metric[0]))
      ]
    ]))
    error_message = "An expression names no metric of its graph."
  }

  assert {
    condition = toset(flatten([for widget in jsondecode(aws_cloudwatch_dashboard.this[0].dashboard_body).widgets : try(widget.properties.alarms, [])])) == toset([
      for name in concat(output.alarm_names, ["kennel-dev-service-unhealthy", "kennel-dev-rollback-errors"]) : "arn:aws:cloudwatch:us-east-1:123456789012:alarm:${name}"
    ])
    error_message = "The dashboard shows every alarm."
  }

  assert {
    condition     = contains([for widget in jsondecode(aws_cloudwatch_dashboard.this[0].dashboard_body).widgets : try(widget.properties.markdown, "")], "| Resource | USD |")
    error_message = "The table of costs is shown."
  }
}

run "little_service" {
  command = plan

  module {
    source = "./modules/observability"
  }

  variables {
    service = {
      alias_name              = "live"
      endpoint_name           = "kennel-dev"
      function_name           = "kennel-dev-classify"
      provisioned_concurrency = false
      variant_names           = ["main"]
    }
    thresholds = { endpoint_error_percent = 5, endpoint_latency_ms = 250, function_failure_percent = 2 }
  }

  assert {
    condition     = length(aws_cloudwatch_metric_alarm.warning) == 0 && length(aws_cloudwatch_metric_alarm.capacity) == 0 && length(output.alarm_names) == 4
    error_message = "What the service lacks is not watched."
  }

  assert {
    condition     = { for key, alarm in aws_cloudwatch_metric_alarm.health : key => alarm.threshold } == { endpoint-errors = 5, endpoint-latency = 250, function-failures = 2, function-throttles = 0 }
    error_message = "The thresholds are taken."
  }

  assert {
    condition     = alltrue([for widget in jsondecode(aws_cloudwatch_dashboard.this[0].dashboard_body).widgets : !can(widget.properties.annotations)])
    error_message = "Without scaling there is no line for the most instances."
  }
}

run "own_key" {
  command = plan

  module {
    source = "./modules/observability"
  }

  variables {
    job_log_groups = ["/aws/sagemaker/TrainingJobs"]
    kms_key_arn    = "arn:aws:kms:us-east-1:123456789012:key/1234"
  }

  assert {
    condition     = aws_sns_topic.this[0].kms_master_key_id == "arn:aws:kms:us-east-1:123456789012:key/1234" && aws_cloudwatch_log_group.jobs["/aws/sagemaker/TrainingJobs"].kms_key_id == "arn:aws:kms:us-east-1:123456789012:key/1234"
    error_message = "Topic and log groups use the key."
  }
}
