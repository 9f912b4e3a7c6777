provider "aws" {
  region = "us-east-1"
}

variables {
  alarm_emails          = ["me@example.com"]
  cost_centre           = "none"
  enable_ec2_trainer    = false
  enable_job_log_groups = false
  enable_notebook       = false
  environment           = "dev"
  monthly_budget_usd    = null
  owner                 = "tests"
  region                = "us-east-1"
}

run "jobs_run_in_the_network_and_under_the_key" {
  command = plan

  variables {
    enable_vpc  = true
    kms_key_arn = "arn:aws:kms:us-east-1:123456789012:key/0a1b2c3d-0000-1111-2222-333344445555"
    vpc         = { vpc_id = "vpc-1", subnet_ids = ["subnet-1", "subnet-2"] }
  }

  assert {
    condition     = aws_ssm_parameter.jobs["job_subnet_ids"].value == "subnet-1,subnet-2"
    error_message = "jobs must be told their subnets"
  }

  assert {
    condition     = aws_ssm_parameter.jobs["job_security_group_ids"].name == "/kennel/dev/job_security_group_ids"
    error_message = "jobs must be told their security group"
  }

  assert {
    condition     = aws_ssm_parameter.jobs["kms_key_arn"].value == var.kms_key_arn
    error_message = "jobs must be told the key"
  }

  assert {
    condition     = aws_security_group.jobs[0].vpc_id == "vpc-1"
    error_message = "the jobs' group must be in the network"
  }

  assert {
    condition = alltrue([
      for rule in [aws_vpc_security_group_ingress_rule.jobs[0], aws_vpc_security_group_egress_rule.jobs[0]] :
      rule.ip_protocol == "-1" && rule.cidr_ipv4 == null
    ])
    error_message = "the instances of a job must reach each other, and nobody else them"
  }
}

run "without_network_and_key_jobs_are_told_neither" {
  command = plan

  assert {
    condition     = length(aws_ssm_parameter.jobs) + length(aws_security_group.jobs) == 0
    error_message = "nothing must be made for jobs that need nothing"
  }
}

run "jobs_in_a_vpc_need_one" {
  command = plan

  variables {
    enable_vpc = true
  }

  expect_failures = [var.enable_vpc]
}
