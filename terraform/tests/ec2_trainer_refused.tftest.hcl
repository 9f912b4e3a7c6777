provider "aws" {
  region = "us-east-1"
}

variables {
  ami_id                = "ami-0a1b2c3d4e5f60718"
  bucket_name           = "kennel-dev-123456789012-us-east-1"
  instance_profile_name = "kennel-dev-ec2"
  name                  = "kennel-dev"
  vpc                   = { vpc_id = "vpc-0a1b2c3d", subnet_ids = ["subnet-0a1b2c3d", "subnet-4e5f6071"] }
}

run "refuses_values_that_cannot_be" {
  command = plan

  module {
    source = "./modules/ec2_trainer"
  }

  variables {
    ami_id             = "ubuntu"
    ami_ssm_parameter  = "/my/ami"
    instance_type      = "ml.g5.xlarge"
    log_retention_days = 31
    max_hours          = 0
    name               = "Kennel"
    root_device_name   = "xvda"
    volume_size_gb     = 20
    vpc                = { vpc_id = "vpc-0a1b2c3d", subnet_ids = [] }
  }

  expect_failures = [
    var.ami_id,
    var.ami_ssm_parameter,
    var.instance_type,
    var.log_retention_days,
    var.max_hours,
    var.name,
    var.root_device_name,
    var.volume_size_gb,
    var.vpc,
  ]
}

run "refuses_ssh_from_everywhere" {
  command = plan

  module {
    source = "./modules/ec2_trainer"
  }

  variables {
    ssh = { key_name = "me", cidr_blocks = ["0.0.0.0/0"] }
  }

  expect_failures = [var.ssh]
}
