"""STS: the caller whose key moto did not make is the account's administrator."""

from typing import Any

from moto.sts.models import STSBackend

from localaws.additions import Gap
from localaws.additions._moto import ACCOUNT, plain_client

_ADMINISTRATOR = f"arn:aws:iam::{ACCOUNT}:user/administrator"


def _is_a_user_of_iam() -> bool:
    with plain_client("sts") as sts:
        return ":iam:" in sts.get_caller_identity()["Arn"]


GAPS = [
    Gap(
        service="sts",
        operation="GetCallerIdentity.Arn",
        effect="commands name a caller `moto`, in a form that no ARN of AWS has",
        closed=_is_a_user_of_iam,
    )
]


def install() -> None:
    """Name the administrator as messages about permissions do."""
    original = STSBackend.get_caller_identity

    def get_caller_identity(self: STSBackend, key: str, region: str) -> tuple[str, str, str]:
        user, arn, account = original(self, key, region)
        return user, _ADMINISTRATOR if arn.endswith(":user/moto") else arn, account

    mended: Any = STSBackend
    mended.get_caller_identity = get_caller_identity
