"""`python -m trainer.launch` against a localaws that keeps records: the requests that go out."""

import io
import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber

from tests.localaws.conftest import LocalAws
from tests.trainer.launching import BUCKET, FINGERPRINT, get_json, hand_over, put_dataset, work_in
from trainer import jobs, jobs_sagemaker, jobs_tuning, launch, source
from trainer.config import TrainConfig
from trainer.errors import KennelError, UsageError
from trainer.jobs import State
from trainer.jobs_sagemaker import TrainingJob
from trainer.search_space import search_space
from trainer.target import load

TRAIN = ("train", "--env", "local", "--dataset", "pets")
TUNE = ("tune", "--env", "local", "--dataset", "pets")
TAGS = {
    "project": "kennel",
    "environment": "local",
    "dataset": "pets",
    "dataset-fingerprint": FINGERPRINT,
    "git-commit": "c0ffee",
}

SEARCHED = search_space("all")


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    folder = tmp_path_factory.mktemp("launch")
    running = LocalAws(folder, "--records-only", "--calls", str(folder / "calls.jsonl"))
    running.calls = folder / "calls.jsonl"  # type: ignore[attr-defined]
    hand_over(running)
    yield running
    running.stop()


@pytest.fixture(autouse=True)
def _here(aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> None:
    work_in(aws, monkeypatch, poll_seconds=0.01)
    monkeypatch.setenv("KENNEL_GIT_COMMIT", "c0ffee")


def tags(request: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in request["Tags"]}


def asked(aws: LocalAws, operation: str) -> dict[str, Any]:
    """The parameters of the last call of an operation."""
    lines = aws.calls.read_text().splitlines()  # type: ignore[attr-defined]
    calls = [call for call in map(json.loads, lines) if call["operation"] == operation]
    parameters: dict[str, Any] = calls[-1]["parameters"]
    return parameters


def test_a_training_is_asked_for_as_sagemaker_takes_it(
    aws: LocalAws, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[Any] = []
    sends = "sagemaker.core.telemetry.telemetry_logging._requests_helper"
    monkeypatch.setattr(sends, lambda *told: reported.append(told))
    launch.main([*TRAIN, "--instances", "2", "--epochs", "3", "--keep-alive", "600"])
    request = asked(aws, "CreateTrainingJob")
    job = request["TrainingJobName"]
    assert job.startswith("kennel-local-pets-")
    assert request["HyperParameters"]["epochs"] == "3"
    assert request["HyperParameters"]["package"] == "true"
    resources = request["ResourceConfig"]
    assert resources["InstanceType"] == "ml.g5.xlarge"
    assert (resources["InstanceCount"], resources["KeepAlivePeriodInSeconds"]) == (2, 600)
    algorithm = request["AlgorithmSpecification"]
    assert "cu133" in algorithm["TrainingImage"]
    assert [metric["Name"] for metric in algorithm["MetricDefinitions"]] == list(jobs.METRICS)
    channels = {
        channel["ChannelName"]: channel["DataSource"]["S3DataSource"]["S3Uri"]
        for channel in request["InputDataConfig"]
    }
    assert channels["training"] == f"s3://{BUCKET}/data/pets/"
    assert channels["code"].startswith(f"s3://{BUCKET}/source/")
    assert channels["sm_drivers"].startswith(f"s3://{BUCKET}/jobs/")
    assert request["CheckpointConfig"]["S3Uri"].startswith(f"s3://{BUCKET}/checkpoints/pets-")
    assert request["StoppingCondition"] == {"MaxRuntimeInSeconds": 12 * 3600}
    assert request["Environment"]["KENNEL_GIT_COMMIT"] == "c0ffee"  # for the archive's manifest
    assert tags(request) == TAGS
    archive = f"s3://{BUCKET}/jobs/{job}/output/model.tar.gz"
    assert capsys.readouterr().out == f"{archive}\n"
    latest = get_json(aws, "jobs/latest.json")
    assert (latest["job"], latest["kind"]) == (job, "training")
    assert latest["archive_uri"] == archive
    driver = channels["sm_drivers"].removeprefix(f"s3://{BUCKET}/")
    distributed = get_json(aws, f"{driver}/distributed.json")
    assert distributed["process_count_per_node"] is None  # one a GPU
    # The SDK reports from a thread for each event.
    threads = [one for one in threading.enumerate() if one.name == "sagemaker-telemetry"]
    assert (reported, threads) == ([], [])


def test_spot_waits_longer_than_it_runs_and_the_same_command_finds_its_checkpoints(
    aws: LocalAws,
) -> None:
    command = [*TRAIN, "--spot", "--max-hours", "1", "--instance-type", "ml.m5.xlarge"]
    launch.main([*command, "--seed", "5"])
    first = asked(aws, "CreateTrainingJob")
    assert first["EnableManagedSpotTraining"] is True
    stopping = {"MaxRuntimeInSeconds": 3600, "MaxWaitTimeInSeconds": 7200}
    assert first["StoppingCondition"] == stopping
    assert "-cpu-" in first["AlgorithmSpecification"]["TrainingImage"]
    submitted = load("local")
    machines = jobs_sagemaker.Machines("ml.m5.xlarge", 1, False, 0, 3600)
    work = [
        jobs_sagemaker.Work("train", "pets", TrainConfig(seed=seed).to_json() | {"package": True})
        for seed in (5, 6)
    ]
    assert first["CheckpointConfig"]["S3Uri"] == f"s3://{BUCKET}/{work[0].checkpoints}/"
    assert work[0].checkpoints != work[1].checkpoints
    assert machines.gpu is False
    assert submitted.prefix == "kennel-local"


def test_what_a_flag_has_chosen_is_not_searched_for(aws: LocalAws) -> None:
    with pytest.raises(KennelError):  # since nothing runs here, there is no best.json
        launch.main([*TUNE, "--engine", "job", "--epochs", "2"])
    given = asked(aws, "CreateTrainingJob")["HyperParameters"]
    assert given["epochs"] == "2"
    assert given.keys().isdisjoint(search_space("none", fixed={"epochs"}))


def test_a_search_is_asked_for_as_sagemakers_tuner_takes_it(
    aws: LocalAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = load("local")
    machines = jobs_sagemaker.Machines("ml.m5.xlarge", 2, True, 0, 3600)
    config = TrainConfig(unfreeze="all").to_json()
    work = jobs_sagemaker.Work("train", "pets", config)
    name = jobs_tuning.start_search(target, work, SEARCHED, machines, 6, 3, None)
    assert len(name) <= 32
    request = asked(aws, "CreateHyperParameterTuningJob")
    tuning = request["HyperParameterTuningJobConfig"]
    assert tuning["Strategy"] == "Bayesian"
    assert tuning["TrainingJobEarlyStoppingType"] == "Auto"
    assert tuning["HyperParameterTuningJobObjective"] == {
        "Type": "Minimize",
        "MetricName": "valid_loss",
    }
    assert tuning["ResourceLimits"] == {
        "MaxNumberOfTrainingJobs": 6,
        "MaxParallelTrainingJobs": 3,
    }
    rates = tuning["ParameterRanges"]["ContinuousParameterRanges"]
    scales = {rate["Name"]: rate["ScalingType"] for rate in rates}
    assert scales["backbone_learning_rate"] == "Logarithmic"
    assert scales["dropout"] == "Linear"
    choices = tuning["ParameterRanges"]["CategoricalParameterRanges"]
    assert choices == [{"Name": "batch_size", "Values": ["16", "32", "64", "128"]}]
    definition = request["TrainingJobDefinition"]
    static = definition["StaticHyperParameters"]
    # Without it, the tuner would start two hosts that know nothing of each other.
    assert static["sagemaker_torch_distributed_enabled"] == "true"
    assert static["sagemaker_program"] == "run_train.py"
    assert static["sagemaker_submit_directory"].startswith(f"s3://{BUCKET}/source/")
    assert not static.keys() & {"batch_size", "head_learning_rate", "package"}
    assert definition["EnableManagedSpotTraining"] is True
    assert definition["StoppingCondition"]["MaxWaitTimeInSeconds"] == 7200
    assert tags(request) == TAGS

    # A warm start: SageMaker refuses one whose definition differs in more than it allows.
    seconds = iter(range(9))
    monkeypatch.setattr(jobs_tuning, "timestamp", lambda: f"{next(seconds):012}")
    monkeypatch.setenv("KENNEL_GIT_COMMIT", "decaf")
    jobs_tuning.start_search(target, work, SEARCHED, machines, 1, 3, name)
    warm = asked(aws, "CreateHyperParameterTuningJob")
    assert warm["WarmStartConfig"] == {
        "ParentHyperParameterTuningJobs": [{"HyperParameterTuningJobName": name}],
        "WarmStartType": "IdenticalDataAndAlgorithm",
    }
    own = {"CheckpointConfig": definition["CheckpointConfig"]}
    assert warm["TrainingJobDefinition"] | own == definition
    assert tags(warm) == TAGS | {"git-commit": "decaf"}

    def warm_start_type() -> str:
        jobs_tuning.start_search(target, work, SEARCHED, machines, 1, 3, name)
        last = asked(aws, "CreateHyperParameterTuningJob")
        return str(last["WarmStartConfig"]["WarmStartType"])

    with monkeypatch.context() as changed:
        changed.setattr(source, "archive", lambda: b"another version")
        assert warm_start_type() == "TransferLearning"
    put_dataset(aws, "pets", "0" * 64)
    assert warm_start_type() == "TransferLearning"
    put_dataset(aws, "pets", FINGERPRINT)
    with pytest.raises(UsageError, match="--warm-start nobody: there is no such tuning job"):
        jobs_tuning.start_search(target, work, SEARCHED, machines, 1, 1, "nobody")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*TRAIN, "--instance-type", "g5.xlarge"], "begin with ml."),
        ([*TRAIN, "--spot", "--keep-alive", "60"], "--spot and --keep-alive exclude each other"),
        ([*TRAIN, "--keep-alive", "7200"], "--keep-alive takes 0 to 3600 seconds"),
        ([*TRAIN, "--max-hours", "1000"], "--max-hours takes more than 0, to 672"),
        ([*TRAIN, "--weights", "mine.pt"], "cannot read files of this machine"),
        ([*TRAIN, "--where", "ec2", "--instances", "2"], "--instances is for --where sagemaker"),
        ([*TRAIN, "--where", "ec2", "--instance-type", "ml.g5.xlarge"], "such as g5.xlarge"),
        ([*TUNE, "--engine", "job", "--instances", "2"], "searches on one machine"),
        ([*TUNE, "--engine", "job", "--warm-start", "x"], "--warm-start is for --engine sagemaker"),
        (["train", "--env", "local", "--dataset", "cats"], "`make upload DATASET=cats ENV=local`"),
        (["attach", "nobody", "--env", "local"], "there is no job nobody"),
        (["stop", "nobody", "--env", "local"], "there is no job nobody"),
    ],
)
def test_what_cannot_be_is_refused_with_the_remedy(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        launch.main(arguments)


def test_without_a_foundation_the_message_names_the_command() -> None:
    with pytest.raises(KennelError, match="make apply STACK=foundation ENV=dev"):
        launch.main(["train", "--env", "dev", "--dataset", "pets"])


def described(**changes: Any) -> dict[str, Any]:
    return {
        "TrainingJobName": "job",
        "TrainingJobStatus": "Failed",
        "SecondaryStatus": "Failed",
        **changes,
    }


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            described(FailureReason="AlgorithmError: no photos\nin train/"),
            "training job job failed: AlgorithmError: no photos in train/; its log: "
            "/aws/sagemaker/TrainingJobs, streams job/",
        ),
        (
            described(FailureReason="CapacityError: Unable to provision requested ML compute"),
            "try again later, or choose another --instance-type",
        ),
        (
            described(TrainingJobStatus="Stopped", SecondaryStatus="MaxRuntimeExceeded"),
            "with a longer --max-hours",
        ),
        (
            described(TrainingJobStatus="Stopped", SecondaryStatus="Stopped"),
            "the same command goes on where it was stopped",
        ),
    ],
)
def test_a_job_without_a_model_says_why_and_where_its_log_is(
    answer: dict[str, Any], message: str
) -> None:
    assert message in jobs_sagemaker._why(answer)


