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

run "canary" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    release  = { strategy = "canary" }
    variants = { main = { initial_instance_count = 4 } }
  }

  assert {
    condition     = aws_sagemaker_endpoint.this.deployment_config[0].blue_green_update_policy[0].traffic_routing_configuration[0].type == "CANARY" && aws_sagemaker_endpoint.this.deployment_config[0].blue_green_update_policy[0].traffic_routing_configuration[0].wait_interval_in_seconds == 300 && aws_sagemaker_endpoint.this.deployment_config[0].blue_green_update_policy[0].traffic_routing_configuration[0].canary_size == tolist([{ type = "CAPACITY_PERCENT", value = 10 }]) && length(aws_sagemaker_endpoint.this.deployment_config[0].blue_green_update_policy[0].traffic_routing_configuration[0].linear_step_size) == 0
    error_message = "A canary must take a tenth of the traffic for 5 minutes."
  }

  assert {
    condition     = aws_sagemaker_endpoint.this.deployment_config[0].blue_green_update_policy[0].maximum_execution_timeout_in_seconds == 3000 && aws_sagemaker_endpoint.this.deployment_config[0].blue_green_update_policy[0].termination_wait_in_seconds == 0
    error_message = "A release must end before the provider stops waiting."
  }
}

run "all_at_once_is_watched" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  assert {
    condition     = aws_sagemaker_endpoint.this.deployment_config[0].blue_green_update_policy[0].traffic_routing_configuration[0].type == "ALL_AT_ONCE" && aws_sagemaker_endpoint.this.deployment_config[0].blue_green_update_policy[0].termination_wait_in_seconds == 180
    error_message = "The old instances must stay as long as the alarms need: SageMaker watches no longer."
  }
}

run "canary_of_half" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    release  = { instances = 2, strategy = "canary", wait_s = 600, termination_wait_s = 120 }
    variants = { main = { initial_instance_count = 4 } }
  }

  assert {
    condition     = aws_sagemaker_endpoint.this.deployment_config[0].blue_green_update_policy[0].traffic_routing_configuration[0].canary_size == tolist([{ type = "INSTANCE_COUNT", value = 2 }]) && aws_sagemaker_endpoint.this.deployment_config[0].blue_green_update_policy[0].traffic_routing_configuration[0].wait_interval_in_seconds == 600 && aws_sagemaker_endpoint.this.deployment_config[0].blue_green_update_policy[0].termination_wait_in_seconds == 120
    error_message = "Half of the instances are the largest canary."
  }
}

run "linear" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    release  = { percent = 50, strategy = "linear" }
    variants = { main = { initial_instance_count = 4 } }
  }

  assert {
    condition     = aws_sagemaker_endpoint.this.deployment_config[0].blue_green_update_policy[0].traffic_routing_configuration[0].type == "LINEAR" && aws_sagemaker_endpoint.this.deployment_config[0].blue_green_update_policy[0].traffic_routing_configuration[0].linear_step_size == tolist([{ type = "CAPACITY_PERCENT", value = 50 }]) && length(aws_sagemaker_endpoint.this.deployment_config[0].blue_green_update_policy[0].traffic_routing_configuration[0].canary_size) == 0
    error_message = "The traffic must move in two halves."
  }
}

run "rolling" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    release  = { maximum_execution_timeout_s = 3600, strategy = "rolling" }
    variants = { main = { initial_instance_count = 4 } }
  }

  assert {
    condition     = length(aws_sagemaker_endpoint.this.deployment_config[0].blue_green_update_policy) == 0 && aws_sagemaker_endpoint.this.deployment_config[0].rolling_update_policy[0].maximum_batch_size == tolist([{ type = "CAPACITY_PERCENT", value = 25 }])
    error_message = "A quarter of the instances must be replaced at a time."
  }

  assert {
    condition     = aws_sagemaker_endpoint.this.deployment_config[0].rolling_update_policy[0].maximum_execution_timeout_in_seconds == 3600 && aws_sagemaker_endpoint.this.deployment_config[0].rolling_update_policy[0].wait_interval_in_seconds == 300
    error_message = "The waits of a rolling release must reach SageMaker."
  }

  assert {
    condition     = length(aws_sagemaker_endpoint.this.deployment_config[0].auto_rollback_configuration[0].alarms) == 2
    error_message = "Every strategy must be watched."
  }

  assert {
    condition     = output.configuration_name != run.linear.configuration_name
    error_message = "SageMaker takes another release only with another configuration."
  }
}

