"""SQS: attributes that moto drops, rewrites or forgets."""

import json
from collections.abc import Callable
from typing import Any, cast

from moto.sqs.models import Queue

from localaws.additions import Gap
from localaws.additions._moto import ACCOUNT, REGION, plain_client

_DEAD_LETTERS = f"arn:aws:sqs:{REGION}:{ACCOUNT}:dead"
_REDRIVE = f'{{"deadLetterTargetArn":"{_DEAD_LETTERS}","maxReceiveCount":3}}'
_POLICY = '{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Principal":"*","Action":"*"}]}'


def _attributes_after(given: dict[str, str]) -> dict[str, str]:
    """What a queue with a policy tells of itself once `given` is set."""
    with plain_client("sqs") as sqs:
        sqs.create_queue(QueueName="dead")
        url = sqs.create_queue(QueueName="probe", Attributes={"Policy": _POLICY})["QueueUrl"]
        sqs.set_queue_attributes(QueueUrl=url, Attributes=given)
        told: dict[str, str] = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])[
            "Attributes"
        ]
        return told


def _keeps(attribute: str, value: str) -> bool:
    return _attributes_after({attribute: value}).get(attribute) == value


def _has_one_encryption() -> bool:
    return _attributes_after({"KmsMasterKeyId": "alias/k"})["SqsManagedSseEnabled"] == "false"


GAPS = [
    Gap(
        service="sqs",
        operation="SetQueueAttributes.RedriveAllowPolicy",
        effect="Terraform waits for it for minutes, then fails",
        closed=lambda: _keeps("RedriveAllowPolicy", '{"redrivePermission":"denyAll"}'),
    ),
    Gap(
        service="sqs",
        operation="GetQueueAttributes.RedrivePolicy",
        effect="a difference of white space on each plan",
        closed=lambda: _keeps("RedrivePolicy", _REDRIVE),
    ),
    Gap(
        service="sqs",
        operation="SetQueueAttributes without Policy",
        effect="setting any attribute deletes the queue's policy",
        closed=lambda: "Policy" in _attributes_after({"DelaySeconds": "1"}),
    ),
    Gap(
        service="sqs",
        operation="GetQueueAttributes.SqsManagedSseEnabled",
        effect="a queue with a KMS key says that it has SQS's own key too",
        closed=_has_one_encryption,
    ),
]


def install() -> None:
    """Keep queues' attributes as they were given."""
    original_set = Queue._set_attributes
    original_get = cast(Callable[[Queue], dict[str, Any]], cast(property, Queue.attributes).fget)

    def set_attributes(self: Queue, attributes: dict[str, Any], now: float | None = None) -> None:
        policy = self.policy if hasattr(self, "_policy_json") else None
        original_set(self, attributes, now)
        queue: Any = self
        if "Policy" not in attributes:
            self.policy = policy
        if attributes.get("RedriveAllowPolicy") == "":
            queue.redrive_allow_policy = None
        if attributes.get("KmsMasterKeyId"):
            queue.sqs_managed_sse_enabled = False

    def attributes(self: Queue) -> dict[str, Any]:
        found = original_get(self)
        if self.redrive_policy:
            found["RedrivePolicy"] = json.dumps(self.redrive_policy, separators=(",", ":"))
        return found

    mended: Any = Queue
    mended.BASE_ATTRIBUTES = [*Queue.BASE_ATTRIBUTES, "RedriveAllowPolicy"]
    mended.redrive_allow_policy = None
    mended._set_attributes = set_attributes
    mended.attributes = property(attributes)
