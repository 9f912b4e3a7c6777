import csv
import json
import os
import re
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from sqlite3 import dbapi2
from typing import Any
from unittest import mock

import optuna
import pytest
from optuna.trial import TrialState

from trainer import tune
from trainer.config import TrainConfig
from trainer.errors import KennelError, run_command
from trainer.ranks import alone
from trainer.search_space import Choice, search_space
from trainer.shards import MANIFEST, Manifest
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


@pytest.mark.parametrize(
    ("source", "told"),
    [({"source": {"folder": "/photos/pets"}}, "pets, a new head on"), (None, "a new head on")],
)
def test_a_jobs_page_names_the_data_set_and_not_the_channel(
    searched: Path, tmp_path: Path, source: Any, told: str
):
    channel = tmp_path / "training"
    channel.mkdir()
    manifest = Manifest(1, "0" * 64, "f" * 64, ("cat", "dog"), source, ())
    (channel / MANIFEST).write_text(manifest.to_text())
    plan = Search(CONFIG, folders(channel, searched), trials=5, parallel=1)
    (summary,) = optuna.get_all_study_summaries(plan.storage)
    study = optuna.load_study(study_name=summary.study_name, storage=plan.storage)
    assert f'<p class="muted">{told}' in tune.page(plan, study, CONFIG)


