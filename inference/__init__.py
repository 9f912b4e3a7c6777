"""Serves a packaged model over HTTP; needs no torch."""

import os

from inference.ctrl_c import answer_ctrl_c

# ONNX Runtime since 1.29 reports to Microsoft, with an id that it keeps in the user's home. It
# looks once, when it is loaded: this must be set before.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

answer_ctrl_c("; it served nothing yet")
