"""`python -m trainer.launch` against a localaws that keeps records: the requests that go out."""

import io
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber

from tests.localaws.conftest import LocalAws
from tests.trainer.launching import (
    BUCKET,
    FINGERPRINT,
    get_json,
    hand_over,
    put_dataset,
    put_parameter,
    work_in,
)
from trainer import jobs, jobs_sagemaker, jobs_tuning, launch, metric_lines, source
from trainer.config import TrainConfig
from trainer.errors import KennelError, UsageError
from trainer.job_history import Row, table
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
    assert [metric["Name"] for metric in algorithm["MetricDefinitions"]] == list(
        metric_lines.METRICS
    )
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


KEY = "arn:aws:kms:us-east-1:123456789012:key/0a1b2c3d-0000-1111-2222-333344445555"


@pytest.fixture
def protected(aws: LocalAws) -> Iterator[dict[str, list[str]]]:
    """A foundation with a key and a network for jobs; gives the network."""
    ec2 = aws.client("ec2")
    subnets = [found["SubnetId"] for found in ec2.describe_subnets()["Subnets"]][:2]
    groups = [found["GroupId"] for found in ec2.describe_security_groups()["SecurityGroups"]][:1]
    given = {
        "kms_key_arn": KEY,
        "job_subnet_ids": ",".join(subnets),
        "job_security_group_ids": ",".join(groups),
    }
    for key, value in given.items():
        put_parameter(aws, key, value)
    yield {"Subnets": subnets, "SecurityGroupIds": groups}
    for key in given:
        aws.client("ssm").delete_parameter(Name=f"/kennel/local/{key}")


