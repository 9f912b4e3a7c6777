provider "aws" { region = "us-east-1" }

variables {
  name          = "kennel-dev"
  endpoint_name = "kennel-dev"
  role_arn      = "arn:aws:iam::123456789012:role/kennel-dev-lambda"
  # A plan hashes the file and does not look inside.
  zip_path = "./modules/inference_lambda/versions.tf"
}

run "defaults" {
  command = plan

  module {
    source = "./modules/inference_lambda"
  }

  assert {
    condition     = aws_lambda_function.this.function_name == "kennel-dev-classify" && aws_lambda_function.this.publish && aws_lambda_function.this.runtime == "python3.13" && aws_lambda_function.this.architectures == tolist(["arm64"])
    error_message = "The function is kennel-dev-classify, python3.13 on arm64, with a version."
  }

  assert {
    condition     = aws_lambda_function.this.source_code_hash == filebase64sha256("./modules/inference_lambda/versions.tf")
    error_message = "A changed zip must change the plan."
  }

  assert {
    condition     = aws_lambda_function.this.reserved_concurrent_executions == -1
    error_message = "No concurrency is reserved unless asked for."
  }

  assert {
    condition = aws_lambda_function.this.environment[0].variables == tomap({
      ENDPOINT_NAME                = "kennel-dev"
      KENNEL_ALLOWED_HOSTS         = ""
      POWERTOOLS_LOG_LEVEL         = "INFO"
      POWERTOOLS_METRICS_NAMESPACE = "Kennel"
      POWERTOOLS_SERVICE_NAME      = "kennel-dev-classify"
      POWERTOOLS_TRACE_DISABLED    = "false"
    })
    error_message = "The handler reads just these variables."
  }

  assert {
    condition     = aws_lambda_function.this.logging_config[0].application_log_level == "INFO" && aws_lambda_function.this.logging_config[0].system_log_level == "INFO" && aws_lambda_function.this.logging_config[0].log_format == "JSON"
    error_message = "JSON logging needs both levels, or every plan differs."
  }

  assert {
    condition     = aws_cloudwatch_log_group.this.name == "/aws/lambda/kennel-dev-classify" && aws_cloudwatch_log_group.this.retention_in_days == 30
    error_message = "The log group has Lambda's name and a retention."
  }

  assert {
    condition     = aws_lambda_function.this.tracing_config[0].mode == "Active"
    error_message = "X-Ray traces by default."
  }

  assert {
    condition     = aws_lambda_alias.this.name == "live" && aws_lambda_alias.this.function_name == "kennel-dev-classify" && length(aws_lambda_alias.this.routing_config) == 0
    error_message = "The alias names the function, not its ARN, and has no weights."
  }

  assert {
    condition     = aws_lambda_provisioned_concurrency_config.this[0].qualifier == "live" && aws_lambda_provisioned_concurrency_config.fixed[0].provisioned_concurrent_executions == 2 && aws_lambda_provisioned_concurrency_config.fixed[0].skip_destroy
    error_message = "Two executions of the alias are warm; the resource that holds the number must not delete the setting."
  }

  assert {
    condition     = !aws_lambda_provisioned_concurrency_config.this[0].skip_destroy
    error_message = "One resource deletes the setting, or warm environments stay and cost."
  }

  assert {
    condition     = length(aws_appautoscaling_target.this) == 0 && length(aws_lambda_function_url.this) == 0 && length(aws_lambda_permission.invoke) == 0 && length(aws_lambda_permission.public_url) == 0
    error_message = "No scaling, URL or permission unless asked for."
  }

  assert {
    condition     = aws_sqs_queue.failed[0].name == "kennel-dev-classify-failed" && aws_sqs_queue.failed[0].message_retention_seconds == 1209600 && aws_sqs_queue.failed[0].sqs_managed_sse_enabled
    error_message = "Failures are kept 14 days in an encrypted queue."
  }

  assert {
    condition     = aws_lambda_function_event_invoke_config.this.qualifier == "live" && aws_lambda_function_event_invoke_config.this.maximum_retry_attempts == 1 && aws_lambda_function_event_invoke_config.this.maximum_event_age_in_seconds == 300
    error_message = "Asynchronous events are tried twice within five minutes."
  }

  assert {
    condition     = output.invoke_command == "echo '{\"url\": \"https://example.com/dog.jpg\"}' | aws lambda invoke --function-name kennel-dev-classify --qualifier live --payload fileb:///dev/stdin answer.json"
    error_message = "The next command goes through the alias."
  }

  assert {
    condition     = output.function_url == null
    error_message = "Without a URL the output is null."
  }
}

