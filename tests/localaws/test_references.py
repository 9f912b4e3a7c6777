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
    filtered = {"filterName": "f", "filterPattern": "a"}
    into = {"metricName": "m", "metricNamespace": "n", "metricValue": "1"}
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
            "PutMetricFilter",
            {"logGroupName": "/nobody", **filtered, "metricTransformations": [into]},
            "ResourceNotFoundException",
        ),
        (
            "ListTagsForResource",
            {"resourceArn": f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:/nobody"},
            "ResourceNotFoundException",
        ),
    ):
        assert refused(aws, "logs", operation, **given) == code, (operation, given.keys())
    client.delete_log_group(**group)
