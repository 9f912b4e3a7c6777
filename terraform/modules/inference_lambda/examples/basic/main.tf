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

module "inference_lambda" {
  source = "../.."

  name          = "kennel-dev"
  endpoint_name = "kennel-dev"
  role_arn      = "arn:aws:iam::123456789012:role/kennel-dev-lambda"
  zip_path      = "${path.module}/kennel-lambda-arm64.zip"
}
