"""What AWS's references say that a service refuses is refused, in the service's own code."""

import base64
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore import xform_name
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.localaws.conftest import LocalAws
from tests.localaws.roles import document, trust

ACCOUNT = "123456789012"
KEY = f"arn:aws:kms:us-east-1:{ACCOUNT}:key/11111111-1111-1111-1111-111111111111"
NOBODY = f"arn:aws:iam::{ACCOUNT}:role/nobody"


# Requests that boto3 would refuse by itself are sent all the same.
RAW = Config(retries={"max_attempts": 0}, parameter_validation=False)
_clients: dict[tuple[str, str], Any] = {}


def refused(aws: LocalAws, service: str, operation: str, **given: Any) -> str:
    """The code with which a call is refused."""
    key = aws.endpoint, service
    if key not in _clients:
        _clients[key] = boto3.client(
            service,
            region_name="us-east-1",
            endpoint_url=aws.endpoint,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=RAW,
        )
    with pytest.raises(ClientError) as error:
        getattr(_clients[key], xform_name(operation))(**given)
    return str(error.value.response["Error"]["Code"])


# --- Names and values


@pytest.mark.parametrize(
    ("service", "operation", "given", "code"),
    [
        ("logs", "CreateLogGroup", {"logGroupName": "a b"}, "InvalidParameterException"),
        (
            "logs",
            "CreateLogStream",
            {"logGroupName": "a", "logStreamName": "a:b"},
            "InvalidParameterException",
        ),
        ("ecr", "CreateRepository", {"repositoryName": "A"}, "InvalidParameterException"),
        ("iam", "GetRole", {"RoleName": "a b"}, "ValidationError"),
        ("cloudwatch", "DeleteAlarms", {"AlarmNames": ["a" * 256]}, "ValidationError"),
        ("kms", "DescribeKey", {"KeyId": "k" * 2049}, "ValidationException"),
    ],
)
def test_names_are_held_to_their_bounds(
    aws: LocalAws, service: str, operation: str, given: dict[str, Any], code: str
) -> None:
    assert refused(aws, service, operation, **given) == code


# --- IAM


def allow(count: int, **more: Any) -> str:
    """A policy of some length."""
    statement = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*", **more}
    return document(*[{"Sid": f"s{number}", **statement} for number in range(count)])


@pytest.fixture
def role(aws: LocalAws) -> Iterator[str]:
    iam = aws.client("iam")
    iam.create_role(RoleName="limited", AssumeRolePolicyDocument=trust("lambda"))
    yield "limited"
    for name in iam.list_role_policies(RoleName="limited")["PolicyNames"]:
        iam.delete_role_policy(RoleName="limited", PolicyName=name)
    for found in iam.list_attached_role_policies(RoleName="limited")["AttachedPolicies"]:
        iam.detach_role_policy(RoleName="limited", PolicyArn=found["PolicyArn"])
    iam.delete_role(RoleName="limited")


def test_a_role_s_inline_policies_have_a_quota_together(aws: LocalAws, role: str) -> None:
    iam = aws.client("iam")
    half = {"RoleName": role, "PolicyDocument": allow(80)}
    iam.put_role_policy(PolicyName="one", **half)
    assert refused(aws, "iam", "PutRolePolicy", PolicyName="two", **half) == "LimitExceeded"
    # Put again, it takes the place of the first.
    iam.put_role_policy(PolicyName="one", **half)


def test_ten_managed_policies_are_all_that_a_role_has(aws: LocalAws, role: str) -> None:
    iam = aws.client("iam")
    arns = [
        iam.create_policy(PolicyName=f"limited{n}", PolicyDocument=allow(1))["Policy"]["Arn"]
        for n in range(11)
    ]
    for arn in arns[:10]:
        iam.attach_role_policy(RoleName=role, PolicyArn=arn)
    given = {"RoleName": role, "PolicyArn": arns[10]}
    assert refused(aws, "iam", "AttachRolePolicy", **given) == "LimitExceeded"
    assert refused(aws, "iam", "DeletePolicy", PolicyArn=arns[0]) == "DeleteConflict"


