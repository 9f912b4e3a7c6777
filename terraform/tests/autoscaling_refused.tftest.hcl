provider "aws" {
  region = "us-east-1"
}

variables {
  endpoint_name = "kennel-dev"
  instance_type = "ml.m5.large"
}

run "most_below_fewest" {
  command = plan

  module {
    source = "./modules/autoscaling"
  }

  variables {
    max_capacity = 1
    min_capacity = 2
  }

  expect_failures = [var.max_capacity]
}

run "fraction_of_an_instance" {
  command = plan

  module {
    source = "./modules/autoscaling"
  }

  variables {
    max_capacity = 2.5
  }

  expect_failures = [var.max_capacity]
}

run "no_instance" {
  command = plan

  module {
    source = "./modules/autoscaling"
  }

  variables {
    min_capacity = 0
  }

  expect_failures = [var.min_capacity]
}

run "unknown_metric" {
  command = plan

  module {
    source = "./modules/autoscaling"
  }

  variables {
    metric = "cpu"
  }

  expect_failures = [var.metric]
}

run "target_of_nothing" {
  command = plan

  module {
    source = "./modules/autoscaling"
  }

  variables {
    target = 0
  }

  expect_failures = [var.target]
}

run "negative_cooldown_in" {
  command = plan

  module {
    source = "./modules/autoscaling"
  }

  variables {
    scale_in_cooldown_s = -1
  }

  expect_failures = [var.scale_in_cooldown_s]
}

run "fraction_of_a_second" {
  command = plan

  module {
    source = "./modules/autoscaling"
  }

  variables {
    scale_out_cooldown_s = 0.5
  }

  expect_failures = [var.scale_out_cooldown_s]
}

run "burstable_instances" {
  command = plan

  module {
    source = "./modules/autoscaling"
  }

  variables {
    instance_type = "ml.t2.medium"
  }

  expect_failures = [var.instance_type]
}

run "instance_type_of_ec2" {
  command = plan

  module {
    source = "./modules/autoscaling"
  }

  variables {
    instance_type = "m5.large"
  }

  expect_failures = [var.instance_type]
}

run "path_for_a_variant" {
  command = plan

  module {
    source = "./modules/autoscaling"
  }

  variables {
    variant_name = "endpoint/kennel-dev/variant/main"
  }

  expect_failures = [var.variant_name]
}

run "cron_of_five_fields" {
  command = plan

  module {
    source = "./modules/autoscaling"
  }

  variables {
    schedule = { begin = "cron(0 20 * * *)", end = "cron(0 7 * * ? *)" }
  }

  expect_failures = [var.schedule]
}

run "schedule_without_instances" {
  command = plan

  module {
    source = "./modules/autoscaling"
  }

  variables {
    schedule = { begin = "cron(0 20 * * ? *)", end = "cron(0 7 * * ? *)", min_capacity = 0 }
  }

  expect_failures = [var.schedule]
}

run "schedule_with_most_below_fewest" {
  command = plan

  module {
    source = "./modules/autoscaling"
  }

  variables {
    schedule = { begin = "cron(0 20 * * ? *)", end = "cron(0 7 * * ? *)", max_capacity = 1, min_capacity = 2 }
  }

  expect_failures = [var.schedule]
}

run "time_zone_by_offset" {
  command = plan

  module {
    source = "./modules/autoscaling"
  }

  variables {
    schedule = { begin = "cron(0 20 * * ? *)", end = "cron(0 7 * * ? *)", timezone = "+02:00" }
  }

  expect_failures = [var.schedule]
}
