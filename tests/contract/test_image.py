"""The serving image: built from its Dockerfile, pushed to a registry, and run as SageMaker does."""

import base64
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from inference.archive import open_model
from terraform.cli import image
from terraform.cli.registry import pin
from tests.contract.conftest import Photo
from tests.contract.containers import Container, started
from tests.contract.parts import until
from tests.contract.registry import DOCKER, Registry, base_layer, registry
from trainer.errors import KennelError

NAME = "kennel-serving"

# Says what a process of the image may do.
PROBE = """
import json, os, socket
def refused(do):
    try:
        do()
    except OSError as error:
        return error.strerror
print(json.dumps({
    "user": os.getuid(),
    "interfaces": [name for _, name in socket.if_nameindex()],
    "connect": refused(lambda: socket.create_connection(("192.0.2.1", 443), 5)),
    "model": refused(lambda: open("/opt/ml/model/new", "w")),
    "files": refused(lambda: open("/opt/kennel/new", "w")),
    "pip": [path for path in ("/etc/pip.conf", "/run/ca.pem") if os.path.exists(path)],
}))
"""
PING = """
import urllib.request
print(urllib.request.urlopen("http://127.0.0.1:8080/ping").status)
"""
# Answers to the photos that come, one a line.
ASK = """
import base64, json, sys, urllib.request
answers = []
for line in sys.stdin:
    url, headers = "http://127.0.0.1:8080/invocations", {"Content-Type": "image/png"}
    request = urllib.request.Request(url, base64.b64decode(line), headers)
    answers.append(json.load(urllib.request.urlopen(request)))
print(json.dumps(answers))
"""


@dataclass(frozen=True)
class Built:
    """An image in a registry, and what built it."""

    engine: str
    registry: Registry
    tag: str

    @property
    def address(self) -> str:
        return f"{self.registry.address}/{NAME}:{self.tag}"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give a program that builds; buildah works anywhere with these settings."""
    folder = tmp_path_factory.mktemp("engine")
    storage = f'[storage]\ndriver = "vfs"\ngraphroot = "{folder}/store"\nrunroot = "{folder}/run"\n'
    (folder / "storage.conf").write_text(storage)
    insecure = '[[registry]]\nlocation = "127.0.0.1"\ninsecure = true\n'
    (folder / "registries.conf").write_text(insecure)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BUILDAH_ISOLATION", "chroot")
        patch.setenv("CONTAINERS_REGISTRIES_CONF", str(folder / "registries.conf"))
        patch.setenv("CONTAINERS_STORAGE_CONF", str(folder / "storage.conf"))
        found = image.find_engine()
        if not found:
            pytest.skip(
                "nothing here builds images: install docker, podman or buildah, as .ci/run does"
                " where it is root and has apt-get"
            )
        yield found
    # Each layer is a whole file system there.
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def built(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    """Give the image as `make image` builds and pushes it, with a registry in the place of ECR."""
    with registry(tmp_path_factory.mktemp("registry")) as pushed:
        context = image.Context(image.archive(), base(pushed))
        made = Built(engine, pushed, context.tag)
        image.build_here(engine, made.address, context)
        image.push(engine, made.address)
        yield made
        subprocess.run([engine, "rmi", "--force", made.address], check=True)


def base(pushed: Registry) -> str:
    """A base image: Docker's own where it can be reached."""
    named = os.environ.get("PYTHON_IMAGE") or image.BASE
    try:
        return named if "@sha256:" in named else pin(named)
    except KennelError:
        return pushed.push("base", base_layer())


@pytest.fixture(scope="module")
def container(
    built: Built, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Container]:
    """Give the image, run with the model that the training job left."""
    log, config = tmp_path_factory.mktemp("container") / "log", built.registry.config
    with started(built.engine, built.address, config(NAME, built.tag), model, log) as running:
        until(lambda: running.python(PING) == 200, running.process)
        yield running


def test_its_form_is_docker_s(built: Built) -> None:
    form, manifest = built.registry.manifest(NAME, built.tag)
    assert (form, manifest["mediaType"]) == (DOCKER, DOCKER) == (image.MANIFEST, DOCKER)
    assert built.registry.config(NAME, built.tag)["User"] == "10001:10001"


def test_it_answers_as_our_own_server(
    container: Container, model: Path, photos: list[Photo], expected: list[str]
) -> None:
    given = "".join(f"{base64.b64encode(photo.body).decode()}\n" for photo in photos)
    answers = container.python(ASK, given)
    assert [answer["predictions"][0]["label"] for answer in answers] == expected
    assert {answer["model"]["digest"] for answer in answers} == {open_model(model).digest}


def test_it_can_write_nothing_and_reach_nobody(container: Container) -> None:
    found = container.python(PROBE)
    assert (found["user"], found["interfaces"], found["pip"]) == (10001, ["lo"], [])
    assert found["connect"] == "Network is unreachable"
    assert found["model"] == found["files"] == "Read-only file system"


def test_it_ends_when_it_is_asked_to(container: Container) -> None:
    assert container.end() == 0
