"""A function's log: Lambda's own lines among the function's, and the way to CloudWatch Logs."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from localaws.execution import Metric, RoleError
from localaws.functions.runtimes import Runtime
from localaws.monitoring.log_events import put_lines

TAIL_BYTES = 4096
"""How much of its log an invocation's caller may see."""

Json = dict[str, Any]


@dataclass(frozen=True)
class Phase:
    """How a start or an invocation went.

    Attributes:
        milliseconds: What it took.
        status: "success", "error" or "timeout".
        error_type: Such as "Runtime.ExitError"; empty for a success and a time-out.
    """

    milliseconds: float
    status: str = "success"
    error_type: str = ""

    @property
    def _described(self) -> Json:
        return {
            "status": self.status,
            **({"errorType": self.error_type} if self.error_type else {}),
        }

    @property
    def _tail(self) -> str:
        error = f"\tError Type: {self.error_type}" if self.error_type else ""
        return "" if self.status == "success" else f"\tStatus: {self.status}{error}"


class FunctionLog:
    """The log file of an execution environment: the process writes to it, and Lambda does.

    The lines are Lambda's own, in the format and down to the level that the function's
    configuration says; source: "Working with Lambda function logs" of AWS's guide.
    """

    def __init__(self, path: Path, is_json: bool = False, level: str = "INFO") -> None:
        """Begin a log, or go on with one.

        Args:
            path: The file; its folder is made.
            is_json: Whether Lambda's own lines are JSON.
            level: The function's `SystemLogLevel`, for JSON.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._is_json = is_json
        self._is_quiet = is_json and level == "WARN"

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def tail(self, start: int) -> bytes:
        """The last 4 KiB of what was written since the log had `start` bytes."""
        with self.path.open("rb") as file:
            file.seek(max(start, self.size - TAIL_BYTES))
            return file.read()

    def init_start(self, initialization: str, runtime: Runtime) -> None:
        """An environment starts."""
        version = f"python:{runtime.python.minor}"
        if not self._is_quiet:
            record = {"initializationType": initialization, "phase": "init"}
            self._write(
                f"INIT_START Runtime Version: {version}",
                "initStart",
                {**record, "runtimeVersion": version},
            )
        if runtime.stands_in:
            self._warn(
                f"localaws finds no Python for {runtime.name}: its own {runtime.python.version} "
                "stands in"
            )

    def init_report(self, initialization: str, phase: Phase) -> None:
        """A start failed, or went past its limit."""
        record = {"initializationType": initialization, "phase": "init", **phase._described}
        self._write(
            f"INIT_REPORT Init Duration: {phase.milliseconds:.2f} ms\tPhase: init{phase._tail}",
            "initReport",
            {**record, "metrics": {"durationMs": round(phase.milliseconds, 3)}},
        )

    def start(self, request_id: str, version: str) -> None:
        """An invocation begins."""
        if not self._is_quiet:
            self._write(
                f"START RequestId: {request_id} Version: {version}",
                "start",
                {"requestId": request_id, "version": version},
            )

    def _warn(self, message: str) -> None:
        content = {"timestamp": timestamp(), "level": "WARN", "message": message}
        self._append(json.dumps(content) if self._is_json else f"[WARN] {message}")

    def note(self, text: str) -> None:
        """What Lambda has to say of a failure, which has no line of its own in JSON."""
        if not self._is_json:
            self._append(text)

    def report(
        self,
        request_id: str,
        phase: Phase,
        memory_mb: int,
        used_bytes: int,
        init_ms: float | None,
    ) -> None:
        """An invocation is over.

        Args:
            request_id: Its id.
            phase: How it went.
            memory_mb: What the function may use.
            used_bytes: The most that the environment has used.
            init_ms: What the start took, if this was the first invocation after it.
        """
        if self._is_quiet and phase.status == "success":
            return
        used_mb = math.ceil(used_bytes / (1 << 20))
        billed_ms = math.ceil(phase.milliseconds + (init_ms or 0))
        init = f"\tInit Duration: {init_ms:.2f} ms" if init_ms is not None else ""
        metrics = {
            "durationMs": round(phase.milliseconds, 3),
            "billedDurationMs": billed_ms,
            "memorySizeMB": memory_mb,
            "maxMemoryUsedMB": used_mb,
            **({"initDurationMs": round(init_ms, 3)} if init_ms is not None else {}),
        }
        self._write(
            f"END RequestId: {request_id}\n"
            f"REPORT RequestId: {request_id}\tDuration: {phase.milliseconds:.2f} ms\t"
            f"Billed Duration: {billed_ms} ms\tMemory Size: {memory_mb} MB\t"
            f"Max Memory Used: {used_mb} MB{init}{phase._tail}",
            "report",
            {"requestId": request_id, "metrics": metrics, **phase._described},
        )

    def _write(self, text: str, kind: str, record: Json) -> None:
        if self._is_json:
            text = json.dumps({"time": timestamp(), "type": f"platform.{kind}", "record": record})
        self._append(text)

    def _append(self, text: str) -> None:
        with self.path.open("a") as file:
            file.write(f"{text}\n")


def timestamp() -> str:
    """Now, as Lambda writes it: 2026-01-31T12:00:00.000Z."""
    return f"{datetime.now(UTC).isoformat(timespec='milliseconds')[:-6]}Z"


class LogStream:
    """Brings one environment's log to CloudWatch Logs, where its metrics are taken out of it."""

    def __init__(
        self,
        log: FunctionLog,
        group: str,
        name: str,
        client: Callable[[], Any],
        may_create_group: Callable[[], bool],
        publish: Callable[[str, Iterable[Metric]], None],
    ) -> None:
        """Nothing is sent yet.

        Args:
            log: The log.
            group: The log group.
            name: The stream's name.
            client: Gives CloudWatch Logs' client under the function's role.
            may_create_group: Says whether the role lets Lambda make the group if it is missing.
            publish: Takes a namespace and values of metrics.
        """
        self._log = log
        self._group = group
        self._name = name
        self._client = client
        self._may_create_group = may_create_group
        self._publish = publish
        self._sent = 0

    def send(self) -> None:
        """Send the lines that are new and whole; without the right to, as on AWS, they are lost."""
        if self._log.size > self._sent:
            text = self._new()
            self._send(text[: text.rfind(b"\n") + 1])

    def close(self) -> None:
        """Send the rest, and remove the file: nobody writes to it any more."""
        self._send(self._new())
        self._log.path.unlink(missing_ok=True)

    def _new(self) -> bytes:
        with self._log.path.open("rb") as file:
            file.seek(self._sent)
            return file.read()

    def _send(self, whole: bytes) -> None:
        self._sent += len(whole)
        lines = whole.decode(errors="replace").split("\n")
        with suppress(ClientError, BotoCoreError, RoleError):
            put_lines(self._client(), self._group, self._name, lines, self._may_create_group)
            for namespace, metrics in embedded_metrics(lines):
                self._publish(namespace, metrics)