@pytest.mark.parametrize(
    ("operation", "given", "code"),
    [
        ("CreatePolicy", {"PolicyName": "p", "PolicyDocument": allow(90)}, "LimitExceeded"),
        (
            "PutRolePolicy",
            {"PolicyName": "p", "PolicyDocument": allow(1, Principal="*")},
            "MalformedPolicyDocument",
        ),
        (
            "PutRolePolicy",
            {"PolicyName": "p", "PolicyDocument": allow(1, Sid="a-b")},
            "MalformedPolicyDocument",
        ),
        (
            "CreateRole",
            {
                "RoleName": "limited2",
                "AssumeRolePolicyDocument": trust("lambda").replace(
                    '{"Service": "lambda.amazonaws.com"}', json.dumps({"AWS": NOBODY})
                ),
            },
            "MalformedPolicyDocument",
        ),
        (
            "CreateRole",
            {
                "RoleName": "limited2",
                "AssumeRolePolicyDocument": trust("lambda"),
                "PermissionsBoundary": NOBODY.replace("role", "policy"),
            },
            "NoSuchEntity",
        ),
        (
            "CreateRole",
            {"RoleName": "LIMITED", "AssumeRolePolicyDocument": trust("lambda")},
            "EntityAlreadyExists",
        ),
        ("ListInstanceProfilesForRole", {"RoleName": "nobody"}, "NoSuchEntity"),
    ],
)
def test_iam_looks_at_policies_and_principals(
    aws: LocalAws, role: str, operation: str, given: dict[str, Any], code: str
) -> None:
    if operation == "PutRolePolicy":
        given = {"RoleName": role, **given}
    assert refused(aws, "iam", operation, **given) == code


def test_a_trust_policy_has_a_quota(aws: LocalAws) -> None:
    statement = json.loads(trust("lambda"))["Statement"][0]
    long = document(*[{**statement, "Sid": f"s{number}"} for number in range(30)])
    given = {"RoleName": "limited2", "AssumeRolePolicyDocument": long}
    assert refused(aws, "iam", "CreateRole", **given) == "LimitExceeded"


def test_white_space_counts_for_nothing(aws: LocalAws, role: str) -> None:
    wide = trust("lambda") + " " * 3000
    aws.client("iam").update_assume_role_policy(RoleName=role, PolicyDocument=wide)


# --- CloudWatch Logs