run "queue_takes_tls_only" {
  command = plan

  module {
    source = "./modules/inference_lambda"
  }

  assert {
    condition = [for statement in jsondecode(aws_sqs_queue.failed[0].policy).Statement : [statement.Effect, statement.Principal, statement.Action, statement.Resource, statement.Condition]] == [
      ["Deny", "*", "sqs:*", "arn:aws:sqs:us-east-1:123456789012:kennel-dev-classify-failed", { Bool = { "aws:SecureTransport" = "false" } }]
    ]
    error_message = "The queue refuses plain HTTP."
  }
}

run "own_key" {
  command = plan

  module {
    source = "./modules/inference_lambda"
  }

  variables {
    kms_key_arn = "arn:aws:kms:us-east-1:123456789012:key/1234"
  }

  assert {
    condition     = alltrue([for arn in [aws_cloudwatch_log_group.this.kms_key_id, aws_lambda_function.this.kms_key_arn, aws_sqs_queue.failed[0].kms_master_key_id] : arn == "arn:aws:kms:us-east-1:123456789012:key/1234"])
    error_message = "Log, environment and queue use the key."
  }
}

run "settings" {
  command = plan

  module {
    source = "./modules/inference_lambda"
  }

  variables {
    allowed_hosts        = ["images.example.com", "cdn.example.org"]
    architecture         = "x86_64"
    async_invocation     = { max_age_s = 60, max_retries = 0 }
    contact              = "https://example.com/bot"
    enable_xray          = false
    log_level            = "WARN"
    memory_mb            = 1024
    reserved_concurrency = 2
    timeout_s            = 60
  }

  assert {
    condition     = aws_lambda_function.this.environment[0].variables.KENNEL_ALLOWED_HOSTS == "images.example.com,cdn.example.org" && aws_lambda_function.this.environment[0].variables.KENNEL_CONTACT == "https://example.com/bot" && aws_lambda_function.this.environment[0].variables.POWERTOOLS_TRACE_DISABLED == "true" && aws_lambda_function.this.environment[0].variables.POWERTOOLS_LOG_LEVEL == "WARNING"
    error_message = "The handler is told of hosts, contact, tracing and level."
  }

  assert {
    condition     = aws_lambda_function.this.reserved_concurrent_executions == 2 && aws_lambda_function.this.tracing_config[0].mode == "PassThrough" && aws_lambda_function.this.memory_size == 1024 && aws_lambda_function.this.timeout == 60
    error_message = "The function takes its settings."
  }

  assert {
    condition     = aws_lambda_function_event_invoke_config.this.maximum_retry_attempts == 0 && aws_lambda_function_event_invoke_config.this.maximum_event_age_in_seconds == 60
    error_message = "The alias takes the settings for asynchronous events."
  }
}

run "reserved_zero_stops_the_function" {
  command = plan

  module {
    source = "./modules/inference_lambda"
  }

  variables {
    provisioned_concurrency = { executions = 0 }
    reserved_concurrency    = 0
  }

  assert {
    condition     = aws_lambda_function.this.reserved_concurrent_executions == 0
    error_message = "Zero is a choice, not an absence."
  }
}

run "nothing_warm" {
  command = plan

  module {
    source = "./modules/inference_lambda"
  }

  variables {
    provisioned_concurrency = { executions = 0 }
  }

  assert {
    condition     = length(aws_lambda_provisioned_concurrency_config.this) == 0 && length(aws_lambda_provisioned_concurrency_config.fixed) == 0
    error_message = "executions = 0 keeps nothing warm."
  }
}

run "scaled" {
  command = plan

  module {
    source = "./modules/inference_lambda"
  }

  variables {
    provisioned_concurrency = { executions = 1, autoscaling = { max = 8 } }
  }

  assert {
    condition     = length(aws_lambda_provisioned_concurrency_config.fixed) == 0 && length(aws_lambda_provisioned_concurrency_config.this) == 1
    error_message = "Nothing holds the number that scaling moves."
  }

  assert {
    condition     = aws_appautoscaling_target.this[0].resource_id == "function:kennel-dev-classify:live" && aws_appautoscaling_target.this[0].min_capacity == 1 && aws_appautoscaling_target.this[0].max_capacity == 8
    error_message = "The target is the alias, from executions to max."
  }

  assert {
    condition     = aws_appautoscaling_policy.this[0].target_tracking_scaling_policy_configuration[0].target_value == 0.7 && aws_appautoscaling_policy.this[0].target_tracking_scaling_policy_configuration[0].predefined_metric_specification[0].predefined_metric_type == "LambdaProvisionedConcurrencyUtilization"
    error_message = "The policy holds 70 % in use."
  }
}

