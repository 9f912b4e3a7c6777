"""Training jobs as a user of SageMaker sees them: created, followed, stopped, interrupted."""

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import textwrap
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from botocore.exceptions import ClientError
from PIL import Image

import inference
import trainer
from localaws.jobs.transfers import Mirror
from tests.localaws.conftest import LocalAws, until
from tests.localaws.job_account import JobAccount

GROUP = "/aws/sagemaker/TrainingJobs"
PRELUDE = """
import json, os, sys, time
from pathlib import Path
ml = Path(os.environ["SAGEMAKER_BASE_DIR"])
"""
COUNTING = """
    from signal import SIGTERM, signal
    path = ml / "checkpoints/count"
    count = int(path.read_text()) if path.exists() else 0
    print(f"started at {count}")
    def end(*_):
        print("told to end")
        raise SystemExit(1)
    signal(SIGTERM, end)
    while not (ml / "checkpoints/enough").exists():
        count += 1
        path.with_name(".count").write_text(str(count))
        time.sleep(0.02)
        path.with_name(".count").rename(path)
    (ml / "model/count").write_text(str(count))
"""


class KilledLocalAws(LocalAws):
    """A localaws that can be killed."""

    def kill(self) -> None:
        """End it as a power cut does."""
        self._process.kill()
        (self._folder / "server.json").unlink()

    def save(self) -> None:
        page = urllib.request.Request(f"{self.endpoint}/_localaws/save", method="POST")
        urllib.request.urlopen(page).close()

    def has_saved(self, name: str) -> bool:
        """Whether what it wrote to disk by itself knows of a name."""
        path = self._folder / "state.zip"
        if not path.exists():
            return False
        with zipfile.ZipFile(path) as state:
            members = [member for member in state.namelist() if member.endswith(".pickle")]
            return any(name.encode() in zlib.decompress(state.read(member)) for member in members)