def test_logs_holds_batches_and_days_to_its_limits(aws: LocalAws) -> None:
    group, stream = {"logGroupName": "/limited"}, {"logStreamName": "s"}
    client = aws.client("logs")
    client.create_log_group(**group)
    client.create_log_stream(**group, **stream)
    now = int(time.time() * 1000)
    large = [{"timestamp": now, "message": "a" * 200_000}] * 6
    late = [{"timestamp": now - 90_000_000, "message": "a"}, {"timestamp": now, "message": "a"}]
    for operation, given, code in (
        ("PutRetentionPolicy", {**group, "retentionInDays": 2}, "InvalidParameterException"),
        ("PutLogEvents", {**group, **stream, "logEvents": large}, "InvalidParameterException"),
        ("PutLogEvents", {**group, **stream, "logEvents": late}, "InvalidParameterException"),
        ("FilterLogEvents", {**group, "logStreamNames": ["t"]}, "ResourceNotFoundException"),
        (
            "FilterLogEvents",
            {**group, "logStreamNames": ["s"], "logStreamNamePrefix": "s"},
            "InvalidParameterException",
        ),
        (
            "ListTagsForResource",
            {"resourceArn": f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:/nobody"},
            "ResourceNotFoundException",
        ),
    ):
        assert refused(aws, "logs", operation, **given) == code, (operation, given.keys())
    client.delete_log_group(**group)


# --- CloudWatch

ALARM: dict[str, Any] = {
    "AlarmName": "limited",
    "Namespace": "Limited",
    "MetricName": "m",
    "ComparisonOperator": "GreaterThanThreshold",
    "EvaluationPeriods": 1,
    "Period": 60,
    "Statistic": "Sum",
    "Threshold": 1.0,
}


def query(name: str, returned: bool = False, **more: Any) -> dict[str, Any]:
    stat = {"Metric": {"Namespace": "Limited", "MetricName": "m"}, "Period": 60, "Stat": "Sum"}
    return {"Id": name, "ReturnData": returned, **(more or {"MetricStat": stat})}


def over(*queries: dict[str, Any]) -> dict[str, Any]:
    """An alarm over queries."""
    single = dict.fromkeys(("Namespace", "MetricName", "Period", "Statistic"))
    return {**single, "Metrics": list(queries)}


@pytest.mark.parametrize(
    "change",
    [
        {"Period": 45},
        {"EvaluationPeriods": 1441},
        {"Period": 3600, "EvaluationPeriods": 169},
        {"DatapointsToAlarm": 2},
        {"Threshold": None},
        {"Statistic": None},
        {"ExtendedStatistic": "p99"},
        {"Statistic": None, "ExtendedStatistic": "p101"},
        {"TreatMissingData": "never"},
        {"AlarmActions": ["topic"]},
        {"AlarmActions": [f"arn:aws:sns:eu-west-1:{ACCOUNT}:topic"]},
        over(query("a", True), query("e", True, Expression="a * 2")),
        over(query("a"), query("e", Expression="a * 2")),
        over(query("A", True)),
        over(query("a"), query("a", True)),
        over(query("e", True, Expression="SEARCH('{Limited} m', 'Sum', 60)")),
        over(*map(query, "abcdefghijk"), query("z", True, Expression="SUM(METRICS())")),
    ],
)
def test_an_alarm_that_aws_would_not_take_is_refused(aws: LocalAws, change: dict[str, Any]) -> None:
    given = {name: value for name, value in {**ALARM, **change}.items() if value is not None}
    assert refused(aws, "cloudwatch", "PutMetricAlarm", **given) == "ValidationError"


def test_a_composite_alarm_needs_its_parts_and_keeps_them(aws: LocalAws) -> None:
    client = aws.client("cloudwatch")
    both = 'ALARM(limited) OR ALARM("limited2")'

    def compose(name: str, rule: str) -> str:
        return refused(aws, "cloudwatch", "PutCompositeAlarm", AlarmName=name, AlarmRule=rule)

    client.put_metric_alarm(**ALARM)
    assert compose("whole", both) == "ValidationError"
    client.put_metric_alarm(**{**ALARM, "AlarmName": "limited2"})
    client.put_composite_alarm(AlarmName="whole", AlarmRule=both)
    assert compose("whole", 'ALARM("whole")') == "ValidationError"
    for names in (["limited"], ["limited", "limited2"]):
        code = refused(aws, "cloudwatch", "DeleteAlarms", AlarmNames=names)
        assert code == "ValidationError"
    assert len(client.describe_alarms(AlarmNames=["limited", "limited2"])["MetricAlarms"]) == 2
    client.delete_alarms(AlarmNames=["whole", "limited", "limited2"])


TEXT = {"type": "text", "x": 0, "y": 0, "width": 6, "height": 3, "properties": {"markdown": "a"}}


@pytest.mark.parametrize(
    ("name", "widgets"),
    [
        ("a b", [TEXT]),
        ("limited", [TEXT] * 501),
        ("limited", [{**TEXT, "type": "picture"}]),
        ("limited", [{**TEXT, "properties": {}}]),
        ("limited", [{**TEXT, "x": 24}]),
        ("limited", [{**TEXT, "width": 6.5}]),
        ("limited", [{**TEXT, "type": "metric", "properties": {"metrics": [["a", "b"]]}}]),
        ("limited", [{**TEXT, "type": "metric", "properties": {"region": "us-east-1"}}]),
    ],
)
def test_a_dashboard_that_aws_could_not_show_is_refused(
    aws: LocalAws, name: str, widgets: list[Any]
) -> None:
    body = json.dumps({"widgets": widgets})
    given = {"DashboardName": name, "DashboardBody": body}
    assert refused(aws, "cloudwatch", "PutDashboard", **given) == "InvalidParameterInput"


def test_metrics_are_held_to_their_times_and_numbers(aws: LocalAws) -> None:
    now = datetime.now(UTC)
    one = {"MetricName": "m", "Value": 1.0}
    window = {"StartTime": now - timedelta(hours=25), "EndTime": now, "Statistics": ["Sum"]}
    asked = {"Namespace": "Limited", "MetricName": "m", **window}
    for operation, given, code in (
        ("GetMetricStatistics", {**asked, "Period": 60}, "InvalidParameterCombination"),
        ("GetMetricStatistics", {**asked, "Period": 45}, "InvalidParameterValue"),
        ("PutMetricData", {"MetricData": [one] * 1001}, "ValidationError"),
        ("PutMetricData", {"MetricData": [{"MetricName": "m"}]}, "InvalidParameterValue"),
        (
            "PutMetricData",
            {"MetricData": [{**one, "Timestamp": now - timedelta(days=15)}]},
            "InvalidParameterValue",
        ),
        (
            "PutMetricData",
            {"MetricData": [{**one, "Timestamp": now + timedelta(hours=3)}]},
            "InvalidParameterValue",
        ),
    ):
        given = {"Namespace": "Limited", **given}
        assert refused(aws, "cloudwatch", operation, **given) == code, (operation, given)


# --- S3


@pytest.fixture(scope="module")
def bucket(aws: LocalAws) -> str:
    aws.client("s3").create_bucket(Bucket="limited-bucket")
    return "limited-bucket"


@pytest.mark.parametrize("name", ["Upper_case", "192.168.1.1", "xn--a", "a-s3alias", "a..b"])
def test_a_bucket_s_name_keeps_to_the_rules(aws: LocalAws, name: str) -> None:
    assert refused(aws, "s3", "CreateBucket", Bucket=name) == "InvalidBucketName"


def test_a_new_bucket_is_closed_and_has_no_acls(aws: LocalAws, bucket: str) -> None:
    s3 = aws.client("s3")
    block = s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
    assert set(block.values()) == {True}
    (rule,) = s3.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"]["Rules"]
    assert rule == {"ObjectOwnership": "BucketOwnerEnforced"}
    for operation, given in (
        ("PutObject", {"Key": "a", "ACL": "public-read"}),
        ("PutBucketAcl", {"ACL": "private"}),
    ):
        code = refused(aws, "s3", operation, Bucket=bucket, **given)
        assert code == "AccessControlListNotSupported"
    code = refused(aws, "s3", "CreateBucket", Bucket="limited-public", ACL="public-read")
    assert code == "InvalidBucketAclWithBlockPublicAccessError"


MD5 = "1B2M2Y8AsgTpgAmY7PhCfg=="


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"Key": "k" * 1025}, "KeyTooLongError"),
        ({"Metadata": {"a": "b" * 2048}}, "MetadataTooLarge"),
        ({"ContentMD5": MD5}, "BadDigest"),
        ({"ContentMD5": "abc"}, "InvalidDigest"),
        ({"ChecksumCRC32": "AAAAAA=="}, "BadDigest"),
        ({"ChecksumSHA256": "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="}, "BadDigest"),
        ({"SSECustomerAlgorithm": "AES256", "SSECustomerKey": "0" * 32}, "AccessDenied"),
        ({"ExpectedBucketOwner": "999999999999"}, "AccessDenied"),
    ],
)
def test_an_object_is_what_its_sender_says(
    aws: LocalAws, bucket: str, given: dict[str, Any], code: str
) -> None:
    put = {"Bucket": bucket, "Key": "k", "Body": b"x", **given}
    assert refused(aws, "s3", "PutObject", **put) == code
    assert not aws.client("s3").list_objects_v2(Bucket=bucket)["KeyCount"]


