"""Saving and restoring: after it everything is as it was, whatever happened between."""

import io
import json
import os
import threading
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest
from moto import mock_aws
from moto.s3.models import s3_backends

from localaws import state
from localaws.errors import LocalAwsError
from tests.localaws.conftest import LocalAws

ALLOW = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}
TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": "sts:AssumeRole",
                "Principal": {"Service": ["lambda.amazonaws.com", "sagemaker.amazonaws.com"]},
            }
        ],
    }
)
IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/kennel:1"
POLICY = json.dumps({"Version": "2012-10-17", "Statement": [ALLOW]})


def _zip(name: str, content: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, content)
    return file.getvalue()


def _fill(aws: LocalAws) -> None:
    """Something of each kind that the stacks make, or that pickle has trouble with."""
    s3, iam, ec2 = aws.client("s3"), aws.client("iam"), aws.client("ec2")
    s3.create_bucket(Bucket="kennel")
    s3.put_bucket_versioning(Bucket="kennel", VersioningConfiguration={"Status": "Enabled"})
    for body in (b"first", b"second", b"x" * 6_000_000):
        s3.put_object(Bucket="kennel", Key="model", Body=body, Metadata={"digest": "d"})
    s3.put_object(Bucket="kennel", Key="gone", Body=b"gone")
    s3.delete_object(Bucket="kennel", Key="gone")
    upload = s3.create_multipart_upload(Bucket="kennel", Key="parts")["UploadId"]
    s3.upload_part(Bucket="kennel", Key="parts", UploadId=upload, PartNumber=1, Body=b"part")
    role = iam.create_role(RoleName="kennel", AssumeRolePolicyDocument=TRUST)["Role"]["Arn"]
    iam.put_role_policy(RoleName="kennel", PolicyName="p", PolicyDocument=POLICY)
    group = ec2.create_security_group(GroupName="trainer", Description="d")["GroupId"]
    ec2.create_launch_template(
        LaunchTemplateName="trainer", LaunchTemplateData={"SecurityGroupIds": [group]}
    )
    key = aws.client("kms").create_key()["KeyMetadata"]["KeyId"]
    aws.client("kms").create_key(KeySpec="RSA_2048", KeyUsage="SIGN_VERIFY")
    ssm = aws.client("ssm")
    ssm.put_parameter(Name="/kennel/secret", Value="s", Type="SecureString", KeyId=key)
    ssm.put_parameter(Name="/kennel/secret", Value="t", Type="SecureString", Overwrite=True)
    queue = aws.client("sqs").create_queue(QueueName="dead")["QueueUrl"]
    aws.client("sqs").send_message(QueueUrl=queue, MessageBody="hello")
    topic = aws.client("sns").create_topic(Name="alarms")["TopicArn"]
    aws.client("sns").subscribe(TopicArn=topic, Protocol="email", Endpoint="a@example.com")
    logs = aws.client("logs")
    logs.create_log_group(logGroupName="/kennel")
    logs.create_log_stream(logGroupName="/kennel", logStreamName="s")
    logs.put_log_events(
        logGroupName="/kennel",
        logStreamName="s",
        logEvents=[{"timestamp": int(time.time() * 1000), "message": "line"}],
    )
    aws.client("ecr").create_repository(repositoryName="serving")
    function = aws.client("lambda").create_function(
        FunctionName="classify",
        Role=role,
        Runtime="python3.13",
        Handler="h.h",
        Code={"ZipFile": _zip("h.py", "def h(e, c): return 1")},
        Publish=True,
    )
    aws.client("lambda").create_alias(
        FunctionName="classify", Name="live", FunctionVersion=function["Version"]
    )
    sagemaker = aws.client("sagemaker")
    sagemaker.create_model(ModelName="m", ExecutionRoleArn=role, PrimaryContainer={"Image": IMAGE})
    sagemaker.create_endpoint_config(
        EndpointConfigName="c",
        ProductionVariants=[
            {
                "VariantName": "main",
                "ModelName": "m",
                "InstanceType": "ml.m5.large",
                "InitialInstanceCount": 1,
            }
        ],
    )
    sagemaker.create_endpoint(EndpointName="kennel", EndpointConfigName="c")
    aws.client("cloudwatch").put_metric_alarm(
        AlarmName="a",
        Namespace="n",
        MetricName="m",
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1.0,
        ComparisonOperator="GreaterThanThreshold",
    )