def test_a_quota_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    target = load("local")
    client = target.client("sagemaker")
    stub = Stubber(client)
    stub.add_client_error(
        "create_training_job", "ResourceLimitExceeded", "The account-level service limit is 0"
    )

    def refuse(*_: Any) -> str:
        with stub:
            client.create_training_job(
                TrainingJobName="x",
                RoleArn="arn:aws:iam::123456789012:role/kennel-local-training",
                AlgorithmSpecification={"TrainingInputMode": "File"},
                OutputDataConfig={"S3OutputPath": "s3://x"},
                ResourceConfig={"VolumeSizeInGB": 1},
                StoppingCondition={},
            )
        raise AssertionError

    monkeypatch.setattr(launch, "submit", refuse)
    with pytest.raises(KennelError, match="Service Quotas"):
        launch.main([*TRAIN])


class Scripted(jobs.Job):
    """A job that does what a test says: states, and what is raised instead of one."""

    name = "scripted"

    def __init__(self, *states: State | BaseException) -> None:
        self._states = list(states)
        self.stopped = False

    def state(self) -> State:
        now = self._states.pop(0) if len(self._states) > 1 else self._states[0]
        if isinstance(now, BaseException):
            raise now
        return now

    def lines(self) -> Iterator[str]:
        yield from ()

    def stop(self) -> None:
        self.stopped = True

    def outcome(self) -> jobs.Outcome:
        return jobs.Outcome(self.name, "training", "s3://x", 10.0, 10.0, None)


