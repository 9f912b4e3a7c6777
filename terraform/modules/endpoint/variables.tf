variable "alarm_topic_arn" {
  type        = string
  description = "ARN of the SNS topic that is told when a rollback alarm goes off and when it is over; null for none."
  default     = null
}

variable "data_capture" {
  type = object({
    bucket_name         = string
    prefix              = optional(string, "capture/")
    sampling_percentage = optional(number, 10)
  })
  description = "Bucket and key prefix below which SageMaker keeps a share (1 to 100 %) of the requests and answers; null for none."
  default     = null

  validation {
    condition = var.data_capture == null || try(
      var.data_capture.sampling_percentage >= 1 && var.data_capture.sampling_percentage <= 100 && floor(var.data_capture.sampling_percentage) == var.data_capture.sampling_percentage, false
    )
    error_message = "data_capture.sampling_percentage must be a whole number from 1 to 100. Set data_capture to null to keep nothing."
  }
}

variable "enable_network_isolation" {
  type        = bool
  description = "Whether the serving container has no network at all. It needs none: photos come with the request and the model is in its folder."
  default     = true
  nullable    = false
}

variable "kms_key_arn" {
  type        = string
  description = "ARN of a customer-managed KMS key that encrypts the instances' volumes, captured requests and the log group; null for the services' own encryption. Volumes of instances with local NVMe disks never take it: those disks encrypt themselves."
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/", var.kms_key_arn))
    error_message = "kms_key_arn must be the ARN of a key (arn:aws:kms:REGION:ACCOUNT:key/ID), not an alias or an id."
  }
}

variable "log_retention_days" {
  type        = number
  description = "Days that the containers' logs are kept."
  default     = 30
  nullable    = false

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "log_retention_days must be one that CloudWatch Logs knows: 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288 or 3653."
  }
}

variable "model" {
  type = object({
    archive_uri = string
    digest      = string
    environment = optional(map(string), {})
    image_uri   = string
  })
  description = "Model to serve: its archive in S3, the archive's SHA-256, the container's environment variables and the serving image by digest. All must be known before an apply."
  nullable    = false

  validation {
    condition     = can(regex("^s3://[a-z0-9][a-z0-9.-]+/.+[.]tar[.]gz$", var.model.archive_uri))
    error_message = "model.archive_uri must be the S3 address of a model archive, such as \"s3://bucket/models/0123456789ab/model.tar.gz\"."
  }

  validation {
    condition     = can(regex("^[0-9a-f]{64}$", var.model.digest))
    error_message = "model.digest must be the archive's SHA-256 in 64 lower-case hex digits: sha256sum model.tar.gz prints it."
  }

  validation {
    condition     = can(regex("^[^@ ]+@sha256:[0-9a-f]{64}$", var.model.image_uri))
    error_message = "model.image_uri must name the serving image by digest (REPOSITORY@sha256:...), for a tag may come to mean another image. `make image` prints it."
  }
}

variable "name" {
  type        = string
  description = "Name of the endpoint and beginning of all other names."
  nullable    = false

  validation {
    condition     = can(regex("^[a-zA-Z0-9](-*[a-zA-Z0-9])*$", var.name)) && length(var.name) <= 41
    error_message = "name must be 1 to 41 letters, digits and hyphens, neither first nor last a hyphen: a model's name adds 22 characters, and SageMaker takes 63."
  }
}

