"""Where things lie."""

import hashlib
import os
import tempfile
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TERRAFORM = ROOT / "terraform"
BUILD = Path(os.environ.get("KENNEL_OUT") or ROOT / "build").absolute() / "terraform"
"""What all environments share, in `make`'s OUT."""


def root_module(stack: str) -> Path:
    """The folder in which Terraform works on a stack.

    Terraform writes its lock file there: in a checkout that is read-only it works on a copy.
    """
    folder = TERRAFORM / "stacks" / stack
    return folder if os.access(folder, os.W_OK) else _copied() / "stacks" / stack


def _copied() -> Path:
    """A copy of the modules and stacks; other sources have another copy."""
    parts = (TERRAFORM / "modules", TERRAFORM / "stacks")
    sources = {
        path.relative_to(TERRAFORM): path.read_bytes()
        for path in sorted(path for part in parts for path in part.rglob("*"))
        if path.is_file()
    }
    digest = hashlib.sha256(repr(sources).encode()).hexdigest()[:12]
    copy = BUILD / f"sources-{digest}"
    if not copy.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=BUILD) as temporary:
            whole = Path(temporary) / "whole"
            for path, data in sources.items():
                (whole / path).parent.mkdir(parents=True, exist_ok=True)
                (whole / path).write_bytes(data)
            with suppress(OSError):  # another process was faster
                whole.rename(copy)
    return copy
