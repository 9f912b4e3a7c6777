provider "aws" { region = "us-east-1" }

variables {
  name = "kennel-dev"
}

run "no_address" {
  command = plan

  module {
    source = "./modules/observability"
  }

  variables {
    alarm_emails = ["team"]
  }

  expect_failures = [var.alarm_emails]
}

run "free_budget" {
  command = plan

  module {
    source = "./modules/observability"
  }

  variables {
    budget = { limit_usd = 0 }
  }

  expect_failures = [var.budget]
}

run "budget_for_nobody" {
  command = plan

  module {
    source = "./modules/observability"
  }

  variables {
    budget = { limit_usd = 1, emails = ["boss"] }
  }

  expect_failures = [var.budget]
}

run "log_group_with_space" {
  command = plan

  module {
    source = "./modules/observability"
  }

  variables {
    job_log_groups = ["/aws/sagemaker/Training Jobs"]
  }

  expect_failures = [var.job_log_groups]
}

run "key_by_alias" {
  command = plan

  module {
    source = "./modules/observability"
  }

  variables {
    kms_key_arn = "alias/aws/sns"
  }

  expect_failures = [var.kms_key_arn]
}

run "odd_retention" {
  command = plan

  module {
    source = "./modules/observability"
  }

  variables {
    log_retention_days = 31
  }

  expect_failures = [var.log_retention_days]
}

run "long_name" {
  command = plan

  module {
    source = "./modules/observability"
  }

  variables {
    name = "kennel-development-of-the-second-team"
  }

  expect_failures = [var.name]
}

run "no_variants" {
  command = plan

  module {
    source = "./modules/observability"
  }

  variables {
    service = { alias_name = "live", endpoint_name = "kennel-dev", function_name = "kennel-dev-classify", variant_names = [] }
  }

  expect_failures = [var.service]
}

run "no_capacity" {
  command = plan

  module {
    source = "./modules/observability"
  }

  variables {
    service = { alias_name = "live", endpoint_name = "kennel-dev", function_name = "kennel-dev-classify", variant_names = ["main"], max_capacity = 0 }
  }

  expect_failures = [var.service]
}

run "hundred_percent" {
  command = plan

  module {
    source = "./modules/observability"
  }

  variables {
    thresholds = { endpoint_error_percent = 100 }
  }

  expect_failures = [var.thresholds]
}

run "beyond_the_timeout" {
  command = plan

  module {
    source = "./modules/observability"
  }

  variables {
    thresholds = { endpoint_latency_ms = 60000 }
  }

  expect_failures = [var.thresholds]
}

run "topic_by_name" {
  command = plan

  module {
    source = "./modules/observability"
  }

  variables {
    topic_arn = "kennel-dev-alarms"
  }

  expect_failures = [var.topic_arn]
}

run "subscribers_of_another_topic" {
  command = plan

  module {
    source = "./modules/observability"
  }

  variables {
    alarm_emails = ["team@example.com"]
    topic_arn    = "arn:aws:sns:us-east-1:123456789012:kennel-dev-alarms"
  }

  expect_failures = [var.alarm_emails]
}
