"""CloudWatch Logs: the KMS key of a log group, set later."""

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


GAPS = [
    Gap(
        service="logs",
        operation="AssociateKmsKey, DisassociateKmsKey",
        effect="a key added to a stack fails at its log groups",
        closed=_associates,
    )
]


def install() -> None:
    """Add the operations."""

    def associate_kms_key(self: LogsResponse) -> str:
        _set_key(self, self._get_param("kmsKeyId"))
        return ""

    def disassociate_kms_key(self: LogsResponse) -> str:
        _set_key(self, None)
        return ""

    mended: Any = LogsResponse
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
