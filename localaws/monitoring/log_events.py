"""Lines on their way to CloudWatch Logs: in batches that it takes, to a stream that is there.

Source of the limits: `PutLogEvents` of CloudWatch Logs' API reference.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

_BATCH_BYTES = 1 << 20
_BATCH_EVENTS = 10_000
# What counts for an event beside its text.
_OVERHEAD_BYTES = 26


def put_lines(
    logs: Any,
    group: str,
    stream: str,
    lines: Iterable[str],
    may_create_group: Callable[[], bool] = lambda: True,
) -> None:
    """Send lines, as of now; the stream and its group are made where they are missing.

    Args:
        logs: A client of CloudWatch Logs.
        group: The log group.
        stream: The stream's name.
        lines: Without their ends. Blank ones are left out, overlong ones are cut.
        may_create_group: Asked before a missing group is made.

    Raises:
        BotoCoreError, ClientError: A call was refused; what remains is not sent.
    """
    place = {"logGroupName": group, "logStreamName": stream}
    now = int(time.time() * 1000)
    for batch in _batches(lines):
        events = [{"timestamp": now, "message": line} for line in batch]
        try:
            logs.put_log_events(**place, logEvents=events)
        except logs.exceptions.ResourceNotFoundException:
            _make(logs, place, may_create_group)
            logs.put_log_events(**place, logEvents=events)


def _make(logs: Any, place: dict[str, str], may_create_group: Callable[[], bool]) -> None:
    try:
        logs.create_log_stream(**place)
    except logs.exceptions.ResourceNotFoundException:
        if not may_create_group():
            raise
        # Another stream's first lines may have made it meanwhile.
        with suppress(logs.exceptions.ResourceAlreadyExistsException):
            logs.create_log_group(logGroupName=place["logGroupName"])
        logs.create_log_stream(**place)


def _batches(lines: Iterable[str]) -> Iterator[list[str]]:
    """Lines in batches that one call takes."""
    batch: list[str] = []
    size = 0
    for line in filter(str.strip, lines):
        cut = line.encode()[: _BATCH_BYTES - _OVERHEAD_BYTES]
        added = len(cut) + _OVERHEAD_BYTES
        if size + added > _BATCH_BYTES or len(batch) == _BATCH_EVENTS:
            yield batch
            batch, size = [], 0
        batch.append(cut.decode(errors="ignore"))
        size += added
    if batch:
        yield batch
