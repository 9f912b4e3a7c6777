"""An execution environment of a Lambda function: AWS's own runtime interface client in a process.

It asks for events over Lambda's runtime API, version 2018-06-01, as it does on AWS.
"""

import json
import platform
import queue
import shutil
import signal
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from localaws import pythons, regions
from localaws.functions import bootstrap
from localaws.functions.log import FunctionLog, Phase, timestamp
from localaws.functions.runtimes import Runtime
from localaws.loopback import GuardedRequests, LoopbackServer, Requests
from localaws.processes import ManagedProcess, Running

INIT_SECONDS = 10.0
"""What Lambda gives a function for its start on demand."""
ON_DEMAND = "on-demand"
PROVISIONED = "provisioned-concurrency"
MAX_ANSWER_BYTES = 6_291_556
"""Largest answer of a function: 6 MiB and 100 bytes."""

_POLL_SECONDS = 0.02
_RUNTIME_API = "/2018-06-01/runtime"

_Events = queue.SimpleQueue[tuple[bytes, Mapping[str, str]] | None]
_Reports = queue.SimpleQueue["_Report"]


@dataclass(frozen=True)
class Program:
    """What an execution environment runs: one version of a function.

    Attributes:
        name: The function's name.
        version: Its version, such as "$LATEST".
        handler: `module.function` in the code.
        code: Folder with the unpacked code.
        runtime: What runs it.
        variables: The process's environment but for what Lambda itself sets: the function's own
            variables, and credentials.
        memory_mb: What the process may use.
        timeout_seconds: Limit of one invocation.
        log_group: Where its log goes.
    """

    name: str
    version: str
    handler: str
    code: Path
    runtime: Runtime
    variables: Mapping[str, str]
    memory_mb: int
    timeout_seconds: float
    log_group: str


