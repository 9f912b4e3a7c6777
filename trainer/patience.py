"""What AWS asks its callers to bear: answers that are lost, and what is not known everywhere yet.

SDKs repeat a call whose answer was lost. What it was to make is there then, and the second attempt
is told so: whether that is a failure depends on whose it is.
"""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, TypeVar

from botocore.exceptions import (
    ClientError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)

ATTEMPTS = 10
"""How often a call is tried, as often as AWS advises for SageMaker's control plane at least."""

_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 8.0
_READS = 5
# Calls by which a service is to act under a role, of those that Terraform does not make.
_UNDER_A_ROLE = ("CreateHyperParameterTuningJob", "CreateTrainingJob")
# Where the role is wrong for good, 16 seconds are enough to wait.
_ROLE_ATTEMPTS = 6

T = TypeVar("T")


@dataclass(frozen=True)
class Object:
    """An object of S3: its content and its entity tag."""

    content: bytes
    etag: str


def read_object(client: Any, bucket: str, key: str) -> Object:
    """An object as a whole; a transfer that breaks off begins anew.

    Args:
        client: A client of S3.
        bucket: The bucket.
        key: The object's key.

    Raises:
        ClientError: S3 refuses, `NoSuchKey` if it is not there.
        BotoCoreError: The transfer breaks off each time.
    """
    left = _READS
    while True:
        answer = client.get_object(Bucket=bucket, Key=key)
        left -= 1
        try:
            return Object(answer["Body"].read(), answer["ETag"])
        except (IncompleteReadError, ReadTimeoutError, ResponseStreamingError):
            if not left:
                raise


def patiently(call: Callable[[], T], codes: Collection[str], attempts: int = ATTEMPTS) -> T:
    """What a call gives, once AWS knows everywhere what it names.

    Args:
        call: Asks AWS.
        codes: Errors that pass when it is asked again after a while.
        attempts: How often it is asked at most.

    Raises:
        ClientError: AWS refuses for another reason, or at the last attempt.
    """
    pause = _FIRST_PAUSE_SECONDS
    while True:
        attempts -= 1
        try:
            return call()
        except ClientError as error:
            if error.response["Error"]["Code"] not in codes or not attempts:
                raise
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def wait_for_roles(session: Any) -> None:
    """Let a session's calls that start jobs wait until SageMaker knows a new role.

    Args:
        session: A session of boto3, which has made no client yet.
    """
    for call in _UNDER_A_ROLE:
        session.events.register(f"needs-retry.sagemaker.{call}", _pause_for_role)


def _pause_for_role(attempts: int, response: Any, **_: object) -> float | None:
    """Seconds until the next attempt of a call whose role is not known; None of another."""
    said = response[1].get("Error", {}).get("Message", "") if response else ""
    if "Could not assume role" not in said or attempts >= _ROLE_ATTEMPTS:
        return None
    return min(_FIRST_PAUSE_SECONDS * 2.0 ** (attempts - 1), _LONGEST_PAUSE_SECONDS)


def was_done(error: ClientError, *codes: str) -> bool:
    """Whether a call was refused only since an earlier attempt of it had done its work.

    Args:
        error: What the last attempt was told.
        codes: How the service says that it is done.
    """
    attempts = error.response.get("ResponseMetadata", {}).get("RetryAttempts", 0)
    return attempts > 0 and error.response["Error"]["Code"] in codes