def test_an_upload_s_parts_are_its_own(aws: LocalAws, bucket: str) -> None:
    s3 = aws.client("s3")
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    own = {"Bucket": bucket, "Key": "k", "UploadId": upload}
    tags = [s3.upload_part(**own, PartNumber=n, Body=b"x")["ETag"] for n in (1, 2)]
    parts = [{"PartNumber": n, "ETag": tag} for n, tag in enumerate(tags, 1)]
    part = {"PartNumber": 1, "Body": b"x"}
    for operation, given, code in (
        ("UploadPart", {**own, **part, "Key": "other"}, "NoSuchUpload"),
        ("UploadPart", {**own, **part, "UploadId": "none"}, "NoSuchUpload"),
        ("UploadPart", {**own, **part, "PartNumber": 0}, "InvalidArgument"),
        ("CompleteMultipartUpload", {**own, "UploadId": "none"}, "NoSuchUpload"),
        ("CompleteMultipartUpload", own, "EntityTooSmall"),
        ("CompleteMultipartUpload", {**own, "reverse": True}, "InvalidPartOrder"),
    ):
        if operation == "CompleteMultipartUpload":
            ordered = parts[::-1] if given.pop("reverse", False) else parts
            given = {**given, "MultipartUpload": {"Parts": ordered}}
        assert refused(aws, "s3", operation, **given) == code, (operation, given)
    s3.abort_multipart_upload(**own)


