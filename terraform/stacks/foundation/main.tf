# What lives long and holds data: the bucket, the roles, the image registry, the notebook, the EC2 trainer, the budget.
# `serving` finds all of it through the SSM parameters at the end.

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

locals {
  name        = "${var.project}-${var.environment}"
  bucket_name = "${local.name}-${data.aws_caller_identity.current.account_id}-${var.region}"

  # Roles name what `serving` will make before it is there.
  endpoint_name          = local.name
  function_name          = "${local.name}-classify"
  dead_letter_queue_name = "${local.function_name}-failed"

  state_bucket_arn = format(
    "arn:%s:s3:::%s-tfstate-%s-%s",
    data.aws_partition.current.partition, var.project, data.aws_caller_identity.current.account_id, var.region,
  )

  # Only the EC2 trainer needs a network of the account.
  takes_default_vpc = var.enable_ec2_trainer && var.vpc == null
  default_vpc_ids   = flatten(data.aws_vpcs.default[*].ids)

  vpc = var.vpc != null ? var.vpc : {
    vpc_id     = one(local.default_vpc_ids)
    subnet_ids = flatten(data.aws_subnets.default[*].ids)
  }
}

data "aws_vpcs" "default" {
  count = local.takes_default_vpc ? 1 : 0

  filter {
    name   = "is-default"
    values = ["true"]
  }
}

data "aws_subnets" "default" {
  count = local.takes_default_vpc ? 1 : 0

  filter {
    name   = "vpc-id"
    values = local.default_vpc_ids
  }

  lifecycle {
    precondition {
      condition     = length(local.default_vpc_ids) == 1
      error_message = "The EC2 trainer needs a network, and ${var.region} has no default VPC: set vpc to one of yours, or enable_ec2_trainer to false."
    }
  }
}

module "bucket" {
  source = "../../modules/bucket"

  access_log_bucket = var.access_log_bucket
  environment       = var.environment
  force_destroy     = var.force_destroy
  kms_key_arn       = var.kms_key_arn
  lifecycle_days    = var.lifecycle_days
  name              = local.bucket_name
}

module "registry" {
  source = "../../modules/registry"

  bucket                   = { name = module.bucket.name, arn = module.bucket.arn }
  force_delete             = var.force_destroy
  kms_key_arn              = var.kms_key_arn
  log_retention_days       = var.log_retention_days
  name                     = local.name
  permissions_boundary_arn = var.permissions_boundary_arn
  python_image             = var.python_image
}

module "roles" {
  source = "../../modules/roles"

  bucket_arn               = module.bucket.arn
  dead_letter_queue_name   = local.dead_letter_queue_name
  enable_vpc               = var.enable_vpc || var.notebook.vpc != null
  endpoint_name            = local.endpoint_name
  environment              = var.environment
  function_name            = local.function_name
  github                   = var.github
  kms_key_arn              = var.kms_key_arn
  name                     = local.name
  permissions_boundary_arn = var.permissions_boundary_arn
  project                  = var.project
  repository_arn           = module.registry.repository_arn
  state_bucket_arn         = local.state_bucket_arn
  trainer_instance_types   = distinct(concat([var.ec2_trainer.instance_type], var.ec2_trainer.other_instance_types))
  training_image_accounts  = var.training_image_accounts
}

module "notebook" {
  source = "../../modules/notebook"
  count  = var.enable_notebook ? 1 : 0

  idle_minutes        = var.notebook.idle_minutes
  instance_type       = var.notebook.instance_type
  kms_key_arn         = var.kms_key_arn
  max_hours_per_day   = var.notebook.max_hours_per_day
  name                = local.name
  platform_identifier = var.notebook.platform_identifier
  role_arn            = module.roles.notebook_role_arn
  volume_size_gb      = var.notebook.volume_size_gb
  vpc                 = var.notebook.vpc
}

module "ec2_trainer" {
  source = "../../modules/ec2_trainer"
  count  = var.enable_ec2_trainer ? 1 : 0

  ami_id                = var.ec2_trainer.ami_id
  bucket_name           = module.bucket.name
  enable_spot           = var.ec2_trainer.enable_spot
  instance_profile_name = module.roles.ec2_instance_profile_name
  instance_type         = var.ec2_trainer.instance_type
  kms_key_arn           = var.kms_key_arn
  max_hours             = var.ec2_trainer.max_hours
  name                  = local.name
  ssh                   = var.ec2_trainer.ssh
  volume_size_gb        = var.ec2_trainer.volume_size_gb
  vpc                   = local.vpc
}

module "observability" {
  source = "../../modules/observability"

  alarm_emails = var.alarm_emails
  budget = var.monthly_budget_usd == null ? null : {
    emails    = var.alarm_emails
    limit_usd = var.monthly_budget_usd
    tag       = var.budget_scope == "account" ? null : { key = "project", value = var.project }
  }
  job_log_groups     = local.own_job_log_groups
  kms_key_arn        = var.kms_key_arn
  log_retention_days = var.log_retention_days
  name               = local.name
}

check "somebody_is_told" {
  assert {
    condition     = length(var.alarm_emails) > 0
    error_message = "Nobody is told of alarms${var.monthly_budget_usd == null ? "" : " or of the budget"}: set alarm_emails to who is called, in the environment's foundation variables."
  }
}

# The handover to `serving` and to the commands. A map with literal keys: `for_each` must know them before an apply.
resource "aws_ssm_parameter" "handover" {
  for_each = merge(
    {
      alarm_topic_arn     = module.observability.topic_arn
      bucket              = module.bucket.name
      endpoint_name       = local.endpoint_name
      function_name       = local.function_name
      image_build_project = module.registry.build_project_name
      lambda_role_arn     = module.roles.lambda_role_arn
      repository_url      = module.registry.repository_url
      serving_role_arn    = module.roles.serving_role_arn
      training_role_arn   = module.roles.training_role_arn
    },
    var.enable_ec2_trainer ? {
      ec2_launch_template_id = module.ec2_trainer[0].launch_template_id
      ec2_subnet_ids         = join(",", module.ec2_trainer[0].subnet_ids)
    } : {},
  )

  #checkov:skip=CKV2_AWS_34:Names and ARNs, nothing secret; a SecureString would ask every reader for a right to a key
  name  = "/${var.project}/${var.environment}/${each.key}"
  type  = "String"
  value = each.value
}