variable "previous_model" {
  type = object({
    archive_uri = string
    digest      = string
    environment = optional(map(string), {})
    image_uri   = string
  })
  description = "Model that is served until now. It and its configuration are kept for a rollback; null for a first release, or to let go of it."
  default     = null

  validation {
    condition     = var.previous_model == null || can(regex("^s3://[a-z0-9][a-z0-9.-]+/.+[.]tar[.]gz$", var.previous_model.archive_uri))
    error_message = "previous_model.archive_uri must be the S3 address of a model archive, such as \"s3://bucket/models/0123456789ab/model.tar.gz\"."
  }

  validation {
    condition     = var.previous_model == null || can(regex("^[0-9a-f]{64}$", var.previous_model.digest))
    error_message = "previous_model.digest must be the archive's SHA-256 in 64 lower-case hex digits: sha256sum model.tar.gz prints it."
  }

  validation {
    condition     = var.previous_model == null || can(regex("^[^@ ]+@sha256:[0-9a-f]{64}$", var.previous_model.image_uri))
    error_message = "previous_model.image_uri must name the serving image by digest (REPOSITORY@sha256:...), for a tag may come to mean another image. `make image` prints it."
  }
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
  description = "How a new configuration takes over. `strategy`: all_at_once, canary (one step, then the rest), linear (equal steps) or rolling (batches that replace the old instances). The step is `percent` of a variant (canary up to 50, by default 10; linear 10 to 50 and rolling 5 to 50, by default 25) or `instances`. After each step SageMaker watches the rollback alarms for `wait_s` seconds, and it keeps the old instances for another `termination_wait_s` seconds, in which it watches them too: by default 0, all at once as long as the alarms need to see an error, since nothing else is watched there. A release that takes more than `maximum_execution_timeout_s` seconds is rolled back."
  default     = {}
  nullable    = false

  validation {
    condition     = contains(["all_at_once", "canary", "linear", "rolling"], var.release.strategy)
    error_message = "release.strategy must be \"all_at_once\", \"canary\", \"linear\" or \"rolling\"."
  }

  validation {
    condition     = var.release.percent == null || var.release.instances == null
    error_message = "The size of a release's step is either release.percent or release.instances: remove one."
  }

  validation {
    condition     = var.release.strategy != "all_at_once" || var.release.percent == null && var.release.instances == null
    error_message = "A release all at once has no steps: remove release.percent and release.instances, or set release.strategy to \"canary\", \"linear\" or \"rolling\"."
  }

  validation {
    condition = var.release.percent == null || try(
      floor(var.release.percent) == var.release.percent && var.release.percent <= 50 && var.release.percent >= { canary = 1, linear = 10, rolling = 5 }[var.release.strategy],
      var.release.strategy == "all_at_once"
    )
    error_message = "release.percent must be a whole number: 1 to 50 for a canary, 10 to 50 for linear and 5 to 50 for rolling releases."
  }

  validation {
    condition     = var.release.instances == null || try(floor(var.release.instances) == var.release.instances && var.release.instances >= 1, false)
    error_message = "release.instances must be a whole number of 1 or more."
  }

  validation {
    condition     = alltrue([for seconds in [var.release.wait_s, coalesce(var.release.termination_wait_s, 0)] : seconds >= 0 && seconds <= 3600 && floor(seconds) == seconds])
    error_message = "release.wait_s and release.termination_wait_s must be whole numbers from 0 to 3600 (seconds)."
  }

  validation {
    condition     = var.release.strategy != "rolling" || coalesce(var.release.termination_wait_s, 0) == 0
    error_message = "A rolling release ends each old instance after its batch, so there is none to keep: remove release.termination_wait_s."
  }

  validation {
    condition     = var.release.maximum_execution_timeout_s >= 600 && var.release.maximum_execution_timeout_s <= 3600 && floor(var.release.maximum_execution_timeout_s) == var.release.maximum_execution_timeout_s
    error_message = "release.maximum_execution_timeout_s must be a whole number from 600, SageMaker's least, to 3600 (seconds): the AWS provider waits no longer for an endpoint, and would leave a longer release unwatched."
  }
}

variable "role_arn" {
  type        = string
  description = "ARN of the role that SageMaker takes to fetch the archive and the image, write logs and captures, and read the rollback alarms."
  nullable    = false

  validation {
    condition     = can(regex("^arn:[a-z-]+:iam::[0-9]{12}:role/.+$", var.role_arn))
    error_message = "role_arn must be the ARN of a role (arn:aws:iam::ACCOUNT:role/NAME)."
  }
}

