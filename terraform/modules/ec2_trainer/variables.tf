variable "ami_id" {
  type        = string
  description = "Machine image to launch, for a fixed one; null for the one that `ami_ssm_parameter` names when the template is made."
  default     = null

  validation {
    condition     = var.ami_id == null || can(regex("^ami-[0-9a-f]{8,17}$", var.ami_id))
    error_message = "ami_id must be the id of a machine image (ami- and 8 to 17 hexadecimal digits)."
  }
}

variable "ami_ssm_parameter" {
  type        = string
  description = "AWS's public SSM parameter that holds the id of a Deep Learning AMI with PyTorch."
  default     = "/aws/service/deeplearning/ami/x86_64/oss-nvidia-driver-gpu-pytorch-2.13-amazon-linux-2023/latest/ami-id"
  nullable    = false

  validation {
    condition     = can(regex("^/aws/service/deeplearning/ami/(x86_64|arm64)/.+/ami-id$", var.ami_ssm_parameter))
    error_message = "ami_ssm_parameter must be one of AWS's parameters /aws/service/deeplearning/ami/ARCHITECTURE/TYPE/latest/ami-id: the user data expects a Deep Learning AMI. Set ami_id for an image of your own."
  }
}

variable "bucket_name" {
  type        = string
  description = "Artifact bucket: code and data come from it, archives, checkpoints and logs go to it."
  nullable    = false
}

variable "enable_spot" {
  type        = bool
  description = "Whether to launch spot instances, at about a third of the price. AWS may take them away, two minutes after it has said so: the state is saved, and the same training, launched again, goes on from it."
  default     = false
  nullable    = false
}

variable "instance_profile_name" {
  type        = string
  description = "Instance profile of the machine (module roles, `ec2_instance_profile_name`)."
  nullable    = false
}

variable "instance_type" {
  type        = string
  description = "Instance type; all its GPUs are used."
  default     = "g5.xlarge"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]*[.][a-z0-9-]+$", var.instance_type)) && !startswith(var.instance_type, "ml.")
    error_message = "instance_type must be an EC2 type such as \"g5.xlarge\", without SageMaker's \"ml.\"."
  }
}

variable "kms_key_arn" {
  type        = string
  description = "ARN of the KMS key of volume and log group; null for AWS's own keys."
  default     = null
}

variable "log_retention_days" {
  type        = number
  description = "Days that the machines' logs are kept in CloudWatch."
  default     = 30
  nullable    = false

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "log_retention_days must be one of CloudWatch's periods: 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288 or 3653."
  }
}

variable "max_hours" {
  type        = number
  description = "Hours after which a machine ends, whatever it is doing. Training is asked to stop, and saves its state, 15 minutes before."
  default     = 12
  nullable    = false

  validation {
    condition     = var.max_hours >= 0.5 && var.max_hours <= 120
    error_message = "max_hours must be 0.5 to 120: the last quarter of an hour is kept for checkpoints and logs, and a longer training belongs on several GPUs."
  }
}

variable "name" {
  type        = string
  description = "Prefix of all names, \"<project>-<environment>\"."
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,39}$", var.name))
    error_message = "name must be 2 to 40 lower-case letters, digits and hyphens, a letter first, such as \"kennel-dev\"."
  }
}

variable "root_device_name" {
  type        = string
  description = "Name of the machine image's root device: /dev/xvda on Amazon Linux, /dev/sda1 on Ubuntu. With another name the machine gets a second volume, and its root stays as the image has it."
  default     = "/dev/xvda"
  nullable    = false

  validation {
    condition     = can(regex("^/dev/", var.root_device_name))
    error_message = "root_device_name must be a device such as /dev/xvda; `aws ec2 describe-images --image-ids AMI --query 'Images[].RootDeviceName'` tells it."
  }
}

variable "ssh" {
  type        = object({ key_name = string, cidr_blocks = list(string) })
  description = "Key pair, and the networks from which SSH is let in; null for none: Session Manager opens a shell without a key or an open port."
  default     = null

  validation {
    condition     = try(alltrue([for block in var.ssh.cidr_blocks : can(cidrhost(block, 0)) && tonumber(split("/", block)[1]) >= 8]), true)
    error_message = "ssh.cidr_blocks must be networks such as \"203.0.113.0/24\", none larger than a /8: SSH is not opened to the world. Or leave ssh out and use Session Manager."
  }
}

variable "volume_size_gb" {
  type        = number
  description = "Size of the root volume in GiB. The Deep Learning AMI takes about 35 of them."
  default     = 45
  nullable    = false

  validation {
    condition     = var.volume_size_gb >= 40 && var.volume_size_gb <= 16384 && floor(var.volume_size_gb) == var.volume_size_gb
    error_message = "volume_size_gb must be a whole number from 40 (the machine image and some data) to 16384 (gp3's limit)."
  }
}

variable "vpc" {
  type        = object({ vpc_id = string, subnet_ids = list(string) })
  description = "Network of the machines. Its subnets are tried in turn, so give one for each availability zone that has the instance type; they need a way to the internet by HTTPS."
  nullable    = false

  validation {
    condition     = length(var.vpc.subnet_ids) > 0
    error_message = "vpc.subnet_ids must name at least one subnet of vpc.vpc_id."
  }
}
