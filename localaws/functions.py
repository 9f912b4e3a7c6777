"""Runs a Lambda function: its zip under AWS's own runtime interface client."""

import json
import math
import os
import queue
import shutil
import sys
import tempfile
import threading
import time
import uuid
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localaws.execution import ACCOUNT, REGION, Service
from localaws.loopback import LoopbackServer, Requests
from localaws.processes import ManagedProcess, Running

INIT_SECONDS = 10.0
"""What Lambda gives a function for its start."""

_POLL_SECONDS = 0.02
_RUNTIME_API = "/2018-06-01/runtime"


class Functions(Service):
    """Runs the functions that were created through Lambda."""


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


@dataclass(frozen=True)
class _Event:
    payload: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True)
class _Report:
    """What the runtime interface client reports: that it is ready, a response or an error."""

    kind: str
    body: bytes


_READY = _Report("ready", b"null")


class _EndedError(Exception):
    """The function's process ended by itself."""


class LambdaFunction(Running):
    """A function's zip in one execution environment, run by AWS's own runtime interface client.

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
            memory_mb: What the function is told of its memory; it is not enforced.
            timeout_seconds: Limit of one invocation.
            init_seconds: Limit of a start.
        """
        self._handler = handler
        self._log = log
        self._name = name
        self._memory_mb = memory_mb
        self._timeout_seconds = timeout_seconds
        self._init_seconds = init_seconds
        self._turn = threading.Lock()
        self._running: _ExecutionEnvironment | None = None
        log.parent.mkdir(parents=True, exist_ok=True)
        self._code = Path(tempfile.mkdtemp(prefix="kennel-lambda-"))
        with zipfile.ZipFile(package) as archive:
            archive.extractall(self._code)
        self._variables = {
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            **environment,
            **_reserved_variables(name, handler, memory_mb, self._code),
        }

    @property
    def arn(self) -> str:
        """The function's ARN."""
        return f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{self._name}"

    def invoke(self, event: object) -> InvocationResult:
        """Run the function once; a call from another thread waits for its turn."""
        with self._turn:
            request_id = str(uuid.uuid4())
            self._write(f"START RequestId: {request_id} Version: $LATEST")
            init_ms, duration_ms = None, 0.0
            if self._running is None:
                report, init_ms = _timed(lambda: self._start(request_id))
            running = self._running
            # A start that failed leaves none running.
            if running is not None:
                running.events.put(self._event(request_id, event))
                report, duration_ms = _timed(
                    lambda: self._wait(running, request_id, self._timeout_seconds)
                )
            self._write_end(request_id, duration_ms, init_ms)
        content = json.loads(report.body)
        if report.kind == "error":
            return InvocationResult(None, content, duration_ms, init_ms)
        return InvocationResult(content, None, duration_ms, init_ms)

    def stop(self) -> None:
        """End the function's process and remove its unpacked code."""
        self._discard()
        shutil.rmtree(self._code, ignore_errors=True)

    def _start(self, request_id: str) -> _Report:
        self._running = _ExecutionEnvironment(self._handler, self._log, self._variables, self._code)
        report = self._wait(self._running, request_id, self._init_seconds)
        if report != _READY:
            self._discard()
        return report

    def _wait(self, running: "_ExecutionEnvironment", request_id: str, seconds: float) -> _Report:
        """The client's next report; after a time-out or an exit, an error like Lambda's own."""
        try:
            report = running.wait(seconds)
        except TimeoutError:
            why = f"Task timed out after {seconds:.2f} seconds"
            report = _failure("Sandbox.Timedout", f"RequestId: {request_id} Error: {why}")
            self._write(f"{request_id} {why}")
            self._discard()
        except _EndedError as error:
            why = f"Runtime exited with error: exit status {error}"
            report = _failure("Runtime.ExitError", f"RequestId: {request_id} Error: {why}")
            self._write(report.body.decode())
            self._discard()
        return report

    def _discard(self) -> None:
        if self._running is not None:
            self._running.stop()
            self._running = None

    def _event(self, request_id: str, event: object) -> _Event:
        deadline_ms = int((time.time() + self._timeout_seconds) * 1000)
        trace = f"1-{int(time.time()):08x}-{uuid.uuid4().hex[:24]}"
        headers = {
            "Content-Type": "application/json",
            "Lambda-Runtime-Aws-Request-Id": request_id,
            "Lambda-Runtime-Deadline-Ms": str(deadline_ms),
            "Lambda-Runtime-Invoked-Function-Arn": self.arn,
            "Lambda-Runtime-Trace-Id": f"Root={trace};Parent={uuid.uuid4().hex[:16]};Sampled=0",
        }
        return _Event(json.dumps(event).encode(), headers)

    def _write_end(self, request_id: str, duration_ms: float, init_ms: float | None) -> None:
        init = f"\tInit Duration: {init_ms:.2f} ms" if init_ms is not None else ""
        self._write(
            f"END RequestId: {request_id}\n"
            f"REPORT RequestId: {request_id}\tDuration: {duration_ms:.2f} ms\t"
            f"Billed Duration: {math.ceil(duration_ms + (init_ms or 0))} ms\t"
            f"Memory Size: {self._memory_mb} MB{init}"
        )

    def _write(self, text: str) -> None:
        with self._log.open("a") as file:
            file.write(f"{text}\n")


