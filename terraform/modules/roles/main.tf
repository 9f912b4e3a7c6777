data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

data "aws_region" "current" {}

locals {
  account   = data.aws_caller_identity.current.account_id
  partition = data.aws_partition.current.partition
  region    = data.aws_region.current.id

  bucket_name = element(split(":", var.bucket_arn), 5)
  here        = "${local.region}:${local.account}"

  log_group_arns = {
    for key, name in {
      ec2      = "/${var.name}/ec2-trainer"
      endpoint = "/aws/sagemaker/Endpoints/${var.endpoint_name}"
      function = "/aws/lambda/${var.function_name}"
      image    = "/aws/codebuild/${var.name}-image"
      notebook = "/aws/sagemaker/NotebookInstances"
      training = "/aws/sagemaker/TrainingJobs"
    } : key => "arn:${local.partition}:logs:${local.here}:log-group:${name}"
  }

  # By name: a policy that took them from the roles themselves would make a cycle.
  role_arns = {
    for key in ["deploy", "ec2", "image-build", "lambda", "notebook", "serving", "training"] :
    key => "arn:${local.partition}:iam::${local.account}:role/${var.name}-${key}"
  }

  endpoint_arn      = "arn:${local.partition}:sagemaker:${local.here}:endpoint/${var.endpoint_name}"
  function_arn      = "arn:${local.partition}:lambda:${local.here}:function:${var.function_name}"
  queue_arn         = "arn:${local.partition}:sqs:${local.here}:${var.dead_letter_queue_name}"
  job_arns          = [for kind in ["training-job", "hyper-parameter-tuning-job"] : "arn:${local.partition}:sagemaker:${local.here}:${kind}/${var.name}-*"]
  notebook_arn      = "arn:${local.partition}:sagemaker:${local.here}:notebook-instance/${var.name}"
  parameters_arn    = "arn:${local.partition}:ssm:${local.here}:parameter/${var.project}/${var.environment}/*"
  trainer_name      = "${var.name}-trainer"
  training_log_arns = ["${local.log_group_arns.training}:log-stream:${var.name}-*"]

  training_image_arns = [
    for account in local.training_image_accounts :
    "arn:${local.partition}:ecr:${local.region}:${account}:repository/pytorch*"
  ]

  key_documents     = var.kms_key_arn == null ? [] : [data.aws_iam_policy_document.key.json]
  output_documents  = var.kms_key_arn == null ? [] : [data.aws_iam_policy_document.output_key.json]
  trainer_documents = var.kms_key_arn == null ? [] : [data.aws_iam_policy_document.trainer_key.json]
  volume_documents  = var.kms_key_arn == null ? [] : [data.aws_iam_policy_document.volume_key.json]
  vpc_documents     = var.enable_vpc ? [data.aws_iam_policy_document.vpc.json] : []

  descriptions = {
    ec2      = "EC2 trainer: reads code and data, writes jobs, checkpoints and logs"
    lambda   = "Lambda function: invokes the endpoint"
    notebook = "Notebook: starts and watches training jobs"
    serving  = "SageMaker endpoint: reads models, writes captured requests"
    training = "SageMaker training and tuning jobs"
  }

  policies = {
    ec2      = data.aws_iam_policy_document.ec2.json
    lambda   = data.aws_iam_policy_document.lambda.json
    notebook = data.aws_iam_policy_document.notebook.json
    serving  = data.aws_iam_policy_document.serving.json
    training = data.aws_iam_policy_document.training.json
  }

  trust_policies = {
    ec2      = data.aws_iam_policy_document.trust["ec2"].json
    lambda   = data.aws_iam_policy_document.trust["lambda"].json
    notebook = data.aws_iam_policy_document.trust_sagemaker.json
    serving  = data.aws_iam_policy_document.trust_sagemaker.json
    training = data.aws_iam_policy_document.trust_sagemaker.json
  }
}

resource "aws_iam_role" "this" {
  for_each = local.trust_policies

  assume_role_policy   = each.value
  description          = local.descriptions[each.key]
  name                 = "${var.name}-${each.key}"
  permissions_boundary = var.permissions_boundary_arn
}

