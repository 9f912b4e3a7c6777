"""CloudWatch Logs: the KMS key of a log group, set later; events of streams by their prefix."""

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from moto.kms.models import kms_backends
from moto.logs.exceptions import (
    InvalidParameterException,
    LogsClientError,
    ResourceNotFoundException,
)
from moto.logs.models import LogGroup
from moto.logs.responses import LogsResponse

from localaws import regions
from localaws.additions import Gap
from localaws.additions._moto import ACCOUNT, REGION, before, plain_client, refuses, wrap
from localaws.iam.policy import PolicyError, Principal, Request, evaluate
from localaws.operations import RefusedError

_GROUP = "probe"
_CLASS = "STANDARD"
_PATTERN = re.compile(r'[^\W\d_]\w*( \w+)*|"[^"]+"')
_KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/probe"
_OPEN = {"Effect": "Allow", "Principal": "*", "Action": "kms:*", "Resource": "*"}


def _associates() -> bool:
    policy = json.dumps({"Version": "2012-10-17", "Statement": [_OPEN]})
    with plain_client("logs") as logs, plain_client("kms") as kms:
        key = kms.create_key(Policy=policy)["KeyMetadata"]["Arn"]
        logs.create_log_group(logGroupName=_GROUP)
        try:
            logs.associate_kms_key(logGroupName=_GROUP, kmsKeyId=key)
        except NotImplementedError:
            return False
        return "kmsKeyId" in logs.describe_log_groups()["logGroups"][0]


@contextmanager
def _one_event() -> Iterator[Any]:
    """A client of moto's Logs, with a stream of one event."""
    with plain_client("logs") as logs:
        logs.create_log_group(logGroupName=_GROUP)
        logs.create_log_stream(logGroupName=_GROUP, logStreamName="probe")
        event = {"timestamp": int(time.time() * 1000), "message": "probe"}
        logs.put_log_events(logGroupName=_GROUP, logStreamName="probe", logEvents=[event])
        yield logs


def _filters_by_prefix() -> bool:
    with _one_event() as logs:
        return not logs.filter_log_events(logGroupName=_GROUP, logStreamNamePrefix="other")[
            "events"
        ]


def _asks_the_key() -> bool:
    with plain_client("logs") as logs:
        return refuses(lambda: logs.create_log_group(logGroupName=_GROUP, kmsKeyId=_KEY))


def _checks_retention() -> bool:
    with plain_client("logs") as logs:
        logs.create_log_group(logGroupName=_GROUP)
        return refuses(lambda: logs.put_retention_policy(logGroupName=_GROUP, retentionInDays=2))


def _knows_patterns() -> bool:
    with _one_event() as logs:
        try:
            found = logs.filter_log_events(logGroupName=_GROUP, filterPattern="?other")
        except NotImplementedError:
            return True
        return not found["events"]


def _keeps_the_class() -> bool:
    with plain_client("logs") as logs:
        logs.create_log_group(logGroupName=_GROUP, logGroupClass="INFREQUENT_ACCESS")
        return "logGroupClass" in logs.describe_log_groups()["logGroups"][0]


GAPS = [
    Gap(
        service="logs",
        operation="FilterLogEvents.filterPattern",
        effect="a pattern that is not understood finds all events",
        closed=_knows_patterns,
    ),
    Gap(
        service="logs",
        operation="CreateLogGroup.logGroupClass",
        effect="the class is dropped: each plan replaces the group with what it holds",
        closed=_keeps_the_class,
    ),
    Gap(
        service="logs",
        operation="CreateLogGroup.kmsKeyId",
        effect="a key is taken that is not there or does not let CloudWatch Logs use it",
        closed=_asks_the_key,
    ),
    Gap(
        service="logs",
        operation="PutRetentionPolicy, PutLogEvents, FilterLogEvents",
        effect="days that AWS does not offer, batches over its limits, unknown streams are taken",
        closed=_checks_retention,
    ),
    Gap(
        service="logs",
        operation="AssociateKmsKey, DisassociateKmsKey",
        effect="a key added to a stack fails at its log groups",
        closed=_associates,
    ),
    Gap(
        service="logs",
        operation="FilterLogEvents",
        effect="a prefix of streams is ignored: the logs of a job are those of all jobs",
        closed=_filters_by_prefix,
    ),
]


def install() -> None:
    """Add the operations."""

    def associate_kms_key(self: LogsResponse) -> str:
        _set_key(self, self._get_param("kmsKeyId"))
        return ""

    def disassociate_kms_key(self: LogsResponse) -> str:
        _set_key(self, None)
        return ""

    def filter_log_events(self: LogsResponse) -> str:
        prefix = self._get_param("logStreamNamePrefix")
        group = self.logs_backend.groups.get(self._get_param("logGroupName"))
        if prefix and group:
            names = [name for name in group.streams if name.startswith(prefix)]
            # None at all would mean every stream.
            self.body = json.dumps({**json.loads(self.body), "logStreamNames": names or [""]})
        return plain(self)

    wrap(LogsResponse, "create_log_group", _create_group)
    wrap(LogGroup, "to_describe_dict", _described)
    before(LogsResponse, "create_log_group", _check_key)
    before(LogsResponse, "put_retention_policy", _check_retention)
    before(LogsResponse, "put_log_events", _check_batch)
    before(LogsResponse, "list_tags_for_resource", _check_tagged)
    mended: Any = LogsResponse
    plain: Callable[[LogsResponse], str] = mended.filter_log_events
    mended.filter_log_events = filter_log_events
    before(LogsResponse, "filter_log_events", _check_streams)
    before(LogsResponse, "filter_log_events", _check_pattern)
    mended.associate_kms_key = associate_kms_key
    mended.disassociate_kms_key = disassociate_kms_key