def test_a_list_is_held_to_its_size(aws: LocalAws, bucket: str) -> None:
    many = {"Objects": [{"Key": str(number)} for number in range(1001)]}
    assert refused(aws, "s3", "DeleteObjects", Bucket=bucket, Delete=many) == "MalformedXML"
    s3 = aws.client("s3")
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    for given in ({"MaxKeys": -1}, {"ContinuationToken": "none"}):
        assert refused(aws, "s3", "ListObjectsV2", Bucket=bucket, **given) == "InvalidArgument"
    s3.delete_object(Bucket=bucket, Key="k")


ARN = "arn:aws:s3:::limited-bucket"


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ({"Resource": "arn:aws:s3:::other/*"}, "MalformedPolicy"),
        ({"Resource": ARN}, "MalformedPolicy"),
        ({"Action": "s3:ListBucket"}, "MalformedPolicy"),
        ({"Action": "sqs:SendMessage"}, "MalformedPolicy"),
        ({"Principal": {"AWS": NOBODY}}, "MalformedPolicy"),
        ({"Condition": {"Bol": {"aws:SecureTransport": "false"}}}, "MalformedPolicy"),
        ({"Principal": "*"}, "AccessDenied"),
        ({"Resource": f"{ARN}/{'x' * 21_000}"}, "PolicyTooLarge"),
    ],
)
def test_a_bucket_s_policy_is_looked_at(
    aws: LocalAws, bucket: str, statement: dict[str, Any], code: str
) -> None:
    allowed = {
        "Effect": "Allow",
        "Principal": {"AWS": ACCOUNT},
        "Action": "s3:GetObject",
        "Resource": f"{ARN}/*",
    }
    policy = document({**allowed, **statement})
    assert refused(aws, "s3", "PutBucketPolicy", Bucket=bucket, Policy=policy) == code


def test_a_policy_for_some_is_not_public(aws: LocalAws, bucket: str) -> None:
    s3 = aws.client("s3")
    own = {"StringEquals": {"aws:SourceAccount": ACCOUNT}}
    statement = {"Effect": "Allow", "Principal": "*", "Resource": [ARN, f"{ARN}/*"]}
    actions = ["s3:Get*", "s3:ListBucket", "s3:GetObject"]
    policy = document({**statement, "Action": actions, "Condition": own})
    s3.put_bucket_policy(Bucket=bucket, Policy=policy)
    s3.delete_bucket_policy(Bucket=bucket)


RULE = {"ID": "a", "Status": "Enabled", "Filter": {"Prefix": ""}}


@pytest.mark.parametrize(
    ("rules", "code"),
    [
        ([RULE], "InvalidRequest"),
        ([{**RULE, "Expiration": {"Days": 0}}], "InvalidArgument"),
        (
            [{**RULE, "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 0}}],
            "InvalidArgument",
        ),
        ([{**RULE, "NoncurrentVersionExpiration": {"NoncurrentDays": 0}}], "InvalidArgument"),
        ([{**RULE, "Expiration": {"Days": 1}}] * 2, "InvalidArgument"),
        ([{**RULE, "ID": "a" * 256, "Expiration": {"Days": 1}}], "InvalidArgument"),
        (
            [{**RULE, "Transitions": [{"Days": 10, "StorageClass": "STANDARD_IA"}]}],
            "InvalidArgument",
        ),
        (
            [
                {
                    **RULE,
                    "Filter": {"Tag": {"Key": "a", "Value": "b"}},
                    "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
                }
            ],
            "InvalidRequest",
        ),
    ],
)
def test_lifecycle_rules_are_looked_at(
    aws: LocalAws, bucket: str, rules: list[Any], code: str
) -> None:
    given = {"Bucket": bucket, "LifecycleConfiguration": {"Rules": rules}}
    assert refused(aws, "s3", "PutBucketLifecycleConfiguration", **given) == code


# --- EC2

IMAGE = "ami-999844e0"


@pytest.fixture(scope="module")
def networks(aws: LocalAws) -> dict[str, str]:
    """A subnet of the default VPC, and a security group of it and of another VPC."""
    ec2 = aws.client("ec2")
    subnet = ec2.describe_subnets()["Subnets"][0]
    other = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    groups = [
        ec2.create_security_group(GroupName="limited", Description="d", VpcId=vpc)["GroupId"]
        for vpc in (subnet["VpcId"], other)
    ]
    return {
        "subnet": subnet["SubnetId"],
        "vpc": subnet["VpcId"],
        "own": groups[0],
        "other": groups[1],
    }


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"ImageId": "ami-00000000000000000"}, "InvalidAMIID.NotFound"),
        ({"ImageId": "image"}, "InvalidAMIID.Malformed"),
        ({"ImageId": None}, "MissingParameter"),
        ({"InstanceType": "t3.none"}, "InvalidParameterValue"),
        ({"InstanceType": "t4g.micro"}, "InvalidParameterValue"),
        ({"KeyName": "none"}, "InvalidKeyPair.NotFound"),
        ({"IamInstanceProfile": {"Name": "none"}}, "InvalidParameterValue"),
        ({"SecurityGroupIds": ["other"]}, "InvalidParameter"),
        ({"MinCount": 2}, "InvalidParameterValue"),
        (
            {"LaunchTemplate": {"LaunchTemplateId": "lt-0123456789abcdef0"}},
            "InvalidLaunchTemplateId.NotFound",
        ),
    ],
)
def test_a_launch_needs_what_it_names(
    aws: LocalAws, networks: dict[str, str], given: dict[str, Any], code: str
) -> None:
    base = {"ImageId": IMAGE, "InstanceType": "t3.micro", "SubnetId": networks["subnet"]}
    told = {**base, "MinCount": 1, "MaxCount": 1, **given}
    if groups := told.get("SecurityGroupIds"):
        told["SecurityGroupIds"] = [networks[name] for name in groups]
    told = {name: value for name, value in told.items() if value is not None}
    assert refused(aws, "ec2", "RunInstances", **told) == code


