data "aws_region" "current" {}

resource "aws_sagemaker_notebook_instance_lifecycle_configuration" "this" {
  name = var.name

  on_start = base64encode(templatefile("${path.module}/files/on_start.sh.tftpl", {
    idle_minutes = var.idle_minutes
    max_hours    = var.max_hours_per_day
    name         = var.name
    region       = data.aws_region.current.id
    script       = trimspace(file("${path.module}/files/idle_stop.py"))
  }))
}

resource "aws_sagemaker_notebook_instance" "this" {
  #checkov:skip=CKV_AWS_22:SageMaker encrypts the volume by default; KMS is optional (kms_key_arn) because each key is paid for
  #checkov:skip=CKV_AWS_122:Without a VPC of one's own there is no other way to AWS; with vpc direct internet access is off
  #checkov:skip=CKV_AWS_187:SageMaker encrypts the volume by default; KMS is optional (kms_key_arn) because each key is paid for
  #checkov:skip=CKV_AWS_306:The VPC is optional (vpc): it needs endpoints or a NAT gateway, which cost more than the notebook
  #checkov:skip=CKV2_AWS_68:The role comes from outside (role_arn); the roles module gives it exact actions on exact ARNs
  name                   = var.name
  direct_internet_access = var.vpc == null ? "Enabled" : "Disabled"
  instance_type          = var.instance_type
  kms_key_id             = var.kms_key_arn
  lifecycle_config_name  = aws_sagemaker_notebook_instance_lifecycle_configuration.this.name
  platform_identifier    = var.platform_identifier
  role_arn               = var.role_arn
  root_access            = "Disabled"
  security_groups        = var.vpc == null ? null : var.vpc.security_group_ids
  subnet_id              = var.vpc == null ? null : var.vpc.subnet_id
  volume_size            = var.volume_size_gb

  instance_metadata_service_configuration {
    minimum_instance_metadata_service_version = "2"
  }
}