def _create_group(original: Callable[[LogsResponse], str], response: LogsResponse) -> str:
    told = json.loads(response.body)
    if told.get("deletionProtectionEnabled"):
        raise RefusedError("nothing here would protect the group (deletionProtectionEnabled)")
    answer = original(response)
    group: Any = response.logs_backend.groups[told["logGroupName"]]
    group.log_group_class = told.get("logGroupClass", _CLASS)
    return answer


def _described(original: Callable[[LogGroup], dict[str, Any]], group: LogGroup) -> dict[str, Any]:
    return original(group) | {"logGroupClass": getattr(group, "log_group_class", _CLASS)}


def _set_key(response: LogsResponse, key: str | None) -> None:
    name = (
        response._get_param("logGroupName")
        or (response._get_param("resourceIdentifier", "").rpartition(":log-group:")[2])
    )
    group = response.logs_backend.groups.get(name)
    if not group:
        raise ResourceNotFoundException
    if key:
        _check_key(response, {"logGroupName": name, "kmsKeyId": key})
    group.kms_key_id = key


# PutRetentionPolicy of the API reference.
_DAYS = {1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731}
_DAYS |= {1096, 1827, 2192, 2557, 2922, 3288, 3653}
_MOST_BATCH_BYTES = 1024 * 1024
_EVENT_BYTES = 26
_DAY_MS = 24 * 3600 * 1000
# "Encrypt log data in CloudWatch Logs using AWS KMS" of the user guide.
_KEY_USES = ("Encrypt", "Decrypt", "ReEncryptFrom", "GenerateDataKey", "DescribeKey")


def _check_key(_: LogsResponse, told: Mapping[str, Any]) -> None:
    """Ask a key's own policy whether CloudWatch Logs may use it for a group."""
    key = told.get("kmsKeyId")
    if not key:
        return
    region = regions.current()
    group = f"arn:aws:logs:{region}:{ACCOUNT}:log-group:{told['logGroupName']}"
    found = kms_backends[ACCOUNT][region].keys.get(key.rpartition("/")[2])
    context = {
        "aws:SecureTransport": "true",
        "aws:SourceAccount": ACCOUNT,
        "aws:SourceArn": group,
        "kms:EncryptionContext:aws:logs:arn": group,
        "kms:EncryptionContextKeys": "aws:logs:arn",
    }
    service = Principal(f"logs.{region}.amazonaws.com", "Service")
    try:
        allowed = found is not None and all(
            evaluate(
                [],
                Request(f"kms:{use}", found.arn, context, service),
                resource_policies=[json.loads(found.policy)],
            ).allowed
            for use in _KEY_USES
        )
    except (PolicyError, ValueError):
        allowed = False
    if not allowed:
        raise LogsClientError(
            "AccessDeniedException",
            f"The specified KMS key does not exist or is not allowed to be used with Arn '{group}'",
        )


def _check_retention(_: LogsResponse, told: Mapping[str, Any]) -> None:
    if told["retentionInDays"] not in _DAYS:
        raise InvalidParameterException(
            constraint=f"Member must satisfy enum value set: {sorted(_DAYS)}",
            parameter="retentionInDays",
            value=told["retentionInDays"],
        )


def _check_batch(_: LogsResponse, told: Mapping[str, Any]) -> None:
    events = told["logEvents"]
    size = sum(len(event["message"].encode()) + _EVENT_BYTES for event in events)
    if size > _MOST_BATCH_BYTES:
        raise InvalidParameterException(
            f"Upload too large: {size} bytes exceeds limit of {_MOST_BATCH_BYTES}"
        )
    times = [event["timestamp"] for event in events]
    if max(times) - min(times) > _DAY_MS:
        raise InvalidParameterException(
            "The batch of log events in a single PutLogEvents request cannot span more than 24 "
            "hours."
        )


def _group(response: LogsResponse, told: Mapping[str, Any]) -> Any:
    group = response.logs_backend.groups.get(str(told.get("logGroupName")))
    if group is None:
        raise ResourceNotFoundException
    return group


def _check_tagged(response: LogsResponse, told: Mapping[str, Any]) -> None:
    _, kind, name = told["resourceArn"].partition(":log-group:")
    if kind:
        _group(response, {"logGroupName": name})


def _check_pattern(_: LogsResponse, told: Mapping[str, Any]) -> None:
    """Refuse the patterns for which moto answers every event: JSON, fields, options, regexes."""
    pattern = told.get("filterPattern", "").strip()
    if pattern and not _PATTERN.fullmatch(pattern):
        raise RefusedError(f"it finds words and one quoted phrase, not {pattern}")


def _check_streams(response: LogsResponse, told: Mapping[str, Any]) -> None:
    names = told.get("logStreamNames") or []
    if names and told.get("logStreamNamePrefix"):
        raise InvalidParameterException(
            "Both logStreamNames and logStreamNamePrefix are specified; only one may be."
        )
    if names and not set(names) <= set(_group(response, told).streams):
        raise ResourceNotFoundException("The specified log stream does not exist.")
