"""The parts of `make demo`, and the chain on this machine that it shares with the other targets.

The demonstration itself takes minutes: continuous integration runs it after the tests.
"""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import numpy as np
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from PIL import Image

from inference.archive import open_model
from localaws.demo import damage
from localaws.hosting.endpoints import HostingError, RuntimeGateway, ServedEndpoint
from localaws.report import Answered, ScalingTrace, render
from localaws.traffic import Endpoint
from tests.archives import make_archive
from tests.stub_server import StubAnswer, StubServer

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
def chain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The output folder of a finished `make package`, and the variables that it was given."""
    root = tmp_path_factory.mktemp("chain")
    random = np.random.default_rng(0)
    for channel, name in enumerate(("1.red", "2.green", "3.blue")):
        (root / "colours" / name).mkdir(parents=True)
        for number in range(60):  # the split by content leaves some of each class in every split
            pixels = random.integers(0, 120, (40, 48, 3), np.uint8)
            pixels[..., channel] += 120
            Image.fromarray(pixels).save(root / "colours" / name / f"{number}.png")
    variables = [f"DATASET={root / 'colours'}", f"OUT={root}", "TRIALS=2", "VIEW=--image-size 64"]
    done = make("evaluate", *variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return root, variables


def test_the_chain_on_this_machine_learns(chain):
    (evaluation,) = chain[0].glob("colours-*/served/evaluation.json")
    assert json.loads(evaluation.read_text())["top1"] > 0.9


def test_what_is_up_to_date_is_not_made_again(chain):
    root, variables = chain
    kept = [path for path in root.glob("colours-*/**/*") if path.is_file()]
    before = {path: path.stat().st_mtime_ns for path in kept}
    assert len(before) > 10
    assert make("package", *variables).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == before


def test_other_flags_train_again(chain):
    root, variables = chain
    weights = next(root.glob("colours-*/model/weights.safetensors"))
    before = weights.stat().st_mtime_ns
    assert make("train", *variables, "EPOCHS=1").returncode == 0
    assert weights.stat().st_mtime_ns > before


def test_only_who_loads_a_damaged_network_finds_out(tmp_path):
    archive = make_archive(tmp_path)
    broken = tmp_path / "broken.tar.gz"
    damage(archive, broken)
    assert open_model(broken).digest != open_model(archive).digest
    with pytest.raises(HostingError):
        ServedEndpoint(broken, tmp_path / "log")


GOOD = StubAnswer(body=b'{"predictions": [], "model": {"name": "m", "digest": "abc"}}')


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """One that fails once and answers from then on."""
    with (
        StubServer([StubAnswer(status=500), GOOD]) as container,
        RuntimeGateway({"dogs": container.url}) as gateway,
    ):
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
        runtime = boto3.client(
            "sagemaker-runtime",
            region_name="us-east-1",
            endpoint_url=gateway.url,
            config=Config(retries={"total_max_attempts": 1}),
            **keys,
        )
        yield Endpoint(runtime, "dogs")


def test_clients_count_answers_and_failures(endpoint: Endpoint) -> None:
    deadline = time.monotonic() + 30
    with endpoint.clients([b"one", b"two"], 3) as tally:
        while tally.answers["abc"] < 20:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert len(tally.failures) == 1
    assert "500" in tally.failures[0]
    assert tally.requests == tally.answers.total() + 1
    assert tally.seconds > 0


def test_a_lone_client_asks_for_each_photo_in_turn(endpoint: Endpoint) -> None:
    with pytest.raises(ClientError):
        endpoint.ask(b"one")
    assert len(endpoint.ask_alone([b"one", b"two"], 5)) == 5


def test_the_trace_is_a_step_line_to_scale() -> None:
    trace = ScalingTrace()
    for seconds, instances in ((0, 1), (5, 3), (10, 1)):
        trace.add(seconds, instances, 0)
    assert trace.peak == 3
    assert trace.path(trace.instances, 100, 30) == "M0.0,20.0H50.0V0.0H100.0V20.0"
    assert trace.path(trace.clients, 100, 30) == "M0.0,30.0H50.0V30.0H100.0V30.0"


def test_the_page_needs_nothing_from_outside(tmp_path: Path) -> None:
    photo = tmp_path / "7.dog" / "photo.png"
    photo.parent.mkdir()
    Image.new("RGB", (8, 8)).save(photo)
    (tmp_path / "curves.svg").write_text("<?xml?><svg><title>Losses</title></svg>")
    (tmp_path / "evaluation.html").write_text("<p>Confusion matrix</p>")
    trace = ScalingTrace([0.0, 1.0], [1, 3], [0, 60])
    pages = {"curves": tmp_path / "curves.svg", "evaluation": tmp_path / "evaluation.html"}
    page = render(REPORT, [Answered(photo, "cat", 0.5)], [1.0, 2.0, 3.0], trace, 20, pages)
    assert "data:image/png;base64," in page
    assert "is dog" in page
    assert "Confusion matrix" in page
    assert "the capacity is gone" in page
    assert "make the bucket" in page
    assert "<script src" not in page
    assert "<link" not in page


REPORT = {
    "dataset": {"name": "dogs", "classes": 1, "train": 1, "valid": 1, "test": 1},
    "tuning": {"trials": 2, "best": {}, "seconds": 1.0},
    "training": {"epochs": 1, "seconds": 1.0, "images_per_second": 10.0},
    "evaluation": {"top1": 1.0, "top5": 1.0, "ece": 0.0},
    "package": {"precision": "int8", "bytes": 1, "top1_served": 1.0},
    "endpoint": {"p50_ms": 1.0, "p99_ms": 2.0, "requests_per_second": 3.0},
    "lambda": {
        "statusCode": 200,
        "label": "dog",
        "expected": "dog",
        "cold_start_ms": 300.0,
        "zip_bytes": 1,
    },
    "terraform": {"resources": 70, "endpoint_replaced": False, "left_after_destroy": []},
    "release": {"requests": 10, "failed": 0},
    "rollback": {
        "endpoint_stayed": True,
        "reason": "the capacity is gone",
        "verify_failed": ["configuration"],
    },
    "verify": {"passed": True, "checks": 7},
    "timeline": [{"name": "make the bucket", "started": 0.0, "seconds": 1.0}],
    "seconds_total": 10.0,
}
