"""Training as a user runs it: real processes, killed, resumed and shared between ranks."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from trainer import train as train_module
from trainer.backbones import load_model
from trainer.config import TrainConfig
from trainer.errors import run_command
from trainer.ranks import Ranks, alone
from trainer.train import Folders, main, train

ROOT = Path(__file__).parents[2]
FINE_TUNE = {
    "backbone": "efficientnet_lite0", "unfreeze": "all", "image_size": 32, "batch_size": 10,
    "epochs": 4, "hflip": 0.5, "dropout": 0.2, "seed": 7, "precision": "fp32",
}  # fmt: skip
# The order in which threads add is what could tell one run from another.
THREADS = {"OMP_NUM_THREADS": "2"}
# The last features are a single pixel, of which one image has no statistics.
NORMALIZED = {
    "backbone": "efficientnet_lite0", "weights": "none", "unfreeze": "all", "image_size": 32,
    "precision": "fp32", "epochs": 1,
}  # fmt: skip
HEAD = {"backbone": "efficientnet_lite0", "image_size": 32, "batch_size": 10, "epochs": 8}


def folders(data: Path, root: Path) -> Folders:
    places = (root / name for name in ("model", "output", "checkpoints", "cache"))
    return Folders(data, *places, features=None)


def command(data: Path, root: Path, options: dict[str, object]) -> list[str]:
    places = {"data": data, "cache-dir": root / "cache", "checkpoint-dir": root / "checkpoints",
              "model-dir": root / "model", "output-dir": root / "output"}  # fmt: skip
    flags = [
        str(part) for name, value in (places | options).items() for part in (f"--{name}", value)
    ]
    return ["-m", "trainer.train", *flags]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=250,
    )


@pytest.fixture(scope="module")
def uninterrupted(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a fine-tuning run that nothing disturbed."""
    root = tmp_path_factory.mktemp("uninterrupted")
    done = run(*command(colours, root, FINE_TUNE), **THREADS)
    assert done.returncode == 0, done.stderr
    (root / "log").write_text(done.stdout)
    return root


def test_every_epoch_prints_one_line_that_sagemaker_can_parse(uninterrupted: Path):
    log = (uninterrupted / "log").read_text()
    rows = re.findall(
        r"^epoch=(\d+) train_loss=[\d.e-]+ valid_loss=[\d.e-]+ "
        r"valid_accuracy=([\d.]+) images_per_second=[\d.]+$",
        log, re.MULTILINE,
    )  # fmt: skip
    assert [int(epoch) for epoch, _ in rows] == [0, 1, 2, 3]


def test_the_model_folder_is_complete_and_learned_the_colours(uninterrupted: Path):
    model = load_model(uninterrupted / "model")
    assert model.labels == ("red", "green", "blue")
    assert model.classes == ("1.red", "2.green", "3.blue")
    assert model.config == TrainConfig(**FINE_TUNE)
    metrics = json.loads((uninterrupted / "model/metrics.json").read_text())
    assert metrics["valid_accuracy"] > 0.9
    assert metrics["images"] == {"train": 37, "valid": 13}
    assert len(metrics["history"]) == 4
    assert (uninterrupted / "output/learning_curves.svg").read_text().count("<svg") == 1
    assert json.loads((uninterrupted / "output/training_report.json").read_text())["epochs"] == 4


def same_model(a: Path, b: Path) -> bool:
    names = sorted(path.name for path in a.iterdir())
    assert names == sorted(path.name for path in b.iterdir())
    return all((a / name).read_bytes() == (b / name).read_bytes() for name in names)


def test_stopped_at_any_moment_and_started_again_it_ends_bit_for_bit_the_same(
    uninterrupted: Path, colours: Path, tmp_path: Path
):
    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *command(colours, tmp_path, FINE_TUNE)],
            env=os.environ | THREADS, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    # SIGTERM lets it save its place within the epoch.
    process = start()
    assert process.stdout
    next(line for line in process.stdout if line.startswith("epoch=0"))
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate()
    assert process.returncode == 1
    assert re.search(
        r"^error: stopped by SIGTERM at epoch \d, step \d; the same command goes on",
        errors,
        re.MULTILINE,
    )
    assert not (tmp_path / "model").exists()
    kills = 0
    # When a line says an epoch, the state after the one before is saved for certain.
    for least, delay in ((1, 0.0), (2, 0.11)):
        process = start()
        assert process.stdout
        for line in process.stdout:
            epoch = re.match(r"epoch=(\d)", line)
            if epoch and int(epoch[1]) >= least:
                time.sleep(delay)
                process.kill()
                kills += 1
                break
        process.communicate()
    assert kills
    done = run(*command(colours, tmp_path, FINE_TUNE), **THREADS)
    assert done.returncode == 0, done.stderr
    assert "resumed from" in done.stdout
    assert same_model(uninterrupted / "model", tmp_path / "model")


