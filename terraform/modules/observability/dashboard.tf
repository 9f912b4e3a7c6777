locals {
  endpoint_metric = { for variant in local.service.variant_names : variant => ["EndpointName", local.service.endpoint_name, "VariantName", variant] }
  alias_metric    = flatten([for name, value in local.alias : [name, value]])
  function_name   = local.service.function_name

  # Percentiles of SageMaker's latencies, which it counts in microseconds, as milliseconds. Wrapped as `line`, or flatten would take the lines apart.
  latency = { for metric, percentiles in { ModelLatency = ["p50", "p95", "p99"], OverheadLatency = ["p50", "p99"] } : metric => flatten([
    for i, variant in local.service.variant_names : [
      for percentile in percentiles : [
        { line = [{ expression = "${percentile}v${i} / 1000", label = "${variant} ${percentile}" }] },
        { line = concat(["AWS/SageMaker", metric], local.endpoint_metric[variant], [{ id = "${percentile}v${i}", stat = percentile, visible = false }]) },
      ]
    ]
  ])[*].line }

  alarm_arn_prefix = "arn:${local.partition}:cloudwatch:${local.region}:${local.account}:alarm:"

  # Each row is as wide as the dashboard; its graphs share that width.
  rows = [
    [{ height = 3, alarms = concat(["${var.name}-service-unhealthy"], local.alarm_names, local.service.rollback_alarm_names), title = "Alarms" }],
    [
      { title = "Endpoint: requests a minute", stat = "Sum", metrics = [
        for variant, metric in local.endpoint_metric : concat(["AWS/SageMaker", "Invocations"], metric, [{ label = variant }])
      ] },
      { title = "Endpoint: model latency (ms)", metrics = local.latency.ModelLatency },
      { title = "Endpoint: SageMaker's overhead (ms)", metrics = local.latency.OverheadLatency },
    ],
    [
      { title = "Endpoint: refused (4xx) and failed (5xx)", stat = "Sum", metrics = flatten([
        for variant, metric in local.endpoint_metric : [
          for errors in ["Invocation4XXErrors", "Invocation5XXErrors"] : { line = concat(["AWS/SageMaker", errors], metric, [{ label = "${variant} ${substr(errors, 10, 3)}" }]) }
        ]
      ])[*].line },
      { title = "Endpoint: requests at once, per instance", stat = "Maximum", metrics = [
        for variant, metric in local.endpoint_metric : concat(["AWS/SageMaker", "ConcurrentRequestsPerModel"], metric, [{ label = variant }])
      ] },
      { title = "Endpoint: requests a minute, per instance", stat = "Sum", metrics = [
        for variant, metric in local.endpoint_metric : concat(["AWS/SageMaker", "InvocationsPerInstance"], metric, [{ label = variant }])
      ] },
    ],
    [
      { title = "Endpoint: instances", stat = "SampleCount", limits = local.service.max_capacity[*], metrics = [
        # SageMaker publishes no count; each instance reports its CPU once a minute.
        for variant, metric in local.endpoint_metric : concat(["/aws/sagemaker/Endpoints", "CPUUtilization"], metric, [{ label = variant }])
      ] },
      { title = "Endpoint: CPU (%, 100 for each core)", metrics = [
        for variant, metric in local.endpoint_metric : concat(["/aws/sagemaker/Endpoints", "CPUUtilization"], metric, [{ label = variant }])
      ] },
      { title = "Endpoint: memory (%)", stat = "Maximum", metrics = [
        for variant, metric in local.endpoint_metric : concat(["/aws/sagemaker/Endpoints", "MemoryUtilization"], metric, [{ label = variant }])
      ] },
    ],
    [
      { title = "Function: calls, errors, throttles", stat = "Sum", metrics = [
        for metric in ["Invocations", "Errors", "Throttles"] : concat(["AWS/Lambda", metric], local.alias_metric)
      ] },
      { title = "Function: duration (ms)", metrics = [
        for percentile in ["p50", "p99"] : concat(["AWS/Lambda", "Duration"], local.alias_metric, [{ stat = percentile, label = percentile }])
      ] },
      { title = "Function: where the time goes (ms)", stat = "p99", metrics = [
        for metric in ["FetchTime", "EndpointTime"] : ["Kennel", metric, "service", local.function_name]
      ] },
    ],
    [
      { title = "Function: answers", stat = "Sum", metrics = [
        for metric in ["Answered", "Refused", "Failed"] : ["Kennel", metric, "service", local.function_name]
      ] },
      { title = "Function: cold starts", stat = "Sum", metrics = [
        ["Kennel", "ColdStart", "function_name", local.function_name, "service", local.function_name],
        concat(["AWS/Lambda", "ProvisionedConcurrencySpilloverInvocations"], local.alias_metric),
      ] },
      { title = "Function: provisioned concurrency in use", stat = "Maximum", metrics = [
        concat(["AWS/Lambda", "ProvisionedConcurrencyUtilization"], local.alias_metric),
        concat(["AWS/Lambda", "ConcurrentExecutions"], local.alias_metric, [{ yAxis = "right" }]),
      ] },
    ],
    [{ title = "Last failures", query = join(" | ", concat(
      [for group in ["/aws/lambda/${local.function_name}", "/aws/sagemaker/Endpoints/${local.service.endpoint_name}"] : "SOURCE '${group}'"],
      ["fields @timestamp, @log, coalesce(message, @message)", "filter level in [\"ERROR\", \"CRITICAL\", \"error\"]", "sort @timestamp desc", "limit 20"],
    )) }],
    [
      # AWS publishes charges in this region only.
      { title = "Account: charges this month so far (USD)", region = "us-east-1", period = 21600, stat = "Maximum", metrics = concat(
        [["AWS/Billing", "EstimatedCharges", "Currency", "USD", { label = "all" }]],
        [for service in ["AmazonSageMaker", "AWSLambda", "AmazonCloudWatch", "AmazonS3"] : ["AWS/Billing", "EstimatedCharges", "ServiceName", service, "Currency", "USD", { label = service }]],
      ) },
      { markdown = coalesce(var.cost_markdown, "### Costs\nCost Explorer shows them by day and service; filter by the tag `project`.") },
    ],
  ]

  # One shape for all, since the members of a list have one type.
  widgets = flatten([for r, row in local.rows : [for w, widget in row : {
    x      = w * 24 / length(row)
    y      = sum(concat([0], [for above in slice(local.rows, 0, r) : try(above[0].height, 6)]))
    width  = 24 / length(row)
    height = try(widget.height, 6)
    type   = can(widget.alarms) ? "alarm" : can(widget.query) ? "log" : can(widget.markdown) ? "text" : "metric"
    properties = { for key, value in {
      title       = try(widget.title, null)
      alarms      = try([for name in widget.alarms : "${local.alarm_arn_prefix}${name}"], null)
      markdown    = try(widget.markdown, null)
      query       = try(widget.query, null)
      metrics     = try(widget.metrics, null)
      region      = can(widget.metrics) || can(widget.query) ? try(widget.region, local.region) : null
      stat        = can(widget.metrics) ? try(widget.stat, "Average") : null
      period      = can(widget.metrics) ? try(widget.period, 60) : null
      view        = can(widget.metrics) ? "timeSeries" : can(widget.query) ? "table" : null
      annotations = try(length(widget.limits) > 0 ? { horizontal = [for limit in widget.limits : { label = "max_capacity", value = limit }] } : null, null)
    } : key => value if value != null }
  }]])
}

resource "aws_cloudwatch_dashboard" "this" {
  count = local.has_service ? 1 : 0

  dashboard_name = var.name
  dashboard_body = jsonencode({ widgets = local.widgets })
}
