provider "aws" {
  region = "us-east-1"
}

variables {
  environment = "dev"
  name        = "kennel-dev-123456789012-us-east-1"
}

run "defaults_close_the_bucket" {
  command = plan

  module {
    source = "./modules/bucket"
  }

  assert {
    condition = alltrue([
      aws_s3_bucket_public_access_block.this.block_public_acls,
      aws_s3_bucket_public_access_block.this.block_public_policy,
      aws_s3_bucket_public_access_block.this.ignore_public_acls,
      aws_s3_bucket_public_access_block.this.restrict_public_buckets,
    ])
    error_message = "All four flags of the public access block must be on."
  }

  assert {
    condition     = one(aws_s3_bucket_ownership_controls.this.rule).object_ownership == "BucketOwnerEnforced"
    error_message = "Access lists must be off."
  }

  assert {
    condition     = one(aws_s3_bucket_versioning.this.versioning_configuration).status == "Enabled"
    error_message = "The bucket must keep versions."
  }

  assert {
    condition     = aws_s3_bucket.this.force_destroy == false
    error_message = "The bucket must not be emptied by destroy."
  }

  assert {
    condition     = length(aws_s3_bucket_logging.this) == 0
    error_message = "Without access_log_bucket nothing is logged."
  }
}

run "default_encryption_is_s3s_own" {
  command = plan

  module {
    source = "./modules/bucket"
  }

  assert {
    condition = alltrue([
      for rule in aws_s3_bucket_server_side_encryption_configuration.this.rule :
      one(rule.apply_server_side_encryption_by_default).sse_algorithm == "AES256" && !rule.bucket_key_enabled
    ])
    error_message = "Without a key the objects are encrypted by SSE-S3."
  }

  assert {
    condition = [for statement in jsondecode(data.aws_iam_policy_document.bucket.json).Statement : statement.Sid] == [
      "DenyPlainHttp", "DenyOldTls", "DenyKeysOfCustomers",
    ]
    error_message = "Without a key the policy has nothing to say about keys."
  }
}

run "policy_refuses_weak_transport" {
  command = plan

  module {
    source = "./modules/bucket"
  }

  assert {
    condition = alltrue([
      for statement in slice(jsondecode(data.aws_iam_policy_document.bucket.json).Statement, 0, 2) :
      statement.Effect == "Deny" && statement.Action == "s3:*" && statement.Principal == "*"
      && toset(statement.Resource) == toset([
        "arn:aws:s3:::kennel-dev-123456789012-us-east-1", "arn:aws:s3:::kennel-dev-123456789012-us-east-1/*",
      ])
    ])
    error_message = "Weak transport must be refused to everyone, for the bucket and its objects."
  }

  assert {
    condition = jsondecode(data.aws_iam_policy_document.bucket.json).Statement[0].Condition == {
      Bool = { "aws:SecureTransport" = "false" }
    }
    error_message = "Plain HTTP must be refused."
  }

  assert {
    condition = jsondecode(data.aws_iam_policy_document.bucket.json).Statement[1].Condition == {
      NumericLessThan = { "s3:TlsVersion" = "1.2" }
    }
    error_message = "TLS older than 1.2 must be refused."
  }
}

run "key_encrypts_and_refuses_others" {
  command = plan

  module {
    source = "./modules/bucket"
  }

  variables {
    kms_key_arn = "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555"
  }

  assert {
    condition = alltrue([
      for rule in aws_s3_bucket_server_side_encryption_configuration.this.rule :
      rule.bucket_key_enabled
      && one(rule.apply_server_side_encryption_by_default).sse_algorithm == "aws:kms"
      && endswith(one(rule.apply_server_side_encryption_by_default).kms_master_key_id, ":key/11111111-2222-3333-4444-555555555555")
    ])
    error_message = "Objects must be encrypted under the key, by way of a bucket key."
  }

  assert {
    condition = {
      for statement in jsondecode(data.aws_iam_policy_document.bucket.json).Statement :
      statement.Sid => statement.Condition if strcontains(statement.Sid, "Other")
      } == {
      DenyOtherEncryption = {
        Null            = { "s3:x-amz-server-side-encryption" = "false" }
        StringNotEquals = { "s3:x-amz-server-side-encryption" = "aws:kms" }
      }
      DenyOtherKeys = {
        StringEquals = { "s3:x-amz-server-side-encryption" = "aws:kms" }
        ArnNotEquals = {
          "s3:x-amz-server-side-encryption-aws-kms-key-id" = "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555"
        }
      }
    }
    error_message = "A request that names another encryption or another key must be refused, and one that names none let through."
  }
}

run "lifecycle_forgets_in_time" {
  command = plan

  module {
    source = "./modules/bucket"
  }

  variables {
    lifecycle_days = { checkpoints = 14, noncurrent = 90 }
  }

  # The provider plans 0 and "" where a rule says nothing.
  assert {
    condition = jsonencode({
      for rule in aws_s3_bucket_lifecycle_configuration.this.rule : rule.id => {
        abort      = try(coalesce(one(rule.abort_incomplete_multipart_upload).days_after_initiation), 0)
        days       = try(coalesce(one(rule.expiration).days), 0)
        noncurrent = try(coalesce(one(rule.noncurrent_version_expiration).noncurrent_days), 0)
        prefix     = try(coalesce(one(rule.filter).prefix), "")
      }
      }) == jsonencode({
      abort-multipart    = { abort = 7, days = 0, noncurrent = 0, prefix = "" }
      expire-capture     = { abort = 0, days = 30, noncurrent = 0, prefix = "capture/" }
      expire-checkpoints = { abort = 0, days = 14, noncurrent = 0, prefix = "checkpoints/" }
      expire-noncurrent  = { abort = 0, days = 0, noncurrent = 90, prefix = "" }
    })
    error_message = "Each rule must clear its own prefix after its own days."
  }

  assert {
    condition = anytrue([
      for rule in aws_s3_bucket_lifecycle_configuration.this.rule :
      try(one(rule.expiration).expired_object_delete_marker, false)
    ])
    error_message = "Delete markers that hide nothing must go too."
  }

  assert {
    condition     = alltrue([for rule in aws_s3_bucket_lifecycle_configuration.this.rule : rule.status == "Enabled"])
    error_message = "Every rule must be on."
  }
}

run "access_logs_go_to_another_bucket" {
  command = plan

  module {
    source = "./modules/bucket"
  }

  variables {
    access_log_bucket = { name = "platform-access-logs", prefix = "kennel/" }
  }

  assert {
    condition = (
      aws_s3_bucket_logging.this[0].target_bucket == "platform-access-logs"
      && aws_s3_bucket_logging.this[0].target_prefix == "kennel/"
    )
    error_message = "Access logs must go to the bucket and prefix given."
  }
}

run "objects_may_go_with_the_bucket_outside_prod" {
  command = plan

  module {
    source = "./modules/bucket"
  }

  variables {
    force_destroy = true
  }

  assert {
    condition     = aws_s3_bucket.this.force_destroy
    error_message = "force_destroy must reach the bucket."
  }
}
