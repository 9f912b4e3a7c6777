import csv
import json
import signal
import subprocess
import sys
from pathlib import Path

import optuna
import pytest

from trainer.config import TrainConfig
from trainer.ranks import alone
from trainer.search_space import Choice, search_space
from trainer.train import Folders, train
from trainer.tune import Search, search

CONFIG = TrainConfig(backbone="efficientnet_lite0", image_size=32)


def folders(data: Path, root: Path) -> Folders:
    return Folders(
        data, root / "model", root / "output", root / "checkpoints", root / "cache", None
    )


@pytest.fixture(scope="module")
def searched(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("search")
    search(Search(CONFIG, folders(colours, root), trials=5, parallel=1))
    return root


def test_no_file_below_test_is_opened_or_listed(colours: Path, tmp_path: Path, opened):
    search(Search(CONFIG, folders(colours, tmp_path), trials=1, parallel=1))
    assert opened.below(colours / "train")  # the recorder sees what is opened
    assert not opened.below(colours / "test")


def test_the_best_hyperparameters_are_taken_as_they_are(
    searched: Path, colours: Path, tmp_path: Path
):
    best = TrainConfig(**json.loads((searched / "output/best.json").read_text()))
    report = json.loads((searched / "output/search.json").read_text())
    assert report["trials"] == 5
    last = train(best, folders(colours, tmp_path), alone())["history"][-1]
    assert last["valid_loss"] == pytest.approx(report["valid_loss"], rel=1e-5)
    assert last["valid_accuracy"] == pytest.approx(report["valid_accuracy"])


def test_trials_lie_in_the_search_space(searched: Path):
    with (searched / "output/trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5
    for name, space in search_space("none").items():
        for row in rows:
            value = float(row[name])
            assert (
                value in space.values
                if isinstance(space, Choice)
                else space.low <= value <= space.high
            )


def test_every_searched_name_is_a_hyperparameter():
    for unfreeze in ("none", "last", "all"):
        for name, space in search_space(unfreeze).items():
            edges = space.values if isinstance(space, Choice) else (space.low, space.high)
            for value in edges:
                TrainConfig(**{name: type(getattr(CONFIG, name))(value)})


def test_the_page_needs_nothing_from_outside(searched: Path):
    page = (searched / "output/search.html").read_text()
    assert page.count('class="plotly-graph-div"') == 3
    assert "<script src=" not in page


def test_a_finished_search_runs_no_more_trials(searched: Path, colours: Path):
    before = (searched / "output/best.json").read_text()
    search(Search(CONFIG, folders(colours, searched), trials=5, parallel=1))
    assert json.loads((searched / "output/search.json").read_text())["trials"] == 5
    assert (searched / "output/best.json").read_text() == before


def command(data: Path, root: Path, *more: str) -> list[str]:
    places = ("--data", data, "--output-dir", root / "output", "--cache-dir", root / "cache")
    fixed = ("--backbone", "efficientnet_lite0", "--image-size", "32", "--trials", "6")
    return [sys.executable, "-m", "trainer.tune", *map(str, places), *fixed, *more]


def test_a_killed_search_goes_on(colours: Path, tmp_path: Path):
    search_command = command(colours, tmp_path)
    process = subprocess.Popen(search_command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert next(iter(process.stdout)).startswith("trial=0 ")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = subprocess.run(search_command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "trial=0 " not in done.stdout
    assert json.loads((tmp_path / "output/search.json").read_text())["trials"] == 6
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path}/output/study.db")
    assert not study.get_trials(states=[optuna.trial.TrialState.RUNNING])


def test_parallel_trials_share_one_study(colours: Path, tmp_path: Path):
    done = subprocess.run(
        command(colours, tmp_path, "--parallel", "2"),
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "output/search.json").read_text())["trials"] >= 6


def test_fine_tuning_is_searched_on_pixels(colours: Path, tmp_path: Path):
    config = TrainConfig(backbone="resnet18", weights="none", unfreeze="all", image_size=32)
    best = search(Search(config, folders(colours, tmp_path), trials=1, parallel=1))
    assert 1e-5 <= best["backbone_learning_rate"] <= 1e-3
