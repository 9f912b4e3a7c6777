"""AWS's regions: a request is for one, and what it starts stays there."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import cache
from typing import Any

import boto3

DEFAULT = "us-east-1"

_current: ContextVar[str] = ContextVar("region", default=DEFAULT)


def current() -> str:
    """The region of the request that is answered, or of what runs in this thread."""
    return _current.get()


@contextmanager
def within(region: str) -> Iterator[None]:
    """Around what happens in a region."""
    token = _current.set(region)
    try:
        yield
    finally:
        _current.reset(token)


class Thread(threading.Thread):
    """A thread in the region of who starts it."""

    def __init__(self, *given: Any, **named: Any) -> None:
        """Take what `threading.Thread` takes."""
        super().__init__(*given, **named)
        self._context = copy_context()

    def run(self) -> None:
        """Do what it was made for."""
        self._context.run(super().run)


def exists(region: str, service: str) -> bool:
    """Whether AWS has a region, and a service there.

    Args:
        region: Such as "eu-west-1".
        service: The service's name in botocore.
    """
    return region in _regions("ec2") and region in (_regions(service) or {region})


@cache
def _regions(service: str) -> frozenset[str]:
    """The regions that a service has; none for those that are the same everywhere."""
    session = boto3.session.Session()
    return frozenset(
        region
        for partition in ("aws", "aws-cn", "aws-us-gov")
        for region in session.get_available_regions(service, partition)
    )
