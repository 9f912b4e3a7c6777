"""The code that a job runs: one archive for SageMaker, its training toolkit and EC2.

It holds the packages `trainer` and `inference`, a script for each entry point, what the image must
install, and the metadata by which the packages know their version. Equal files give equal bytes.
"""

import gzip
import hashlib
import importlib.metadata
import io
import os
import re
import subprocess
import tarfile
import tomllib
from pathlib import Path

from botocore.exceptions import ClientError

from trainer.errors import KennelError
from trainer.target import Target

ROOT = Path(__file__).absolute().parents[1]
NAME = "trainer.tar.gz"
REQUIREMENTS = "requirements.txt"

_PACKAGES = ("inference", "trainer")
_SUFFIXES = frozenset({".j2", ".py", ".toml"})
_FROM_IMAGE = frozenset({"torch", "torchvision"})
# Scripts at the top, so that Python finds both packages beside them. A process that a search
# starts imports its parent's script again: only the parent may run it.
_SCRIPT = """\
from trainer.errors import run_command
from trainer.{module} import main

if __name__ == "__main__":
    run_command(main)
"""
_LOCKED = re.compile(r"^([a-z0-9._-]+)(==\S+(?: ; [^\\\n]+?)?) *\\?$", re.MULTILINE)
_REQUIRED = re.compile(r"[A-Za-z0-9._-]+")


def script(module: str) -> str:
    """Name of the script in the archive that runs a module of `trainer`, such as "train"."""
    return f"run_{module}.py"


def publish(target: Target, bucket: str) -> str:
    """Upload the code, unless these very files are there.

    Returns:
        The archive's key in the bucket; it carries the archive's digest.
    """
    content = archive()
    key = f"source/{hashlib.sha256(content).hexdigest()[:12]}/{NAME}"
    client = target.client("s3")
    try:
        client.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["Error"]["Code"] not in {"404", "NoSuchKey", "NotFound"}:
            raise
        client.put_object(Bucket=bucket, Key=key, Body=content)
    return key


def archive() -> bytes:
    """The code as a `.tar.gz`."""
    files = {
        path.relative_to(ROOT).as_posix(): path.read_bytes()
        for package in _PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.suffix in _SUFFIXES
    }
    files |= {script(name): _SCRIPT.format(module=name).encode() for name in ("train", "tune")}
    files[REQUIREMENTS] = requirements().encode()
    version = importlib.metadata.version("kennel")
    files[f"kennel-{version}.dist-info/METADATA"] = (
        f"Metadata-Version: 2.1\nName: kennel\nVersion: {version}\n".encode()
    )
    stream = io.BytesIO()
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=stream, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name, content in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def requirements() -> str:
    """What the image must install, in the lock's versions; torch is the image's own.

    Raises:
        KennelError: The lock lacks a package.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {_name(line) for line in project["optional-dependencies"]["train"]} - _FROM_IMAGE
    locked: dict[str, list[str]] = {}
    for name, version in _LOCKED.findall((ROOT / "requirements.lock").read_text()):
        locked.setdefault(name, []).append(f"{name}{version}\n")
    if missing := sorted(wanted - locked.keys()):
        raise KennelError(f"requirements.lock lacks {', '.join(missing)}: run `make lock`")
    return "".join(line for name in sorted(wanted) for line in locked[name])


def git_commit() -> str:
    """This source tree's commit: KENNEL_GIT_COMMIT, or what git says, or "unknown"."""
    if stated := os.environ.get("KENNEL_GIT_COMMIT"):
        return stated
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return answer.stdout.strip()


def _name(requirement: str) -> str:
    match = _REQUIRED.match(requirement)
    assert match  # noqa: S101 (pyproject.toml is checked when the environment is made)
    return match[0].lower()
