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

run "defaults" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  assert {
    condition     = can(regex("^kennel-dev-111111111111-[0-9a-f]{8}$", one(values(aws_sagemaker_model.this)).name))
    error_message = "The model's name must carry its digest and a hash of its content."
  }

  assert {
    condition     = one(values(aws_sagemaker_model.this)).enable_network_isolation && length(one(values(aws_sagemaker_model.this)).vpc_config) == 0
    error_message = "The container must have no network by default."
  }

  assert {
    condition     = can(regex("^kennel-dev-[0-9a-f]{12}$", aws_sagemaker_endpoint.this.endpoint_config_name)) && aws_sagemaker_endpoint.this.endpoint_config_name == one(values(aws_sagemaker_endpoint_configuration.this)).name
    error_message = "The endpoint must run the configuration that is named by its content."
  }

  assert {
    condition     = one(values(aws_sagemaker_endpoint_configuration.this)).production_variants[0].instance_type == "ml.m5.large" && one(values(aws_sagemaker_endpoint_configuration.this)).production_variants[0].routing_config[0].routing_strategy == "LEAST_OUTSTANDING_REQUESTS"
    error_message = "The variant must run on ml.m5.large and route to the least busy instance."
  }

  assert {
    condition     = length(one(values(aws_sagemaker_endpoint_configuration.this)).data_capture_config) == 0 && length(one(values(aws_sagemaker_endpoint_configuration.this)).shadow_production_variants) == 0
    error_message = "Nothing must be captured or copied by default."
  }

  assert {
    condition     = aws_sagemaker_endpoint.this.deployment_config[0].blue_green_update_policy[0].traffic_routing_configuration[0].type == "ALL_AT_ONCE"
    error_message = "A release must be all at once by default."
  }

  assert {
    condition     = aws_cloudwatch_log_group.this.name == "/aws/sagemaker/Endpoints/kennel-dev" && aws_cloudwatch_log_group.this.retention_in_days == 30
    error_message = "The log group that SageMaker writes to must be there, with an end to its retention."
  }

  assert {
    condition     = output.rollback_alarm_names == tolist(["kennel-dev-rollback-errors-main", "kennel-dev-rollback-latency-main"]) && toset([for alarm in aws_sagemaker_endpoint.this.deployment_config[0].auto_rollback_configuration[0].alarms : alarm.alarm_name]) == toset(output.rollback_alarm_names)
    error_message = "Both alarms of the variant must roll a release back."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.errors["main"].threshold == 0.05 && aws_cloudwatch_metric_alarm.latency["main"].threshold == 1000000
    error_message = "CloudWatch must get the share of errors (not percent) and microseconds (not milliseconds)."
  }

  assert {
    condition     = alltrue([for alarm in [aws_cloudwatch_metric_alarm.errors["main"], aws_cloudwatch_metric_alarm.latency["main"]] : alarm.treat_missing_data == "notBreaching" && alarm.dimensions == tomap({ EndpointName = "kennel-dev", VariantName = "main" })])
    error_message = "An endpoint without requests must not roll a release back."
  }
}

run "previous_model_is_kept" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    previous_model = { archive_uri = "s3://kennel-dev/models/000000000000/model.tar.gz", digest = "0000000000000000000000000000000000000000000000000000000000000000", image_uri = "123456789012.dkr.ecr.us-east-1.amazonaws.com/kennel-dev-serving@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" }
  }

  assert {
    condition     = length(aws_sagemaker_model.this) == 2 && length(aws_sagemaker_endpoint_configuration.this) == 2
    error_message = "The previous model and its configuration must be kept."
  }

  assert {
    condition     = output.configuration_name == run.defaults.configuration_name && output.variants["main"].model_name == run.defaults.variants["main"].model_name
    error_message = "What serves a model must not depend on what was served before it, or the next release would change it."
  }
}

run "previous_model_again" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    previous_model = { archive_uri = "s3://kennel-dev/models/111111111111/model.tar.gz", digest = "1111111111111111111111111111111111111111111111111111111111111111", image_uri = "123456789012.dkr.ecr.us-east-1.amazonaws.com/kennel-dev-serving@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" }
  }

  assert {
    condition     = length(aws_sagemaker_model.this) == 1 && length(aws_sagemaker_endpoint_configuration.this) == 1
    error_message = "The same model must be made once."
  }
}

run "other_image_is_another_model" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    previous_model = { archive_uri = "s3://kennel-dev/models/111111111111/model.tar.gz", digest = "1111111111111111111111111111111111111111111111111111111111111111", image_uri = "123456789012.dkr.ecr.us-east-1.amazonaws.com/kennel-dev-serving@sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb" }
  }

  assert {
    condition     = length(output.model_names) == 2 && output.model_names[0] != output.model_names[1]
    error_message = "A model with the same archive and another image must have another name."
  }
}

