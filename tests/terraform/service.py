"""A small serving stack that releases models for real: an endpoint and a function in localaws.

It stands for `terraform/stacks/serving`, which takes over a minute; its outputs are the same.
"""

import io
import json
import sys
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.terraform.checkout import SHARED, Checkout, make_checkout
from tests.terraform.conftest import LocalAws

BUCKET = "kennel-dev-123456789012-us-east-1"
FUNCTION = "kennel-dev-classify"
IMAGE = f"123456789012.dkr.ecr.us-east-1.amazonaws.com/kennel-dev-serving@sha256:{'0' * 64}"
ROLE = "arn:aws:iam::123456789012:role/kennel-dev-serving"
STATES = "kennel-tfstate-123456789012-us-east-1"

STACK = (
    SHARED
    + """
variable "lambda_zip_path" { type = string }
variable "model" {
  type = object({ archive_uri = string, digest = string, image_uri = optional(string, "new") })
}
variable "previous_model" {
  type    = object({ archive_uri = string, digest = string, image_uri = optional(string) })
  default = null
}
variable "history" {
  type    = list(object({ archive_uri = string, digest = string, image_uri = optional(string) }))
  default = []
}

resource "terraform_data" "configuration" {
  input = "kennel-dev-${substr(var.model.digest, 0, 12)}"
}

resource "terraform_data" "endpoint" {
  input            = terraform_data.configuration.output
  triggers_replace = var.model

  provisioner "local-exec" {
    command = "\\"$KENNEL_PYTHON\\" release.py ${self.input} ${var.model.archive_uri}"
    working_dir = "../../.."
  }
}

# Stays as it is when a release fails; an output by itself would take the planned value.
resource "terraform_data" "served" {
  input      = { model = var.model, previous_model = var.previous_model, history = var.history }
  depends_on = [terraform_data.endpoint]
}

output "endpoint_configuration_name" { value = terraform_data.configuration.output }
output "endpoint_name" { value = "kennel-dev" }
output "function_name" { value = "kennel-dev-classify" }
output "history" { value = terraform_data.served.output.history }
output "model" { value = terraform_data.served.output.model }
output "previous_model" { value = terraform_data.served.output.previous_model }
"""
)

RELEASE = f'''
"""Put a configuration in service; fail if another one serves in the end, as the real stack does."""

import os
import sys
import time
from contextlib import suppress

import boto3
from botocore.exceptions import ClientError

name, archive_uri = sys.argv[1:]
client = boto3.client("sagemaker")
with suppress(ClientError):
    client.create_model(
        ModelName=name,
        ExecutionRoleArn="{ROLE}",
        PrimaryContainer={{
            "Image": "763104351884.dkr.ecr.us-east-1.amazonaws.com/kennel:1",
            "ModelDataUrl": archive_uri,
            "Environment": {{"KENNEL_WORKERS": "1"}},
        }},
    )
    client.create_endpoint_config(
        EndpointConfigName=name,
        ProductionVariants=[
            {{
                "VariantName": "main",
                "ModelName": name,
                "InstanceType": "ml.m5.large",
                "InitialInstanceCount": 1,
            }}
        ],
    )


def serves(name):
    """Bring the endpoint to a configuration; give how that ended."""
    given = {{"EndpointName": "kennel-dev", "EndpointConfigName": name}}
    try:
        found = client.describe_endpoint(EndpointName="kennel-dev")
    except ClientError:
        client.create_endpoint(**given)
    else:
        if found["EndpointConfigName"] != name:
            client.update_endpoint(**given)
    deadline = time.monotonic() + 120
    while True:
        found = client.describe_endpoint(EndpointName="kennel-dev")
        if found["EndpointStatus"] not in ("Creating", "Updating", "RollingBack"):
            return found["EndpointConfigName"] == name and found["EndpointStatus"] == "InService"
        assert time.monotonic() < deadline, found
        time.sleep(0.2)


is_released = serves(name)
former = os.environ.get("KENNEL_ROLL_BACK")
sys.exit(not is_released or bool(former) and serves(former))
'''

