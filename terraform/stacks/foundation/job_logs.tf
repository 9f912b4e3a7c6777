# SageMaker's log groups of training jobs and notebooks: one for each account and region, made by whoever comes first, for
# no role may make them. Their maker keeps their settings and is told by the tags. They outlive it, since the jobs of other
# environments write to them, and it finds them again when it is applied again.

locals {
  job_log_groups = toset(var.enable_job_log_groups ? ["/aws/sagemaker/NotebookInstances", "/aws/sagemaker/TrainingJobs"] : [])

  made_job_log_groups = {
    for name, group in data.aws_cloudwatch_log_group.jobs :
    name => lookup(group.tags, "project", "") == var.project && lookup(group.tags, "environment", "") == var.environment
  }

  # Those that are not there, and those made here.
  own_job_log_groups = [for name in local.job_log_groups : name if lookup(local.made_job_log_groups, name, true)]
}

data "aws_cloudwatch_log_groups" "sagemaker" {
  count = var.enable_job_log_groups ? 1 : 0

  log_group_name_prefix = "/aws/sagemaker/"
}

data "aws_cloudwatch_log_group" "jobs" {
  for_each = setintersection(local.job_log_groups, flatten(data.aws_cloudwatch_log_groups.sagemaker[*].log_group_names))

  name = each.value
}

import {
  for_each = toset([for name, is_own in local.made_job_log_groups : name if is_own])
  id       = each.value
  to       = module.observability.aws_cloudwatch_log_group.jobs[each.value]
}
