"""localaws as a fork of a process that has imported it, which takes a second of a core.

What it does is what `python -m localaws.server` does; that a start from nothing works is seen in
`test_server.py`, and by whatever runs `make`.
"""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from localaws.processes import ManagedProcess, reaper

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.localaws.preloaded"])


def _serve(arguments: Sequence[str], log: str, environ: Mapping[str, str], group: int) -> None:
    os.setpgid(0, group)
    output = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(output, sys.stdout.fileno())
    os.dup2(output, sys.stderr.fileno())
    os.environ.clear()
    os.environ.update(environ)

    from moto.moto_api._internal import mock_random

    from localaws import server

    mock_random.seed()  # each fork would give the same ids
    server.main(arguments)


class _Forked:
    """What `ManagedProcess` asks of `subprocess.Popen`."""

    def __init__(self, process: multiprocessing.process.BaseProcess) -> None:
        self._process = process
        self.pid = process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def terminate(self) -> None:
        self._process.terminate()

    def wait(self, seconds: float | None = None) -> int:
        self._process.join(seconds)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("localaws", seconds or 0)
        return self._process.exitcode


class Fork(ManagedProcess):
    """`python -m localaws.server` with arguments."""

    def __init__(self, arguments: Sequence[str], log: Path, environ: Mapping[str, str]) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()
        self._reaper = reaper()
        process = _context.Process(
            target=_serve, args=(arguments, str(log), dict(environ), self._reaper.pid)
        )
        process.start()
        self._process = _Forked(process)
