"""What the environment says of other processes that train."""

import sys
from pathlib import Path

import pytest
import torch

from trainer.errors import KennelError, UsageError, run_command
from trainer.ranks import alone, joined
from trainer.train import main

GROUP = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*GROUP, "LOCAL_RANK", "TORCHELASTIC_RUN_ID", "SM_NUM_GPUS", "KENNEL_GPUS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "given",
    [
        {},
        dict.fromkeys((*GROUP, "LOCAL_RANK"), ""),
        {"WORLD_SIZE": " "},
        {"WORLD_SIZE": "1"},
        {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "elsewhere"},
        {"LOCAL_RANK": "3", "RANK": "7"},
        {"MASTER_ADDR": "elsewhere", "MASTER_PORT": "6000"},
    ],
)
def test_a_shell_that_speaks_of_no_group_trains_alone(
    given: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with joined() as ranks:
        assert ranks == alone()
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize("counted_by", ["SM_NUM_GPUS", "KENNEL_GPUS"])
def test_gpus_that_torch_cannot_use_end_the_run(
    counted_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv(counted_by, "0")
    with joined() as ranks:
        assert ranks.device.type == "cpu"
    monkeypatch.setenv(counted_by, "4")
    with pytest.raises(KennelError, match=r"GPUs \(4\), and torch .* cannot use them"), joined():
        pass


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is 2 .* RANK, MASTER_ADDR, MASTER_PORT not set"),
        (GROUP | {"RANK": ""}, "RANK not set"),
        (GROUP | {"MASTER_PORT": ""}, "MASTER_PORT not set"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two' .*no number"),
        ({"WORLD_SIZE": "-1"}, "WORLD_SIZE is '-1'"),
        ({"WORLD_SIZE": "4(x2)"}, "no number"),
        ({"LOCAL_RANK": "x"}, "LOCAL_RANK is 'x'"),
        (GROUP | {"RANK": "2"}, "RANK is 2 of WORLD_SIZE 2"),
        (GROUP | {"MASTER_PORT": "tcp"}, "MASTER_PORT is 'tcp'"),
        (GROUP | {"MASTER_ADDR": "no.such.host.invalid"}, "MASTER_ADDR is 'no.such.host.invalid'"),
    ],
)
def test_half_a_group_is_refused_with_the_remedy(
    given: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=f"{message}.*start with torchrun, or unset"), joined():
        pass


def test_the_remedy_names_what_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "x")
    with pytest.raises(UsageError, match="or unset LOCAL_RANK to train"), joined():
        pass


def test_a_group_that_cannot_be_joined_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (GROUP | {"MASTER_PORT": "99999"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(KennelError, match=r"cannot reach the other processes .*99999.*unset"):
        joined().__enter__()
    said = capsys.readouterr().err
    assert said.startswith("waiting for 1 more processes, as WORLD_SIZE says, to meet at 127.0.0.1")
    assert "port 99999" in said


def test_the_command_says_it_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setattr(sys, "argv", ["train", "--data", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        run_command(main)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: WORLD_SIZE is 8 in the environment")
    assert error.count("\n") == 1
