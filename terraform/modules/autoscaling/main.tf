locals {
  metrics = {
    concurrency            = "SageMakerVariantConcurrentRequestsPerModelHighResolution"
    invocations_per_minute = "SageMakerVariantInvocationsPerInstance"
  }

  # Off hours end with what holds at all other times.
  scheduled_actions = var.schedule == null ? {} : {
    begin = { cron = var.schedule.begin, max_capacity = var.schedule.max_capacity, min_capacity = var.schedule.min_capacity }
    end   = { cron = var.schedule.end, max_capacity = var.max_capacity, min_capacity = var.min_capacity }
  }
}

# SageMaker refuses to change the instance type of a variant that is a scalable target, and deregistering a target also
# deletes its policies and schedules. So all of them are made again with a new type; the endpoint module sees to it that
# they are gone before the endpoint changes.
resource "terraform_data" "instance_type" {
  triggers_replace = var.instance_type
}

resource "aws_appautoscaling_target" "this" {
  max_capacity       = var.max_capacity
  min_capacity       = var.min_capacity
  resource_id        = "endpoint/${var.endpoint_name}/variant/${var.variant_name}"
  scalable_dimension = "sagemaker:variant:DesiredInstanceCount"
  service_namespace  = "sagemaker"

  lifecycle {
    replace_triggered_by = [terraform_data.instance_type]
  }
}

resource "aws_appautoscaling_policy" "this" {
  name               = "${var.endpoint_name}-${var.variant_name}"
  policy_type        = "TargetTrackingScaling"
  resource_id        = aws_appautoscaling_target.this.resource_id
  scalable_dimension = aws_appautoscaling_target.this.scalable_dimension
  service_namespace  = aws_appautoscaling_target.this.service_namespace

  target_tracking_scaling_policy_configuration {
    scale_in_cooldown  = var.scale_in_cooldown_s
    scale_out_cooldown = var.scale_out_cooldown_s
    target_value       = var.target

    predefined_metric_specification {
      predefined_metric_type = local.metrics[var.metric]
    }
  }

  lifecycle {
    replace_triggered_by = [terraform_data.instance_type]
  }
}

resource "aws_appautoscaling_scheduled_action" "this" {
  for_each = local.scheduled_actions

  name               = "${var.endpoint_name}-${var.variant_name}-off-hours-${each.key}"
  resource_id        = aws_appautoscaling_target.this.resource_id
  scalable_dimension = aws_appautoscaling_target.this.scalable_dimension
  schedule           = each.value.cron
  service_namespace  = aws_appautoscaling_target.this.service_namespace
  timezone           = var.schedule.timezone

  scalable_target_action {
    max_capacity = each.value.max_capacity
    min_capacity = each.value.min_capacity
  }

  lifecycle {
    replace_triggered_by = [terraform_data.instance_type]
  }
}