def torchrun(processes: int) -> list[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        *("-m", "torch.distributed.run", "--nproc-per-node", str(processes)),
        *("--master-addr", "127.0.0.1", "--master-port", str(port)),
    ]


TOGETHER = {
    "head": HEAD | {"dropout": 0.0},
    "all": FINE_TUNE | {"dropout": 0.0, "epochs": 2, "optimizer": "sgd"},
}
# Of 37 images, the last batch has a share for one process only.
NORMALIZED_TOGETHER = NORMALIZED | {"batch_size": 34}
ALL_TOGETHER = """\
import sys
from pathlib import Path
from tests.trainer.test_train import NORMALIZED_TOGETHER, TOGETHER, folders
from trainer.config import TrainConfig
from trainer.ranks import joined
from trainer.train import train
data, root = map(Path, sys.argv[1:])
with joined() as ranks:
    for name, options in TOGETHER.items():
        train(TrainConfig(**options), folders(data, root / name), ranks)
    last = train(TrainConfig(**NORMALIZED_TOGETHER), folders(data, root / "norm"), ranks)
    assert last["history"][0]["train_loss"] > 0
"""


@pytest.fixture(scope="module")
def together(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The root of what two processes trained, a folder for each of `TOGETHER`, and their log."""
    root = tmp_path_factory.mktemp("together")
    (root / "together.py").write_text(ALL_TOGETHER)
    done = run(
        *torchrun(2), *map(str, (root / "together.py", colours, root)),
        GLOO_SOCKET_IFNAME="lo", PYTHONPATH=str(ROOT),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "broadcast_buffers" not in done.stderr  # torch's warning of a name that it gives up
    return root, done.stdout


@pytest.mark.parametrize("name", TOGETHER)
def test_two_processes_reach_the_weights_of_one(
    colours: Path, tmp_path: Path, together: tuple[Path, str], name: str
):
    train(TrainConfig(**TOGETHER[name]), folders(colours, tmp_path), alone())
    root, log = together
    # One process reports.
    assert len(re.findall(r"^epoch=0 ", log, re.MULTILINE)) == len(TOGETHER) + 1
    models = (tmp_path / "model", root / name / "model")
    weights, others = (load_file(model / "weights.safetensors") for model in models)
    assert weights.keys() == others.keys()
    for key in weights:
        assert torch.allclose(weights[key], others[key], rtol=1e-3, atol=1e-4), key
    rows, other_rows = (
        json.loads((model / "metrics.json").read_text())["history"] for model in models
    )
    for row, other in zip(rows, other_rows, strict=True):
        assert row == pytest.approx(other, rel=1e-3)  # exact over 13 images on two processes


def refused(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> int:
    """The exit code of a command that fails, in this process: another imports torch for seconds."""
    monkeypatch.setattr(sys, "argv", arguments[1:])
    with pytest.raises(SystemExit) as ended:
        run_command(main)
    return int(ended.value.code or 0)


def test_hosts_without_a_process_group_are_refused(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.setenv("SM_HOSTS", '["algo-1", "algo-2"]')
    assert refused(monkeypatch, command(colours, tmp_path, HEAD)) == 2
    assert capsys.readouterr().err.startswith("error: 2 hosts but no process group")


def test_sagemakers_environment_says_where_things_are(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name, value in {
        "SM_CHANNEL_TRAINING": colours,
        "SM_MODEL_DIR": tmp_path / "model",
        "SM_OUTPUT_DATA_DIR": tmp_path / "output",
        "KENNEL_CACHE": tmp_path / "cache",
        "SM_HOSTS": '["algo-1"]',
    }.items():
        monkeypatch.setenv(name, str(value))
    flags = [str(part) for name, value in HEAD.items() for part in (f"--{name}", value)]
    monkeypatch.setattr(sys, "argv", ["train", *flags])
    main()
    assert (tmp_path / "model/weights.safetensors").exists()
    assert (tmp_path / "output/learning_curves.svg").exists()
    assert list(tmp_path.glob("checkpoints/*/last.pt"))  # beside the model, as SageMaker has it


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--data", "nowhere"), "nowhere"),
        (("--epochs", "0"), "--epochs takes a number 1 or more"),
        (("--backbone", "resnet51"), "no backbone 'resnet51'"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, flags, reason
):
    assert refused(monkeypatch, [*command(colours, tmp_path, {}), *flags]) == 2
    error = capsys.readouterr().err
    assert reason in error
    assert error.count("\n") == 1


def test_ctrl_c_saves_the_state_and_says_so(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    real = train_module.report

    def interrupting(ranks: Ranks, line: str) -> None:
        real(ranks, line)
        if line.startswith("epoch=2 "):
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as changed:
        changed.setattr(train_module, "report", interrupting)
        assert refused(changed, command(colours, tmp_path, HEAD)) == 130
    assert capsys.readouterr().err.splitlines()[-1] == (
        "error: stopped by Ctrl-C at epoch 3, step 0; the same command goes on from there"
    )
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    train(TrainConfig(**HEAD), folders(colours, tmp_path), alone())
    assert re.search(r"resumed from .* at epoch=3 step=0", capsys.readouterr().out)


def test_a_repeated_command_trains_nothing_again(colours: Path, tmp_path: Path, capfd):
    config = TrainConfig(**HEAD)
    first = train(config, folders(colours, tmp_path), alone())
    capfd.readouterr()
    assert train(config, folders(colours, tmp_path), alone()) == first
    assert "epoch=7 train_loss" not in capfd.readouterr().out


def test_an_early_stop_is_said(colours: Path, tmp_path: Path, capfd):
    early = {"epochs": 99, "patience": 1, "head_learning_rate": 1.0}
    train(TrainConfig(**HEAD | early), folders(colours, tmp_path), alone())
    said = capfd.readouterr().out
    assert "stopped early: no lower loss since epoch " in said
    assert "epoch=98 " not in said


def test_another_configuration_starts_afresh(colours: Path, tmp_path: Path, capfd):
    train(TrainConfig(**HEAD | {"epochs": 1}), folders(colours, tmp_path), alone())
    capfd.readouterr()
    train(TrainConfig(**HEAD | {"epochs": 1, "seed": 1}), folders(colours, tmp_path), alone())
    assert "resumed" not in capfd.readouterr().out


@pytest.mark.parametrize(
    "options",
    [
        {"unfreeze": "last"},
        {"unfreeze": "last", "mixup": 0.3, "grad_accumulation": 2, "class_weights": "balanced"},
        {"unfreeze": "all", "weights": "none", "backbone": "resnet18", "optimizer": "sgd"},
        {"unfreeze": "all", "precision": "bf16", "label_smoothing": 0.1},
    ],
)
def test_every_mode_learns(colours: Path, tmp_path: Path, options):
    config = TrainConfig(**HEAD | {"epochs": 3} | options)
    losses = [
        row["train_loss"] for row in train(config, folders(colours, tmp_path), alone())["history"]
    ]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 12},  # of 37 images
        {"batch_size": 12, "grad_accumulation": 5},
        {"batch_size": 36, "grad_accumulation": 36},
        {"batch_size": 18, "freeze_norm": False, "weights": "pretrained"},
    ],
)
def test_no_image_is_normalized_alone(colours: Path, tmp_path: Path, options):
    config = TrainConfig(**NORMALIZED | options)
    metrics = train(config, folders(colours, tmp_path), alone())
    assert metrics["history"][0]["train_loss"] > 0


def test_frozen_parts_stay_as_they_were(colours: Path, tmp_path: Path):
    for name, unfreeze in (("last", "last"), ("none", "none")):
        train(
            TrainConfig(**HEAD | {"epochs": 1, "unfreeze": unfreeze}),
            folders(colours, tmp_path / name),
            alone(),
        )
    last, none = (
        load_model(tmp_path / name / "model").classifier.state_dict() for name in ("last", "none")
    )
    changed = {name for name in none if not torch.equal(none[name], last[name])}
    assert "backbone.network._conv_head.weight" in changed
    assert not any(
        name.startswith(("backbone.network._conv_stem", "backbone.network._blocks.0."))
        for name in changed
    )
    assert not any("running_" in name for name in changed)


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 6 MB: a head's checkpoint fits, a network's does not."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a small file system can be mounted by root only")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_is_one_line_and_leaves_the_last_checkpoint(
    colours: Path, tmp_path: Path, full_disk: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    options = FINE_TUNE | {"epochs": 1, "checkpoint-dir": full_disk}
    head = TrainConfig(**HEAD | {"epochs": 1})
    train(head, replace(folders(colours, tmp_path), checkpoints=full_disk), alone())
    saved = {path: path.read_bytes() for path in full_disk.rglob("*") if path.is_file()}
    assert refused(monkeypatch, command(colours, tmp_path, options)) == 1
    error = capsys.readouterr().err
    assert re.search(r"^error: cannot save the checkpoint .*make room", error, re.MULTILINE)
    assert {path: path.read_bytes() for path in full_disk.rglob("*") if path.is_file()} == saved


def test_a_damaged_checkpoint_is_named(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    train(TrainConfig(**HEAD), folders(colours, tmp_path), alone())
    (path,) = tmp_path.glob("checkpoints/*/last.pt")
    path.write_bytes(path.read_bytes()[:-200])
    assert refused(monkeypatch, command(colours, tmp_path, HEAD)) == 1
    error = capsys.readouterr().err
    assert f"error: the checkpoint {path} is damaged" in error
    assert "begin anew with FRESH=1" in error


def test_a_diverging_run_says_so(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    wild = {"optimizer": "sgd", "head-learning-rate": 10.0, "weight-decay": 1.0, "momentum": 0.9999}
    options = HEAD | wild | {"epochs": 200, "patience": 0}
    assert refused(monkeypatch, command(colours, tmp_path, options)) == 1
    assert "lower --head-learning-rate" in capsys.readouterr().err