run "environment_reaches_the_container" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    model = {
      archive_uri = "s3://kennel-dev/models/111111111111/model.tar.gz"
      digest      = "1111111111111111111111111111111111111111111111111111111111111111"
      environment = { KENNEL_THREADS = "2" }
      image_uri   = "123456789012.dkr.ecr.us-east-1.amazonaws.com/kennel-dev-serving@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
    }
  }

  assert {
    condition     = one(values(aws_sagemaker_model.this)).primary_container[0].environment == tomap({ KENNEL_THREADS = "2" })
    error_message = "The container must get the environment."
  }

  assert {
    condition     = output.variants["main"].model_name != run.defaults.variants["main"].model_name
    error_message = "A model with another environment must have another name."
  }
}

run "vpc" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    enable_network_isolation = false
    vpc                      = { security_group_ids = ["sg-1"], subnet_ids = ["subnet-1", "subnet-2"] }
  }

  assert {
    condition     = one(values(aws_sagemaker_model.this)).vpc_config[0].subnets == toset(["subnet-1", "subnet-2"]) && !one(values(aws_sagemaker_model.this)).enable_network_isolation
    error_message = "The network belongs to the model."
  }

  assert {
    condition     = output.configuration_name != run.defaults.configuration_name
    error_message = "A model in another network must have another name, and so its configuration."
  }
}

run "role" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    role_arn = "arn:aws:iam::123456789012:role/other"
  }

  assert {
    condition     = output.variants["main"].model_name != run.defaults.variants["main"].model_name
    error_message = "A model with another role must have another name."
  }
}

run "capture" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    data_capture = { bucket_name = "kennel-dev", sampling_percentage = 20 }
    kms_key_arn  = "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-0000-0000-000000000000"
  }

  assert {
    condition     = one(values(aws_sagemaker_endpoint_configuration.this)).data_capture_config[0].destination_s3_uri == "s3://kennel-dev/capture" && one(values(aws_sagemaker_endpoint_configuration.this)).data_capture_config[0].initial_sampling_percentage == 20
    error_message = "A fifth of the requests must go below capture/."
  }

  assert {
    condition     = toset(one(values(aws_sagemaker_endpoint_configuration.this)).data_capture_config[0].capture_options[*].capture_mode) == toset(["Input", "Output"])
    error_message = "Requests and answers must be captured."
  }

  assert {
    condition     = one(values(aws_sagemaker_endpoint_configuration.this)).data_capture_config[0].capture_content_type_header[0].json_content_types == toset(["application/json"]) && one(values(aws_sagemaker_endpoint_configuration.this)).data_capture_config[0].capture_content_type_header[0].csv_content_types == null
    error_message = "Answers are JSON; photos must be left to base64."
  }

  assert {
    condition     = one(values(aws_sagemaker_endpoint_configuration.this)).kms_key_arn == var.kms_key_arn && one(values(aws_sagemaker_endpoint_configuration.this)).data_capture_config[0].kms_key_id == var.kms_key_arn && aws_cloudwatch_log_group.this.kms_key_id == var.kms_key_arn
    error_message = "The key must encrypt volumes, captures and logs."
  }
}

run "no_key_for_local_disks" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    data_capture = { bucket_name = "kennel-dev" }
    kms_key_arn  = "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-0000-0000-000000000000"
    variants     = { main = { instance_type = "ml.g5.xlarge" } }
  }

  assert {
    condition     = one(values(aws_sagemaker_endpoint_configuration.this)).kms_key_arn == null && one(values(aws_sagemaker_endpoint_configuration.this)).data_capture_config[0].kms_key_id == var.kms_key_arn
    error_message = "Instances with local disks take no key; captures must be encrypted all the same."
  }
}

run "variants" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    variants = {
      canary = { initial_instance_count = 2, model = { archive_uri = "s3://kennel-dev/models/222222222222/model.tar.gz", digest = "2222222222222222222222222222222222222222222222222222222222222222", image_uri = "123456789012.dkr.ecr.us-east-1.amazonaws.com/kennel-dev-serving@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" }, weight = 0.25 }
      main   = { container_startup_timeout_s = 600, inference_ami_version = "al2-ami-sagemaker-inference-gpu-3-1", instance_type = "ml.g5.xlarge", model_download_timeout_s = 900, weight = 0.75 }
    }
  }

  assert {
    condition     = one(values(aws_sagemaker_endpoint_configuration.this)).production_variants[*].variant_name == tolist(["canary", "main"]) && one(values(aws_sagemaker_endpoint_configuration.this)).production_variants[*].initial_variant_weight == tolist([0.25, 0.75])
    error_message = "Each variant must get its share."
  }

  assert {
    condition     = startswith(one(values(aws_sagemaker_endpoint_configuration.this)).production_variants[0].model_name, "kennel-dev-222222222222-") && startswith(one(values(aws_sagemaker_endpoint_configuration.this)).production_variants[1].model_name, "kennel-dev-111111111111-")
    error_message = "A variant must serve its own model, else the module's."
  }

  assert {
    condition     = one(values(aws_sagemaker_endpoint_configuration.this)).production_variants[1].container_startup_health_check_timeout_in_seconds == 600 && one(values(aws_sagemaker_endpoint_configuration.this)).production_variants[1].model_data_download_timeout_in_seconds == 900 && one(values(aws_sagemaker_endpoint_configuration.this)).production_variants[1].inference_ami_version == "al2-ami-sagemaker-inference-gpu-3-1"
    error_message = "The variant's time-outs and machine image must reach SageMaker."
  }

  assert {
    condition     = length(output.rollback_alarm_names) == 4 && output.variant_names == tolist(["canary", "main"])
    error_message = "Every variant must be watched."
  }

  assert {
    condition     = terraform_data.instance_types.triggers_replace == { canary = "ml.m5.large", main = "ml.g5.xlarge" }
    error_message = "A variant that changes its type must first be deregistered."
  }
}

