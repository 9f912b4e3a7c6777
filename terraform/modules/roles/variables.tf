variable "bucket_arn" {
  type        = string
  description = "ARN of the artifact bucket."
  nullable    = false

  validation {
    condition     = can(regex("^arn:[a-z-]+:s3:::[a-z0-9.-]+$", var.bucket_arn))
    error_message = "bucket_arn must be a bucket's ARN (arn:aws:s3:::NAME), without a key."
  }
}

variable "dead_letter_queue_name" {
  type        = string
  description = "Name of the queue for the events that the Lambda function failed on."
  nullable    = false
}

variable "enable_vpc" {
  type        = bool
  description = "Whether SageMaker's jobs, endpoint or notebook run in a VPC, for which it makes network interfaces."
  default     = false
  nullable    = false
}

variable "endpoint_name" {
  type        = string
  description = "Name of the one endpoint that the Lambda function may invoke."
  nullable    = false
}

variable "environment" {
  type        = string
  description = "Environment: part of the path of SSM parameters and Terraform states. In \"prod\" the deploy role can neither empty nor delete the bucket."
  nullable    = false
}

variable "function_name" {
  type        = string
  description = "Name of the Lambda function."
  nullable    = false
}

variable "github" {
  type = object({
    branch          = optional(string)
    create_provider = optional(bool, true)
    environments    = optional(list(string), ["prod"])
    owner_id        = optional(string)
    provider_arn    = optional(string)
    repository      = string
    repository_id   = optional(string)
  })
  description = "GitHub repository (\"owner/name\") whose workflows may take the deploy role, from jobs of the named deployment environments and from the branch, if any; null for no deploy role. A repository that was made, renamed or transferred on github.com after 2026-07-15, or has opted in, needs `owner_id` and `repository_id` too: its tokens name both. An account has one identity provider for GitHub: with `create_provider = false` it is the one that is there, or `provider_arn`."
  default     = null

  validation {
    condition     = var.github == null || can(regex("^[A-Za-z0-9-]+/[A-Za-z0-9._-]+$", var.github.repository))
    error_message = "github.repository must be \"owner/name\", without wildcards: every workflow that it names may deploy. The numbers of \"owner@1/name@2\" go to github.owner_id and github.repository_id."
  }

  validation {
    condition     = var.github == null || try((var.github.owner_id == null) == (var.github.repository_id == null), true)
    error_message = "github.owner_id and github.repository_id go together: set both, or neither for a repository whose tokens name no ids. `gh api repos/OWNER/NAME --jq '.owner.id, .id'` prints them."
  }

  validation {
    condition     = var.github == null || try(alltrue([for id in compact([var.github.owner_id, var.github.repository_id]) : can(regex("^[1-9][0-9]*$", id))]), true)
    error_message = "github.owner_id and github.repository_id must be the numbers that GitHub gives: `gh api repos/OWNER/NAME --jq '.owner.id, .id'` prints them."
  }

  validation {
    condition     = var.github == null || try(length(var.github.environments) > 0 || var.github.branch != null, true)
    error_message = "github must name an environment or a branch whose jobs may deploy, such as environments = [\"prod\"]."
  }

  validation {
    condition = var.github == null || try(alltrue([
      for part in concat(var.github.environments, compact([var.github.branch])) : !strcontains(part, "*") && part != ""
    ]), true)
    error_message = "github.environments and github.branch must be exact names: a wildcard would let unreviewed code deploy."
  }

  validation {
    condition     = try(!(var.github.create_provider && var.github.provider_arn != null), true)
    error_message = "github.provider_arn names a provider that is there: set github.create_provider = false with it, or leave it out."
  }
}

variable "kms_key_arn" {
  type        = string
  description = "ARN of the customer-managed KMS key of bucket, queue and volumes; null if they have the services' own encryption."
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/", var.kms_key_arn))
    error_message = "kms_key_arn must be the ARN of a key (arn:aws:kms:REGION:ACCOUNT:key/ID), not an alias or an id: IAM grants by key."
  }
}

variable "name" {
  type        = string
  description = "Prefix of all names, \"<project>-<environment>\"."
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,39}$", var.name))
    error_message = "name must be 2 to 40 lower-case letters, digits and hyphens, a letter first, such as \"kennel-dev\": it is part of ARNs."
  }
}

variable "permissions_boundary_arn" {
  type        = string
  description = "ARN of the policy that bounds every role; null for none. See the README: without one, the deploy role could give the other roles any right."
  default     = null

  validation {
    condition     = var.permissions_boundary_arn == null || can(regex("^arn:[a-z-]+:iam::([0-9]{12}|aws):policy/", var.permissions_boundary_arn))
    error_message = "permissions_boundary_arn must be the ARN of a managed policy (arn:aws:iam::ACCOUNT:policy/NAME)."
  }
}

variable "project" {
  type        = string
  description = "Project: the first part of the path of the SSM parameters."
  nullable    = false
}

variable "repository_arn" {
  type        = string
  description = "ARN of the ECR repository of the serving image."
  nullable    = false

  validation {
    condition     = can(regex("^arn:[a-z-]+:ecr:[a-z0-9-]+:[0-9]{12}:repository/.+$", var.repository_arn))
    error_message = "repository_arn must be an ECR repository's ARN (arn:aws:ecr:REGION:ACCOUNT:repository/NAME)."
  }
}

variable "state_bucket_arn" {
  type        = string
  description = "ARN of the bucket with Terraform's state, for the deploy role; null if the state is elsewhere."
  default     = null
}

variable "trainer_instance_types" {
  type        = list(string)
  description = "Instance types that may be launched from the EC2 trainer's template."
  default     = ["g5.xlarge"]
  nullable    = false

  validation {
    condition     = length(var.trainer_instance_types) > 0 && alltrue([for type in var.trainer_instance_types : can(regex("^[a-z0-9-]+[.][a-z0-9-]+$", type))])
    error_message = "trainer_instance_types must name one EC2 type or more, such as [\"g5.xlarge\"], without wildcards: each may be launched at your expense."
  }
}

variable "training_image_accounts" {
  type        = list(string)
  description = "Accounts of AWS's registries of training images; empty for the region's own, by AWS's table of Deep Learning Containers."
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for account in var.training_image_accounts : can(regex("^[0-9]{12}$", account))])
    error_message = "training_image_accounts must be account ids of 12 digits, such as [\"763104351884\"]."
  }
}
