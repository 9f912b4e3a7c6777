import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor, nn

from inference.preprocess import Preprocess
from trainer import train as train_module
from trainer.config import TrainConfig
from trainer.dataset import Split, load
from trainer.errors import KennelError, run_command
from trainer.features import frozen_features
from trainer.ranks import alone

PREPROCESS = Preprocess(32, 32, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CONFIG = TrainConfig(image_size=32)


class Means(nn.Module):
    """A network that is quick: the mean of each channel and row."""

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.mean(3).flatten(1)


@pytest.fixture(scope="module")
def split(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Split:
    cache = tmp_path_factory.mktemp("pixels")
    return load(colours, cache, 32, "bilinear", ("train",)).splits["train"]


def features(split: Split, *folders: Path) -> np.ndarray:
    views = frozen_features(
        Means(), "digest", split, PREPROCESS, CONFIG, alone(), False, folders, mirrored=False
    )
    return np.array(views[0])


def flip(path: Path, place: int) -> None:
    body = bytearray(path.read_bytes())
    body[place] ^= 1
    path.write_bytes(body)


def zero(path: Path, size: int) -> None:
    path.write_bytes(bytes(size))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "emptied": lambda path: os.truncate(path, 0),
    "cut in its header": lambda path: os.truncate(path, 50),
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "without its end": lambda path: os.truncate(path, path.stat().st_size - 4),
    "longer": lambda path: os.truncate(path, path.stat().st_size + 8),
    "of zeros": lambda path: zero(path, path.stat().st_size),
    "of few zeros": lambda path: zero(path, 4),
    "flipped bit in the header": lambda path: flip(path, 30),
    "flipped bit in a feature": lambda path: flip(path, 1000),
    "flipped bit at the end": lambda path: flip(path, -1),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_features_are_computed_anew_with_a_line(
    split: Split, tmp_path: Path, damage: Callable[[Path], object], caplog
):
    before = features(split, tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    damage(path)
    np.testing.assert_array_equal(features(split, tmp_path), before)
    assert path.read_bytes() == whole
    assert caplog.messages == [f"the features in {path} are damaged and are computed anew"]


def test_whole_features_are_not_computed_again(split: Split, tmp_path: Path, caplog):
    before = features(split, tmp_path)
    (path,) = tmp_path.iterdir()
    status = path.stat()
    np.testing.assert_array_equal(features(split, tmp_path), before)
    assert path.stat() == status
    assert not caplog.messages
    assert np.load(path).shape == before.shape  # which NumPy reads as any other of its files


def test_of_several_folders_the_first_whole_file_counts(split: Split, tmp_path: Path):
    own, given = tmp_path / "own", tmp_path / "given"
    before = features(split, own)
    (path,) = own.iterdir()
    shutil.copytree(own, given)
    path.unlink()
    np.testing.assert_array_equal(features(split, own, given), before)
    assert not list(own.iterdir())
    flip(given / path.name, 1000)
    np.testing.assert_array_equal(features(split, own, given), before)
    assert path.exists()


def test_a_folder_in_the_place_of_features_is_named(split: Split, tmp_path: Path):
    features(split, tmp_path)
    (path,) = tmp_path.iterdir()
    path.unlink()
    path.mkdir()
    with pytest.raises(KennelError) as refused:
        features(split, tmp_path)
    assert str(refused.value) == f"{path} is a folder where features belong: remove it"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_in_the_place_of_their_folder_is_named(split: Split, tmp_path: Path):
    (tmp_path / "features").write_text("in the way")
    with pytest.raises(KennelError, match=f"cannot write the features to {tmp_path}/features: "):
        features(split, tmp_path / "features")


def test_a_run_on_damaged_features_learns_the_same(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    places = [f"--{name}-dir={tmp_path / name}" for name in ("model", "output", "checkpoint")]
    small = ["--backbone=efficientnet_lite0", "--image-size=32", "--epochs=1", "--fresh"]
    cache = f"--cache-dir={tmp_path / 'cache'}"
    monkeypatch.setattr(sys, "argv", ["train", f"--data={colours}", *places, cache, *small])
    run_command(train_module.main)
    weights = (tmp_path / "model/weights.safetensors").read_bytes()
    for path, damage in zip(
        sorted(tmp_path.glob("cache/features/*.npy")), list(DAMAGES.values())[::4], strict=True
    ):
        damage(path)
    run_command(train_module.main)
    assert (tmp_path / "model/weights.safetensors").read_bytes() == weights
