"""CloudWatch Logs: the KMS key of a log group, set later; events of streams by their prefix."""

import json
import time
from collections.abc import Callable
from typing import Any

from moto.logs.exceptions import ResourceNotFoundException
from moto.logs.responses import LogsResponse

from localaws.additions import Gap
from localaws.additions._moto import ACCOUNT, REGION, plain_client

_GROUP = "probe"
_KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/probe"


def _associates() -> bool:
    with plain_client("logs") as logs:
        logs.create_log_group(logGroupName=_GROUP)
        try:
            logs.associate_kms_key(logGroupName=_GROUP, kmsKeyId=_KEY)
        except NotImplementedError:
            return False
        return "kmsKeyId" in logs.describe_log_groups()["logGroups"][0]


def _filters_by_prefix() -> bool:
    with plain_client("logs") as logs:
        logs.create_log_group(logGroupName=_GROUP)
        logs.create_log_stream(logGroupName=_GROUP, logStreamName="probe")
        event = {"timestamp": int(time.time() * 1000), "message": "probe"}
        logs.put_log_events(logGroupName=_GROUP, logStreamName="probe", logEvents=[event])
        return not logs.filter_log_events(logGroupName=_GROUP, logStreamNamePrefix="other")[
            "events"
        ]


GAPS = [
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

    mended: Any = LogsResponse
    plain: Callable[[LogsResponse], str] = mended.filter_log_events
    mended.filter_log_events = filter_log_events
    mended.associate_kms_key = associate_kms_key
    mended.disassociate_kms_key = disassociate_kms_key


def _set_key(response: LogsResponse, key: str | None) -> None:
    name = (
        response._get_param("logGroupName")
        or (response._get_param("resourceIdentifier", "").rpartition(":log-group:")[2])
    )
    group = response.logs_backend.groups.get(name)
    if not group:
        raise ResourceNotFoundException
    group.kms_key_id = key
