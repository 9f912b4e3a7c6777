import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

SavePhoto = Callable[..., Path]


@pytest.fixture(scope="session")
def save_photo() -> SavePhoto:
    """Save noise as a photo, another for every seed; the ending says the format."""

    def save(
        path: Path,
        seed: int = 0,
        size: tuple[int, int] = (48, 32),
        mode: str = "RGB",
        **options: Any,
    ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
        Image.fromarray(noise).convert(mode).save(path, **options)
        return path

    return save


class Opened(list[Path]):
    """Paths of files and folders that Python has opened or listed."""

    def below(self, folder: Path) -> list[Path]:
        return [path for path in self if path.is_relative_to(folder)]


_recorders: list[Opened] = []


def _record(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("open", "os.scandir", "os.listdir") and isinstance(arguments[0], str | bytes):
        for recorder in _recorders:
            recorder.append(Path(os.fsdecode(arguments[0])))


# The interpreter takes hooks for good, so there is one for all tests.
sys.addaudithook(_record)


@pytest.fixture
def opened() -> Iterator[Opened]:
    """Record what is opened from here to the end of the test; `clear()` starts anew."""
    recorder = Opened()
    _recorders.append(recorder)
    yield recorder
    _recorders.remove(recorder)


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set that can be learned: noise around one colour a class, uneven splits."""
    root = tmp_path_factory.mktemp("colours")
    random = np.random.default_rng(0)
    for split, counts in {"train": (13, 12, 12), "valid": (5, 4, 4), "test": (4, 4, 3)}.items():
        for channel, (name, count) in enumerate(
            zip(("1.red", "2.green", "3.blue"), counts, strict=True)
        ):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 160, (40, 48, 3), np.uint8)
                pixels[..., channel] += 60
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return root
