"""The last lines of a target: where its results are, and a next command that works as printed."""

import json
import os
import pty
import shlex
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from localaws.loopback import LoopbackServer, Requests
from tests.scripts import PYTHON
from tests.trainer.test_index import make_run
from trainer.done import lines, main, next_command, packed, request, searched
from trainer.errors import KennelError
from trainer.progress import say_result

ROOT = Path(__file__).parents[2]
# How the Makefile keeps values as they were typed.
AS_TYPED = next(
    line
    for line in (ROOT / "Makefile").read_text().splitlines()
    if line.startswith("$(foreach name,") and "override" in line
)
# What a recipe sees, a NUL after each part; or the next command.
MAKEFILE = f"""\
DATASET ?= digits
FLAGS ?=
{AS_TYPED}
show:
\t@printf '%s\\0' "$$DATASET" "$$FLAGS" "$$YES"
train:
\t@{PYTHON} -c 'from trainer.done import next_command; print(next_command("data"))'
"""


def make(folder: Path, arguments: list[str], **more: str) -> list[str]:
    (folder / "Makefile").write_text(MAKEFILE)
    environment = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    for name in ("DATASET", "FLAGS", "OUT", "VENV", "ENV", "LOCALAWS_PORT"):
        environment.pop(name, None)
    done = subprocess.run(
        ["make", *arguments],
        cwd=folder, env=environment | {"PYTHONPATH": str(ROOT)} | more,
        capture_output=True, check=True,
    )  # fmt: skip
    return os.fsdecode(done.stdout).split("\0")


@pytest.mark.parametrize(
    "value",
    [
        "digits",
        "/some folder/with  blanks",
        'it\'s "quoted"',
        "/a$b$$c$(d)",
        "/tmp/OUT=1 FLAGS=2",
        "(a) & b; c | d < e \\ f *",
        "ü-🐶\u202f",
    ],
)
def test_the_next_command_means_what_this_one_meant(tmp_path: Path, value: str):
    typed = [f"DATASET={value}", "FLAGS=--seed 1", "ENV=local"]
    (told,) = make(tmp_path, ["train", *typed, "YES=1", "FRESH=1", "DELETE_DATA=1"])
    command = shlex.split(told)
    assert command[:2] == ["make", "tune"]
    # What approves, deletes or begins anew is not suggested.
    assert set(command[2:]) == set(typed)
    dataset, flags, approved, _ = make(tmp_path, ["show", *command[2:]])
    assert (dataset, flags, approved) == (value, "--seed 1", "")


def test_what_was_given_by_the_environment_is_in_the_next_command(tmp_path: Path):
    (told,) = make(tmp_path, ["train"], DATASET="/my photos")
    assert told == "make tune DATASET='/my photos'\n"
    assert make(tmp_path, ["train"]) == ["make tune\n"]


