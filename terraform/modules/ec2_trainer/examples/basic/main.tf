terraform {
  required_version = ">= 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100, < 7.0"
    }
  }
}

provider "aws" {
  region = "us-east-1"
}

module "ec2_trainer" {
  source = "../.."

  bucket_name           = "kennel-dev-123456789012-us-east-1"
  enable_spot           = true
  instance_profile_name = "kennel-dev-ec2"
  name                  = "kennel-dev"

  vpc = {
    subnet_ids = ["subnet-0a1b2c3d4e5f60718", "subnet-0f1e2d3c4b5a69788"]
    vpc_id     = "vpc-0a1b2c3d4e5f60718"
  }
}

output "launch_command" {
  description = "Launches a job."
  value       = module.ec2_trainer.launch_command
}
