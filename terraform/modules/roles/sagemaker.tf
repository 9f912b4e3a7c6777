# What SageMaker does in the name of a training or tuning job.
data "aws_iam_policy_document" "training" {
  source_policy_documents = concat(local.key_documents, local.volume_documents, local.vpc_documents)

  statement {
    sid       = "ListPrefixes"
    actions   = ["s3:ListBucket"]
    resources = [var.bucket_arn]

    condition {
      test     = "StringLike"
      variable = "s3:prefix"
      values   = ["checkpoints/*", "data/*", "jobs/*", "models/*", "source/*"]
    }
  }

  statement {
    sid       = "ReadInputs"
    actions   = ["s3:GetObject"]
    resources = [for prefix in ["checkpoints", "data", "jobs", "models", "source"] : "${var.bucket_arn}/${prefix}/*"]
  }

  statement {
    sid       = "WriteOutputs"
    actions   = ["s3:AbortMultipartUpload", "s3:PutObject"]
    resources = [for prefix in ["checkpoints", "jobs"] : "${var.bucket_arn}/${prefix}/*"]
  }

  statement {
    sid       = "WriteLogs"
    actions   = ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
    resources = ["${local.log_group_arns.training}:*"]
  }

  # CloudWatch's metrics are no resources; their namespace is what can be limited.
  statement {
    sid       = "PutMetrics"
    actions   = ["cloudwatch:PutMetricData"]
    resources = ["*"]

    condition {
      test     = "StringLike"
      variable = "cloudwatch:namespace"
      values   = ["/aws/sagemaker/*"]
    }
  }

  statement {
    sid       = "PullTrainingImages"
    actions   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
    resources = local.training_image_arns
  }

  # The token is for a registry, which is no resource; it opens only what the statement above does.
  statement {
    sid       = "LogInToRegistries"
    actions   = ["ecr:GetAuthorizationToken"]
    resources = ["*"]

    condition {
      test     = "StringEquals"
      variable = "aws:RequestedRegion"
      values   = [local.region]
    }
  }
}

# What SageMaker does in the name of the endpoint.
data "aws_iam_policy_document" "serving" {
  source_policy_documents = concat(local.key_documents, local.volume_documents, local.vpc_documents)

  statement {
    sid       = "ReadModels"
    actions   = ["s3:GetObject"]
    resources = ["${var.bucket_arn}/models/*"]
  }

  statement {
    sid       = "WriteCapturedRequests"
    actions   = ["s3:AbortMultipartUpload", "s3:PutObject"]
    resources = ["${var.bucket_arn}/capture/*"]
  }

  statement {
    sid       = "PullServingImage"
    actions   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
    resources = [var.repository_arn]
  }

  # The token is for a registry, which is no resource; it opens only what the statement above does.
  statement {
    sid       = "LogInToRegistry"
    actions   = ["ecr:GetAuthorizationToken"]
    resources = ["*"]

    condition {
      test     = "StringEquals"
      variable = "aws:RequestedRegion"
      values   = [local.region]
    }
  }

  # A deployment asks the alarms whether to roll back.
  statement {
    sid       = "ReadRollbackAlarms"
    actions   = ["cloudwatch:DescribeAlarms"]
    resources = ["arn:${local.partition}:cloudwatch:${local.here}:alarm:${var.name}-rollback-*"]
  }

  statement {
    sid       = "WriteLogs"
    actions   = ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
    resources = ["${local.log_group_arns.endpoint}:*"]
  }

  # CloudWatch's metrics are no resources; their namespace is what can be limited.
  statement {
    sid       = "PutMetrics"
    actions   = ["cloudwatch:PutMetricData"]
    resources = ["*"]

    condition {
      test     = "StringLike"
      variable = "cloudwatch:namespace"
      values   = ["/aws/sagemaker/*"]
    }
  }
}

# What a person does on the notebook: data up, jobs started and watched, the endpoint tried.
data "aws_iam_policy_document" "notebook" {
  source_policy_documents = concat(local.key_documents, local.volume_documents, local.vpc_documents)

  statement {
    sid       = "ListPrefixes"
    actions   = ["s3:ListBucket"]
    resources = [var.bucket_arn]

    condition {
      test     = "StringLike"
      variable = "s3:prefix"
      values   = ["checkpoints/*", "data/*", "jobs/*", "models/*", "source/*"]
    }
  }

  statement {
    sid       = "ReadObjects"
    actions   = ["s3:GetObject"]
    resources = [for prefix in ["data", "jobs", "models", "source"] : "${var.bucket_arn}/${prefix}/*"]
  }

  statement {
    sid       = "WriteObjects"
    actions   = ["s3:AbortMultipartUpload", "s3:PutObject"]
    resources = [for prefix in ["data", "jobs", "source"] : "${var.bucket_arn}/${prefix}/*"]
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

  # Lists know no resources.
  statement {
    sid       = "ListJobs"
    actions   = ["sagemaker:ListHyperParameterTuningJobs", "sagemaker:ListTrainingJobs"]
    resources = ["*"]

    condition {
      test     = "StringEquals"
      variable = "aws:RequestedRegion"
      values   = [local.region]
    }
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
    sid       = "TryEndpoint"
    actions   = ["sagemaker:DescribeEndpoint", "sagemaker:InvokeEndpoint"]
    resources = [local.endpoint_arn]
  }

  statement {
    sid       = "StopItself"
    actions   = ["sagemaker:DescribeNotebookInstance", "sagemaker:StopNotebookInstance"]
    resources = [local.notebook_arn]
  }

  statement {
    sid       = "ReadHandover"
    actions   = ["ssm:GetParameter", "ssm:GetParameters", "ssm:GetParametersByPath"]
    resources = [local.parameters_arn, trimsuffix(local.parameters_arn, "/*")]
  }

  statement {
    sid       = "FollowJobLogs"
    actions   = ["logs:DescribeLogStreams"]
    resources = ["${local.log_group_arns.training}:*"]
  }

  statement {
    sid       = "ReadJobLogs"
    actions   = ["logs:GetLogEvents"]
    resources = local.training_log_arns
  }

  statement {
    sid       = "WriteLogs"
    actions   = ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
    resources = ["${local.log_group_arns.notebook}:*"]
  }
}
