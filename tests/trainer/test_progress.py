import os
import pty
import subprocess
import sys
import termios
import threading
from contextlib import suppress
from pathlib import Path

from trainer import progress

COUNT = """
import sys
import termios
from trainer import progress
progress.SECONDS_BETWEEN_LINES = 0
total = int(sys.argv[1]) or None
with progress.progress("decoding", total, "photos", 1, OPTION) as count:
    count(2)
    count(1000)
"""


def run(total: int, stderr: int, option: str = "leave=True") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", COUNT.replace("OPTION", option), str(total)],
        cwd=Path(progress.__file__).parents[1],
        stderr=stderr,
        text=True,
        check=True,
    )


def test_a_log_gets_plain_lines():
    lines = run(2000, subprocess.PIPE).stderr
    assert lines == "decoding: 3 of 2,000 photos\ndecoding: 1,003 of 2,000 photos\n"


def test_a_log_does_without_a_total():
    assert run(0, subprocess.PIPE).stderr == "decoding: 3 photos\ndecoding: 1,003 photos\n"


def test_a_quick_step_leaves_a_log_alone(capsys):
    with progress.progress("decoding", 2, "photos") as count:
        count(2)
    assert capsys.readouterr().err == ""


def test_what_cannot_be_counted_tells_its_time_and_ends_with_what_it_does(monkeypatch, capsys):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.01)
    lines = ""
    with progress.working("exporting"):
        while "\n" not in lines:
            lines += capsys.readouterr().err
    assert lines.startswith("exporting: 0 s\n")
    assert not [thread for thread in threading.enumerate() if "_clock" in thread.name]


def test_one_who_shows_all_is_told_as_text(monkeypatch, capsys):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LOOKS", 0)
    told: list[str] = []
    with progress.told_to(told.append):
        with progress.progress("epoch 3", 8, "steps") as count:
            count(5)
        with progress.working("exporting"):
            pass
    with progress.progress("epoch 3", 8, "steps", shown=False) as count:
        count(5)
    assert told == ["epoch 3: 5 of 8 steps", "exporting"]
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar_that_stays_if_it_is_to():
    kept, shown = (on_terminal(f"leave={leave}") for leave in (True, False))
    assert "decoding:" in shown
    assert shown.rstrip("\r").split("\r")[-1].strip() == ""
    assert "1003/2000" in kept.split("\r")[-1] or "1003/2000" in kept.split("\r")[-2]


def on_terminal(option: str) -> str:
    terminal, its_end = pty.openpty()
    termios.tcsetwinsize(its_end, (25, 80))
    run(2000, its_end, option)
    os.close(its_end)
    shown = ""
    with suppress(OSError):  # Linux's way to say that the other end is closed
        while piece := os.read(terminal, 10_000):
            shown += piece.decode()
    os.close(terminal)
    return shown
