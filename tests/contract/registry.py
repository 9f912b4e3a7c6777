"""A registry of images on loopback, by the distribution's own program, and a base image in it."""

import gzip
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.contract.parts import ENVIRONMENTS, running, until

FOLDER = ENVIRONMENTS / "image"
"""Holds the registry's program and the base image, once they are there."""

DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
OCI = "application/vnd.oci.image.manifest.v1+json"

_PACKAGES = "python3-venv,python-is-python3,ca-certificates"
_CONFIG = """
version: 0.1
storage: {{filesystem: {{rootdirectory: "{folder}"}}}}
http: {{addr: "127.0.0.1:0"}}
"""


@dataclass(frozen=True)
class Registry:
    """A registry that answers at `address`."""

    address: str

    @property
    def _url(self) -> str:
        return f"http://{self.address}/v2"

    def manifest(self, name: str, reference: str) -> tuple[str, dict[str, Any]]:
        """Form and content of the manifest of an image, by tag or by digest."""
        accepted = {"Accept": f"{DOCKER}, {OCI}"}
        answer = httpx.get(f"{self._url}/{name}/manifests/{reference}", headers=accepted)
        assert answer.is_success, answer.text
        return answer.headers["Content-Type"], answer.json()

    def config(self, name: str, reference: str) -> dict[str, Any]:
        """What an image says of how it is run."""
        _, manifest = self.manifest(name, reference)
        blob = httpx.get(f"{self._url}/{name}/blobs/{manifest['config']['digest']}")
        found: dict[str, Any] = blob.json()["config"]
        return found

    def push(self, name: str, layer: Path) -> str:
        """Push a gzip of a tar as an image of one layer; give the image's address by digest."""
        packed = layer.read_bytes()
        inner = hashlib.sha256(gzip.decompress(packed)).hexdigest()
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{inner}"]},
            "history": [{"created_by": "debootstrap"}],
        }
        kind = "application/vnd.docker"
        manifest = {
            "schemaVersion": 2,
            "mediaType": DOCKER,
            "config": {
                "mediaType": f"{kind}.container.image.v1+json",
                **self._blob(name, json.dumps(config).encode()),
            },
            "layers": [
                {"mediaType": f"{kind}.image.rootfs.diff.tar.gzip", **self._blob(name, packed)}
            ],
        }
        answer = httpx.put(
            f"{self._url}/{name}/manifests/base",
            content=json.dumps(manifest),
            headers={"Content-Type": DOCKER},
        )
        assert answer.is_success, answer.text
        return f"{self.address}/{name}@{answer.headers['Docker-Content-Digest']}"

    def _blob(self, name: str, content: bytes) -> dict[str, Any]:
        """Push some bytes; give their part of a descriptor."""
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        place = httpx.post(f"{self._url}/{name}/blobs/uploads/").headers["Location"]
        with httpx.Client(timeout=600) as client:
            parameters = httpx.URL(place).params.add("digest", digest)
            answer = client.put(httpx.URL(place, params=parameters), content=content)
        assert answer.is_success, answer.text
        return {"digest": digest, "size": len(content)}


@contextmanager
def registry(folder: Path) -> Iterator[Registry]:
    """Run a registry that keeps its images in a folder."""
    config, log = folder / "registry.yml", folder / "registry.log"
    config.write_text(_CONFIG.format(folder=folder / "images"))
    with running([_program(), "serve", str(config)], log, {}, folder) as process:
        until(lambda: "listening on" in log.read_text(), process)
        found = re.search(r"listening on ([\d.:]+)", log.read_text())
        assert found
        yield Registry(found[1])
    shutil.rmtree(folder / "images")


def _program() -> str:
    """The registry's program: the machine's, else out of Debian's package, which is not installed.

    Its package would start it for the whole machine.
    """
    if found := shutil.which("docker-registry"):
        return found
    folder = FOLDER / "docker-registry"
    if not folder.exists():
        _extract("docker-registry", folder)
    return str(folder / "usr/bin/docker-registry")


def base_layer() -> Path:
    """A file system with Python: the one that was made before, else by debootstrap."""
    layer, root = FOLDER / "base.tar.gz", FOLDER / "base"
    if layer.exists():
        return layer
    if os.geteuid() != 0 or platform.machine() != "x86_64":
        pytest.skip(
            "no base image can be asked for, and only root on x86_64 can make one: set"
            " PYTHON_IMAGE to an image of Python for linux/amd64 that this machine reaches"
        )
    tools = FOLDER / "debootstrap"
    if not tools.exists():
        _extract("debootstrap", tools)
    shutil.rmtree(root, ignore_errors=True)
    _run(
        [
            *(str(tools / "usr/sbin/debootstrap"), "--variant=minbase"),
            *(f"--include={_PACKAGES}", _suite(), str(root), *_mirrors()[:1]),
        ],
        DEBOOTSTRAP_DIR=str(tools / "usr/share/debootstrap"),
    )
    partial = layer.with_suffix(".partial")
    left_out = ("./var/cache/apt/*", "./var/lib/apt/lists/*", "./usr/share/doc/*")
    excluded = [f"--exclude={pattern}" for pattern in left_out]
    _run(["tar", "-C", str(root), *excluded, "-I", "gzip -1", "-cf", str(partial), "."])
    shutil.rmtree(root)
    partial.rename(layer)
    return layer


def _suite() -> str:
    """The distribution's release, such as `bookworm`."""
    found = re.search(r"^VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text(), re.MULTILINE)
    assert found
    return found[1]


def _mirrors() -> list[str]:
    """Where apt has the distribution from."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def _extract(package: str, folder: Path) -> None:
    """Unpack a package of the distribution into a folder."""
    if not shutil.which("apt-get"):
        pytest.skip(f"{package} is not there and no apt-get to have it from: install {package}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as packed:
        download = ["apt-get", "download", "--quiet", package]
        if subprocess.run(download, cwd=packed, capture_output=True, check=False).returncode:
            # The lists of packages may be old, or none.
            _run(["apt-get", "update", "--quiet"])
            _run(download, cwd=packed)
        (archive,) = Path(packed).iterdir()
        partial = folder.with_suffix(".partial")
        _run(["dpkg-deb", "--extract", str(archive), str(partial)])
    partial.rename(folder)


def _run(command: list[str], cwd: str | None = None, **more: str) -> None:
    ended = subprocess.run(
        command, cwd=cwd, env={**os.environ, **more}, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, f"{command[0]}: {(ended.stdout + ended.stderr)[-2000:]}"
