import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from localaws.processes import ManagedProcess

ROOT = Path(__file__).parents[2]
# A process with a child of its own, both of which would run for ever.
FAMILY = "sleep 1000 & echo $! $$; wait"
# A shell in the background has its children ignore SIGINT.
STARTER = f"""
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from pathlib import Path
from localaws.processes import ManagedProcess
process = ManagedProcess(["sh", "-c", {FAMILY!r}], Path(sys.argv[1]))
time.sleep(1000)
"""


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until_ended(pids: list[int], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < deadline, f"still running: {pids}"
        time.sleep(0.02)


def pids_in(log: Path, seconds: float = 20.0) -> list[int]:
    deadline = time.monotonic() + seconds
    while not (log.exists() and log.read_text().endswith("\n")):
        assert time.monotonic() < deadline, "nothing was started"
        time.sleep(0.02)
    return [int(pid) for pid in log.read_text().split()]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_no_process_outlives_its_starter(tmp_path: Path, number: signal.Signals) -> None:
    log = tmp_path / "log"
    starter = subprocess.Popen([sys.executable, "-c", STARTER, str(log)], cwd=ROOT)
    family = pids_in(log)
    assert len(family) == 2
    starter.send_signal(number)
    starter.wait()
    wait_until_ended(family)


def test_stopping_ends_the_whole_family(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with ManagedProcess(["sh", "-c", FAMILY], log) as process:
        family = pids_in(log)
        assert process.pid in family
        assert process.exit_code is None
    wait_until_ended(family)
    process.stop()


def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = ManagedProcess(["sh", "-c", "trap '' TERM; echo $$; sleep 1000"], log)
    pids = pids_in(log)
    process.stop(seconds=0.2)
    assert process.exit_code == -signal.SIGKILL
    wait_until_ended(pids)


def test_the_log_keeps_what_it_had(tmp_path: Path) -> None:
    log = tmp_path / "new folder" / "log"
    for text in ("first", "second"):
        with ManagedProcess(["sh", "-c", f"echo {text} >&2"], log, environment={}) as process:
            while process.exit_code is None:
                time.sleep(0.01)
    assert log.read_text() == "first\nsecond\n"
