# ARNs come with the policies: whoever uses a role by them finds its rights in place.

output "deploy_role_arn" {
  description = "ARN of the role that GitHub's workflows take; null without `github`."
  value       = one(aws_iam_role.deploy[*].arn)
  depends_on  = [aws_iam_role_policy_attachment.deploy]
}

output "ec2_instance_profile_name" {
  description = "Name of the instance profile of the EC2 trainer."
  value       = aws_iam_instance_profile.ec2.name
  depends_on  = [aws_iam_role_policy.this]
}

output "ec2_role_arn" {
  description = "ARN of the EC2 trainer's role."
  value       = aws_iam_role.this["ec2"].arn
  depends_on  = [aws_iam_role_policy.this]
}

output "lambda_role_arn" {
  description = "ARN of the Lambda function's role."
  value       = aws_iam_role.this["lambda"].arn
  depends_on  = [aws_iam_role_policy.this]
}

output "notebook_role_arn" {
  description = "ARN of the notebook's role."
  value       = aws_iam_role.this["notebook"].arn
  depends_on  = [aws_iam_role_policy.this]
}

output "policies" {
  description = "Policies of each role (training, serving, notebook, ec2, lambda, deploy), and of people who train and operate (operate), as JSON, to be read, evaluated or given to roles that are made elsewhere."
  value = merge(
    { for key, policy in local.policies : key => [policy] },
    {
      deploy  = values(local.deploy_policies)
      operate = [data.aws_iam_policy_document.operate.json, data.aws_iam_policy_document.train.json]
    },
  )
}

output "serving_role_arn" {
  description = "ARN of the endpoint's role."
  value       = aws_iam_role.this["serving"].arn
  depends_on  = [aws_iam_role_policy.this]
}

output "training_role_arn" {
  description = "ARN of the role of training and tuning jobs."
  value       = aws_iam_role.this["training"].arn
  depends_on  = [aws_iam_role_policy.this]
}

output "trust_policies" {
  description = "Trust policy of each role as JSON; that of deploy with `github` only."
  value = merge(
    local.trust_policies,
    var.github == null ? {} : { deploy = data.aws_iam_policy_document.trust_github.json },
  )
}
