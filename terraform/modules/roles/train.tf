locals {
  launch_template_arns = "arn:${local.partition}:ec2:${local.here}:launch-template/*"
  trainer_made_arns    = { for kind in ["instance", "volume"] : kind => "arn:${local.partition}:ec2:${local.here}:${kind}/*" }
}

# What starting, watching and ending a training asks for: SageMaker's jobs, and with `make train WHERE=ec2` a machine from
# the trainer's launch template. It is one of the deploy role's policies and a part of the notebook's, and goes with
# `operate` for people (output `policies`).
data "aws_iam_policy_document" "train" {
  source_policy_documents = local.trainer_documents

  statement {
    sid = "RunJobs"
    actions = [
      "sagemaker:AddTags",
      "sagemaker:CreateHyperParameterTuningJob",
      "sagemaker:CreateTrainingJob",
      "sagemaker:DescribeHyperParameterTuningJob",
      "sagemaker:DescribeTrainingJob",
      "sagemaker:ListTags",
      "sagemaker:ListTrainingJobsForHyperParameterTuningJob",
      "sagemaker:StopHyperParameterTuningJob",
      "sagemaker:StopTrainingJob",
    ]
    resources = local.job_arns
  }

  # Lists know no resources.
  statement {
    sid       = "ListJobs"
    actions   = ["sagemaker:ListHyperParameterTuningJobs", "sagemaker:ListTrainingJobs"]
    resources = ["*"]

    condition {
      test     = "StringEquals"
      variable = "aws:RequestedRegion"
      values   = [local.region]
    }
  }

  statement {
    sid       = "PassTrainingRole"
    actions   = ["iam:PassRole"]
    resources = [local.role_arns.training]

    condition {
      test     = "StringEquals"
      variable = "iam:PassedToService"
      values   = ["sagemaker.amazonaws.com"]
    }
  }

  # The SageMaker SDK looks at the role before it starts a job.
  statement {
    sid       = "ReadTrainingRole"
    actions   = ["iam:GetRole", "iam:SimulatePrincipalPolicy"]
    resources = [local.role_arns.training]
  }

  statement {
    sid       = "ReadHandover"
    actions   = ["ssm:GetParameter", "ssm:GetParameters", "ssm:GetParametersByPath"]
    resources = [local.parameters_arn, trimsuffix(local.parameters_arn, "/*")]
  }

  statement {
    sid       = "FollowJobLogs"
    actions   = ["logs:DescribeLogStreams"]
    resources = [for key in ["ec2", "training"] : "${local.log_group_arns[key]}:*"]
  }

  statement {
    sid       = "ReadJobLogs"
    actions   = ["logs:GetLogEvents"]
    resources = concat(local.training_log_arns, ["${local.log_group_arns.ec2}:*"])
  }

  # The only template that may be used: every other resource below must come with one.
  statement {
    sid       = "LaunchFromTemplate"
    actions   = ["ec2:RunInstances"]
    resources = [local.launch_template_arns]

    condition {
      test     = "StringEquals"
      variable = "aws:ResourceTag/Name"
      values   = [local.trainer_name]
    }
  }

  # What is made carries the template's tag, by which it can be ended. A launch may name another type than the template.
  dynamic "statement" {
    for_each = local.trainer_made_arns

    content {
      sid       = "Launch${title(statement.key)}"
      actions   = ["ec2:RunInstances"]
      resources = [statement.value]

      condition {
        test     = "ArnLike"
        variable = "ec2:LaunchTemplate"
        values   = [local.launch_template_arns]
      }

      condition {
        test     = "StringEquals"
        variable = "aws:RequestTag/Name"
        values   = [local.trainer_name]
      }

      dynamic "condition" {
        for_each = statement.key == "instance" ? [var.trainer_instance_types] : []

        content {
          test     = "StringEquals"
          variable = "ec2:InstanceType"
          values   = condition.value
        }
      }
    }
  }

  # Image and network may belong to others.
  statement {
    sid     = "UseForTrainer"
    actions = ["ec2:RunInstances"]
    resources = concat(
      ["arn:${local.partition}:ec2:${local.region}::image/*"],
      [
        for kind in ["key-pair", "network-interface", "security-group", "spot-instances-request", "subnet"] :
        "arn:${local.partition}:ec2:${local.here}:${kind}/*"
      ],
    )

    condition {
      test     = "ArnLike"
      variable = "ec2:LaunchTemplate"
      values   = [local.launch_template_arns]
    }
  }

  statement {
    sid       = "TagTrainer"
    actions   = ["ec2:CreateTags"]
    resources = values(local.trainer_made_arns)

    condition {
      test     = "StringEquals"
      variable = "ec2:CreateAction"
      values   = ["RunInstances"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:RequestTag/Name"
      values   = [local.trainer_name]
    }
  }

  statement {
    sid       = "EndTrainer"
    actions   = ["ec2:GetConsoleOutput", "ec2:TerminateInstances"]
    resources = ["arn:${local.partition}:ec2:${local.here}:instance/*"]

    condition {
      test     = "StringEquals"
      variable = "aws:ResourceTag/Name"
      values   = [local.trainer_name]
    }
  }

  # EC2's Describe actions know no resources.
  statement {
    sid       = "FindTrainer"
    actions   = ["ec2:DescribeInstances", "ec2:DescribeLaunchTemplateVersions"]
    resources = ["*"]

    condition {
      test     = "StringEquals"
      variable = "aws:RequestedRegion"
      values   = [local.region]
    }
  }

  statement {
    sid       = "PassTrainerRole"
    actions   = ["iam:PassRole"]
    resources = [local.role_arns.ec2]

    condition {
      test     = "StringEquals"
      variable = "iam:PassedToService"
      values   = ["ec2.amazonaws.com"]
    }
  }
}
