"""What runs functions of a Lambda runtime: a Python of its version, with what AWS's has in it."""

import os
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

from localaws import pythons
from localaws.errors import LocalAwsError
from localaws.functions import runtime_client
from localaws.pythons import Python

STAND_IN = "LOCALAWS_STAND_IN"
"""Runtimes, such as "python3.13,python3.14", for which localaws' own Python may stand in."""

# AWS's runtimes have the SDK, the runtime interface client and what both need; source: "Building
# Lambda functions with Python" of Lambda's guide.
_PACKAGES = ("awslambdaric", "boto3")


class NoPythonError(LocalAwsError):
    """No Python of this machine runs a runtime."""


@dataclass(frozen=True)
class Runtime:
    """A runtime that is ready to run functions.

    Attributes:
        name: Lambda's name of it, such as "python3.13".
        python: The interpreter.
        folder: The environment in which it sees Lambda's packages, and no others.
        packages: Where these are.
    """

    name: str
    python: Python
    folder: Path
    packages: Path

    @property
    def program(self) -> Path:
        """What starts Python in the environment."""
        return self.folder / f"bin/python{self.python.minor}"

    @property
    def stands_in(self) -> bool:
        """Whether the interpreter is of another version than the runtime's."""
        return self.name != f"python{self.python.minor}"


def make_runtime(name: str, python: Python, folder: Path) -> Runtime:
    """Make a runtime's environment in a folder that is not there."""
    packages = pythons.make_environment(folder, python)
    # Found only where the compiled one is for another Python.
    (packages / "runtime_client.py").symlink_to(Path(runtime_client.__file__))
    pythons.carry(packages, python, *_PACKAGES)
    return Runtime(name, python, folder, packages)


class Runtimes:
    """All runtimes that functions were run with."""

    def __init__(self, folder: Path) -> None:
        """Make none yet.

        Args:
            folder: For their environments.
        """
        self._folder = folder
        self._lock = threading.Lock()
        self._made: dict[str, Runtime] = {}

    def find(self, name: str) -> Runtime:
        """The runtime of a name such as "python3.13".

        Raises:
            NoPythonError: No Python runs it here.
        """
        with self._lock:
            if name not in self._made:
                python, folder = _interpreter(name), self._folder / name
                shutil.rmtree(folder, ignore_errors=True)  # What a full disk has left of it.
                self._made[name] = make_runtime(name, python, folder)
            return self._made[name]


def _interpreter(name: str) -> Python:
    minor = name.removeprefix("python")
    if found := pythons.find(minor):
        return found
    if name in os.environ.get(STAND_IN, "").split(","):
        return pythons.own()
    raise NoPythonError(
        f"localaws finds no Python {minor} on this machine, which the runtime {name} asks for: "
        f"install it (`uv python install {minor}`), or start localaws with {STAND_IN}={name} "
        f"to let Python {pythons.own().minor} stand in"
    )
