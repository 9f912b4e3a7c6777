output "launch_command" {
  description = "Shell command that launches a job: it asks for one in each subnet in turn until there is capacity."
  value = templatefile("${path.module}/templates/launch.sh.tftpl", {
    bucket      = var.bucket_name
    name        = var.name
    subnet_ids  = join(" ", var.vpc.subnet_ids)
    template_id = aws_launch_template.this.id
  })
}

output "launch_template_id" {
  description = "Id of the launch template."
  value       = aws_launch_template.this.id
}

output "launch_template_name" {
  description = "Name of the launch template."
  value       = aws_launch_template.this.name
}

output "log_group_name" {
  description = "Log group that the machines write to, one stream a job."
  value       = aws_cloudwatch_log_group.this.name
}

output "security_group_id" {
  description = "Id of the machines' security group."
  value       = aws_security_group.this.id
}

output "subnet_ids" {
  description = "Subnets to be tried, in turn."
  value       = var.vpc.subnet_ids
}