def test_a_security_group_stays_while_an_instance_has_it(
    aws: LocalAws, networks: dict[str, str]
) -> None:
    ec2, group = aws.client("ec2"), networks["own"]
    launched = ec2.run_instances(
        ImageId=IMAGE,
        InstanceType="t3.micro",
        SubnetId=networks["subnet"],
        SecurityGroupIds=[group],
        MinCount=1,
        MaxCount=1,
    )["Instances"][0]
    assert refused(aws, "ec2", "DeleteSecurityGroup", GroupId=group) == "DependencyViolation"
    ec2.terminate_instances(InstanceIds=[launched["InstanceId"]])
    ec2.delete_security_group(GroupId=group)


def test_groups_and_templates_are_named_and_described_in_ascii(
    aws: LocalAws, networks: dict[str, str]
) -> None:
    group = {"GroupName": "limited2", "Description": "d", "VpcId": networks["vpc"]}
    rule = {"IpProtocol": "tcp", "FromPort": 1, "ToPort": 1, "IpRanges": []}
    data = {"InstanceType": "t3.micro"}
    large = base64.b64encode(bytes(17_000)).decode()
    for operation, given, code in (
        ("CreateSecurityGroup", {**group, "GroupName": "sg-1"}, "InvalidParameterValue"),
        ("CreateSecurityGroup", {**group, "Description": "it's"}, "InvalidParameterValue"),
        ("CreateSecurityGroup", {**group, "Description": "d" * 256}, "InvalidParameterValue"),
        ("CreateSecurityGroup", {**group, "VpcId": "vpc-12345678"}, "InvalidVpcID.NotFound"),
        (
            "AuthorizeSecurityGroupEgress",
            {"GroupId": networks["other"], "IpPermissions": [{**rule, "ToPort": 70_000}]},
            "InvalidParameterValue",
        ),
        (
            "CreateLaunchTemplate",
            {"LaunchTemplateName": "a", "LaunchTemplateData": data},
            "InvalidLaunchTemplateName.MalformedException",
        ),
        (
            "CreateLaunchTemplate",
            {"LaunchTemplateName": "limited", "LaunchTemplateData": {"UserData": large}},
            "InvalidParameterValue",
        ),
    ):
        assert refused(aws, "ec2", operation, **given) == code, (operation, given)


# --- ECR