def test_what_the_next_command_takes_is_not_what_this_one_was_given(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("MAKELEVEL", "1")
    monkeypatch.setenv("ENGINE", "here")
    assert "ENGINE=job" in next_command("upload").split()
    assert "ENGINE=here" not in next_command("upload").split()


@pytest.mark.parametrize(("inventory", "goal"), [({}, "bootstrap"), ({"s3": ["a"]}, "status")])
def test_a_localaws_with_a_state_is_shown_next(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    inventory: object,
    goal: str,
):
    class Answering(Requests):
        def do_GET(self) -> None:
            self.answer_json(200, inventory)

    server = LoopbackServer(Answering)
    (tmp_path / "localaws").mkdir()
    told = {"endpoint": f"http://{server.address}"}
    (tmp_path / "localaws/server.json").write_text(json.dumps(told))
    places = [f"--{name}={tmp_path}" for name in ("output", "run", "data")]
    monkeypatch.setattr(sys, "argv", ["done", "local-up", *places])
    main()
    server.stop()
    assert capsys.readouterr().out.startswith(f"next: make {goal} ENV=local")


@pytest.mark.parametrize(
    ("target", "printed"),
    [
        ("env", "make data"),
        ("upload ENV=local", "make tune ENGINE=job ENV=local"),
        ("local-up", "make bootstrap ENV=local"),
    ],
)
def test_more_targets_end_with_the_next_command(tmp_path: Path, target: str, printed: str):
    python = tmp_path / "venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\ncase "$*" in *trainer.done*) exec {PYTHON} "$@";; esac\n')
    python.chmod(0o755)
    ready = tmp_path / "venv/ready"
    ready.touch()
    os.utime(ready, (2**32, 2**32))  # newer than the lock
    places = [f"VENV={tmp_path / 'venv'}", f"OUT={tmp_path / 'out'}"]
    ran = subprocess.run(
        ["make", *target.split(), *places], cwd=ROOT, capture_output=True, text=True, check=True
    )
    last = ran.stdout.splitlines()[-1]
    assert set(last.split()) == {"next:", *printed.split(), *places}


def test_an_evaluation_is_told_as_trained_and_as_served(tmp_path: Path):
    run = make_run(tmp_path, "pets-resnet18-none")
    assert list(lines("evaluate", tmp_path, run, tmp_path)) == [
        "as trained: top-1 97.8 %, 95.5 to 99.3 %, of 1,269 test photos: "
        f"{run}/evaluation/evaluation.html",
        "as served (int8): top-1 50.0 %, 95.5 to 99.3 %, of 1,269 test photos: "
        f"{run}/served/evaluation.html",
    ]


@pytest.mark.parametrize(
    ("step", "file"),
    [
        ("evaluate", "evaluation/evaluation.json"),
        ("evaluate", "served/evaluation.json"),
        ("package", "package.json"),
        ("tune", "tune/search.json"),
    ],
)
@pytest.mark.parametrize("content", ["", "[]", '{"top1": 0.'])
def test_a_damaged_result_is_not_up_to_date(tmp_path: Path, step: str, file: str, content: str):
    make_run(tmp_path, "run")
    (tmp_path / "run" / file).parent.mkdir(exist_ok=True)
    (tmp_path / "run" / file).write_text(content)
    with pytest.raises(KennelError, match=f"{file} is damaged: remove it, and give the command"):
        list(lines(step, tmp_path, tmp_path / "run", tmp_path / "data"))


def test_the_command_that_asks_the_server_names_a_photo_that_is_there(tmp_path: Path):
    assert request(tmp_path, "8080").split()[2] == "@photo.jpg"
    photo = tmp_path / "my data/test/it's a dog/one.PNG"
    photo.parent.mkdir(parents=True)
    photo.write_bytes(b"")
    words = shlex.split(request(tmp_path / "my data", "81"))
    assert words[2] == f"@{photo}"
    assert words[4:] == ["Content-Type: image/png", "http://127.0.0.1:81/invocations"]


def test_a_page_that_cannot_be_written_does_not_fail_the_command(tmp_path: Path):
    run = make_run(tmp_path, "pets-resnet18-none")
    (tmp_path / "index.html").mkdir()
    places = ["--output", tmp_path, "--run", run, "--data", tmp_path]
    done = subprocess.run(
        [sys.executable, "-m", "trainer.done", "package", *map(str, places)],
        cwd=ROOT, env=os.environ | {"MAKEFLAGS": ""}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stderr.startswith("cannot write ")
    assert done.stdout.splitlines() == [f"report: {run}/package.json", "next: make evaluate"]


def told(tmp_path: Path, step: str, *made: str, terminal: bool = False) -> list[str]:
    run = make_run(tmp_path, "pets-resnet18-none")
    places = ["--output", tmp_path, "--run", run, "--data", tmp_path]
    command = [sys.executable, "-m", "trainer.done", *map(str, places), step]
    command += ["--made", " ".join(made)]
    environment = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    if terminal:
        return on_terminal(command, environment)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def on_terminal(command: list[str], environment: dict[str, str]) -> list[str]:
    leader, follower = pty.openpty()
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=follower)
    os.close(follower)
    text = b""
    with suppress(OSError):  # its other end is closed
        while part := os.read(leader, 65536):
            text += part
    os.close(leader)
    assert process.wait() == 0
    return text.decode().splitlines()


@pytest.mark.parametrize(
    ("step", "parts", "said"),
    [
        ("tune", ["tune"], "up to date: `make tune FRESH=1` searches anew"),
        ("train", ["train"], "up to date: `make train FRESH=1` trains anew"),
        ("package", ["package"], "up to date"),
        ("evaluate", ["trained", "served"], "up to date"),
    ],
)
def test_where_there_was_nothing_to_do_that_is_said(
    tmp_path: Path, step: str, parts: list[str], said: str
):
    first, *others = told(tmp_path, step)
    assert first.startswith(said)
    assert others[-1].startswith("next: ")
    assert told(tmp_path, step, "tune") == [first, *others] or step == "tune"
    for part in parts:
        assert told(tmp_path, step, part) == others


def test_what_its_command_said_on_a_terminal_is_not_said_again(tmp_path: Path):
    def figures(*made: str) -> list[str]:
        lines = told(tmp_path, "evaluate", *made, terminal=True)
        return [line.partition(":")[0] for line in lines if "top-1" in line]

    assert figures() == ["as trained", "as served (int8)"]
    assert figures("served") == ["as trained"]
    assert figures("package", "trained", "served") == []
    assert len(told(tmp_path, "evaluate", "trained", "served")) == 4  # in a log


def test_a_result_is_told_in_words_on_a_terminal_and_for_programs_elsewhere(
    capsys: pytest.CaptureFixture[str],
):
    say = "from trainer.progress import say_result; say_result(['a', 'b c'], 'x=1')"
    environment = dict(os.environ)
    assert on_terminal([sys.executable, "-c", say], environment) == ["a", "b c"]
    say_result(["a", "b c"], "x=1")
    assert capsys.readouterr().out == "x=1\n"


def test_a_search_and_an_archive_are_told_with_their_figures(tmp_path: Path):
    for name in ("search.json", "best.json", "search.html", "model.tar.gz", "package.json"):
        (tmp_path / name).write_text('{"of": "a former version"}')
    assert next(searched(tmp_path)).startswith("hyperparameters: ")
    (tmp_path / "search.json").write_text('{"trials": 8, "valid_loss": 0.273204}')
    assert list(searched(tmp_path)) == [
        "lowest validation loss: 0.2732, of 8 trials",
        f"hyperparameters: {tmp_path}/best.json",
        f"search: {tmp_path}/search.html",
    ]
    report = {"name": "it", "precision": "int8", "bytes": 16042425, "top1_valid_served": 0.5}
    assert list(packed(tmp_path / "model.tar.gz", report)) == [
        f"archive: {tmp_path}/model.tar.gz (it, int8, 16.0 MB, top-1 50.0 % of valid photos)",
        f"report: {tmp_path}/package.json",
    ]
    assert next(packed(tmp_path / "model.tar.gz", {})) == f"archive: {tmp_path}/model.tar.gz"
    # An archive beside it has a report of its own.
    for name in ("second.tar.gz", "second.package.json"):
        (tmp_path / name).touch()
    told = list(packed(tmp_path / "second.tar.gz", {}))
    assert told[-1] == f"report: {tmp_path}/second.package.json"


def test_every_target_of_the_makefile_ends_so():
    """Of a dry run, the last command of each target; make names every command it would run."""
    assert shutil.which("make")
    for step in ("data", "tune", "train", "evaluate", "package", "lambda"):
        done = subprocess.run(
            ["make", "--dry-run", step], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1].endswith(f" {step}"), step
