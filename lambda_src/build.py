"""Builds the function's zip: this package, and what AWS's runtime lacks.

The zip's bytes depend on its inputs alone: the sources here, `requirements.lock` and this
interpreter's zlib. Their digest is the zip's comment, by which a zip that is up to date is known.
"""

import argparse
import hashlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent
LOCK = PACKAGE / "requirements.lock"
SOURCES = tuple(path.name for path in PACKAGE.glob("*.py") if path != Path(__file__))
ARCHITECTURES = {"x86_64": "x86_64", "arm64": "aarch64"}
"""Lambda's name of an architecture to the one in wheel tags."""
GLIBC = "manylinux_2_28"
"""Newest wheel tag that Amazon Linux 2023 (glibc 2.34) runs and that packages commonly offer."""
OLDER_GLIBC = "manylinux2014"
"""Named beside `GLIBC` for pip, which takes tags literally."""
PYTHON = "3.13"
MAX_BYTES = 3_000_000

_EPOCH = (1980, 1, 1, 0, 0, 0)
_UNIX = 3


class BuildError(Exception):
    """The zip could not be built; the message says why and what to do."""


def build(output: Path, architecture: str, python: str = PYTHON) -> Path:
    """The zip for one architecture, made anew only if its inputs have changed.

    Args:
        output: Folder of the zip, made if missing.
        architecture: A key of `ARCHITECTURES`.
        python: Version of the Lambda runtime, such as "3.13".

    Returns:
        The path of `kennel-lambda-<architecture>.zip` in `output`.

    Raises:
        BuildError: The packages cannot be installed, or the zip would be over `MAX_BYTES`.
    """
    destination = output / f"kennel-lambda-{architecture}.zip"
    fingerprint = _fingerprint(architecture, python)
    if _is_built(destination, fingerprint):
        return destination
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output, prefix=".lambda-") as folder:
        packages = Path(folder) / "packages"
        _install(packages, architecture, python)
        temporary = Path(folder) / destination.name
        _write_zip(temporary, packages, fingerprint)
        if temporary.stat().st_size > MAX_BYTES:
            raise BuildError(
                f"{destination.name} would be {temporary.stat().st_size} bytes, over {MAX_BYTES}; "
                f"take something out of {LOCK.name}"
            )
        temporary.replace(destination)
    return destination


def _fingerprint(architecture: str, python: str) -> bytes:
    """Digest of all that decides the zip's content, in hex."""
    digest = hashlib.sha256(f"{architecture} {python} {zlib.ZLIB_RUNTIME_VERSION}".encode())
    for path in (Path(__file__), LOCK, *(PACKAGE / name for name in sorted(SOURCES))):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest().encode()


def _is_built(path: Path, fingerprint: bytes) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.comment == fingerprint and archive.testzip() is None
    except (OSError, zipfile.BadZipFile, zlib.error):
        return False


def _install(target: Path, architecture: str, python: str) -> None:
    installer = _installer(architecture)
    command = [
        *installer,
        *("--target", str(target), "--python-version", python, "--only-binary", ":all:"),
        *("--quiet", "--no-deps", "--require-hashes", "--requirement", str(LOCK)),
    ]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        said = " ".join(finished.stderr.split()) or f"exit status {finished.returncode}"
        raise BuildError(
            f"cannot install the packages of {LOCK.name} for {architecture}: {said}; check that a "
            "package index can be reached, then run this again"
        )


def _installer(architecture: str) -> list[str]:
    """The command that installs packages for `architecture`: uv's if there is one, else pip's."""
    machine = ARCHITECTURES[architecture]
    uv = _uv()
    if uv:
        options = ["--python", sys.executable, "--python-platform", f"{machine}-{GLIBC}"]
        return [*uv, "pip", "install", "--link-mode", "copy", *options]
    if importlib.util.find_spec("pip"):
        platforms = [f"--platform={tag}_{machine}" for tag in (GLIBC, OLDER_GLIBC)]
        options = ["--no-compile", "--disable-pip-version-check"]
        return [sys.executable, "-m", "pip", "install", *options, *platforms]
    raise BuildError("neither uv nor pip is there to install packages; install uv")


def _uv() -> list[str] | None:
    sibling = Path(sys.executable).with_name("uv")
    found = str(sibling) if sibling.exists() else shutil.which("uv")
    if found:
        return [found]
    return [sys.executable, "-m", "uv"] if importlib.util.find_spec("uv") else None


def _write_zip(destination: Path, packages: Path, fingerprint: bytes) -> None:
    with destination.open("wb") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            archive.comment = fingerprint
            for name, path in sorted(_members(packages)):
                archive.writestr(_member(name), path.read_bytes())
        file.flush()
        os.fsync(file.fileno())


def _members(packages: Path) -> Iterator[tuple[str, Path]]:
    for name in SOURCES:
        yield f"{PACKAGE.name}/{name}", PACKAGE / name
    for path in packages.rglob("*"):
        relative = path.relative_to(packages)
        if path.is_file() and _is_wanted(relative):
            yield relative.as_posix(), path


def _is_wanted(path: Path) -> bool:
    """Whether an installed file is needed to run, or says under which licence it may be run."""
    if path.parts[0].endswith(".dist-info"):
        return path.name.upper().startswith(("LICENSE", "LICENCE", "NOTICE", "COPYING"))
    unused = {"__pycache__", "bin", "tests", ".lock"}
    return not unused.intersection(path.parts) and path.suffix not in {".pyc", ".c", ".pyi"}


def _member(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name, _EPOCH)
    member.create_system = _UNIX
    member.external_attr = (0o100755 if name.endswith(".so") else 0o100644) << 16
    member.compress_type = zipfile.ZIP_DEFLATED
    return member


def main() -> None:
    """Build the zips that the command line asks for, and print their paths."""
    parser = argparse.ArgumentParser(prog="lambda_src.build", description=main.__doc__)
    parser.add_argument("--output", type=Path, default=Path("build/lambda"))
    parser.add_argument("--architecture", choices=(*ARCHITECTURES, "all"), default="all")
    parser.add_argument("--python", default=PYTHON, help="version of the Lambda runtime")
    arguments = parser.parse_args()
    wanted = tuple(ARCHITECTURES) if arguments.architecture == "all" else (arguments.architecture,)
    try:
        for architecture in wanted:
            print(build(arguments.output, architecture, arguments.python))
    except (BuildError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.stderr.write("error: stopped by Ctrl-C; the same command builds what is missing\n")
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
