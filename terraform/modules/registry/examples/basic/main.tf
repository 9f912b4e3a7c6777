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

data "aws_caller_identity" "current" {}

module "bucket" {
  source = "../../../bucket"

  environment = "dev"
  name        = "kennel-dev-${data.aws_caller_identity.current.account_id}-us-east-1"
}

module "registry" {
  source = "../.."

  bucket = module.bucket
  name   = "kennel-dev"
}

output "build_command" {
  description = "Commands that build the serving image; PYTHON_IMAGE must be set."
  value       = module.registry.build_command
}
