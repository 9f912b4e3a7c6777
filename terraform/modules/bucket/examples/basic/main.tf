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
  source = "../.."

  environment = "dev"
  name        = "kennel-dev-${data.aws_caller_identity.current.account_id}-us-east-1"

  lifecycle_days = {
    checkpoints = 14
  }
}

output "bucket" {
  description = "Name of the bucket."
  value       = module.bucket.name
}
