provider "aws" {
  region = "us-east-1"
}

variables {
  bucket = {
    arn  = "arn:aws:s3:::kennel-dev-123456789012-us-east-1"
    name = "kennel-dev-123456789012-us-east-1"
  }
  name = "kennel-dev"
}

run "repository_holds_what_was_pushed" {
  command = plan

  module {
    source = "./modules/registry"
  }

  assert {
    condition     = aws_ecr_repository.this.name == "kennel-dev-serving"
    error_message = "The repository's name is <name>-serving."
  }

  assert {
    condition     = aws_ecr_repository.this.image_tag_mutability == "IMMUTABLE"
    error_message = "A tag must mean one image for ever."
  }

  assert {
    condition     = one(aws_ecr_repository.this.image_scanning_configuration).scan_on_push
    error_message = "Images must be scanned when they are pushed."
  }

  assert {
    condition     = one(aws_ecr_repository.this.encryption_configuration).encryption_type == "AES256"
    error_message = "Without a key ECR's own encryption is used."
  }

  assert {
    condition     = aws_ecr_repository.this.force_delete == false
    error_message = "Destroy must not take images with it."
  }
}

run "old_images_expire" {
  command = plan

  module {
    source = "./modules/registry"
  }

  variables {
    keep_images = 5
  }

  assert {
    condition = {
      for rule in jsondecode(aws_ecr_lifecycle_policy.this.policy).rules :
      rule.selection.tagStatus => "${rule.selection.countType} ${rule.selection.countNumber}"
      } == {
      untagged = "sinceImagePushed 1"
      tagged   = "imageCountMoreThan 5"
    }
    error_message = "Untagged images go after a day, tagged ones when there are more than keep_images."
  }
}

run "build_takes_one_archive" {
  command = plan

  module {
    source = "./modules/registry"
  }

  assert {
    condition = (
      one(aws_codebuild_project.image.source).type == "S3"
      && one(aws_codebuild_project.image.source).location == "kennel-dev-123456789012-us-east-1/source/image.zip"
    )
    error_message = "The build's source is source/image.zip in the bucket."
  }

  assert {
    condition     = yamldecode(one(aws_codebuild_project.image.source).buildspec).version == 0.2
    error_message = "The buildspec must be YAML of version 0.2."
  }

  assert {
    condition     = one(aws_codebuild_project.image.environment).privileged_mode && aws_codebuild_project.image.build_timeout == 20
    error_message = "docker build needs a privileged container, and must end."
  }

  assert {
    condition     = !contains(one(aws_codebuild_project.image.environment).environment_variable[*].name, "PYTHON_IMAGE")
    error_message = "Without python_image each build must bring its own."
  }

  assert {
    condition = (
      aws_cloudwatch_log_group.build.name == "/aws/codebuild/kennel-dev-image"
      && aws_cloudwatch_log_group.build.retention_in_days == 30
      && one(one(aws_codebuild_project.image.logs_config).cloudwatch_logs).group_name == aws_cloudwatch_log_group.build.name
    )
    error_message = "The build must log to the group that is there before it, with retention."
  }
}

run "role_serves_this_project_only" {
  command = plan

  module {
    source = "./modules/registry"
  }

  assert {
    condition     = aws_iam_role.build.name == "kennel-dev-image-build"
    error_message = "The role's name is <name>-image-build."
  }

  assert {
    condition = jsondecode(data.aws_iam_policy_document.build_trust.json).Statement[0].Condition == {
      ArnEquals    = { "aws:SourceArn" = "arn:aws:codebuild:us-east-1:123456789012:project/kennel-dev-image" }
      StringEquals = { "aws:SourceAccount" = "123456789012" }
    }
    error_message = "Only this account's project may take the role."
  }

  assert {
    condition = {
      for statement in jsondecode(data.aws_iam_policy_document.build.json).Statement : statement.Sid => statement.Resource
      } == {
      FindSource      = "arn:aws:s3:::kennel-dev-123456789012-us-east-1"
      LogInToRegistry = "*"
      PushImage       = "arn:aws:ecr:us-east-1:123456789012:repository/kennel-dev-serving"
      ReadSource      = "arn:aws:s3:::kennel-dev-123456789012-us-east-1/source/image.zip"
      WriteLog        = "arn:aws:logs:us-east-1:123456789012:log-group:/aws/codebuild/kennel-dev-image:log-stream:*"
    }
    error_message = "Each right must be on the one thing it is for."
  }

  assert {
    condition = alltrue([
      for action in flatten(jsondecode(data.aws_iam_policy_document.build.json).Statement[*].Action) :
      can(regex("^[a-z0-9]+:[A-Za-z]+$", action)) && action != "logs:CreateLogGroup"
    ])
    error_message = "The role must have single actions, and must not make a log group without retention."
  }
}

run "key_encrypts_images_and_logs" {
  command = plan

  module {
    source = "./modules/registry"
  }

  variables {
    kms_key_arn = "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555"
  }

  assert {
    condition = (
      one(aws_ecr_repository.this.encryption_configuration).encryption_type == "KMS"
      && endswith(one(aws_ecr_repository.this.encryption_configuration).kms_key, "-555555555555")
      && endswith(aws_cloudwatch_log_group.build.kms_key_id, "-555555555555")
    )
    error_message = "Images and logs must be encrypted under the key."
  }

  assert {
    condition = [
      for statement in jsondecode(data.aws_iam_policy_document.build.json).Statement :
      [statement.Action, statement.Resource, statement.Condition] if statement.Sid == "DecryptSource"
      ] == [[
        "kms:Decrypt",
        "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555",
        { StringEquals = { "kms:ViaService" = "s3.us-east-1.amazonaws.com" } },
    ]]
    error_message = "The build must be able to read the archive under that key, by way of S3."
  }
}

run "base_image_reaches_the_build" {
  command = plan

  module {
    source = "./modules/registry"
  }

  variables {
    build_timeout_minutes    = 30
    force_delete             = true
    permissions_boundary_arn = "arn:aws:iam::123456789012:policy/boundary"
    python_image             = "python:3.13-slim@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
  }

  assert {
    condition = anytrue([
      for variable in one(aws_codebuild_project.image.environment).environment_variable :
      variable.name == "PYTHON_IMAGE" && startswith(variable.value, "python:3.13-slim@sha256:")
    ])
    error_message = "The build must be given the base image."
  }

  assert {
    condition = (
      strcontains(output.build_command, "echo \"python:3.13-slim@sha256:0123")
      && strcontains(output.build_command, "name=PYTHON_IMAGE,value=python:3.13-slim@sha256:0123")
    )
    error_message = "The next command must name the base image, and make it a part of the tag."
  }

  assert {
    condition     = aws_codebuild_project.image.build_timeout == 30 && aws_ecr_repository.this.force_delete
    error_message = "Time-out and force_delete must reach the resources."
  }

  assert {
    condition     = aws_iam_role.build.permissions_boundary == "arn:aws:iam::123456789012:policy/boundary"
    error_message = "The role must be bounded."
  }
}