run "variants_with_models_of_their_own" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    previous_model = { archive_uri = "s3://kennel-dev/models/000000000000/model.tar.gz", digest = "0000000000000000000000000000000000000000000000000000000000000000", image_uri = "123456789012.dkr.ecr.us-east-1.amazonaws.com/kennel-dev-serving@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" }
    variants = {
      a = { model = { archive_uri = "s3://kennel-dev/models/222222222222/model.tar.gz", digest = "2222222222222222222222222222222222222222222222222222222222222222", image_uri = "123456789012.dkr.ecr.us-east-1.amazonaws.com/kennel-dev-serving@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" } }
      b = { model = { archive_uri = "s3://kennel-dev/models/333333333333/model.tar.gz", digest = "3333333333333333333333333333333333333333333333333333333333333333", image_uri = "123456789012.dkr.ecr.us-east-1.amazonaws.com/kennel-dev-serving@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" } }
    }
  }

  assert {
    condition     = length(aws_sagemaker_endpoint_configuration.this) == 1 && length(aws_sagemaker_model.this) == 2
    error_message = "What no variant serves must not be made."
  }
}

run "shadow" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    shadow = { model = { archive_uri = "s3://kennel-dev/models/222222222222/model.tar.gz", digest = "2222222222222222222222222222222222222222222222222222222222222222", image_uri = "123456789012.dkr.ecr.us-east-1.amazonaws.com/kennel-dev-serving@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" }, weight = 0.5 }
  }

  assert {
    condition     = one(values(aws_sagemaker_endpoint_configuration.this)).shadow_production_variants[0].variant_name == "shadow" && one(values(aws_sagemaker_endpoint_configuration.this)).shadow_production_variants[0].initial_variant_weight == 0.5 && startswith(one(values(aws_sagemaker_endpoint_configuration.this)).shadow_production_variants[0].model_name, "kennel-dev-222222222222-")
    error_message = "The shadow must get half of the requests for its own model."
  }

  assert {
    condition     = length(output.rollback_alarm_names) == 2 && output.variant_names == tolist(["main"])
    error_message = "Nobody sees a shadow's answers: it must not roll a release back."
  }
}

run "weights_that_32_bits_hold" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    variants = {
      a = { weight = 0.25 }
      b = { weight = 0.75 }
      c = { weight = 16777216 }
      d = { weight = 100 }
      e = { weight = 0 }
    }
  }

  assert {
    condition     = one(values(aws_sagemaker_endpoint_configuration.this)).production_variants[*].initial_variant_weight == tolist([0.25, 0.75, 16777216, 100, 0])
    error_message = "Each weight must reach SageMaker as it is."
  }
}

run "more_weights_that_32_bits_hold" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    variants = {
      a = { weight = 0.5 }
      b = { weight = 9 }
      c = { weight = 1 }
      d = { weight = 4194303.75 }
      e = { weight = 0.0009765625 }
    }
  }

  assert {
    condition     = one(values(aws_sagemaker_endpoint_configuration.this)).production_variants[*].initial_variant_weight == tolist([0.5, 9, 1, 4194303.75, 0.0009765625])
    error_message = "Each weight must reach SageMaker as it is."
  }
}

run "alarm_topic" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    alarm_topic_arn = "arn:aws:sns:us-east-1:123456789012:kennel-dev-alarms"
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.errors["main"].alarm_actions == toset([var.alarm_topic_arn]) && aws_cloudwatch_metric_alarm.latency["main"].ok_actions == toset([var.alarm_topic_arn])
    error_message = "The topic must be told when an alarm begins and ends."
  }
}

run "thresholds" {
  command = plan

  module {
    source = "./modules/endpoint"
  }

  variables {
    thresholds = { error_percent = 1, latency_p99_ms = 250 }
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.errors["main"].threshold == 0.01 && aws_cloudwatch_metric_alarm.latency["main"].threshold == 250000
    error_message = "The alarms must follow the thresholds."
  }

  assert {
    condition     = output.configuration_name == run.defaults.configuration_name
    error_message = "A threshold must not release anything."
  }
}
