provider "aws" {
  region = "us-east-1"
}

variables {
  endpoint_name = "kennel-dev"
  instance_type = "ml.m5.large"
}

run "defaults" {
  command = plan

  module {
    source = "./modules/autoscaling"
  }

  assert {
    condition     = aws_appautoscaling_target.this.min_capacity == 1 && aws_appautoscaling_target.this.max_capacity == 4
    error_message = "The variant must scale from 1 to 4."
  }

  assert {
    condition     = output.resource_id == "endpoint/kennel-dev/variant/main" && aws_appautoscaling_target.this.scalable_dimension == "sagemaker:variant:DesiredInstanceCount"
    error_message = "What scales must be the number of the variant's instances."
  }

  assert {
    condition     = aws_appautoscaling_policy.this.target_tracking_scaling_policy_configuration[0].target_value == 25 && aws_appautoscaling_policy.this.target_tracking_scaling_policy_configuration[0].scale_in_cooldown == 30 && aws_appautoscaling_policy.this.target_tracking_scaling_policy_configuration[0].scale_out_cooldown == 5
    error_message = "The defaults must be a target of 25, in after 30 s and out after 5 s."
  }

  assert {
    condition     = aws_appautoscaling_policy.this.target_tracking_scaling_policy_configuration[0].predefined_metric_specification[0].predefined_metric_type == "SageMakerVariantConcurrentRequestsPerModelHighResolution"
    error_message = "Requests at a time, seen every 10 seconds, must be the default metric."
  }

  assert {
    condition     = length(aws_appautoscaling_scheduled_action.this) == 0
    error_message = "There must be no schedule by default."
  }
}

run "numbers" {
  command = plan

  module {
    source = "./modules/autoscaling"
  }

  variables {
    max_capacity         = 8
    metric               = "invocations_per_minute"
    min_capacity         = 2
    scale_in_cooldown_s  = 300
    scale_out_cooldown_s = 60
    target               = 1500
    variant_name         = "blue"
  }

  assert {
    condition     = aws_appautoscaling_target.this.min_capacity == 2 && aws_appautoscaling_target.this.max_capacity == 8 && output.resource_id == "endpoint/kennel-dev/variant/blue"
    error_message = "The target must follow the numbers."
  }

  assert {
    condition     = aws_appautoscaling_policy.this.target_tracking_scaling_policy_configuration[0].target_value == 1500 && aws_appautoscaling_policy.this.target_tracking_scaling_policy_configuration[0].scale_in_cooldown == 300 && aws_appautoscaling_policy.this.target_tracking_scaling_policy_configuration[0].scale_out_cooldown == 60 && aws_appautoscaling_policy.this.target_tracking_scaling_policy_configuration[0].predefined_metric_specification[0].predefined_metric_type == "SageMakerVariantInvocationsPerInstance"
    error_message = "The policy must follow the numbers."
  }
}

run "schedule" {
  command = plan

  module {
    source = "./modules/autoscaling"
  }

  variables {
    max_capacity = 6
    min_capacity = 2
    schedule = {
      begin        = "cron(0 20 ? * MON-FRI *)"
      end          = "cron(0 7 ? * MON-FRI *)"
      max_capacity = 2
      timezone     = "Europe/Berlin"
    }
  }

  assert {
    condition     = aws_appautoscaling_scheduled_action.this["begin"].scalable_target_action == tolist([{ max_capacity = "2", min_capacity = "1" }]) && aws_appautoscaling_scheduled_action.this["begin"].schedule == "cron(0 20 ? * MON-FRI *)"
    error_message = "Off hours must begin with the schedule's capacities."
  }

  assert {
    condition     = aws_appautoscaling_scheduled_action.this["end"].scalable_target_action == tolist([{ max_capacity = "6", min_capacity = "2" }]) && aws_appautoscaling_scheduled_action.this["end"].timezone == "Europe/Berlin"
    error_message = "Off hours must end with the usual capacities."
  }
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
