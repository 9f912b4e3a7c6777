"""SQS: attributes that moto drops, rewrites or forgets."""

import json
from collections.abc import Callable, Mapping
from typing import Any, cast

from moto.sqs.exceptions import SQSException
from moto.sqs.models import Queue
from moto.sqs.responses import SQSResponse

from localaws.additions import Gap
from localaws.additions._moto import ACCOUNT, REGION, before, plain_client, refuses

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


def _checks_values() -> bool:
    with plain_client("sqs") as sqs:
        days = {"MessageRetentionPeriod": "1209601"}
        return refuses(lambda: sqs.create_queue(QueueName="probe", Attributes=days))


GAPS = [
    Gap(
        service="sqs",
        operation="CreateQueue.Attributes, SetQueueAttributes.Attributes",
        effect="times and sizes that AWS does not offer are taken, as are unknown names",
        closed=_checks_values,
    ),
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
    before(SQSResponse, "create_queue", _check_attributes)
    before(SQSResponse, "set_queue_attributes", _check_attributes)
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


# SetQueueAttributes of the API reference.
_RANGES = {
    "DelaySeconds": (0, 900),
    "KmsDataKeyReusePeriodSeconds": (60, 86_400),
    "MaximumMessageSize": (1024, 1024 * 1024),
    "MessageRetentionPeriod": (60, 1_209_600),
    "ReceiveMessageWaitTimeSeconds": (0, 20),
    "VisibilityTimeout": (0, 43_200),
}
_OTHERS = {
    "ContentBasedDeduplication",
    "DeduplicationScope",
    "FifoQueue",
    "FifoThroughputLimit",
    "KmsMasterKeyId",
    "Policy",
    "RedriveAllowPolicy",
    "RedrivePolicy",
    "SqsManagedSseEnabled",
}


def _check_attributes(_: SQSResponse, told: Mapping[str, Any]) -> None:
    given: Mapping[str, str] = told.get("Attributes") or {}
    for name, value in given.items():
        if name not in _OTHERS | set(_RANGES):
            raise SQSException("InvalidAttributeName", f"Unknown Attribute {name}.")
        if not _is_valid(name, value):
            raise SQSException("InvalidAttributeValue", f"Invalid value for the parameter {name}.")
    if given.get("KmsMasterKeyId") and given.get("SqsManagedSseEnabled") == "true":
        raise SQSException(
            "InvalidAttributeValue",
            "You can use one type of server-side encryption (SSE) at one time. You can either "
            "enable KMS SSE or SQS SSE.",
        )


def _is_valid(name: str, value: str) -> bool:
    if name in _RANGES:
        least, most = _RANGES[name]
        return value.isdecimal() and least <= int(value) <= most
    if name.endswith("Policy") and value:
        try:
            return isinstance(json.loads(value), dict)
        except ValueError:
            return False
    return True
