provider "aws" {
  region = "us-east-1"
}

variables {
  model = {
    archive_uri = "s3://kennel-dev/models/111111111111/model.tar.gz"
    digest      = "1111111111111111111111111111111111111111111111111111111111111111"
    image_uri   = "123456789012.dkr.ecr.us-east-1.amazonaws.com/kennel-dev-serving@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
  }
  name     = "kennel-dev"
  role_arn = "arn:aws:iam::123456789012:role/kennel-dev-serving"
}

run "unknown_strategy" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    release = { strategy = "bluegreen" }
  }

  expect_failures = [var.release]
}

run "canary_above_half" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    release = { percent = 51, strategy = "canary" }
  }

  expect_failures = [var.release]
}

run "canary_of_nothing" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    release = { percent = 0, strategy = "canary" }
  }

  expect_failures = [var.release]
}

run "canary_of_a_fraction" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    release = { percent = 12.5, strategy = "canary" }
  }

  expect_failures = [var.release]
}

run "linear_above_half" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    release = { percent = 51, strategy = "linear" }
  }

  expect_failures = [var.release]
}

run "linear_below_a_tenth" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    release = { percent = 9, strategy = "linear" }
  }

  expect_failures = [var.release]
}

run "rolling_above_half" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    release = { percent = 51, strategy = "rolling" }
  }

  expect_failures = [var.release]
}

run "rolling_below_a_twentieth" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    release = { percent = 4, strategy = "rolling" }
  }

  expect_failures = [var.release]
}

run "percent_and_instances" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    release  = { instances = 1, percent = 25, strategy = "canary" }
    variants = { main = { initial_instance_count = 4 } }
  }

  expect_failures = [var.release]
}

run "steps_all_at_once" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    release = { percent = 25 }
  }

  expect_failures = [var.release]
}

run "no_instances" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    release = { instances = 0, strategy = "canary" }
  }

  expect_failures = [var.release]
}

run "negative_wait" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    release = { wait_s = -1 }
  }

  expect_failures = [var.release]
}

run "wait_above_an_hour" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    release = { wait_s = 3601 }
  }

  expect_failures = [var.release]
}

run "termination_wait_above_an_hour" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    release = { termination_wait_s = 3601 }
  }

  expect_failures = [var.release]
}

run "termination_wait_of_a_rolling_release" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    release  = { strategy = "rolling", termination_wait_s = 60 }
    variants = { main = { initial_instance_count = 4 } }
  }

  expect_failures = [var.release]
}

run "time_out_below_ten_minutes" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    release = { maximum_execution_timeout_s = 599 }
  }

  expect_failures = [var.release]
}

run "time_out_above_the_provider_wait" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    release = { maximum_execution_timeout_s = 3601 }
  }

  expect_failures = [var.release]
}
