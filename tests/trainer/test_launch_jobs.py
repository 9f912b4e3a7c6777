"""Jobs of the launcher that run: training here in full, EC2 and searches by what they leave."""

import argparse
import base64
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from inference.archive import open_model
from terraform.cli import deploy
from tests.localaws.conftest import LocalAws
from tests.trainer.launching import (
    BUCKET,
    get_json,
    hand_over,
    put_json,
    put_parameter,
    work_in,
)
from trainer import jobs, jobs_ec2, jobs_sagemaker, jobs_tuning, launch
from trainer.config import TrainConfig
from trainer.errors import KennelError, UsageError
from trainer.jobs_sagemaker import Work
from trainer.metric_lines import METRICS
from trainer.prices import hourly_usd
from trainer.target import LATEST_KEY, load

SCRIPT = "#!/bin/bash\necho training\n"


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    """One that runs what is asked for."""
    running = LocalAws(tmp_path_factory.mktemp("launch"))
    hand_over(running)
    running.client("logs").create_log_group(logGroupName=jobs_sagemaker.LOG_GROUP)
    statement = {"Effect": "Allow", "Action": ["s3:*", "logs:*", "cloudwatch:*"], "Resource": "*"}
    running.client("iam").put_role_policy(
        RoleName="kennel-local-training",
        PolicyName="all",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [statement]}),
    )
    yield running
    running.stop()


