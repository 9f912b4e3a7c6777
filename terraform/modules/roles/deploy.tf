# The role that GitHub's workflows take, and what it may do: all that `terraform apply` and `terraform destroy` of both
# stacks and the commands around them ask for, on the names of this project and environment, and nothing that would
# give it more. One policy for each part, since IAM limits a policy to 6,144 characters.

locals {
  github_url = "https://token.actions.githubusercontent.com"

  # The one made here, else the one named, else the account's.
  github_provider_arn = try(
    coalesce(one(aws_iam_openid_connect_provider.github[*].arn), var.github.provider_arn),
    "arn:${local.partition}:iam::${local.account}:oidc-provider/${trimprefix(local.github_url, "https://")}",
  )

  # OWNER/NAME, or with their ids OWNER@ID/NAME@ID: GitHub's tokens say one or the other, never both.
  github_repository = try(format(
    "%s@%s/%s@%s",
    split("/", var.github.repository)[0], var.github.owner_id, split("/", var.github.repository)[1], var.github.repository_id,
  ), var.github.repository, null)

  github_subjects = var.github == null ? [] : concat(
    [for environment in var.github.environments : "repo:${local.github_repository}:environment:${environment}"],
    var.github.branch == null ? [] : ["repo:${local.github_repository}:ref:refs/heads/${var.github.branch}"],
  )

  may_empty_bucket = var.environment != "prod"

  deploy_policies = {
    artifacts = data.aws_iam_policy_document.deploy_artifacts.json
    compute   = data.aws_iam_policy_document.deploy_compute.json
    function  = data.aws_iam_policy_document.deploy_function.json
    iam       = data.aws_iam_policy_document.deploy_iam.json
    operate   = data.aws_iam_policy_document.operate.json
    sagemaker = data.aws_iam_policy_document.deploy_sagemaker.json
    train     = data.aws_iam_policy_document.train.json
    watch     = data.aws_iam_policy_document.deploy_watch.json
  }

  working_role_arns = [for key in ["ec2", "image-build", "lambda", "notebook", "serving", "training"] : local.role_arns[key]]

  passed_roles = {
    codebuild = [local.role_arns["image-build"]]
    ec2       = [local.role_arns.ec2]
    lambda    = [local.role_arns.lambda]
    sagemaker = [local.role_arns.notebook, local.role_arns.serving, local.role_arns.training]
  }

  scaled_services = {
    lambda    = "AWSServiceRoleForApplicationAutoScaling_LambdaConcurrency"
    sagemaker = "AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint"
  }

  topic_arn = "arn:${local.partition}:sns:${local.here}:${var.name}-alarms"
}

resource "aws_iam_openid_connect_provider" "github" {
  count = var.github == null ? 0 : var.github.create_provider ? 1 : 0

  client_id_list = ["sts.amazonaws.com"]
  url            = local.github_url
}

resource "aws_iam_role" "deploy" {
  count = var.github == null ? 0 : 1

  assume_role_policy   = data.aws_iam_policy_document.trust_github.json
  description          = "GitHub workflows: applies the stacks and runs the commands"
  name                 = "${var.name}-deploy"
  permissions_boundary = var.permissions_boundary_arn
}

resource "aws_iam_policy" "deploy" {
  for_each = var.github == null ? {} : local.deploy_policies

  description = "Deploy role of ${var.name}, part ${each.key}"
  name        = "${var.name}-deploy-${each.key}"
  policy      = each.value
}

resource "aws_iam_role_policy_attachment" "deploy" {
  for_each = aws_iam_policy.deploy

  policy_arn = each.value.arn
  role       = one(aws_iam_role.deploy[*].name)
}

