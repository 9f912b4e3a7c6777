"""Saving and restoring: after it everything is as it was, whatever happened between."""

import io
import json
import os
import stat
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest
from moto import mock_aws
from moto.awslambda.models import lambda_backends
from moto.s3.models import FakeKey, S3Backend, s3_backends
from moto.ssm.models import SimpleSystemManagerBackend, ssm_backends

from localaws import blobs, state
from localaws.errors import LocalAwsError
from localaws.execution import ACCOUNT
from tests.localaws.conftest import LocalAws, until

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


@pytest.fixture(scope="module", autouse=True)
def moto_keeps_large_contents() -> None:
    blobs.install()


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


def _kill(aws: LocalAws, folder: Path) -> None:
    """End the server without a chance to save anything, and start it again."""
    told = folder / "server.json"
    psutil.Process(json.loads(told.read_text())["pid"]).kill()
    told.unlink()
    aws.restart()


def test_a_kill_loses_nothing_that_was_saved(aws: LocalAws, folder: Path) -> None:
    s3, ssm = aws.client("s3"), aws.client("ssm")
    objects, kept = folder / "objects", folder / "state.zip"
    ssm.put_parameter(Name="/kennel/count", Value="0", Type="String")
    files, body = set(objects.iterdir()), os.urandom(20_000_000)
    s3.put_object(Bucket="kennel", Key="large", Body=body)
    s3.copy_object(Bucket="kennel", Key="copy", CopySource="kennel/large")
    (file,) = set(objects.iterdir()) - files
    written = file.stat()
    before = _picture(aws)
    saves = [kept.stat().st_mtime_ns]

    def saved_thrice() -> bool:
        count = str(len(saves))
        ssm.put_parameter(Name="/kennel/count", Value=count, Type="String", Overwrite=True)
        if (now := kept.stat().st_mtime_ns) != saves[-1]:
            saves.append(now)
        # The first may have begun before the last answer; during another it may be killed.
        return len(saves) > 3

    until(saved_thrice)
    told = folder / "server.json"
    psutil.Process(json.loads(told.read_text())["pid"]).kill()
    told.unlink()
    aws.restart()

    assert _picture(aws) == before
    assert int(ssm.get_parameter(Name="/kennel/count")["Parameter"]["Value"]) >= 2
    # What is large was written once, for its owner only, and is not in the state file.
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == (written.st_mtime_ns, written.st_ino)
    assert stat.S_IMODE(written.st_mode) == 0o600
    assert kept.stat().st_size < len(body) / 10
    assert s3.get_object(Bucket="kennel", Key="copy")["Body"].read() == body
    # What nothing names any more is removed, the rest of what a kill interrupted too.
    assert set(objects.iterdir()) == files | {file}
    assert not list(folder.glob(".state.zip.*"))
    for version in s3.list_object_versions(Bucket="kennel")["Versions"]:
        if version["Key"] in {"large", "copy"}:
            s3.delete_object(Bucket="kennel", Key=version["Key"], VersionId=version["VersionId"])
    until(lambda: not file.exists())


def test_a_missing_object_is_refused_with_the_remedy(tmp_path: Path) -> None:
    blobs.keep_in(tmp_path / "objects")
    try:
        with mock_aws():
            s3 = boto3.client("s3", region_name="us-east-1")
            s3.create_bucket(Bucket="kennel")
            s3.put_object(Bucket="kennel", Key="k", Body=b"x" * blobs.LARGE_BYTES)
            state.save(tmp_path / "state.zip")
            (file,) = (tmp_path / "objects").iterdir()
            file.unlink()
            with pytest.raises(LocalAwsError, match=f"{file.name} is not there.*local-reset"):
                state.restore(tmp_path / "state.zip")
    finally:
        blobs.keep_in(None)


def test_only_what_was_touched_is_pickled_again(tmp_path: Path) -> None:
    with mock_aws():
        ssm, s3 = (boto3.client(name, region_name="us-east-1") for name in ("ssm", "s3"))
        s3.create_bucket(Bucket="kennel")
        ssm.put_parameter(Name="/kennel", Value="first", Type="String")
        saver = state.Saver(tmp_path / "state.zip")
        saver.take([])  # the first time all are
        saver.write()
        ssm.put_parameter(Name="/kennel", Value="second", Type="String", Overwrite=True)
        s3.create_bucket(Bucket="unseen")
        saver.take([SimpleSystemManagerBackend])
        saver.write()
    with mock_aws():
        state.restore(tmp_path / "state.zip")
        assert ssm.get_parameter(Name="/kennel")["Parameter"]["Value"] == "second"
        assert [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]] == ["kennel"]


