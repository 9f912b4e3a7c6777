variable "access_log_bucket" {
  type = object({
    name   = string
    prefix = optional(string, "s3/")
  })
  description = "Bucket that receives the artifact bucket's access logs; null for none."
  default     = null
}

variable "alarm_emails" {
  type        = set(string)
  description = "Addresses that are told of alarms and of the budget. Each must confirm the e-mail that AWS sends. Without any, nobody is told."
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for address in var.alarm_emails : can(regex("^[^@\\s]+@[^@\\s]+\\.[^@\\s]+$", address))])
    error_message = "Each of alarm_emails must be one e-mail address, such as \"platform@example.com\"."
  }
}

variable "budget_scope" {
  type        = string
  description = "What the budget counts: \"project\", what carries the project's tag (once the tag is activated in the billing console, see `make preflight`), or \"account\", everything."
  default     = "project"
  nullable    = false

  validation {
    condition     = contains(["account", "project"], var.budget_scope)
    error_message = "budget_scope must be \"project\" or \"account\"."
  }
}

variable "cost_centre" {
  type        = string
  description = "Value of the tag `cost-centre` of every resource."
  nullable    = false
}

variable "ec2_trainer" {
  type = object({
    ami_id               = optional(string)
    enable_spot          = optional(bool, false)
    instance_type        = optional(string, "g5.xlarge")
    max_hours            = optional(number, 12)
    other_instance_types = optional(list(string), [])
    ssh                  = optional(object({ key_name = string, cidr_blocks = list(string) }))
    volume_size_gb       = optional(number, 45)
  })
  description = "The EC2 trainer's machine, with `enable_ec2_trainer`; see ../../modules/ec2_trainer. Who trains may launch `instance_type` and, by `INSTANCE_TYPE=`, `other_instance_types`, and no more."
  default     = {}
  nullable    = false
}

variable "enable_ec2_trainer" {
  type        = bool
  description = "Whether to make the launch template of the EC2 trainer. It costs nothing until a machine is launched."
  default     = true
  nullable    = false
}

variable "enable_job_log_groups" {
  type        = bool
  description = "Whether to make SageMaker's log groups of training jobs and notebooks where they are not there. They are one for each account and region: what others have made is left as it is, and destroying leaves all."
  default     = true
  nullable    = false
}

variable "enable_notebook" {
  type        = bool
  description = "Whether to make the notebook instance, which is paid for while it runs."
  default     = true
  nullable    = false
}

variable "enable_vpc" {
  type        = bool
  description = "Whether training jobs run in the subnets of `vpc`, which then must be private ones with a way to S3 (gateway endpoint or NAT) and to the Python package index (NAT). Roles get the rights on network interfaces, for an endpoint in a VPC too."
  default     = false
  nullable    = false

  validation {
    condition     = !var.enable_vpc || var.vpc != null
    error_message = "enable_vpc needs vpc: the network and the private subnets that jobs run in. Those of the default VPC will not do, for SageMaker's interfaces have no public address."
  }
}

variable "environment" {
  type        = string
  description = "Environment: the last part of every name, and of the path of the SSM parameters."
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9]{0,9}$", var.environment))
    error_message = "environment must be 1 to 10 lower-case letters and digits, a letter first, such as \"dev\"."
  }
}

variable "force_destroy" {
  type        = bool
  description = "Whether Terraform may delete the bucket with its objects and the registry with its images. Refused for prod. `make destroy` keeps them all the same, unless DELETE_DATA=1 says otherwise."
  default     = false
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
  description = "GitHub repository (\"owner/name\") whose workflows may take the deploy role; null for no deploy role. See ../../modules/roles for when it needs its ids."
  default     = null
}

variable "kms_key_arn" {
  type        = string
  description = "ARN of a customer-managed KMS key that encrypts everything; null for the services' own encryption. The apply fails at the log groups unless the key's policy lets logs.<region>.amazonaws.com use it (kms:Encrypt*, Decrypt*, ReEncrypt*, GenerateDataKey*, Describe*); a new key's does not. For the alarms' topic it must let cloudwatch.amazonaws.com and budgets.amazonaws.com use kms:Decrypt and kms:GenerateDataKey*, too."
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/", var.kms_key_arn))
    error_message = "kms_key_arn must be the ARN of a key (arn:aws:kms:REGION:ACCOUNT:key/ID), not an alias or an id."
  }
}

variable "lifecycle_days" {
  type = object({
    abort_multipart = optional(number, 7)
    capture         = optional(number, 30)
    checkpoints     = optional(number, 30)
    noncurrent      = optional(number, 30)
  })
  description = "Days after which the bucket forgets unfinished uploads, captured requests, checkpoints and old versions."
  default     = {}
  nullable    = false
}

variable "log_retention_days" {
  type        = number
  description = "Days that the logs of jobs, of the notebook and of image builds are kept."
  default     = 30
  nullable    = false
}

variable "monthly_budget_usd" {
  type        = number
  description = "Monthly budget of the project in USD; null for none."
  default     = 100
}

variable "notebook" {
  type = object({
    idle_minutes        = optional(number, 60)
    instance_type       = optional(string, "ml.t3.medium")
    max_hours_per_day   = optional(number, 10)
    platform_identifier = optional(string)
    volume_size_gb      = optional(number, 5)
    vpc                 = optional(object({ subnet_id = string, security_group_ids = list(string) }))
  })
  description = "The notebook, with `enable_notebook`; see ../../modules/notebook."
  default     = {}
  nullable    = false
}

variable "owner" {
  type        = string
  description = "Value of the tag `owner` of every resource: the team to call."
  nullable    = false
}

variable "permissions_boundary_arn" {
  type        = string
  description = "ARN of the policy that bounds every role; null for none."
  default     = null
}

variable "project" {
  type        = string
  description = "Project: the first part of every name, and of the path of the SSM parameters."
  default     = "kennel"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9]{1,11}$", var.project))
    error_message = "project must be 2 to 12 lower-case letters and digits, a letter first: it is part of names that AWS limits to 32 characters."
  }
}

variable "python_image" {
  type        = string
  description = "Base image of the serving image, by digest (python@sha256:...), for builds by CodeBuild; null: the build asks for it."
  default     = null
}

variable "region" {
  type        = string
  description = "AWS region."
  nullable    = false
}

variable "s3_use_path_style" {
  type        = bool
  description = "Whether S3 is addressed by path, as localaws must be."
  default     = false
  nullable    = false
}

variable "training_image_accounts" {
  type        = list(string)
  description = "Accounts of AWS's registries of training images; empty for the region's own. See ../../modules/roles."
  default     = []
  nullable    = false
}

variable "vpc" {
  type        = object({ vpc_id = string, subnet_ids = list(string) })
  description = "Network of the EC2 trainer, whose subnets are tried in turn, and with `enable_vpc` of training jobs; null for the account's default VPC."
  default     = null
}
