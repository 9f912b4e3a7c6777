"""Serves a packaged model over HTTP; needs no torch."""

import os
import signal
import sys
from types import TracebackType

# ONNX Runtime since 1.29 reports to Microsoft, with an id that it keeps in the user's home. It
# looks once, when it is loaded: this must be set before.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"


def _say_interrupted(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    sys.stderr.write("error: stopped by Ctrl-C; it served nothing yet\n")
    sys.stderr.flush()
    os._exit(128 + signal.SIGINT)


# `python -m inference.NAME` loads much before its `main` can say anything. While Python looks for
# the module, its name is not known yet.
if sys.argv[:1] == ["-m"]:
    sys.excepthook = _say_interrupted