def _object() -> Any:
    return s3_backends[ACCOUNT]["aws"].get_object("kennel", "k")


@pytest.mark.parametrize(
    "change",
    [
        lambda s3, key: s3.put_object_legal_hold(**key, LegalHold={"Status": "ON"}),
        lambda s3, key: s3.put_object_acl(**key, ACL="public-read"),
        lambda s3, key: s3.put_object(**key, Body=b"second"),
        lambda s3, key: s3.copy_object(
            **key, CopySource="kennel/k", MetadataDirective="REPLACE", Metadata={"a": "b"}
        ),
        lambda s3, key: _object().set_metadata({"a": "b"}),
    ],
    ids=["hold", "acl", "body", "copy", "metadata"],
)
def test_an_object_is_pickled_again_when_it_was_changed_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Any, Any], object]
) -> None:
    key = {"Bucket": "kennel", "Key": "k"}

    def picture(s3: Any) -> list[Any]:
        told = s3.get_object(**key), s3.get_object_acl(**key), s3.get_object_legal_hold(**key)
        kept = {"Metadata", "Grants", "LegalHold", "ETag"}
        return [[v for k, v in answer.items() if k in kept] for answer in told]

    with mock_aws():
        s3 = boto3.client("s3", region_name="us-east-1")
        s3.create_bucket(Bucket="kennel", ObjectLockEnabledForBucket=True)
        s3.put_object(**key, Body=b"first", ObjectLockLegalHoldStatus="OFF")
        s3.put_object(Bucket="kennel", Key="other", Body=b"other")
        saver = state.Saver(tmp_path / "state.zip")
        saver.take([])
        pickled: list[Any] = []
        get_state = vars(FakeKey)["__getstate__"]

        def noted(key: Any) -> Any:
            pickled.append(key.name)
            return get_state(key)

        monkeypatch.setattr(FakeKey, "__getstate__", noted)
        change(s3, key)
        saver.take([S3Backend])
        saver.write()
        assert set(pickled) == {"k"}
        saver.take([S3Backend])
        # Each version once.
        assert len(pickled) == len(s3.list_object_versions(Bucket="kennel", Prefix="k")["Versions"])
        before = picture(s3)
    with mock_aws():
        state.restore(tmp_path / "state.zip")
        assert picture(s3) == before


def test_services_that_share_an_object_share_it_afterwards(tmp_path: Path) -> None:
    with mock_aws():
        bucket = s3_backends[ACCOUNT]["aws"].create_bucket("kennel", "us-east-1")
        holder: Any = ssm_backends[ACCOUNT]["us-east-1"]
        holder.shared, holder.other = bucket, s3_backends[ACCOUNT]["aws"]
        state.save(tmp_path / "state.zip")
    with mock_aws():
        state.restore(tmp_path / "state.zip")
        holder = ssm_backends[ACCOUNT]["us-east-1"]
        assert holder.shared is s3_backends[ACCOUNT]["aws"].buckets["kennel"]
        assert holder.other is s3_backends[ACCOUNT]["aws"]


def test_the_code_of_functions_is_named_not_held(tmp_path: Path) -> None:
    blobs.keep_in(tmp_path / "objects")
    try:
        code = _zip("h.py", os.urandom(100_000).hex())
        with mock_aws():
            iam, lambdas = (boto3.client(n, region_name="us-east-1") for n in ("iam", "lambda"))
            role = iam.create_role(RoleName="kennel", AssumeRolePolicyDocument=TRUST)["Role"]["Arn"]
            lambdas.create_function(
                FunctionName="f",
                Role=role,
                Runtime="python3.13",
                Handler="h.h",
                Code={"ZipFile": code},
                Publish=True,
            )
            lambdas.publish_layer_version(LayerName="l", Content={"ZipFile": code})
            state.save(tmp_path / "state.zip")
        assert (tmp_path / "state.zip").stat().st_size < len(code)
        assert [path.stat().st_size for path in (tmp_path / "objects").iterdir()] == [len(code)]
        with mock_aws():
            state.restore(tmp_path / "state.zip")
            function: Any = lambda_backends[ACCOUNT]["us-east-1"].get_function("f", "1")
            assert function.code_bytes == code
    finally:
        blobs.keep_in(None)


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
