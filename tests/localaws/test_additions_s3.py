"""S3 on localaws."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError
from botocore.session import Session

from localaws.additions import s3 as addition
from tests.localaws.conftest import LocalAws
from tests.localaws.raw import send

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


@pytest.mark.parametrize(
    ("kind", "status"), [("", 403), ("application/unknown", 403), ("image/jpeg", 200)]
)
def test_a_presigned_type_is_looked_for_in_the_header(
    aws: LocalAws, s3: Any, kind: str, status: int
) -> None:
    given = {"Bucket": BUCKET, "Key": "dog.jpg", "ContentType": "image/jpeg"}
    url = urlsplit(s3.generate_presigned_url("put_object", given))
    headers = {"Content-Type": kind} if kind else {}
    answer = send(aws.endpoint, "PUT", f"{url.path}?{url.query}", headers, b"dog")
    assert answer.status == status


def test_a_completed_upload_can_be_completed_again(s3: Any) -> None:
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="dogs.tar")["UploadId"]
    given = {"Bucket": BUCKET, "Key": "dogs.tar", "UploadId": upload}
    with pytest.raises(ClientError) as refused:
        s3.upload_part(**given, PartNumber=10_001, Body=b"")
    error = refused.value.response["Error"]
    assert (error["ArgumentName"], error["ArgumentValue"]) == ("partNumber", "10001")
    part = {"PartNumber": 1, "ETag": s3.upload_part(**given, PartNumber=1, Body=b"dogs")["ETag"]}
    parts = {"MultipartUpload": {"Parts": [part]}}
    made = s3.complete_multipart_upload(**given, **parts)["ETag"]
    assert s3.complete_multipart_upload(**given, **parts, IfNoneMatch="*")["ETag"] == made
    s3.put_object(Bucket=BUCKET, Key="dogs.tar", Body=b"others")
    with pytest.raises(ClientError, match="NoSuchUpload"):
        s3.complete_multipart_upload(**given, **parts)


def test_only_a_bucket_key_that_is_used_is_told(s3: Any) -> None:
    given = {"Bucket": BUCKET, "Key": "k", "ServerSideEncryption": "aws:kms"}
    assert "BucketKeyEnabled" not in s3.put_object(**given, BucketKeyEnabled=False)
    assert s3.put_object(**given, BucketKeyEnabled=True)["BucketKeyEnabled"] is True
    copied = s3.copy_object(**given, CopySource=f"{BUCKET}/k")
    assert "BucketKeyEnabled" not in copied


@pytest.mark.parametrize("place", ["us-east-1", "nowhere-9"])
def test_a_location_that_is_none_is_refused_by_name(s3: Any, place: str) -> None:
    with pytest.raises(ClientError) as refused:
        s3.create_bucket(
            Bucket="kennel-nowhere", CreateBucketConfiguration={"LocationConstraint": place}
        )
    assert code(refused) == "InvalidLocationConstraint"


def test_an_acl_that_is_none_has_a_code_of_its_own(s3: Any) -> None:
    grantee = {"Type": "Group", "URI": "http://acs.amazonaws.com/groups/s3/LogDelivery"}
    grant = {"Grantee": grantee, "Permission": "lskjflkasdjflkdsjfalisdjflkdsjf"}
    policy = {"Grants": [grant], "Owner": s3.get_bucket_acl(Bucket=BUCKET)["Owner"]}
    with pytest.raises(ClientError) as refused:
        s3.put_bucket_acl(Bucket=BUCKET, AccessControlPolicy=policy)
    assert code(refused) == "MalformedACLError"


def test_an_event_that_is_none_is_refused_by_name(s3: Any) -> None:
    queue = {"QueueArn": "arn:aws:sqs:us-east-1:123456789012:q", "Events": ["s3:Nothing"]}
    with pytest.raises(ClientError, match="'s3:Nothing' is not supported") as refused:
        s3.put_bucket_notification_configuration(
            Bucket=BUCKET, NotificationConfiguration={"QueueConfigurations": [queue]}
        )
    assert code(refused) == "InvalidArgument"


def test_cloudformation_makes_a_bucket_with_its_encryption(aws: LocalAws) -> None:
    properties = {
        "BucketName": "kennel-stack",
        "BucketEncryption": {
            "ServerSideEncryptionConfiguration": [
                {"ServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}
            ]
        },
    }
    bucket = {"Type": "AWS::S3::Bucket", "Properties": properties}
    stacks = aws.client("cloudformation")
    stacks.create_stack(StackName="s", TemplateBody=json.dumps({"Resources": {"Bucket": bucket}}))
    found = aws.client("s3").get_bucket_encryption(Bucket="kennel-stack")
    (rule,) = found["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "aws:kms"
    stacks.delete_stack(StackName="s")
