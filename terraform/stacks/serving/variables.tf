variable "allowed_hosts" {
  type        = list(string)
  description = "Hosts whose photos the Lambda function may fetch; empty for all public ones."
  default     = []
  nullable    = false
}

variable "cost_centre" {
  type        = string
  description = "Value of the tag `cost-centre` of every resource."
  nullable    = false
}

variable "data_capture_percent" {
  type        = number
  description = "Percentage of requests and answers that are kept in the bucket below `capture/`; 0 for none."
  default     = 0
  nullable    = false

  validation {
    condition     = var.data_capture_percent >= 0 && var.data_capture_percent <= 100 && floor(var.data_capture_percent) == var.data_capture_percent
    error_message = "data_capture_percent must be a whole number from 0 to 100."
  }
}

variable "enable_network_isolation" {
  type        = bool
  description = "Whether the serving container has no network at all. It needs none: photos come with the request."
  default     = true
  nullable    = false
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

variable "function_url" {
  type = object({
    auth = optional(string, "AWS_IAM")
    cors = optional(object({
      allow_headers = optional(list(string), ["content-type"])
      allow_origins = list(string)
      max_age_s     = optional(number, 300)
    }))
  })
  description = "Web address of the function; null for none. See ../../modules/inference_lambda."
  default     = null
}

variable "history" {
  type        = list(object({ archive_uri = string, digest = string, image_uri = optional(string) }))
  description = "Models that served before `previous_model`, the last of them first. `make apply` fills it in from the outputs of the last deployment."
  default     = []
  nullable    = false
}

variable "image_uri" {
  type        = string
  description = "Serving image by digest (repository@sha256:...); null: the one that `make image` built last."
  default     = null
}

variable "instance_type" {
  type        = string
  description = "Instance type of the endpoint."
  default     = "ml.m5.large"
  nullable    = false
}

variable "kms_key_arn" {
  type        = string
  description = "ARN of a customer-managed KMS key that encrypts everything; null for the services' own encryption. The apply fails at the log groups unless the key's policy lets logs.<region>.amazonaws.com use it (kms:Encrypt*, Decrypt*, ReEncrypt*, GenerateDataKey*, Describe*); a new key's does not."
  default     = null
}

variable "lambda" {
  type = object({
    architecture = optional(string, "arm64")
    contact      = optional(string, "")
    memory_mb    = optional(number, 512)
    provisioned_concurrency = optional(object({
      autoscaling = optional(object({ max = number, target_utilization = optional(number, 0.7) }))
      executions  = optional(number, 2)
      schedule    = optional(map(object({ cron = string, max = number, min = number, timezone = optional(string, "UTC") })), {})
    }), {})
    reserved_concurrency = optional(number)
    runtime              = optional(string, "python3.13")
    timeout_s            = optional(number, 30)
  })
  description = "The Lambda function; see ../../modules/inference_lambda."
  default     = {}
  nullable    = false
}

variable "lambda_zip_path" {
  type        = string
  description = "The function's zip, as `make lambda` builds it for `lambda.architecture`."
  nullable    = false
}

variable "log_retention_days" {
  type        = number
  description = "Days that logs are kept."
  default     = 30
  nullable    = false
}

variable "model" {
  type = object({
    archive_uri = string
    digest      = string
    image_uri   = optional(string)
  })
  description = "The model to serve: its archive in S3 and its digest. `make apply MODEL=...` fills it in."
  nullable    = false
}

variable "owner" {
  type        = string
  description = "Value of the tag `owner` of every resource: the team to call."
  nullable    = false
}

variable "previous_model" {
  type = object({
    archive_uri = string
    digest      = string
    image_uri   = optional(string)
  })
  description = "The model that is live until now, which is kept for a rollback. `make apply` fills it in from the outputs of the last deployment."
  default     = null
}

variable "project" {
  type        = string
  description = "Project: the first part of every name, and of the path of the SSM parameters."
  default     = "kennel"
  nullable    = false
}

variable "region" {
  type        = string
  description = "AWS region."
  nullable    = false
}

variable "release" {
  type = object({
    instances                   = optional(number)
    maximum_execution_timeout_s = optional(number, 3000)
    percent                     = optional(number)
    strategy                    = optional(string, "all_at_once")
    termination_wait_s          = optional(number)
    wait_s                      = optional(number, 300)
  })
  description = "How a new model takes over: all_at_once, canary, linear or rolling, in steps that the rollback alarms watch; see ../../modules/endpoint."
  default     = {}
  nullable    = false
}

variable "rollback_thresholds" {
  type = object({
    error_percent  = optional(number, 5)
    latency_p99_ms = optional(number, 1000)
  })
  description = "What rolls a release back: the share of requests that fail (percent) and the time that the slowest 1 % take (milliseconds)."
  default     = {}
  nullable    = false
}

variable "s3_use_path_style" {
  type        = bool
  description = "Whether S3 is addressed by path, as localaws must be."
  default     = false
  nullable    = false
}

variable "scaling" {
  type = object({
    max_capacity         = optional(number, 4)
    metric               = optional(string, "concurrency")
    min_capacity         = optional(number, 1)
    scale_in_cooldown_s  = optional(number, 30)
    scale_out_cooldown_s = optional(number, 5)
    schedule = optional(object({
      begin        = string
      end          = string
      max_capacity = optional(number, 1)
      min_capacity = optional(number, 1)
      timezone     = optional(string, "UTC")
    }))
    target = optional(number, 25)
  })
  description = "Instances of the endpoint, and what their number follows: by default 1 to 4, at 25 requests at a time on each; see ../../modules/autoscaling."
  default     = {}
  nullable    = false
}

variable "serving_environment" {
  type        = map(string)
  description = "Environment variables of the serving container; see ../../../inference."
  default     = {}
  nullable    = false
}

variable "vpc" {
  type        = object({ security_group_ids = list(string), subnet_ids = list(string) })
  description = "Network of the serving container; null for SageMaker's own."
  default     = null
}
