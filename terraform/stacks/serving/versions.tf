terraform {
  required_version = ">= 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100, < 7.0"
    }
  }

  # Bucket and key are given at `init` (../../environments), so that one stack has a state for each environment.
  backend "s3" {}
}
