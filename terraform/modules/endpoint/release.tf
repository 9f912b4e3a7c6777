locals {
  # SageMaker moves the traffic in steps and waits after each: the limits of a step, in percent of a variant.
  default_percent = { all_at_once = 100, canary = 10, linear = 25, rolling = 25 }[var.release.strategy]
  least_percent   = { all_at_once = 100, canary = 1, linear = 10, rolling = 5 }[var.release.strategy]
  most_percent    = { all_at_once = 100, canary = 50, linear = 50, rolling = 50 }[var.release.strategy]

  # All at once there is no step to wait after: SageMaker watches the alarms while it keeps the old instances, or not at all.
  is_at_once         = var.release.strategy == "all_at_once"
  termination_wait_s = coalesce(var.release.termination_wait_s, local.is_at_once ? local.alarm_s : 0)

  deployment = {
    maximum_execution_timeout_s = var.release.maximum_execution_timeout_s
    step_size                   = var.release.instances != null ? var.release.instances : coalesce(var.release.percent, local.default_percent)
    step_type                   = var.release.instances != null ? "INSTANCE_COUNT" : "CAPACITY_PERCENT"
    strategy                    = var.release.strategy
    termination_wait_s          = local.termination_wait_s
    wait_s                      = var.release.wait_s
  }

  smallest_variant = min([for variant in var.variants : variant.initial_instance_count]...)
  step_percent     = var.release.instances != null ? 100 * var.release.instances / local.smallest_variant : local.deployment.step_size
  steps = var.release.strategy == "canary" ? 2 : ceil(
    var.release.instances != null ? local.smallest_variant / var.release.instances : 100 / local.step_percent
  )

  # What a fleet, or a batch of a rolling release, takes to start: usually 3 to 5 minutes with a small image.
  start_s   = 300 * (var.release.strategy == "rolling" ? local.steps : 1)
  release_s = local.start_s + local.steps * var.release.wait_s + local.termination_wait_s
}

resource "aws_sagemaker_endpoint" "this" {
  name                 = var.name
  endpoint_config_name = aws_sagemaker_endpoint_configuration.this[local.live].name

  deployment_config {
    # The provider replaces an endpoint that gains or loses this block, which is why it is always there.
    auto_rollback_configuration {
      dynamic "alarms" {
        for_each = local.rollback_alarm_names

        content {
          alarm_name = alarms.value
        }
      }
    }

    dynamic "blue_green_update_policy" {
      for_each = local.deployment.strategy == "rolling" ? [] : [local.deployment]

      content {
        maximum_execution_timeout_in_seconds = blue_green_update_policy.value.maximum_execution_timeout_s
        termination_wait_in_seconds          = blue_green_update_policy.value.termination_wait_s

        traffic_routing_configuration {
          type                     = upper(blue_green_update_policy.value.strategy)
          wait_interval_in_seconds = blue_green_update_policy.value.wait_s

          dynamic "canary_size" {
            for_each = blue_green_update_policy.value.strategy == "canary" ? [local.deployment] : []

            content {
              type  = canary_size.value.step_type
              value = canary_size.value.step_size
            }
          }

          dynamic "linear_step_size" {
            for_each = blue_green_update_policy.value.strategy == "linear" ? [local.deployment] : []

            content {
              type  = linear_step_size.value.step_type
              value = linear_step_size.value.step_size
            }
          }
        }
      }
    }

    dynamic "rolling_update_policy" {
      for_each = var.release.strategy == "rolling" ? [local.deployment] : []

      content {
        maximum_execution_timeout_in_seconds = rolling_update_policy.value.maximum_execution_timeout_s
        wait_interval_in_seconds             = rolling_update_policy.value.wait_s

        maximum_batch_size {
          type  = rolling_update_policy.value.step_type
          value = rolling_update_policy.value.step_size
        }
      }
    }
  }

  lifecycle {
    precondition {
      condition     = var.release.strategy != "rolling" || length(var.variants) == 1 && var.shadow == null
      error_message = "SageMaker rolls out endpoints of one variant only. Set release.strategy to \"canary\" or \"linear\", or remove the other variants and the shadow."
    }

    precondition {
      condition     = local.step_percent >= local.least_percent && local.step_percent <= local.most_percent
      error_message = "release.instances must be ${local.least_percent} to ${local.most_percent} % of each variant, and the smallest has initial_instance_count = ${local.smallest_variant}. Set fewer instances, release.percent instead, or a larger initial_instance_count."
    }

    precondition {
      condition     = local.release_s <= var.release.maximum_execution_timeout_s
      error_message = "The release would take about ${local.release_s} s (${local.steps} waits of ${var.release.wait_s} s, the start of the instances and termination_wait_s) and be rolled back after ${var.release.maximum_execution_timeout_s} s. Take larger steps, a shorter wait_s or termination_wait_s, or a maximum_execution_timeout_s of up to 3600."
    }

    precondition {
      condition     = var.thresholds.error_percent < local.step_percent
      error_message = "A release that fails every request raises the variant's errors to the share of the step, ${floor(local.step_percent)} %, so an alarm above ${var.thresholds.error_percent} % would never stop it. Set thresholds.error_percent below the step, or a larger step."
    }

    # SageMaker rolls back by itself, and the provider takes an endpoint in service for success. To fail here keeps
    # Terraform from deleting the configuration that the endpoint went back to.
    postcondition {
      condition     = self.endpoint_config_name == aws_sagemaker_endpoint_configuration.this[local.live].name
      error_message = "SageMaker rolled the endpoint back to ${self.endpoint_config_name}. It serves as before. See why in the alarms ${join(", ", local.rollback_alarm_names)} and in the log group ${aws_cloudwatch_log_group.this.name}, then apply the former model, or a better one."
    }
  }

  depends_on = [aws_cloudwatch_log_group.this, terraform_data.instance_types]
}

check "gradual_release" {
  assert {
    condition     = var.release.strategy == "all_at_once" || local.smallest_variant > 1
    error_message = "SageMaker moves whole instances, at most half of a variant in a step: a variant of one instance cannot be released by ${var.release.strategy}. Set initial_instance_count to 2 or more."
  }
}

check "watched_release" {
  assert {
    condition     = (local.is_at_once ? local.termination_wait_s : var.release.wait_s) >= local.alarm_s
    error_message = "The rollback alarms need ${local.alarm_s} s to see an error, so a release.${local.is_at_once ? "termination_wait_s of ${local.termination_wait_s}" : "wait_s of ${var.release.wait_s}"} ends before they could stop the release. Set it to ${local.alarm_s} or more."
  }
}
