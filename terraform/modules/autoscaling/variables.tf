variable "endpoint_name" {
  type        = string
  description = "Name of the endpoint. Pass the endpoint's own output, so that the endpoint is there first and goes last."
  nullable    = false
}

variable "instance_type" {
  type        = string
  description = "Instance type of the variant. With another type the variant is deregistered and registered again, as SageMaker asks."
  nullable    = false

  validation {
    condition     = can(regex("^ml[.][a-z0-9-]+[.][a-z0-9]+$", var.instance_type)) && !can(regex("^ml[.]t2[.]", var.instance_type))
    error_message = "instance_type must be a SageMaker type that scales, such as \"ml.m5.large\"; burstable ml.t2 types do not."
  }
}

variable "max_capacity" {
  type        = number
  description = "Most instances. The account's quota for the instance type must hold twice as many, since a release runs old and new ones side by side."
  default     = 4
  nullable    = false

  validation {
    condition     = var.max_capacity >= var.min_capacity && floor(var.max_capacity) == var.max_capacity
    error_message = "max_capacity must be a whole number not below min_capacity (${var.min_capacity}): raise it, or lower min_capacity."
  }
}

variable "metric" {
  type        = string
  description = "What is held at the target: \"concurrency\" (requests in work or waiting, for each instance, seen every 10 seconds) or \"invocations_per_minute\" (requests that an instance answers in a minute)."
  default     = "concurrency"
  nullable    = false

  validation {
    condition     = contains(["concurrency", "invocations_per_minute"], var.metric)
    error_message = "metric must be \"concurrency\" or \"invocations_per_minute\"."
  }
}

variable "min_capacity" {
  type        = number
  description = "Fewest instances."
  default     = 1
  nullable    = false

  validation {
    condition     = var.min_capacity >= 1 && floor(var.min_capacity) == var.min_capacity
    error_message = "min_capacity must be a whole number of 1 or more: a real-time endpoint does not scale to zero. Destroy the serving stack to pay nothing."
  }
}

variable "scale_in_cooldown_s" {
  type        = number
  description = "Seconds after a removal of instances before the next removal."
  default     = 30
  nullable    = false

  validation {
    condition     = var.scale_in_cooldown_s >= 0 && floor(var.scale_in_cooldown_s) == var.scale_in_cooldown_s
    error_message = "scale_in_cooldown_s must be a whole number of seconds, 0 or more."
  }
}

variable "scale_out_cooldown_s" {
  type        = number
  description = "Seconds after an addition of instances before the next addition."
  default     = 5
  nullable    = false

  validation {
    condition     = var.scale_out_cooldown_s >= 0 && floor(var.scale_out_cooldown_s) == var.scale_out_cooldown_s
    error_message = "scale_out_cooldown_s must be a whole number of seconds, 0 or more."
  }
}

variable "schedule" {
  type = object({
    begin        = string
    end          = string
    max_capacity = optional(number, 1)
    min_capacity = optional(number, 1)
    timezone     = optional(string, "UTC")
  })
  description = "Off hours: from `begin` to `end`, both cron expressions of Application Auto Scaling such as \"cron(0 20 ? * MON-FRI *)\", other capacities hold; null for none."
  default     = null

  validation {
    condition     = var.schedule == null || try(alltrue([for cron in [var.schedule.begin, var.schedule.end] : can(regex("^cron[(][^ ()]+( [^ ()]+){5}[)]$", cron))]), false)
    error_message = "schedule.begin and schedule.end must be cron expressions of six fields (minute, hour, day of month, month, day of week, year), such as \"cron(0 20 ? * MON-FRI *)\"."
  }

  validation {
    condition     = var.schedule == null || try(var.schedule.min_capacity >= 1 && var.schedule.min_capacity <= var.schedule.max_capacity && alltrue([for count in [var.schedule.min_capacity, var.schedule.max_capacity] : floor(count) == count]), false)
    error_message = "schedule.min_capacity and schedule.max_capacity must be whole numbers of 1 or more, the first not above the second."
  }

  validation {
    condition     = var.schedule == null || try(can(regex("^(UTC|[A-Z][A-Za-z]+/[A-Za-z_/+-]+[0-9]*)$", var.schedule.timezone)), false)
    error_message = "schedule.timezone must be a name of the time zone database, such as \"Europe/Berlin\", or \"UTC\"."
  }
}

variable "target" {
  type        = number
  description = "Value of the metric that scaling holds: requests at a time on an instance, or requests a minute on an instance."
  default     = 25
  nullable    = false

  validation {
    condition     = var.target > 0
    error_message = "target must be above 0. Measure what one instance bears: requests at a time for \"concurrency\"; requests a second x 60, less a reserve, for \"invocations_per_minute\"."
  }
}

variable "variant_name" {
  type        = string
  description = "Name of the production variant that scales."
  default     = "main"
  nullable    = false

  validation {
    condition     = can(regex("^[a-zA-Z0-9](-*[a-zA-Z0-9])*$", var.variant_name))
    error_message = "variant_name must be letters, digits and hyphens: one of the endpoint's variants."
  }
}