def _picture(aws: LocalAws) -> dict[str, Any]:
    """What the services tell of all this, ids and times included."""
    s3, kms = aws.client("s3"), aws.client("kms")
    keys = [key["KeyId"] for key in kms.list_keys()["Keys"]]
    upload = s3.list_multipart_uploads(Bucket="kennel")["Uploads"][0]["UploadId"]
    versions = s3.list_object_versions(Bucket="kennel")
    answers = [
        aws.client("ec2").describe_vpcs(),
        aws.client("ec2").describe_subnets(),
        aws.client("ec2").describe_security_groups(),
        aws.client("ec2").describe_launch_template_versions(LaunchTemplateName="trainer"),
        versions,
        s3.list_parts(Bucket="kennel", Key="parts", UploadId=upload),
        s3.head_object(Bucket="kennel", Key="model"),
        aws.client("iam").get_role(RoleName="kennel"),
        aws.client("iam").get_role_policy(RoleName="kennel", PolicyName="p"),
        *(kms.describe_key(KeyId=key) for key in keys),
        kms.get_public_key(KeyId=keys[1]),
        aws.client("ssm").get_parameter_history(Name="/kennel/secret", WithDecryption=True),
        aws.client("sqs").get_queue_attributes(
            QueueUrl=aws.client("sqs").get_queue_url(QueueName="dead")["QueueUrl"],
            AttributeNames=["All"],
        ),
        aws.client("sns").list_subscriptions(),
        aws.client("logs").describe_log_groups(),
        aws.client("logs").get_log_events(logGroupName="/kennel", logStreamName="s"),
        aws.client("ecr").describe_repositories(),
        aws.client("lambda").get_function_configuration(FunctionName="classify"),
        aws.client("lambda").get_alias(FunctionName="classify", Name="live"),
        aws.client("sagemaker").describe_endpoint(EndpointName="kennel"),
        aws.client("sagemaker").describe_endpoint_config(EndpointConfigName="c"),
        aws.client("cloudwatch").describe_alarms(),
    ]
    bodies = [
        s3.get_object(Bucket="kennel", Key="model", VersionId=version["VersionId"])["Body"].read()
        for version in versions["Versions"]
        if version["Key"] == "model"
    ]
    told = [{k: v for k, v in answer.items() if k != "ResponseMetadata"} for answer in answers]
    return {"answers": told, "bodies": bodies, "inventory": aws.inventory()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def aws(folder: Path) -> Iterator[LocalAws]:
    running = LocalAws(folder, "--records-only")
    _fill(running)
    yield running
    running.stop()


def test_a_restart_changes_nothing(aws: LocalAws) -> None:
    kms = aws.client("kms")
    key = kms.list_keys()["Keys"][0]["KeyId"]
    secret = kms.encrypt(KeyId=key, Plaintext=b"dog")["CiphertextBlob"]
    before = _picture(aws)

    aws.restart()
    assert _picture(aws) == before
    assert aws.client("kms").decrypt(CiphertextBlob=secret)["Plaintext"] == b"dog"


def test_a_killed_save_leaves_the_former_state(aws: LocalAws, folder: Path) -> None:
    s3 = aws.client("s3")
    s3.put_object(Bucket="kennel", Key="saved", Body=b"yes")
    before = _picture(aws)
    _ask_to_save(aws)
    s3.put_object(Bucket="kennel", Key="unsaved", Body=os.urandom(60_000_000))

    told = folder / "server.json"
    server = psutil.Process(json.loads(told.read_text())["pid"])
    # It must not be done before anybody looks, however busy the machine is.
    server.nice(19)
    asking = threading.Thread(target=_ask_to_save, args=(aws,), daemon=True)
    asking.start()
    while not list(folder.glob(".state.zip.*")):
        assert asking.is_alive(), "the save was over before it could be killed"
    server.kill()
    asking.join()
    told.unlink()

    aws.restart()
    assert _picture(aws) == before
    assert not list(folder.glob(".state.zip.*"))


def _ask_to_save(aws: LocalAws) -> None:
    request = urllib.request.Request(f"{aws.endpoint}/_localaws/save", method="POST")
    with suppress(OSError), urllib.request.urlopen(request) as answer:
        answer.read()


def test_what_was_restored_can_be_changed(aws: LocalAws) -> None:
    s3, lambdas = aws.client("s3"), aws.client("lambda")
    upload = s3.list_multipart_uploads(Bucket="kennel")["Uploads"][0]["UploadId"]
    part = s3.list_parts(Bucket="kennel", Key="parts", UploadId=upload)["Parts"][0]
    s3.complete_multipart_upload(
        Bucket="kennel",
        Key="parts",
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
    )
    assert s3.get_object(Bucket="kennel", Key="parts")["Body"].read() == b"part"
    sqs = aws.client("sqs")
    queue = sqs.get_queue_url(QueueName="dead")["QueueUrl"]
    assert sqs.receive_message(QueueUrl=queue)["Messages"][0]["Body"] == "hello"
    lambdas.update_function_code(FunctionName="classify", ZipFile=_zip("h.py", "new"))
    assert lambdas.publish_version(FunctionName="classify")["Version"] == "2"
    aws.client("ssm").put_parameter(Name="/kennel/new", Value="v", Type="String")


@pytest.fixture
def saved(tmp_path: Path) -> Iterator[Path]:
    """A small state, saved by this process."""
    with mock_aws():
        boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="kennel")
        state.save(tmp_path / "state.zip")
        yield tmp_path / "state.zip"


