"""`make demo` as a user runs it, on a small data set of colours."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


def make(target: str, *variables: str) -> subprocess.CompletedProcess[str]:
    # As from a shell, not as part of a `make test` around it.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", target, *variables],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The output folder of a finished `make demo`, and the variables that it was given."""
    root = tmp_path_factory.mktemp("demo")
    random = np.random.default_rng(0)
    for channel, name in enumerate(("1.red", "2.green", "3.blue")):
        (root / "colours" / name).mkdir(parents=True)
        for number in range(60):  # the split by content leaves some of each class in every split
            pixels = random.integers(0, 120, (40, 48, 3), np.uint8)
            pixels[..., channel] += 120
            Image.fromarray(pixels).save(root / "colours" / name / f"{number}.png")
    variables = [f"DATASET={root / 'colours'}", f"OUT={root}", "TRIALS=2", "VIEW=--image-size 64"]
    done = make("demo", *variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return root, variables


def test_the_report_has_every_step(demo):
    report = json.loads((demo[0] / "demo/report.json").read_text())
    assert {step: set(report[step]) for step in report if isinstance(report[step], dict)} == {
        "dataset": {"name", "classes", "train", "valid", "test"},
        "tuning": {"trials", "best", "seconds"},
        "training": {"epochs", "seconds", "images_per_second"},
        "evaluation": {"top1", "top5", "ece"},
        "package": {"precision", "bytes", "sha256", "top1_served", "agreement"},
        "endpoint": {"p50_ms", "p99_ms", "requests_per_second"},
        "lambda": {"statusCode", "label", "expected", "cold_start_ms", "zip_bytes"},
    }
    assert (
        report["dataset"]["train"] + report["dataset"]["valid"] + report["dataset"]["test"] == 180
    )
    assert report["evaluation"]["top1"] > 0.9
    assert report["lambda"]["statusCode"] == 200
    assert report["lambda"]["label"] == report["lambda"]["expected"] in {"red", "green", "blue"}
    assert report["lambda"]["zip_bytes"] < 3_000_000


def test_the_page_needs_nothing_from_outside(demo):
    page = (demo[0] / "demo/report.html").read_text()
    assert page.count("data:image/png;base64,") >= 12
    assert "Confusion matrix" in page
    assert "<script src" not in page
    assert "<link" not in page


def test_nothing_that_was_started_is_left(demo):
    commands = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    assert any("pytest" in word for command in commands for word in command)  # they are seen
    assert not [words for words in commands if any(str(demo[0]) in word for word in words)]


def test_what_is_up_to_date_is_not_made_again(demo):
    root, variables = demo
    kept = [path for path in root.glob("colours-*/**/*") if path.is_file()]
    before = {path: path.stat().st_mtime_ns for path in kept}
    assert len(before) > 10
    assert make("package", *variables).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == before


def test_other_flags_train_again(demo):
    root, variables = demo
    weights = next(root.glob("colours-*/model/weights.safetensors"))
    before = weights.stat().st_mtime_ns
    assert make("train", *variables, "EPOCHS=1").returncode == 0
    assert weights.stat().st_mtime_ns > before
