"""Nothing leaves this machine: the commands as processes, in a shell that leads elsewhere.

Its proxy and its AWS are a listener. Python's connections and look-ups are watched by an audit hook
in each process. Native code that heeds no proxy is not seen: ONNX Runtime's reports show by the id
that it keeps in the home, Terraform's by its `checkpoint_signature` there.
"""

import io
import json
import sys
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from PIL import Image

from localaws.processes import ManagedProcess
from tests.archives import make_archive
from tests.localaws.conftest import until
from tests.localaws.roles import create_role
from tests.outside import ROOT, Outside

# Each process loads much, and other tests run beside it.
pytestmark = pytest.mark.timeout(900)

IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/kennel:1"
JOB = """
import boto3, json, os
boto3.client("s3").put_object(Bucket="kennel", Key="said/job", Body=json.dumps(dict(os.environ)))
"""
INSTANCE = """#!/bin/bash
python3 -c 'import json, os; print(json.dumps(dict(os.environ)))' > said
aws s3 cp --quiet said s3://kennel/said/instance
shutdown -h now
"""
FUNCTION = """
import os
def handler(event, context):
    return dict(os.environ)
"""


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Outside]:
    made = Outside(tmp_path)
    yield made
    made.stop()


def clients(endpoint: str, service: str) -> Any:
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(proxies={}),
    )


def photos(root: Path) -> Path:
    for split, count in (("train", 4), ("valid", 2), ("test", 2)):
        for name in ("green", "red"):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                color = (number, 99, 0) if name == "green" else (99, number, 0)
                Image.new("RGB", (40, 40), color).save(root / split / name / f"{number}.png")
    return root


def test_training_packing_and_evaluation_report_to_nobody(outside: Outside, tmp_path: Path) -> None:
    data, cache = str(tmp_path / "data/photos"), str(tmp_path / "cache")
    read = ("--data", data, "--cache-dir", cache)
    small = ("--backbone", "efficientnet_lite0", "--weights", "none", "--image-size", "32")
    quick = ("--batch-size", "4", "--checkpoint-dir", str(tmp_path / "checkpoints"))
    wanted = ("--output-dir", str(tmp_path / "out"), "--model-dir", str(tmp_path / "model"))
    archive = str(make_archive(tmp_path / "packed", ("green", "red")))

    outside.run("trainer.sources", str(photos(tmp_path / "photos")), "--output", data)
    outside.run("trainer.tune", *read, *small, *quick, *wanted, "--trials", "1")
    outside.run("trainer.train", *read, *small, *quick, *wanted, "--epochs", "1")
    outside.run("trainer.package", "--check", archive)
    outside.run("trainer.evaluate", *read, "--model", archive, "--output", str(tmp_path / "test"))
    # Exporting takes long; what it loads is what would report.
    outside.python("-c", "import trainer.packaging, trainer.quantize")
    outside.run("make", "help")
    assert outside.seen == []


def test_the_server_reports_to_nobody(outside: Outside, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "inference.server", "serve", "--port", "0"]
    command += ["--host", "127.0.0.1", "--model", str(make_archive(tmp_path / "one"))]
    log = tmp_path / "log"
    with ManagedProcess(command, log, outside.environ, ROOT) as server:

        def announced() -> int:
            assert server.exit_code is None, log.read_text()
            with suppress(ValueError, StopIteration):
                lines = map(json.loads, log.read_text().splitlines())
                return int(next(line["port"] for line in lines if line["event"] == "ready"))
            return 0

        ready = f"http://127.0.0.1:{until(announced)}/ping"
        assert urllib.request.urlopen(ready).status == 200
    assert outside.seen == []


def test_the_function_reports_to_nobody(outside: Outside) -> None:
    outside.python("-c", "import lambda_src.handler", ENDPOINT_NAME="kennel")
    assert outside.seen == []


