"""Processes that never outlive the one that started them."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

STOP_SECONDS = 30.0
"""What SageMaker gives a container between SIGTERM and SIGKILL."""

# Its standard input ends when the process that holds the other end of the pipe is gone, however
# that happened: after Ctrl-C, after SIGKILL. (PR_SET_PDEATHSIG would act when the starting thread
# ends, and not on the children's children.) It leads the group: what is to end with it is in it
# from the first moment, and may send a signal to all of it, such as `kill 0`.
_REAPER = """
import os, signal, sys
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
sys.stdin.buffer.read()
os.killpg(0, signal.SIGKILL)
"""


def reaper() -> subprocess.Popen[bytes]:
    """What leads a process group, and ends it when this process ends."""
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _REAPER], stdin=subprocess.PIPE, process_group=0
    )


class Running:
    """Something that runs until `stop`, at the latest until the end of a `with` block."""

    def stop(self) -> None:
        """End it. Safe to repeat."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


class ManagedProcess(Running):
    """A command in a process group of its own, with all its output in one log file.

    The whole group ends with `stop`, at the end of a `with` block, and at the latest when the
    starting process ends.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        """Start it.

        Args:
            command: Program and arguments.
            log: File to which standard output and standard error are appended.
            environment: The process's whole environment; this process's own if None.
            folder: Its working folder; this process's own if None.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._reaper = reaper()
            try:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=environment,
                    cwd=folder,
                    process_group=self._reaper.pid,
                )
            except BaseException:
                self._end_group()
                raise

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Exit status, negative for a signal, or None while it runs."""
        return self._process.poll()

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """End it: SIGTERM, and SIGKILL for what is left of the group after `seconds`.

        Safe to repeat.
        """
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        self.kill()

    def kill(self) -> None:
        """End the group by SIGKILL, at once. Safe to repeat."""
        self._end_group()
        self._process.wait()

    def _end_group(self) -> None:
        if self._reaper.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._reaper.pid, signal.SIGKILL)
            self._reaper.communicate()


def processor_seconds(pid: int) -> float:
    """What a process has used of a processor; 0 where Linux's /proc does not tell."""
    fields = _stat(pid)
    return _seconds_of(fields) if fields else 0.0


def session_seconds(leader: int) -> float:
    """What the processes of a session that run now have used of processors.

    Args:
        leader: Process id of the session's leader; 0 is the answer where there is no /proc.
    """
    return sum(_seconds_of(fields) for fields in _stats() if int(fields[3]) == leader)


def _seconds_of(fields: Sequence[bytes]) -> float:
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _stats() -> Iterator[list[bytes]]:
    for path in Path("/proc").glob("[0-9]*"):
        if fields := _stat(int(path.name)):
            yield fields


def _stat(pid: int) -> list[bytes]:
    """The numbers of /proc/PID/stat, from the state on; none if there is no such process."""
    with suppress(OSError):
        # The name, which may hold anything, comes in parentheses before the numbers.
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return []
