"""A job's log in CloudWatch Logs, read as it grows."""

from collections.abc import Iterator
from typing import Any

from trainer.target import Target


class Tail:
    """The streams of a log group whose names begin alike: one a host.

    Each event is given once, also after a call that failed.
    """

    def __init__(self, target: Target, group: str, prefix: str) -> None:
        """Begin at the start of the log.

        Args:
            target: Where the log is.
            group: Its log group.
            prefix: What the names of its streams begin with; the rest names the host.
        """
        self._client: Any = target.client("logs")
        self._group = group
        self._prefix = prefix
        self._tokens: dict[str, str] = {}

    def lines(self) -> Iterator[str]:
        """What was logged since the last call, host by host."""
        streams = self._streams()
        for stream in streams:
            host = stream.removeprefix(self._prefix).rpartition("-")[0]
            label = f"{host} | " if len(streams) > 1 else ""
            for message in self._messages(stream):
                yield f"{label}{message}"

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
            answer = self._client.get_log_events(
                logGroupName=self._group,
                logStreamName=stream,
                startFromHead=True,
                **({"nextToken": former} if former else {}),
            )
            self._tokens[stream] = answer["nextForwardToken"]
            for event in answer["events"]:
                yield event["message"].rstrip()
            # The end of a stream gives back the token that it was asked with.
            if answer["nextForwardToken"] == former:
                return
