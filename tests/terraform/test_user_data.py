"""The EC2 trainer's user data and launch command: rendered by Terraform, run with stand-ins."""

import base64
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.localaws.conftest import SECONDS
from tests.scripts import SHEBANG

ROOT = Path(__file__).parents[2]
TEMPLATES = ROOT / "terraform" / "modules" / "ec2_trainer" / "templates"
JOB = "kennel-dev-1"

# S3 is a folder, CloudWatch Logs a file; every call is noted, and calls that match FAIL fail.
AWS = """
import json, os, pathlib, re, shutil, sys

root, words = pathlib.Path(os.environ["STAND_IN"]), sys.argv[1:]
line = " ".join(words)
with (root / "calls").open("a") as calls:
    print(line, file=calls)
failing = os.environ.get("FAIL")
if failing and re.search(failing, line):
    sys.exit(f"An error occurred ({os.environ.get('FAIL_CODE', 'AccessDenied')})")

def place(word):
    return root / "s3" / word[5:] if word.startswith("s3://") else pathlib.Path(word)

if words[:2] in (["s3", "cp"], ["s3", "sync"]):
    source, target = [place(word) for word in words[2:] if "/" in word and "*" not in word]
    if words[1] == "sync" or "--recursive" in words:
        if source.exists():
            shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
elif words[:2] == ["logs", "put-log-events"]:
    request = json.loads(pathlib.Path(words[-1].removeprefix("file://")).read_text())
    with (root / "events").open("a") as events:
        for event in request["logEvents"]:
            print(event["message"], file=events)
elif words[:2] == ["ec2", "describe-launch-template-versions"]:
    print((root / "template").read_text())
elif words[:2] == ["ec2", "run-instances"]:
    user_data = words[words.index("--user-data") + 1].removeprefix("file://")
    shutil.copy(user_data, root / "launched")
    print("i-0a1b2c3d")
"""

# Writes what trainer.train writes; TRAINING says how it goes.
TORCHRUN = """
import json, os, pathlib, signal, sys, time

pathlib.Path(os.environ["STAND_IN"], "torchrun").write_text(json.dumps(sys.argv[1:]))
flags = dict(zip(sys.argv[5::2], sys.argv[6::2]))
checkpoint = pathlib.Path(flags["--checkpoint-dir"], "run", "last.pt")
print("resumed" if checkpoint.exists() else "from the start", flush=True)
checkpoint.parent.mkdir(parents=True, exist_ok=True)

def stop(number, frame):
    checkpoint.write_text("stopped")
    sys.exit(1)

signal.signal(signal.SIGTERM, stop)
if os.environ.get("TRAINING") == "fails":
    sys.exit("error: the photos are gone")
if os.environ.get("TRAINING") == "hangs":
    pathlib.Path(os.environ["STAND_IN"], "hanging").touch()
    time.sleep(600)
checkpoint.write_text("trained")
pathlib.Path(flags["--model-dir"]).mkdir()
pathlib.Path(flags["--model-dir"], "weights.safetensors").touch()
pathlib.Path(flags["--output-dir"], "training_report.json").touch()
"""

PACKAGE = """
import pathlib, sys

flags = dict(zip(sys.argv[1::2], sys.argv[2::2]))
assert pathlib.Path(flags["--model"], "weights.safetensors").exists()
pathlib.Path(flags["--output"]).write_text("archive")
"""

EVALUATE = """
import pathlib, sys

flags = dict(zip(sys.argv[1::2], sys.argv[2::2]))
model = pathlib.Path(flags["--model"])
assert model.exists() and pathlib.Path(flags["--data"]).exists()
pathlib.Path(flags["--output"]).mkdir(parents=True)
pathlib.Path(flags["--output"], "evaluation.json").write_text(model.name)
"""

# A unit that is there as long as the script that asks for it.
SYSTEMD_RUN = """
import os, pathlib, sys

words = sys.argv[1:]
with pathlib.Path(os.environ["STAND_IN"], "calls").open("a") as calls:
    print("systemd-run", *words, file=calls)
while words[0].startswith("--"):
    name, _, value = words.pop(0).partition("=")
    if name == "--setenv":
        os.environ.update([value.split("=", 1)])
os.execvp(words[0], words)
"""

