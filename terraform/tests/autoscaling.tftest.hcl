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