def test_local_commands_and_what_localaws_starts_stay_here(
    outside: Outside, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    make = ("make", "ENV=local", f"OUT={out}")
    photos(tmp_path / "photos")
    try:
        outside.run(*make, "local-up", LOCALAWS_PORT="0")
        endpoint = json.loads((out / "localaws/server.json").read_text())["endpoint"]
        # No later command is told the port.
        outside.run(*make, "bootstrap")
        buckets = clients(endpoint, "s3").list_buckets()["Buckets"]
        assert [bucket["Name"] for bucket in buckets] == ["kennel-tfstate-123456789012-us-east-1"]

        role = hand_over(endpoint)
        sent = ("--data", str(tmp_path / "photos"))
        outside.run("trainer.upload", "upload", "--env", "local", *sent, KENNEL_OUT=str(out))
        outside.run("terraform.cli", "logs", "--env", "local", KENNEL_OUT=str(out))

        environments = started(endpoint, role, tmp_path)
        outside.run(*make, "local-down")
    finally:
        outside.run(*make, "local-reset")
    for environment in environments:
        assert environment["AWS_ENDPOINT_URL"] == endpoint
        same = {name for name in outside.hostile if environment.get(name) == outside.hostile[name]}
        assert same == set()
    assert outside.seen == []


def hand_over(endpoint: str) -> str:
    """Make a bucket and a role, which the foundation would; give the role."""
    clients(endpoint, "s3").create_bucket(Bucket="kennel")
    clients(endpoint, "ssm").put_parameter(
        Name="/kennel/local/bucket", Value="kennel", Type="String"
    )
    iam = clients(endpoint, "iam")
    iam.create_instance_profile(InstanceProfileName="all")
    for service in ("ec2", "lambda", "sagemaker"):
        arn = create_role(iam, service, service)
    iam.add_role_to_instance_profile(InstanceProfileName="all", RoleName="ec2")
    return arn.rpartition("/")[0]


def started(endpoint: str, roles: str, tmp_path: Path) -> list[dict[str, str]]:
    """Run one of each kind that localaws runs, all under their roles; give their environments."""
    s3, sagemaker = clients(endpoint, "s3"), clients(endpoint, "sagemaker")
    ec2, functions = clients(endpoint, "ec2"), clients(endpoint, "lambda")

    s3.put_object(Bucket="kennel", Key="code/main.py", Body=JOB.encode())
    source = {"S3DataType": "S3Prefix", "S3Uri": "s3://kennel/code/"}
    sagemaker.create_training_job(
        TrainingJobName="job",
        RoleArn=f"{roles}/sagemaker",
        AlgorithmSpecification={
            "TrainingImage": "image",
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["python3", "/opt/ml/input/data/code/main.py"],
        },
        InputDataConfig=[{"ChannelName": "code", "DataSource": {"S3DataSource": source}}],
        OutputDataConfig={"S3OutputPath": "s3://kennel/jobs/"},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        StoppingCondition={"MaxRuntimeInSeconds": 300},
    )

    ec2.run_instances(
        ImageId="ami-999844e0",
        InstanceType="t3.micro",
        MinCount=1,
        MaxCount=1,
        IamInstanceProfile={"Name": "all"},
        UserData=INSTANCE,
    )

    s3.upload_file(str(make_archive(tmp_path / "served")), "kennel", "model.tar.gz")
    container = {"Image": IMAGE, "ModelDataUrl": "s3://kennel/model.tar.gz"}
    sagemaker.create_model(
        ModelName="m", ExecutionRoleArn=f"{roles}/sagemaker", PrimaryContainer=container
    )
    variant = {"InitialInstanceCount": 1, "InstanceType": "ml.m5.large", "InitialVariantWeight": 1}
    sagemaker.create_endpoint_config(
        EndpointConfigName="c",
        ProductionVariants=[{"VariantName": "main", "ModelName": "m", **variant}],
    )
    sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="c")

    package = io.BytesIO()
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr("main.py", FUNCTION)
    functions.create_function(
        FunctionName="f",
        Role=f"{roles}/lambda",
        Runtime="python3.13",
        Handler="main.handler",
        Code={"ZipFile": package.getvalue()},
    )
    functions.get_waiter("function_active_v2").wait(FunctionName="f")
    of_function = json.load(functions.invoke(FunctionName="f")["Payload"])

    def endpoint_status() -> str:
        described = sagemaker.describe_endpoint(EndpointName="e")
        assert described["EndpointStatus"] != "Failed", described
        return str(described["EndpointStatus"])

    until(endpoint_status, lambda status: status == "InService")
    said = until(
        lambda: s3.list_objects_v2(Bucket="kennel", Prefix="said/").get("Contents", []),
        lambda found: len(found) == 2,
    )
    bodies = [s3.get_object(Bucket="kennel", Key=each["Key"])["Body"].read() for each in said]
    return [of_function, *map(json.loads, bodies)]