# The metadata service: NOTICE is there once AWS takes the machine away.
CURL = """
import os, pathlib, sys

words = sys.argv[1:]
if words[-1].endswith("/api/token"):
    assert "PUT" in words
    print("token")
elif words[-1].endswith("/spot/instance-action"):
    assert "X-aws-ec2-metadata-token: token" in words
    sys.exit(0 if pathlib.Path(os.environ["STAND_IN"], "hanging").exists() else 22)
"""

SHUTDOWN = """
import os, pathlib, sys

with pathlib.Path(os.environ["STAND_IN"], "calls").open("a") as calls:
    print("shutdown", *sys.argv[1:], file=calls)
"""


def rendered(
    template: str, values: Mapping[str, object], binary: Path, environment: Mapping[str, str]
) -> str:
    """Let Terraform itself render a template."""
    pairs = ", ".join(f"{name} = {json.dumps(value)}" for name, value in values.items())
    expression = f'base64encode(templatefile("{TEMPLATES / template}", {{ {pairs} }}))\n'
    answer = subprocess.run(
        [binary, "console"],
        input=expression,
        env=environment,
        cwd=TEMPLATES,
        capture_output=True,
        text=True,
        check=True,
    )
    return base64.b64decode(json.loads(answer.stdout)).decode()


@pytest.fixture(scope="module")
def user_data(terraform_binary: Path, terraform_environment: dict[str, str]) -> str:
    values = {
        "bucket": "bucket",
        "log_group": "/kennel-dev/ec2-trainer",
        "max_minutes": 720,
        "region": "us-east-1",
    }
    return rendered("user_data.sh.tftpl", values, terraform_binary, terraform_environment)


@pytest.fixture(scope="module")
def launch(terraform_binary: Path, terraform_environment: dict[str, str]) -> str:
    values = {
        "bucket": "bucket",
        "name": "kennel-dev",
        "subnet_ids": "subnet-a subnet-b",
        "template_id": "lt-1",
    }
    return rendered("launch.sh.tftpl", values, terraform_binary, terraform_environment)