def test_a_registry_keeps_tags_and_rules_apart(aws: LocalAws) -> None:
    ecr, name = aws.client("ecr"), {"repositoryName": "limited"}
    ecr.create_repository(**name, imageTagMutability="IMMUTABLE")
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    one, two = (
        json.dumps({"schemaVersion": 2, "mediaType": kind, "layers": [], "number": number})
        for number in (1, 2)
    )
    ecr.put_image(**name, imageManifest=one, imageTag="t")
    selection = {"tagStatus": "untagged", "countType": "imageCountMoreThan", "countNumber": 1}
    rule = {"rulePriority": 1, "selection": selection, "action": {"type": "expire"}}
    since = {**selection, "countType": "sinceImagePushed"}
    anything = {**rule, "selection": {**selection, "tagStatus": "any"}}
    bad = "InvalidParameterException"
    for operation, given, code in (
        ("PutImage", {"imageManifest": two, "imageTag": "t"}, "ImageTagAlreadyExistsException"),
        ("PutImage", {"imageManifest": "{", "imageTag": "u"}, bad),
        ("PutImage", {"imageManifest": two, "imageTag": "a b"}, bad),
        (
            "PutImage",
            {"imageManifest": two, "imageTag": "t", "repositoryName": "nothing"},
            "RepositoryNotFoundException",
        ),
        ("PutLifecyclePolicy", {"rules": [rule, rule]}, bad),
        ("PutLifecyclePolicy", {"rules": [{**rule, "selection": since}]}, bad),
        ("PutLifecyclePolicy", {"rules": [anything, {**rule, "rulePriority": 2}]}, bad),
        (
            "PutLifecyclePolicy",
            {"rules": [{**rule, "selection": {**selection, "tagStatus": "tagged"}}]},
            bad,
        ),
    ):
        if rules := given.pop("rules", None):
            given["lifecyclePolicyText"] = json.dumps({"rules": rules})
        assert refused(aws, "ecr", operation, **{**name, **given}) == code, (operation, given)
    encrypted = {"encryptionType": "KMS", "kmsKey": KEY}
    given = {"repositoryName": "limited2", "encryptionConfiguration": encrypted}
    assert refused(aws, "ecr", "CreateRepository", **given) == "KmsException"
    ecr.delete_repository(**name, force=True)


# --- SNS, SQS, SSM


def test_a_topic_s_attributes_are_looked_at(aws: LocalAws) -> None:
    sns = aws.client("sns")
    topic = sns.create_topic(Name="limited")["TopicArn"]
    tagged: Any = {"Name": "tagged", "Tags": [{"Key": "a", "Value": "b"}]}
    same = sns.create_topic(**tagged)["TopicArn"]
    own = {"Effect": "Allow", "Principal": "*", "Action": "sns:Publish", "Resource": topic}

    def attribute(name: str, value: str) -> dict[str, str]:
        return {"TopicArn": topic, "AttributeName": name, "AttributeValue": value}

    for operation, given in (
        ("SetTopicAttributes", attribute("Policy", "none")),
        ("SetTopicAttributes", attribute("Policy", document({**own, "Action": "sns:*"}))),
        (
            "SetTopicAttributes",
            attribute("Policy", document({**own, "Principal": {"AWS": NOBODY}})),
        ),
        ("SetTopicAttributes", attribute("Colour", "red")),
        ("GetTopicAttributes", {"TopicArn": "topic"}),
        ("Publish", {"TopicArn": topic, "Message": ""}),
        ("Subscribe", {"TopicArn": topic, "Protocol": "email", "Endpoint": "nobody"}),
        ("CreateTopic", {"Name": "limited", "Tags": [{"Key": "a", "Value": "b"}]}),
        ("CreateTopic", {"Name": "tagged", "Tags": [{"Key": "a", "Value": "c"}]}),
    ):
        assert refused(aws, "sns", operation, **given) == "InvalidParameter", (operation, given)
    # A killed run of Terraform's begins with the topic that it made.
    assert sns.create_topic(**tagged)["TopicArn"] == same
    sns.delete_topic(TopicArn=same)
    sns.delete_topic(TopicArn=topic)


