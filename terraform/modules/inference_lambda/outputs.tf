output "alias_arn" {
  description = "ARN of the alias; give callers lambda:InvokeFunction on this and on nothing else."
  value       = aws_lambda_alias.this.arn
}

output "alias_name" {
  description = "Name of the alias."
  value       = aws_lambda_alias.this.name
}

output "dead_letter_queue_arn" {
  description = "ARN of the queue of failed asynchronous events; null where the module makes none."
  value       = one(aws_sqs_queue.failed[*].arn)
}

output "dead_letter_queue_name" {
  description = "Name of the queue of failed asynchronous events; null where the module makes none."
  value       = one(aws_sqs_queue.failed[*].name)
}

output "function_arn" {
  description = "ARN of the function, without a version."
  value       = aws_lambda_function.this.arn
}

output "function_name" {
  description = "Name of the function."
  value       = aws_lambda_function.this.function_name
}

output "function_url" {
  description = "HTTPS address of the alias; null without one."
  value       = one(aws_lambda_function_url.this[*].function_url)
}

output "invoke_command" {
  # Both versions of the AWS CLI read a file's bytes as they are.
  description = "Command that classifies an image by its URL through the alias and writes the answer to answer.json."
  value       = "echo '{\"url\": \"https://example.com/dog.jpg\"}' | aws lambda invoke --function-name ${aws_lambda_function.this.function_name} --qualifier ${aws_lambda_alias.this.name} --payload fileb:///dev/stdin answer.json"
}

output "log_group_name" {
  description = "Name of the function's log group."
  value       = aws_cloudwatch_log_group.this.name
}

output "version" {
  description = "Version that the alias points to."
  value       = aws_lambda_alias.this.function_version
}