@dataclass(frozen=True)
class Machine:
    """A private folder that stands in for an instance and for AWS."""

    folder: Path

    @property
    def bucket(self) -> Path:
        return self.folder / "s3" / "bucket"

    @property
    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().splitlines()

    @property
    def status(self) -> dict[str, object]:
        return json.loads((self.bucket / "jobs" / JOB / "status.json").read_text())

    @property
    def log(self) -> str:
        return (self.bucket / "logs" / "ec2" / f"{JOB}.log").read_text()

    def environment(self, **more: str) -> dict[str, str]:
        return {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "STAND_IN": str(self.folder),
            "KENNEL_JOB": JOB,
            "KENNEL_WORK": str(self.folder / "work"),
            # As systemd starts it; the first pass, as cloud-init does, is without it.
            "KENNEL_UNIT": "1",
            **more,
        }

    def request(self, content: Mapping[str, object]) -> None:
        path = self.bucket / "jobs" / JOB / "request.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))

    def run(self, script: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        path = self.folder / "script"
        path.write_text(script)
        return subprocess.run(
            ["bash", path, *arguments],
            env=self.environment(**more),
            capture_output=True,
            text=True,
            timeout=60,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    programs = {
        "aws": AWS,
        "curl": "import sys; sys.exit(7)",
        "shutdown": SHUTDOWN,
        "systemd-run": SYSTEMD_RUN,
        "torchrun": TORCHRUN,
    }
    (tmp_path / "bin").mkdir()
    for name, text in programs.items():
        path = tmp_path / "bin" / name
        path.write_text(SHEBANG + text)
        path.chmod(0o755)
    (tmp_path / "bin" / "python3").symlink_to(shutil.which("python3") or sys.executable)

    machine = Machine(tmp_path)
    source = tmp_path / "code" / "trainer"
    source.mkdir(parents=True)
    (source / "package.py").write_text(PACKAGE)
    (source / "evaluate.py").write_text(EVALUATE)
    (machine.bucket / "source").mkdir(parents=True)
    with tarfile.open(machine.bucket / "source" / "trainer.tar.gz", "w:gz") as archive:
        archive.add(source, "trainer")
    photo = machine.bucket / "data" / "dogs" / "train" / "beagle" / "1.jpg"
    photo.parent.mkdir(parents=True)
    photo.touch()
    return machine


@pytest.mark.parametrize("script", ["user_data", "launch"])
def test_rendered_scripts_are_sound(script, request, tmp_path):
    path = tmp_path / "script.sh"
    path.write_text(request.getfixturevalue(script))
    subprocess.run(["bash", "-n", path], check=True)
    shellcheck = Path(sys.executable).with_name("shellcheck")
    answer = subprocess.run([shellcheck, path], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout


def test_user_data_stays_below_the_limit_of_ec2(user_data):
    assert len(user_data) < 16_384 - 200  # what a launch puts above it


class TestMachine:
    def test_trains_packages_uploads_and_ends(self, machine, user_data):
        machine.request(
            {"dataset": "dogs", "hyperparameters": {"epochs": 2, "compile": True, "weights": "a b"}}
        )
        answer = machine.run(user_data, KENNEL_UNIT="")
        assert answer.returncode == 0, answer.stderr + machine.log
        assert machine.calls[0] == "shutdown -h +720"
        assert machine.calls[-1] == "shutdown -h now"

        arguments = json.loads((machine.folder / "torchrun").read_text())
        assert arguments[:4] == ["--standalone", "--nproc-per-node=gpu", "-m", "trainer.train"]
        assert arguments[-6:] == ["--epochs", "2", "--compile", "true", "--weights", "a b"]
        data = Path(arguments[arguments.index("--data") + 1])
        assert (data / "train" / "beagle" / "1.jpg").exists()

        output = machine.bucket / "jobs" / JOB / "output"
        assert (output / "model.tar.gz").read_text() == "archive"
        assert (output / "training_report.json").exists()
        # The launcher tells both.
        assert (output / "trained/evaluation.json").read_text() == "model"
        assert (output / "evaluation/evaluation.json").read_text() == "model.tar.gz"
        checkpoint = machine.bucket / "checkpoints" / JOB / "run" / "last.pt"
        assert checkpoint.read_text() == "trained"
        status = machine.status
        assert (status["job"], status["status"], status["exit_code"]) == (JOB, "completed", 0)

    def test_log_goes_to_the_bucket_to_cloudwatch_and_to_the_console(self, machine, user_data):
        machine.request({"dataset": "dogs"})
        answer = machine.run(user_data)
        assert "from the start" in machine.log
        assert "from the start" in (machine.folder / "events").read_text()
        assert "from the start" in answer.stdout

    def test_flags_are_those_of_the_trainer(self, machine, user_data):
        machine.request({"dataset": "dogs"})
        machine.run(user_data)
        arguments = json.loads((machine.folder / "torchrun").read_text())
        help_text = subprocess.run(
            [sys.executable, "-m", "trainer.train", "--help"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        flags = [word for word in arguments[4:] if word.startswith("--")]
        assert flags
        assert [flag for flag in flags if f"{flag} DIR" not in help_text] == []

    def test_the_same_job_goes_on_from_its_checkpoints(self, machine, user_data):
        machine.request({"dataset": "dogs", "processes": "2"})
        checkpoint = machine.bucket / "checkpoints" / JOB / "run" / "last.pt"
        checkpoint.parent.mkdir(parents=True)
        checkpoint.touch()
        machine.run(user_data)
        assert "resumed" in machine.log
        assert "--nproc-per-node=2" in json.loads((machine.folder / "torchrun").read_text())

    def test_the_same_training_goes_on_from_the_checkpoints_of_another_job(
        self, machine, user_data
    ):
        machine.request({"dataset": "dogs", "checkpoints": "checkpoints/dogs-0123"})
        checkpoint = machine.bucket / "checkpoints" / "dogs-0123" / "run" / "last.pt"
        checkpoint.parent.mkdir(parents=True)
        checkpoint.touch()
        machine.run(user_data)
        assert "resumed" in machine.log
        assert checkpoint.read_text() == "trained"
        assert not (machine.bucket / "checkpoints" / JOB).exists()

    def test_it_trains_in_a_unit_that_ends_before_the_network(self, machine, user_data):
        machine.request({"dataset": "dogs"})
        machine.run(user_data, KENNEL_UNIT="")
        (unit,) = [call for call in machine.calls if call.startswith("systemd-run")]
        for word in ("--property=After=network-online.target", "--property=KillMode=mixed"):
            assert word in unit.split()
        assert machine.calls.index(unit) == 1  # after the end is set, before all else

    def test_without_a_unit_the_machine_ends(self, machine, user_data):
        (machine.folder / "bin" / "systemd-run").write_text("#!/bin/sh\nexit 1\n")
        machine.run(user_data, KENNEL_UNIT="")
        assert machine.calls == ["shutdown -h +720", "shutdown -h now"]

    def test_a_spot_machine_that_is_taken_away_saves_the_state(self, machine, user_data):
        (machine.folder / "bin" / "curl").write_text(SHEBANG + CURL)
        machine.request({"dataset": "dogs"})
        assert machine.run(user_data, TRAINING="hangs").returncode == 143
        assert (machine.status["status"], machine.status["stage"]) == ("stopped", "training")
        checkpoint = machine.bucket / "checkpoints" / JOB / "run" / "last.pt"
        assert checkpoint.read_text() == "stopped"
        assert "AWS takes this spot machine away" in machine.log
        assert machine.calls[-1] == "shutdown -h now"

    def test_failed_training_is_told_and_ends_the_machine(self, machine, user_data):
        machine.request({"dataset": "dogs"})
        assert machine.run(user_data, TRAINING="fails").returncode == 1
        status = machine.status
        assert (status["status"], status["stage"], status["exit_code"]) == ("failed", "training", 1)
        assert "the photos are gone" in machine.log
        assert not (machine.bucket / "jobs" / JOB / "output").exists()
        assert machine.calls[-1] == "shutdown -h now"

    @pytest.mark.parametrize(
        ("fail", "stage"),
        [
            ("request.json", "fetching request.json"),
            ("trainer.tar.gz", "fetching the code"),
            ("s3://bucket/data/", "fetching the data"),
            ("--recursive", "uploading the output"),
        ],
    )
    def test_a_transfer_that_fails_is_told_and_ends_the_machine(
        self, machine, user_data, fail, stage
    ):
        machine.request({"dataset": "dogs"})
        assert machine.run(user_data, FAIL=fail).returncode != 0
        assert (machine.status["status"], machine.status["stage"]) == ("failed", stage)
        assert "AccessDenied" in machine.log
        assert machine.calls[-1] == "shutdown -h now"

    def test_ends_even_if_nothing_can_be_uploaded(self, machine, user_data):
        assert machine.run(user_data, FAIL=".").returncode != 0
        assert machine.calls[-1] == "shutdown -h now"

    @pytest.mark.parametrize("content", [{}, {"dataset": "dogs", "hyperparameters": 3}])
    def test_a_request_that_is_none_is_told(self, machine, user_data, content):
        machine.request(content)
        assert machine.run(user_data).returncode != 0
        assert machine.status["stage"] == "reading request.json"

    @pytest.mark.parametrize("job", ["", "a/b", 'a"b'])
    def test_a_job_without_a_name_ends_the_machine(self, machine, user_data, job):
        assert machine.run(user_data, KENNEL_JOB=job).returncode == 2
        status = json.loads((machine.bucket / "jobs" / "unnamed" / "status.json").read_text())
        assert "KENNEL_JOB" in status["stage"]
        assert machine.calls[-1] == "shutdown -h now"

    def test_a_machine_that_is_told_to_end_saves_the_state_first(self, machine, user_data):
        machine.request({"dataset": "dogs"})
        script = machine.folder / "script"
        script.write_text(user_data)
        process = subprocess.Popen(["bash", script], env=machine.environment(TRAINING="hangs"))
        while not (machine.folder / "hanging").exists():
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=SECONDS) == 143
        assert (machine.status["status"], machine.status["stage"]) == ("stopped", "training")
        checkpoint = machine.bucket / "checkpoints" / JOB / "run" / "last.pt"
        assert checkpoint.read_text() == "stopped"
        assert machine.calls[-1] == "shutdown -h now"


class TestLaunch:
    @pytest.fixture(autouse=True)
    def template(self, machine: Machine) -> None:
        text = base64.b64encode(b"#!/bin/bash\necho trains $KENNEL_JOB\n").decode()
        (machine.folder / "template").write_text(text)

    def subnets(self, machine: Machine) -> list[str]:
        runs = [shlex.split(call) for call in machine.calls if "run-instances" in call]
        return [words[words.index("--subnet-id") + 1] for words in runs]

    def test_uploads_the_request_and_names_the_job(self, machine, launch):
        request = machine.folder / "request.json"
        request.write_text('{"dataset": "dogs"}')
        answer = machine.run(launch, str(request))
        assert answer.returncode == 0, answer.stderr
        assert (machine.bucket / "jobs" / JOB / "request.json").exists()
        assert self.subnets(machine) == ["subnet-a"]
        launched = (machine.folder / "launched").read_text()
        assert launched.startswith("#!/bin/bash\n")
        output = subprocess.run(["bash"], input=launched, capture_output=True, text=True).stdout
        assert output == f"trains {JOB}\n"

    @pytest.mark.parametrize("code", ["InsufficientInstanceCapacity", "Unsupported"])
    def test_tries_the_next_subnet_where_there_is_no_machine(self, machine, launch, code):
        answer = machine.run(launch, FAIL="run-instances.*subnet-a", FAIL_CODE=code)
        assert answer.returncode == 0, answer.stderr
        assert self.subnets(machine) == ["subnet-a", "subnet-b"]

    def test_says_so_when_no_subnet_has_capacity(self, machine, launch):
        answer = machine.run(launch, FAIL="run-instances", FAIL_CODE="InsufficientInstanceCapacity")
        assert answer.returncode == 1
        assert self.subnets(machine) == ["subnet-a", "subnet-b"]
        assert "error: no subnet has a machine" in answer.stderr

    def test_stops_at_any_other_error(self, machine, launch):
        answer = machine.run(launch, FAIL="run-instances")
        assert answer.returncode == 1
        assert self.subnets(machine) == ["subnet-a"]
        assert "AccessDenied" in answer.stderr


@pytest.mark.parametrize(
    ("log", "requests"),
    [
        (b"\n" * 25_000, [10_000, 10_000, 5_000]),
        (b"x" * 250_000, [1]),
        (b"10%\r20%\r30%", [2]),
        ("\u00e9t\u00e9\nbeing".encode(), [1]),
    ],
)
def test_a_request_with_log_lines_is_within_the_limits(
    tmp_path: Path, log: bytes, requests: list[int]
) -> None:
    """PutLogEvents takes 10,000 events; a log that cannot be sent would never be sent again."""
    template = (TEMPLATES / "user_data.sh.tftpl").read_text()
    script = template.partition("next_events() {")[2].split("PYTHON\n")[0].partition("PYTHON'\n")[2]
    (tmp_path / "log").write_bytes(log)
    command = [sys.executable, "-c", script, str(tmp_path / "log"), str(tmp_path), "group", "job"]
    sent, whole = [], ""
    while subprocess.run(command, check=False).returncode == 0:
        events = json.loads((tmp_path / "events.json").read_text())["logEvents"]
        sent.append(len(events))
        whole += "".join(event["message"].strip() for event in events)
        (tmp_path / "shipped.next").rename(tmp_path / "shipped")
    assert sent == requests
    assert log.decode().replace("\n", "").replace("\r", "").startswith(whole)