def test_jobs_have_the_key_and_the_network_of_the_foundation(
    aws: LocalAws, protected: dict[str, list[str]]
) -> None:
    launch.main([*TRAIN, "--instances", "2", "--instance-type", "ml.m5.xlarge", "--seed", "21"])
    request = asked(aws, "CreateTrainingJob")
    assert request["OutputDataConfig"]["KmsKeyId"] == KEY
    assert request["ResourceConfig"]["VolumeKmsKeyId"] == KEY
    assert request["VpcConfig"] == protected
    assert request["EnableInterContainerTrafficEncryption"] is True
    # Its own disks are encrypted by its hardware, and one machine has nobody to talk to.
    launch.main([*TRAIN, "--seed", "22"])
    alone = asked(aws, "CreateTrainingJob")
    assert "VolumeKmsKeyId" not in alone["ResourceConfig"]
    assert alone["OutputDataConfig"]["KmsKeyId"] == KEY
    assert not alone.get("EnableInterContainerTrafficEncryption")

    machines = jobs_sagemaker.Machines("ml.m5.xlarge", 2, False, 0, 3600)
    work = jobs_sagemaker.Work("train", "pets", TrainConfig(unfreeze="all").to_json())
    jobs_tuning.start_search(load("local"), work, SEARCHED, machines, 1, 1, None)
    # The SDK's tuner drops two of the four.
    trials = asked(aws, "CreateHyperParameterTuningJob")["TrainingJobDefinition"]
    assert trials["OutputDataConfig"]["KmsKeyId"] == KEY
    assert trials["ResourceConfig"]["VolumeKmsKeyId"] == KEY
    assert trials["VpcConfig"] == protected
    assert trials["EnableInterContainerTrafficEncryption"] is True


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
    assert definition["Environment"].items() >= jobs_tuning.STOP_ENVIRONMENT.items()
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
            "give its command again, without FRESH, to go on where it was stopped",
        ),
        (
            described(
                TrainingJobStatus="Stopped",
                SecondaryStatus="Stopped",
                HyperParameters={"trials": "8"},
            ),
            "a search that is stopped keeps no trials: its command begins anew",
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
        if self.stopped:
            raise KennelError("training job scripted stopped: the same command goes on")
        return jobs.Outcome(self.name, "training", "s3://x", 10.0, 10.0, None)


ENDED = State("Completed", ended=True)
RUNS = State("Training", ended=False)


def throttled(code: str = "ThrottlingException") -> Exception:
    return ClientError({"Error": {"Code": code, "Message": "slow down"}}, "DescribeTrainingJob")


def test_throttling_is_waited_out() -> None:
    job = Scripted(RUNS, throttled(), throttled(), RUNS, ENDED)
    assert jobs.follow(job, "local").result == "s3://x"


def test_what_does_not_pass_ends_the_following_but_not_the_job() -> None:
    with pytest.raises(KennelError, match="goes on: follow it with `make attach JOB=scripted ENV"):
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
    assert "`make attach JOB=scripted ENV=local`" in said
    assert "`make stop JOB=scripted ENV=local`" in said


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
    with pytest.raises(SystemExit) as ended:
        jobs.follow(job, "local")
    assert ended.value.code == 130
    assert job.stopped is stopped
    said = sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert ("training job scripted stopped: the same command goes on\n" in said) is stopped
    assert "error" not in said


class Refusing(Scripted):
    """A job that ends between the look at it and the stop."""

    def stop(self) -> None:
        refused = {"Code": "ValidationException", "Message": "the job is in status Completed."}
        raise ClientError({"Error": refused}, "StopTrainingJob")


@pytest.mark.parametrize("job", [Scripted(ENDED), Refusing(RUNS, ENDED)])
def test_stopping_what_has_ended_says_so(
    aws: LocalAws,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    job: Scripted,
) -> None:
    monkeypatch.setattr(launch, "find", lambda *_: job)
    launch.main(["stop", "scripted", "--env", "local", "--json"])
    said = capsys.readouterr()
    assert said.err == (
        "scripted has ended (Completed), nothing is left to stop; "
        "`make attach JOB=scripted ENV=local` shows it\n"
    )
    assert json.loads(said.out) == {"job": "scripted"}
    assert not job.stopped


def test_jobs_that_are_wider_than_a_terminal_break_between_words() -> None:
    rows = [
        Row("kennel-local-train-pets-1", "training", "Completed", "2026-11-30 13:22",
            "2 x ml.g5.xlarge", 58.4, 0.02, 0.9777, "s3://bucket/jobs/it/output/model.tar.gz"),
        Row("kennel-local-tune-pets-2", "tuning", "InProgress", "2026-11-30 14:00", "1 x a"),
    ]  # fmt: skip
    wide = table(rows)
    assert len(wide.splitlines()) == 3
    assert table(rows, max(map(len, wide.splitlines()))) == wide
    assert table(rows, 80) == (
        "kennel-local-train-pets-1\n"
        "  training, Completed, 2026-11-30 13:22, 2 x ml.g5.xlarge, 58 s, 0.02 USD, top-1\n"
        "  0.9777\n"
        "  s3://bucket/jobs/it/output/model.tar.gz\n"
        "kennel-local-tune-pets-2\n"
        "  tuning, InProgress, 2026-11-30 14:00, 1 x a\n"
    )


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


SDK = ["Starting training script", "++ cat config.json", '{"hosts": ["algo-1"]}']


@pytest.mark.parametrize(
    ("logged", "told"),
    [
        ([*SDK, "+++ exec /usr/bin/python3 -m trainer.entry", "epoch=0"], ["epoch=0"]),
        # What the SDK's script could not do is the reason why nothing follows.
        ([*SDK, "ERROR: No matching distribution found for x"], None),
        (["some other program", "+ cat a"], None),
    ],
)
def test_a_followed_log_begins_with_what_the_job_says(
    aws: LocalAws, logged: list[str], told: list[str] | None
) -> None:
    launch.main([*TRAIN, "--seed", "73"])
    job = TrainingJob(load("local"), asked(aws, "CreateTrainingJob")["TrainingJobName"])
    logs, group = aws.client("logs"), jobs_sagemaker.LOG_GROUP
    with suppress(logs.exceptions.ResourceAlreadyExistsException):
        logs.create_log_group(logGroupName=group)
    stream = f"{job.name}/algo-1-{len(logged)}{bool(told)}"
    logs.create_log_stream(logGroupName=group, logStreamName=stream)
    events = [{"timestamp": int(time.time() * 1000), "message": line} for line in logged]
    logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)
    assert job.state().ended
    assert list(job.lines()) == (logged if told is None else told)
    logs.delete_log_stream(logGroupName=group, logStreamName=stream)


