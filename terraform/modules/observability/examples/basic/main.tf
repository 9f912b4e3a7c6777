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

module "observability" {
  source = "../.."

  name         = "kennel-dev"
  alarm_emails = ["team@example.com"]

  budget = {
    limit_usd = 200
    tag       = { key = "project", value = "kennel" }
  }

  service = {
    alias_name             = "live"
    dead_letter_queue_name = "kennel-dev-classify-failed"
    endpoint_name          = "kennel-dev"
    function_name          = "kennel-dev-classify"
    max_capacity           = 4
    variant_names          = ["main"]
  }
}
