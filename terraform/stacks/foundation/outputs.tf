output "bucket" {
  description = "Name of the bucket of data, models and job outputs."
  value       = module.bucket.name
}

output "deploy_role_arn" {
  description = "ARN of the role that GitHub's workflows take; null without `github`."
  value       = module.roles.deploy_role_arn
}

output "ec2_trainer_launch_script" {
  description = "Script that launches the EC2 trainer: terraform output -raw ec2_trainer_launch_script | bash -s request.json."
  value       = one(module.ec2_trainer[*].launch_command)
  # Nothing secret: it is too long to be shown after every apply.
  sensitive = true
}

output "next_command" {
  description = "What to run next: it says what a deployment still lacks."
  value       = "make preflight ENV=${var.environment}"
}

output "notebook_start_command" {
  description = "Command that starts the notebook, which is stopped when idle."
  value       = one(module.notebook[*].start_command)
}

output "operate_policies" {
  description = "Policies for the role of people who train, verify, invoke and look, as JSON."
  value       = module.roles.policies.operate
  # Nothing secret: they are too long to be shown after every apply.
  sensitive = true
}

output "repository_url" {
  description = "Address of the serving image's repository."
  value       = module.registry.repository_url
}

output "training_role_arn" {
  description = "ARN of the role that training jobs take."
  value       = module.roles.training_role_arn
}