data "aws_iam_policy_document" "trust_github" {
  #checkov:skip=CKV_AWS_358:The subjects are exact: the validations of `github` refuse wildcards; the check reads literals only
  statement {
    actions = ["sts:AssumeRoleWithWebIdentity"]

    principals {
      type        = "Federated"
      identifiers = [local.github_provider_arn]
    }

    condition {
      test     = "StringEquals"
      variable = "token.actions.githubusercontent.com:aud"
      values   = ["sts.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "token.actions.githubusercontent.com:sub"
      values   = local.github_subjects
    }
  }
}

# It manages the roles that work, never itself, its policies or the identity provider: those it can only read, so that
# nobody who commits to the repository can widen them.
data "aws_iam_policy_document" "deploy_iam" {
  statement {
    sid = "ReadRoles"
    actions = [
      "iam:GetInstanceProfile",
      "iam:GetOpenIDConnectProvider",
      "iam:GetPolicy",
      "iam:GetPolicyVersion",
      "iam:GetRole",
      "iam:GetRolePolicy",
      "iam:ListAttachedRolePolicies",
      "iam:ListInstanceProfilesForRole",
      "iam:ListPolicyVersions",
      "iam:ListRolePolicies",
    ]
    resources = [
      "arn:${local.partition}:iam::${local.account}:instance-profile/${var.name}-*",
      "arn:${local.partition}:iam::${local.account}:policy/${var.name}-deploy-*",
      "arn:${local.partition}:iam::${local.account}:role/${var.name}-*",
      local.github_provider_arn,
    ]
  }

  # With a boundary, these hold only for roles that have it, and nothing here takes it off.
  statement {
    sid = "GrantToRoles"
    actions = concat(
      ["iam:CreateRole", "iam:DeleteRolePolicy", "iam:PutRolePolicy"],
      var.permissions_boundary_arn == null ? [] : ["iam:PutRolePermissionsBoundary"],
    )
    resources = local.working_role_arns

    dynamic "condition" {
      for_each = var.permissions_boundary_arn == null ? [] : [var.permissions_boundary_arn]

      content {
        test     = "StringEquals"
        variable = "iam:PermissionsBoundary"
        values   = [condition.value]
      }
    }
  }

  statement {
    sid = "ManageRoles"
    actions = [
      "iam:DeleteRole",
      "iam:TagRole",
      "iam:UntagRole",
      "iam:UpdateAssumeRolePolicy",
      "iam:UpdateRole",
      "iam:UpdateRoleDescription",
    ]
    resources = local.working_role_arns
  }

  statement {
    sid = "ManageInstanceProfile"
    actions = [
      "iam:AddRoleToInstanceProfile",
      "iam:CreateInstanceProfile",
      "iam:DeleteInstanceProfile",
      "iam:RemoveRoleFromInstanceProfile",
      "iam:TagInstanceProfile",
      "iam:UntagInstanceProfile",
    ]
    resources = ["arn:${local.partition}:iam::${local.account}:instance-profile/${var.name}-ec2"]
  }

  dynamic "statement" {
    for_each = local.passed_roles

    content {
      sid       = "PassRolesTo${title(statement.key)}"
      actions   = ["iam:PassRole"]
      resources = statement.value

      condition {
        test     = "StringEquals"
        variable = "iam:PassedToService"
        values   = ["${statement.key}.amazonaws.com"]
      }
    }
  }

  dynamic "statement" {
    for_each = local.scaled_services

    content {
      sid       = "LetScale${title(statement.key)}"
      actions   = ["iam:CreateServiceLinkedRole"]
      resources = ["arn:${local.partition}:iam::${local.account}:role/aws-service-role/${statement.key}.application-autoscaling.amazonaws.com/${statement.value}"]

      condition {
        test     = "StringEquals"
        variable = "iam:AWSServiceName"
        values   = ["${statement.key}.application-autoscaling.amazonaws.com"]
      }
    }
  }
}

# Bucket, image registry, image builds, parameters, Terraform's state.
data "aws_iam_policy_document" "deploy_artifacts" {
  source_policy_documents = var.kms_key_arn == null ? [] : [data.aws_iam_policy_document.deploy_key.json]

  statement {
    sid = "ManageBucket"
    actions = concat([
      "s3:CreateBucket",
      "s3:DeleteBucketPolicy",
      "s3:GetAccelerateConfiguration",
      "s3:GetBucketAcl",
      "s3:GetBucketCORS",
      "s3:GetBucketLogging",
      "s3:GetBucketObjectLockConfiguration",
      "s3:GetBucketOwnershipControls",
      "s3:GetBucketPolicy",
      "s3:GetBucketPublicAccessBlock",
      "s3:GetBucketRequestPayment",
      "s3:GetBucketTagging",
      "s3:GetBucketVersioning",
      "s3:GetBucketWebsite",
      "s3:GetEncryptionConfiguration",
      "s3:GetLifecycleConfiguration",
      "s3:GetReplicationConfiguration",
      "s3:ListTagsForResource",
      "s3:PutBucketLogging",
      "s3:PutBucketOwnershipControls",
      "s3:PutBucketPolicy",
      "s3:PutBucketPublicAccessBlock",
      "s3:PutBucketTagging",
      "s3:PutBucketVersioning",
      "s3:PutEncryptionConfiguration",
      "s3:PutLifecycleConfiguration",
      "s3:TagResource",
      "s3:UntagResource",
    ], local.may_empty_bucket ? ["s3:DeleteBucket", "s3:ListBucketVersions"] : [])
    resources = [var.bucket_arn]
  }

  dynamic "statement" {
    for_each = local.may_empty_bucket ? [var.bucket_arn] : []

    content {
      sid       = "EmptyBucket"
      actions   = ["s3:DeleteObject", "s3:DeleteObjectVersion"]
      resources = ["${statement.value}/*"]
    }
  }

  # Without a condition on the prefix: asking whether the bucket is there, and for workspaces, has none.
  dynamic "statement" {
    for_each = var.state_bucket_arn == null ? [] : [var.state_bucket_arn]

    content {
      sid       = "ListState"
      actions   = ["s3:ListBucket"]
      resources = [statement.value]
    }
  }

  dynamic "statement" {
    for_each = var.state_bucket_arn == null ? [] : [var.state_bucket_arn]

    content {
      sid       = "KeepState"
      actions   = ["s3:GetObject", "s3:PutObject"]
      resources = [for name in ["*.tfstate", "*.tfstate.tflock"] : "${statement.value}/${var.environment}/${name}"]
    }
  }

  dynamic "statement" {
    for_each = var.state_bucket_arn == null ? [] : [var.state_bucket_arn]

    content {
      sid       = "UnlockState"
      actions   = ["s3:DeleteObject"]
      resources = ["${statement.value}/${var.environment}/*.tfstate.tflock"]
    }
  }

  statement {
    sid = "ManageRepository"
    actions = concat([
      "ecr:CreateRepository",
      "ecr:DeleteLifecyclePolicy",
      "ecr:DeleteRepository",
      "ecr:DeleteRepositoryPolicy",
      "ecr:DescribeRepositories",
      "ecr:GetLifecyclePolicy",
      "ecr:GetRepositoryPolicy",
      "ecr:ListTagsForResource",
      "ecr:PutImageScanningConfiguration",
      "ecr:PutImageTagMutability",
      "ecr:PutLifecyclePolicy",
      "ecr:SetRepositoryPolicy",
      "ecr:TagResource",
      "ecr:UntagResource",
    ], local.may_empty_bucket ? ["ecr:BatchDeleteImage"] : [])
    resources = [var.repository_arn]
  }

  statement {
    sid = "ManageImageBuild"
    actions = [
      "codebuild:BatchGetProjects",
      "codebuild:CreateProject",
      "codebuild:DeleteProject",
      "codebuild:UpdateProject",
    ]
    resources = ["arn:${local.partition}:codebuild:${local.here}:project/${var.name}-image"]
  }

  statement {
    sid = "ManageParameters"
    actions = [
      "ssm:AddTagsToResource",
      "ssm:DeleteParameter",
      "ssm:GetParameter",
      "ssm:GetParameters",
      "ssm:GetParametersByPath",
      "ssm:ListTagsForResource",
      "ssm:PutParameter",
      "ssm:RemoveTagsFromResource",
    ]
    resources = [local.parameters_arn, trimsuffix(local.parameters_arn, "/*")]
  }

  # AWS's own parameters: the ids of its machine images.
  statement {
    sid       = "FindMachineImage"
    actions   = ["ssm:GetParameter"]
    resources = ["arn:${local.partition}:ssm:${local.region}::parameter/aws/service/*"]
  }

  # The list of parameters, without their values, knows no resources.
  statement {
    sid       = "ListParameters"
    actions   = ["ssm:DescribeParameters"]
    resources = ["*"]

    condition {
      test     = "StringEquals"
      variable = "aws:RequestedRegion"
      values   = [local.region]
    }
  }
}

data "aws_iam_policy_document" "deploy_key" {
  statement {
    sid       = "UseKey"
    actions   = ["kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey"]
    resources = compact([var.kms_key_arn])
  }

  # ECR, EBS and SageMaker use the key later, when nobody's credentials are at hand.
  statement {
    sid       = "LendKey"
    actions   = ["kms:CreateGrant", "kms:RetireGrant"]
    resources = compact([var.kms_key_arn])

    condition {
      test     = "Bool"
      variable = "kms:GrantIsForAWSResource"
      values   = ["true"]
    }
  }
}

# Launch template and security group of the EC2 trainer. Their ids are not known beforehand; they are told by the tag
# Name, which only the calls that make them may set.
data "aws_iam_policy_document" "deploy_compute" {
  statement {
    sid     = "CreateTrainerTemplate"
    actions = ["ec2:CreateLaunchTemplate", "ec2:CreateSecurityGroup"]
    resources = [
      for kind in ["launch-template", "security-group", "security-group-rule"] :
      "arn:${local.partition}:ec2:${local.here}:${kind}/*"
    ]

    condition {
      test     = "StringEquals"
      variable = "aws:RequestTag/Name"
      values   = [local.trainer_name]
    }
  }

  statement {
    sid       = "CreateGroupInVpc"
    actions   = ["ec2:CreateSecurityGroup"]
    resources = ["arn:${local.partition}:ec2:${local.here}:vpc/*"]
  }

  # A rule is made in a group that has the tag, and is itself tagged as it is made.
  statement {
    sid       = "CreateGroupRules"
    actions   = ["ec2:AuthorizeSecurityGroupEgress", "ec2:AuthorizeSecurityGroupIngress"]
    resources = ["arn:${local.partition}:ec2:${local.here}:security-group-rule/*"]

    condition {
      test     = "StringEquals"
      variable = "aws:RequestTag/Name"
      values   = [local.trainer_name]
    }
  }

  statement {
    sid = "ManageTrainerTemplate"
    actions = [
      "ec2:AuthorizeSecurityGroupEgress",
      "ec2:AuthorizeSecurityGroupIngress",
      "ec2:CreateLaunchTemplateVersion",
      "ec2:DeleteLaunchTemplate",
      "ec2:DeleteLaunchTemplateVersions",
      "ec2:DeleteSecurityGroup",
      "ec2:DeleteTags",
      "ec2:ModifyLaunchTemplate",
      "ec2:ModifySecurityGroupRules",
      "ec2:RevokeSecurityGroupEgress",
      "ec2:RevokeSecurityGroupIngress",
    ]
    resources = [
      for kind in ["launch-template", "security-group", "security-group-rule"] :
      "arn:${local.partition}:ec2:${local.here}:${kind}/*"
    ]

    condition {
      test     = "StringEquals"
      variable = "aws:ResourceTag/Name"
      values   = [local.trainer_name]
    }
  }

  statement {
    sid       = "TagAtCreation"
    actions   = ["ec2:CreateTags"]
    resources = ["arn:${local.partition}:ec2:${local.here}:*/*"]

    condition {
      test     = "StringEquals"
      variable = "ec2:CreateAction"
      values = [
        "AuthorizeSecurityGroupEgress",
        "AuthorizeSecurityGroupIngress",
        "CreateLaunchTemplate",
        "CreateSecurityGroup",
      ]
    }
  }

  statement {
    sid       = "RetagTrainer"
    actions   = ["ec2:CreateTags"]
    resources = ["arn:${local.partition}:ec2:${local.here}:*/*"]

    condition {
      test     = "StringEquals"
      variable = "aws:ResourceTag/Name"
      values   = [local.trainer_name]
    }
  }

  # EC2's Describe actions know no resources.
  statement {
    sid = "LookAround"
    actions = [
      "ec2:DescribeImages",
      "ec2:DescribeInstanceTypeOfferings",
      "ec2:DescribeLaunchTemplateVersions",
      "ec2:DescribeLaunchTemplates",
      "ec2:DescribeNetworkInterfaces",
      "ec2:DescribeRegions",
      "ec2:DescribeRouteTables",
      "ec2:DescribeSecurityGroupRules",
      "ec2:DescribeSecurityGroups",
      "ec2:DescribeSubnets",
      "ec2:DescribeVpcAttribute",
      "ec2:DescribeVpcs",
    ]
    resources = ["*"]

    condition {
      test     = "StringEquals"
      variable = "aws:RequestedRegion"
      values   = [local.region]
    }
  }
}

data "aws_iam_policy_document" "deploy_sagemaker" {
  statement {
    sid = "ManageEndpoint"
    actions = [
      "sagemaker:AddTags",
      "sagemaker:CreateEndpoint",
      "sagemaker:CreateEndpointConfig",
      "sagemaker:CreateModel",
      "sagemaker:DeleteEndpoint",
      "sagemaker:DeleteEndpointConfig",
      "sagemaker:DeleteModel",
      "sagemaker:DeleteTags",
      "sagemaker:DescribeEndpoint",
      "sagemaker:DescribeEndpointConfig",
      "sagemaker:DescribeModel",
      "sagemaker:ListTags",
      "sagemaker:UpdateEndpoint",
      "sagemaker:UpdateEndpointWeightsAndCapacities",
    ]
    resources = [
      local.endpoint_arn,
      "arn:${local.partition}:sagemaker:${local.here}:endpoint-config/${var.name}-*",
      "arn:${local.partition}:sagemaker:${local.here}:model/${var.name}-*",
    ]
  }

  statement {
    sid = "ManageNotebook"
    actions = [
      "sagemaker:AddTags",
      "sagemaker:CreateNotebookInstance",
      "sagemaker:CreateNotebookInstanceLifecycleConfig",
      "sagemaker:DeleteNotebookInstance",
      "sagemaker:DeleteNotebookInstanceLifecycleConfig",
      "sagemaker:DeleteTags",
      "sagemaker:DescribeNotebookInstance",
      "sagemaker:DescribeNotebookInstanceLifecycleConfig",
      "sagemaker:ListTags",
      "sagemaker:StartNotebookInstance",
      "sagemaker:StopNotebookInstance",
      "sagemaker:UpdateNotebookInstance",
      "sagemaker:UpdateNotebookInstanceLifecycleConfig",
    ]
    resources = [
      local.notebook_arn,
      "arn:${local.partition}:sagemaker:${local.here}:notebook-instance-lifecycle-config/${var.name}*",
    ]
  }

  # One kind of target for all services; the service is what tells them apart.
  statement {
    sid = "ManageScaling"
    actions = [
      "application-autoscaling:DeleteScalingPolicy",
      "application-autoscaling:DeleteScheduledAction",
      "application-autoscaling:DeregisterScalableTarget",
      "application-autoscaling:PutScalingPolicy",
      "application-autoscaling:PutScheduledAction",
      "application-autoscaling:RegisterScalableTarget",
    ]
    resources = ["arn:${local.partition}:application-autoscaling:${local.here}:scalable-target/*"]

    condition {
      test     = "StringEquals"
      variable = "application-autoscaling:service-namespace"
      values   = ["lambda", "sagemaker"]
    }
  }

  statement {
    sid = "TagScaling"
    actions = [
      "application-autoscaling:ListTagsForResource",
      "application-autoscaling:TagResource",
      "application-autoscaling:UntagResource",
    ]
    resources = ["arn:${local.partition}:application-autoscaling:${local.here}:scalable-target/*"]
  }

  # These know no resources.
  statement {
    sid = "ReadScaling"
    actions = [
      "application-autoscaling:DescribeScalableTargets",
      "application-autoscaling:DescribeScalingActivities",
      "application-autoscaling:DescribeScalingPolicies",
      "application-autoscaling:DescribeScheduledActions",
    ]
    resources = ["*"]

    condition {
      test     = "StringEquals"
      variable = "aws:RequestedRegion"
      values   = [local.region]
    }
  }

  # Target tracking makes its alarms with the rights of whoever puts the policy.
  statement {
    sid     = "TrackTargets"
    actions = ["cloudwatch:DeleteAlarms", "cloudwatch:PutMetricAlarm"]
    resources = [
      "arn:${local.partition}:cloudwatch:${local.here}:alarm:TargetTracking-endpoint/${var.endpoint_name}/*",
      "arn:${local.partition}:cloudwatch:${local.here}:alarm:TargetTracking-function:${var.function_name}:*",
    ]
  }
}

data "aws_iam_policy_document" "deploy_function" {
  statement {
    sid = "ManageFunction"
    actions = [
      "lambda:AddPermission",
      "lambda:CreateAlias",
      "lambda:CreateFunction",
      "lambda:CreateFunctionUrlConfig",
      "lambda:DeleteAlias",
      "lambda:DeleteFunction",
      "lambda:DeleteFunctionConcurrency",
      "lambda:DeleteFunctionEventInvokeConfig",
      "lambda:DeleteFunctionUrlConfig",
      "lambda:DeleteProvisionedConcurrencyConfig",
      "lambda:GetAlias",
      "lambda:GetFunction",
      "lambda:GetFunctionCodeSigningConfig",
      "lambda:GetFunctionConcurrency",
      "lambda:GetFunctionConfiguration",
      "lambda:GetFunctionEventInvokeConfig",
      "lambda:GetFunctionUrlConfig",
      "lambda:GetPolicy",
      "lambda:GetProvisionedConcurrencyConfig",
      "lambda:GetRuntimeManagementConfig",
      "lambda:ListProvisionedConcurrencyConfigs",
      "lambda:ListTags",
      "lambda:ListVersionsByFunction",
      "lambda:PublishVersion",
      "lambda:PutFunctionConcurrency",
      "lambda:PutFunctionEventInvokeConfig",
      "lambda:PutProvisionedConcurrencyConfig",
      "lambda:RemovePermission",
      "lambda:TagResource",
      "lambda:UntagResource",
      "lambda:UpdateAlias",
      "lambda:UpdateFunctionCode",
      "lambda:UpdateFunctionConfiguration",
      "lambda:UpdateFunctionEventInvokeConfig",
      "lambda:UpdateFunctionUrlConfig",
    ]
    resources = [local.function_arn, "${local.function_arn}:*"]
  }

  statement {
    sid = "ManageQueue"
    actions = [
      "sqs:CreateQueue",
      "sqs:DeleteQueue",
      "sqs:GetQueueAttributes",
      "sqs:GetQueueUrl",
      "sqs:ListQueueTags",
      "sqs:SetQueueAttributes",
      "sqs:TagQueue",
      "sqs:UntagQueue",
    ]
    resources = [local.queue_arn]
  }
}

# Log groups, alarms, dashboard, alarm topic, budget.
data "aws_iam_policy_document" "deploy_watch" {
  statement {
    sid = "ManageLogGroups"
    actions = [
      "logs:AssociateKmsKey",
      "logs:CreateLogGroup",
      "logs:DeleteLogGroup",
      "logs:DeleteRetentionPolicy",
      "logs:DisassociateKmsKey",
      "logs:ListTagsForResource",
      "logs:PutRetentionPolicy",
      "logs:TagResource",
      "logs:UntagResource",
    ]
    # Some of these name a group with a colon and an asterisk at its end, some without.
    resources = flatten([for arn in values(local.log_group_arns) : [arn, "${arn}:*"]])
  }

  statement {
    sid       = "ListLogGroups"
    actions   = ["logs:DescribeLogGroups"]
    resources = ["arn:${local.partition}:logs:${local.here}:log-group:*"]
  }

  statement {
    sid = "ManageAlarms"
    actions = [
      "cloudwatch:DeleteAlarms",
      "cloudwatch:ListTagsForResource",
      "cloudwatch:PutMetricAlarm",
      "cloudwatch:TagResource",
      "cloudwatch:UntagResource",
    ]
    resources = ["arn:${local.partition}:cloudwatch:${local.here}:alarm:${var.name}-*"]
  }

  # CloudWatch takes these for composite alarms only with every alarm as their resource.
  statement {
    sid       = "ManageCompositeAlarms"
    actions   = ["cloudwatch:DescribeAlarms", "cloudwatch:PutCompositeAlarm"]
    resources = ["*"]

    condition {
      test     = "StringEquals"
      variable = "aws:RequestedRegion"
      values   = [local.region]
    }
  }

  statement {
    sid       = "ManageDashboard"
    actions   = ["cloudwatch:DeleteDashboards", "cloudwatch:GetDashboard", "cloudwatch:PutDashboard"]
    resources = ["arn:${local.partition}:cloudwatch::${local.account}:dashboard/${var.name}"]
  }

  statement {
    sid = "ManageTopic"
    actions = [
      "sns:CreateTopic",
      "sns:DeleteTopic",
      "sns:GetDataProtectionPolicy",
      "sns:GetTopicAttributes",
      "sns:ListSubscriptionsByTopic",
      "sns:ListTagsForResource",
      "sns:SetTopicAttributes",
      "sns:Subscribe",
      "sns:TagResource",
      "sns:UntagResource",
    ]
    resources = [local.topic_arn]
  }

  # Subscriptions are no resources.
  statement {
    sid       = "ManageSubscriptions"
    actions   = ["sns:GetSubscriptionAttributes", "sns:SetSubscriptionAttributes", "sns:Unsubscribe"]
    resources = ["*"]

    condition {
      test     = "StringEquals"
      variable = "aws:RequestedRegion"
      values   = [local.region]
    }
  }

  statement {
    sid = "ManageBudget"
    actions = [
      "budgets:ListTagsForResource",
      "budgets:ModifyBudget",
      "budgets:TagResource",
      "budgets:UntagResource",
      "budgets:ViewBudget",
    ]
    resources = ["arn:${local.partition}:budgets::${local.account}:budget/${var.name}"]
  }
}
