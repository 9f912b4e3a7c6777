# What the commands around the stacks ask for: upload, train, tune, image, deploy, verify, invoke, logs. It is one of
# the deploy role's policies, and fits a person's role too (output `policies`).
data "aws_iam_policy_document" "operate" {
  statement {
    sid       = "ListBucket"
    actions   = ["s3:ListBucket"]
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
    sid = "RunJobs"
    actions = [
      "sagemaker:AddTags",
      "sagemaker:CreateHyperParameterTuningJob",
      "sagemaker:CreateTrainingJob",
      "sagemaker:DescribeHyperParameterTuningJob",
      "sagemaker:DescribeTrainingJob",
      "sagemaker:ListTags",
      "sagemaker:ListTrainingJobsForHyperParameterTuningJob",
      "sagemaker:StopHyperParameterTuningJob",
      "sagemaker:StopTrainingJob",
    ]
    resources = local.job_arns
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
      "sagemaker:ListModelPackages",
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
    actions   = ["sagemaker:InvokeEndpoint"]
    resources = [local.endpoint_arn]
  }

  statement {
    sid       = "InvokeFunction"
    actions   = ["lambda:InvokeFunction"]
    resources = ["${local.function_arn}:live"]
  }

  statement {
    sid       = "PassTrainingRole"
    actions   = ["iam:PassRole"]
    resources = [local.role_arns.training]

    condition {
      test     = "StringEquals"
      variable = "iam:PassedToService"
      values   = ["sagemaker.amazonaws.com"]
    }
  }

  # The SageMaker SDK looks at the role before it starts a job.
  statement {
    sid       = "ReadTrainingRole"
    actions   = ["iam:GetRole", "iam:SimulatePrincipalPolicy"]
    resources = [local.role_arns.training]
  }

  statement {
    sid       = "ReadLogs"
    actions   = ["logs:DescribeLogStreams", "logs:FilterLogEvents", "logs:GetLogEvents"]
    resources = [for arn in values(local.log_group_arns) : "${arn}:*"]
  }

  statement {
    sid = "PushImage"
    actions = [
      "ecr:BatchCheckLayerAvailability",
      "ecr:BatchGetImage",
      "ecr:CompleteLayerUpload",
      "ecr:DescribeImages",
      "ecr:GetDownloadUrlForLayer",
      "ecr:InitiateLayerUpload",
      "ecr:PutImage",
      "ecr:UploadLayerPart",
    ]
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
    sid       = "ReadHandover"
    actions   = ["ssm:GetParameter", "ssm:GetParameters", "ssm:GetParametersByPath"]
    resources = [local.parameters_arn, trimsuffix(local.parameters_arn, "/*")]
  }

  # Lists, metrics, quotas and registry tokens are no resources, or have no names of ours.
  statement {
    sid = "LookAround"
    actions = [
      "cloudwatch:DescribeAlarms",
      "cloudwatch:GetMetricData",
      "ecr:GetAuthorizationToken",
      "lambda:GetAccountSettings",
      "sagemaker:ListHyperParameterTuningJobs",
      "sagemaker:ListModelPackageGroups",
      "sagemaker:ListTrainingJobs",
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
