provider "aws" {
  region = "us-east-1"
}

variables {
  name     = "kennel-dev"
  role_arn = "arn:aws:iam::123456789012:role/kennel-dev-notebook"
}

run "defaults_are_small_and_closed" {
  command = plan

  module {
    source = "./modules/notebook"
  }

  assert {
    condition     = aws_sagemaker_notebook_instance.this.instance_type == "ml.t3.medium"
    error_message = "The notebook only drives jobs: the smallest type is the default."
  }

  assert {
    condition     = aws_sagemaker_notebook_instance.this.root_access == "Disabled"
    error_message = "Users must not be root."
  }

  assert {
    condition     = one(aws_sagemaker_notebook_instance.this.instance_metadata_service_configuration).minimum_instance_metadata_service_version == "2"
    error_message = "Version 1 of the metadata service must be off."
  }

  assert {
    condition     = aws_sagemaker_notebook_instance.this.lifecycle_config_name == aws_sagemaker_notebook_instance_lifecycle_configuration.this.name
    error_message = "The notebook must run the script that stops it."
  }

  assert {
    condition     = aws_sagemaker_notebook_instance.this.volume_size == 5 && aws_sagemaker_notebook_instance.this.kms_key_id == null
    error_message = "The defaults are the smallest volume and SageMaker's own key."
  }

  assert {
    condition     = aws_sagemaker_notebook_instance.this.direct_internet_access == "Enabled" && aws_sagemaker_notebook_instance.this.subnet_id == null
    error_message = "Without a VPC the notebook reaches AWS by SageMaker's network."
  }
}

run "script_is_rendered" {
  command = plan

  module {
    source = "./modules/notebook"
  }

  variables {
    idle_minutes      = 45
    max_hours_per_day = 8
  }

  assert {
    condition     = length(aws_sagemaker_notebook_instance_lifecycle_configuration.this.on_start) <= 16384
    error_message = "SageMaker takes scripts of at most 16384 base64 characters."
  }

  assert {
    condition     = startswith(base64decode(aws_sagemaker_notebook_instance_lifecycle_configuration.this.on_start), "#!/bin/bash\n")
    error_message = "SageMaker runs the script by its first line."
  }

  assert {
    condition     = strcontains(base64decode(aws_sagemaker_notebook_instance_lifecycle_configuration.this.on_start), " --name kennel-dev --region us-east-1 --idle-minutes 45 --max-hours 8 ")
    error_message = "The script must know the notebook and its limits."
  }

  assert {
    condition     = strcontains(base64decode(aws_sagemaker_notebook_instance_lifecycle_configuration.this.on_start), trimspace(file("./modules/notebook/files/idle_stop.py")))
    error_message = "The script must bring the tested idle_stop.py with it."
  }
}

run "vpc_closes_the_internet" {
  command = plan

  module {
    source = "./modules/notebook"
  }

  variables {
    vpc = { subnet_id = "subnet-0123456789abcdef0", security_group_ids = ["sg-0123456789abcdef0"] }
  }

  assert {
    condition     = aws_sagemaker_notebook_instance.this.direct_internet_access == "Disabled"
    error_message = "In a VPC there is no direct internet access."
  }

  assert {
    condition = (
      aws_sagemaker_notebook_instance.this.subnet_id == "subnet-0123456789abcdef0"
      && aws_sagemaker_notebook_instance.this.security_groups == toset(["sg-0123456789abcdef0"])
    )
    error_message = "The notebook must be in the subnet and the groups given."
  }
}

run "key_and_platform_are_taken" {
  command = plan

  module {
    source = "./modules/notebook"
  }

  variables {
    kms_key_arn         = "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555"
    platform_identifier = "notebook-al2-v3"
  }

  assert {
    condition     = endswith(aws_sagemaker_notebook_instance.this.kms_key_id, ":key/11111111-2222-3333-4444-555555555555")
    error_message = "The volume must be encrypted under the key given."
  }

  assert {
    condition     = aws_sagemaker_notebook_instance.this.platform_identifier == "notebook-al2-v3"
    error_message = "The platform given must be taken."
  }
}
