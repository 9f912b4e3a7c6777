provider "aws" {
  region = "us-east-1"
}

variables {
  bucket_arn             = "arn:aws:s3:::kennel-dev-123456789012-us-east-1"
  dead_letter_queue_name = "kennel-dev-classify-failed"
  endpoint_name          = "kennel-dev"
  environment            = "dev"
  function_name          = "kennel-dev-classify"
  name                   = "kennel-dev"
  project                = "kennel"
  repository_arn         = "arn:aws:ecr:us-east-1:123456789012:repository/kennel-dev-serving"
}

run "defaults" {
  command = plan

  module {
    source = "./modules/roles"
  }

  assert {
    condition = toset([for role in aws_iam_role.this : role.name]) == toset([
      for key in ["ec2", "lambda", "notebook", "serving", "training"] : "kennel-dev-${key}"
    ])
    error_message = "there must be one role for each that works"
  }

  assert {
    condition     = alltrue([for role in aws_iam_role.this : role.permissions_boundary == null])
    error_message = "roles must have no boundary unless one is given"
  }

  assert {
    condition     = length(aws_iam_role.deploy) + length(aws_iam_openid_connect_provider.github) + length(aws_iam_policy.deploy) == 0
    error_message = "without github there must be nothing for it"
  }

  assert {
    condition     = !contains(keys(output.trust_policies), "deploy") && output.deploy_role_arn == null
    error_message = "without github nobody may take a deploy role"
  }

  assert {
    condition = alltrue([
      for key in ["notebook", "serving", "training"] :
      jsondecode(output.trust_policies[key]).Statement[0].Condition.StringEquals["aws:SourceAccount"] == data.aws_caller_identity.current.account_id
    ])
    error_message = "SageMaker must take roles for this account only"
  }

  assert {
    condition = jsondecode(output.policies.lambda[0]).Statement[0].Resource == format(
      "arn:aws:sagemaker:us-east-1:%s:endpoint/kennel-dev", data.aws_caller_identity.current.account_id
    )
    error_message = "the function must invoke exactly one endpoint"
  }
}

run "a_region_with_a_registry_of_its_own" {
  command = plan

  module {
    source = "./modules/roles"
  }

  override_data {
    target = data.aws_region.current
    values = { id = "eu-south-1" }
  }

  assert {
    condition = one([
      for statement in jsondecode(output.policies.training[0]).Statement : statement.Resource
      if statement.Sid == "PullTrainingImages"
    ]) == "arn:aws:ecr:eu-south-1:692866216735:repository/pytorch*"
    error_message = "training must pull from the region's own registry"
  }
}

run "a_region_without_a_known_registry" {
  command = plan

  module {
    source = "./modules/roles"
  }

  override_data {
    target = data.aws_region.current
    values = { id = "eu-north-9" }
  }

  expect_failures = [data.aws_iam_policy_document.training]
}

run "registries_may_be_named" {
  command = plan

  module {
    source = "./modules/roles"
  }

  override_data {
    target = data.aws_region.current
    values = { id = "eu-north-9" }
  }

  variables {
    training_image_accounts = ["210987654321"]
  }

  assert {
    condition     = strcontains(output.policies.training[0], "arn:aws:ecr:eu-north-9:210987654321:repository/pytorch*")
    error_message = "accounts that are named must be taken"
  }
}

run "github" {
  command = plan

  module {
    source = "./modules/roles"
  }

  variables {
    github           = { repository = "example/kennel", branch = "main" }
    state_bucket_arn = "arn:aws:s3:::kennel-tfstate-123456789012-us-east-1"
  }

  assert {
    condition     = aws_iam_role.deploy[0].name == "kennel-dev-deploy" && aws_iam_openid_connect_provider.github[0].url == "https://token.actions.githubusercontent.com"
    error_message = "github must make the deploy role and the identity provider"
  }

  assert {
    condition     = length(aws_iam_role_policy_attachment.deploy) == length(aws_iam_policy.deploy) && length(aws_iam_policy.deploy) <= 10
    error_message = "all deploy policies must be attached, and a role takes ten"
  }

  assert {
    condition = toset(flatten([
      for statement in jsondecode(aws_iam_policy.deploy["artifacts"].policy).Statement :
      statement.Resource if statement.Sid == "KeepState"
      ])) == toset([
      "arn:aws:s3:::kennel-tfstate-123456789012-us-east-1/dev/*.tfstate",
      "arn:aws:s3:::kennel-tfstate-123456789012-us-east-1/dev/*.tfstate.tflock",
    ])
    error_message = "the deploy role must keep to its environment's states and locks"
  }
}

