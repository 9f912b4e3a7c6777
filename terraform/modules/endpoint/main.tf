locals {
  # With a model of its own in every variant there is no model that a release replaces.
  has_default_model = anytrue([for variant in var.variants : variant.model == null])
  default_models    = distinct(concat([var.model], local.has_default_model ? var.previous_model[*] : []))

  # A release has the key of what the caller writes down, since a key must be known before an apply and ids that AWS
  # gives may not be. As `previous_model`, with the same settings, a model has the key that it had as `model`: what serves
  # it stays as it is.
  settings = [var.variants, var.shadow, local.deployment, try([var.data_capture.prefix, var.data_capture.sampling_percentage], null)]
  live     = substr(sha256(jsonencode([var.model, local.settings])), 0, 12)

  models = {
    for model in distinct(concat(
      local.has_default_model ? local.default_models : [],
      [for variant in var.variants : variant.model if variant.model != null],
      var.shadow[*].model,
    )) : substr(sha256(jsonencode(model)), 0, 12) => model
  }

  # SageMaker takes no key for instances with local NVMe disks, which encrypt those by themselves.
  instance_types  = concat([for variant in var.variants : variant.instance_type], var.shadow[*].instance_type)
  has_local_disks = anytrue([for type in local.instance_types : can(regex("^ml\\.([cmr][5-9]g?d|g4dn|g[5-9]|p[4-9]|trn|dl1)", type))])

  # The whole content of each configuration, constants too, since its name is the content's hash.
  configurations = {
    for default in local.default_models : substr(sha256(jsonencode([default, local.settings])), 0, 12) => {
      data_capture = var.data_capture == null ? null : {
        destination         = "s3://${var.data_capture.bucket_name}/${trimsuffix(var.data_capture.prefix, "/")}"
        json_content_types  = ["application/json"]
        kms_key_arn         = var.kms_key_arn
        sampling_percentage = var.data_capture.sampling_percentage
      }
      # SageMaker refuses to update an endpoint to the configuration that it has, even if only the release differs.
      deployment  = local.deployment
      kms_key_arn = local.has_local_disks ? null : var.kms_key_arn
      # Photos differ in size and so in work: by chance, some would queue behind others while an instance is idle.
      routing_strategy = "LEAST_OUTSTANDING_REQUESTS"
      shadows = {
        for shadow in var.shadow[*] : shadow.name => merge(shadow, {
          model = aws_sagemaker_model.this[substr(sha256(jsonencode(shadow.model)), 0, 12)].name
        })
      }
      variants = {
        for name, variant in var.variants : name => merge(variant, {
          model = aws_sagemaker_model.this[substr(sha256(jsonencode(variant.model != null ? variant.model : default)), 0, 12)].name
        })
      }
    }
  }
}

# Made before the endpoint: SageMaker would make it without an end to its retention.
resource "aws_cloudwatch_log_group" "this" {
  #checkov:skip=CKV_AWS_158:CloudWatch Logs encrypts by itself; a key of one's own is the caller's choice (kms_key_arn)
  #checkov:skip=CKV_AWS_338:The server's own messages, no requests; how long they are worth keeping is the caller's choice
  name              = "/aws/sagemaker/Endpoints/${var.name}"
  kms_key_id        = var.kms_key_arn
  retention_in_days = var.log_retention_days
}

# SageMaker changes neither models nor configurations. Other content therefore has another name, so that the new one
# can be made while the endpoint still uses the old one.
resource "aws_sagemaker_model" "this" {
  for_each = local.models

  name = format(
    "%s-%s-%s", var.name, substr(each.value.digest, 0, 12),
    substr(sha256(jsonencode([each.value, var.enable_network_isolation, var.role_arn, var.vpc])), 0, 8),
  )
  enable_network_isolation = var.enable_network_isolation
  execution_role_arn       = var.role_arn

  primary_container {
    environment    = each.value.environment
    image          = each.value.image_uri
    model_data_url = each.value.archive_uri
  }

  dynamic "vpc_config" {
    for_each = var.vpc[*]

    content {
      security_group_ids = vpc_config.value.security_group_ids
      subnets            = vpc_config.value.subnet_ids
    }
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_sagemaker_endpoint_configuration" "this" {
  for_each = local.configurations

  #checkov:skip=CKV_AWS_98:SageMaker encrypts the volumes by itself; a key of one's own is the caller's choice (kms_key_arn)
  name        = "${var.name}-${substr(sha256(jsonencode(each.value)), 0, 12)}"
  kms_key_arn = each.value.kms_key_arn

  dynamic "data_capture_config" {
    for_each = each.value.data_capture[*]

    content {
      destination_s3_uri          = data_capture_config.value.destination
      enable_capture              = true
      initial_sampling_percentage = data_capture_config.value.sampling_percentage
      kms_key_id                  = data_capture_config.value.kms_key_arn

      # What is neither CSV nor JSON, such as a photo, is written as base64.
      capture_content_type_header {
        json_content_types = data_capture_config.value.json_content_types
      }

      capture_options {
        capture_mode = "Input"
      }

      capture_options {
        capture_mode = "Output"
      }
    }
  }

  dynamic "production_variants" {
    for_each = each.value.variants

    content {
      container_startup_health_check_timeout_in_seconds = production_variants.value.container_startup_timeout_s
      inference_ami_version                             = production_variants.value.inference_ami_version
      initial_instance_count                            = production_variants.value.initial_instance_count
      initial_variant_weight                            = production_variants.value.weight
      instance_type                                     = production_variants.value.instance_type
      model_data_download_timeout_in_seconds            = production_variants.value.model_download_timeout_s
      model_name                                        = production_variants.value.model
      variant_name                                      = production_variants.key

      routing_config {
        routing_strategy = each.value.routing_strategy
      }
    }
  }

  dynamic "shadow_production_variants" {
    for_each = each.value.shadows

    content {
      container_startup_health_check_timeout_in_seconds = shadow_production_variants.value.container_startup_timeout_s
      inference_ami_version                             = shadow_production_variants.value.inference_ami_version
      initial_instance_count                            = shadow_production_variants.value.initial_instance_count
      initial_variant_weight                            = shadow_production_variants.value.weight
      instance_type                                     = shadow_production_variants.value.instance_type
      model_data_download_timeout_in_seconds            = shadow_production_variants.value.model_download_timeout_s
      model_name                                        = shadow_production_variants.value.model
      variant_name                                      = shadow_production_variants.key

      routing_config {
        routing_strategy = each.value.routing_strategy
      }
    }
  }

  lifecycle {
    create_before_destroy = true
  }
}

# SageMaker refuses to change the instance type of a variant, or to remove it, while it is a scalable target. What scales
# the endpoint depends on this resource through the outputs. So where a type changes, Terraform deregisters the targets
# before it replaces this, and updates the endpoint after: an order that it does not keep between a target and an
# endpoint that is only updated.
resource "terraform_data" "instance_types" {
  triggers_replace = { for name, variant in var.variants : name => variant.instance_type }
}
