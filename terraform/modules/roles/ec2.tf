# What the EC2 trainer's user data does, and what Session Manager's agent needs (the statements of
# AmazonSSMManagedInstanceCore that a shell takes; that policy also reads every parameter of the account).
data "aws_iam_policy_document" "ec2" {
  source_policy_documents = local.key_documents

  statement {
    sid       = "ListPrefixes"
    actions   = ["s3:ListBucket"]
    resources = [var.bucket_arn]

    condition {
      test     = "StringLike"
      variable = "s3:prefix"
      values   = ["checkpoints/*", "data/*", "jobs/*", "source/*"]
    }
  }

  statement {
    sid       = "ReadInputs"
    actions   = ["s3:GetObject"]
    resources = [for prefix in ["checkpoints", "data", "jobs", "source"] : "${var.bucket_arn}/${prefix}/*"]
  }

  statement {
    sid       = "WriteOutputs"
    actions   = ["s3:AbortMultipartUpload", "s3:PutObject"]
    resources = [for prefix in ["checkpoints", "jobs", "logs"] : "${var.bucket_arn}/${prefix}/*"]
  }

  statement {
    sid       = "WriteLogs"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${local.log_group_arns.ec2}:*"]
  }

  statement {
    sid       = "RegisterForSessions"
    actions   = ["ssm:UpdateInstanceInformation"]
    resources = ["arn:${local.partition}:ec2:${local.here}:instance/*"]
  }

  # Session Manager's channels are no resources; only an instance that has this role opens them.
  statement {
    sid = "CarrySessions"
    actions = [
      "ssmmessages:CreateControlChannel",
      "ssmmessages:CreateDataChannel",
      "ssmmessages:OpenControlChannel",
      "ssmmessages:OpenDataChannel",
    ]
    resources = ["*"]

    condition {
      test     = "ArnLike"
      variable = "ec2:SourceInstanceARN"
      values   = ["arn:${local.partition}:ec2:${local.here}:instance/*"]
    }
  }
}
