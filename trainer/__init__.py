"""From photos to a packaged model."""

import os

# Must be set before torch loads OpenMP, whose threads wait for each other by spinning for
# milliseconds. Where another process or a container's CPU quota takes one of two cores away, that
# made training over ten times slower; spinning for microseconds costs 3 % where nothing does.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

# ONNX Runtime since 1.29 reports to Microsoft, with an id that it keeps in the user's home. It
# looks once, when it is loaded: this must be set before.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