ENDED = State("Completed", ended=True)
RUNS = State("Training", ended=False)


def throttled(code: str = "ThrottlingException") -> Exception:
    return ClientError({"Error": {"Code": code, "Message": "slow down"}}, "DescribeTrainingJob")


def test_throttling_is_waited_out() -> None:
    job = Scripted(RUNS, throttled(), throttled(), RUNS, ENDED)
    assert jobs.follow(job, "local").result == "s3://x"


def test_what_does_not_pass_ends_the_following_but_not_the_job() -> None:
    with pytest.raises(KennelError, match=r"scripted goes on: follow it with .*attach scripted"):
        jobs.follow(Scripted(RUNS, throttled("ExpiredTokenException")), "local")
    with pytest.raises(KennelError, match="scripted goes on"):
        jobs.follow(Scripted(throttled()), "local")


def test_ctrl_c_without_a_terminal_leaves_the_job_running(
    capsys: pytest.CaptureFixture[str],
) -> None:
    job = Scripted(RUNS, KeyboardInterrupt())
    with pytest.raises(SystemExit) as left:
        jobs.follow(job, "local")
    assert left.value.code == 130
    assert not job.stopped
    said = capsys.readouterr().err
    assert "`python -m trainer.launch attach scripted --env local`" in said
    assert "`python -m trainer.launch stop scripted --env local`" in said


