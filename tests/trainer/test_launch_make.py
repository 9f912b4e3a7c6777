"""The targets of the Makefile that start and follow jobs: what they refuse, and what they run."""

import shlex
import subprocess
from pathlib import Path

import pytest

from trainer.source import ROOT


def make(*words: str) -> "subprocess.CompletedProcess[str]":
    """What `make` would run; nothing is run."""
    return subprocess.run(
        ["make", "--dry-run", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )


def launched(*words: str) -> list[str]:
    """The words of the command that starts or follows a job: the last one."""
    done = make(*words)
    assert done.returncode == 0, done.stderr
    words_of = shlex.split(done.stdout.splitlines()[-1])
    return words_of[words_of.index("trainer.launch") + 1 :]


def value(words: list[str], flag: str) -> str:
    return words[words.index(flag) + 1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "WHERE=sagmaker"], "WHERE=sagmaker: must be one of here sagemaker ec2"),
        (["train", "WHERE="], "WHERE=: must be one of here sagemaker ec2"),
        (["tune", "ENGINE=typo"], "ENGINE=typo: must be one of here job sagemaker"),
        (["train", "UNFREEZE=some"], "UNFREEZE=some: must be one of none last all"),
        (["train", "INSTANCES=two"], "INSTANCES=two: must be a number of 1 or more"),
        (["train", "INSTANCES=-1", "WHERE=sagemaker"], "INSTANCES=-1: must be a number of 1"),
        (["serve", "PORT=80a"], "PORT=80a: must be a number of 1 or more"),
        (["local-up", "LOCALAWS_PORT=$(shell echo 1)"], "LOCALAWS_PORT=$(shell echo 1): must be a"),
        (["evaluate", "INSTANCES=0"], "INSTANCES=0: must be a number of 1 or more"),
        (["tune", "TRIALS=0"], "TRIALS=0: must be a number of 1 or more"),
        (["tune", "TRIALS=1 2"], "TRIALS=1 2: must be a number of 1 or more"),
        (["tune", "PARALLEL=x", "ENGINE=job"], "PARALLEL=x: must be a number of 1 or more"),
        (["train", "EPOCHS=1.5"], "EPOCHS=1.5: must be a number of 1 or more"),
        (["train", "SPOT=maybe", "WHERE=sagemaker"], "SPOT=maybe: must be one of 1 0 yes no"),
        (["tune", "FRESH=2"], "FRESH=2: must be one of 1 0 yes no on off true false"),
        (["train", "CONFIG=nowhere.json"], "CONFIG=nowhere.json: there is no such file"),
        (["attach"], "JOB=: must be the name of a job"),
        (["stop", "ENV=local"], "JOB=: must be the name of a job; `make jobs ENV=local` lists"),
    ],
)
def test_a_wrong_value_ends_in_one_line_before_anything_is_done(
    words: list[str], message: str
) -> None:
    refused = make(*words)
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert len(refused.stderr.splitlines()) == 1
    assert message in refused.stderr


def test_flags_are_checked_before_the_upload() -> None:
    commands = make("train", "WHERE=sagemaker", "ENV=local").stdout.splitlines()
    order = [
        "check" if "--check" in command else "upload"
        for command in commands
        if "--check" in command or "trainer.upload" in command
    ]
    assert order == ["check", "upload"]


@pytest.mark.parametrize(
    ("words", "searched", "folder"),
    [
        (["ENGINE=job"], "none", "pets-efficientnet_lite0-none/tune-job"),
        (["ENGINE=job", "UNFREEZE=all"], "none", "pets-efficientnet_lite0-all/tune-job"),
        # It belongs to the run that trains what was searched.
        (["ENGINE=sagemaker"], "all", "pets-efficientnet_lite0-all/tune-sagemaker"),
        (
            ["ENGINE=sagemaker", "UNFREEZE=last"],
            "last",
            "pets-efficientnet_lite0-last/tune-sagemaker",
        ),
    ],
)
def test_a_search_by_jobs_never_overwrites_another(
    words: list[str], searched: str, folder: str, tmp_path: Path
) -> None:
    command = launched("tune", "DATASET=pets", f"OUT={tmp_path}", *words)
    assert value(command, "--unfreeze") == searched
    assert value(command, "--output") == str(tmp_path / folder)
    attached = launched("attach", "JOB=it", "DATASET=pets", f"OUT={tmp_path}", *words)
    assert value(attached, "--output") == str(tmp_path / folder)


def test_the_config_that_the_user_names_is_the_one_that_trains(tmp_path: Path) -> None:
    config = tmp_path / "best.json"
    config.touch()
    here = make("train", f"CONFIG={config}", "DATASET=pets").stdout
    commands = here.replace("\\\n", " ").splitlines()
    training = shlex.split(next(each for each in commands if "-m trainer.train " in each))
    assert training[-1] == f"--config={config}", "the last one counts"
    assert "trainer.tune" not in here
    there = launched("train", f"CONFIG={config}", "WHERE=sagemaker", "DATASET=pets")
    assert f"--config={config}" in there


@pytest.mark.parametrize(
    ("goal", "fresh"), [("tune", "trainer.tune"), ("train", "trainer.train"), ("package", None)]
)
def test_fresh_is_for_what_was_asked_for(goal: str, fresh: str | None) -> None:
    commands = make(goal, "FRESH=1", "DATASET=pets").stdout.replace("\\\n", " ").splitlines()
    found = [command for command in commands if "--fresh" in command]
    assert [f"-m {fresh} " in command for command in found] == ([True] if fresh else [])


@pytest.mark.parametrize("goal", ["attach", "stop"])
def test_the_commands_that_messages_name_are_there(goal: str) -> None:
    words = launched(goal, "JOB=kennel-local-1", "ENV=local")
    assert words[:3] == [goal, "--env", "local"]
    assert words[-2:] == ["--", "kennel-local-1"]
    assert launched("jobs", "ENV=local", "JSON=1") == ["jobs", "--env", "local", "--json"]
