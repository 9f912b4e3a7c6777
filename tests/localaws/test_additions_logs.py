"""CloudWatch Logs on localaws."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.localaws.conftest import LocalAws

GROUP = "/kennel/logs"
NO_KEY = "arn:aws:kms:us-east-1:123456789012:key/3f0a9a4c-8a0b-4f7e-9b56-0d3f6a8c1e11"
LOGS = {
    "Effect": "Allow",
    "Principal": {"Service": "logs.us-east-1.amazonaws.com"},
    "Action": ["kms:Encrypt*", "kms:Decrypt*", "kms:ReEncrypt*", "kms:GenerateDataKey*"],
    "Resource": "*",
}
"""What AWS's guide tells to put into the key's policy, but for kms:Describe*."""


@pytest.fixture
def logs(aws: LocalAws) -> Iterator[Any]:
    client = aws.client("logs")
    client.create_log_group(logGroupName=GROUP)
    yield client
    client.delete_log_group(logGroupName=GROUP)


def created_key(aws: LocalAws, *statements: dict[str, Any]) -> str:
    owner = {
        "Effect": "Allow",
        "Principal": {"AWS": "arn:aws:iam::123456789012:root"},
        "Action": "kms:*",
        "Resource": "*",
    }
    policy = {"Version": "2012-10-17", "Statement": [owner, *statements]}
    made = aws.client("kms").create_key(Policy=json.dumps(policy))
    arn: str = made["KeyMetadata"]["Arn"]
    return arn


@pytest.fixture
def allowed_key(aws: LocalAws) -> str:
    statement = {**LOGS, "Action": [*LOGS["Action"], "kms:Describe*"]}
    return created_key(aws, statement)


def key(logs: Any) -> str | None:
    groups = logs.describe_log_groups(logGroupNamePrefix=GROUP)["logGroups"]
    found: str | None = groups[0].get("kmsKeyId")
    return found


@pytest.mark.parametrize(
    "group",
    [
        {"logGroupName": GROUP},
        {"resourceIdentifier": f"arn:aws:logs:us-east-1:123456789012:log-group:{GROUP}"},
    ],
)
def test_a_key_can_be_set_and_taken_away_later(
    logs: Any, allowed_key: str, group: dict[str, str]
) -> None:
    logs.associate_kms_key(kmsKeyId=allowed_key, **group)
    assert key(logs) == allowed_key
    logs.disassociate_kms_key(**group)
    assert key(logs) is None


def test_an_unknown_group_has_no_key(logs: Any) -> None:
    with pytest.raises(ClientError) as error:
        logs.associate_kms_key(logGroupName="/nobody", kmsKeyId=NO_KEY)
    assert error.value.response["Error"]["Code"] == "ResourceNotFoundException"


def test_a_key_has_to_let_cloudwatch_logs_in(aws: LocalAws, logs: Any, allowed_key: str) -> None:
    """By its policy: that of a new key lets the account's own identities in only."""
    closed = created_key(aws)
    for refused in (NO_KEY, closed, created_key(aws, LOGS)):
        for ask, more in (
            (logs.create_log_group, {"logGroupName": "/kennel/keyed"}),
            (logs.associate_kms_key, {"logGroupName": GROUP}),
        ):
            with pytest.raises(ClientError, match="is not allowed to be used with Arn") as error:
                ask(kmsKeyId=refused, **more)
            assert error.value.response["Error"]["Code"] == "AccessDeniedException"
    logs.create_log_group(logGroupName="/kennel/keyed", kmsKeyId=allowed_key)
    logs.delete_log_group(logGroupName="/kennel/keyed")


@pytest.mark.parametrize(
    ("prefix", "messages"), [({"logStreamNamePrefix": "mine-"}, ["1", "2"]), ({}, ["1", "2", "3"])]
)
def test_events_are_found_by_their_streams_prefix(
    logs: Any, prefix: dict[str, str], messages: list[str]
) -> None:
    for stream, message in (("mine-1", "1"), ("mine-2", "2"), ("other", "3")):
        logs.create_log_stream(logGroupName=GROUP, logStreamName=stream)
        event = {"timestamp": int(time.time() * 1000), "message": message}
        logs.put_log_events(logGroupName=GROUP, logStreamName=stream, logEvents=[event])
    found = logs.filter_log_events(logGroupName=GROUP, **prefix)["events"]
    assert sorted(event["message"] for event in found) == messages
    assert logs.filter_log_events(logGroupName=GROUP, logStreamNamePrefix="no")["events"] == []