run "scheduled" {
  command = plan

  module {
    source = "./modules/inference_lambda"
  }

  variables {
    provisioned_concurrency = {
      executions = 4
      schedule = {
        evening = { cron = "cron(0 20 * * ? *)", min = 0, max = 0, timezone = "Europe/Berlin" }
        morning = { cron = "cron(0 7 * * ? *)", min = 4, max = 4, timezone = "Europe/Berlin" }
      }
    }
  }

  assert {
    condition     = aws_appautoscaling_target.this[0].min_capacity == 4 && aws_appautoscaling_target.this[0].max_capacity == 4 && length(aws_appautoscaling_policy.this) == 0 && length(aws_lambda_provisioned_concurrency_config.fixed) == 0
    error_message = "A schedule alone has a target with fixed bounds."
  }

  assert {
    condition     = aws_appautoscaling_scheduled_action.this["evening"].name == "kennel-dev-classify-evening" && aws_appautoscaling_scheduled_action.this["evening"].scalable_target_action[0].max_capacity == "0" && aws_appautoscaling_scheduled_action.this["evening"].timezone == "Europe/Berlin"
    error_message = "The evening keeps nothing warm."
  }
}

run "failures_elsewhere" {
  command = plan

  module {
    source = "./modules/inference_lambda"
  }

  variables {
    on_failure = "arn:aws:sns:us-east-1:123456789012:failures"
  }

  assert {
    condition     = length(aws_sqs_queue.failed) == 0 && aws_lambda_function_event_invoke_config.this.destination_config[0].on_failure[0].destination == "arn:aws:sns:us-east-1:123456789012:failures"
    error_message = "A given destination is used and no queue is made."
  }

  assert {
    condition     = output.dead_letter_queue_arn == null && output.dead_letter_queue_name == null
    error_message = "There is no queue of the module's."
  }
}

run "failures_dropped" {
  command = plan

  module {
    source = "./modules/inference_lambda"
  }

  variables {
    on_failure = "none"
  }

  assert {
    condition     = length(aws_sqs_queue.failed) == 0 && length(aws_lambda_function_event_invoke_config.this.destination_config) == 0
    error_message = "\"none\" has no destination."
  }
}

run "signed_url" {
  command = plan

  module {
    source = "./modules/inference_lambda"
  }

  variables {
    function_url = { cors = { allow_origins = ["https://app.example.com"] } }
    invoker_arns = ["arn:aws:iam::123456789012:role/web"]
  }

  assert {
    condition     = aws_lambda_function_url.this[0].authorization_type == "AWS_IAM" && aws_lambda_function_url.this[0].qualifier == "live"
    error_message = "The URL leads to the alias and wants signed requests."
  }

  assert {
    condition     = aws_lambda_function_url.this[0].cors[0].allow_origins == toset(["https://app.example.com"]) && aws_lambda_function_url.this[0].cors[0].allow_methods == toset(["POST"])
    error_message = "Browsers may POST from the named origin."
  }

  assert {
    condition     = [for permission in values(aws_lambda_permission.invoke) : [permission.action, permission.principal, permission.qualifier]] == [["lambda:InvokeFunction", "arn:aws:iam::123456789012:role/web", "live"]]
    error_message = "The caller may invoke the alias."
  }

  assert {
    condition     = [for permission in values(aws_lambda_permission.invoke_url) : [permission.action, permission.function_url_auth_type, permission.qualifier]] == [["lambda:InvokeFunctionUrl", "AWS_IAM", "live"]]
    error_message = "The caller may invoke by URL."
  }

  assert {
    condition     = length(aws_lambda_permission.public_url) == 0
    error_message = "A signed URL is not public."
  }
}

run "public_url" {
  command = plan

  module {
    source = "./modules/inference_lambda"
  }

  variables {
    function_url = { auth = "NONE" }
    invoker_arns = ["arn:aws:iam::123456789012:role/web"]
  }

  assert {
    condition     = aws_lambda_permission.public_url[0].principal == "*" && aws_lambda_permission.public_url[0].action == "lambda:InvokeFunctionUrl" && aws_lambda_permission.public_url[0].function_url_auth_type == "NONE" && aws_lambda_permission.public_url[0].qualifier == "live"
    error_message = "A public URL has its permission on the alias."
  }

  assert {
    condition     = length(aws_lambda_permission.invoke_url) == 0 && length(aws_lambda_function_url.this[0].cors) == 0
    error_message = "No second statement for the URL, and no page may call it without cors."
  }
}
