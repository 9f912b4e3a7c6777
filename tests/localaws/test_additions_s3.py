"""S3 on localaws."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError
from botocore.session import Session

from localaws.additions import s3 as addition
from tests.localaws.conftest import LocalAws

BUCKET = "kennel-conditions"
EVERYTHING = [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"]


@pytest.fixture
def s3(aws: LocalAws) -> Iterator[Any]:
    """A client and a bucket with versions."""
    client = aws.client("s3")
    client.create_bucket(Bucket=BUCKET)
    client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    yield client
    client.delete_bucket_policy(Bucket=BUCKET)
    versions = client.list_object_versions(Bucket=BUCKET)
    for version in [*versions.get("Versions", []), *versions.get("DeleteMarkers", [])]:
        client.delete_object(Bucket=BUCKET, Key=version["Key"], VersionId=version["VersionId"])
    client.delete_bucket(Bucket=BUCKET)


def deny(client: Any, action: str, condition: dict[str, dict[str, str]]) -> None:
    statement = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": action,
        "Resource": EVERYTHING,
        "Condition": condition,
    }
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    client.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(policy))


def code(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


@pytest.mark.parametrize(
    "condition",
    [
        {"Bool": {"aws:SecureTransport": "false"}},
        {"NumericLessThan": {"s3:TlsVersion": "1.2"}},
        {"StringNotEquals": {"aws:PrincipalAccount": "123456789012"}},
    ],
)
def test_a_condition_that_does_not_hold_denies_nothing(
    s3: Any, condition: dict[str, dict[str, str]]
) -> None:
    deny(s3, "s3:*", condition)
    s3.put_object(Bucket=BUCKET, Key="k", Body=b"dog")
    assert s3.get_object(Bucket=BUCKET, Key="k")["Body"].read() == b"dog"
    s3.head_object(Bucket=BUCKET, Key="k")


def test_a_condition_that_holds_denies(s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="k", Body=b"dog")
    deny(s3, "s3:GetObject", {"Bool": {"aws:SecureTransport": "true"}})
    with pytest.raises(ClientError) as error:
        s3.get_object(Bucket=BUCKET, Key="k")
    assert code(error) == "AccessDenied"
    with pytest.raises(ClientError):
        s3.head_object(Bucket=BUCKET, Key="k")
    s3.put_object(Bucket=BUCKET, Key="k", Body=b"cat")


def test_conditions_see_the_request(s3: Any) -> None:
    deny(s3, "s3:PutObject", {"StringNotEquals": {"s3:x-amz-server-side-encryption": "aws:kms"}})
    with pytest.raises(ClientError) as error:
        s3.put_object(Bucket=BUCKET, Key="k", Body=b"", ServerSideEncryption="AES256")
    assert code(error) == "AccessDenied"
    s3.put_object(Bucket=BUCKET, Key="k", Body=b"", ServerSideEncryption="aws:kms")


def test_of_many_who_take_a_lock_one_gets_it(s3: Any) -> None:
    def take(holder: int) -> int:
        body = str(holder).encode()
        try:
            s3.put_object(Bucket=BUCKET, Key="lock", Body=body, IfNoneMatch="*")
        except ClientError as error:
            return int(error.response["ResponseMetadata"]["HTTPStatusCode"])
        return 200

    for _ in range(5):
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(take, range(8)))
        assert sorted(answers) == [200] + [412] * 7
        held = s3.get_object(Bucket=BUCKET, Key="lock")["Body"].read()
        assert held == str(answers.index(200)).encode()
        s3.delete_object(Bucket=BUCKET, Key="lock")


def test_a_write_for_another_version_is_refused(s3: Any) -> None:
    first = s3.put_object(Bucket=BUCKET, Key="k", Body=b"1")["ETag"]
    s3.put_object(Bucket=BUCKET, Key="k", Body=b"2", IfMatch=first)
    with pytest.raises(ClientError) as error:
        s3.put_object(Bucket=BUCKET, Key="k", Body=b"3", IfMatch=first)
    assert code(error) == "PreconditionFailed"


def test_logs_go_where_the_target_lets_them(s3: Any) -> None:
    wanted = {
        "TargetBucket": BUCKET,
        "TargetPrefix": "log/",
        "TargetObjectKeyFormat": {"PartitionedPrefix": {"PartitionDateSource": "EventTime"}},
    }
    deny(s3, "s3:*", {"Bool": {"aws:SecureTransport": "false"}})
    with pytest.raises(ClientError) as error:
        s3.put_bucket_logging(Bucket=BUCKET, BucketLoggingStatus={"LoggingEnabled": wanted})
    assert code(error) == "InvalidTargetBucketForLogging"

    statement = {
        "Effect": "Allow",
        "Principal": {"Service": "logging.s3.amazonaws.com"},
        "Action": "s3:PutObject",
        "Resource": f"arn:aws:s3:::{BUCKET}/log/*",
        "Condition": {"StringEquals": {"aws:SourceAccount": "123456789012"}},
    }
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    s3.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(policy))
    s3.put_bucket_logging(Bucket=BUCKET, BucketLoggingStatus={"LoggingEnabled": wanted})
    assert s3.get_bucket_logging(Bucket=BUCKET)["LoggingEnabled"] == wanted
    s3.put_bucket_logging(Bucket=BUCKET, BucketLoggingStatus={})


def test_the_owner_pays(s3: Any) -> None:
    assert s3.get_bucket_request_payment(Bucket=BUCKET)["Payer"] == "BucketOwner"


def test_a_bucket_encrypts_though_nobody_told_it_to(s3: Any) -> None:
    def algorithm() -> str:
        found = s3.get_bucket_encryption(Bucket=BUCKET)["ServerSideEncryptionConfiguration"]
        (rule,) = found["Rules"]
        return str(rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"])

    assert algorithm() == "AES256"
    assert s3.put_object(Bucket=BUCKET, Key="k", Body=b"")["ServerSideEncryption"] == "AES256"
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}
    s3.put_bucket_encryption(Bucket=BUCKET, ServerSideEncryptionConfiguration={"Rules": [rule]})
    assert algorithm() == "aws:kms"
    s3.delete_bucket_encryption(Bucket=BUCKET)
    assert algorithm() == "AES256"


def test_what_is_refused_is_named_as_aws_names_it() -> None:
    operations = Session().get_service_model("s3").operation_names
    assert set(operations) >= addition.MISTAKEN


def test_a_bucket_in_which_objects_were_deleted_can_be_emptied(aws: LocalAws) -> None:
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="emptied")
    s3.put_bucket_versioning(Bucket="emptied", VersioningConfiguration={"Status": "Enabled"})
    s3.put_object(Bucket="emptied", Key="photo", Body=b"dog")
    s3.delete_object(Bucket="emptied", Key="photo")
    listed = s3.list_object_versions(Bucket="emptied")
    # Terraform does this before it empties a bucket.
    s3.put_bucket_versioning(Bucket="emptied", VersioningConfiguration={"Status": "Suspended"})
    for found in (*listed["Versions"], *listed["DeleteMarkers"]):
        s3.delete_object(Bucket="emptied", Key="photo", VersionId=found["VersionId"])
    s3.delete_bucket(Bucket="emptied")
