import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from localaws.processes import ManagedProcess, processor_seconds, session_seconds
from tests.localaws.conftest import until

ROOT = Path(__file__).parents[2]
# A process with a child of its own, both of which would run for ever.
FAMILY = "sleep 1000 & echo $! $$; wait"
# A shell in the background has its children ignore SIGINT.
STARTER = f"""
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from pathlib import Path
from localaws.processes import ManagedProcess, processor_seconds, session_seconds
process = ManagedProcess(["sh", "-c", {FAMILY!r}], Path(sys.argv[1]))
time.sleep(1000)
"""


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until_ended(pids: list[int]) -> None:
    until(lambda: [pid for pid in pids if is_running(pid)], lambda left: not left)


def pids_in(log: Path) -> list[int]:
    text = until(lambda: log.read_text() if log.exists() else "", lambda text: text.endswith("\n"))
    return [int(pid) for pid in text.split()]


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


def test_a_command_that_is_not_there_leaves_nothing_behind(tmp_path: Path) -> None:
    before = psutil.Process().children(recursive=True)
    # A folder on PATH that may not be entered makes it a PermissionError.
    with pytest.raises((FileNotFoundError, PermissionError)):
        ManagedProcess(["no-such-command"], tmp_path / "log")
    assert psutil.Process().children(recursive=True) == before


def test_the_family_may_end_itself(tmp_path: Path) -> None:
    with ManagedProcess(["sh", "-c", "sleep 1000 & kill 0"], tmp_path / "log") as process:
        until(lambda: process.exit_code == -signal.SIGTERM)


def test_the_log_keeps_what_it_had(tmp_path: Path) -> None:
    log = tmp_path / "new folder" / "log"
    for text in ("first", "second"):
        with ManagedProcess(["sh", "-c", f"echo {text} >&2"], log, environment={}) as process:
            until(lambda process=process: process.exit_code is not None)
    assert log.read_text() == "first\nsecond\n"


def test_what_a_session_uses_of_processors_is_told() -> None:
    busy = "x = 0\nwhile True: x += 1"
    with subprocess.Popen(
        ["sh", "-c", '"$0" -c "$1" & wait', sys.executable, busy], start_new_session=True
    ) as leader:
        try:
            until(lambda: session_seconds(leader.pid) > 0.05)
            # The leader itself only waits.
            assert processor_seconds(leader.pid) < 0.05
        finally:
            os.killpg(leader.pid, signal.SIGKILL)
    assert processor_seconds(leader.pid) == 0