run "github_provider_of_the_account" {
  command = plan

  module {
    source = "./modules/roles"
  }

  variables {
    github = { repository = "example/kennel", create_provider = false, environments = ["dev", "plan"], branch = "main" }
  }

  assert {
    condition     = length(aws_iam_openid_connect_provider.github) == 0
    error_message = "the account's own provider must be used"
  }

  assert {
    condition = jsondecode(aws_iam_role.deploy[0].assume_role_policy).Statement[0].Principal.Federated == format(
      "arn:aws:iam::%s:oidc-provider/token.actions.githubusercontent.com", data.aws_caller_identity.current.account_id
    )
    error_message = "the deploy role must trust the account's own provider"
  }

  assert {
    condition = jsondecode(aws_iam_role.deploy[0].assume_role_policy).Statement[0].Condition.StringEquals == {
      "token.actions.githubusercontent.com:aud" = "sts.amazonaws.com"
      "token.actions.githubusercontent.com:sub" = [
        "repo:example/kennel:environment:dev",
        "repo:example/kennel:environment:plan",
        "repo:example/kennel:ref:refs/heads/main",
      ]
    }
    error_message = "only jobs of the named environments and the branch may take the deploy role"
  }
}

run "boundary" {
  command = plan

  module {
    source = "./modules/roles"
  }

  variables {
    github                   = { repository = "example/kennel", create_provider = false }
    permissions_boundary_arn = "arn:aws:iam::123456789012:policy/bounds"
  }

  assert {
    condition     = alltrue([for role in concat(values(aws_iam_role.this), aws_iam_role.deploy) : role.permissions_boundary == "arn:aws:iam::123456789012:policy/bounds"])
    error_message = "every role must have the boundary"
  }

  assert {
    condition = one([
      for statement in jsondecode(aws_iam_policy.deploy["iam"].policy).Statement :
      statement.Condition.StringEquals["iam:PermissionsBoundary"] if statement.Sid == "GrantToRoles"
    ]) == "arn:aws:iam::123456789012:policy/bounds"
    error_message = "the deploy role must grant only within the boundary"
  }
}

run "kms" {
  command = plan

  module {
    source = "./modules/roles"
  }

  variables {
    kms_key_arn = "arn:aws:kms:us-east-1:123456789012:key/0a1b2c3d-0000-1111-2222-333344445555"
  }

  assert {
    condition = alltrue([
      for role in ["ec2", "lambda", "notebook", "serving", "training"] :
      contains([for statement in jsondecode(output.policies[role][0]).Statement : statement.Sid], "UseKeyThroughStorage")
    ])
    error_message = "every role must be able to read what the key encrypts"
  }

  assert {
    condition     = !contains([for statement in jsondecode(output.policies.lambda[0]).Statement : statement.Sid], "UseKeyForVolumes")
    error_message = "a function has no volumes"
  }
}

run "vpc" {
  command = plan

  module {
    source = "./modules/roles"
  }

  variables {
    enable_vpc = true
  }

  assert {
    condition = [
      for role in ["ec2", "lambda", "notebook", "serving", "training"] : role
      if contains([for statement in jsondecode(output.policies[role][0]).Statement : statement.Sid], "AttachToVpc")
    ] == ["notebook", "serving", "training"]
    error_message = "what SageMaker runs must be able to attach to the VPC"
  }
}

run "prod_keeps_its_bucket" {
  command = plan

  module {
    source = "./modules/roles"
  }

  variables {
    environment = "prod"
  }

  assert {
    condition     = !strcontains(join("", output.policies.deploy), "s3:DeleteBucket\"") && !strcontains(join("", output.policies.deploy), "s3:DeleteObjectVersion")
    error_message = "in prod the deploy role must not be able to lose data"
  }
}