def attempts(aws: LocalAws, *command: str) -> list[str]:
    """Run a command several times; give the prefixes of the checkpoints."""
    found = []
    for flags in ((), ("--fresh",), ()):
        launch.main([*command, *flags])
        found.append(asked(aws, "CreateTrainingJob")["CheckpointConfig"]["S3Uri"])
    return found


def test_what_is_done_afresh_begins_without_the_former_checkpoints(
    aws: LocalAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter(range(9))
    monkeypatch.setattr(launch, "timestamp", lambda: f"{next(seconds):012}")
    # Records that run nothing leave no archive: each is like a job that was interrupted.
    first, fresh, resumed = attempts(aws, *TRAIN, "--seed", "70")
    assert fresh.startswith(first.rstrip("/"))
    assert fresh != first
    assert resumed == fresh, "it goes on with the last attempt's"


def test_what_runs_already_is_followed_and_not_started_twice(
    aws: LocalAws, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    launch.main([*TRAIN, "--seed", "71"])
    job = asked(aws, "CreateTrainingJob")["TrainingJobName"]
    running = Scripted(RUNS, RUNS, ENDED)
    found = {job: running}
    monkeypatch.setattr(launch, "find", lambda target, name: found[name])
    capsys.readouterr()
    launch.main([*TRAIN, "--seed", "71"])
    said = capsys.readouterr()
    assert "this very training runs already, as job scripted: it is followed" in said.err
    assert "FRESH=1 starts another" in said.err
    assert said.out == "s3://x\n"
    assert asked(aws, "CreateTrainingJob")["TrainingJobName"] == job


def test_flags_are_checked_without_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    launch.main([*TRAIN, "--check"])
    for flags, message in (
        (("--where", "sagmaker"), "--where: invalid choice: 'sagmaker'"),
        (("--instances", "two"), "--instances: a number of 1 or more, not 'two'"),
        (("--instance-type", "g5.xlarge"), "begin with ml."),
        (("--dropout", "2"), "--dropout takes a number from 0 to 0.95"),
        (("--seeed", "1"), "unrecognized arguments: --seeed 1"),
    ):
        with pytest.raises(UsageError, match=message):
            launch.main([*TRAIN, "--check", *flags])


def test_a_training_takes_the_last_search_of_its_run(
    aws: LocalAws, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place, (folder, epochs) in enumerate((("tune", 4), ("tune-job", 7))):
        path = tmp_path / folder / "best.json"
        path.parent.mkdir()
        path.write_text(json.dumps({"epochs": epochs}))
        os.utime(path, (place, place))
    launch.main([*TRAIN, "--run", str(tmp_path)])
    assert asked(aws, "CreateTrainingJob")["HyperParameters"]["epochs"] == "7"
    said = capsys.readouterr().err
    assert f"hyperparameters of {path} (the last search; CONFIG=... takes another)" in said
    launch.main([*TRAIN, "--run", str(tmp_path), "--config", str(tmp_path / "tune/best.json")])
    assert asked(aws, "CreateTrainingJob")["HyperParameters"]["epochs"] == "4"


def test_a_search_says_what_is_searched(aws: LocalAws, capsys: pytest.CaptureFixture[str]) -> None:
    for flags, scope in (
        (("--engine", "job"), "search of the head, on cached features: 8 trials, in one job"),
        (("--engine", "sagemaker"), "search of the whole network: 8 trials, a job each"),
    ):
        with pytest.raises(KennelError):  # since nothing runs here, there is no best.json
            launch.main([*TUNE, *flags])
        assert scope in capsys.readouterr().err


def test_printed_commands_carry_what_the_user_gave_make(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DATASET", "/photos of $dogs")
    for name in ("MAKELEVEL", "LOCALAWS_PORT", "OUT"):
        monkeypatch.delenv(name, raising=False)
    assert jobs.make_command("train", "dev", about_run=True) == "make train ENV=dev"
    monkeypatch.setenv("MAKELEVEL", "0")
    assert (
        jobs.make_command("train", "dev", about_run=True, WHERE="sagemaker")
        == "make train WHERE=sagemaker ENV=dev DATASET='/photos of $dogs'"
    )
    assert jobs.make_command("attach", "dev", JOB="a") == "make attach JOB=a ENV=dev"
    found = {"trials": 8, "pruned": 3, "valid_loss": 0.0029, "best": {"batch_size": 16}}
    (tmp_path / "search.json").write_text(json.dumps(found))
    (tmp_path / "best.json").write_text(json.dumps({"unfreeze": "all"}))
    monkeypatch.setenv("ENGINE", "sagemaker")
    assert jobs_tuning.search_lines(load("local"), tmp_path) == [
        "best of 8 trials (3 ended early): valid_loss=0.0029 with batch_size=16",
        f"results: {tmp_path}/best.json",
        f"next: make train WHERE=sagemaker CONFIG={tmp_path}/best.json UNFREEZE=all ENV=local "
        "DATASET='/photos of $dogs'",
    ]


def test_a_silent_job_is_told_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(jobs, "SECONDS_BETWEEN_LINES", 0.0)
    jobs.follow(Scripted(State("Downloading", ended=False), RUNS, RUNS, ENDED), "local")
    assert capsys.readouterr().err.splitlines() == [
        "Downloading",
        "Training",
        "Training, 0 s after the beginning",
        "Completed",
    ]


def test_the_end_names_accuracy_archive_and_the_next_command(
    aws: LocalAws, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    launch.main([*TRAIN, "--seed", "72"])
    job = TrainingJob(load("local"), asked(aws, "CreateTrainingJob")["TrainingJobName"])
    told = [("test_top1_trained", 0.978), ("test_top1_served", 0.9777)]
    metrics = [{"MetricName": name, "Value": value} for name, value in told]
    answer = job.describe() | {"FinalMetricDataList": metrics}
    monkeypatch.setattr(TrainingJob, "describe", lambda job: answer)
    # Both in one log: the command that comes next is its end.
    with redirect_stdout(sys.stderr):
        launch.main(["attach", job.name, "--env", "local"])
    said = capsys.readouterr().err
    archive = f"s3://{BUCKET}/jobs/{job.name}/output/model.tar.gz"
    assert "top-1 on test: 0.9780 as trained, 0.9777 as served\n" in said
    assert said.endswith(f"{archive}\nnext: make deploy MODEL={archive} ENV=local\n")


def test_an_ec2_trainer_that_is_off_is_told_by_its_variable() -> None:
    message = "enable_ec2_trainer = true` in terraform/environments/local.foundation.tfvars"
    with pytest.raises(UsageError, match=message):
        launch.main([*TRAIN, "--where", "ec2"])


def test_metrics_are_read_from_the_trainers_lines() -> None:
    line = "epoch=3 train_loss=0.412 valid_loss=3.9e-05 valid_accuracy=0.9 images_per_second=812"
    assert metric_lines.read_metrics(f"algo-1 | {line}") == {
        "epoch": 3.0,
        "train_loss": 0.412,
        "valid_loss": 3.9e-05,
        "valid_accuracy": 0.9,
        "images_per_second": 812.0,
    }
    assert metric_lines.read_metrics("model=/opt/ml/model seconds=1.7") == {}
    assert metric_lines.read_metrics("epoch=-e") == {}


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


def test_the_sdks_own_schema_is_not_checked_again_but_its_configuration_is() -> None:
    from jsonschema import Draft202012Validator, SchemaError, ValidationError
    from sagemaker.core.config.config import validate_sagemaker_config

    jobs_sagemaker._check_sdk_schema_no_more()
    with pytest.raises(ValidationError, match="is not one of"):
        validate_sagemaker_config({"SchemaVersion": "1.1"})
    with pytest.raises(SchemaError):
        Draft202012Validator.check_schema({"type": "nothing"})
