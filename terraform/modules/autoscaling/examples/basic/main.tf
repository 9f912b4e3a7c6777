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

module "autoscaling" {
  source = "../.."

  endpoint_name = "kennel-dev"
  instance_type = "ml.m5.large"
  schedule = {
    begin    = "cron(0 20 * * ? *)"
    end      = "cron(0 7 ? * MON-FRI *)"
    timezone = "Europe/Berlin"
  }
  variant_name = "main"
}
