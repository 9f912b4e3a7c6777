# What SageMaker does in the name of a training or tuning job.
data "aws_iam_policy_document" "training" {
  source_policy_documents = concat(
    local.key_documents, local.output_documents, local.volume_documents, local.vpc_documents,
  )

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

  lifecycle {
    precondition {
      condition     = length(local.training_image_accounts) > 0
      error_message = "No registry of AWS's training images is known in ${local.region}: set training_image_accounts to the account that AWS's table of Deep Learning Containers names for it."
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
  source_policy_documents = concat(
    [data.aws_iam_policy_document.train.json],
    local.key_documents, local.volume_documents, local.vpc_documents,
  )

  # Without a condition on the prefix: S3 says that an object is not there only to who may list the whole bucket.
  statement {
    sid       = "ListBucket"
    actions   = ["s3:ListBucket"]
    resources = [var.bucket_arn]
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
    sid       = "WriteLogs"
    actions   = ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
    resources = ["${local.log_group_arns.notebook}:*"]
  }
}
