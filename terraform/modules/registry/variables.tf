variable "bucket" {
  type = object({
    arn  = string
    name = string
  })
  description = "Bucket that holds the build's source archive at `source/image.zip`."
  nullable    = false

  validation {
    condition     = endswith(var.bucket.arn, ":s3:::${var.bucket.name}")
    error_message = "bucket.arn must be the ARN of bucket.name (arn:aws:s3:::NAME): pass the outputs `arn` and `name` of one bucket."
  }
}

variable "build_timeout_minutes" {
  type        = number
  description = "Minutes after which a build is stopped. A build takes 3 to 6."
  default     = 20
  nullable    = false

  validation {
    condition     = var.build_timeout_minutes >= 5 && var.build_timeout_minutes <= 2160 && floor(var.build_timeout_minutes) == var.build_timeout_minutes
    error_message = "build_timeout_minutes must be a whole number of minutes from 5 to 2160, which are CodeBuild's limits."
  }
}

variable "force_delete" {
  type        = bool
  description = "Whether destroy also deletes the images in the repository."
  default     = false
  nullable    = false
}

variable "keep_images" {
  type        = number
  description = "Number of images that stay; older ones expire, also when an endpoint runs on them."
  default     = 10
  nullable    = false

  validation {
    condition     = var.keep_images >= 2 && var.keep_images <= 100 && floor(var.keep_images) == var.keep_images
    error_message = "keep_images must be a whole number from 2 (the image in use and the one to roll back to) to 100."
  }
}

variable "kms_key_arn" {
  type        = string
  description = "ARN of the customer-managed KMS key that encrypts images and build logs (its policy must let CloudWatch Logs use it); null for AWS's own keys, which cost nothing. Another key replaces the repository and its images."
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+$", var.kms_key_arn))
    error_message = "kms_key_arn must be the ARN of a key (arn:aws:kms:REGION:ACCOUNT:key/ID), not an alias or a bare id; `aws kms describe-key --key-id ALIAS` prints it."
  }
}

variable "log_retention_days" {
  type        = number
  description = "Days that the logs of builds are kept."
  default     = 30
  nullable    = false

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "log_retention_days must be a number of days that CloudWatch Logs offers: 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365 and some longer ones."
  }
}

variable "name" {
  type        = string
  description = "Prefix of all names, \"<project>-<environment>\"."
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9]*(-[a-z0-9]+)*$", var.name)) && length(var.name) <= 40
    error_message = "name must be at most 40 lower-case letters, digits and single hyphens between them, a letter first, such as \"kennel-dev\"."
  }
}

variable "permissions_boundary_arn" {
  type        = string
  description = "ARN of the policy that bounds the build's role; null for none."
  default     = null
}

variable "python_image" {
  type        = string
  description = "Base image of the serving image with its digest, for example public.ecr.aws/docker/library/python:3.13-slim@sha256:... (`docker buildx imagetools inspect` prints it); null: each build must be given the environment variable PYTHON_IMAGE."
  default     = null

  validation {
    condition     = var.python_image == null || can(regex("^[^\\s@]+@sha256:[0-9a-f]{64}$", var.python_image))
    error_message = "python_image must name a digest (public.ecr.aws/docker/library/python:3.13-slim@sha256: and 64 hex digits), since a tag changes under the build; `docker buildx imagetools inspect public.ecr.aws/docker/library/python:3.13-slim` prints it."
  }
}
