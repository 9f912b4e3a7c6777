"""Ctrl-C before a program's `main` can answer it is one line, too."""

import os
import signal
import sys
from types import TracebackType


def answer_ctrl_c(end: str) -> None:
    """Answer it while `python -m PACKAGE.NAME` imports; for a package's `__init__`.

    Args:
        end: What is said after "stopped by Ctrl-C".
    """

    def say(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
            return
        sys.stderr.write(f"error: stopped by Ctrl-C{end}\n")
        sys.stderr.flush()
        os._exit(128 + signal.SIGINT)

    # While Python looks for the module, its name is not known yet.
    if sys.argv[:1] == ["-m"]:
        sys.excepthook = say
