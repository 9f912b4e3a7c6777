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

module "roles" {
  source = "../.."

  bucket_arn             = "arn:aws:s3:::kennel-dev-123456789012-us-east-1"
  dead_letter_queue_name = "kennel-dev-classify-failed"
  endpoint_name          = "kennel-dev"
  environment            = "dev"
  function_name          = "kennel-dev-classify"
  name                   = "kennel-dev"
  project                = "kennel"
  repository_arn         = "arn:aws:ecr:us-east-1:123456789012:repository/kennel-dev-serving"
  state_bucket_arn       = "arn:aws:s3:::kennel-tfstate-123456789012-us-east-1"

  github = {
    environments = ["dev"]
    repository   = "example/kennel"
  }
}

output "policies" {
  description = "What each role may do."
  value       = module.roles.policies
}