@dataclass(frozen=True)
class Event:
    """What a function is asked.

    Attributes:
        payload: JSON.
        function_arn: The ARN that was called, with its qualifier.
        client_context: JSON of a mobile SDK's context; empty if none was given.
        request_id: The invocation's id.
    """

    payload: bytes
    function_arn: str
    client_context: str = ""
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def headers(self, seconds: float) -> dict[str, str]:
        """What the runtime API says beside the payload, `seconds` before the time-out."""
        trace = f"1-{int(time.time()):08x}-{uuid.uuid4().hex[:24]}"
        context = {"Lambda-Runtime-Client-Context": self.client_context}
        return {
            "Content-Type": "application/json",
            "Lambda-Runtime-Aws-Request-Id": self.request_id,
            "Lambda-Runtime-Deadline-Ms": str(int((time.time() + seconds) * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": self.function_arn,
            "Lambda-Runtime-Trace-Id": f"Root={trace};Parent={uuid.uuid4().hex[:16]};Sampled=0",
            **(context if self.client_context else {}),
        }


@dataclass(frozen=True)
class Outcome:
    """What came of an invocation.

    Attributes:
        payload: The function's answer in JSON, or the error as Lambda words it.
        phase: How it went, without the start.
        init_ms: What the environment's start took, if this was the first invocation after it.
        log_tail: The end of the invocation's log.
    """

    payload: bytes
    phase: Phase
    init_ms: float | None
    log_tail: bytes

    @property
    def failed(self) -> bool:
        """Whether the payload is an error."""
        return self.phase.status != "success"


@dataclass(frozen=True)
class _Report:
    """What the runtime interface client reports, or what became of it.

    Attributes:
        status: "ready", "response", "error" or "timeout".
        body: The client's JSON.
        kind: Type of an error.
        why: What ended the process, where the client did not say anything itself.
    """

    status: str
    body: bytes = b""
    kind: str = ""
    why: str = ""

    def phase(self, milliseconds: float) -> Phase:
        """The same for the log."""
        status = "success" if self.status in ("ready", "response") else self.status
        return Phase(milliseconds, status, self.kind if status == "error" else "")

    def payload(self, request_id: str) -> bytes:
        """What Lambda answers the caller."""
        if not self.why:
            return self.body
        message = f"RequestId: {request_id} Error: {self.why}"
        return json.dumps({"errorType": self.kind, "errorMessage": message}).encode()


_READY = _Report("ready")


class Environment(Running):
    """One execution environment: it answers one event at a time and stays warm in between.

    Its memory limit is on the resident memory of the function's process. A limit on the address
    space (RLIMIT_AS) would count the stacks of threads and mapped files, which Lambda does not.
    What is looked at is the kernel's own high-water mark, so that no peak between two looks is
    missed.
    """

    def __init__(
        self,
        program: Program,
        log: FunctionLog,
        stream: str,
        temporary: Path,
        initialization: str = ON_DEMAND,
    ) -> None:
        """Start the process.

        Args:
            program: What to run.
            log: Where its output goes.
            stream: Name of the log stream, which the function is told.
            temporary: Folder for its temporary files; made here, and removed at the end.
            initialization: ON_DEMAND or PROVISIONED.
        """
        temporary.mkdir(parents=True, exist_ok=True)
        self.program = program
        self.log = log
        self.is_ready = False
        self.usable = True
        """Whether it may be given another event."""
        self._initialization = initialization
        self._temporary = temporary
        self._events: _Events = queue.SimpleQueue()
        self._reports: _Reports = queue.SimpleQueue()
        self._peak_bytes = 0
        self._init_ms: float | None = None
        self._first = True
        self._failed_start: _Report | None = None
        log.init_start(initialization, program.runtime)
        self._started = time.monotonic()
        self._api = LoopbackServer(_runtime_api(self._events, self._reports))
        self._process = ManagedProcess(
            [str(program.runtime.program), bootstrap.__file__],
            log.path,
            {
                **_inside(program),
                **_reserved_variables(program, stream, initialization),
                "AWS_LAMBDA_RUNTIME_API": self._api.address,
                "TMPDIR": str(temporary),
            },
            program.code,
        )

    @property
    def age(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    @property
    def failure(self) -> str:
        """Type of the error of a start that failed; empty otherwise."""
        return self._failed_start.kind if self._failed_start else ""

    def initialize(self, seconds: float = INIT_SECONDS) -> None:
        """Wait until the function is ready, has failed to start, or `seconds` are over. Once.

        In the last case it may go on to start within its first invocation, and within that one's
        time-out; Lambda begins the start anew then.
        """
        if self._init_ms is not None:
            return
        report, took_ms = _timed(lambda: self._wait(seconds))
        self._init_ms = took_ms
        if report is _READY:
            self.is_ready = True
            return
        self.log.init_report(self._initialization, report.phase(took_ms))
        if report.status == "error":
            self._failed_start = _explained(report, self.program)
            self.stop()

    def invoke(self, event: Event, init_seconds: float = INIT_SECONDS) -> Outcome:
        """Let the function answer; what does not come back from it is ended."""
        begun = 0 if self._first else self.log.size
        self.initialize(init_seconds)
        self.log.start(event.request_id, self.program.version)
        if self._failed_start:
            report, took_ms = self._failed_start, 0.0
        else:
            report, took_ms = _timed(lambda: self._answer(event))
        if report.why:
            self.log.note(f"{timestamp()} {event.request_id} {report.why}")
        phase, init_ms = report.phase(took_ms), self._init_ms if self._first else None
        self._first = False
        self.log.report(event.request_id, phase, self.program.memory_mb, self._peak_bytes, init_ms)
        payload = report.payload(event.request_id)
        return Outcome(payload, phase, init_ms, self.log.tail(begun))

    def stop(self) -> None:
        """End the process and remove its temporary files."""
        self.usable = False
        self._process.kill()
        self._events.put(None)
        self._api.stop()
        shutil.rmtree(self._temporary, ignore_errors=True)

    def _answer(self, event: Event) -> _Report:
        seconds = self.program.timeout_seconds
        deadline = time.monotonic() + seconds
        report = _READY if self.is_ready else self._wait(seconds)
        if report is _READY:
            self.is_ready = True
            left = deadline - time.monotonic()
            self._events.put((event.payload, event.headers(left)))
            report = self._wait(left)
        if report.why:
            self.stop()
        return _too_large(report) if len(report.body) > MAX_ANSWER_BYTES else report

    def _wait(self, seconds: float) -> _Report:
        """The client's next report; what became of the process, or of the time, if none came."""
        deadline = time.monotonic() + seconds
        while True:
            exit_code = self._process.exit_code
            left = deadline - time.monotonic()
            report = None
            with suppress(queue.Empty):
                report = self._reports.get(timeout=max(0.0, min(left, _POLL_SECONDS)))
            if self._is_out_of_memory():
                exit_code = -signal.SIGKILL
            elif report:
                return report
            if exit_code is not None:
                return _Report("error", kind="Runtime.ExitError", why=_ended(exit_code))
            if left <= 0:
                why = f"Task timed out after {self.program.timeout_seconds:.2f} seconds"
                return _Report("timeout", kind="Sandbox.Timedout", why=why)

    def _is_out_of_memory(self) -> bool:
        self._peak_bytes = max(self._peak_bytes, _peak_bytes(self._process.pid))
        return self._peak_bytes > self.program.memory_mb << 20


def _peak_bytes(pid: int) -> int:
    """The most memory that a process has had resident; 0 where the system does not tell."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    return 0


def _ended(exit_code: int) -> str:
    """How a process ended, in Lambda's words."""
    if exit_code == 0:
        return "Runtime exited without providing a reason"
    if exit_code > 0:
        return f"Runtime exited with error: exit status {exit_code}"
    name = signal.strsignal(-exit_code) or str(-exit_code)
    return f"Runtime exited with error: signal: {name.lower()}"


def _too_large(report: _Report) -> _Report:
    kind = "Function.ResponseSizeTooLarge"
    why = (
        f"Response payload size ({len(report.body)} bytes) exceeded maximum allowed payload size "
        f"({MAX_ANSWER_BYTES} bytes)."
    )
    body = json.dumps({"errorType": kind, "errorMessage": why}).encode()
    return _Report("error", body, kind)


def _explained(report: _Report, program: Program) -> _Report:
    """A start that failed by an import, with the reason if the code is for another machine."""
    code, python = program.code, program.runtime.python
    machine = _machine(python.path)
    foreign = sorted(
        path.relative_to(code).as_posix()
        for path in code.rglob("*.so")
        if path.name[path.name.index(".") :] not in python.suffixes or _machine(path) != machine
    )
    if report.kind != "Runtime.ImportModuleError" or not foreign:
        return report
    content = json.loads(report.body)
    content["errorMessage"] += (
        f" (localaws runs Python {python.version} on {platform.machine()}, which cannot"
        f" load the package's {foreign[0]}; give it a package of pure Python, or one for here)"
    )
    return replace(report, body=json.dumps(content).encode())


def _machine(path: Path) -> bytes:
    """The machine that an ELF file is for (its header's e_machine)."""
    with path.open("rb") as file:
        return file.read(20)[18:]


def _runtime_api(events: _Events, reports: _Reports) -> type[Requests]:
    """Lambda's runtime API for one execution environment."""
    is_ready = threading.Event()
    asked = str(uuid.uuid4())  # What nobody was asked, and nobody knows.

    class Answering(GuardedRequests):
        def do_GET(self) -> None:
            nonlocal asked
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
            asked = event[1]["Lambda-Runtime-Aws-Request-Id"]
            self.answer(200, *event)

        def do_POST(self) -> None:
            body = self.body()
            invocation = f"{_RUNTIME_API}/invocation/{asked}"
            if self.path == f"{invocation}/response":
                reports.put(_Report("response", body))
            elif self.path not in (f"{invocation}/error", f"{_RUNTIME_API}/init/error"):
                # Who does not know what was asked has no answer to it.
                self.answer_json(400, {"errorType": "InvalidRequestID"})
                return
            else:
                reports.put(_Report("error", body, json.loads(body).get("errorType", "Unknown")))
            self.answer_json(202, {"status": "OK"})

    return Answering


def _timed(call: Callable[[], _Report]) -> tuple[_Report, float]:
    """The result of `call`, and what it took in milliseconds."""
    started = time.perf_counter()
    return call(), (time.perf_counter() - started) * 1000


def _inside(program: Program) -> dict[str, str]:
    """The function's variables, in the environment of its runtime."""
    variables = pythons.inside(program.runtime.folder, program.variables)
    del variables["VIRTUAL_ENV"]
    return variables


def _reserved_variables(program: Program, stream: str, initialization: str) -> dict[str, str]:
    """What Lambda sets for every function."""
    return {
        "AWS_DEFAULT_REGION": regions.current(),
        "AWS_EXECUTION_ENV": f"AWS_Lambda_{program.runtime.name}",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(program.memory_mb),
        "AWS_LAMBDA_FUNCTION_NAME": program.name,
        "AWS_LAMBDA_FUNCTION_VERSION": program.version,
        "AWS_LAMBDA_INITIALIZATION_TYPE": initialization,
        "AWS_LAMBDA_LOG_GROUP_NAME": program.log_group,
        "AWS_LAMBDA_LOG_STREAM_NAME": stream,
        "AWS_REGION": regions.current(),
        "AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR",
        "LAMBDA_RUNTIME_DIR": str(program.runtime.packages),
        "LAMBDA_TASK_ROOT": str(program.code),
        "LANG": "en_US.UTF-8",
        # The code's folder is read-only on AWS, so that every cold start compiles it.
        "PYTHONDONTWRITEBYTECODE": "1",
        "TZ": ":UTC",
        "_HANDLER": program.handler,
    }
