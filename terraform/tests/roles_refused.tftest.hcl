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

run "refuses_wildcards_of_repositories" {
  command = plan

  module {
    source = "./modules/roles"
  }

  variables {
    github = { repository = "example/*" }
  }

  expect_failures = [var.github]
}

run "refuses_ids_in_the_name" {
  command = plan

  module {
    source = "./modules/roles"
  }

  variables {
    github = { repository = "example@123456/kennel@456789" }
  }

  expect_failures = [var.github]
}

run "refuses_one_id_without_the_other" {
  command = plan

  module {
    source = "./modules/roles"
  }

  variables {
    github = { repository = "example/kennel", repository_id = "456789" }
  }

  expect_failures = [var.github]
}

run "refuses_ids_that_are_no_numbers" {
  command = plan

  module {
    source = "./modules/roles"
  }

  variables {
    github = { repository = "example/kennel", owner_id = "*", repository_id = "456789" }
  }

  expect_failures = [var.github]
}

run "refuses_wildcards_of_branches" {
  command = plan

  module {
    source = "./modules/roles"
  }

  variables {
    github = { repository = "example/kennel", branch = "release-*" }
  }

  expect_failures = [var.github]
}

run "refuses_github_without_a_place_to_deploy_from" {
  command = plan

  module {
    source = "./modules/roles"
  }

  variables {
    github = { repository = "example/kennel", environments = [] }
  }

  expect_failures = [var.github]
}

run "refuses_two_providers" {
  command = plan

  module {
    source = "./modules/roles"
  }

  variables {
    github = { repository = "example/kennel", provider_arn = "arn:aws:iam::123456789012:oidc-provider/token.actions.githubusercontent.com" }
  }

  expect_failures = [var.github]
}

run "refuses_what_are_no_arns" {
  command = plan

  module {
    source = "./modules/roles"
  }

  variables {
    bucket_arn               = "kennel-dev"
    kms_key_arn              = "alias/kennel"
    permissions_boundary_arn = "bounds"
    repository_arn           = "kennel-dev-serving"
  }

  expect_failures = [var.bucket_arn, var.kms_key_arn, var.permissions_boundary_arn, var.repository_arn]
}

run "refuses_other_names" {
  command = plan

  module {
    source = "./modules/roles"
  }

  variables {
    name                    = "Kennel*"
    trainer_instance_types  = ["p5.*"]
    training_image_accounts = ["aws"]
  }

  expect_failures = [var.name, var.trainer_instance_types, var.training_image_accounts]
}

run "refuses_to_launch_nothing" {
  command = plan

  module {
    source = "./modules/roles"
  }

  variables {
    trainer_instance_types = []
  }

  expect_failures = [var.trainer_instance_types]
}
