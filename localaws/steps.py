"""The steps of a demonstration: run, told, timed, and ended together when one fails."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Generic, Self, TypeVar

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from localaws.files import replacing
from localaws.processes import session_seconds
from localaws.progress import Progress

T = TypeVar("T")

_POLL_SECONDS = 0.1
_LOOK_SECONDS = 5.0
# Long enough for Terraform to put what it was doing into its state.
_STOP_SECONDS = 60.0
# So many seconds of a processor are progress too: more than a process uses that only waits.
_BUSY_SECONDS = 10.0
_TAIL_BYTES = 4096
# In a storm a command may end with a line that says why; given again, it reaches the goal.
_STORM_ATTEMPTS = 8
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class DemoError(Exception):
    """A step of the demonstration failed; the message says how."""


class StoppedError(Exception):
    """A step cannot go on, since another one failed or somebody wants the end."""


class Step:
    """One step of the timeline.

    Attributes:
        name: For people.
        log: What its commands print.
        started: Seconds since the beginning.
        seconds: How long it took; None while it runs.
        state: "running", "done", "failed", or "stopped" where it was not its own fault.
        note: What it is waiting for.
    """

    def __init__(self, steps: "Steps", name: str, log: Path) -> None:
        self.name, self.log = name, log
        self.started = steps.now
        self.seconds: float | None = None
        self.state = "running"
        self.note = ""
        self.repeats = 0
        """How often a command was given again."""
        self._steps = steps

    def described(self) -> dict[str, Any]:
        """The step for the report."""
        seconds = self._steps.now - self.started if self.seconds is None else self.seconds
        told = {"name": self.name, "started": self.started, "seconds": seconds}
        repeats = {"repeats": self.repeats} if self.repeats else {}
        return {**told, "state": self.state, "log": str(self.log), **repeats}

    def wait(self, seconds: float) -> None:
        """Wait, unless all is to end.

        Raises:
            StoppedError: It is.
        """
        self._steps.wait(seconds)

    def make(
        self,
        target: str,
        codes: Collection[int] = (0,),
        terraform: Mapping[str, object] | None = None,
        **variables: object,
    ) -> str:
        """Run a target of the Makefile.

        Args:
            target: The target.
            codes: Exit statuses that it may have: make's own is 2 for any failure.
            terraform: Values of variables of the stacks.
            variables: Variables of the Makefile.

        Returns:
            Its standard output.

        Raises:
            DemoError: It ended otherwise, or nothing moved for long.
            StoppedError: All is to end.
        """
        given = {**self._steps.variables, **variables}
        command = ["make", target, *(f"{name}={value}" for name, value in given.items())]
        values = {f"TF_VAR_{name}": json.dumps(value) for name, value in (terraform or {}).items()}
        environment = {**self._steps.environment, **values}
        is_storm = environment.get("LOCALAWS_WEATHER") == "storm"
        left = _STORM_ATTEMPTS if is_storm else 1
        while True:
            left -= 1
            try:
                return self._run(f"make {target}", command, codes, environment)
            except DemoError:
                if not left:
                    raise
                self.repeats += 1

    def python(self, module: str, *arguments: object) -> str:
        """Run one of the project's commands in a way that no target does; see `make`."""
        command = [sys.executable, "-m", module, *map(str, arguments)]
        return self._run(module, command, (0,), os.environ)

    def _run(
        self, name: str, command: list[str], codes: Collection[int], environment: Mapping[str, str]
    ) -> str:
        self._steps.check()
        printed: list[bytes] = []
        with self.log.open("ab", buffering=0) as log:
            log.write(f"\n$ {shlex.join(command)}\n".encode())
            begun = log.tell()
            process = subprocess.Popen(
                command,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
            assert process.stdout  # noqa: S101 (tells the type)
            reader = threading.Thread(
                target=_copy, args=(process.stdout, log, printed), daemon=True
            )
            reader.start()
            try:
                self._follow(process, name)
            finally:
                _end(process)
                reader.join(_STOP_SECONDS)
        if process.returncode not in codes:
            said = self.log.read_bytes()[begun:].decode(errors="replace").splitlines()
            raise DemoError(f"{name}: {_cause(said) or f'exit status {process.returncode}'}")
        return b"".join(printed).decode(errors="replace")

    def _follow(self, process: subprocess.Popen[bytes], name: str) -> None:
        """Wait for the end of a process, as long as it moves."""
        progress = Progress(self._steps.stall_seconds)
        look_at = 0.0
        while process.poll() is None:
            if time.monotonic() >= look_at:
                look_at = time.monotonic() + min(_LOOK_SECONDS, progress.seconds / 4)
                busy = session_seconds(process.pid) // _BUSY_SECONDS
                if progress.stalled(self.log.stat().st_size, busy):
                    minutes = progress.seconds / 60
                    raise DemoError(f"{name}: nothing has moved for {minutes:.0f} minutes")
            self.wait(_POLL_SECONDS)

    @property
    def waiting_for(self) -> str:
        """What it is waiting for, in a line."""
        return self.note or _last_line(self.log)


class Aside(Generic[T]):
    """Something that goes on in a thread of its own."""

    def __init__(self, steps: "Steps", task: Callable[[], T]) -> None:
        """Start it."""
        self._steps = steps
        self._found: list[T] = []
        self._thread = threading.Thread(target=lambda: self._run(task), daemon=True)
        self._thread.start()

    def _run(self, task: Callable[[], T]) -> None:
        try:
            self._found.append(task())
        except StoppedError:
            pass
        except Exception as error:
            self._steps.fail(told(error))

    @property
    def goes_on(self) -> bool:
        """Whether it has not ended."""
        return self._thread.is_alive()

    def end(self) -> None:
        """Wait for its end, whatever that is."""
        self._thread.join()

    def result(self) -> T:
        """Wait for what comes of it.

        Raises:
            StoppedError: It failed, or all is to end.
        """
        while self.goes_on:
            self._steps.wait(_POLL_SECONDS)
        self._steps.check()
        return self._found[0]


class Steps:
    """Runs steps, some of them at a time, and keeps their times.

    The first that fails, or a signal, ends all; `recover` lets others clear up after that.

    Attributes:
        variables: What `make` is given.
        environment: What `make` finds in its environment.
        timeline: All steps.
        failure: What failed first, and its step where it was one; None while all is well.
        stall_seconds: How long a command may do nothing.
        heeds_signals: Whether a signal ends all.
    """

    def __init__(
        self,
        folder: Path,
        began: float,
        variables: Mapping[str, object],
        environment: Mapping[str, str],
        stall_seconds: float,
    ) -> None:
        """Begin.

        Args:
            folder: For logs, emptied of former ones, and for what steps took.
            began: When all began, in seconds since 1970.
            variables: See the class.
            environment: See the class.
            stall_seconds: See the class.
        """
        self.variables = dict(variables)
        self.environment = dict(environment)
        self.stall_seconds = stall_seconds
        self.timeline: list[Step] = []
        self.failure: tuple[str, Step | None] | None = None
        self.heeds_signals = True
        self._began = began
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._asides: list[Aside[Any]] = []
        self._took_file = folder / "durations.json"
        self._took = _numbers(self._took_file)
        self._logs = folder / "logs"
        self._logs.mkdir(parents=True, exist_ok=True)
        for log in self._logs.glob("*.log"):
            log.unlink()
        self._live = _live(self._running_lines)

    def __enter__(self) -> Self:
        """Listen to signals; show on a terminal what runs."""
        self._handlers = {number: signal.signal(number, self._heard) for number in _STOPPING}
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End all that runs, and remember how long the steps took."""
        self.end()
        if self._live:
            self._live.stop()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        with suppress(OSError), replacing(self._took_file) as file:
            file.write_text(json.dumps(self._took, indent=2) + "\n")

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return time.time() - self._began

    def say(self, text: str) -> None:
        """Print a line that stays."""
        if self._live:
            self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, flush=True)

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Do a step: say that it begins, keep its time, and note whether it failed."""
        self.check()
        with self._lock:
            slug = re.sub(r"\W+", "-", name.lower()).strip("-")
            step = Step(self, name, self._logs / f"{len(self.timeline) + 1:02}-{slug}.log")
            step.log.touch()
            self.timeline.append(step)
        self.say(f"{step.started:5.0f} s  {name}")
        try:
            yield step
            step.state = "done"
        except StoppedError:
            step.state = "stopped"
            raise
        except BaseException as error:
            step.state = "failed"
            if not isinstance(error, DemoError):
                with step.log.open("a") as log:
                    traceback.print_exc(file=log)
            self.fail(told(error), step)
            raise
        finally:
            step.seconds = self.now - step.started
            if step.state == "done":
                self._took[name] = round(step.seconds, 1)

    def aside(self, task: Callable[[], T]) -> Aside[T]:
        """Do something, such as steps, beside what follows."""
        aside = Aside(self, task)
        self._asides.append(aside)
        return aside

    def fail(self, message: str, step: Step | None = None) -> None:
        """Let all end; the first reason that is given is the one that counts."""
        with self._lock:
            self.failure = self.failure or (message, step)
        self._ended.set()

    def check(self) -> None:
        """Go on only if nothing failed.

        Raises:
            StoppedError: Something did, or somebody wants the end.
        """
        if self._ended.is_set():
            raise StoppedError

    def wait(self, seconds: float) -> None:
        """Wait, unless all is to end.

        Raises:
            StoppedError: It is.
        """
        self._ended.wait(seconds)
        self.check()

    def end(self) -> None:
        """Let all that goes on aside end."""
        if any(aside.goes_on for aside in self._asides):
            self._ended.set()
        for aside in self._asides:
            aside.end()

    def recover(self) -> None:
        """After a failure: let further steps run, until the next signal."""
        self.end()
        self._ended.clear()

    def _heard(self, number: int, _: object) -> None:
        if not self.heeds_signals:
            return
        # No lock is taken here: the main thread may hold it.
        running = [step for step in self.timeline if step.state == "running"]
        if not self.failure:
            said = f"stopped by {signal.Signals(number).name}"
            self.failure = (said, running[-1] if running else None)
        self._ended.set()

    def _running_lines(self) -> Group:
        lines = []
        for step in [step for step in self.timeline if step.state == "running"]:
            took = self._took.get(step.name)
            last = f", last time {took:.0f} s" if took is not None else ""
            spent = f"{self.now - step.started:5.0f} s{last}"
            lines.append(f"        {step.name}: {spent.strip()} · {step.waiting_for}")
        return Group(*(Text(line, "dim", no_wrap=True, overflow="ellipsis") for line in lines))


def told(error: BaseException) -> str:
    """An error in one line."""
    said = " ".join(str(error).split())
    if isinstance(error, DemoError):
        return said
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def tail(log: Path, lines: int) -> list[str]:
    """The last lines of a file; none where there is no file."""
    with suppress(OSError):
        return log.read_text(errors="replace").splitlines()[-lines:]
    return []


def _live(lines: Callable[[], Group]) -> Live | None:
    if not sys.stdout.isatty():
        return None
    return Live(get_renderable=lines, console=Console(), transient=True, refresh_per_second=2)


def _numbers(file: Path) -> dict[str, float]:
    """Numbers by name; what is no such file holds none."""
    with suppress(OSError, ValueError, AttributeError, TypeError):
        return {name: float(value) for name, value in json.loads(file.read_text()).items()}
    return {}


def _cause(said: Sequence[str]) -> str:
    """The last error in what a command printed that does not point to another; empty if none."""
    errors = [line.strip(" │\t") for line in said if re.search(r"rror: \S", line)]
    causes = [line for line in errors if "see above" not in line]
    return (causes or errors or [""])[-1]


def _last_line(log: Path) -> str:
    with suppress(OSError), log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")
    return ""


def _copy(stream: IO[bytes], log: IO[bytes], kept: list[bytes]) -> None:
    """Write what a process prints to a log, and keep it."""
    # The log may be closed before a process that its end was not waited for.
    with suppress(ValueError):
        for line in stream:
            kept.append(line)
            log.write(line)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads a session, and then what is left of its group."""
    if process.poll() is None:
        # To make alone, which passes it on: Terraform takes a second one for a wish to drop all.
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
