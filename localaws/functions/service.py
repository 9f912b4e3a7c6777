"""Runs Lambda functions: their zips under AWS's own runtime interface client.

The parts are `function_environment` (a process), `function_fleet` (those of a version),
`function_log`, `function_queue` (asynchronous events), `function_records` (moto's) and
`function_url`.
"""

import io
import json
import os
import re
import shutil
import tempfile
import threading
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moto.core.exceptions import JsonRESTError

from localaws import regions
from localaws.execution import ACCOUNT, Execution, Metric, RoleError, Service
from localaws.functions.environment import INIT_SECONDS, Environment, Event, Outcome, Program
from localaws.functions.fleet import Fleet
from localaws.functions.log import FunctionLog
from localaws.functions.queue import EventQueue
from localaws.functions.records import (
    LATEST,
    InvocationError,
    Invoked,
    Key,
    arn_of,
    chosen_version_of,
    function_of,
    functions,
    key_of,
    version_of,
    versions_of,
)
from localaws.functions.runtimes import NoPythonError, Runtime, Runtimes, make_runtime
from localaws.functions.url import FunctionUrls
from localaws.processes import Running
from localaws.pythons import own

CONCURRENCY = 1000
"""Concurrent executions of an account."""
UNRESERVED_CONCURRENCY = 100
"""What must be left of them to functions without a reservation."""

SERVICE = "lambda.amazonaws.com"
"""Who acts under a function's role."""
NOT_ASSUMED = "The role defined for the function cannot be assumed by Lambda."

_METRICS_SECONDS = 10.0
_TICK_SECONDS = 1.0
_LOG_SECONDS = 0.5


@dataclass(frozen=True)
class Readiness:
    """How far Lambda is with what is to be kept ready: members of its own answer."""

    ready: int
    status: str
    reason: str = ""


