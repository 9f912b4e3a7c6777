"""moto's records of Lambda functions, and why a function is not run."""

import random
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from moto.awslambda.exceptions import UnknownAliasException
from moto.awslambda.utils import get_backend

from localaws import regions
from localaws.errors import LocalAwsError
from localaws.execution import ACCOUNT
from localaws.functions.environment import Outcome

LATEST = "$LATEST"
_WEIGHTS = "AdditionalVersionWeights"

Key = tuple[str, str, str]


class InvocationError(LocalAwsError):
    """Lambda does not run a function.

    Attributes:
        status: HTTP status.
        code: AWS's error code.
        reason: Of a throttled invocation.
    """

    def __init__(self, status: int, code: str, message: str, reason: str = "") -> None:
        """Say why, in AWS's words."""
        super().__init__(message)
        self.status = status
        self.code = code
        self.reason = reason


@dataclass(frozen=True)
class Invoked:
    """An invocation that was run.

    Attributes:
        outcome: What came of it.
        version: The version that ran.
        request_id: The invocation's id.
    """

    outcome: Outcome
    version: str
    request_id: str


def functions() -> list[Any]:
    """All functions, as they are not published."""
    held = get_backend(ACCOUNT, regions.current())._lambdas._functions
    return [entry["latest"] for entry in list(held.values()) if entry.get("latest")]


def function_of(name: str) -> Any:
    """A function, as it is not published; it keeps what belongs to its qualifiers.

    Raises:
        JsonRESTError: There is none; moto's own answer.
    """
    return get_backend(ACCOUNT, regions.current()).get_function(name, LATEST)


def versions_of(function: Any) -> list[Any]:
    """All versions of a function, that which is not published first."""
    held = get_backend(ACCOUNT, regions.current())._lambdas._functions.get(
        function.function_name, {}
    )
    return [function, *held.get("versions", ())]


def version_of(name: str, qualifier: str | None) -> Any:
    """What answers for a qualifier; an alias with weights draws.

    Raises:
        JsonRESTError: There is no such function, alias or version; moto's own answer.
    """
    return _version(name, qualifier, drawn=True)


def chosen_version_of(name: str, qualifier: str | None) -> Any:
    """What a qualifier stands for, whatever else answers for it meanwhile.

    Raises:
        JsonRESTError: There is no such function, alias or version; moto's own answer.
    """
    return _version(name, qualifier, drawn=False)


def weights_of(alias: Any) -> dict[str, float]:
    """The shares of other versions in what an alias is asked.

    While environments are made ready for the version that an alias has been moved to, Lambda
    itself gives all to the one before: hashicorp/terraform-provider-aws#48116.
    """
    name = alias.arn.split(":")[6]
    former = function_of(name).at(alias.name).former
    return {former: 1.0} if former else (alias.routing_config or {}).get(_WEIGHTS) or {}


def _version(name: str, qualifier: str | None, *, drawn: bool) -> Any:
    backend = get_backend(ACCOUNT, regions.current())
    number = qualifier or LATEST
    with suppress(UnknownAliasException):
        alias = backend.get_alias(number, name)
        number = alias.function_version
        for other, weight in weights_of(alias).items() if drawn else ():
            if random.random() < float(weight):
                number = other
    return backend.get_function(name, number)


def key_of(version: Any) -> Key:
    """What tells a version from all others, also from one that had its name before."""
    return version.function_name, str(version.version), version.revision_id


def arn_of(function: Any, qualifier: str | None) -> str:
    """The ARN of a function, with a qualifier if there is one."""
    return f"{function.function_arn}:{qualifier}" if qualifier else str(function.function_arn)
