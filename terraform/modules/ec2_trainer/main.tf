# A launch template and not an instance: the machine ends itself after its training, and an instance that Terraform
# knew would be started again by the next apply.

data "aws_default_tags" "current" {}

data "aws_region" "current" {}

locals {
  tags     = { Name = "${var.name}-trainer" }
  image_id = coalesce(var.ami_id, one(data.aws_ssm_parameter.ami[*].insecure_value))
}

data "aws_ssm_parameter" "ami" {
  count = var.ami_id == null ? 1 : 0

  name = var.ami_ssm_parameter
}

# `image_id` is ignored below, so a change of var.ami_id has to be passed on by itself.
resource "terraform_data" "ami" {
  input = var.ami_id
}

resource "aws_launch_template" "this" {
  description                          = "Trains one job and terminates itself"
  image_id                             = local.image_id
  instance_initiated_shutdown_behavior = "terminate"
  instance_type                        = var.instance_type
  key_name                             = try(var.ssh.key_name, null)
  name                                 = "${var.name}-trainer"
  tags                                 = local.tags
  update_default_version               = true
  vpc_security_group_ids               = [aws_security_group.this.id]

  user_data = base64encode(templatefile("${path.module}/templates/user_data.sh.tftpl", {
    bucket      = var.bucket_name
    log_group   = aws_cloudwatch_log_group.this.name
    max_minutes = floor(var.max_hours * 60)
    region      = data.aws_region.current.id
  }))

  block_device_mappings {
    device_name = var.root_device_name

    ebs {
      delete_on_termination = true
      encrypted             = true
      kms_key_id            = var.kms_key_arn
      volume_size           = var.volume_size_gb
      volume_type           = "gp3"
    }
  }

  iam_instance_profile {
    name = var.instance_profile_name
  }

  dynamic "instance_market_options" {
    for_each = var.enable_spot ? [true] : []

    content {
      market_type = "spot"

      spot_options {
        instance_interruption_behavior = "terminate"
        spot_instance_type             = "one-time"
      }
    }
  }

  metadata_options {
    http_endpoint               = "enabled"
    http_put_response_hop_limit = 1
    http_tokens                 = "required"
    instance_metadata_tags      = "disabled"
  }

  monitoring {
    enabled = true
  }

  # What is launched later gets none of the provider's default tags by itself.
  dynamic "tag_specifications" {
    for_each = toset(["instance", "volume"])

    content {
      resource_type = tag_specifications.key
      tags          = merge(data.aws_default_tags.current.tags, local.tags)
    }
  }

  lifecycle {
    # AWS publishes a new machine image every few weeks. It is taken when somebody asks for it:
    # terraform apply -replace=<this address>.
    ignore_changes       = [image_id]
    replace_triggered_by = [terraform_data.ami]
  }
}

resource "aws_security_group" "this" {
  description = "EC2 trainer: out by HTTPS, nothing in"
  name        = "${var.name}-trainer"
  tags        = local.tags
  vpc_id      = var.vpc.vpc_id
}

# S3, CloudWatch Logs, Session Manager and the Python package index are all reached by HTTPS; the addresses of the last
# are not known. Names and time come from the VPC itself, which no rule filters.
resource "aws_vpc_security_group_egress_rule" "https" {
  cidr_ipv4         = "0.0.0.0/0"
  description       = "AWS and the Python package index"
  from_port         = 443
  ip_protocol       = "tcp"
  security_group_id = aws_security_group.this.id
  tags              = local.tags
  to_port           = 443
}

resource "aws_vpc_security_group_ingress_rule" "ssh" {
  for_each = toset(try(var.ssh.cidr_blocks, []))

  cidr_ipv4         = each.key
  description       = "SSH"
  from_port         = 22
  ip_protocol       = "tcp"
  security_group_id = aws_security_group.this.id
  tags              = local.tags
  to_port           = 22
}

resource "aws_cloudwatch_log_group" "this" {
  #checkov:skip=CKV_AWS_338:Jobs leave their whole log in the bucket; how long to keep this copy is the owner's choice
  kms_key_id        = var.kms_key_arn
  name              = "/${var.name}/ec2-trainer"
  retention_in_days = var.log_retention_days
}
