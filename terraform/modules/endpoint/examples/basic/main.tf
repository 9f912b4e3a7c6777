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

module "endpoint" {
  source = "../.."

  model = {
    archive_uri = "s3://kennel-dev-123456789012-us-east-1/models/0c8a1f6de35b/model.tar.gz"
    digest      = "0c8a1f6de35b7a1e0b6f1d7c94a2e8f35d60917ab4c2fe8831d7065e9b2a4cf1"
    image_uri   = "123456789012.dkr.ecr.us-east-1.amazonaws.com/kennel-dev-serving@sha256:6f1b0a5c7e2d48936b1f0e8d7c5a4b3f2e1d0c9b8a79685746352413f2e1d0c9"
  }
  name = "kennel-dev"
  release = {
    percent  = 50
    strategy = "canary"
  }
  role_arn = "arn:aws:iam::123456789012:role/kennel-dev-serving"
  variants = {
    main = { initial_instance_count = 2 }
  }
}
