"""What a program draws on a terminal."""

import os
import pty
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[1]


def drawn(code: str, columns: int) -> str:
    """All that Python code writes to a terminal of so many columns."""
    terminal, its_end = pty.openpty()
    termios.tcsetwinsize(its_end, (25, columns))
    command = [sys.executable, "-c", code]
    subprocess.run(command, cwd=ROOT, stdout=its_end, stderr=its_end, check=True)
    os.close(its_end)
    shown = b""
    with suppress(OSError):  # Linux's way to say that the other end is closed
        while piece := os.read(terminal, 10_000):
            shown += piece
    os.close(terminal)
    return shown.decode()