class Account(JobAccount):
    """A localaws with a bucket, and a role for jobs."""

    def __init__(self, aws: KilledLocalAws) -> None:
        super().__init__(aws, "training", GROUP)

    def create(
        self, name: str, script: str, shell: str = "exec {}", hosts: int = 1, **more: Any
    ) -> None:
        """Start a job that runs Python code, which knows its host's /opt/ml as `ml`."""
        self.put(f"scripts/{name}/main.py", (PRELUDE + textwrap.dedent(script)).encode())
        channels = [
            channel("code", f"s3://kennel/scripts/{name}"),
            *more.pop("InputDataConfig", []),
        ]
        command = shell.format("python3 /opt/ml/input/data/code/main.py")
        self.start(name, ["bash", "-c", command], hosts, InputDataConfig=channels, **more)

    def start(self, name: str, command: list[str], hosts: int = 1, **more: Any) -> None:
        algorithm = {
            "TrainingImage": "image",
            "TrainingInputMode": "File",
            **({"ContainerEntrypoint": command[:1]} if command else {}),
            **({"ContainerArguments": command[1:]} if command else {}),
            "MetricDefinitions": [{"Name": "loss", "Regex": "loss=([0-9.]+)"}],
        }
        self.sagemaker.create_training_job(
            **{
                "TrainingJobName": name,
                "RoleArn": self.role,
                "AlgorithmSpecification": algorithm,
                "OutputDataConfig": {"S3OutputPath": "s3://kennel/jobs/"},
                "ResourceConfig": {
                    "InstanceType": "ml.m5.large",
                    "InstanceCount": hosts,
                    "VolumeSizeInGB": 1,
                },
                "StoppingCondition": {"MaxRuntimeInSeconds": 300},
                **more,
            }
        )

    def describe(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.sagemaker.describe_training_job(TrainingJobName=name)
        return found

    def ended(self, name: str) -> dict[str, Any]:
        """What is told of a job that has ended."""
        until(lambda: self.describe(name)["TrainingJobStatus"] not in ("InProgress", "Stopping"))
        return self.describe(name)

    def model(self, name: str) -> dict[str, bytes]:
        """The files of a job's archive."""
        archive = self.read(f"jobs/{name}/output/model.tar.gz")
        with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
            return {found.name: packed.extractfile(found).read() for found in packed}  # type: ignore[union-attr]


def statuses(described: dict[str, Any]) -> list[str]:
    return [found["Status"] for found in described["SecondaryStatusTransitions"]]


def channel(name: str, uri: str, **source: str) -> dict[str, Any]:
    data = {"S3DataType": "S3Prefix", "S3Uri": uri, **source}
    return {"ChannelName": name, "DataSource": {"S3DataSource": data}}


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """AWS's own waits are short in it; its folder's name has a space, as a user's may."""
    aws = KilledLocalAws(tmp_path_factory.mktemp("local aws"), "--time-scale", "120")
    yield Account(aws)
    aws.stop()


def test_a_job_runs_from_its_channels_to_its_archive(account: Account) -> None:
    for key in ("one/a.txt", "one/b/b.txt", "one/c.txt", "two.txt"):
        account.put(f"data/{key}", key.encode())
    account.put("lists/good.json", b'[{"prefix": "s3://kennel/data/"}, "one/c.txt"]')
    script = """
        data = ml / "input/data"
        told = {name: json.loads((ml / f"input/config/{name}.json").read_text())
                for name in ("resourceconfig", "inputdataconfig", "hyperparameters")}
        told["environment"] = dict(os.environ)
        told["found"] = sorted(
            str(path.relative_to(data)) for path in data.rglob("*.txt") if path.is_file())
        me = told["resourceconfig"]["current_host"]
        (ml / f"model/{me}.json").write_text(json.dumps(told))
        (ml / "output/data/report.txt").write_text("report")
        print("loss=0.75")
        print("loss=0.5")
    """
    account.create(
        "whole",
        script,
        hosts=2,
        HyperParameters={"epochs": "3", "place": "/opt/ml/checkpoints"},
        Environment={"COLOUR": "blue"},
        InputDataConfig=[
            channel("all", "s3://kennel/data"),
            channel("sharded", "s3://kennel/data/one/", S3DataDistributionType="ShardedByS3Key"),
            channel("single", "s3://kennel/data/two.txt"),
            channel("listed", "s3://kennel/lists/good.json", S3DataType="ManifestFile"),
        ],
    )
    told = account.ended("whole")
    assert told["TrainingJobStatus"] == "Completed", told
    assert statuses(told) == ["Starting", "Downloading", "Training", "Uploading", "Completed"]
    assert told["ModelArtifacts"]["S3ModelArtifacts"] == (
        "s3://kennel/jobs/whole/output/model.tar.gz"
    )
    assert [(m["MetricName"], m["Value"]) for m in told["FinalMetricDataList"]] == [("loss", 0.5)]
    assert 1 <= told["BillableTimeInSeconds"] == told["TrainingTimeInSeconds"]

    hosts = ["127.0.0.1", "127.0.0.2"]
    wrote = {name: json.loads(content) for name, content in account.model("whole").items()}
    first, second = (wrote[f"{host}.json"] for host in hosts)
    whole = ["all/one/a.txt", "all/one/b/b.txt", "all/one/c.txt", "all/two.txt", "listed/one/c.txt"]
    assert first["found"] == [*whole, "sharded/a.txt", "sharded/c.txt", "single/two.txt"]
    assert second["found"] == [*whole, "sharded/b/b.txt", "single/two.txt"]
    for host, wrote_host in zip(hosts, (first, second), strict=True):
        config = wrote_host["resourceconfig"]
        assert (config["current_host"], config["hosts"]) == (host, hosts)
        assert config["network_interface_name"] == "lo"
        assert config["current_instance_type"] == "ml.m5.large"
        assert wrote_host["hyperparameters"]["epochs"] == "3"
        assert wrote_host["hyperparameters"]["place"].endswith("/checkpoints")
        assert wrote_host["inputdataconfig"]["sharded"]["S3DistributionType"] == "ShardedByS3Key"
        environment = wrote_host["environment"]
        assert environment["COLOUR"] == "blue"
        assert environment["TRAINING_JOB_NAME"] == "whole"
        assert environment["TRAINING_JOB_ARN"] == told["TrainingJobArn"]
        assert environment["AWS_ENDPOINT_URL"] == account.aws.endpoint
    assert account.keys("jobs/whole/") == [
        "jobs/whole/output/model.tar.gz",
        "jobs/whole/output/output.tar.gz",
    ]

    log = account.log("whole")
    assert [stream.rpartition("-")[0] for stream in sorted(log)] == ["whole/algo-1", "whole/algo-2"]
    assert all(messages == ["loss=0.75", "loss=0.5"] for messages in log.values())
    metrics = account.aws.client("cloudwatch").list_metrics(Namespace=GROUP)["Metrics"]
    assert [{"Name": "TrainingJobName", "Value": "whole"}] in [m["Dimensions"] for m in metrics]


def test_a_failed_host_ends_the_others_and_its_reason_is_told(account: Account) -> None:
    script = """
        resources = json.loads((ml / "input/config/resourceconfig.json").read_text())
        if resources["current_host"] != "127.0.0.2":
            time.sleep(600)
        (ml / "output/failure").write_text("no photos in train/" + "." * 2000)
        sys.exit(3)
    """
    account.create("refused", script, hosts=2)
    told = account.ended("refused")
    assert (told["TrainingJobStatus"], told["SecondaryStatus"]) == ("Failed", "Failed")
    assert told["FailureReason"].startswith("AlgorithmError: no photos in train/...")
    assert told["FailureReason"].endswith(", exit code: 3")
    assert len(told["FailureReason"]) <= 1024
    assert account.keys("jobs/refused/") == []


def test_a_failure_without_a_reason_is_told_by_the_last_lines(account: Account) -> None:
    account.create("crashed", "raise ValueError('a bad photo')")
    account.create("killed", "print('so much memory', flush=True); os.kill(os.getpid(), 9)")
    reason = account.ended("crashed")["FailureReason"]
    assert reason.startswith("AlgorithmError: Traceback")
    assert reason.endswith("ValueError: a bad photo, exit code: 1")
    reason = account.ended("killed")["FailureReason"]
    assert reason == "AlgorithmError: so much memory, exit code: 137"


@pytest.mark.parametrize(
    ("name", "more", "reason"),
    [
        (
            "escape",
            {
                "InputDataConfig": [
                    channel("data", "s3://kennel/lists/bad.json", S3DataType="ManifestFile")
                ]
            },
            "ClientError: Data download failed:the key s3://kennel/data/../../out leads out",
        ),
        (
            "no-output",
            {"OutputDataConfig": {"S3OutputPath": "s3://nobody-has-it/jobs"}},
            "ClientError: Artifact upload failed:",
        ),
        ("no-program", {}, "AlgorithmError: localaws runs no images"),
    ],
)
def test_what_cannot_be_had_is_the_failure_reason(
    account: Account, name: str, more: dict[str, Any], reason: str
) -> None:
    account.put("lists/bad.json", b'[{"prefix": "s3://kennel/data/"}, "../../out"]')
    program = ["bash", "-c", "echo 1 > /opt/ml/model/one"] if name != "no-program" else []
    account.start(name, program, **more)
    told = account.ended(name)
    assert told["TrainingJobStatus"] == "Failed"
    assert told["FailureReason"].startswith(reason)


def test_a_role_that_sagemaker_cannot_assume_is_refused(account: Account) -> None:
    with pytest.raises(ClientError, match="Could not assume role") as refused:
        account.create("nobody", "", RoleArn="arn:aws:iam::123456789012:role/nobody")
    assert refused.value.response["Error"]["Code"] == "ValidationException"
    with pytest.raises(ClientError, match="not found"):
        account.describe("nobody")


HEARS = """
    from signal import SIGTERM, signal
    def end(*_):
        (ml / "model/heard").write_text("")
        raise SystemExit(0)
    signal(SIGTERM, end)
    (ml / "model/begun").write_text("")
    print("ready")
    time.sleep(600)
"""


@pytest.mark.parametrize(
    ("name", "shell", "kept"),
    [
        ("stopped-main", "exec {}", {"begun", "heard"}),
        # A container's signals reach its first process only, and a shell that waits passes none on.
        ("stopped-child", "{}; true", {"begun"}),
    ],
)
def test_a_stop_reaches_the_main_process_alone(
    account: Account, name: str, shell: str, kept: set[str]
) -> None:
    account.create(name, HEARS, shell)
    until(lambda: account.log(name))
    account.sagemaker.stop_training_job(TrainingJobName=name)
    assert account.describe(name)["TrainingJobStatus"] in ("Stopping", "Stopped")
    told = account.ended(name)
    assert (told["TrainingJobStatus"], told["SecondaryStatus"]) == ("Stopped", "Stopped")
    assert "FailureReason" not in told
    assert account.model(name).keys() == kept
    with pytest.raises(ClientError, match="in status Stopped"):
        account.sagemaker.stop_training_job(TrainingJobName=name)


@pytest.mark.parametrize(
    ("name", "spot", "limits"),
    [
        ("MaxRuntimeExceeded", False, {"MaxRuntimeInSeconds": 1}),
        # Its wait begins before it runs.
        ("MaxWaitTimeExceeded", True, {"MaxRuntimeInSeconds": 1, "MaxWaitTimeInSeconds": 1}),
    ],
)
def test_a_job_ends_at_its_limits(
    account: Account, name: str, spot: bool, limits: dict[str, int]
) -> None:
    account.create(
        name, "time.sleep(600)", EnableManagedSpotTraining=spot, StoppingCondition=limits
    )
    told = account.ended(name)
    assert (told["TrainingJobStatus"], told["SecondaryStatus"]) == ("Stopped", name)


def test_a_model_can_be_left_unpacked(account: Account) -> None:
    output = {"S3OutputPath": "s3://kennel/jobs", "CompressionType": "NONE"}
    account.create("flat", "(ml / 'model/m').write_text('1')", OutputDataConfig=output)
    told = account.ended("flat")
    assert told["ModelArtifacts"]["S3ModelArtifacts"] == "s3://kennel/jobs/flat/output/model/"
    assert account.keys("jobs/flat/") == ["jobs/flat/output/model/m"]


def test_a_container_has_temporary_files_of_its_own(account: Account) -> None:
    account.create(
        "temporary",
        """
        import tempfile
        (ml / "model/where").write_text(tempfile.mkdtemp())
        """,
    )
    assert account.ended("temporary")["TrainingJobStatus"] == "Completed"
    made = Path(account.model("temporary")["where"].decode())
    assert made.parent != Path(tempfile.gettempdir())
    assert not made.parent.exists()


def test_an_interrupted_spot_job_goes_on_from_its_checkpoint(account: Account) -> None:
    def interrupt(job: str) -> None:
        page = f"{account.aws.endpoint}/_localaws/interrupt?job={job}"
        urllib.request.urlopen(urllib.request.Request(page, method="POST"))

    account.create(
        "spot",
        COUNTING,
        CheckpointConfig={"S3Uri": "s3://kennel/checkpoints/spot"},
        EnableManagedSpotTraining=True,
        StoppingCondition={"MaxRuntimeInSeconds": 300, "MaxWaitTimeInSeconds": 600},
    )
    until(lambda: account.keys("checkpoints/spot/count"))
    with pytest.raises(urllib.error.HTTPError, match="404"):
        interrupt("another")
    interrupt("spot")
    until(lambda: statuses(account.describe("spot")).count("Training") == 2)
    reached = int(account.read("checkpoints/spot/count"))
    account.put("checkpoints/spot/enough", b"")
    interrupt("spot")
    told = account.ended("spot")
    assert told["TrainingJobStatus"] == "Completed", told
    assert statuses(told) == [
        *["Starting", "Downloading", "Training", "Interrupted"] * 2,
        *["Starting", "Downloading", "Training", "Uploading", "Completed"],
    ]
    assert told["BillableTimeInSeconds"] < told["TrainingTimeInSeconds"]
    assert int(account.model("spot")["count"]) >= reached > 0
    log = [messages for _, messages in sorted(account.log("spot").items())]
    assert log[0] == ["started at 0", "told to end"]
    assert int(log[1][0].rpartition(" ")[2]) >= reached


def test_a_checkpoint_that_is_still_written_is_not_copied(account: Account, tmp_path: Path) -> None:
    uri, kept = "s3://kennel/checkpoints/mirror", tmp_path / "epoch/last.pt"
    mirror = Mirror(tmp_path, uri, {})
    kept.parent.mkdir()
    kept.with_name(".last.pt").write_bytes(b"not yet named")
    kept.write_bytes(b"half")
    mirror.sync(account.s3, final=False)
    kept.write_bytes(b"half and half")
    mirror.sync(account.s3, final=False)
    assert account.keys("checkpoints/mirror") == []
    assert mirror.sync(account.s3, final=False)  # it looks the same twice
    assert account.keys("checkpoints/mirror") == ["checkpoints/mirror/epoch/last.pt"]
    assert account.read("checkpoints/mirror/epoch/last.pt") == b"half and half"
    assert not mirror.sync(account.s3, final=True)
    kept.write_bytes(b"the last words")
    assert mirror.sync(account.s3, final=True)
    assert account.read("checkpoints/mirror/epoch/last.pt") == b"the last words"


def test_the_training_toolkits_hyperparameters_lead_to_the_script(account: Account) -> None:
    script = """
        import json, os, sys
        from pathlib import Path
        import beside
        kept = {name: value for name, value in os.environ.items() if name.startswith("SM_")}
        told = {"arguments": sys.argv[1:], "environment": kept, "folder": os.getcwd()}
        Path(os.environ["SM_MODEL_DIR"], "told.json").write_text(json.dumps(told))
        if "--fail" in sys.argv:
            print("a warning, no error", file=sys.stderr)
            try:
                raise ValueError("the data is empty")
            except ValueError:
                import traceback
                traceback.print_exc()
            sys.exit(7)
    """
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, text in (("train.py", textwrap.dedent(script)), ("beside.py", "")):
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    account.put("source/sourcedir.tar.gz", packed.getvalue())
    account.put("data/two.txt", b"two")
    given = {
        "epochs": "3",
        "rate": "0.5",
        "name": '"a b"',
        "sagemaker_program": '"train.py"',
        "sagemaker_submit_directory": '"s3://kennel/source/sourcedir.tar.gz"',
    }
    channels = [channel("training", "s3://kennel/data/two.txt")]
    account.start("toolkit", [], HyperParameters=given, InputDataConfig=channels)
    account.start("toolkit-fails", [], HyperParameters={**given, "fail": "true"})
    told = account.ended("toolkit")
    assert told["TrainingJobStatus"] == "Completed", told
    wrote = json.loads(account.model("toolkit")["told.json"])
    assert wrote["arguments"] == ["--epochs", "3", "--name", "a b", "--rate", "0.5"]
    environment = wrote["environment"]
    assert json.loads(environment["SM_HPS"]) == {"epochs": 3, "rate": 0.5, "name": "a b"}
    assert environment["SM_HP_EPOCHS"] == "3"
    assert environment["SM_CHANNEL_TRAINING"].endswith("/input/data/training")
    assert json.loads(environment["SM_HOSTS"]) == [environment["SM_CURRENT_HOST"]] == ["127.0.0.1"]
    assert wrote["folder"].endswith("/code")
    failed = account.ended("toolkit-fails")
    # As sagemaker-training writes it: its own status is 1 whatever the script's was, and what it
    # tells begins with the first line that names an error.
    reason = failed["FailureReason"]
    told, _, command = reason.partition('"\nCommand "')
    assert told == (
        "AlgorithmError: ExecuteUserScriptError:\nExitCode 7\n"
        'ErrorMessage "raise ValueError("the data is empty")\n ValueError: the data is empty'
    )
    assert "train.py --epochs 3 --fail True" in command
    assert reason.endswith('", exit code: 1')
    assert "a warning, no error" in str(account.log("toolkit-fails"))


def test_what_was_running_when_localaws_was_killed_goes_on_or_has_failed(
    account: Account,
) -> None:
    aws = account.aws
    saved = {"CheckpointConfig": {"S3Uri": "s3://kennel/checkpoints/saved"}}
    account.create("saved", COUNTING, **saved)
    account.create("retried", COUNTING, RetryStrategy={"MaximumRetryAttempts": 1})
    account.create("lost", COUNTING)
    until(lambda: account.keys("checkpoints/saved/count"))
    reached = int(account.read("checkpoints/saved/count"))
    aws.save()
    aws.kill()
    aws.restart()
    lost = account.describe("lost")
    assert lost["TrainingJobStatus"] == "Failed"
    assert lost["FailureReason"].startswith("InternalServerError: localaws ended")
    until(lambda: account.describe("saved")["SecondaryStatus"] == "Training")
    until(lambda: account.describe("retried")["SecondaryStatus"] == "Training")
    account.put("checkpoints/saved/enough", b"")

    aws.restart()  # An orderly stop, which a job outlives too.
    told = account.ended("saved")
    assert told["TrainingJobStatus"] == "Completed", told
    assert statuses(told).count("Restarting") == 2
    assert int(account.model("saved")["count"]) >= reached > 0
    assert account.describe("retried")["TrainingJobStatus"] == "Failed"
    assert account.keys("jobs/saved/") == ["jobs/saved/output/model.tar.gz"]
    assert account.keys("jobs/retried/") == account.keys("jobs/lost/") == []


def test_sagemakers_sdk_trains_one_model_on_two_hosts(account: Account, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for split, count in (("train", 4), ("valid", 2)):
        for place, name in enumerate(("1.red", "2.green", "3.blue")):
            for number in range(count):
                pixels = random.integers(0, 160, (32, 32, 3), np.uint8)
                pixels[..., place] += 60
                photo = io.BytesIO()
                Image.fromarray(pixels).save(photo, "PNG")
                account.put(f"colours/{split}/{name}/{number}.png", photo.getvalue())
    source = tmp_path / "source"
    for package in (inference, trainer):
        folder = Path(package.__file__).parent
        shutil.copytree(folder, source / folder.name, ignore=shutil.ignore_patterns("__pycache__"))
    (source / "entry.py").write_text(
        "from trainer.errors import run_command\nfrom trainer.train import main\n"
        "run_command(main)\n"
    )
    settings = tmp_path / "settings.yaml"
    settings.write_text(
        "SchemaVersion: '1.0'\nSageMaker: {PythonSDK: {Modules: {TelemetryOptOut: true}}}\n"
    )
    flags = {"backbone": "efficientnet_lite0", "image_size": 32, "epochs": 1, "batch_size": 6}
    asked = {
        "role": account.role,
        "bucket": "kennel",
        "source": str(source),
        "hyperparameters": flags,
    }
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("sdk_job.py")), json.dumps(asked)],
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
            "AWS_ENDPOINT_URL": account.aws.endpoint,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "SAGEMAKER_USER_CONFIG_OVERRIDE": str(settings),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    job = done.stdout.split()[-1]
    told = account.describe(job)
    assert told["TrainingJobStatus"] == "Completed"
    assert told["Environment"] == {"OMP_NUM_THREADS": "1"}
    assert [metric["MetricName"] for metric in told["FinalMetricDataList"]] == ["valid:accuracy"]
    assert "weights.safetensors" in account.model(job)
    assert len(account.keys("checkpoints/sdk/")) == 1
    rows = [
        [line for line in log if line.startswith("epoch=")] for log in account.log(job).values()
    ]
    assert sorted(map(len, rows)) == [0, 1]  # one model, which the first host reports
