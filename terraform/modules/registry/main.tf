data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

data "aws_region" "current" {}

locals {
  build_source_key = "source/image.zip"
  log_group_name   = "/aws/codebuild/${local.project_name}"
  project_name     = "${var.name}-image"
  repository_name  = "${var.name}-serving"

  # From the names, not from the resources: the role's policies can then be read in the plan.
  arn_suffix     = "${data.aws_region.current.id}:${data.aws_caller_identity.current.account_id}"
  log_group_arn  = "arn:${data.aws_partition.current.partition}:logs:${local.arn_suffix}:log-group:${local.log_group_name}"
  project_arn    = "arn:${data.aws_partition.current.partition}:codebuild:${local.arn_suffix}:project/${local.project_name}"
  repository_arn = "arn:${data.aws_partition.current.partition}:ecr:${local.arn_suffix}:repository/${local.repository_name}"
}

resource "aws_ecr_repository" "this" {
  #checkov:skip=CKV_AWS_136:ECR encrypts with AES-256 by default; KMS is optional (kms_key_arn) because each key and request is paid for
  name                 = local.repository_name
  force_delete         = var.force_delete
  image_tag_mutability = "IMMUTABLE"

  encryption_configuration {
    encryption_type = var.kms_key_arn == null ? "AES256" : "KMS"
    kms_key         = var.kms_key_arn
  }

  image_scanning_configuration {
    scan_on_push = true
  }
}

resource "aws_ecr_lifecycle_policy" "this" {
  repository = aws_ecr_repository.this.name

  policy = jsonencode({
    rules = [
      {
        rulePriority = 1
        description  = "Images without a tag go after a day"
        selection = {
          tagStatus   = "untagged"
          countType   = "sinceImagePushed"
          countUnit   = "days"
          countNumber = 1
        }
        action = { type = "expire" }
      },
      {
        rulePriority = 2
        description  = "The last ${var.keep_images} images stay"
        selection = {
          tagStatus      = "tagged"
          tagPatternList = ["*"]
          countType      = "imageCountMoreThan"
          countNumber    = var.keep_images
        }
        action = { type = "expire" }
      },
    ]
  })
}

# Made before the project: CodeBuild would make it without retention, and the role may not.
resource "aws_cloudwatch_log_group" "build" {
  #checkov:skip=CKV_AWS_158:CloudWatch encrypts log groups by default; KMS is optional (kms_key_arn)
  #checkov:skip=CKV_AWS_338:A build's log is of no use after the image has been replaced; log_retention_days says how long it stays
  name              = local.log_group_name
  kms_key_id        = var.kms_key_arn
  retention_in_days = var.log_retention_days
}

resource "aws_codebuild_project" "image" {
  #checkov:skip=CKV_AWS_147:The key would encrypt artifacts and caches, and the build writes neither
  #checkov:skip=CKV_AWS_316:docker build needs a privileged container; the project builds only the archive that this account put into its own bucket
  name          = local.project_name
  description   = "Builds the serving image from s3://${var.bucket.name}/${local.build_source_key}"
  build_timeout = var.build_timeout_minutes
  service_role  = aws_iam_role.build.arn

  artifacts {
    type = "NO_ARTIFACTS"
  }

  environment {
    compute_type    = "BUILD_GENERAL1_SMALL"
    image           = "aws/codebuild/amazonlinux-x86_64-standard:6.0"
    privileged_mode = true
    type            = "LINUX_CONTAINER"

    environment_variable {
      name  = "REPOSITORY_URL"
      value = aws_ecr_repository.this.repository_url
    }

    dynamic "environment_variable" {
      for_each = var.python_image == null ? [] : [var.python_image]

      content {
        name  = "PYTHON_IMAGE"
        value = environment_variable.value
      }
    }
  }

  logs_config {
    cloudwatch_logs {
      group_name = aws_cloudwatch_log_group.build.name
    }
  }

  source {
    type      = "S3"
    buildspec = file("${path.module}/files/buildspec.yml")
    location  = "${var.bucket.name}/${local.build_source_key}"
  }

  # CodeBuild tries the role when the project is made.
  depends_on = [aws_iam_role_policy.build]
}
