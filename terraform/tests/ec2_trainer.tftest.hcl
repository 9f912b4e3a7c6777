provider "aws" {
  region = "us-east-1"
}

variables {
  ami_id                = "ami-0a1b2c3d4e5f60718"
  bucket_name           = "kennel-dev-123456789012-us-east-1"
  instance_profile_name = "kennel-dev-ec2"
  name                  = "kennel-dev"
  vpc                   = { vpc_id = "vpc-0a1b2c3d", subnet_ids = ["subnet-0a1b2c3d", "subnet-4e5f6071"] }
}

run "defaults" {
  command = plan

  module {
    source = "./modules/ec2_trainer"
  }

  assert {
    condition     = aws_launch_template.this.name == "kennel-dev-trainer" && aws_launch_template.this.instance_type == "g5.xlarge"
    error_message = "the template must be that of a g5.xlarge"
  }

  assert {
    condition     = aws_launch_template.this.instance_initiated_shutdown_behavior == "terminate"
    error_message = "a machine that shuts down must be gone"
  }

  assert {
    condition = alltrue([
      for volume in aws_launch_template.this.block_device_mappings[*].ebs[0] :
      volume.encrypted == "true" && volume.volume_type == "gp3" && volume.volume_size == 45 && volume.delete_on_termination == "true"
    ])
    error_message = "the volume must be 45 GiB of encrypted gp3 that go with the machine"
  }

  assert {
    condition     = aws_launch_template.this.metadata_options[0].http_tokens == "required" && aws_launch_template.this.metadata_options[0].http_put_response_hop_limit == 1
    error_message = "the metadata service must ask for tokens and reach no container"
  }

  assert {
    condition     = length(aws_launch_template.this.instance_market_options) == 0 && aws_launch_template.this.key_name == null
    error_message = "machines must be on demand and without a key unless asked"
  }

  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.ssh) == 0
    error_message = "nothing must come in"
  }

  assert {
    condition     = aws_vpc_security_group_egress_rule.https.from_port == 443 && aws_vpc_security_group_egress_rule.https.to_port == 443
    error_message = "only HTTPS must go out"
  }

  assert {
    condition     = toset(aws_launch_template.this.tag_specifications[*].resource_type) == toset(["instance", "volume"])
    error_message = "machine and volume must be tagged"
  }

  assert {
    condition     = strcontains(base64decode(aws_launch_template.this.user_data), "max_minutes='720'") && strcontains(base64decode(aws_launch_template.this.user_data), "bucket='kennel-dev-123456789012-us-east-1'")
    error_message = "user data must know the bucket and end after 12 hours"
  }

  assert {
    condition     = length(aws_launch_template.this.user_data) < 21000
    error_message = "EC2 takes 16 KB of user data, before its encoding"
  }

  assert {
    condition     = aws_cloudwatch_log_group.this.name == "/kennel-dev/ec2-trainer" && aws_cloudwatch_log_group.this.retention_in_days == 30
    error_message = "logs must be kept for 30 days"
  }
}

run "spot" {
  command = plan

  module {
    source = "./modules/ec2_trainer"
  }

  variables {
    enable_spot = true
  }

  assert {
    condition     = aws_launch_template.this.instance_market_options[0].market_type == "spot" && aws_launch_template.this.instance_market_options[0].spot_options[0].spot_instance_type == "one-time"
    error_message = "machines must be spot instances that are not launched again by themselves"
  }
}

run "ssh" {
  command = plan

  module {
    source = "./modules/ec2_trainer"
  }

  variables {
    ssh = { key_name = "me", cidr_blocks = ["203.0.113.0/24", "198.51.100.7/32"] }
  }

  assert {
    condition     = aws_launch_template.this.key_name == "me" && toset([for rule in aws_vpc_security_group_ingress_rule.ssh : rule.cidr_ipv4]) == toset(["203.0.113.0/24", "198.51.100.7/32"])
    error_message = "SSH must be let in from the networks given"
  }

  assert {
    condition     = alltrue([for rule in aws_vpc_security_group_ingress_rule.ssh : rule.from_port == 22 && rule.to_port == 22])
    error_message = "only SSH must be let in"
  }
}

run "numbers" {
  command = plan

  module {
    source = "./modules/ec2_trainer"
  }

  variables {
    kms_key_arn        = "arn:aws:kms:us-east-1:123456789012:key/0a1b2c3d-0000-1111-2222-333344445555"
    log_retention_days = 7
    max_hours          = 1.5
    root_device_name   = "/dev/sda1"
    volume_size_gb     = 200
  }

  assert {
    condition     = aws_launch_template.this.block_device_mappings[0].device_name == "/dev/sda1" && aws_launch_template.this.block_device_mappings[0].ebs[0].volume_size == 200
    error_message = "the root volume must be the one of the image, and as large as asked"
  }

  assert {
    condition     = endswith(aws_launch_template.this.block_device_mappings[0].ebs[0].kms_key_id, "333344445555") && endswith(aws_cloudwatch_log_group.this.kms_key_id, "333344445555")
    error_message = "volume and logs must have the key"
  }

  assert {
    condition     = strcontains(base64decode(aws_launch_template.this.user_data), "max_minutes='90'")
    error_message = "the machine must end after 90 minutes"
  }
}
