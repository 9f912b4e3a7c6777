provider "aws" {
  region = "us-east-1"
}

variables {
  bucket = {
    arn  = "arn:aws:s3:::kennel-dev-123456789012-us-east-1"
    name = "kennel-dev-123456789012-us-east-1"
  }
  name = "kennel-dev"
}

run "refuses_the_arn_of_another_bucket" {
  command = plan

  module {
    source = "./modules/registry"
  }

  variables {
    bucket = { arn = "arn:aws:s3:::theirs", name = "ours" }
  }

  expect_failures = [var.bucket]
}

run "refuses_a_timeout_below_the_limit" {
  command = plan

  module {
    source = "./modules/registry"
  }

  variables {
    build_timeout_minutes = 4
  }

  expect_failures = [var.build_timeout_minutes]
}

run "refuses_to_keep_one_image" {
  command = plan

  module {
    source = "./modules/registry"
  }

  variables {
    keep_images = 1
  }

  expect_failures = [var.keep_images]
}

run "refuses_a_key_alias" {
  command = plan

  module {
    source = "./modules/registry"
  }

  variables {
    kms_key_arn = "arn:aws:kms:us-east-1:123456789012:alias/kennel"
  }

  expect_failures = [var.kms_key_arn]
}

run "refuses_a_retention_that_logs_lack" {
  command = plan

  module {
    source = "./modules/registry"
  }

  variables {
    log_retention_days = 31
  }

  expect_failures = [var.log_retention_days]
}

run "refuses_a_name_with_capitals" {
  command = plan

  module {
    source = "./modules/registry"
  }

  variables {
    name = "Kennel"
  }

  expect_failures = [var.name]
}

run "refuses_a_base_image_by_tag" {
  command = plan

  module {
    source = "./modules/registry"
  }

  variables {
    python_image = "python:3.13-slim"
  }

  expect_failures = [var.python_image]
}
