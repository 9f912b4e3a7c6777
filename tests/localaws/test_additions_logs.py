"""CloudWatch Logs on localaws."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.localaws.conftest import LocalAws

GROUP = "/kennel/logs"
KEY = "arn:aws:kms:us-east-1:123456789012:key/3f0a9a4c-8a0b-4f7e-9b56-0d3f6a8c1e11"


@pytest.fixture
def logs(aws: LocalAws) -> Iterator[Any]:
    client = aws.client("logs")
    client.create_log_group(logGroupName=GROUP)
    yield client
    client.delete_log_group(logGroupName=GROUP)


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
def test_a_key_can_be_set_and_taken_away_later(logs: Any, group: dict[str, str]) -> None:
    logs.associate_kms_key(kmsKeyId=KEY, **group)
    assert key(logs) == KEY
    logs.disassociate_kms_key(**group)
    assert key(logs) is None


def test_an_unknown_group_has_no_key(logs: Any) -> None:
    with pytest.raises(ClientError) as error:
        logs.associate_kms_key(logGroupName="/nobody", kmsKeyId=KEY)
    assert error.value.response["Error"]["Code"] == "ResourceNotFoundException"


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
