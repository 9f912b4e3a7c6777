provider "aws" {
  region = "us-east-1"
}

variables {
  name     = "kennel-dev"
  role_arn = "arn:aws:iam::123456789012:role/kennel-dev-notebook"
}

run "refuses_to_stop_between_two_thoughts" {
  command = plan

  module {
    source = "./modules/notebook"
  }

  variables {
    idle_minutes = 5
  }

  expect_failures = [var.idle_minutes]
}

run "refuses_types_of_ec2" {
  command = plan

  module {
    source = "./modules/notebook"
  }

  variables {
    instance_type = "t3.medium"
  }

  expect_failures = [var.instance_type]
}

run "refuses_a_key_alias" {
  command = plan

  module {
    source = "./modules/notebook"
  }

  variables {
    kms_key_arn = "arn:aws:kms:us-east-1:123456789012:alias/kennel"
  }

  expect_failures = [var.kms_key_arn]
}

run "refuses_more_than_a_day" {
  command = plan

  module {
    source = "./modules/notebook"
  }

  variables {
    max_hours_per_day = 25
  }

  expect_failures = [var.max_hours_per_day]
}

run "refuses_a_name_with_underscores" {
  command = plan

  module {
    source = "./modules/notebook"
  }

  variables {
    name = "kennel_dev"
  }

  expect_failures = [var.name]
}

run "refuses_a_withdrawn_platform" {
  command = plan

  module {
    source = "./modules/notebook"
  }

  variables {
    platform_identifier = "notebook-al2-v1"
  }

  expect_failures = [var.platform_identifier]
}

run "refuses_the_name_of_a_role" {
  command = plan

  module {
    source = "./modules/notebook"
  }

  variables {
    role_arn = "kennel-dev-notebook"
  }

  expect_failures = [var.role_arn]
}

run "refuses_a_volume_below_the_limit" {
  command = plan

  module {
    source = "./modules/notebook"
  }

  variables {
    volume_size_gb = 4
  }

  expect_failures = [var.volume_size_gb]
}

run "refuses_a_vpc_as_subnet" {
  command = plan

  module {
    source = "./modules/notebook"
  }

  variables {
    vpc = { subnet_id = "vpc-0123456789abcdef0", security_group_ids = ["sg-0123456789abcdef0"] }
  }

  expect_failures = [var.vpc]
}

run "refuses_a_vpc_without_security_group" {
  command = plan

  module {
    source = "./modules/notebook"
  }

  variables {
    vpc = { subnet_id = "subnet-0123456789abcdef0", security_group_ids = [] }
  }

  expect_failures = [var.vpc]
}
