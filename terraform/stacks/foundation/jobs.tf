# What training jobs are told beside their role and bucket: the network that they run in, and the key that encrypts what
# they keep and leave. `trainer` reads it from the parameters.

locals {
  # `enable_vpc` asks for `vpc`, whose validation says so.
  job_subnet_ids = var.enable_vpc ? try(var.vpc.subnet_ids, []) : []
}

resource "aws_security_group" "jobs" {
  #checkov:skip=CKV2_AWS_5:SageMaker attaches it to the interfaces of jobs
  count = var.enable_vpc ? 1 : 0

  description = "Training jobs: among themselves, and out by HTTPS"
  name        = "${local.name}-jobs"
  # As the trainer's: by this tag the deploy role may manage it.
  tags   = { Name = "${local.name}-trainer" }
  vpc_id = try(var.vpc.vpc_id, null)
}

# The instances of a job talk on ports that PyTorch chooses; traffic between them that SageMaker encrypts is ESP and
# UDP 500. No rule for one port would do.
resource "aws_vpc_security_group_ingress_rule" "jobs" {
  count = var.enable_vpc ? 1 : 0

  description                  = "Between the instances of a job"
  ip_protocol                  = "-1"
  referenced_security_group_id = aws_security_group.jobs[0].id
  security_group_id            = aws_security_group.jobs[0].id
  tags                         = aws_security_group.jobs[0].tags
}

resource "aws_vpc_security_group_egress_rule" "jobs" {
  count = var.enable_vpc ? 1 : 0

  description                  = "Between the instances of a job"
  ip_protocol                  = "-1"
  referenced_security_group_id = aws_security_group.jobs[0].id
  security_group_id            = aws_security_group.jobs[0].id
  tags                         = aws_security_group.jobs[0].tags
}

# S3 and the Python package index.
resource "aws_vpc_security_group_egress_rule" "jobs_https" {
  count = var.enable_vpc ? 1 : 0

  cidr_ipv4         = "0.0.0.0/0"
  description       = "AWS and the Python package index"
  from_port         = 443
  ip_protocol       = "tcp"
  security_group_id = aws_security_group.jobs[0].id
  tags              = aws_security_group.jobs[0].tags
  to_port           = 443
}

resource "aws_ssm_parameter" "jobs" {
  for_each = merge(
    var.enable_vpc ? {
      job_security_group_ids = aws_security_group.jobs[0].id
      job_subnet_ids         = join(",", local.job_subnet_ids)
    } : {},
    var.kms_key_arn == null ? {} : { kms_key_arn = var.kms_key_arn },
  )

  #checkov:skip=CKV2_AWS_34:Ids and an ARN, nothing secret; a SecureString would ask every reader for a right to a key
  name  = "/${var.project}/${var.environment}/${each.key}"
  type  = "String"
  value = each.value
}