class Functions(Service):
    """Runs the functions that were created through Lambda.

    Events that wait for another try in an asynchronous invocation end with localaws.
    """

    def __init__(self, execution: Execution) -> None:
        """Make the service; nothing runs yet."""
        super().__init__(execution)
        self._lock = threading.RLock()
        self._fleets: dict[Key, Fleet] = {}
        self._leaving: list[Fleet] = []
        self._running: Counter[str] = Counter()
        self._runtimes = Runtimes(execution.folder / "functions/runtimes")
        self._figures = _Figures()
        self._wake = threading.Event()
        self._log_wanted = threading.Event()
        self._ended = threading.Event()
        self._queue = EventQueue(self)
        self._urls = FunctionUrls(self)

    def resume(self) -> None:
        """Start what is kept ready, and serve the URLs."""
        for work in (self._keep_house, self._send_logs):
            regions.Thread(target=work, daemon=True).start()

    def stop(self) -> None:
        """End all environments."""
        self._ended.set()
        self.changed()
        self._urls.stop()
        with self._lock:
            fleets = [*self._fleets.values(), *self._leaving]
            self._fleets.clear()
        for fleet in fleets:
            fleet.kill()
            fleet.send_logs()

    def changed(self) -> None:
        """Look at the records soon: what is to be kept ready, or served, may have changed."""
        self._wake.set()

    def invoke(
        self, name: str, qualifier: str | None, payload: bytes, client_context: str = ""
    ) -> Invoked:
        """Run a function and wait for its answer.

        Args:
            name: The function's name.
            qualifier: Alias or version; None for what is not published.
            payload: JSON.
            client_context: JSON of a mobile SDK's context; empty if there is none.

        Raises:
            InvocationError: It is throttled, or cannot be run.
            JsonRESTError: There is no such function, alias or version; moto's own answer.
        """
        function = function_of(name)
        version = version_of(name, qualifier)
        fleet = self._fleet(version)
        event = Event(payload, arn_of(function, qualifier), client_context)
        with self._admitted(function, qualifier), self.execution.waiting():
            try:
                outcome, was_ready = fleet.invoke(event, qualifier or LATEST)
            except RoleError as error:
                raise _not_assumed(error) from error
        self._count(name, qualifier, fleet, outcome, was_ready)
        self._log_wanted.set()
        return Invoked(outcome, str(version.version), event.request_id)

    def submit(self, name: str, qualifier: str | None, payload: bytes) -> str:
        """Take an event for later; the same as `invoke`, but for the answer.

        Returns:
            The id of the request.

        Raises:
            InvocationError: It cannot be run.
        """
        self._runtime(version_of(name, qualifier))
        return self._queue.submit(name, qualifier, payload)

    def fleet(self, name: str, qualifier: str | None) -> Fleet:
        """The environments of the version that a qualifier stands for.

        Raises:
            InvocationError: It cannot be run.
            JsonRESTError: There is no such function, alias or version; moto's own answer.
        """
        return self._fleet(version_of(name, qualifier))

    def count(self, metric: str, name: str, qualifier: str | None) -> None:
        """Count one in a metric of a function."""
        self._figures.add(metric, name, qualifier)

    def serve_url(self, name: str, qualifier: str | None) -> str:
        """Serve the URL of a function or an alias.

        Returns:
            The URL.
        """
        return self._urls.open(name, qualifier)

    def readiness(self, name: str, qualifier: str, wanted: int) -> Readiness:
        """How far what is to be kept ready for a qualifier is."""
        try:
            version = chosen_version_of(name, qualifier)
            reserve = self._fleet(version).reserves().get(qualifier)
        except InvocationError as error:
            return Readiness(0, "FAILED", str(error))
        if reserve is None:
            return Readiness(0, "IN_PROGRESS")
        if reserve.failed:
            return Readiness(reserve.ready, "FAILED", "FUNCTION_ERROR_INIT_FAILURE")
        ready = min(reserve.ready, wanted)
        return Readiness(ready, "READY" if ready == wanted else "IN_PROGRESS")

    def try_again(self, name: str, qualifier: str) -> None:
        """Start what is to be kept ready anew, where that failed."""
        with suppress(InvocationError):
            self._fleet(chosen_version_of(name, qualifier)).try_again(qualifier)
        self.changed()

    @contextmanager
    def _admitted(self, function: Any, qualifier: str | None) -> Iterator[None]:
        """Count an execution, within the limits of the function and the account."""
        name, reserved = function.function_name, function.reserved_concurrency
        reservations = {
            other.function_name: other.reserved_concurrency
            for other in functions()
            if other.reserved_concurrency is not None
        }
        with self._lock:
            if reserved is not None:
                kind, free = "ReservedFunctionConcurrent", reserved - self._running[name]
            else:
                kind, free = "Concurrent", CONCURRENCY - sum(reservations.values())
                free -= sum(n for other, n in self._running.items() if other not in reservations)
            if free > 0:
                self._running[name] += 1
                self._figures.peak("ConcurrentExecutions", name, None, self._running[name])
        self._figures.add("Throttles", name, qualifier, 0 if free > 0 else 1)
        if free <= 0:
            raise InvocationError(
                429,
                "TooManyRequestsException",
                "Rate Exceeded.",
                f"{kind}InvocationLimitExceeded",
            )
        try:
            yield
        finally:
            with self._lock:
                self._running[name] -= 1

    def _fleet(self, version: Any) -> Fleet:
        runtime = self._runtime(version)
        with self._lock:
            key = key_of(version)
            if key not in self._fleets:
                try:
                    config = version.get_configuration()
                    self._fleets[key] = Fleet(self.execution, config, version.code_bytes, runtime)
                except zipfile.BadZipFile as error:
                    raise InvocationError(
                        502,
                        "InvalidZipFileException",
                        f"Lambda could not unzip the deployment package: {error}",
                    ) from error
            return self._fleets[key]

    def _runtime(self, version: Any) -> Runtime:
        """What runs a version.

        Raises:
            InvocationError: localaws cannot run it.
        """
        if not re.fullmatch(r"python3\.\d+", version.run_time or ""):
            reason = (
                f"localaws runs functions of Python from a zip, and the runtime of "
                f"{version.function_arn} is {version.run_time or 'a container image'}"
            )
        elif version.layers:
            reason = (
                f"localaws runs no layers, and {version.function_arn} has some; put what they hold "
                "into the function's zip"
            )
        else:
            try:
                return self._runtimes.find(version.run_time)
            except NoPythonError as error:
                reason = str(error)
        raise InvocationError(502, "InvalidRuntimeException", reason)

    def _count(
        self, name: str, qualifier: str | None, fleet: Fleet, outcome: Outcome, was_ready: bool
    ) -> None:
        self._figures.add("Invocations", name, qualifier)
        self._figures.add("Errors", name, qualifier, int(outcome.failed))
        self._figures.time(name, qualifier, outcome.phase.milliseconds)
        if was_ready:
            self._figures.add("ProvisionedConcurrencyInvocations", name, qualifier)
        elif qualifier and fleet.has_reserve(qualifier):
            self._figures.add("ProvisionedConcurrencySpilloverInvocations", name, qualifier)

    def _keep_house(self) -> None:
        published = time.monotonic()
        while not self._ended.is_set():
            try:
                self._follow_records()
                self._urls.follow_records()
                if time.monotonic() - published >= self.execution.seconds(_METRICS_SECONDS):
                    published = time.monotonic()
                    self._publish()
            # Requests change the records meanwhile; the next look finds them whole.
            except Exception:
                traceback.print_exc()
            self._wake.wait(min(_TICK_SECONDS, self.execution.seconds(_METRICS_SECONDS)))
            self._wake.clear()

    def _follow_records(self) -> None:
        """Run what the records say is to be kept ready, and end what they no longer hold."""
        wanted: dict[tuple[Key, str], int] = {}
        for function in functions():
            for qualifier, found in list(function.qualified.items()):
                with suppress(InvocationError, JsonRESTError):
                    if found.provisioned:
                        name, executions = function.function_name, found.provisioned.executions
                        if (
                            found.former
                            and self.readiness(name, qualifier, executions).status != "IN_PROGRESS"
                        ):
                            found.former = None
                        for version in (chosen_version_of, version_of):
                            answering = version(name, qualifier)
                            self._fleet(answering)
                            wanted[key_of(answering), qualifier] = executions
        with self._lock:
            held = {key_of(version) for each in functions() for version in versions_of(each)}
            gone = [self._fleets.pop(key) for key in set(self._fleets) - held]
            fleets = dict(self._fleets)
        for fleet in gone:
            fleet.stop()
        self._leaving += gone
        for fleet in list(self._leaving):
            fleet.send_logs()
            if fleet.is_over:
                fleet.kill()
                self._leaving.remove(fleet)
        for key, fleet in fleets.items():
            for qualifier in fleet.reserves():
                if (key, qualifier) not in wanted:
                    fleet.keep_ready(qualifier, 0)
            fleet.tidy()
        for (key, qualifier), executions in wanted.items():
            fleets[key].keep_ready(qualifier, executions)

    def _publish(self) -> None:
        for key, fleet in list(self._fleets.items()):
            for qualifier, reserve in fleet.reserves().items():
                busy, reserve.most_busy = max(reserve.busy, reserve.most_busy), 0
                for metric, value in (
                    ("ProvisionedConcurrentExecutions", float(busy)),
                    ("ProvisionedConcurrencyUtilization", busy / max(reserve.ready, 1)),
                ):
                    self._figures.peak(metric, key[0], qualifier, value)
        if values := self._figures.take():
            self.execution.publish("AWS/Lambda", values)

    def _send_logs(self) -> None:
        while not self._ended.is_set():
            self._log_wanted.wait(_LOG_SECONDS)
            self._log_wanted.clear()
            for fleet in list(self._fleets.values()):
                try:
                    fleet.send_logs()
                # One function's log must not keep the others' from being sent.
                except Exception:
                    traceback.print_exc()


