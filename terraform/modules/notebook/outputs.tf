output "arn" {
  description = "ARN of the notebook."
  value       = aws_sagemaker_notebook_instance.this.arn
}

output "name" {
  description = "Name of the notebook."
  value       = aws_sagemaker_notebook_instance.this.name
}

output "start_command" {
  description = "Commands that start the notebook and print an address that opens it for the next 5 minutes. If it runs already the first one says so, and the others go on."
  value = format(
    "aws sagemaker start-notebook-instance %[1]s; aws sagemaker wait notebook-instance-in-service %[1]s && aws sagemaker create-presigned-notebook-instance-url %[1]s",
    "--region ${data.aws_region.current.id} --notebook-instance-name ${aws_sagemaker_notebook_instance.this.name}",
  )
}

output "url" {
  description = "Address of JupyterLab, for whoever is signed in to the console."
  value       = "https://${aws_sagemaker_notebook_instance.this.url}/lab"
}
