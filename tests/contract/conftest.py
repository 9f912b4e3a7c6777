"""One model, trained by the real training toolkit, and what our own server answers with it."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from localaws.hosting.endpoints import ServedEndpoint
from tests.contract.parts import SECONDS, post
from tests.contract.toolkit import run_job
from trainer.sources import prepare

PHOTOS_A_CLASS = 5


@dataclass(frozen=True)
class Photo:
    """A test image's file and its class."""

    body: bytes
    label: str


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of a data set."""
    folder = tmp_path_factory.mktemp("data") / "digits"
    prepare("digits", folder)
    return folder


@pytest.fixture(scope="session")
def photos(digits: Path) -> list[Photo]:
    """Give 50 test images, as many of each class."""
    return [
        Photo(path.read_bytes(), folder.name)
        for folder in sorted((digits / "test").iterdir())
        for path in sorted(folder.iterdir())[:PHOTOS_A_CLASS]
    ]


@pytest.fixture(scope="session")
def one_host(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give what is /opt/ml after a training job on one host."""
    (base,) = run_job(tmp_path_factory.mktemp("one"), digits, ["127.0.0.1"], package=True)
    return base


@pytest.fixture(scope="session")
def model(one_host: Path) -> Path:
    """Give the folder that the job left for SageMaker to pack and to serve."""
    return one_host / "model"


@pytest.fixture(scope="session")
def expected(
    model: Path, photos: list[Photo], tmp_path_factory: pytest.TempPathFactory
) -> list[str]:
    """Give our own server's best label for each of `photos`."""
    log = tmp_path_factory.mktemp("server") / "log"
    with ServedEndpoint(model, log, start_seconds=SECONDS) as served:
        labels = [top1(f"{served.url}/invocations", photo) for photo in photos]
    right = sum(label == photo.label for label, photo in zip(labels, photos, strict=True))
    assert right >= 0.8 * len(photos), f"the model knows only {right} of the photos"
    return labels


def top1(url: str, photo: Photo) -> str:
    """Ask a server for a photo's best label."""
    answer = post(url, photo.body)
    assert answer.is_success, answer.text
    label: str = answer.json()["predictions"][0]["label"]
    return label
