variable "idle_minutes" {
  type        = number
  description = "Minutes without a busy kernel or a terminal's output after which the notebook stops."
  default     = 60
  nullable    = false

  validation {
    condition     = var.idle_minutes >= 10 && var.idle_minutes <= 1440 && floor(var.idle_minutes) == var.idle_minutes
    error_message = "idle_minutes must be a whole number of minutes from 10 (less would stop the notebook between two thoughts) to 1440."
  }
}

variable "instance_type" {
  type        = string
  description = "Instance type. The notebook only drives jobs, so the smallest does."
  default     = "ml.t3.medium"
  nullable    = false

  validation {
    condition     = can(regex("^ml\\.[a-z0-9-]+\\.[a-z0-9]+$", var.instance_type))
    error_message = "instance_type must be a SageMaker instance type, such as \"ml.t3.medium\" (EC2's types go without the \"ml.\")."
  }
}

variable "kms_key_arn" {
  type        = string
  description = "ARN of the customer-managed KMS key that encrypts the volume; null for SageMaker's own key, which costs nothing. Another key replaces the notebook: its volume is lost."
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+$", var.kms_key_arn))
    error_message = "kms_key_arn must be the ARN of a key (arn:aws:kms:REGION:ACCOUNT:key/ID), not an alias or a bare id; `aws kms describe-key --key-id ALIAS` prints it."
  }
}

variable "max_hours_per_day" {
  type        = number
  description = "Hours after its start at which the notebook stops, whatever runs on it."
  default     = 10
  nullable    = false

  validation {
    condition     = var.max_hours_per_day >= 1 && var.max_hours_per_day <= 24
    error_message = "max_hours_per_day must be from 1 to 24 hours. What takes longer belongs in a training job, which ends by itself."
  }
}

variable "name" {
  type        = string
  description = "Name of the notebook, \"<project>-<environment>\"."
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9]*(-[a-z0-9]+)*$", var.name)) && length(var.name) <= 63
    error_message = "name must be at most 63 lower-case letters, digits and single hyphens between them, a letter first, such as \"kennel-dev\"."
  }
}

variable "platform_identifier" {
  type        = string
  description = "Platform of the notebook: \"notebook-al2023-v1\" or \"notebook-al2023-v2\", which only AWS providers of 6.x know, or \"notebook-al2-v3\", on which AWS starts no notebook since July 2026; null for SageMaker's default, or whatever an existing notebook has. Another platform replaces the notebook: its volume is lost."
  default     = null

  validation {
    condition     = var.platform_identifier == null || try(contains(["notebook-al2-v3", "notebook-al2023-v1", "notebook-al2023-v2"], var.platform_identifier), false)
    error_message = "platform_identifier must be null, notebook-al2023-v1, notebook-al2023-v2 or notebook-al2-v3: AWS has withdrawn the older platforms. Set null for SageMaker's default."
  }
}

variable "role_arn" {
  type        = string
  description = "ARN of the role of the notebook and of whoever uses it. It needs `sagemaker:StopNotebookInstance` on the notebook."
  nullable    = false

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:role/", var.role_arn))
    error_message = "role_arn must be the ARN of an IAM role (arn:aws:iam::ACCOUNT:role/NAME)."
  }
}

variable "volume_size_gb" {
  type        = number
  description = "Size of the volume below /home/ec2-user/SageMaker in GiB. It can grow in place; a smaller one replaces the notebook."
  default     = 5
  nullable    = false

  validation {
    condition     = var.volume_size_gb >= 5 && var.volume_size_gb <= 16384 && floor(var.volume_size_gb) == var.volume_size_gb
    error_message = "volume_size_gb must be a whole number of GiB from 5 to 16384, which are SageMaker's limits."
  }
}

variable "vpc" {
  type = object({
    security_group_ids = list(string)
    subnet_id          = string
  })
  description = "Network of the notebook, which then has no direct internet access: the subnet must reach AWS through endpoints or a NAT gateway. null for SageMaker's own network. A change replaces the notebook: its volume is lost."
  default     = null

  validation {
    condition     = var.vpc == null || try(startswith(var.vpc.subnet_id, "subnet-"), false)
    error_message = "vpc.subnet_id must be the id of a subnet, such as \"subnet-0123456789abcdef0\"."
  }

  validation {
    condition = var.vpc == null || try(
      length(var.vpc.security_group_ids) >= 1 && length(var.vpc.security_group_ids) <= 5
      && alltrue([for id in var.vpc.security_group_ids : startswith(id, "sg-")]),
      false,
    )
    error_message = "vpc.security_group_ids must be 1 to 5 ids of security groups, such as \"sg-0123456789abcdef0\"."
  }
}