variable "shadow" {
  type = object({
    container_startup_timeout_s = optional(number, 300)
    inference_ami_version       = optional(string)
    initial_instance_count      = optional(number, 1)
    instance_type               = optional(string, "ml.m5.large")
    model_download_timeout_s    = optional(number, 300)
    model = object({
      archive_uri = string
      digest      = string
      environment = optional(map(string), {})
      image_uri   = string
    })
    name   = optional(string, "shadow")
    weight = optional(number, 1)
  })
  description = "Variant that gets copies of the production variant's requests and whose answers nobody sees; null for none. `weight` by the production variant's weight is the share of the requests that is copied. The other fields are those of `variants`."
  default     = null

  validation {
    condition     = var.shadow == null || length(var.variants) == 1
    error_message = "SageMaker copies the requests of exactly one production variant: remove the shadow, or all variants but one."
  }

  validation {
    condition     = var.shadow == null || try(can(regex("^[a-zA-Z0-9](-*[a-zA-Z0-9])*$", var.shadow.name)) && length(var.shadow.name) <= 63 && !contains(keys(var.variants), var.shadow.name), false)
    error_message = "shadow.name must be up to 63 letters, digits and hyphens and differ from the production variant's name."
  }

  validation {
    condition     = var.shadow == null || try(can(regex("^ml[.][a-z0-9-]+[.][a-z0-9]+$", var.shadow.instance_type)) && !startswith(var.shadow.instance_type, "ml.inf1."), false)
    error_message = "shadow.instance_type must be a SageMaker type, such as \"ml.m5.large\", and no ml.inf1, which can have no shadow."
  }

  validation {
    condition     = var.shadow == null || try(var.shadow.initial_instance_count >= 1 && floor(var.shadow.initial_instance_count) == var.shadow.initial_instance_count, false)
    error_message = "shadow.initial_instance_count must be a whole number of 1 or more."
  }

  validation {
    condition     = var.shadow == null || try(alltrue([for seconds in [var.shadow.container_startup_timeout_s, var.shadow.model_download_timeout_s] : seconds >= 60 && seconds <= 3600 && floor(seconds) == seconds]), false)
    error_message = "shadow.container_startup_timeout_s and shadow.model_download_timeout_s must be whole numbers from 60 to 3600 (seconds)."
  }

  # The same arithmetic as for the weights of `variants`.
  validation {
    condition     = var.shadow == null || try(var.shadow.weight > 0 && var.shadow.weight <= values(var.variants)[0].weight && anytrue([for k in range(25) : floor(var.shadow.weight * pow(2, k)) == var.shadow.weight * pow(2, k) && var.shadow.weight * pow(2, k) <= 16777216]), false)
    error_message = "shadow.weight must be above 0, at most the production variant's weight, and a number that 32-bit floating point holds exactly: take whole numbers in the wanted ratio (1 beside 10 copies 10 %) or fractions such as 0.5 and 0.25."
  }

  validation {
    condition     = var.shadow == null || can(regex("^s3://[a-z0-9][a-z0-9.-]+/.+[.]tar[.]gz$", var.shadow.model.archive_uri))
    error_message = "shadow.model.archive_uri must be the S3 address of a model archive, such as \"s3://bucket/models/0123456789ab/model.tar.gz\"."
  }

  validation {
    condition     = var.shadow == null || can(regex("^[0-9a-f]{64}$", var.shadow.model.digest))
    error_message = "shadow.model.digest must be the archive's SHA-256 in 64 lower-case hex digits: sha256sum model.tar.gz prints it."
  }

  validation {
    condition     = var.shadow == null || can(regex("^[^@ ]+@sha256:[0-9a-f]{64}$", var.shadow.model.image_uri))
    error_message = "shadow.model.image_uri must name the serving image by digest (REPOSITORY@sha256:...), for a tag may come to mean another image. `make image` prints it."
  }
}

variable "thresholds" {
  type = object({
    error_percent  = optional(number, 5)
    latency_p99_ms = optional(number, 1000)
  })
  description = "What rolls a release back, if a variant stays above it for 2 minutes: the share of requests that fail (percent) and the time that the slowest 1 % spend in the container (milliseconds)."
  default     = {}
  nullable    = false

  validation {
    condition     = var.thresholds.error_percent >= 0 && var.thresholds.error_percent < 100
    error_message = "thresholds.error_percent must be from 0 to less than 100: no more than all requests can fail."
  }

  validation {
    condition     = var.thresholds.latency_p99_ms > 0 && var.thresholds.latency_p99_ms < 60000
    error_message = "thresholds.latency_p99_ms must be above 0 and below 60000 (milliseconds), after which SageMaker gives a request up."
  }
}

