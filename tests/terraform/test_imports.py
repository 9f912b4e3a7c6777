"""What a command loads before it begins: what it needs, not what all others do."""

import subprocess
import sys

HEAVY = {"PIL", "hcl2", "jinja2", "numpy", "onnxruntime", "optuna", "sagemaker", "torch"}
LOADED = """
import sys
from importlib import import_module

import_module("terraform.cli.__main__")
import_module("terraform.cli.deploy")
print(*sys.modules)
"""


def test_no_command_waits_for_what_reads_photos_or_searches() -> None:
    loaded = subprocess.check_output([sys.executable, "-c", LOADED], text=True).split()
    assert "terraform.cli.deploy" in loaded
    assert not HEAVY & set(loaded)