class _Figures:
    """Values of CloudWatch's metrics of functions, gathered between two times they are sent."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[tuple[str, str, str | None], float] = {}
        self._times: list[Metric] = []

    def add(self, metric: str, name: str, qualifier: str | None, value: float = 1) -> None:
        """Add to a sum."""
        with self._lock:
            for each in {None, qualifier}:
                key = (metric, name, each)
                self._values[key] = self._values.get(key, 0) + value

    def peak(self, metric: str, name: str, qualifier: str | None, value: float) -> None:
        """Keep the largest value."""
        with self._lock:
            for each in {None, qualifier}:
                key = (metric, name, each)
                self._values[key] = max(self._values.get(key, 0), value)

    def time(self, name: str, qualifier: str | None, milliseconds: float) -> None:
        """Keep how long an invocation took."""
        with self._lock:
            for each in {None, qualifier}:
                dimensions = _dimensions(name, each)
                self._times.append(Metric("Duration", milliseconds, dimensions, "Milliseconds"))

    def take(self) -> list[Metric]:
        """All values; there are none afterwards."""
        with self._lock:
            values, self._values = self._values, {}
            times, self._times = self._times, []
        return times + [
            Metric(metric, value, _dimensions(name, qualifier), "Count")
            for (metric, name, qualifier), value in values.items()
        ]


def _dimensions(name: str, qualifier: str | None) -> dict[str, str]:
    resource = {"Resource": f"{name}:{qualifier}"} if qualifier else {}
    return {"FunctionName": name, **resource}


def _not_assumed(error: RoleError) -> InvocationError:
    return InvocationError(403, "AccessDeniedException", f"{NOT_ASSUMED} ({error})")


@dataclass(frozen=True)
class InvocationResult:
    """What came of one invocation: the function's JSON as `payload`, or an `error` as Lambda's."""

    payload: Any
    error: Mapping[str, Any] | None
    duration_ms: float
    init_ms: float | None
    """What the start of a new environment took before, or None in a warm one."""

    @property
    def cold(self) -> bool:
        """Whether the invocation had to wait for a start."""
        return self.init_ms is not None


class LambdaFunction(Running):
    """A function's zip in one execution environment, without Lambda's API around it.

    As on AWS, an environment starts with the first invocation, answers one at a time, stays warm,
    and is killed and replaced after a time-out or a crash.
    """

    def __init__(
        self,
        package: Path,
        handler: str,
        log: Path,
        environment: Mapping[str, str],
        *,
        name: str = "kennel",
        memory_mb: int = 512,
        timeout_seconds: float = 15.0,
        init_seconds: float = INIT_SECONDS,
    ) -> None:
        """Unpack the zip; nothing runs yet.

        Args:
            package: The function's zip.
            handler: `module.function` in it.
            log: File for the function's output and Lambda's START, END and REPORT lines.
            environment: The function's environment variables; nothing is inherited but PATH.
            name: The function's name.
            memory_mb: What the function may use.
            timeout_seconds: Limit of one invocation.
            init_seconds: Limit of a start.
        """
        self.arn = f"arn:aws:lambda:{regions.current()}:{ACCOUNT}:function:{name}"
        """The function's ARN."""
        self._init_seconds = init_seconds
        self._turn = threading.Lock()
        self._running: Environment | None = None
        self._folder = Path(tempfile.mkdtemp(prefix="kennel-lambda-"))
        self._log = FunctionLog(log)
        with zipfile.ZipFile(io.BytesIO(package.read_bytes())) as archive:
            archive.extractall(self._folder / "code")
        self._program = Program(
            name=name,
            version=LATEST,
            handler=handler,
            code=self._folder / "code",
            runtime=make_runtime(f"python{own().minor}", own(), self._folder / "runtime"),
            variables={
                "AWS_ACCESS_KEY_ID": "local",
                "AWS_SECRET_ACCESS_KEY": "local",
                "PATH": os.environ.get("PATH", os.defpath),
                **environment,
            },
            memory_mb=memory_mb,
            timeout_seconds=timeout_seconds,
            log_group=f"/aws/lambda/{name}",
        )

    def invoke(self, event: object) -> InvocationResult:
        """Run the function once; a call from another thread waits for its turn."""
        with self._turn:
            if self._running is None or not self._running.usable:
                temporary = self._folder / "tmp"
                self._running = Environment(self._program, self._log, "local", temporary)
            outcome = self._running.invoke(
                Event(json.dumps(event).encode(), self.arn), self._init_seconds
            )
        content = json.loads(outcome.payload)
        payload, error = (None, content) if outcome.failed else (content, None)
        return InvocationResult(payload, error, outcome.phase.milliseconds, outcome.init_ms)

    def stop(self) -> None:
        """End the function's process and remove its unpacked code."""
        if self._running:
            self._running.stop()
        shutil.rmtree(self._folder, ignore_errors=True)
