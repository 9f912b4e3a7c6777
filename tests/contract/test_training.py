"""`trainer.train` under `sagemaker-training`, as SageMaker's PyTorch images start it."""

import json
from pathlib import Path

import pytest

from inference.archive import open_model
from tests.contract.toolkit import run_job

POINTS = 0.005
"""How far apart valid accuracies may be after an epoch: half a point."""
LOSS = 0.002
"""How far apart the epoch's training losses may be: ten times what its parts' number changes."""


def test_one_host_leaves_a_servable_model(one_host: Path) -> None:
    assert (one_host / "output/success").exists()
    manifest = open_model(one_host / "model").manifest
    assert manifest["backbone"] == "efficientnet_lite0"
    evaluation = json.loads((one_host / "output/data/evaluation/evaluation.json").read_text())
    assert (evaluation["split"], evaluation["top1"] > 0.85) == ("test", True)


def test_two_hosts_train_the_model_of_one(one_host: Path, digits: Path, tmp_path: Path) -> None:
    first, second = run_job(tmp_path, digits, ["127.0.0.1", "127.0.0.2"], package=False)
    report = json.loads((first / "output/data/training_report.json").read_text())
    assert report["processes"] == 2
    alone, together = (
        json.loads((base / "model/metrics.json").read_text()) for base in (one_host, first)
    )
    assert together["images"] == alone["images"]
    alone, together = alone["history"][0], together["history"][0]
    assert together["train_loss"] == pytest.approx(alone["train_loss"], rel=LOSS)
    assert abs(together["valid_accuracy"] - alone["valid_accuracy"]) <= POINTS
    assert not list((second / "model").iterdir())
    assert (second / "output/success").exists()
