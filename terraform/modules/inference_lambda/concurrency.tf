locals {
  executions = var.provisioned_concurrency.executions
  # The schedule alone needs a target too, whose bounds it moves.
  is_scaled = var.provisioned_concurrency.autoscaling != null || length(var.provisioned_concurrency.schedule) > 0
  capacity = {
    min = local.executions
    max = try(var.provisioned_concurrency.autoscaling.max, local.executions)
  }
}

# Two resources stand for the alias's one setting, since a lifecycle cannot depend on a variable. This one makes it and, as the only one, deletes it, so
# that no switch leaves warm environments behind that somebody pays for; whatever scales may move its number.
resource "aws_lambda_provisioned_concurrency_config" "this" {
  count = local.executions > 0 ? 1 : 0

  function_name                     = aws_lambda_alias.this.function_name
  qualifier                         = aws_lambda_alias.this.name
  provisioned_concurrent_executions = local.executions

  lifecycle {
    ignore_changes = [provisioned_concurrent_executions]
  }
}

# While nothing scales, this one holds the number; when scaling is switched on it is forgotten, not deleted.
resource "aws_lambda_provisioned_concurrency_config" "fixed" {
  count = local.executions > 0 && !local.is_scaled ? 1 : 0

  function_name                     = aws_lambda_provisioned_concurrency_config.this[0].function_name
  qualifier                         = aws_lambda_provisioned_concurrency_config.this[0].qualifier
  provisioned_concurrent_executions = local.executions
  skip_destroy                      = true
}

resource "terraform_data" "capacity" {
  count = local.is_scaled ? 1 : 0

  input = local.capacity
}

resource "aws_appautoscaling_target" "this" {
  count = local.is_scaled ? 1 : 0

  service_namespace  = "lambda"
  scalable_dimension = "lambda:function:ProvisionedConcurrency"
  resource_id        = "function:${aws_lambda_provisioned_concurrency_config.this[0].function_name}:${aws_lambda_provisioned_concurrency_config.this[0].qualifier}"
  min_capacity       = local.capacity.min
  max_capacity       = local.capacity.max

  lifecycle {
    # A schedule moves the bounds in AWS; an apply in the night must not wake the day's. Bounds that are changed here register the target anew,
    # which leaves the environments as they are.
    ignore_changes       = [min_capacity, max_capacity]
    replace_triggered_by = [terraform_data.capacity]
  }
}

resource "aws_appautoscaling_policy" "this" {
  count = var.provisioned_concurrency.autoscaling == null ? 0 : 1

  name               = "${local.function_name}-utilization"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = aws_appautoscaling_target.this[0].service_namespace
  scalable_dimension = aws_appautoscaling_target.this[0].scalable_dimension
  resource_id        = aws_appautoscaling_target.this[0].resource_id

  target_tracking_scaling_policy_configuration {
    target_value = var.provisioned_concurrency.autoscaling.target_utilization

    predefined_metric_specification {
      predefined_metric_type = "LambdaProvisionedConcurrencyUtilization"
    }
  }

  lifecycle {
    # Goes with its target in AWS.
    replace_triggered_by = [terraform_data.capacity]
  }
}

resource "aws_appautoscaling_scheduled_action" "this" {
  for_each = var.provisioned_concurrency.schedule

  name               = "${local.function_name}-${each.key}"
  service_namespace  = aws_appautoscaling_target.this[0].service_namespace
  scalable_dimension = aws_appautoscaling_target.this[0].scalable_dimension
  resource_id        = aws_appautoscaling_target.this[0].resource_id
  schedule           = each.value.cron
  timezone           = each.value.timezone

  scalable_target_action {
    min_capacity = each.value.min
    max_capacity = each.value.max
  }

  lifecycle {
    replace_triggered_by = [terraform_data.capacity]
  }
}
