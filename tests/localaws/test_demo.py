"""The parts of `make demo`, and the chain on this machine that it shares with the other targets.

The demonstration itself takes minutes: continuous integration runs it after the tests.
"""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import boto3
import numpy as np
import psutil
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from PIL import Image

from inference.archive import open_model
from localaws import demo
from localaws.demo import (
    CAMERA_SIZE,
    cost,
    damage,
    enlarged,
    label_of,
    photos_in_turn,
    readable,
)
from localaws.hosting.endpoints import HostingError, RuntimeGateway, ServedEndpoint
from localaws.steps import DemoError
from localaws.traffic import Endpoint
from tests.archives import make_archive
from tests.localaws.conftest import until
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
    with endpoint.clients([b"one", b"two"], 3) as tally:
        until(lambda: tally.answers["abc"] >= 20)
    assert len(tally.failures) == 1
    assert "500" in tally.failures[0]
    assert tally.requests == tally.answers.total() + 1
    assert tally.seconds > 0


def test_a_lone_client_asks_for_each_photo_in_turn(endpoint: Endpoint) -> None:
    with pytest.raises(ClientError):
        endpoint.ask(b"one")
    assert len(endpoint.ask_alone([b"one", b"two"], 5)) == 5


MAKE = """#!/bin/sh
echo "$*" >> "$CALLS"
case "$1" in
  local-up) mkdir -p "$OUTPUT/localaws"
            echo "{\\"endpoint\\": \\"$ADDRESS\\"}" > "$OUTPUT/localaws/server.json" ;;
  apply) echo $$ > "$CALLS.pid"; test -z "$HANGS" || exec sleep 1000
         echo 'Error: the quota is used up' >&2; exit 2 ;;
  logs) echo 'what the endpoint wrote' ;;
esac
"""


