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

module "notebook" {
  source = "../.."

  idle_minutes = 30
  name         = "kennel-dev"
  role_arn     = "arn:aws:iam::${data.aws_caller_identity.current.account_id}:role/kennel-dev-notebook"
}

output "start_command" {
  description = "Commands that start the notebook."
  value       = module.notebook.start_command
}
