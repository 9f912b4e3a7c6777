"""From photos to a packaged model."""

import os
import signal
import sys
from types import TracebackType

# Must be set before torch loads OpenMP, whose threads wait for each other by spinning for
# milliseconds. Where another process or a container's CPU quota takes one of two cores away, that
# made training over ten times slower; spinning for microseconds costs 3 % where nothing does.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

# ONNX Runtime since 1.29 reports to Microsoft, with an id that it keeps in the user's home. It
# looks once, when it is loaded: this must be set before.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"


def _say_interrupted(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    sys.stderr.write("error: stopped by Ctrl-C before it began; what was there is as it was\n")
    sys.stderr.flush()
    os._exit(128 + signal.SIGINT)


# `python -m trainer.NAME` loads torch for seconds, before `trainer.errors.run_command` can say
# anything. While Python looks for the module, its name is not known yet.
if sys.argv[:1] == ["-m"]:
    sys.excepthook = _say_interrupted
