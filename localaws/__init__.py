"""AWS on one machine, as far as Kennel needs it; it starts the other packages as processes."""

import os
import signal
import sys
from types import TracebackType


def _say_interrupted(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    sys.stderr.write("error: stopped by Ctrl-C; it had not begun, what was there is as it was\n")
    sys.stderr.flush()
    os._exit(128 + signal.SIGINT)


# `python -m localaws.NAME` loads much before its `main` can say anything. While Python looks for
# the module, its name is not known yet.
if sys.argv[:1] == ["-m"]:
    sys.excepthook = _say_interrupted
