"""A job's log in CloudWatch Logs, read as it grows."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from trainer.target import Target


@dataclass(frozen=True)
class Preamble:
    """What a job's log begins with that is not the job's own: its first and its last line."""

    first: str
    last: re.Pattern[str]


class Tail:
    """The streams of a log group whose names begin alike: one a host.

    Each event is given once, also after a call that failed.
    """

    def __init__(
        self, target: Target, group: str, prefix: str, preamble: Preamble | None = None
    ) -> None:
        """Begin at the start of the log.

        Args:
            target: Where the log is.
            group: Its log group.
            prefix: What the names of its streams begin with; the rest names the host.
            preamble: What is left out, unless nothing follows.
        """
        self._client: Any = target.client("logs")
        self._group = group
        self._prefix = prefix
        self._tokens: dict[str, str] = {}
        self._preamble = preamble
        self._begun: set[str] = set()
        self._held: dict[str, list[str]] = defaultdict(list)

    def lines(self, has_ended: bool = False) -> Iterator[str]:
        """What was logged since the last call, host by host.

        Args:
            has_ended: Whether the job has: a preamble that nothing follows says why.
        """
        streams = self._streams()
        for stream in streams:
            host = stream.removeprefix(self._prefix).rpartition("-")[0]
            label = f"{host} | " if len(streams) > 1 else ""
            for message in self._own(stream, self._messages(stream), has_ended):
                yield f"{label}{message}"

    def _own(self, stream: str, messages: Iterable[str], has_ended: bool) -> Iterator[str]:
        held = self._held[stream]
        for message in messages:
            if stream in self._begun or not self._preamble:
                yield message
                continue
            held.append(message)
            if held[0] != self._preamble.first or self._preamble.last.fullmatch(message):
                self._begun.add(stream)
                yield from held if held[0] != self._preamble.first else ()
                held.clear()
        if has_ended:
            yield from held
            held.clear()

    def _streams(self) -> list[str]:
        pages = self._client.get_paginator("describe_log_streams").paginate(
            logGroupName=self._group, logStreamNamePrefix=self._prefix
        )
        try:
            return sorted(
                stream["logStreamName"] for page in pages for stream in page["logStreams"]
            )
        except self._client.exceptions.ResourceNotFoundException:
            return []

    def _messages(self, stream: str) -> Iterator[str]:
        while True:
            former = self._tokens.get(stream)
            try:
                answer = self._client.get_log_events(
                    logGroupName=self._group,
                    logStreamName=stream,
                    startFromHead=True,
                    **({"nextToken": former} if former else {}),
                )
            except self._client.exceptions.ResourceNotFoundException:
                # It is listed, and not known everywhere yet: a later look finds it.
                return
            self._tokens[stream] = answer["nextForwardToken"]
            for event in answer["events"]:
                yield event["message"].rstrip()
            # The end of a stream gives back the token that it was asked with.
            if answer["nextForwardToken"] == former:
                return