variable "variants" {
  type = map(object({
    container_startup_timeout_s = optional(number, 300)
    inference_ami_version       = optional(string)
    initial_instance_count      = optional(number, 1)
    instance_type               = optional(string, "ml.m5.large")
    model_download_timeout_s    = optional(number, 300)
    model = optional(object({
      archive_uri = string
      digest      = string
      environment = optional(map(string), {})
      image_uri   = string
    }))
    weight = optional(number, 1)
  }))
  description = "Production variants by name: instance type, share of the requests (`weight` by the sum of all weights), the model (by default `model`), the seconds that the archive's download and the container's first /ping may take, and the machine image of GPU instances (by default SageMaker's choice). A release starts with `initial_instance_count` instances, however many run at that time: set it to the least that can bear the load."
  default     = { main = {} }
  nullable    = false

  validation {
    condition     = length(var.variants) >= 1 && length(var.variants) <= 5
    error_message = "There must be 1 to 5 variants: each has two rollback alarms, and SageMaker watches no more than 10."
  }

  validation {
    condition     = alltrue([for name in keys(var.variants) : can(regex("^[a-zA-Z0-9](-*[a-zA-Z0-9])*$", name)) && length(name) <= 63])
    error_message = "The name of each variant must be up to 63 letters, digits and hyphens, neither first nor last a hyphen."
  }

  validation {
    condition     = alltrue([for variant in var.variants : can(regex("^ml[.][a-z0-9-]+[.][a-z0-9]+$", variant.instance_type)) && !startswith(variant.instance_type, "ml.inf1.")])
    error_message = "The instance_type of each variant must be a SageMaker type, such as \"ml.m5.large\", and no ml.inf1, whose releases SageMaker neither steps nor rolls back."
  }

  validation {
    condition     = alltrue([for variant in var.variants : variant.initial_instance_count >= 1 && floor(variant.initial_instance_count) == variant.initial_instance_count])
    error_message = "The initial_instance_count of each variant must be a whole number of 1 or more: a real-time endpoint has no zero."
  }

  validation {
    condition     = alltrue(flatten([for variant in var.variants : [for seconds in [variant.container_startup_timeout_s, variant.model_download_timeout_s] : seconds >= 60 && seconds <= 3600 && floor(seconds) == seconds]]))
    error_message = "container_startup_timeout_s and model_download_timeout_s of each variant must be whole numbers from 60 to 3600 (seconds)."
  }

  # SageMaker answers with the nearest 32-bit floating-point number, whose fraction has 24 bits. If that is another one, the
  # provider plans a new configuration forever.
  validation {
    condition     = alltrue([for variant in var.variants : anytrue([for k in range(25) : floor(variant.weight * pow(2, k)) == variant.weight * pow(2, k) && variant.weight * pow(2, k) <= 16777216])])
    error_message = "The weight of each variant must be a number from 0 to 16777216 that 32-bit floating point holds exactly. Take whole numbers in the wanted ratio (9 and 1 rather than 0.9 and 0.1) or fractions such as 0.5, 0.25 and 0.75."
  }

  validation {
    condition     = alltrue([for variant in var.variants : variant.weight >= 0]) && anytrue([for variant in var.variants : variant.weight > 0])
    error_message = "No variant's weight may be below 0, and at least one must be above it, or nobody would answer."
  }

  validation {
    condition = alltrue([
      for variant in var.variants : variant.model == null || try(
        can(regex("^s3://[a-z0-9][a-z0-9.-]+/.+[.]tar[.]gz$", variant.model.archive_uri)) &&
        can(regex("^[0-9a-f]{64}$", variant.model.digest)) &&
        can(regex("^[^@ ]+@sha256:[0-9a-f]{64}$", variant.model.image_uri)), false
      )
    ])
    error_message = "A variant's own model must have an archive_uri (s3://.../model.tar.gz), a digest (64 hex digits, as sha256sum prints) and an image_uri by digest (REPOSITORY@sha256:...)."
  }
}

variable "vpc" {
  type = object({
    security_group_ids = set(string)
    subnet_ids         = set(string)
  })
  description = "Network of the serving container, which reaches S3 by a gateway endpoint; null for SageMaker's own."
  default     = null

  validation {
    condition     = var.vpc == null || try(length(var.vpc.security_group_ids) >= 1 && length(var.vpc.security_group_ids) <= 5 && length(var.vpc.subnet_ids) >= 1 && length(var.vpc.subnet_ids) <= 16, false)
    error_message = "vpc must have 1 to 5 security_group_ids and 1 to 16 subnet_ids; take subnets in two zones or more."
  }
}