class _ExecutionEnvironment(Running):
    """The function's process, and the runtime API that it takes its events from."""

    def __init__(self, handler: str, log: Path, variables: Mapping[str, str], code: Path) -> None:
        self.events: queue.SimpleQueue[_Event | None] = queue.SimpleQueue()
        self._reports: queue.SimpleQueue[_Report] = queue.SimpleQueue()
        self._api = LoopbackServer(_runtime_api(self.events, self._reports))
        self._process = ManagedProcess(
            [sys.executable, "-m", "awslambdaric", handler],
            log,
            {**variables, "AWS_LAMBDA_RUNTIME_API": self._api.address},
            code,
        )

    def wait(self, seconds: float) -> _Report:
        """The next report, waited for as long as the process lives.

        Raises:
            TimeoutError: None came within `seconds`.
            _EndedError: None came before the process ended; the error holds its exit status.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            exit_code = self._process.exit_code
            with suppress(queue.Empty):
                return self._reports.get(timeout=_POLL_SECONDS)
            if exit_code is not None:
                raise _EndedError(exit_code)
        raise TimeoutError

    def stop(self) -> None:
        self._process.kill()
        self.events.put(None)
        self._api.stop()


def _runtime_api(
    events: queue.SimpleQueue[_Event | None], reports: queue.SimpleQueue[_Report]
) -> type[Requests]:
    """Lambda's runtime API, version 2018-06-01, for one execution environment."""
    is_ready = threading.Event()

    class Answering(Requests):
        def do_GET(self) -> None:
            if self.path != f"{_RUNTIME_API}/invocation/next":
                self.answer_json(404, {})
                return
            if not is_ready.is_set():
                is_ready.set()
                reports.put(_READY)
            event = events.get()
            if event is None:
                self.close_connection = True
                return
            self.answer(200, event.payload, event.headers)

        def do_POST(self) -> None:
            kind = self.path.rpartition("/")[2]
            reports.put(_Report("response" if kind == "response" else "error", self.body()))
            self.answer_json(202, {"status": "OK"})

    return Answering


def _failure(kind: str, message: str) -> _Report:
    content = {"errorType": kind, "errorMessage": message}
    return _Report("error", json.dumps(content).encode())


def _timed(call: Callable[[], _Report]) -> tuple[_Report, float]:
    """The result of `call`, and what it took in milliseconds."""
    started = time.perf_counter()
    return call(), (time.perf_counter() - started) * 1000


def _reserved_variables(name: str, handler: str, memory_mb: int, code: Path) -> dict[str, str]:
    """What Lambda sets for every function."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return {
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EXECUTION_ENV": f"AWS_Lambda_{version}",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(memory_mb),
        "AWS_LAMBDA_FUNCTION_NAME": name,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{name}",
        "AWS_LAMBDA_LOG_STREAM_NAME": "local",
        "AWS_REGION": REGION,
        "LAMBDA_TASK_ROOT": str(code),
        "LANG": "en_US.UTF-8",
        "PATH": os.environ.get("PATH", os.defpath),
        # The code's folder is read-only on AWS, so that every cold start compiles it.
        "PYTHONDONTWRITEBYTECODE": "1",
        "TZ": ":UTC",
        "_HANDLER": handler,
    }