run "rolling_in_thirds" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    release  = { instances = 1, maximum_execution_timeout_s = 1800, strategy = "rolling" }
    variants = { main = { initial_instance_count = 3 } }
  }

  assert {
    condition     = aws_sagemaker_endpoint.this.deployment_config[0].rolling_update_policy[0].maximum_batch_size == tolist([{ type = "INSTANCE_COUNT", value = 1 }])
    error_message = "Three instances must be replaced one by one, in three times ten minutes."
  }
}

run "instances_above_half" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    release  = { instances = 3, strategy = "canary" }
    variants = { main = { initial_instance_count = 4 } }
  }

  expect_failures = [aws_sagemaker_endpoint.this]
}

run "rolling_batch_above_half" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    release  = { instances = 1, strategy = "rolling" }
    variants = { main = { initial_instance_count = 1 } }
  }

  expect_failures = [aws_sagemaker_endpoint.this, check.gradual_release]
}

run "linear_instances_below_a_tenth" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    release  = { instances = 1, strategy = "linear", wait_s = 180 }
    variants = { main = { initial_instance_count = 11 } }
  }

  expect_failures = [aws_sagemaker_endpoint.this]
}

run "waits_that_add_up" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    release  = { percent = 10, strategy = "linear" }
    variants = { main = { initial_instance_count = 4 } }
  }

  expect_failures = [aws_sagemaker_endpoint.this]
}

run "wait_all_at_once" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    release = { maximum_execution_timeout_s = 3600, wait_s = 3301 }
  }

  expect_failures = [aws_sagemaker_endpoint.this]
}

run "final_wait_that_adds_up" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    release = { termination_wait_s = 3000 }
  }

  expect_failures = [aws_sagemaker_endpoint.this]
}

run "batches_that_add_up" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    release  = { percent = 5, strategy = "rolling", wait_s = 180 }
    variants = { main = { initial_instance_count = 4 } }
  }

  expect_failures = [aws_sagemaker_endpoint.this]
}

run "rolling_with_two_variants" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    release  = { strategy = "rolling" }
    variants = { a = { initial_instance_count = 4 }, b = { initial_instance_count = 4 } }
  }

  expect_failures = [aws_sagemaker_endpoint.this]
}

run "rolling_with_a_shadow" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    release  = { strategy = "rolling" }
    shadow   = { model = { archive_uri = "s3://kennel-dev/models/222222222222/model.tar.gz", digest = "2222222222222222222222222222222222222222222222222222222222222222", image_uri = "123456789012.dkr.ecr.us-east-1.amazonaws.com/kennel-dev-serving@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" } }
    variants = { main = { initial_instance_count = 4 } }
  }

  expect_failures = [aws_sagemaker_endpoint.this]
}

run "errors_that_a_canary_cannot_reach" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    release  = { percent = 5, strategy = "canary" }
    variants = { main = { initial_instance_count = 4 } }
  }

  expect_failures = [aws_sagemaker_endpoint.this]
}

run "canary_of_a_single_instance" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    release = { strategy = "canary" }
  }

  expect_failures = [check.gradual_release]
}

run "at_once_without_a_watch" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    release = { termination_wait_s = 0 }
  }

  expect_failures = [check.watched_release]
}

run "wait_that_no_alarm_can_end" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    release  = { strategy = "canary", wait_s = 120 }
    variants = { main = { initial_instance_count = 4 } }
  }

  expect_failures = [check.watched_release]
}