resource "aws_iam_role_policy" "this" {
  for_each = local.policies

  name   = var.name
  policy = each.value
  role   = aws_iam_role.this[each.key].name
}

resource "aws_iam_instance_profile" "ec2" {
  name = aws_iam_role.this["ec2"].name
  role = aws_iam_role.this["ec2"].name
}

data "aws_iam_policy_document" "trust_sagemaker" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["sagemaker.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }
  }
}

# EC2 and Lambda do not say for whom they take an instance's or a function's role (no aws:SourceAccount). What keeps
# other accounts out is that a role can be passed within its own account only.
data "aws_iam_policy_document" "trust" {
  for_each = toset(["ec2", "lambda"])

  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["${each.key}.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "key" {
  statement {
    sid       = "UseKeyThroughStorage"
    actions   = ["kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey"]
    resources = compact([var.kms_key_arn])

    condition {
      test     = "StringEquals"
      variable = "kms:ViaService"
      values   = [for service in ["s3", "sqs"] : "${service}.${local.region}.${data.aws_partition.current.dns_suffix}"]
    }
  }
}

data "aws_iam_policy_document" "volume_key" {
  statement {
    sid       = "UseKeyForVolumes"
    actions   = ["kms:CreateGrant"]
    resources = compact([var.kms_key_arn])

    condition {
      test     = "Bool"
      variable = "kms:GrantIsForAWSResource"
      values   = ["true"]
    }
  }
}

# A job's `KmsKeyId`: SageMaker tries the key itself before S3 does (API reference, `OutputDataConfig`).
data "aws_iam_policy_document" "output_key" {
  statement {
    sid       = "EncryptOutputs"
    actions   = ["kms:DescribeKey", "kms:Encrypt"]
    resources = compact([var.kms_key_arn])
  }
}

# What EBS does in the name of who launches the EC2 trainer (EC2's user guide, "Requirements for Amazon EBS encryption").
data "aws_iam_policy_document" "trainer_key" {
  statement {
    sid = "UseKeyForTrainer"
    actions = [
      "kms:Decrypt",
      "kms:DescribeKey",
      "kms:GenerateDataKeyWithoutPlaintext",
      "kms:ReEncryptFrom",
      "kms:ReEncryptTo",
    ]
    resources = compact([var.kms_key_arn])

    condition {
      test     = "StringEquals"
      variable = "kms:ViaService"
      values   = ["ec2.${local.region}.${data.aws_partition.current.dns_suffix}"]
    }
  }

  statement {
    sid       = "LendKeyToTrainer"
    actions   = ["kms:CreateGrant"]
    resources = compact([var.kms_key_arn])

    condition {
      test     = "Bool"
      variable = "kms:GrantIsForAWSResource"
      values   = ["true"]
    }

    condition {
      test     = "StringEquals"
      variable = "kms:ViaService"
      values   = ["ec2.${local.region}.${data.aws_partition.current.dns_suffix}"]
    }
  }
}

data "aws_iam_policy_document" "vpc" {
  statement {
    sid = "AttachToVpc"
    actions = [
      "ec2:CreateNetworkInterface",
      "ec2:CreateNetworkInterfacePermission",
      "ec2:DeleteNetworkInterface",
      "ec2:DeleteNetworkInterfacePermission",
    ]
    resources = [
      for kind in ["network-interface", "security-group", "subnet"] :
      "arn:${local.partition}:ec2:${local.here}:${kind}/*"
    ]
  }

  # EC2's Describe actions know no resources.
  statement {
    sid = "LookAtVpc"
    actions = [
      "ec2:DescribeDhcpOptions",
      "ec2:DescribeNetworkInterfaces",
      "ec2:DescribeSecurityGroups",
      "ec2:DescribeSubnets",
      "ec2:DescribeVpcs",
    ]
    resources = ["*"]

    condition {
      test     = "StringEquals"
      variable = "aws:RequestedRegion"
      values   = [local.region]
    }
  }
}
