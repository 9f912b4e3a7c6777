variable "allowed_hosts" {
  type        = list(string)
  description = "Host names that callers' image URLs may lead to, such as \"images.example.com\". Empty allows every public host; private addresses are refused always."
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for host in var.allowed_hosts : can(regex("^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+$", host))])
    error_message = "allowed_hosts takes host names in lower case, without scheme, port, path or wildcard: write \"images.example.com\", and name each host."
  }
}

variable "architecture" {
  type        = string
  description = "Processor that the function runs on; the zip must be built for it. arm64 costs a fifth less than x86_64."
  default     = "arm64"
  nullable    = false

  validation {
    condition     = contains(["arm64", "x86_64"], var.architecture)
    error_message = "architecture is \"arm64\" or \"x86_64\"; build the zip for the one you choose."
  }
}

variable "async_invocation" {
  type = object({
    max_age_s   = optional(number, 300)
    max_retries = optional(number, 1)
  })
  description = "How long an asynchronous event may wait (60..21600 seconds) and how often it is tried again after a failure (0..2) before it goes to on_failure."
  default     = {}
  nullable    = false

  validation {
    condition     = var.async_invocation.max_age_s >= 60 && var.async_invocation.max_age_s <= 21600 && floor(var.async_invocation.max_age_s) == var.async_invocation.max_age_s
    error_message = "async_invocation.max_age_s is a whole number of seconds from 60 to 21600 (6 hours)."
  }

  validation {
    condition     = contains([0, 1, 2], var.async_invocation.max_retries)
    error_message = "async_invocation.max_retries is 0, 1 or 2; Lambda retries no more often."
  }
}

variable "contact" {
  type        = string
  description = "Web or mail address that the sites of callers' images can turn to. The function names it in its User-Agent; some sites, Wikimedia's among them, refuse fetchers that name none. Empty names none."
  default     = ""
  nullable    = false

  validation {
    condition     = var.contact == "" || can(regex("^(https?://[^\\s()]+|[^\\s()@]+@[^\\s()@]+)$", var.contact))
    error_message = "contact is a web address or a mail address without spaces and parentheses, such as \"https://example.com/bot\" or \"ops@example.com\"; leave it empty to name none."
  }
}

variable "enable_xray" {
  type        = bool
  description = "Trace calls with X-Ray. It costs a cold start about 0.1 s and a sampled trace 5 USD per million; Lambda samples one request a second and 5 % of the rest."
  default     = true
  nullable    = false
}

variable "endpoint_name" {
  type        = string
  description = "Name of the SageMaker endpoint that the function asks; its role must allow sagemaker:InvokeEndpoint on exactly this one."
  nullable    = false

  validation {
    condition     = can(regex("^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}$", var.endpoint_name))
    error_message = "endpoint_name is the endpoint's name, not its ARN: up to 63 letters, digits and inner hyphens."
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
  description = "An HTTPS address for the alias; null for none. auth \"AWS_IAM\" answers signed requests only, \"NONE\" answers everybody on the internet at your expense. cors.allow_origins lists the web pages that browsers may call from; \"*\" is taken only when it stands alone."
  default     = null

  validation {
    condition     = try(contains(["AWS_IAM", "NONE"], var.function_url.auth), var.function_url == null)
    error_message = "function_url.auth is \"AWS_IAM\" (signed requests), or \"NONE\" to let everybody call."
  }

  validation {
    condition = alltrue([
      for origin in try(var.function_url.cors.allow_origins, []) :
      can(regex("^https?://[^/*]+$", origin)) || (origin == "*" && length(var.function_url.cors.allow_origins) == 1)
    ])
    error_message = "function_url.cors.allow_origins takes origins such as \"https://app.example.com\", without path or wildcard; to let pages of every site call, write [\"*\"] alone."
  }

  validation {
    condition     = try(length(var.function_url.cors.allow_origins) > 0, true)
    error_message = "function_url.cors.allow_origins is empty: name the origins, or leave cors out."
  }

  validation {
    condition     = try(var.function_url.cors.max_age_s >= 0 && var.function_url.cors.max_age_s <= 86400, true)
    error_message = "function_url.cors.max_age_s is from 0 to 86400 seconds (a day)."
  }
}

variable "invoker_arns" {
  type        = list(string)
  description = "ARNs of IAM roles or users, or of account roots, that may invoke the alias, and its function URL where there is one. Callers of this account that have the right by their own policy need not be listed."
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for arn in var.invoker_arns : can(regex("^arn:[^:]+:iam::[0-9]{12}:(root|role/.+|user/.+)$", arn))])
    error_message = "invoker_arns takes ARNs such as \"arn:aws:iam::123456789012:role/web\"; a service that calls needs a permission of its own with its source."
  }
}

