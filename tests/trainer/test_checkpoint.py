import os
import re
from pathlib import Path

import pytest
import torch

from trainer import checkpoint
from trainer.checkpoint import RunState
from trainer.errors import KennelError

STATE = RunState(epoch=2, history=[{"valid_loss": 0.5}], best={"weight": torch.full((3, 64), 0.75)})
WEIGHTS = {"weight": torch.full((3, 64), 0.5)}
OPTIMIZER = {"state": {0: {"momentum": torch.full((3, 64), 0.25)}}}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "run/last.pt"
    checkpoint.save(path, STATE, WEIGHTS, OPTIMIZER)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(KennelError) as refused:
        checkpoint.restore(path)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_what_was_saved_is_read_back(saved: Path, tmp_path: Path):
    restored = checkpoint.restore(saved)
    assert restored
    state, weights, optimizer = restored
    assert (state.epoch, state.history) == (2, STATE.history)
    assert torch.equal(weights["weight"], WEIGHTS["weight"])
    assert torch.equal(optimizer["state"][0]["momentum"], torch.full((3, 64), 0.25))
    assert checkpoint.restore(tmp_path / "none/last.pt") is None


@pytest.mark.parametrize("value", [0.75, 0.5, 0.25], ids=["best", "weights", "optimizer"])
def test_a_flipped_bit_in_any_tensor_is_noticed(saved: Path, value: float):
    body = bytearray(saved.read_bytes())
    place = body.index(torch.full((3, 64), value).numpy().tobytes())
    body[place + 100] ^= 1
    saved.write_bytes(body)
    assert refusal(saved) == (
        f"the checkpoint {saved} is damaged: begin anew with FRESH=1 (--fresh), or remove the file"
    )


def test_a_flipped_byte_anywhere_gives_what_was_saved_or_a_line(saved: Path):
    whole = saved.read_bytes()
    for place in range(0, len(whole), 37):
        body = bytearray(whole)
        body[place] ^= 0xFF
        saved.write_bytes(body)
        try:
            restored = checkpoint.restore(saved)
        except KennelError:
            continue
        assert restored
        assert restored[0].epoch == 2, place
        assert torch.equal(restored[0].best["weight"], STATE.best["weight"]), place
        assert torch.equal(restored[1]["weight"], WEIGHTS["weight"]), place


@pytest.mark.parametrize("share", [0, 1, 2, 3])
def test_an_emptied_or_cut_one_is_refused_in_a_plain_line(saved: Path, share: int):
    os.truncate(saved, saved.stat().st_size * share // 4)
    assert f"{saved} is damaged: begin anew with FRESH=1" in refusal(saved)


def test_one_of_zeros_is_refused_in_a_plain_line(saved: Path):
    saved.write_bytes(bytes(saved.stat().st_size))
    assert refusal(saved).startswith(f"the checkpoint {saved} is damaged: begin anew with FRESH=1")


def test_one_that_is_no_run_is_refused_in_a_plain_line(saved: Path):
    torch.save([1, 2], saved)
    assert f"{saved} is damaged: begin anew with FRESH=1" in refusal(saved)


def test_a_folder_in_its_place_is_named_on_reading_and_on_saving(tmp_path: Path):
    path = tmp_path / "last.pt"
    path.mkdir()
    said = f"{path} is a folder where a checkpoint belongs: remove it"
    assert refusal(path) == said
    with pytest.raises(KennelError, match=re.escape(said)):
        checkpoint.save(path, STATE, WEIGHTS, OPTIMIZER)
    assert list(tmp_path.iterdir()) == [path]
