provider "aws" {
  region = "us-east-1"
}

variables {
  environment = "dev"
  name        = "kennel-dev-123456789012-us-east-1"
}

run "refuses_force_destroy_in_prod" {
  command = plan

  module {
    source = "./modules/bucket"
  }

  variables {
    environment   = "prod"
    force_destroy = true
  }

  expect_failures = [var.force_destroy]
}

run "refuses_a_bucket_that_logs_to_itself" {
  command = plan

  module {
    source = "./modules/bucket"
  }

  variables {
    access_log_bucket = { name = "kennel-dev-123456789012-us-east-1" }
  }

  expect_failures = [var.access_log_bucket]
}

run "refuses_a_log_prefix_without_slash" {
  command = plan

  module {
    source = "./modules/bucket"
  }

  variables {
    access_log_bucket = { name = "platform-access-logs", prefix = "kennel" }
  }

  expect_failures = [var.access_log_bucket]
}

run "refuses_an_environment_with_capitals" {
  command = plan

  module {
    source = "./modules/bucket"
  }

  variables {
    environment = "Prod"
  }

  expect_failures = [var.environment]
}

run "refuses_a_key_alias" {
  command = plan

  module {
    source = "./modules/bucket"
  }

  variables {
    kms_key_arn = "arn:aws:kms:us-east-1:123456789012:alias/kennel"
  }

  expect_failures = [var.kms_key_arn]
}

run "refuses_zero_days" {
  command = plan

  module {
    source = "./modules/bucket"
  }

  variables {
    lifecycle_days = { capture = 0 }
  }

  expect_failures = [var.lifecycle_days]
}

run "refuses_half_days" {
  command = plan

  module {
    source = "./modules/bucket"
  }

  variables {
    lifecycle_days = { noncurrent = 1.5 }
  }

  expect_failures = [var.lifecycle_days]
}

run "refuses_a_name_with_dots" {
  command = plan

  module {
    source = "./modules/bucket"
  }

  variables {
    name = "kennel.dev"
  }

  expect_failures = [var.name]
}

run "refuses_a_name_with_capitals" {
  command = plan

  module {
    source = "./modules/bucket"
  }

  variables {
    name = "Kennel-dev"
  }

  expect_failures = [var.name]
}

run "refuses_a_name_of_64_characters" {
  command = plan

  module {
    source = "./modules/bucket"
  }

  variables {
    name = "kennel-dev-kennel-dev-kennel-dev-kennel-dev-kennel-dev-kennel-de"
  }

  expect_failures = [var.name]
}

run "refuses_a_name_that_s3_keeps" {
  command = plan

  module {
    source = "./modules/bucket"
  }

  variables {
    name = "kennel-dev-s3alias"
  }

  expect_failures = [var.name]
}
