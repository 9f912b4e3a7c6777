# What the commands around the stacks ask for, beside `train`: upload, preflight, image, verify, invoke, status, logs, and
# what deploy does beside Terraform. It is one of the deploy role's policies, and fits a person's role too (output
# `policies`).
data "aws_iam_policy_document" "operate" {
  source_policy_documents = local.key_documents

  statement {
    sid       = "ListBucket"
    actions   = ["s3:GetEncryptionConfiguration", "s3:ListBucket"]
    resources = [var.bucket_arn]
  }

  statement {
    sid       = "ReadObjects"
    actions   = ["s3:GetObject"]
    resources = ["${var.bucket_arn}/*"]
  }

  statement {
    sid       = "WriteObjects"
    actions   = ["s3:AbortMultipartUpload", "s3:DeleteObject", "s3:ListMultipartUploadParts", "s3:PutObject"]
    resources = [for prefix in ["checkpoints", "data", "jobs", "models", "source"] : "${var.bucket_arn}/${prefix}/*"]
  }

  statement {
    sid = "RegisterModels"
    actions = [
      "sagemaker:AddTags",
      "sagemaker:CreateModelPackage",
      "sagemaker:CreateModelPackageGroup",
      "sagemaker:DeleteModelPackage",
      "sagemaker:DeleteModelPackageGroup",
      "sagemaker:DescribeModelPackage",
      "sagemaker:DescribeModelPackageGroup",
      "sagemaker:ListTags",
      "sagemaker:UpdateModelPackage",
    ]
    resources = [
      "arn:${local.partition}:sagemaker:${local.here}:model-package-group/${var.name}",
      "arn:${local.partition}:sagemaker:${local.here}:model-package/${var.name}/*",
    ]
  }

  statement {
    sid       = "InvokeEndpoint"
    actions   = ["sagemaker:DescribeEndpoint", "sagemaker:InvokeEndpoint"]
    resources = [local.endpoint_arn]
  }

  statement {
    sid     = "ReadWhatServes"
    actions = ["sagemaker:DescribeEndpointConfig", "sagemaker:DescribeModel"]
    resources = [
      for kind in ["endpoint-config", "model"] : "arn:${local.partition}:sagemaker:${local.here}:${kind}/${var.name}-*"
    ]
  }

  # What `make status` counts, beside the jobs of `train`.
  statement {
    sid     = "SeeWhatRuns"
    actions = ["sagemaker:DescribeNotebookInstance", "sagemaker:DescribeProcessingJob"]
    resources = [
      local.notebook_arn,
      "arn:${local.partition}:sagemaker:${local.here}:processing-job/${var.name}-*",
    ]
  }

  statement {
    sid       = "InvokeFunction"
    actions   = ["lambda:GetFunctionConfiguration", "lambda:GetProvisionedConcurrencyConfig", "lambda:InvokeFunction"]
    resources = ["${local.function_arn}:live"]
  }

  statement {
    sid       = "ReadFunction"
    actions   = ["lambda:GetAlias", "lambda:GetFunctionConcurrency"]
    resources = [local.function_arn]
  }

  # `make verify` compares what serves with what Terraform applied.
  dynamic "statement" {
    for_each = var.state_bucket_arn == null ? [] : [var.state_bucket_arn]

    content {
      sid       = "FindState"
      actions   = ["s3:ListBucket"]
      resources = [statement.value]
    }
  }

  dynamic "statement" {
    for_each = var.state_bucket_arn == null ? [] : [var.state_bucket_arn]

    content {
      sid       = "ReadState"
      actions   = ["s3:GetObject"]
      resources = ["${statement.value}/${var.environment}/serving.tfstate"]
    }
  }

  # Whether the groups are there: a list of all.
  statement {
    sid       = "ListLogGroups"
    actions   = ["logs:DescribeLogGroups"]
    resources = ["arn:${local.partition}:logs:${local.here}:log-group:*"]
  }

  statement {
    sid       = "ReadLogs"
    actions   = ["logs:DescribeLogStreams", "logs:FilterLogEvents", "logs:GetLogEvents"]
    resources = [for arn in values(local.log_group_arns) : "${arn}:*"]
  }

  statement {
    sid = "PushImage"
    actions = concat([
      "ecr:BatchCheckLayerAvailability",
      "ecr:BatchGetImage",
      "ecr:CompleteLayerUpload",
      "ecr:DescribeImages",
      "ecr:GetDownloadUrlForLayer",
      "ecr:InitiateLayerUpload",
      "ecr:PutImage",
      "ecr:UploadLayerPart",
      # An image that SageMaker refuses keeps its tag until it is gone.
    ], local.may_empty_bucket ? ["ecr:BatchDeleteImage"] : [])
    resources = [var.repository_arn]
  }

  statement {
    sid       = "FindTrainingImage"
    actions   = ["ecr:BatchGetImage", "ecr:DescribeImages"]
    resources = local.training_image_arns
  }

  statement {
    sid       = "BuildImage"
    actions   = ["codebuild:BatchGetBuilds", "codebuild:StartBuild", "codebuild:StopBuild"]
    resources = ["arn:${local.partition}:codebuild:${local.here}:project/${var.name}-image"]
  }

  statement {
    sid       = "RecordImage"
    actions   = ["ssm:GetParameter", "ssm:PutParameter"]
    resources = [replace(local.parameters_arn, "*", "image_uri")]
  }

  statement {
    sid       = "SeeBudget"
    actions   = ["budgets:ViewBudget"]
    resources = ["arn:${local.partition}:budgets::${local.account}:budget/${var.name}"]
  }

  # Whether the budget's tag is counted. Cost Explorer knows no resources and is in one region only.
  statement {
    sid       = "SeeCostTags"
    actions   = ["ce:ListCostAllocationTags"]
    resources = ["*"]

    condition {
      test     = "StringEquals"
      variable = "aws:RequestedRegion"
      values   = [local.partition == "aws-cn" ? "cn-northwest-1" : "us-east-1"]
    }
  }

  # AWS's own parameters: the ids of its machine images.
  statement {
    sid       = "FindMachineImage"
    actions   = ["ssm:GetParameter"]
    resources = ["arn:${local.partition}:ssm:${local.region}::parameter/aws/service/deeplearning/*"]
  }

  # Lists, metrics, quotas and registry tokens are no resources, or have no names of ours.
  statement {
    sid = "LookAround"
    actions = [
      "cloudwatch:DescribeAlarms",
      "cloudwatch:GetMetricData",
      "ec2:DescribeImages",
      "ec2:DescribeInstanceTypeOfferings",
      "ec2:DescribeRegions",
      "ec2:DescribeSubnets",
      "ecr:GetAuthorizationToken",
      "lambda:GetAccountSettings",
      "sagemaker:ListModelPackageGroups",
      "sagemaker:ListModelPackages",
      "sagemaker:ListProcessingJobs",
      "servicequotas:GetServiceQuota",
      "servicequotas:ListServiceQuotas",
    ]
    resources = ["*"]

    condition {
      test     = "StringEquals"
      variable = "aws:RequestedRegion"
      values   = [local.region]
    }
  }
}
