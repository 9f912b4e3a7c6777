"""The Lambda function's zip under AWS's runtime interface emulator, before a real endpoint."""

import base64
import json
import platform
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from inference.archive import write_archive
from lambda_src.build import build
from tests.contract.conftest import Photo
from tests.contract.parts import (
    BUILT,
    ENVIRONMENTS,
    SECONDS,
    free_ports,
    post,
    running,
    until,
    variables,
)
from tests.localaws.conftest import LocalAws
from tests.localaws.roles import create_role

ACCOUNT = "123456789012"
REPOSITORY = "kennel-serving"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
ARCHITECTURES = {"x86_64": "x86_64", "aarch64": "arm64"}


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[LocalAws]:
    """Give an account with all that an endpoint's model refers to."""
    running_aws = LocalAws(tmp_path / "aws")
    create_role(running_aws.client("iam"), "serving", "sagemaker", rights=())
    running_aws.client("ecr").create_repository(repositoryName=REPOSITORY)
    running_aws.client("ecr").put_image(
        repositoryName=REPOSITORY,
        imageManifest=json.dumps({"schemaVersion": 2, "mediaType": MANIFEST}),
        imageTag="1",
    )
    running_aws.client("s3").create_bucket(Bucket="kennel")
    yield running_aws
    running_aws.stop()


@pytest.fixture
def endpoint(aws: LocalAws, model: Path, tmp_path: Path) -> str:
    """Give the name of an endpoint that serves the model."""
    archive = tmp_path / "model.tar.gz"
    write_archive(model, archive)
    aws.client("s3").upload_file(str(archive), "kennel", "model.tar.gz")
    sagemaker = aws.client("sagemaker")
    sagemaker.create_model(
        ModelName="kennel",
        ExecutionRoleArn=f"arn:aws:iam::{ACCOUNT}:role/serving",
        PrimaryContainer={
            "Image": f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/{REPOSITORY}:1",
            "ModelDataUrl": "s3://kennel/model.tar.gz",
        },
    )
    variant = {
        "VariantName": "main",
        "ModelName": "kennel",
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
    }
    sagemaker.create_endpoint_config(EndpointConfigName="kennel", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="kennel", EndpointConfigName="kennel")
    deadline = time.monotonic() + SECONDS
    while (found := sagemaker.describe_endpoint(EndpointName="kennel"))["EndpointStatus"] == (
        "Creating"
    ):
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    assert found["EndpointStatus"] == "InService", found
    return "kennel"


@pytest.fixture
def function(aws: LocalAws, endpoint: str, tmp_path: Path) -> Iterator[str]:
    """Give the address at which the emulator takes events for the function."""
    architecture = ARCHITECTURES[platform.machine()]
    code, (port, runtime_port) = tmp_path / "task", free_ports(2)
    with zipfile.ZipFile(build(BUILT.parent / "lambda", architecture)) as packed:
        packed.extractall(code)
    (emulator,) = ENVIRONMENTS.glob(
        f"sagemaker/lib/python*/site-packages/samcli/local/rapid/aws-lambda-rie-{architecture}"
    )
    environment = variables(
        "sagemaker",
        tmp_path,
        AWS_ACCESS_KEY_ID="test",
        AWS_DEFAULT_REGION="us-east-1",
        AWS_ENDPOINT_URL=aws.endpoint,
        AWS_LAMBDA_FUNCTION_NAME="kennel-classify",
        AWS_LAMBDA_FUNCTION_TIMEOUT=30,
        AWS_SECRET_ACCESS_KEY="test",
        ENDPOINT_NAME=endpoint,
        LAMBDA_TASK_ROOT=code,
        POWERTOOLS_TRACE_DISABLED="true",
    )
    command = [str(emulator), "--runtime-interface-emulator-address", f"127.0.0.1:{port}"]
    command += ["--runtime-api-address", f"127.0.0.1:{runtime_port}"]
    command += [sys.executable, "-m", "awslambdaric", "lambda_src.handler.handler"]
    url = f"http://127.0.0.1:{port}/2015-03-31/functions/function/invocations"
    with running(command, tmp_path / "emulator.log", environment, code) as process:
        until(lambda: post(url, b"{}").is_success, process)
        yield url


def ask(url: str, body: bytes) -> dict[str, object]:
    """Give what the function returns for an image."""
    event = {"image": base64.b64encode(body).decode()}
    response: dict[str, object] = post(url, json.dumps(event).encode()).json()
    return response


def test_the_zip_answers_as_our_own_server(
    function: str, photos: list[Photo], expected: list[str]
) -> None:
    answers = [ask(function, photo.body) for photo in photos]
    assert {answer["statusCode"] for answer in answers} == {200}, answers[0]
    bodies = [json.loads(str(answer["body"])) for answer in answers]
    assert [body["predictions"][0]["label"] for body in bodies] == expected
    refusal = ask(function, photos[0].body[:60])
    assert (refusal["statusCode"], json.loads(str(refusal["body"]))["error"]) == (400, "bad_image")
