"""What the tests of the launcher share: a foundation's handover, made by hand."""

import json
from itertools import count
from typing import Any

import pytest

from tests.localaws.conftest import LocalAws
from trainer import jobs, jobs_sagemaker
from trainer.shards import Manifest

BUCKET = "kennel-local-123456789012-us-east-1"
FINGERPRINT = "f" * 64
_numbers = count(1)


def hand_over(aws: LocalAws) -> None:
    """Make what the foundation would: bucket, roles, parameters; and a data set's manifest."""
    aws.client("s3").create_bucket(Bucket=BUCKET)
    role = make_role(aws, "training", "sagemaker.amazonaws.com")
    parameters = {"bucket": BUCKET, "training_role_arn": role}
    for key, value in parameters.items():
        put_parameter(aws, key, value)
    put_dataset(aws, "pets", FINGERPRINT)


def work_in(aws: LocalAws, monkeypatch: pytest.MonkeyPatch, poll_seconds: float) -> None:
    """Let this process's commands reach a localaws, and look at their jobs often."""
    for name, value in {**aws.environment, "SAGEMAKER_VALIDATE_ROLE": "true"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(jobs, "_POLL_SECONDS", poll_seconds)
    # A job's name ends with the second, in which a test starts several.
    base_name = jobs_sagemaker.base_name
    monkeypatch.setattr(
        jobs_sagemaker,
        "base_name",
        lambda target, dataset: f"{base_name(target, dataset)}-{next(_numbers)}",
    )


def make_role(aws: LocalAws, name: str, service: str) -> str:
    statement: dict[str, Any] = {"Effect": "Allow", "Action": "sts:AssumeRole"}
    trust = {
        "Version": "2012-10-17",
        "Statement": [{**statement, "Principal": {"Service": service}}],
    }
    made = aws.client("iam").create_role(
        RoleName=f"kennel-local-{name}", AssumeRolePolicyDocument=json.dumps(trust)
    )
    return str(made["Role"]["Arn"])


def put_parameter(aws: LocalAws, key: str, value: str) -> None:
    aws.client("ssm").put_parameter(
        Name=f"/kennel/local/{key}", Type="String", Value=value, Overwrite=True
    )


def put_dataset(aws: LocalAws, name: str, fingerprint: str) -> None:
    """Make what an upload of no photos would."""
    manifest = Manifest(1, "0" * 64, fingerprint, ("cat", "dog"), None, ()).to_text()
    put_json(aws, f"data/{name}/manifest.json", json.loads(manifest))


def put_json(aws: LocalAws, key: str, content: Any) -> None:
    aws.client("s3").put_object(Bucket=BUCKET, Key=key, Body=json.dumps(content).encode())


def get_json(aws: LocalAws, key: str) -> Any:
    return json.loads(aws.client("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read())
