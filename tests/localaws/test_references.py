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
