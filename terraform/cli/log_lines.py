"""Log events as lines for people: a call of the function is one line, not three records.

A record of JSON becomes its level, its message and the rest of it; what the SDK's script says
before a job's own first line is left out.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from trainer.jobs_sagemaker import PREAMBLE


@dataclass(frozen=True)
class Event:
    """One line of a log.

    Attributes:
        at: Time in milliseconds since 1970.
        what: Who wrote it: "endpoint", "function", "training", "ec2" or "build".
        stream: Its stream.
        message: The line.
        id: CloudWatch's id of it.
    """

    at: int
    what: str
    stream: str
    message: str
    id: str


_TEXT = re.compile(r"(START|END|REPORT) RequestId: (\S+)")
_TEXT_FIGURE = re.compile(r"\t(Init )?Duration: ([\d.]+) ms")
_TEXT_STATUS = re.compile(r"\tStatus: (\w+)")
# The function's own metrics that say how a call ended.
_OUTCOMES = {"Answered": "200", "Refused": "refused", "Failed": "failed"}


@dataclass
class _Call:
    """What a function's environment has said of the call that it works on."""

    request: str = "-"
    metrics: dict[str, float] = field(default_factory=dict)
    notes: list[Mapping[str, Any]] = field(default_factory=list)

    def line(self, milliseconds: float, init: float | None, ended: str) -> str:
        """The whole call: how it ended, after how long, and what was said of it."""
        statuses = [str(note["status"]) for note in self.notes if "status" in note]
        outcomes = [text for name, text in _OUTCOMES.items() if self.metrics.get(name)]
        status = next(iter(statuses or outcomes), "ended") if ended == "success" else ended
        parts = [f"{self.request} {status} in {milliseconds:.0f} ms"]
        for name, text in (("EndpointTime", "endpoint"), ("FetchTime", "fetch")):
            if name in self.metrics:
                parts.append(f"{text} {self.metrics[name]:.0f} ms")
        if self.metrics.get("EndpointRetries"):
            parts.append(f"{self.metrics['EndpointRetries']:.0f} retries")
        if init is not None:
            parts.append(f"cold start {init:.0f} ms")
        return ", ".join(parts) + self.said

    @property
    def said(self) -> str:
        """What the function itself has logged, as the end of a line."""
        return "".join(f": {_said(note)}" for note in self.notes)


class Lines:
    """Turns events into lines, in the order in which they come."""

    def __init__(self) -> None:
        """Begin with no call under way."""
        # An environment works on one call at a time, and has a stream of its own.
        self._calls: dict[str, _Call] = {}
        self._preambles: dict[str, list[str]] = {}

    def of(self, event: Event) -> Iterator[str]:
        """The lines that an event leads to: none while its call goes on."""
        text = self._called(event) if event.what == "function" else None
        if text is None:
            line = f"{time_text(event.at)} {event.what} {event.stream} {_plain(event.message)}\n"
            if event.what != "training" or not self._is_preamble(event, line):
                yield line
        elif text:
            yield f"{time_text(event.at)} {event.what} {text}\n"

    def _is_preamble(self, event: Event, line: str) -> bool:
        """Whether a line is of the SDK's script that starts a job, and not of the job."""
        if event.message == PREAMBLE.first:
            self._preambles[event.stream] = []
        if event.stream not in self._preambles:
            return False
        self._preambles[event.stream].append(line)
        if PREAMBLE.last.fullmatch(event.message):
            del self._preambles[event.stream]
        return True

    def rest(self) -> Iterator[str]:
        """A line for each call of which the end is not told; what jobs said that did not begin."""
        for lines in self._preambles.values():
            yield from lines
        for call in self._calls.values():
            # An environment that waits for its first call has told how it started.
            if call.request == "-" and all(note["level"] == "INFO" for note in call.notes):
                continue
            yield f"function {call.request} has not ended{call.said}\n"

    def _called(self, event: Event) -> str | None:
        """A function's event: what it says, empty if its call goes on, None if it is free text."""
        record = _record(event.message)
        if record is None:
            return self._of_text(event)
        kind, told = record.get("type"), record.get("record", {})
        if kind == "platform.start":
            self._calls[event.stream] = _Call(told.get("requestId", "-"))
        elif kind == "platform.report":
            figures = told.get("metrics", {})
            return self._ended(
                event.stream,
                told.get("requestId", "-"),
                figures.get("durationMs", 0.0),
                figures.get("initDurationMs"),
                told.get("status", "success"),
            )
        elif kind == "platform.initStart":
            return _started(told)
        elif "_aws" in record:
            self._call(event.stream).metrics |= _metrics(record)
        elif "message" in record and "level" in record:
            self._call(event.stream).notes.append(record)
        else:
            return None
        return ""

    def _of_text(self, event: Event) -> str | None:
        found = _TEXT.match(event.message)
        if found is None:
            return None
        kind, request = found.groups()
        if kind == "START":
            self._calls[event.stream] = _Call(request)
        elif kind == "REPORT":
            figures = {init: float(ms) for init, ms in _TEXT_FIGURE.findall(event.message)}
            status = _TEXT_STATUS.search(event.message)
            ended = status[1] if status else "success"
            return self._ended(
                event.stream, request, figures.get("", 0.0), figures.get("Init "), ended
            )
        return ""

    def _call(self, stream: str) -> _Call:
        return self._calls.setdefault(stream, _Call())

    def _ended(
        self, stream: str, request: str, milliseconds: float, init: float | None, ended: str
    ) -> str:
        call = self._calls.pop(stream, _Call())
        call.request = request
        return call.line(milliseconds, init, ended)


def _plain(message: str) -> str:
    """A record of a program that logs JSON, such as the server: level, message, the rest."""
    record = _record(message) or {}
    if "level" not in record or "_aws" in record or not {"event", "message"} & record.keys():
        return message
    trace = str(record.get("traceback", "")).strip().rpartition("\n")[2]
    rest = [
        f"{name}={value if isinstance(value, str | int | float) else json.dumps(value)}"
        for name, value in record.items()
        if name not in {"time", "level", "event", "message", "traceback"}
    ]
    said = [str(record[name]) for name in ("event", "message") if name in record]
    line = " ".join([str(record["level"]).upper(), *said, *rest])
    return f"{line}: {trace}" if trace else line


def time_text(at: int) -> str:
    """A time in milliseconds since 1970, in UTC."""
    return datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def _record(message: str) -> Mapping[str, Any] | None:
    try:
        record = json.loads(message)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _metrics(record: Mapping[str, Any]) -> dict[str, float]:
    """The values of CloudWatch's embedded metric format; a metric may have several."""
    names = [
        metric["Name"]
        for directive in record["_aws"].get("CloudWatchMetrics", [])
        for metric in directive.get("Metrics", [])
    ]
    values = {name: record[name] for name in names if name in record}
    return {
        name: float(sum(value) if isinstance(value, list) else value)
        for name, value in values.items()
    }


def _started(told: Mapping[str, Any]) -> str:
    """An environment that starts for a call is told with the call."""
    kind = told.get("initializationType", "on-demand")
    return "" if kind == "on-demand" else f"a new environment starts ({kind})"


def _said(note: Mapping[str, Any]) -> str:
    """What the function itself has logged, and the last line of a trace."""
    trace = str(note.get("exception", "")).strip().rpartition("\n")[2]
    told = [note[name] for name in ("error", "message") if note.get(name)]
    return ": ".join([*map(str, told), *([trace] if trace else [])])
