locals {
  function_name = "${var.name}-classify"
  alias_name    = "live"

  makes_queue = var.on_failure == "sqs"
  destination = local.makes_queue ? one(aws_sqs_queue.failed[*].arn) : (var.on_failure == "none" ? null : var.on_failure)
}

# Before the function, whose first call would else make the group without retention.
resource "aws_cloudwatch_log_group" "this" {
  #checkov:skip=CKV_AWS_158:CloudWatch encrypts every log group; kms_key_arn puts the owner's key in place of AWS's.
  #checkov:skip=CKV_AWS_338:The log holds request metadata for operation; how long to keep it is the owner's choice.
  name              = "/aws/lambda/${local.function_name}"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.kms_key_arn
}

resource "aws_lambda_function" "this" {
  #checkov:skip=CKV_AWS_115:Reserving takes concurrency from all other functions of the account; reserved_concurrency is the owner's choice.
  #checkov:skip=CKV_AWS_116:Failed asynchronous events go to an on-failure destination, which also records the response and the error.
  #checkov:skip=CKV_AWS_117:The function calls only SageMaker's public API and image hosts; in a VPC it would need a NAT gateway for that and gain nothing.
  #checkov:skip=CKV_AWS_173:Lambda encrypts the environment always; it holds names, no secrets, and kms_key_arn puts the owner's key in place.
  #checkov:skip=CKV_AWS_272:The zip is built by the same pipeline that applies; its hash is in the plan.
  function_name                  = local.function_name
  description                    = "Classifies an image by URL or content with the endpoint ${var.endpoint_name}"
  role                           = var.role_arn
  filename                       = var.zip_path
  source_code_hash               = filebase64sha256(var.zip_path)
  handler                        = "lambda_src.handler.handler"
  runtime                        = var.runtime
  architectures                  = [var.architecture]
  memory_size                    = var.memory_mb
  timeout                        = var.timeout_s
  reserved_concurrent_executions = var.reserved_concurrency == null ? -1 : var.reserved_concurrency
  kms_key_arn                    = var.kms_key_arn
  # An alias and provisioned concurrency need a version.
  publish = true

  environment {
    variables = merge(var.contact == "" ? {} : { KENNEL_CONTACT = var.contact }, {
      ENDPOINT_NAME                = var.endpoint_name
      KENNEL_ALLOWED_HOSTS         = join(",", var.allowed_hosts)
      POWERTOOLS_LOG_LEVEL         = var.log_level == "WARN" ? "WARNING" : var.log_level
      POWERTOOLS_METRICS_NAMESPACE = "Kennel"
      # The function's name, so that two environments in one account count apart.
      POWERTOOLS_SERVICE_NAME   = local.function_name
      POWERTOOLS_TRACE_DISABLED = tostring(!var.enable_xray)
    })
  }

  logging_config {
    log_group  = aws_cloudwatch_log_group.this.name
    log_format = "JSON"
    # Both levels, or every plan shows a change and every apply publishes a version.
    application_log_level = var.log_level
    system_log_level      = var.log_level
  }

  tracing_config {
    mode = var.enable_xray ? "Active" : "PassThrough"
  }
}

# No weights: Lambda refuses them together with provisioned concurrency.
resource "aws_lambda_alias" "this" {
  name = local.alias_name
  # By name: an ARN here makes a new alias with every plan.
  function_name    = aws_lambda_function.this.function_name
  function_version = aws_lambda_function.this.version
  description      = "The version that callers get"
}

resource "aws_lambda_function_event_invoke_config" "this" {
  function_name                = aws_lambda_alias.this.function_name
  qualifier                    = aws_lambda_alias.this.name
  maximum_event_age_in_seconds = var.async_invocation.max_age_s
  maximum_retry_attempts       = var.async_invocation.max_retries

  dynamic "destination_config" {
    for_each = var.on_failure == "none" ? [] : [local.destination]

    content {
      on_failure {
        destination = destination_config.value
      }
    }
  }
}
