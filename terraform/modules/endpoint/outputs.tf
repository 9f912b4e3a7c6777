output "arn" {
  description = "ARN of the endpoint."
  value       = aws_sagemaker_endpoint.this.arn
}

output "configuration_name" {
  description = "Name of the configuration that the endpoint was asked to run."
  value       = aws_sagemaker_endpoint_configuration.this[local.live].name
}

output "log_group_name" {
  description = "Log group of the serving containers."
  value       = aws_cloudwatch_log_group.this.name
}

output "model_names" {
  description = "Names of the models: those that are served and, with `previous_model`, that one."
  value       = sort([for model in aws_sagemaker_model.this : model.name])
}

output "name" {
  description = "Name of the endpoint, once it is in service."
  value       = aws_sagemaker_endpoint.this.name
}

output "rollback_alarm_names" {
  description = "Alarms that roll back a release."
  value       = local.rollback_alarm_names
}

output "variant_names" {
  description = "Names of the production variants."
  value       = sort(keys(var.variants))
}

output "variants" {
  description = "Production variants by name: instance type, number of instances at the start of a release, and model."
  value = {
    for name, variant in local.configurations[local.live].variants : name => {
      initial_instance_count = variant.initial_instance_count
      instance_type          = variant.instance_type
      model_name             = variant.model
    }
  }
}