@pytest.fixture(autouse=True)
def _here(aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> None:
    work_in(aws, monkeypatch, poll_seconds=0.2)
    monkeypatch.setenv("KENNEL_GIT_COMMIT", "c0ffee")


def test_a_job_trains_and_leaves_an_archive_that_is_served_as_it_is(
    aws: LocalAws, colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    upload = [sys.executable, "-m", "trainer.upload", "upload", "--env", "local"]
    subprocess.run([*upload, "--data", str(colours), "--name", "colours"], check=True)
    flags = ["--backbone", "efficientnet_lite0", "--image-size", "32", "--epochs", "1"]
    machine = ["--instance-type", "ml.m5.xlarge"]
    launch.main(["train", "--env", "local", "--dataset", "colours", "--json", *machine, *flags])
    said = capsys.readouterr()
    assert "epoch=0 train_loss=" in said.err  # the log was shown
    answer = json.loads(said.out)
    hours = answer["billable_seconds"] / 3600
    assert answer["usd"] == pytest.approx(hours * hourly_usd("ml.m5.xlarge", "training"))
    assert get_json(aws, LATEST_KEY)["archive_uri"] == answer["result"]
    key = answer["result"].removeprefix(f"s3://{BUCKET}/")
    assert key == f"jobs/{answer['job']}/output/model.tar.gz"
    archive = tmp_path / "model.tar.gz"
    aws.client("s3").download_file(BUCKET, key, str(archive))
    model = open_model(archive)
    assert set(model.labels) == {"red", "green", "blue"}
    assert model.manifest["git_commit"] == "c0ffee"
    reports = tmp_path / "output.tar.gz"
    aws.client("s3").download_file(BUCKET, key.replace("model.", "output."), str(reports))
    with tarfile.open(reports) as tar:
        names = {member.name.removeprefix("./") for member in tar}
    assert {"evaluation/evaluation.json", "package.json"} <= names
    assert "model.tar.gz" not in names

    # The same again is recognised, and costs nothing.
    command = ["train", "--env", "local", "--dataset", "colours", *machine, *flags]
    launch.main([*command, "--spot"])
    again = capsys.readouterr()
    assert f"this very training is done, by job {answer['job']}: nothing is started" in again.err
    assert "FRESH=1 does it anew" in again.err
    assert f"at that time: {answer['job']}: " in again.err
    assert again.out == f"{answer['result']}\n"
    listed = aws.client("sagemaker").list_training_jobs()["TrainingJobSummaries"]
    assert [found["TrainingJobName"] for found in listed] == [answer["job"]]
    for how in ("trained", "served"):
        assert f"{answer[f'top1_{how}']:.4f} as {how}" in again.err

    launch.main(["jobs", "--env", "local", "--json"])
    (listed,) = json.loads(capsys.readouterr().out)["jobs"]
    assert listed.pop("created").startswith("20")
    assert listed == {
        "job": answer["job"],
        "kind": "training",
        "status": "Completed",
        "machines": "1 x ml.m5.xlarge",
        "seconds": answer["seconds"],
        "usd": answer["usd"],
        "top1": answer["top1_served"],
        "result": answer["result"],
    }

    job = aws.client("sagemaker").describe_training_job(TrainingJobName=answer["job"])
    metrics = {metric["MetricName"] for metric in job["FinalMetricDataList"]}
    assert metrics == set(METRICS)


class Machines:
    """EC2 as far as the launcher asks it, with capacity in some subnets only."""

    def __init__(self, *full: str) -> None:
        self._full = full
        self.code = "InsufficientInstanceCapacity"
        self.asked: list[dict[str, Any]] = []
        self.terminated: list[str] = []

    def describe_launch_template_versions(self, **_: Any) -> dict[str, Any]:
        script = base64.b64encode(SCRIPT.encode()).decode()
        return {"LaunchTemplateVersions": [{"LaunchTemplateData": {"UserData": script}}]}

    def run_instances(self, **options: Any) -> dict[str, Any]:
        self.asked.append(options)
        if options["SubnetId"] in self._full:
            told = {"Code": self.code, "Message": "none here"}
            raise ClientError({"Error": told}, "RunInstances")
        return {"Instances": [{"InstanceId": "i-1", "InstanceType": "g5.xlarge"}]}

    def terminate_instances(self, InstanceIds: list[str]) -> None:
        self.terminated += InstanceIds

    def describe_instances(self, **_: Any) -> dict[str, Any]:
        state = {"Name": "terminated" if self.terminated else "running"}
        return {"Reservations": [{"Instances": [{"State": state}]}]}


@pytest.fixture
def ec2(aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> Machines:
    machines = Machines("subnet-a")
    put_parameter(aws, "ec2_launch_template_id", "lt-1")
    put_parameter(aws, "ec2_subnet_ids", "subnet-a,subnet-b")
    real = jobs_ec2.Target.client
    monkeypatch.setattr(
        jobs_ec2.Target,
        "client",
        lambda target, name, *more: machines if name == "ec2" else real(target, name, *more),
    )
    return machines


def training(config: TrainConfig) -> Work:
    return Work("train", "pets", config.to_json() | {"package": True})


def submit(config: TrainConfig, kind: str | None = None) -> str:
    return jobs_ec2.submit(load("local"), training(config), config, kind, spot=False)


def test_ec2_trains_in_the_next_subnet_that_has_a_machine(
    aws: LocalAws, ec2: Machines, capsys: pytest.CaptureFixture[str]
) -> None:
    target = load("local")
    config = TrainConfig(epochs=2)
    job = jobs_ec2.submit(target, training(config), config, None, spot=True)
    assert [asked["SubnetId"] for asked in ec2.asked] == ["subnet-a", "subnet-b"]
    asked = ec2.asked[-1]
    assert asked["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert asked["UserData"].startswith(f"#!/bin/bash\nexport KENNEL_JOB={job}\n")
    assert asked["UserData"].endswith(SCRIPT)
    request = get_json(aws, f"jobs/{job}/request.json")
    assert request["hyperparameters"]["epochs"] == 2
    assert (request["dataset"], request["processes"]) == ("pets", "auto")
    # By content, as SageMaker's: whoever gives the command again goes on from there.
    assert request["checkpoints"] == training(config).checkpoints
    aws.client("s3").head_object(Bucket=BUCKET, Key=request["source"])

    ended = (datetime.now(UTC) + timedelta(hours=1)).strftime("%FT%TZ")
    status = {"job": job, "exit_code": 0, "stage": "done", "ended": ended}
    for name, top1 in (("trained", 0.95), ("evaluation", 0.94)):
        put_json(aws, f"jobs/{job}/output/{name}/evaluation.json", {"top1": top1})
    put_json(aws, f"jobs/{job}/status.json", {**status, "status": "completed"})
    # Nobody has followed it to its end: it is not denied, and nobody is told to train again.
    aws.client("s3").delete_object(Bucket=BUCKET, Key=LATEST_KEY)
    with pytest.raises(UsageError, match=f"`make attach JOB={job} ENV=local` takes it up"):
        deploy.latest(target)
    launch.main(["attach", job, "--env", "local"])
    said = capsys.readouterr()
    assert said.out == f"s3://{BUCKET}/jobs/{job}/output/model.tar.gz\n"
    assert "1.01 USD" in said.err
    assert "top-1 on test: 0.9500 as trained, 0.9400 as served\n" in said.err
    assert get_json(aws, LATEST_KEY)["kind"] == "ec2"

    put_json(
        aws,
        f"jobs/{job}/status.json",
        {**status, "status": "failed", "exit_code": 1, "stage": "training"},
    )
    launch.main(["jobs", "--env", "local", "--last", "1"])
    header, row = capsys.readouterr().out.splitlines()
    assert header.split()[:5] == ["job", "kind", "status", "created", "machines"]
    assert row.startswith(f"{job}  ec2   failed")
    assert row.endswith("1 x g5.xlarge  -  -    -      -")
    with pytest.raises(KennelError, match=f"job {job} failed while training .exit status 1.; its"):
        launch.main(["attach", job, "--env", "local"])


def test_an_ec2_job_can_be_stopped_and_a_lost_machine_is_told(aws: LocalAws, ec2: Machines) -> None:
    job = submit(TrainConfig(seed=1), "g5.2xlarge")
    assert ec2.asked[-1]["InstanceType"] == "g5.2xlarge"
    launch.main(["stop", job, "--env", "local"])
    assert ec2.terminated == ["i-1"]
    with pytest.raises(KennelError, match="its machine i-1 is gone"):
        launch.main(["attach", job, "--env", "local"])


def test_an_ec2_training_that_was_interrupted_goes_on_when_its_command_is_given_again(
    aws: LocalAws, ec2: Machines
) -> None:
    command = ["train", "--env", "local", "--dataset", "pets", "--where", "ec2", "--seed", "9"]
    prefixes = []
    ec2.terminated.append("i-1")
    for fresh in ([], [], ["--fresh"]):
        with pytest.raises(KennelError, match="without FRESH, to go on from its last checkpoint"):
            launch.main([*command, *fresh])
        job = ec2.asked[-1]["UserData"].partition("KENNEL_JOB=")[2].partition("\n")[0]
        prefixes.append(get_json(aws, f"jobs/{job}/request.json")["checkpoints"])
    assert prefixes[0] == prefixes[1] != prefixes[2]


def test_a_zone_that_never_has_the_type_is_passed_over(aws: LocalAws, ec2: Machines) -> None:
    ec2.code = "Unsupported"
    submit(TrainConfig())
    assert [asked["SubnetId"] for asked in ec2.asked] == ["subnet-a", "subnet-b"]
    ec2.code = "UnauthorizedOperation"
    with pytest.raises(ClientError, match="UnauthorizedOperation"):
        submit(TrainConfig())


def test_a_quota_that_is_used_up_ends_the_search_for_a_subnet(aws: LocalAws, ec2: Machines) -> None:
    ec2._full, ec2.code = ("subnet-a", "subnet-b"), "VcpuLimitExceeded"
    with pytest.raises(KennelError, match="VcpuLimitExceeded: none here; `make preflight ENV=l"):
        submit(TrainConfig())
    assert len(ec2.asked) == 1


def test_without_capacity_anywhere_the_remedy_is_told(aws: LocalAws, ec2: Machines) -> None:
    ec2._full = ("subnet-a", "subnet-b")
    with pytest.raises(KennelError, match="none of the subnets subnet-a, subnet-b has a machine"):
        submit(TrainConfig())


def put_output(aws: LocalAws, job: str, reports: dict[str, bytes]) -> None:
    """What SageMaker leaves of a search in one job."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, content in reports.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    key = f"jobs/{job}/output/output.tar.gz"
    aws.client("s3").put_object(Bucket=BUCKET, Key=key, Body=stream.getvalue())


def test_a_page_that_is_fetched_is_linked_at_once(
    aws: LocalAws,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    best = TrainConfig(epochs=7, unfreeze="none").to_json()
    found = {"trials": 2, "pruned": 0, "best": {"epochs": 7}, "valid_loss": 0.5}
    put_output(
        aws,
        "kennel-local-linked",
        {
            "best.json": json.dumps(best).encode(),
            "search.json": json.dumps(found).encode(),
            "search.html": b"<p><!-- the way back --></p>",
        },
    )

    class Done:
        name, kind, is_search = "kennel-local-linked", "training", True

    monkeypatch.setenv("KENNEL_OUT", str(tmp_path))
    outcome = jobs.Outcome(Done.name, "training", "s3://model", 1, 1, None)
    job: Any = Done()
    for folder in ("pets-x-none/tune-job", f"{Done.name}/tune"):
        options = argparse.Namespace(output=tmp_path / folder, json=False)
        launch._finished(load("local"), job, options, outcome)
        said = capsys.readouterr()
        assert f"\nall pages: {tmp_path}/index.html\n" in said.err
        assert said.out == f"{tmp_path / folder}/best.json\n"
        assert f'href="{folder}/search.html"' in (tmp_path / "index.html").read_text()
        page = (tmp_path / folder / "search.html").read_text()
        assert '<a href="../../index.html">all pages</a>' in page
    options.output = tmp_path.parent / f"{tmp_path.name}-elsewhere/tune"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    launch._finished(load("local"), job, options, outcome)
    said = capsys.readouterr()
    assert "all pages" not in said.err
    assert f"results: {options.output}/best.json" in said.err
    kept = aws.client("s3").get_object(Bucket=BUCKET, Key=f"jobs/{Done.name}/search.html")["Body"]
    for elsewhere in ((options.output / "search.html").read_text(), kept.read().decode()):
        assert "href" not in elsewhere
    assert said.out == ""


def test_a_search_in_one_job_leaves_its_reports_here_and_in_the_bucket(
    aws: LocalAws, tmp_path: Path
) -> None:
    best = json.dumps(TrainConfig(epochs=7).to_json()).encode()
    reports = {"best.json": best, "search.json": b"{}", "study.db": b"-"}
    put_output(aws, "kennel-local-search", reports)

    class Done:
        name = "kennel-local-search"

    outcome = jobs.Outcome("kennel-local-search", "training", "s3://model", 1, 1, None)
    done: Any = Done()
    ended = jobs_tuning.finish_search(load("local"), BUCKET, done, outcome, tmp_path)
    assert (ended.kind, ended.result) == ("tuning", str(tmp_path / "best.json"))
    assert {path.name for path in tmp_path.iterdir()} == {"best.json", "search.json"}
    assert get_json(aws, "jobs/kennel-local-search/best.json")["epochs"] == 7


def tried(number: int, status: str, loss: float | None, **values: str) -> dict[str, Any]:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    trial: dict[str, Any] = {
        "TrainingJobName": f"search-{number:03}",
        "TrainingJobStatus": status,
        "TunedHyperParameters": values,
        "TrainingStartTime": start,
        "TrainingEndTime": start + timedelta(minutes=30),
    }
    if loss is not None:
        trial["FinalHyperParameterTuningJobObjectiveMetric"] = {"Value": loss}
    return trial


class Tuner:
    """SageMaker's answers about a search, in which the second trial was the better one."""

    def __init__(self) -> None:
        self.list = [
            tried(1, "Completed", 0.5, epochs="3", batch_size='"16"'),
            tried(2, "Completed", 0.25, epochs="5", batch_size='"32"'),
            tried(3, "InProgress", None, epochs="4", batch_size='"64"'),
        ]

    def describe_hyper_parameter_tuning_job(self, **_: Any) -> dict[str, Any]:
        start = datetime(2026, 1, 1, tzinfo=UTC)
        static = {
            name: str(value)
            for name, value in TrainConfig(unfreeze="all").to_json().items()
            if name not in {"epochs", "batch_size"}
        }
        return {
            "HyperParameterTuningJobStatus": "Completed",
            "HyperParameterTuningJobConfig": {
                "ResourceLimits": {"MaxNumberOfTrainingJobs": 3},
                "ParameterRanges": {
                    "IntegerParameterRanges": [
                        {"Name": "epochs", "MinValue": "3", "MaxValue": "12"}
                    ],
                    "CategoricalParameterRanges": [
                        {"Name": "batch_size", "Values": ['"16"', '"32"', '"64"']}
                    ],
                },
            },
            "TrainingJobStatusCounters": {"Completed": 2, "InProgress": 1},
            "TrainingJobDefinition": {
                "InputDataConfig": [
                    {
                        "ChannelName": "training",
                        "DataSource": {"S3DataSource": {"S3Uri": f"s3://{BUCKET}/data/my-pets/"}},
                    }
                ],
                "ResourceConfig": {"InstanceType": "ml.g5.xlarge", "InstanceCount": 2},
                "StaticHyperParameters": static,
            },
            "BestTrainingJob": self.list[1],
            "CreationTime": start,
            "LastModifiedTime": start + timedelta(hours=1),
        }

    def get_paginator(self, name: str) -> "Tuner":
        assert name == "list_training_jobs_for_hyper_parameter_tuning_job"
        return self

    def paginate(self, **_: Any) -> list[dict[str, Any]]:
        return [{"TrainingJobSummaries": self.list}]


def test_the_tuners_best_trial_becomes_the_same_file_as_that_of_trainer_tune(
    aws: LocalAws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, tuner = load("local"), Tuner()
    real = jobs_tuning.Target.client
    monkeypatch.setattr(
        jobs_tuning.Target,
        "client",
        lambda here, name: tuner if name == "sagemaker" else real(here, name),
    )
    search = jobs_tuning.TuningJob(target, "search")
    assert search.state() == jobs.State("Completed: 2 of 3 trials ended, 1 run", ended=True)
    assert list(search.lines()) == [
        'trial 1 completed valid_loss=0.5 {"epochs": "3", "batch_size": "16"}',
        'trial 2 completed valid_loss=0.25 {"epochs": "5", "batch_size": "32"}',
        'trial 3 inprogress {"epochs": "4", "batch_size": "64"}',
    ]
    tuner.list[2]["TrainingJobStatus"] = "Stopped"
    assert list(search.lines()) == ['trial 3 stopped {"epochs": "4", "batch_size": "64"}']
    outcome = search.outcome()
    assert outcome.usd == pytest.approx(3 * 0.5 * 2 * 1.408)
    ended = jobs_tuning.finish_search(target, BUCKET, search, outcome, tmp_path)
    best = TrainConfig(unfreeze="all", epochs=5, batch_size=32)
    assert TrainConfig.from_json(json.loads(Path(ended.result).read_text())) == best
    page = (tmp_path / "search.html").read_text()
    assert '<p class="muted">my-pets, the whole network; by SageMaker, job search' in page
    for words in ("<b>0.2500</b>", "search-003", "2 complete, 1 pruned, 0 failed", "3 to 12"):
        assert words in page
    summary = get_json(aws, "jobs/search/search.json")
    assert (summary["trials"], summary["pruned"], summary["valid_loss"]) == (3, 1, 0.25)
    assert [row["status"] for row in summary["rows"]] == ["Completed", "Completed", "Stopped"]