def embedded_metrics(lines: Iterable[str]) -> Iterator[tuple[str, list[Metric]]]:
    """The metrics in log lines of CloudWatch's embedded metric format, by namespace.

    Source: "Specification: Embedded metric format" of CloudWatch's user guide. What does not follow
    it is passed over, as CloudWatch does.
    """
    found: list[tuple[str, Metric]] = []
    for line in lines:
        if line.startswith("{") and '"_aws"' in line:
            with suppress(ValueError, KeyError, TypeError, AttributeError):
                found += _metrics_of(json.loads(line))
    for namespace, metrics in groupby(sorted(found, key=_namespace), key=_namespace):
        yield namespace, [metric for _, metric in metrics]


def _namespace(metric: tuple[str, Metric]) -> str:
    return metric[0]


def _metrics_of(content: Mapping[str, Any]) -> list[tuple[str, Metric]]:
    found = []
    for directive in content["_aws"]["CloudWatchMetrics"]:
        for names in directive["Dimensions"]:
            dimensions = {name: str(content[name]) for name in names}
            for metric in directive["Metrics"]:
                values = content[metric["Name"]]
                for value in values if isinstance(values, list) else [values]:
                    unit = metric.get("Unit", "None")
                    made = Metric(metric["Name"], float(value), dimensions, unit)
                    found.append((directive["Namespace"], made))
    return found