HANDLER = """
import base64
import json

import botocore.session

client = botocore.session.get_session().create_client("sagemaker-runtime")


def handler(event, context):
    if "image" not in event:
        body = {"error": "forbidden_address", "message": "that host may not be fetched"}
        return {"statusCode": 403, "body": json.dumps(body)}
    if event["image"] == "crash":
        raise RuntimeError("crashed")
    if event["image"] == "another":
        return None
    answer = client.invoke_endpoint(
        EndpointName="kennel-dev",
        Body=base64.b64decode(event["image"]),
        ContentType="application/octet-stream",
    )
    return {"statusCode": 200, "body": answer["Body"].read().decode()}
"""


def make_service(folder: Path, aws: LocalAws) -> Checkout:
    """Lay out a checkout whose stacks are ready to be applied, with all they need in localaws."""
    checkout = make_checkout(
        folder,
        {
            **aws.environment,
            "COLUMNS": "200",
            "KENNEL_PYTHON": sys.executable,
        },
    )
    (folder / "terraform/stacks/serving/main.tf").write_text(STACK)
    (folder / "release.py").write_text(RELEASE)
    for bucket in (BUCKET, STATES):
        aws.client("s3").create_bucket(Bucket=bucket)
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    aws.client("s3").put_bucket_encryption(
        Bucket=BUCKET, ServerSideEncryptionConfiguration={"Rules": [rule]}
    )
    everything = _document({"Effect": "Allow", "Action": "*", "Resource": "*"})
    for name, service in (("serving", "sagemaker"), ("lambda", "lambda")):
        make_role(aws, name, {"Service": f"{service}.amazonaws.com"}, [everything])
    _make_function(aws)
    for key, value in {
        "bucket": BUCKET,
        "endpoint_name": "kennel-dev",
        "function_name": FUNCTION,
        "image_uri": IMAGE,
    }.items():
        aws.client("ssm").put_parameter(Name=f"/kennel/dev/{key}", Type="String", Value=value)
    return checkout


LONGEST_ATTACHED = 6144
"""Characters of a policy that can be attached, by IAM's quota."""


def make_role(
    aws: LocalAws, name: str, principal: Mapping[str, str], policies: Iterable[Mapping[str, Any]]
) -> str:
    """Make the role `kennel-dev-<name>` for a principal, with policies; give its ARN."""
    role, iam = f"kennel-dev-{name}", aws.client("iam")
    trust = _document({"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"})
    made = iam.create_role(RoleName=role, AssumeRolePolicyDocument=json.dumps(trust))["Role"]
    for number, policy in enumerate(policies):
        document = json.dumps(policy, separators=(",", ":"))
        # Many small ones are attached to a role of the stacks, a large one is the role's own.
        if len(document) > LONGEST_ATTACHED:
            iam.put_role_policy(RoleName=role, PolicyName=str(number), PolicyDocument=document)
            continue
        attached = iam.create_policy(PolicyName=f"{role}-{number}", PolicyDocument=document)
        iam.attach_role_policy(RoleName=role, PolicyArn=attached["Policy"]["Arn"])
    return str(made["Arn"])


def _document(statement: Mapping[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": [statement]}


def _make_function(aws: LocalAws) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("app.py", HANDLER)
    client = aws.client("lambda")
    client.create_function(
        FunctionName=FUNCTION,
        Runtime="python3.13",
        Role="arn:aws:iam::123456789012:role/kennel-dev-lambda",
        Handler="app.handler",
        Code={"ZipFile": content.getvalue()},
        MemorySize=512,
        Timeout=30,
        Publish=True,
    )
    client.create_alias(FunctionName=FUNCTION, Name="live", FunctionVersion="1")
    client.put_provisioned_concurrency_config(
        FunctionName=FUNCTION, Qualifier="live", ProvisionedConcurrentExecutions=1
    )
