"""The Pythons of this machine, and environments of their own for what localaws runs.

Nothing that localaws runs sees all of the packages that localaws itself has, or changes them.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

_ASK = """
import json, platform, sys
from importlib.machinery import EXTENSION_SUFFIXES
print(json.dumps([sys._base_executable, platform.python_version(), EXTENSION_SUFFIXES]))
"""
_ASK_SECONDS = 20.0
# What runs under the Python that is beside it, as in AWS's images.
_PROGRAMS = ("pip", "pip3", "torchrun")


@dataclass(frozen=True)
class Python:
    """An interpreter.

    Attributes:
        path: Its program, outside of any environment.
        version: Such as "3.13.1".
        suffixes: Of the extension modules that it loads.
    """

    path: Path
    version: str
    suffixes: tuple[str, ...]

    @property
    def minor(self) -> str:
        """Such as "3.13"."""
        return ".".join(self.version.split(".")[:2])


_known: dict[str, Python] = {}
_lock = threading.Lock()


def own() -> Python:
    """The one that runs localaws."""
    found = _remembered("", [Path(sys.executable)])
    assert found  # noqa: S101 (it runs this very line)
    return found


def find(minor: str) -> Python | None:
    """One of a version such as "3.13"; localaws' own where it is of this version."""
    return own() if own().minor == minor else _remembered(minor, _candidates(minor))


def _remembered(minor: str, candidates: Iterable[Path]) -> Python | None:
    with _lock:
        if minor not in _known:
            for path in candidates:
                if (python := _asked(path)) and minor in ("", python.minor):
                    _known[minor] = python
                    break
        return _known.get(minor)


def _asked(path: Path) -> Python | None:
    """What a program says of itself; None if it is no Python that runs."""
    with suppress(OSError, ValueError, subprocess.SubprocessError):
        answer = subprocess.run(
            [path, "-I", "-c", _ASK],
            capture_output=True,
            check=True,
            stdin=subprocess.DEVNULL,
            timeout=_ASK_SECONDS,
        )
        program, version, suffixes = json.loads(answer.stdout)
        return Python(Path(program), version, tuple(suffixes))
    return None


def _candidates(minor: str) -> Iterator[Path]:
    """Where a Python may be: on the path, and where pyenv and uv keep theirs."""
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        for name in (f"python{minor}", "python3"):
            # A folder that may not be entered is one without programs.
            if program := shutil.which(name, path=folder):
                yield Path(program)
    home = Path.home()
    pyenv = Path(os.environ.get("PYENV_ROOT", home / ".pyenv"))
    data = Path(os.environ.get("XDG_DATA_HOME", home / ".local/share"))
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR", data / "uv/python"))
    kept: list[Path] = []
    for place, pattern in ((pyenv, f"versions/{minor}.*"), (uv, f"cpython-{minor}.*")):
        with suppress(OSError):
            kept += place.glob(f"{pattern}/bin/python{minor}")
    # Those without a global lock have another name: 3.13.1t, 3.13.1+freethreaded. Lambda has none.
    odd = re.compile(r"[\d.]+t$|\+")
    yield from sorted(path for path in kept if not odd.search(path.parents[1].name))


def make_environment(folder: Path, python: Python) -> Path:
    """Make an environment as Python's venv does, without a process and without pip.

    Args:
        folder: For the environment; made.
        python: Its interpreter.

    Returns:
        Where its packages go.
    """
    programs = folder / "bin"
    packages = folder / f"lib/python{python.minor}/site-packages"
    for needed in (programs, packages):
        needed.mkdir(parents=True)
    (folder / "pyvenv.cfg").write_text(
        f"home = {python.path.parent}\ninclude-system-site-packages = false\n"
        f"version = {python.version}\n"
    )
    for name in ("python", "python3", f"python{python.minor}"):
        (programs / name).symlink_to(python.path)
    return packages


def lay_over(folder: Path) -> None:
    """Make an environment over localaws' own, for a machine whose image has the same packages.

    What is installed goes into it, and nowhere else. A package that is only linked into localaws'
    environment, as a checkout is, is not seen.

    Args:
        folder: For the environment; made.
    """
    packages = make_environment(folder, own())
    below = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    # Found after what is installed here; the .pth files in them are not read.
    (packages / "image.pth").write_text("\n".join(below) + "\n")
    programs = Path(sys.executable).parent
    # It depends on nothing that is installed here.
    (folder / "bin/aws").symlink_to(programs / "aws")
    for name in _PROGRAMS:
        if (programs / name).exists():
            program = folder / "bin" / name
            quoted = shlex.quote(str(programs / name))
            program.write_text(f'#!/bin/sh\nexec "${{0%/*}}/python3" {quoted} "$@"\n')
            program.chmod(0o755)


def carry(packages: Path, python: Python, *names: str) -> None:
    """Give an environment some of localaws' packages, with what they need, and no others.

    Args:
        packages: What `make_environment` gave.
        python: The environment's interpreter.
        names: Of the packages.
    """
    is_own = python.minor == own().minor
    for place in sorted({place for found in _needed(names) for place in _places(found)}):
        target = packages / place.name
        if is_own or not place.is_dir():
            target.symlink_to(place)
        else:
            # What Python compiles lies beside the source. Data are many files, and large.
            shutil.copytree(place, target, ignore=_all_but_code)
            for data in place.glob("data"):
                (target / data.name).symlink_to(data)
    if not is_own:
        # As AWS's runtimes have it: an import would compile it at each start.
        subprocess.run([python.path, "-I", "-m", "compileall", "-qq", packages], check=False)


def inside(folder: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """A process's environment variables, if it is to run in the environment in a folder."""
    # Localaws' own programs, too, where it was started from within its environment.
    path = [
        place
        for place in variables["PATH"].split(os.pathsep)
        if Path(place) != Path(sys.executable).parent
    ]
    return {
        **variables,
        "PATH": os.pathsep.join([str(folder / "bin"), *path]),
        "VIRTUAL_ENV": str(folder),
    }


def _needed(names: Iterable[str]) -> list[Distribution]:
    """Packages and all that they need, without extras."""
    found: dict[str, Distribution] = {}
    wanted = list(names)
    while wanted:
        name = re.sub(r"[-_.]+", "-", wanted.pop()).lower()
        # One that this platform does not need is not there.
        with suppress(PackageNotFoundError):
            if name not in found:
                found[name] = distribution(name)
                for line in found[name].requires or ():
                    if "extra ==" not in line:
                        wanted += re.findall(r"^[\w.-]+", line)
    return list(found.values())


def _places(found: Distribution) -> set[Path]:
    """The files and folders at the top of what a package has installed."""
    tops = {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}
    return {Path(str(found.locate_file(top))) for top in tops}


def _all_but_code(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name in ("__pycache__", "data")]
