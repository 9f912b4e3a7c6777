variable "access_log_bucket" {
  type = object({
    name   = string
    prefix = optional(string, "")
  })
  description = "Bucket of the same account and region that receives this bucket's access logs below `prefix` (its policy must let logging.s3.amazonaws.com put objects); null for no logs."
  default     = null

  validation {
    condition     = var.access_log_bucket == null || try(var.access_log_bucket.name != var.name, false)
    error_message = "access_log_bucket must be another bucket than \"${var.name}\": logs about the writing of logs would never end."
  }

  validation {
    condition     = try(var.access_log_bucket.prefix, "") == "" || endswith(try(var.access_log_bucket.prefix, ""), "/")
    error_message = "access_log_bucket.prefix must be empty or end in \"/\", such as \"s3/\"."
  }
}

variable "environment" {
  type        = string
  description = "Environment that the bucket belongs to; \"prod\" refuses `force_destroy`."
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]*$", var.environment))
    error_message = "environment must be lower-case letters, digits and hyphens, a letter first, such as \"dev\" or \"prod\"."
  }
}

variable "force_destroy" {
  type        = bool
  description = "Whether destroy also deletes every object and version in the bucket. Refused for the environment \"prod\"."
  default     = false
  nullable    = false

  validation {
    condition     = !(var.force_destroy && var.environment == "prod")
    error_message = "force_destroy is refused for prod, where data would go with one command: set it to false. To retire the bucket, empty it by hand first (every version), then destroy."
  }
}

variable "kms_key_arn" {
  type        = string
  description = "ARN of the customer-managed KMS key that encrypts the objects; null for S3's own keys (SSE-S3), which cost nothing."
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+$", var.kms_key_arn))
    error_message = "kms_key_arn must be the ARN of a key (arn:aws:kms:REGION:ACCOUNT:key/ID), not an alias or a bare id, which the bucket's policy could not compare; `aws kms describe-key --key-id ALIAS` prints it."
  }
}

variable "lifecycle_days" {
  type = object({
    abort_multipart = optional(number, 7)
    capture         = optional(number, 30)
    checkpoints     = optional(number, 30)
    noncurrent      = optional(number, 30)
  })
  description = "Days after which unfinished uploads are dropped (`abort_multipart`), captured requests and training checkpoints expire (`capture`, `checkpoints`), and replaced or deleted versions are gone for good (`noncurrent`)."
  default     = {}
  nullable    = false

  validation {
    condition     = alltrue([for days in values(var.lifecycle_days) : try(days >= 1 && floor(days) == days, false)])
    error_message = "Each of lifecycle_days must be a whole number of days, 1 or more."
  }
}

variable "name" {
  type        = string
  description = "Full name of the bucket, unique in all of AWS: \"<project>-<environment>-<account id>-<region>\" is."
  nullable    = false

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$", var.name))
    error_message = "name must be 3 to 63 lower-case letters, digits and hyphens, with a letter or digit at both ends. Dots are refused too: TLS certificates do not cover them."
  }

  validation {
    condition = !anytrue(concat(
      [for prefix in ["amzn-s3-demo-", "sthree-", "xn--"] : startswith(var.name, prefix)],
      [for suffix in ["--ol-s3", "--table-s3", "--x-s3", "-s3alias"] : endswith(var.name, suffix)],
    ))
    error_message = "name must not begin with amzn-s3-demo-, sthree- or xn--, nor end with -s3alias, --ol-s3, --table-s3 or --x-s3: S3 keeps those for itself. Choose another name."
  }
}
