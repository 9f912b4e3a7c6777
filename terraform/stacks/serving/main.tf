# What is deployed anew with every model: the endpoint, its autoscaling, the Lambda function in front, the watch over both.

data "aws_ssm_parameters_by_path" "foundation" {
  path = "/${var.project}/${var.environment}/"

  lifecycle {
    postcondition {
      condition     = contains([for name in self.names : basename(name)], "serving_role_arn")
      error_message = "There is no foundation for this environment. Apply it first: make apply STACK=foundation ENV=${var.environment}."
    }
  }
}

locals {
  name = "${var.project}-${var.environment}"

  # Names and ARNs: the provider takes every parameter for a secret.
  foundation = zipmap(
    [for name in data.aws_ssm_parameters_by_path.foundation.names : basename(name)],
    nonsensitive(data.aws_ssm_parameters_by_path.foundation.values),
  )

  model = {
    archive_uri = var.model.archive_uri
    digest      = var.model.digest
    environment = var.serving_environment
    image_uri   = coalesce(var.image_uri, var.model.image_uri, lookup(local.foundation, "image_uri", null), "none")
  }

  previous_model = var.previous_model == null ? null : {
    archive_uri = var.previous_model.archive_uri
    digest      = var.previous_model.digest
    environment = var.serving_environment
    image_uri   = coalesce(var.previous_model.image_uri, local.model.image_uri)
  }
}

module "endpoint" {
  source = "../../modules/endpoint"

  alarm_topic_arn = local.foundation.alarm_topic_arn
  data_capture = var.data_capture_percent == 0 ? null : {
    bucket_name         = local.foundation.bucket
    sampling_percentage = var.data_capture_percent
  }
  enable_network_isolation = var.enable_network_isolation
  kms_key_arn              = var.kms_key_arn
  log_retention_days       = var.log_retention_days
  model                    = local.model
  name                     = local.foundation.endpoint_name
  previous_model           = local.previous_model
  release                  = var.release
  role_arn                 = local.foundation.serving_role_arn
  thresholds               = var.rollback_thresholds
  variants = {
    main = {
      # Each configuration starts with this many instances, so the floor of the scaling is the least that is safe.
      initial_instance_count = var.scaling.min_capacity
      instance_type          = var.instance_type
    }
  }
  vpc = var.vpc
}

# A model that SageMaker has rolled back must not be taken for the one that is served. An output by itself would take the planned value though
# the apply fails.
resource "terraform_data" "served" {
  input = {
    model          = { for key in ["archive_uri", "digest", "image_uri"] : key => local.model[key] }
    previous_model = local.previous_model == null ? null : { for key in ["archive_uri", "digest", "image_uri"] : key => local.previous_model[key] }
    history        = var.history
  }

  depends_on = [module.endpoint]
}

module "autoscaling" {
  source = "../../modules/autoscaling"

  endpoint_name        = module.endpoint.name
  instance_type        = var.instance_type
  max_capacity         = var.scaling.max_capacity
  metric               = var.scaling.metric
  min_capacity         = var.scaling.min_capacity
  scale_in_cooldown_s  = var.scaling.scale_in_cooldown_s
  scale_out_cooldown_s = var.scaling.scale_out_cooldown_s
  schedule             = var.scaling.schedule
  target               = var.scaling.target
  variant_name         = "main"
}

module "inference_lambda" {
  source = "../../modules/inference_lambda"

  allowed_hosts           = var.allowed_hosts
  architecture            = var.lambda.architecture
  contact                 = var.lambda.contact
  endpoint_name           = module.endpoint.name
  function_url            = var.function_url
  kms_key_arn             = var.kms_key_arn
  log_retention_days      = var.log_retention_days
  memory_mb               = var.lambda.memory_mb
  name                    = local.name
  provisioned_concurrency = var.lambda.provisioned_concurrency
  reserved_concurrency    = var.lambda.reserved_concurrency
  role_arn                = local.foundation.lambda_role_arn
  runtime                 = var.lambda.runtime
  timeout_s               = var.lambda.timeout_s
  zip_path                = var.lambda_zip_path
}

module "observability" {
  source = "../../modules/observability"

  kms_key_arn        = var.kms_key_arn
  log_retention_days = var.log_retention_days
  name               = local.name
  service = {
    alias_name              = module.inference_lambda.alias_name
    dead_letter_queue_name  = module.inference_lambda.dead_letter_queue_name
    endpoint_name           = module.endpoint.name
    function_name           = module.inference_lambda.function_name
    max_capacity            = var.scaling.max_capacity
    provisioned_concurrency = var.lambda.provisioned_concurrency.executions > 0
    rollback_alarm_names    = module.endpoint.rollback_alarm_names
    variant_names           = module.endpoint.variant_names
  }
  topic_arn = local.foundation.alarm_topic_arn
}
