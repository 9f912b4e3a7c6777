variable "alarm_emails" {
  type        = list(string)
  description = "Addresses that the module's topic writes to. Each gets a message with a link that must be followed once."
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for email in var.alarm_emails : can(regex("^[^@ ]+@[^@ ]+\\.[^@ ]+$", email))])
    error_message = "alarm_emails takes addresses such as \"team@example.com\"."
  }

  validation {
    condition     = length(var.alarm_emails) == 0 || var.topic_arn == null
    error_message = "alarm_emails belong to the topic that the module makes; with topic_arn, subscribe them where that topic is made."
  }
}

variable "budget" {
  type = object({
    limit_usd = number
    emails    = optional(list(string), [])
    tag = optional(object({
      key   = string
      value = string
    }))
  })
  description = "Monthly budget in USD: a message when 80 % are spent and when AWS forecasts more than 100 %, to the topic and to emails (at most 10). tag counts only what carries it, and nothing until it has been activated as a cost allocation tag, which takes a day. null for no budget."
  default     = null

  validation {
    condition     = try(var.budget.limit_usd > 0, true)
    error_message = "budget.limit_usd is above 0; for no budget leave budget null."
  }

  validation {
    condition     = try(length(var.budget.emails) <= 10 && alltrue([for email in var.budget.emails : can(regex("^[^@ ]+@[^@ ]+\\.[^@ ]+$", email))]), true)
    error_message = "budget.emails takes up to 10 addresses such as \"team@example.com\"; for more, subscribe them to the topic."
  }
}

variable "cost_markdown" {
  type        = string
  description = "Markdown shown on the dashboard beside the charges, such as the table of expected costs; null for a pointer to Cost Explorer."
  default     = null
}

variable "job_log_groups" {
  type        = list(string)
  description = "Log groups that AWS writes to under fixed names, such as /aws/sagemaker/TrainingJobs; made here so that they have retention. They are shared by all of an account's region: name each in one place only. Destroying leaves them, since others write to them."
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for name in var.job_log_groups : can(regex("^[a-zA-Z0-9_/.#-]{1,512}$", name))])
    error_message = "job_log_groups takes names of log groups such as \"/aws/sagemaker/TrainingJobs\"."
  }
}

variable "kms_key_arn" {
  type        = string
  description = "ARN of the KMS key for the topic and the log groups; null for none on the topic and AWS's own on the log groups. Its policy must let cloudwatch.amazonaws.com and budgets.amazonaws.com use kms:Decrypt and kms:GenerateDataKey*, and logs.<region>.amazonaws.com use it."
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:[^:]+:kms:[^:]+:[0-9]{12}:key/.+$", var.kms_key_arn))
    error_message = "kms_key_arn is the ARN of a key (arn:aws:kms:<region>:<account>:key/<id>). An alias will not do: with AWS's own alias/aws/sns no alarm could write to the topic."
  }
}

variable "log_retention_days" {
  type        = number
  description = "Days that the job log groups are kept."
  default     = 30
  nullable    = false

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "log_retention_days is one of CloudWatch's periods: 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288 or 3653."
  }
}

variable "name" {
  type        = string
  description = "Prefix of all names, \"<project>-<environment>\"; the dashboard and the budget are called just so."
  nullable    = false

  validation {
    condition     = can(regex("^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$", var.name))
    error_message = "name is 1 to 32 lower-case letters, digits and inner hyphens, and begins with a letter."
  }
}

variable "service" {
  type = object({
    alias_name              = string
    endpoint_name           = string
    function_name           = string
    variant_names           = list(string)
    dead_letter_queue_name  = optional(string)
    max_capacity            = optional(number)
    provisioned_concurrency = optional(bool, true)
    rollback_alarm_names    = optional(list(string), [])
  })
  description = "What the dashboard shows and the alarms watch: the endpoint with its variants and the function with its alias. max_capacity is the number of instances that autoscaling may give a variant, null where nothing scales; provisioned_concurrency says whether the alias keeps warm environments; the endpoint's rollback alarms join the composite alarm. null for neither dashboard nor alarms."
  default     = null

  validation {
    condition     = try(length(var.service.variant_names) > 0 && length(var.service.variant_names) <= 10, var.service == null)
    error_message = "service.variant_names names 1 to 10 variants of the endpoint."
  }

  validation {
    condition     = try(var.service.max_capacity == null || var.service.max_capacity >= 1, true)
    error_message = "service.max_capacity is at least 1; for an endpoint that does not scale leave it null."
  }
}

variable "thresholds" {
  type = object({
    endpoint_error_percent   = optional(number, 1)
    endpoint_latency_ms      = optional(number, 1000)
    function_failure_percent = optional(number, 1)
  })
  description = "What is too much: share of the endpoint's answers that are 5xx (%), its 99th percentile of model latency (ms), share of the function's calls that fail or answer 5xx (%). Each over a minute, in 3 of 5."
  default     = {}
  nullable    = false

  validation {
    condition     = alltrue([for percent in [var.thresholds.endpoint_error_percent, var.thresholds.function_failure_percent] : percent >= 0 && percent < 100])
    error_message = "thresholds.endpoint_error_percent and function_failure_percent are from 0 to below 100; nothing is above 100 %."
  }

  validation {
    condition     = var.thresholds.endpoint_latency_ms > 0 && var.thresholds.endpoint_latency_ms < 60000
    error_message = "thresholds.endpoint_latency_ms is above 0 and below 60000; SageMaker gives up after 60 s."
  }
}

variable "topic_arn" {
  type        = string
  description = "ARN of the SNS topic that alarms and the budget write to; it must be known at plan time. null makes one, <name>-alarms."
  default     = null

  validation {
    condition     = var.topic_arn == null || can(regex("^arn:[^:]+:sns:[^:]+:[0-9]{12}:.+$", var.topic_arn))
    error_message = "topic_arn is the ARN of an SNS topic, or null to make one."
  }
}
