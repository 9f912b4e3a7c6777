output "alias_arn" {
  description = "ARN of the Lambda function's alias `live`, which callers invoke."
  value       = module.inference_lambda.alias_arn
}

output "dashboard_url" {
  description = "Address of the service's dashboard."
  value       = module.observability.dashboard_url
}

output "endpoint_configuration_name" {
  description = "Configuration that the endpoint was asked to run. SageMaker rolls back by itself: compare it with what `aws sagemaker describe-endpoint` says."
  value       = module.endpoint.configuration_name
}

output "endpoint_name" {
  description = "Name of the SageMaker endpoint."
  value       = module.endpoint.name
}

output "function_name" {
  description = "Name of the Lambda function."
  value       = module.inference_lambda.function_name
}

output "function_url" {
  description = "Address of the function URL; null without `function_url`."
  value       = module.inference_lambda.function_url
}

output "history" {
  description = "Models that served before `previous_model`, the last of them first: where a second rollback goes."
  value       = try(terraform_data.served.output.history, [])
}

output "invoke_command" {
  description = "Command that classifies an image by its URL, for callers without `make`."
  value       = module.inference_lambda.invoke_command
}

output "model" {
  description = "The model that is served. With `previous_model`, what the next deployment or a rollback starts from."
  value       = terraform_data.served.output.model
}

output "next_command" {
  description = "What to run next."
  value       = "make verify ENV=${var.environment}"
}

output "previous_model" {
  description = "The model that was served before, kept with its configuration so that a rollback finds it; null after the first deployment."
  value       = terraform_data.served.output.previous_model
}

output "unhealthy_alarm_arn" {
  description = "ARN of the composite alarm that says whether the service is well."
  value       = module.observability.unhealthy_alarm_arn
}