def trials(root: Path) -> list[dict[str, float]]:
    """The searched values of each trial in trials.csv."""
    with (root / "output/trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [{name: float(row[name]) for name in search_space("none")} for row in rows]


def test_trials_lie_in_the_search_space(searched: Path):
    assert len(trials(searched)) == 5
    for name, space in search_space("none").items():
        for trial in trials(searched):
            value = trial[name]
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


def test_the_page_shows_every_trial_and_needs_nothing_from_outside(searched: Path):
    page = (searched / "output/search.html").read_text()
    report = json.loads((searched / "output/search.json").read_text())
    assert len(page) < 150_000
    assert not re.search(r"(src|href)=|url\(|https?:", page)
    rows = re.findall(r'<tr class="(\w+)( best)?" data-trial', page)
    assert len(rows) == 5
    assert sum(state == "pruned" for state, _ in rows) == report["pruned"]
    assert f"<b>{report['valid_loss']:.4f}</b>" in page


def test_a_finished_search_runs_no_more_trials(searched: Path, colours: Path):
    before = (searched / "output/best.json").read_text()
    search(Search(CONFIG, folders(colours, searched), trials=5, parallel=1))
    assert json.loads((searched / "output/search.json").read_text())["trials"] == 5
    assert (searched / "output/best.json").read_text() == before


def command(data: Path, root: Path, *more: str) -> list[str]:
    places = ("--data", data, "--output-dir", root / "output", "--cache-dir", root / "cache")
    fixed = ("--backbone", "efficientnet_lite0", "--image-size", "32", "--trials", "6")
    return [sys.executable, "-m", "trainer.tune", *map(str, places), *fixed, *more]


def test_a_killed_search_goes_on_in_parallel_to_the_number_asked_for(colours: Path, tmp_path: Path):
    search_command = command(colours, tmp_path)
    process = subprocess.Popen(search_command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert next(iter(process.stdout)).startswith("trial=0 ")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = len(finished(tmp_path))
    # An odd number is left: one process ends its last trial while the other still runs one.
    more = ("--parallel", "2", "--trials", str(before + 3))
    done = subprocess.run([*search_command, *more], capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    assert "trial=0 " not in done.stdout
    report = json.loads((tmp_path / "output/search.json").read_text())
    assert report["trials"] == len(trials(tmp_path)) == len(finished(tmp_path)) == before + 3
    assert len({tuple(values.values()) for values in trials(tmp_path)}) == before + 3
    assert not study(tmp_path).get_trials(states=[TrialState.RUNNING])


def study(root: Path) -> optuna.Study:
    return optuna.load_study(study_name=None, storage=f"sqlite:///{root}/output/study.db")


def finished(root: Path) -> list[optuna.trial.FrozenTrial]:
    return study(root).get_trials(states=[TrialState.COMPLETE, TrialState.PRUNED])


def test_failed_trials_are_replaced_but_not_for_ever(
    searched: Path,
    colours: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    plan = Search(CONFIG, replace(folders(colours, tmp_path), cache=searched / "cache"), 3, 1)
    real = tune.run_trial

    def diverges(*_: Any) -> float:
        raise KennelError("the validation loss is nan")

    def run_again() -> list[bool]:
        """Whether each trial failed."""
        search(plan)
        states = re.findall(r"^trial=\d+ (\w+)", capsys.readouterr().out, re.MULTILINE)
        return [state == "fail" for state in states]

    monkeypatch.setattr(tune, "run_trial", diverges)
    with pytest.raises(KennelError, match="no trial succeeded"):
        run_again()
    assert re.findall(r"^trial=(\d+) fail", capsys.readouterr().out, re.MULTILINE)[-1] == "5"

    outcomes = iter([diverges, real, diverges, real, real])
    monkeypatch.setattr(tune, "run_trial", lambda *given: next(outcomes)(*given))
    assert run_again() == [True, False, True, False, False]
    assert run_again() == []


@pytest.mark.parametrize("error", [RuntimeError("CUDA out of memory"), KeyError(1)])
def test_a_trial_that_fails_in_any_way_ends_no_search(
    searched: Path,
    colours: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
):
    plan = Search(CONFIG, replace(folders(colours, tmp_path), cache=searched / "cache"), 1, 1)
    real, calls = tune.run_trial, []

    def fails_at_first(*given: Any) -> float:
        calls.append(given)
        if len(calls) == 1:
            raise error
        return real(*given)

    monkeypatch.setattr(tune, "run_trial", fails_at_first)
    search(plan)
    said = capsys.readouterr()
    lines = re.findall(r"^trial=\d+ (fail|complete|pruned).*", said.out, re.MULTILINE)
    assert lines == ["fail", "complete"]
    assert re.search(rf"^trial=0 fail .*: {type(error).__name__}: ", said.out, re.MULTILINE)
    assert "Traceback" not in said.err


def test_when_all_trials_fail_one_line_says_why(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    small = ("--weights", "none", "--unfreeze", "all", "--batch-size", "1", "--trials", "1")
    monkeypatch.setattr(sys, "argv", command(colours, tmp_path, *small)[2:])
    with pytest.raises(SystemExit) as ended:
        run_command(tune.main)
    assert ended.value.code == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "no trial succeeded, the last for this reason: --batch-size 1: batch norm" in errors[0]


def test_ctrl_c_says_what_is_kept_and_the_search_goes_on(
    searched: Path,
    colours: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
):
    plan = Search(CONFIG, replace(folders(colours, tmp_path), cache=searched / "cache"), 3, 1)
    real = tune.run_trial

    def interrupted(*_: Any) -> float:
        raise KeyboardInterrupt

    outcomes = iter([real, interrupted, real, real])
    monkeypatch.setattr(tune, "run_trial", lambda *given: next(outcomes)(*given))
    with pytest.raises(SystemExit) as ended:
        run_command(lambda: search(plan))
    assert ended.value.code == 130
    output = tmp_path / "output"
    assert capfd.readouterr().err == (
        f"error: stopped by Ctrl-C: 1 of 3 trials are kept in {output}; "
        "the same command goes on with the others\n"
    )
    search(plan)
    assert json.loads((output / "search.json").read_text())["trials"] == 3
    assert f"page={output / 'search.html'}\n" in capfd.readouterr().out


def test_a_failed_trial_says_why_in_its_line(
    searched: Path,
    colours: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
):
    plan = Search(CONFIG, replace(folders(colours, tmp_path), cache=searched / "cache"), 1, 1)
    real = tune.run_trial

    def diverges(*_: Any) -> float:
        raise KennelError("the validation loss is nan")

    outcomes = iter([diverges, real])
    monkeypatch.setattr(tune, "run_trial", lambda *given: next(outcomes)(*given))
    search(plan)
    shown = capfd.readouterr()
    assert re.search(r"^trial=0 fail .*: the validation loss is nan$", shown.out, re.MULTILINE)
    assert "Traceback" not in shown.err
    page = (tmp_path / "output/search.html").read_text()
    assert "1 complete, 0 pruned, 1 failed" in page


def test_fine_tuning_is_searched_on_pixels(colours: Path, tmp_path: Path):
    config = TrainConfig(backbone="resnet18", weights="none", unfreeze="all", image_size=32)
    chosen = replace(config, epochs=1)
    best = search(Search(chosen, folders(colours, tmp_path), 1, 1, frozenset({"epochs"})))
    assert 1e-5 <= best["backbone_learning_rate"] <= 1e-3
    assert best["epochs"] == 1


@pytest.mark.parametrize(
    ("exit_codes", "said"),
    [
        ([1, 2], "the lines above say why"),
        ([-9, -9], "ended by SIGKILL (was the memory too small?"),
        ([1, -11], "ended by SIGSEGV"),
    ],
)
def test_a_search_process_that_a_signal_ended_is_said_to_be(exit_codes: list[int], said: str):
    assert tune.said_of_end(exit_codes).startswith(said)


def flip(path: Path, place: int) -> None:
    body = bytearray(path.read_bytes())
    body[place] ^= 0xFF
    path.write_bytes(body)


def flip_in(path: Path, found: bytes) -> None:
    body = path.read_bytes()
    assert found in body
    path.write_bytes(body.replace(found, bytes([found[0] ^ 1]) + found[1:]))


def loss_bytes(path: Path) -> bytes:
    """How SQLite keeps the lowest loss."""
    report = json.loads(path.with_name("search.json").read_text())
    return struct.pack(">d", report["valid_loss"])


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "cut in its header": lambda path: os.truncate(path, 50),
    "of zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "flipped byte in the first word": lambda path: flip(path, 3),
    "flipped byte in the write version": lambda path: flip(path, 18),
    "flipped byte in a page": lambda path: flip(path, 4096),
    "flipped byte in the schema": lambda path: flip_in(path, b"user_attributes ("),
    "flipped byte in a state": lambda path: flip_in(path, b"COMPLETE"),
    "flipped byte in a date": lambda path: flip_in(path, b"20"),
    "flipped byte in a loss": lambda path: flip_in(path, loss_bytes(path)),
    "garbage": lambda path: path.write_bytes(b"garbage" * 999),
}


@pytest.fixture
def results(searched: Path, tmp_path: Path) -> Path:
    """Another copy of a search's results."""
    return Path(shutil.copytree(searched / "output", tmp_path / "output"))


def outcome(plan: Search, capfd: pytest.CaptureFixture[str]) -> tuple[object, str]:
    """Exit code and what was said to standard error."""
    capfd.readouterr()
    try:
        run_command(lambda: search(plan))
    except SystemExit as ended:
        return ended.code, capfd.readouterr().err
    return 0, capfd.readouterr().err


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_study_is_refused_in_a_line(
    searched: Path, colours: Path, results: Path, capfd, damage: Callable[[Path], object]
):
    plan = Search(CONFIG, replace(folders(colours, results.parent), cache=searched / "cache"), 1, 1)
    damage(results / "study.db")
    before = {path: path.read_bytes() for path in results.iterdir()}
    assert outcome(plan, capfd) == (
        1,
        f"error: the trials in {results / 'study.db'} are damaged, or of another version of "
        "Optuna: begin anew with FRESH=1 (--fresh)\n",
    )
    assert {path: path.read_bytes() for path in results.iterdir()} == before


def test_fresh_begins_anew_where_the_study_is_damaged(
    searched: Path, colours: Path, results: Path, capfd, monkeypatch: pytest.MonkeyPatch
):
    plan = Search(CONFIG, replace(folders(colours, results.parent), cache=searched / "cache"), 1, 1)
    DAMAGES["cut"](results / "study.db")
    former = (results / "best.json").read_bytes()
    real = tune.run_trial

    def looked_at(*given: Any) -> float:
        assert (results / "best.json").read_bytes() == former, "it stays until there is another"
        return real(*given)

    monkeypatch.setattr(tune, "run_trial", looked_at)
    assert outcome(replace(plan, fresh=True), capfd) == (0, "")
    assert json.loads((results / "search.json").read_text())["trials"] == 1
    assert len(finished(results.parent)) == 1
    assert outcome(plan, capfd) == (0, "")


@pytest.mark.parametrize("fresh", [False, True])
def test_a_folder_in_the_place_of_the_study_is_named(
    searched: Path, colours: Path, tmp_path: Path, capfd, fresh: bool
):
    places = replace(folders(colours, tmp_path), cache=searched / "cache")
    folder = tmp_path / "output/study.db"
    folder.mkdir(parents=True)
    assert outcome(Search(CONFIG, places, 1, 1, fresh=fresh), capfd) == (
        1,
        f"error: {folder} is a folder where the trials belong: remove it\n",
    )
    assert folder.is_dir()


def test_a_study_that_cannot_be_written_is_named_with_the_reason(
    searched: Path, colours: Path, tmp_path: Path, capfd
):
    plan = Search(CONFIG, replace(folders(colours, tmp_path), cache=searched / "cache"), 1, 1)
    real = dbapi2.connect

    def full(*given: Any, **more: Any) -> sqlite3.Connection:
        """A file that takes few pages, as on a full disk."""
        connection = real(*given, **more)
        connection.execute("PRAGMA max_page_count = 5")
        return connection

    with mock.patch.object(dbapi2, "connect", full):
        assert outcome(plan, capfd) == (
            1,
            f"error: cannot write the trials to {tmp_path / 'output/study.db'}: database or disk "
            "is full; when that is mended, the same command goes on\n",
        )