@pytest.mark.parametrize(("answer", "stopped"), [("s\n", True), ("\n", False), ("d\n", False)])
def test_ctrl_c_on_a_terminal_asks(
    monkeypatch: pytest.MonkeyPatch, answer: str, stopped: bool
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    monkeypatch.setattr(sys, "stderr", Terminal())
    job = Scripted(RUNS, KeyboardInterrupt(), ENDED)
    if stopped:
        jobs.follow(job, "local")
    else:
        with pytest.raises(SystemExit):
            jobs.follow(job, "local")
    assert job.stopped is stopped


def test_the_log_of_all_hosts_is_given_once(aws: LocalAws) -> None:
    logs = aws.client("logs")
    tail = jobs_sagemaker.Tail(load("local"), "/test/jobs", "job-a/")
    assert list(tail.lines()) == []  # not even the group is there
    logs.create_log_group(logGroupName="/test/jobs")

    def say(stream: str, *messages: str) -> None:
        now = int(time.time() * 1000)
        events = [{"timestamp": now, "message": message} for message in messages]
        logs.put_log_events(logGroupName="/test/jobs", logStreamName=stream, logEvents=events)

    for stream in ("job-a/algo-1-17", "job-a/algo-2-17", "job-ab/algo-1-17"):
        logs.create_log_stream(logGroupName="/test/jobs", logStreamName=stream)
    say("job-a/algo-1-17", "one", "two")
    say("job-ab/algo-1-17", "another job's")
    assert list(tail.lines()) == ["algo-1 | one", "algo-1 | two"]
    say("job-a/algo-2-17", "three")
    say("job-a/algo-1-17", "four")
    assert list(tail.lines()) == ["algo-1 | four", "algo-2 | three"]
    assert list(tail.lines()) == []


def test_metrics_are_read_from_the_trainers_lines() -> None:
    line = "epoch=3 train_loss=0.412 valid_loss=3.9e-05 valid_accuracy=0.9 images_per_second=812"
    assert jobs.read_metrics(f"algo-1 | {line}") == {
        "epoch": 3.0,
        "train_loss": 0.412,
        "valid_loss": 3.9e-05,
        "valid_accuracy": 0.9,
        "images_per_second": 812.0,
    }
    assert jobs.read_metrics("model=/opt/ml/model seconds=1.7") == {}
    assert jobs.read_metrics("epoch=-e") == {}


def test_spots_saving_and_price_come_from_the_billable_seconds(
    aws: LocalAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch.main([*TRAIN, "--instances", "2", "--seed", "9"])
    job = TrainingJob(load("local"), asked(aws, "CreateTrainingJob")["TrainingJobName"])
    answer = job.describe() | {"TrainingTimeInSeconds": 3600, "BillableTimeInSeconds": 900}
    monkeypatch.setattr(job, "describe", lambda: answer)
    outcome = job.outcome()
    assert outcome.usd == pytest.approx(2 * 1.408 / 4)
    assert "0.70 USD, spot saved 75%" in jobs.cost_line(outcome)


def test_hyperparameters_of_a_job_are_read_back(tmp_path: Path) -> None:
    config = TrainConfig(unfreeze="all", dropout=0.25, freeze_norm=False, batch_size=16)
    as_sagemaker_keeps_them = {name: str(value) for name, value in config.to_json().items()}
    as_sagemaker_keeps_them |= {"batch_size": '"16"', "sagemaker_program": "run_train.py"}
    assert jobs_tuning.read_config(as_sagemaker_keeps_them) == config
