"""Runs of several processes that end early, as a user sees them: one line, the right status."""

import logging
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import pytest

from trainer.errors import UsageError
from trainer.torchrun import main

ROOT = Path(__file__).parents[2]
# Processes that end in some way; they need no torch of their own.
SCRIPT = """\
import os, signal, sys, time
from trainer.errors import Interrupted, LostTouchError, UsageError, run_command

rank = int(os.environ["RANK"])

def alike():
    raise UsageError("--epochs takes a number")

def one():
    if rank == 1:
        raise UsageError("rank 1 cannot read its photos")
    time.sleep(0.3)  # as long as it takes to see that the other is gone
    raise LostTouchError("another process of this run has ended")

def killed():
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)

def stopped():
    def saves(number, _):
        raise Interrupted("stopped by Ctrl-C; the same command goes on")
    signal.signal(signal.SIGINT, saves)
    open(f"{sys.argv[2]}/ready-{rank}", "w").close()
    time.sleep(60)

run_command(globals()[sys.argv[1]])
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., int]]:
    """Run the script, in two processes if not told otherwise, and give the exit status.

    In this process, since another would import torch for seconds.
    """
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name in ("OMP_NUM_THREADS", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"):
        monkeypatch.setenv(name, "1")  # what is set by itself is not restored
    names = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    handlers = {name: signal.getsignal(name) for name in names}

    def status(how: str, processes: int = 2) -> int:
        count = f"--nproc-per-node={processes}"
        with pytest.raises(SystemExit) as ended:
            main(["--standalone", count, str(script), how, str(tmp_path)])
        return int(ended.value.code or 0)

    yield status
    for name, handler in handlers.items():
        signal.signal(name, handler)
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize(
    ("how", "status", "said"),
    [
        ("alike", 2, ["error: --epochs takes a number"]),
        (
            "one",
            2,
            [
                "error: another process of this run has ended",
                "error: rank 1 cannot read its photos",
            ],
        ),
        ("killed", 137, ["error: process 1 was ended by SIGKILL; was the memory too small?"]),
    ],
)
def test_a_failure_is_told_without_a_traceback(
    run: Callable[..., int], capfd: pytest.CaptureFixture[str], how: str, status: int, said: list
):
    assert run(how) == status
    errors = capfd.readouterr().err.splitlines()
    assert errors[-1] == said[-1]
    assert set(errors) <= set(said)


def test_ctrl_c_reaches_the_processes_and_is_told_once(
    run: Callable[..., int], capfd: pytest.CaptureFixture[str], tmp_path: Path
):
    def when_both_are_ready() -> None:
        while len(list(tmp_path.glob("ready-*"))) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    Thread(target=when_both_are_ready, daemon=True).start()
    assert run("stopped") == 130
    assert capfd.readouterr().err == "error: stopped by Ctrl-C; the same command goes on\n"


@pytest.mark.parametrize("processes", [1, 2])
def test_no_temporary_file_stays(
    run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, processes: int
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    assert run("alike", processes) == 2
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("number", ["two", "0", "-1", "1.5", "1 2"])
def test_no_number_of_processes_is_refused(number: str):
    with pytest.raises(UsageError, match="takes a number of processes"):
        main(["--standalone", f"--nproc-per-node={number}", "-m", "trainer.train"])