@dataclass
class Demonstration:
    """`python -m localaws.demo` with a stub for `make`, and a stub for AWS that knows nothing."""

    folder: Path
    environment: dict[str, str]

    def start(self, **more: str) -> subprocess.Popen[str]:
        places = [f"--{name}={self.folder / name}" for name in ("data", "cache", "run", "output")]
        return subprocess.Popen(
            [sys.executable, "-m", "localaws.demo", "--dataset", "dogs", *places],
            cwd=ROOT,
            env={**self.environment, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def calls(self) -> list[str]:
        """The targets that were made, and what is told of how to destroy."""
        lines = (self.folder / "calls").read_text().splitlines()
        return [
            " ".join(word for word in line.split() if word.islower() or "DELETE" in word)
            for line in lines
        ]

    @property
    def report(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder / "output/report.json").read_text())
        return content

    @property
    def page(self) -> str:
        return (self.folder / "output/report.html").read_text()


@pytest.fixture
def demonstration(tmp_path: Path) -> Iterator[Demonstration]:
    program = tmp_path / "bin/make"
    program.parent.mkdir()
    program.write_text(MAKE)
    program.chmod(0o755)
    photo = tmp_path / "data/test/dog/photo.png"
    photo.parent.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(photo)
    with StubServer([StubAnswer(body=b'{"Parameters": []}')]) as aws:
        environment = {name: value for name, value in os.environ.items() if name != "CI"} | {
            "PATH": f"{program.parent}:{os.environ['PATH']}",
            "CALLS": str(tmp_path / "calls"),
            "OUTPUT": str(tmp_path / "output"),
            "ADDRESS": aws.url,
        }
        yield Demonstration(tmp_path, environment)


def test_a_step_that_fails_loses_nothing(demonstration: Demonstration) -> None:
    process = demonstration.start(CI="true")
    printed, error = process.communicate()
    assert process.returncode == 1
    log = demonstration.folder / "output/logs/02-foundation-terraform-apply.log"
    assert error == (
        "error: foundation: terraform apply: make apply: Error: the quota is used up; "
        f"see {log} and {demonstration.folder / 'output/report.html'}\n"
    )
    # What was made is destroyed, and localaws does not go on.
    assert demonstration.calls[:2] == ["local-reset", "local-up"]
    assert "upload" not in demonstration.calls
    assert demonstration.calls[-3:] == ["logs", "destroy DELETE_DATA=1", "local-reset"]
    # Who has nothing but the printed lines finds the cause in them.
    assert "Error: the quota is used up" in printed
    assert "what the endpoint wrote" in printed

    failure = demonstration.report["failure"]
    assert failure["step"] == "foundation: terraform apply"
    assert failure["error"] == "make apply: Error: the quota is used up"
    assert failure["logs"][0] == str(log)
    states = {step["name"]: step["state"] for step in demonstration.report["timeline"]}
    assert states["start localaws"] == "done"
    assert states["foundation: terraform apply"] == "failed"
    assert states["destroy everything"] == "done"
    assert "make apply: Error: the quota is used up" in demonstration.page
    assert str(log) in demonstration.page
    assert (demonstration.folder / "index.html").is_file()  # brought up to date with it


def test_a_second_one_in_the_same_folder_leaves_the_first_alone(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    command = [sys.executable, "-m", "localaws.demo", "--dataset", "digits"]
    for flag in ("--data", "--cache", "--run", "--output"):
        command += [flag, str(tmp_path)]
    with demo._alone(tmp_path):
        second = subprocess.run(command, capture_output=True, text=True)
    assert second.returncode == 1
    assert second.stderr == (
        f"error: another demonstration runs in {tmp_path}: wait for it, or give another OUT\n"
    )
    assert [entry.name for entry in tmp_path.iterdir()] == ["logs"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_no_process_and_a_report(
    demonstration: Demonstration, number: signal.Signals
) -> None:
    process = demonstration.start(HANGS="1")
    pid_file = demonstration.folder / "calls.pid"
    until(lambda: pid_file.exists() and pid_file.read_text().endswith("\n"))
    process.send_signal(number)
    printed, error = process.communicate()
    assert process.returncode == 1
    assert f"stopped by {number.name}; see " in error
    assert len(error.splitlines()) == 1
    assert not psutil.pid_exists(int(pid_file.read_text()))
    assert demonstration.calls[-3:] == ["logs", "destroy DELETE_DATA=1", "local-reset"]
    assert demonstration.report["failure"]["error"] == f"stopped by {number.name}"
    assert "--- the end of" not in printed  # there is no CI


def test_the_photos_are_of_many_classes_and_can_be_sent(tmp_path: Path) -> None:
    for folder, names in {"1.red": ("a", "b"), "2.green": ("a",)}.items():
        (tmp_path / "test" / folder).mkdir(parents=True)
        for name in names:
            Image.new("RGB", (8, 8)).save(tmp_path / "test" / folder / f"{name}.png")
    broken = tmp_path / "test/1.red/0.jpg"
    broken.write_bytes(b"no photo")
    photos = photos_in_turn(tmp_path)
    assert [photo.parent.name for photo in photos[:2]] == ["1.red", "2.green"]
    assert broken in photos
    found = readable(photos, 2)
    assert broken not in found
    assert len(found) == 2
    with pytest.raises(DemoError):
        readable([broken], 2)


def test_a_label_is_the_folder_unless_the_model_leaves_its_number_out() -> None:
    assert label_of("001.Boxer", ["Boxer"]) == "Boxer"
    assert label_of("3.5mm_jack", ["3.5mm_jack", "usb"]) == "3.5mm_jack"


def test_what_clients_send_is_small_and_slow_to_decode(tmp_path: Path) -> None:
    photo = tmp_path / "noise.png"
    pixels = np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8)
    Image.fromarray(pixels).save(photo)
    sent = enlarged(photo)
    assert len(sent) < 100_000
    with Image.open(io.BytesIO(sent)) as image:
        assert image.size == CAMERA_SIZE


def test_the_cost_is_that_of_jobs_and_of_the_time_that_stacks_stood() -> None:
    found = cost(
        {"search": 0.01, "training": None},
        {"foundation": 7.3, "serving": 73.0},
        {"foundation": 3600, "serving": 1800},
    )
    assert {line["name"]: round(line["usd"], 6) for line in found["lines"]} == {
        "search job": 0.01,
        "foundation stack, 60.0 minutes": 0.01,
        "serving stack, 30.0 minutes": 0.05,
    }
    assert found["usd"] == pytest.approx(0.07)


class Verified:
    """A step whose `make deploy` fails by the checks of `make verify`, as told one after another.

    With it goes the chain whose alarms are on until they have been looked at some times.
    """

    def __init__(self, *failed: list[str], looks: int = 3) -> None:
        self.made: list[str] = []
        self.looks = looks
        self.note = ""
        self._failed = iter(failed)
        self.steps = SimpleNamespace(stall_seconds=60)

    def make(self, target: str, codes: Collection[int] = (0,), **_: object) -> str:
        self.made.append(target)
        failed = next(self._failed)
        if failed and 2 not in codes:
            told = "; ".join(f"{name}: not well" for name in failed)
            raise DemoError(f"make {target}: the new model is in service, but {told}")
        return json.dumps({"checks": [{"name": name, "passed": False} for name in failed]})

    def wait(self, seconds: float) -> None:
        self.looks -= 1

    def client(self, _: str) -> Any:
        on = [{"AlarmName": "kennel-local-endpoint-latency"}] if self.looks > 0 else []
        return SimpleNamespace(describe_alarms=lambda **_: {"MetricAlarms": on})


def verified(stub: Verified) -> str:
    return demo._verified(cast(Any, stub), cast(Any, stub), "deploy")


@pytest.mark.parametrize("then", [["alarms"], []])
def test_alarms_of_a_busy_machine_may_come_to_rest(then: list[str]) -> None:
    stub = Verified(["alarms"], then, [])
    assert json.loads(verified(stub)) == {"checks": []}
    assert stub.made == ["deploy", "verify", "verify"]
    assert stub.looks == 0


@pytest.mark.parametrize(
    ("failed", "then"), [(["model"], []), (["alarms", "endpoint"], ["alarms", "endpoint"])]
)
def test_what_else_fails_is_a_failure_at_once(failed: list[str], then: list[str]) -> None:
    stub = Verified(failed, then)
    with pytest.raises(DemoError, match="make deploy"):
        verified(stub)
    assert stub.looks == 3


def test_alarms_that_stay_on_are_a_failure() -> None:
    stub = Verified(["alarms"], ["alarms"], looks=10**9)
    stub.steps.stall_seconds = -1
    with pytest.raises(DemoError, match="make deploy"):
        verified(stub)
