"""SQS on localaws."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.localaws.conftest import LocalAws

ARN = "arn:aws:sqs:us-east-1:123456789012:"
POLICY = {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "sqs:*"}]}


@pytest.fixture
def sqs(aws: LocalAws) -> Any:
    return aws.client("sqs")


@pytest.fixture
def queue(sqs: Any) -> Iterator[str]:
    dead = sqs.create_queue(QueueName="kennel-dead")["QueueUrl"]
    url = sqs.create_queue(QueueName="kennel", Attributes={"Policy": json.dumps(POLICY)})
    yield url["QueueUrl"]
    sqs.delete_queue(QueueUrl=url["QueueUrl"])
    sqs.delete_queue(QueueUrl=dead)


def attributes(sqs: Any, queue: str, *names: str) -> dict[str, str]:
    found: dict[str, str] = sqs.get_queue_attributes(
        QueueUrl=queue, AttributeNames=list(names) or ["All"]
    )["Attributes"]
    return found


def test_the_redrive_policy_comes_back_as_it_went(sqs: Any, queue: str) -> None:
    given = f'{{"deadLetterTargetArn":"{ARN}kennel-dead","maxReceiveCount":3}}'
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"RedrivePolicy": given})
    assert attributes(sqs, queue)["RedrivePolicy"] == given


def test_who_may_redrive_is_kept_until_it_is_taken_away(sqs: Any, queue: str) -> None:
    given = '{"redrivePermission":"denyAll"}'
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"RedriveAllowPolicy": given})
    assert attributes(sqs, queue)["RedriveAllowPolicy"] == given
    assert attributes(sqs, queue, "RedriveAllowPolicy") == {"RedriveAllowPolicy": given}
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"RedriveAllowPolicy": ""})
    assert "RedriveAllowPolicy" not in attributes(sqs, queue)


def test_setting_an_attribute_keeps_the_policy(sqs: Any, queue: str) -> None:
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"DelaySeconds": "1"})
    assert json.loads(attributes(sqs, queue)["Policy"]) == POLICY
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": ""})
    assert "Policy" not in attributes(sqs, queue)


def test_a_queue_has_one_kind_of_encryption(sqs: Any, queue: str) -> None:
    assert attributes(sqs, queue)["SqsManagedSseEnabled"] == "true"
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"KmsMasterKeyId": "alias/kennel"})
    assert attributes(sqs, queue)["SqsManagedSseEnabled"] == "false"
