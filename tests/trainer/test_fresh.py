"""`--fresh`: what an earlier run has left on this machine is not gone on with."""

import csv
from pathlib import Path

import pytest

from trainer.config import TrainConfig
from trainer.ranks import alone
from trainer.train import Folders, train
from trainer.tune import Search, search

CONFIG = TrainConfig(backbone="efficientnet_lite0", image_size=32, epochs=1)


def folders(data: Path, root: Path) -> Folders:
    places = (root / name for name in ("model", "output", "checkpoints", "cache"))
    return Folders(data, *places, features=None)


def test_a_training_begins_anew(
    colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = []
    for fresh in (False, False, True):
        train(CONFIG, folders(colours, tmp_path), alone(), fresh=fresh)
        said.append(capsys.readouterr().out)
    assert ["epoch=0 train_loss=" in text for text in said] == [True, False, True]
    assert ["resumed from" in text for text in said] == [False, True, False]


def test_a_search_begins_anew_and_leaves_others_alone(colours: Path, tmp_path: Path) -> None:
    def trials(seed: int, *, fresh: bool = False) -> list[str]:
        config = TrainConfig(backbone="efficientnet_lite0", image_size=32, epochs=1, seed=seed)
        plan = Search(config, folders(colours, tmp_path), 2, 1, frozenset({"epochs"}), fresh)
        search(plan)
        with (tmp_path / "output/trials.csv").open() as file:
            return [row["seconds"] for row in csv.DictReader(file)]

    other = trials(seed=1)
    first = trials(seed=0)
    assert trials(seed=0) == first
    assert not set(trials(seed=0, fresh=True)) & set(first)
    assert trials(seed=1) == other