variable "kms_key_arn" {
  type        = string
  description = "ARN of the KMS key for the function's environment, its log group and its queue of failures; null takes AWS's own keys. The key's policy must let logs.<region>.amazonaws.com and lambda.amazonaws.com use it."
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:[^:]+:kms:[^:]+:[0-9]{12}:key/.+$", var.kms_key_arn))
    error_message = "kms_key_arn is the ARN of a key (arn:aws:kms:<region>:<account>:key/<id>), not an alias."
  }
}

variable "log_level" {
  type        = string
  description = "Least level of the function's own messages and of Lambda's that is logged."
  default     = "INFO"
  nullable    = false

  validation {
    condition     = contains(["DEBUG", "INFO", "WARN"], var.log_level)
    error_message = "log_level is \"DEBUG\", \"INFO\" or \"WARN\"; errors are logged always."
  }
}

variable "log_retention_days" {
  type        = number
  description = "Days that the function's log is kept."
  default     = 30
  nullable    = false

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "log_retention_days is one of CloudWatch's periods: 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288 or 3653."
  }
}

variable "memory_mb" {
  type        = number
  description = "Memory of the function in MB; its share of a processor grows with it (1769 MB is one)."
  default     = 512
  nullable    = false

  validation {
    condition     = var.memory_mb >= 128 && var.memory_mb <= 10240 && floor(var.memory_mb) == var.memory_mb
    error_message = "memory_mb is a whole number from 128 to 10240."
  }
}

variable "name" {
  type        = string
  description = "Prefix of all names, \"<project>-<environment>\"; the function is <name>-classify."
  nullable    = false

  validation {
    condition     = can(regex("^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$", var.name))
    error_message = "name is 1 to 32 lower-case letters, digits and inner hyphens, and begins with a letter."
  }
}

variable "on_failure" {
  type        = string
  description = "Where an asynchronous event goes that failed for good: \"sqs\" makes the queue <name>-classify-failed, \"none\" drops it, the ARN of a queue, topic, event bus or function uses that one (the role then needs the right to write there)."
  default     = "sqs"
  nullable    = false

  validation {
    condition     = contains(["sqs", "none"], var.on_failure) || can(regex("^arn:[^:]+:(sqs|sns|events|lambda):[^:]+:[0-9]{12}:.+$", var.on_failure))
    error_message = "on_failure is \"sqs\", \"none\", or the ARN of a queue, topic, event bus or function."
  }
}

