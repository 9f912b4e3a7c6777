"""STS: the account's administrator has a name, and sessions end when their role says so.

Source: API reference, `AssumeRole` (`DurationSeconds`, `RoleSessionName`).
"""

import re
from typing import Any

from moto.core.responses import ActionResult
from moto.iam.exceptions import NotFoundException
from moto.iam.models import iam_backends
from moto.sts.exceptions import STSClientError, STSValidationError
from moto.sts.models import STSBackend
from moto.sts.responses import TokenResponse

from localaws.additions import Gap
from localaws.additions._moto import ACCOUNT, ROLE, plain_client, refuses

_LEAST_SECONDS, _CHAINED_SECONDS = 900, 3600
_NAME = r"[\w+=,.@-]{2,64}"


def _is_a_user_of_iam() -> bool:
    with plain_client("sts") as sts:
        return ":iam:" in sts.get_caller_identity()["Arn"]


def _looks_at_duration() -> bool:
    with plain_client("sts") as sts:
        return refuses(
            lambda: sts.assume_role(RoleArn=ROLE, RoleSessionName="two words", DurationSeconds=900)
        )


def _looks_for_the_role() -> bool:
    with plain_client("sts") as sts:
        return refuses(lambda: sts.assume_role(RoleArn=ROLE, RoleSessionName="probe"))


GAPS = [
    Gap(
        service="sts",
        operation="GetCallerIdentity.Arn",
        effect="commands name a caller `moto`, in a form that no ARN of AWS has",
        closed=_is_a_user_of_iam,
    ),
    Gap(
        service="sts",
        operation="AssumeRole.RoleArn",
        effect="there are keys for a role that is not there",
        closed=_looks_for_the_role,
    ),
    Gap(
        service="sts",
        operation="AssumeRole.DurationSeconds, .RoleSessionName",
        effect="a session lasts longer than its role allows, and has a name that none has",
        closed=_looks_at_duration,
    ),
]


def install() -> None:
    """Name the administrator as messages about permissions do, and bound sessions."""
    original = STSBackend.get_caller_identity

    def get_caller_identity(self: STSBackend, key: str, region: str) -> tuple[str, str, str]:
        user, arn, account = original(self, key, region)
        return user, re.sub(":sts:(.*:user/)moto$", r":iam:\1administrator", arn), account

    mended: Any = STSBackend
    mended.get_caller_identity = get_caller_identity

    assume = TokenResponse.assume_role

    def assume_role(self: TokenResponse) -> ActionResult:
        _refuse_session(self)
        return assume(self)

    answers: Any = TokenResponse
    answers.assume_role = assume_role


def _refuse_session(request: TokenResponse) -> None:
    """Refuse a session that the role would not be assumed for.

    Raises:
        STSValidationError: It would not.
    """
    name, role_arn = str(request._get_param("RoleSessionName")), request._get_param("RoleArn")
    seconds = int(request._get_param("DurationSeconds") or _CHAINED_SECONDS)
    broken = "1 validation error detected: Value '{}' at '{}' failed to satisfy constraint: Member"
    if not re.fullmatch(_NAME, name, re.ASCII):
        raise STSValidationError(
            f"{broken.format(name, 'roleSessionName')} must satisfy regular expression pattern:"
            f" {_NAME}"
        )
    if seconds < _LEAST_SECONDS:
        raise STSValidationError(
            f"{broken.format(seconds, 'durationSeconds')} must have value greater than or equal to"
            f" {_LEAST_SECONDS}"
        )
    is_chained = request.backend.get_assumed_role_from_access_key(request.get_access_key())
    if is_chained and seconds > _CHAINED_SECONDS:
        raise STSValidationError(
            "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by"
            " role chaining"
        )
    try:
        role: Any = iam_backends[ACCOUNT][request.partition].get_role_by_arn(role_arn)
    except NotFoundException:
        _, caller, _ = request.backend.get_caller_identity(request.get_access_key(), request.region)
        raise STSClientError(
            "AccessDenied",
            f"User: {caller} is not authorized to perform: sts:AssumeRole on resource: {role_arn}",
        ) from None
    if seconds > int(role.max_session_duration or _CHAINED_SECONDS):
        raise STSValidationError(
            "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."
        )