@pytest.mark.parametrize(
    ("attributes", "code"),
    [
        ({"MessageRetentionPeriod": "1209601"}, "InvalidAttributeValue"),
        ({"VisibilityTimeout": "a"}, "InvalidAttributeValue"),
        ({"DelaySeconds": "901"}, "InvalidAttributeValue"),
        ({"KmsDataKeyReusePeriodSeconds": "59"}, "InvalidAttributeValue"),
        ({"Policy": "none"}, "InvalidAttributeValue"),
        ({"Colour": "red"}, "InvalidAttributeName"),
        (
            {"KmsMasterKeyId": "alias/aws/sqs", "SqsManagedSseEnabled": "true"},
            "InvalidAttributeValue",
        ),
    ],
)
def test_a_queue_s_attributes_are_looked_at(
    aws: LocalAws, attributes: dict[str, str], code: str
) -> None:
    given = {"QueueName": "limited", "Attributes": attributes}
    assert refused(aws, "sqs", "CreateQueue", **given) == code


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"Value": "x" * 4097}, "ValidationException"),
        ({"Name": "/a b"}, "ValidationException"),
        ({"Name": "a/b"}, "ValidationException"),
        ({"Name": "/a" * 16}, "HierarchyLevelLimitExceededException"),
        ({"AllowedPattern": r"^\d+$"}, "ParameterPatternMismatchException"),
        (
            {"Name": "/limited", "Type": "SecureString", "Overwrite": True},
            "HierarchyTypeMismatchException",
        ),
    ],
)
def test_a_parameter_is_looked_at(aws: LocalAws, given: dict[str, Any], code: str) -> None:
    ssm = aws.client("ssm")
    ssm.put_parameter(Name="/limited", Type="String", Value="x", Overwrite=True)
    base = {"Name": "/limited/new", "Type": "String", "Value": "x"}
    assert refused(aws, "ssm", "PutParameter", **{**base, **given}) == code


# --- Budgets


def test_a_budget_tells_those_who_can_be_told(aws: LocalAws) -> None:
    budgets, sns = aws.client("budgets"), aws.client("sns")
    topic = sns.create_topic(Name="limited-budget")["TopicArn"]
    notification = {
        "NotificationType": "ACTUAL",
        "ComparisonOperator": "GREATER_THAN",
        "Threshold": 80.0,
    }

    def budget(*addresses: str) -> dict[str, Any]:
        subscribers = [
            {
                "SubscriptionType": "SNS" if address.startswith("arn:") else "EMAIL",
                "Address": address,
            }
            for address in addresses
        ]
        told = {"Notification": notification, "Subscribers": subscribers}
        details = {"BudgetName": "limited", "BudgetType": "COST", "TimeUnit": "MONTHLY"}
        return {
            "AccountId": ACCOUNT,
            "Budget": {**details, "BudgetLimit": {"Amount": "1", "Unit": "USD"}},
            "NotificationsWithSubscribers": [told],
        }

    for addresses, code in (
        ([f"a{number}@example.com" for number in range(11)], "CreationLimitExceededException"),
        ([topic, f"{topic}2"], "CreationLimitExceededException"),
        ([f"{topic}2"], "InvalidParameterException"),
        # Its policy lets nobody but the account's own in.
        ([topic], "InvalidParameterException"),
        (["nobody"], "InvalidParameterException"),
    ):
        assert refused(aws, "budgets", "CreateBudget", **budget(*addresses)) == code, addresses
    allowed = {
        "Effect": "Allow",
        "Principal": {"Service": "budgets.amazonaws.com"},
        "Action": "sns:Publish",
        "Resource": topic,
    }
    policy = {"AttributeName": "Policy", "AttributeValue": document(allowed)}
    sns.set_topic_attributes(TopicArn=topic, **policy)
    budgets.create_budget(**budget(topic, "a@example.com"))
    budgets.delete_budget(AccountId=ACCOUNT, BudgetName="limited")
    sns.delete_topic(TopicArn=topic)


def test_the_key_pair_that_is_not_there_is_named(aws: LocalAws) -> None:
    ec2 = aws.client("ec2")
    ec2.create_key_pair(KeyName="there")
    with pytest.raises(ClientError, match=r"The key pair 'none' does not exist$"):
        ec2.describe_key_pairs(KeyNames=["there", "none"])
    assert len(ec2.describe_key_pairs(KeyNames=["there"])["KeyPairs"]) == 1
    ec2.delete_key_pair(KeyName="there")


@pytest.mark.parametrize("service", ["elb", "elbv2"])
def test_services_of_one_name_are_told_apart_by_their_version(aws: LocalAws, service: str) -> None:
    with pytest.raises(ClientError, match=f"{service}:DescribeLoadBalancers"):
        aws.client(service).describe_load_balancers()


@pytest.mark.parametrize("verb", ["Delete", "Modify"])
def test_a_template_is_named_by_id_or_by_name(aws: LocalAws, verb: str) -> None:
    both = {"LaunchTemplateId": "lt-0123456789abcdef0", "LaunchTemplateName": "kennel"}
    code = refused(aws, "ec2", f"{verb}LaunchTemplate", **both)
    assert code == "InvalidParameterCombination"