variable "provisioned_concurrency" {
  type = object({
    executions = optional(number, 2)
    autoscaling = optional(object({
      max                = number
      target_utilization = optional(number, 0.7)
    }))
    schedule = optional(map(object({
      cron     = string
      max      = number
      min      = number
      timezone = optional(string, "UTC")
    })), {})
  })
  description = <<-EOT
    Execution environments of the alias that are kept warm, so that their calls meet no cold start. `executions = 0` keeps none: choose it in a new account, whose quota of 10 concurrent executions in all allows none (Lambda must be left 10 unreserved; ask Service Quotas for more).
    `autoscaling` lets their number follow the load between `executions` and `max`, holding the share in use at `target_utilization` (0.1..0.9). `schedule` sets other bounds at given times; `cron` is Application Auto Scaling's, "cron(0 20 * * ? *)" or "rate(...)" or "at(...)", in `timezone`.
  EOT
  default     = {}
  nullable    = false

  validation {
    condition     = var.provisioned_concurrency.executions >= 0 && floor(var.provisioned_concurrency.executions) == var.provisioned_concurrency.executions
    error_message = "provisioned_concurrency.executions is a whole number, 0 for none."
  }

  validation {
    condition     = var.provisioned_concurrency.executions > 0 || (var.provisioned_concurrency.autoscaling == null && length(var.provisioned_concurrency.schedule) == 0)
    error_message = "provisioned_concurrency.autoscaling and schedule move a number that is at least 1: set executions, or leave them out."
  }

  validation {
    condition     = try(var.provisioned_concurrency.autoscaling.max >= var.provisioned_concurrency.executions, true)
    error_message = "provisioned_concurrency.autoscaling.max is below executions, the least number; raise max or lower executions."
  }

  validation {
    condition     = try(var.provisioned_concurrency.autoscaling.target_utilization >= 0.1 && var.provisioned_concurrency.autoscaling.target_utilization <= 0.9, true)
    error_message = "provisioned_concurrency.autoscaling.target_utilization is a share from 0.1 to 0.9."
  }

  validation {
    condition     = alltrue([for action in var.provisioned_concurrency.schedule : can(regex("^(cron|rate|at)\\(.+\\)$", action.cron))])
    error_message = "provisioned_concurrency.schedule takes cron(...), rate(...) or at(...), such as \"cron(0 20 * * ? *)\" for 20:00 each day."
  }

  validation {
    condition     = alltrue([for action in var.provisioned_concurrency.schedule : 0 <= action.min && action.min <= action.max])
    error_message = "provisioned_concurrency.schedule needs 0 <= min <= max in each action."
  }
}

variable "reserved_concurrency" {
  type        = number
  description = "Concurrent executions that this function has to itself and may not go beyond; null shares the account's. 0 stops the function."
  default     = null

  validation {
    condition     = try(var.reserved_concurrency >= 0 && floor(var.reserved_concurrency) == var.reserved_concurrency, true)
    error_message = "reserved_concurrency is a whole number, or null to share the account's concurrency."
  }

  validation {
    condition = var.reserved_concurrency == null ? true : var.reserved_concurrency >= max(
      var.provisioned_concurrency.executions,
      try(var.provisioned_concurrency.autoscaling.max, 0),
      [for action in var.provisioned_concurrency.schedule : action.max]...
    )
    error_message = "reserved_concurrency is below the provisioned concurrency (executions, autoscaling.max or a schedule's max), which Lambda refuses; raise it or lower those."
  }
}

variable "role_arn" {
  type        = string
  description = "ARN of the role that the function runs under."
  nullable    = false
}

variable "runtime" {
  type        = string
  description = "Lambda's Python runtime; the zip must be built for it."
  default     = "python3.13"
  nullable    = false

  validation {
    condition     = can(regex("^python3\\.1[1-9]$", var.runtime))
    error_message = "runtime is a Python from 3.11, such as \"python3.13\" (\"python3.14\" needs provider 6.21 or later)."
  }
}

variable "timeout_s" {
  type        = number
  description = "Seconds after which Lambda ends a call; the function answers 504 half a second sooner. An image takes up to 5 s to fetch and the endpoint up to 60 s."
  default     = 30
  nullable    = false

  validation {
    condition     = var.timeout_s >= 3 && var.timeout_s <= 900 && floor(var.timeout_s) == var.timeout_s
    error_message = "timeout_s is a whole number from 3 (less leaves the endpoint no time) to 900."
  }
}

variable "zip_path" {
  type        = string
  description = "Path of the function's zip, built for `architecture` and `runtime`."
  nullable    = false

  validation {
    condition     = fileexists(var.zip_path)
    error_message = "zip_path names no file; build the zip first with `make lambda`."
  }
}