def _rewritten(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    header = json.loads(members["header.json"])
    change(header)
    members["header.json"] = json.dumps(header).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


@pytest.mark.parametrize(
    ("key", "value"), [("format", 0), ("moto", "5.0.0"), ("python", ["2", "7"])]
)
def test_the_state_of_another_version_is_refused(saved: Path, key: str, value: object) -> None:
    _rewritten(saved, lambda header: header.update({key: value}))
    with pytest.raises(LocalAwsError, match=r"was written by .*`make local-reset`"):
        state.restore(saved)


@pytest.mark.parametrize("place", [0.3, 0.6, 0.9])
def test_a_damaged_state_is_refused(saved: Path, place: float) -> None:
    data = bytearray(saved.read_bytes())
    data[int(len(data) * place)] ^= 0xFF
    saved.write_bytes(data)
    with pytest.raises(LocalAwsError, match="`make local-reset`"):
        state.restore(saved)


@pytest.mark.parametrize("kept", [0, 1, 0.5, 0.99])
def test_half_a_state_is_refused(saved: Path, kept: float) -> None:
    data = saved.read_bytes()
    saved.write_bytes(data[: int(len(data) * kept) if kept < 1 else -1])
    with pytest.raises(LocalAwsError, match="`make local-reset`"):
        state.restore(saved)


def test_a_state_that_others_can_write_is_refused(saved: Path) -> None:
    saved.chmod(0o666)
    with pytest.raises(LocalAwsError, match="others than its owner"):
        state.restore(saved)


def test_a_failed_save_leaves_the_former_state(saved: Path) -> None:
    former = saved.read_bytes()
    bucket: Any = s3_backends["123456789012"]["aws"].buckets["kennel"]
    bucket.unsavable = (number for number in range(3))
    with pytest.raises(LocalAwsError, match="the former one is untouched"):
        state.save(saved)
    assert saved.read_bytes() == former
    assert list(saved.parent.iterdir()) == [saved]
