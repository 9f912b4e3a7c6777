import os
import pty
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path

from trainer import progress

COUNT = """
import sys
import termios
from trainer import progress
progress.SECONDS_BETWEEN_LINES = 0
total = int(sys.argv[1]) or None
with progress.progress("decoding", total, "photos", 1) as count:
    count(2)
    count(1000)
"""


def run(total: int, stderr: int) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", COUNT, str(total)],
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


def test_a_terminal_gets_a_bar():
    terminal, its_end = pty.openpty()
    termios.tcsetwinsize(its_end, (25, 80))
    run(2000, its_end)
    os.close(its_end)
    shown = ""
    with suppress(OSError):  # Linux's way to say that the other end is closed
        while piece := os.read(terminal, 10_000):
            shown += piece.decode()
    os.close(terminal)
    assert "decoding:" in shown
    assert "1003/2000" in shown
    assert "\r" in shown
