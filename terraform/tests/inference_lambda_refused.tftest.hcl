provider "aws" { region = "us-east-1" }

variables {
  name          = "kennel-dev"
  endpoint_name = "kennel-dev"
  role_arn      = "arn:aws:iam::123456789012:role/kennel-dev-lambda"
  zip_path      = "./modules/inference_lambda/variables.tf"
}

run "url_as_host" {
  command = plan

  module {
    source = "./modules/inference_lambda"
  }

  variables {
    allowed_hosts = ["https://images.example.com"]
  }

  expect_failures = [var.allowed_hosts]
}

run "unknown_architecture" {
  command = plan

  module {
    source = "./modules/inference_lambda"
  }

  variables {
    architecture = "arm"
  }

  expect_failures = [var.architecture]
}

run "contact_in_words" {
  command = plan

  module {
    source = "./modules/inference_lambda"
  }

  variables {
    contact = "ask the platform team"
  }

  expect_failures = [var.contact]
}

run "event_too_old" {
  command = plan

  module {
    source = "./modules/inference_lambda"
  }

  variables {
    async_invocation = { max_age_s = 21601 }
  }

  expect_failures = [var.async_invocation]
}

run "too_many_retries" {
  command = plan

  module {
    source = "./modules/inference_lambda"
  }

  variables {
    async_invocation = { max_retries = 3 }
  }

  expect_failures = [var.async_invocation]
}

run "endpoint_by_arn" {
  command = plan

  module {
    source = "./modules/inference_lambda"
  }

  variables {
    endpoint_name = "arn:aws:sagemaker:us-east-1:123456789012:endpoint/kennel-dev"
  }

  expect_failures = [var.endpoint_name]
}

run "unknown_auth" {
  command = plan

  module {
    source = "./modules/inference_lambda"
  }

  variables {
    function_url = { auth = "none" }
  }

  expect_failures = [var.function_url]
}

run "wildcard_beside_origins" {
  command = plan

  module {
    source = "./modules/inference_lambda"
  }

  variables {
    function_url = { cors = { allow_origins = ["*", "https://app.example.com"] } }
  }

  expect_failures = [var.function_url]
}

run "wildcard_in_origin" {
  command = plan

  module {
    source = "./modules/inference_lambda"
  }

  variables {
    function_url = { cors = { allow_origins = ["https://*.example.com"] } }
  }

  expect_failures = [var.function_url]
}

run "no_origins" {
  command = plan

  module {
    source = "./modules/inference_lambda"
  }

  variables {
    function_url = { cors = { allow_origins = [] } }
  }

  expect_failures = [var.function_url]
}

run "preflight_kept_too_long" {
  command = plan

  module {
    source = "./modules/inference_lambda"
  }

  variables {
    function_url = { cors = { allow_origins = ["*"], max_age_s = 86401 } }
  }

  expect_failures = [var.function_url]
}

run "service_as_invoker" {
  command = plan

  module {
    source = "./modules/inference_lambda"
  }

  variables {
    invoker_arns = ["events.amazonaws.com"]
  }

  expect_failures = [var.invoker_arns]
}

run "key_by_alias" {
  command = plan

  module {
    source = "./modules/inference_lambda"
  }

  variables {
    kms_key_arn = "alias/kennel"
  }

  expect_failures = [var.kms_key_arn]
}

run "unknown_log_level" {
  command = plan

  module {
    source = "./modules/inference_lambda"
  }

  variables {
    log_level = "WARNING"
  }

  expect_failures = [var.log_level]
}

run "odd_retention" {
  command = plan

  module {
    source = "./modules/inference_lambda"
  }

  variables {
    log_retention_days = 45
  }

  expect_failures = [var.log_retention_days]
}

run "little_memory" {
  command = plan

  module {
    source = "./modules/inference_lambda"
  }

  variables {
    memory_mb = 64
  }

  expect_failures = [var.memory_mb]
}

run "upper_case_name" {
  command = plan

  module {
    source = "./modules/inference_lambda"
  }

  variables {
    name = "Kennel"
  }

  expect_failures = [var.name]
}

run "unknown_failure_target" {
  command = plan

  module {
    source = "./modules/inference_lambda"
  }

  variables {
    on_failure = "dlq"
  }

  expect_failures = [var.on_failure]
}

run "half_an_execution" {
  command = plan

  module {
    source = "./modules/inference_lambda"
  }

  variables {
    provisioned_concurrency = { executions = 1.5 }
  }

  expect_failures = [var.provisioned_concurrency]
}

run "scaling_of_nothing" {
  command = plan

  module {
    source = "./modules/inference_lambda"
  }

  variables {
    provisioned_concurrency = { executions = 0, autoscaling = { max = 2 } }
  }

  expect_failures = [var.provisioned_concurrency]
}

run "maximum_below_minimum" {
  command = plan

  module {
    source = "./modules/inference_lambda"
  }

  variables {
    provisioned_concurrency = { executions = 3, autoscaling = { max = 2 } }
  }

  expect_failures = [var.provisioned_concurrency]
}

run "utilization_in_percent" {
  command = plan

  module {
    source = "./modules/inference_lambda"
  }

  variables {
    provisioned_concurrency = { autoscaling = { max = 4, target_utilization = 70 } }
  }

  expect_failures = [var.provisioned_concurrency]
}

run "unix_cron" {
  command = plan

  module {
    source = "./modules/inference_lambda"
  }

  variables {
    provisioned_concurrency = { schedule = { night = { cron = "0 20 * * *", min = 0, max = 0 } } }
  }

  expect_failures = [var.provisioned_concurrency]
}

run "schedule_upside_down" {
  command = plan

  module {
    source = "./modules/inference_lambda"
  }

  variables {
    provisioned_concurrency = { schedule = { night = { cron = "cron(0 20 * * ? *)", min = 2, max = 1 } } }
  }

  expect_failures = [var.provisioned_concurrency]
}

run "negative_reserve" {
  command = plan

  module {
    source = "./modules/inference_lambda"
  }

  variables {
    reserved_concurrency = -1
  }

  expect_failures = [var.reserved_concurrency]
}

run "reserve_below_warm" {
  command = plan

  module {
    source = "./modules/inference_lambda"
  }

  variables {
    reserved_concurrency = 1
  }

  expect_failures = [var.reserved_concurrency]
}

run "old_runtime" {
  command = plan

  module {
    source = "./modules/inference_lambda"
  }

  variables {
    runtime = "python3.9"
  }

  expect_failures = [var.runtime]
}

run "no_time" {
  command = plan

  module {
    source = "./modules/inference_lambda"
  }

  variables {
    timeout_s = 1
  }

  expect_failures = [var.timeout_s]
}

run "no_zip" {
  command = plan

  module {
    source = "./modules/inference_lambda"
  }

  variables {
    zip_path = "./no-such.zip"
  }

  expect_failures = [var.zip_path]
}

run "reserve_below_scaled" {
  command = plan

  module {
    source = "./modules/inference_lambda"
  }

  variables {
    provisioned_concurrency = { autoscaling = { max = 8 } }
    reserved_concurrency    = 4
  }

  expect_failures = [var.reserved_concurrency]
}
