"""Answers of AWS that are lost after the deed, and what AWS does not know everywhere yet.

Each call of these is done, its answer never arrives, and botocore repeats it.
"""

import argparse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from PIL import Image

from terraform.cli import bootstrap, model, packages
from tests.archives import make_archive
from tests.localaws.conftest import LocalAws
from tests.trainer.launching import BUCKET, get_json, hand_over, put_json, put_parameter, work_in
from trainer import jobs_ec2, jobs_tuning, launch
from trainer.jobs import Outcome
from trainer.jobs_ec2 import Ec2Job
from trainer.jobs_sagemaker import Machines, Work
from trainer.patience import patiently, read_object, was_done
from trainer.search_space import search_space
from trainer.target import Target, load
from trainer.upload import require_manifest, upload

MACHINES = Machines("ml.m5.xlarge", 1, spot=False, keep_alive_seconds=0, max_seconds=3600)
SUBNET = "subnet"


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    running = LocalAws(tmp_path_factory.mktemp("patience"), "--records-only")
    hand_over(running)
    yield running
    running.stop()


@pytest.fixture
def target(aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> Target:
    work_in(aws, monkeypatch, poll_seconds=0.01)
    monkeypatch.setenv("KENNEL_GIT_COMMIT", "c0ffee")
    backoff = "botocore.retries.standard.ExponentialBackoff.delay_amount"
    monkeypatch.setattr(backoff, lambda *_: 0.0)
    return load("local")


@pytest.fixture
def lose(aws: LocalAws) -> Callable[[str], None]:
    """Lets the answer to the next call of an operation be lost."""

    def lose_next(call: str) -> None:
        page = f"{aws.endpoint}/_localaws/weather?next=lost&call={call}"
        urllib.request.urlopen(urllib.request.Request(page, method="POST")).close()

    return lose_next


def trainings(aws: LocalAws) -> set[str]:
    listed = aws.client("sagemaker").list_training_jobs()["TrainingJobSummaries"]
    return {job["TrainingJobName"] for job in listed}


def ordered(**work: Any) -> launch.Order:
    options = launch._parse(
        ["train", "--env", "local", "--dataset", "pets", "--instance-type", "ml.m5.xlarge"]
    )
    options.epochs = work["epochs"]
    return launch.training(options)


def carry_out(target: Target, order: launch.Order) -> Outcome:
    options = argparse.Namespace(fresh=False, json=False, output=None)
    return launch.carry_out(target, order, options)


def test_a_job_whose_creation_was_not_answered_is_taken_as_ours(
    aws: LocalAws, target: Target, lose: Callable[[str], None]
) -> None:
    before = trainings(aws)
    lose("sagemaker:CreateTrainingJob")
    outcome = carry_out(target, ordered(epochs=2))
    assert trainings(aws) - before == {outcome.job}


def test_a_job_of_which_nothing_was_heard_is_found_by_the_same_command(
    aws: LocalAws, target: Target
) -> None:
    before, order = trainings(aws), ordered(epochs=3)

    class KilledError(Exception):
        pass

    def killed(*_: object) -> Any:
        raise KilledError

    def begun(*given: Any) -> Any:
        order.submit(*given)
        raise KilledError

    # The command dies when the job has been made, before it has heard of it.
    with pytest.raises(KilledError):
        carry_out(target, replace(order, submit=begun))
    (made,) = trainings(aws) - before
    put_json(aws, f"jobs/{made}/output/model.tar.gz", "which it has left")
    assert carry_out(target, replace(order, submit=killed)).job == made
    assert trainings(aws) - before == {made}


def test_a_search_whose_creation_was_not_answered_is_taken_as_ours(
    aws: LocalAws, target: Target, lose: Callable[[str], None]
) -> None:
    lose("sagemaker:CreateHyperParameterTuningJob")
    work = Work("train", "pets", {"epochs": 1})
    name = jobs_tuning.start_search(target, work, search_space("all"), MACHINES, 1, 1, None)
    listed = aws.client("sagemaker").list_hyper_parameter_tuning_jobs()
    names = [
        job["HyperParameterTuningJobName"] for job in listed["HyperParameterTuningJobSummaries"]
    ]
    assert names == [name]


def test_the_registry_is_made_and_removed_though_answers_are_lost(
    aws: LocalAws, target: Target, lose: Callable[[str], None], tmp_path: Path
) -> None:
    archive = model.locate(str(make_archive(tmp_path)), target)
    opened = model.opened(model.fetch(archive, target), "it")
    lose("sagemaker:CreateModelPackageGroup")
    lose("sagemaker:CreateModelPackage")
    made = packages.register(opened, archive, "it", target)
    assert [found.arn for found in packages.packages(target)] == [made.arn]
    lose("sagemaker:DeleteModelPackage")
    lose("sagemaker:DeleteModelPackageGroup")
    packages.delete_all(target)
    assert aws.client("sagemaker").list_model_package_groups()["ModelPackageGroupSummaryList"] == []


def test_a_group_that_a_list_does_not_have_yet_is_no_failure(
    aws: LocalAws, target: Target, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sagemaker = aws.client("sagemaker")
    sagemaker.create_model_package_group(ModelPackageGroupName=target.prefix)
    archive = model.locate(str(make_archive(tmp_path)), target)
    opened = model.opened(model.fetch(archive, target), "it")
    with monkeypatch.context() as patch:
        patch.setattr(packages, "_has_group", lambda *_: False)
        assert packages.register(opened, archive, "it", target)
    packages.delete_all(target)


def test_the_state_bucket_goes_though_its_end_is_not_answered(
    aws: LocalAws, target: Target, lose: Callable[[str], None]
) -> None:
    bootstrap.create(target)
    lose("s3:DeleteBucket")
    bootstrap.delete(target, approved=True)
    names = [bucket["Name"] for bucket in aws.client("s3").list_buckets()["Buckets"]]
    assert names == [BUCKET]


def test_an_upload_knows_its_own_manifest(
    target: Target, lose: Callable[[str], None], tmp_path: Path
) -> None:
    for split in ("train", "valid", "test"):
        for name in ("red", "green"):
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (8, 8), name).save(tmp_path / split / name / "a.png")
    upload(target, tmp_path, "colours")
    # Another manifest with the shards that are there.
    (tmp_path / "source.json").write_text('{"from": "a friend"}')
    lose("s3:PutObject")
    assert upload(target, tmp_path, "colours").changed
    assert require_manifest(target, "colours").source == {"from": "a friend"}


def test_an_object_that_breaks_off_is_read_again(
    aws: LocalAws, target: Target, lose: Callable[[str], None]
) -> None:
    put_json(aws, "long", ["x" * 100_000])
    lose("s3:GetObject")
    assert len(read_object(target.client("s3"), BUCKET, "long").content) > 100_000
    lose("s3:GetObject")
    with pytest.raises(ClientError, match="NoSuchKey"):
        read_object(target.client("s3"), BUCKET, "none")


def test_a_machine_is_launched_once(
    aws: LocalAws, target: Target, lose: Callable[[str], None]
) -> None:
    ec2 = aws.client("ec2")
    image = next(
        image["ImageId"]
        for image in target.client("ec2").describe_images()["Images"]
        if "Platform" not in image
    )
    template = ec2.create_launch_template(
        LaunchTemplateName="trainer",
        LaunchTemplateData={
            "InstanceType": "m5.large",
            "ImageId": image,
            "UserData": "",
        },
    )["LaunchTemplate"]["LaunchTemplateId"]
    put_parameter(aws, "ec2_launch_template_id", template)
    put_parameter(aws, "ec2_subnet_ids", ec2.describe_subnets()["Subnets"][0]["SubnetId"])
    lose("ec2:RunInstances")
    named: list[str] = []
    options = launch._parse(["train", "--env", "local", "--dataset", "pets", "--where", "ec2"])
    config = launch._config(options)
    job = jobs_ec2.submit(
        target, Work("train", "pets", config.to_json()), config, None, False, named.append
    )
    assert named == [job]
    (reservation,) = ec2.describe_instances()["Reservations"]
    (machine,) = reservation["Instances"]
    assert get_json(aws, f"jobs/{job}/instance.json")["instance_id"] == machine["InstanceId"]


@pytest.mark.parametrize(("minutes", "ended"), [(1, False), (600, True)])
def test_a_machine_that_is_not_known_is_gone_only_if_it_is_old(
    aws: LocalAws, target: Target, minutes: int, ended: bool
) -> None:
    launched = datetime.now(UTC) - timedelta(minutes=minutes)
    record = {
        "instance_id": "i-0123456789abcdef0",
        "instance_type": "g5.xlarge",
        "launched": launched.isoformat(timespec="seconds"),
    }
    put_json(aws, f"jobs/old-{minutes}/instance.json", record)
    assert Ec2Job(target, f"old-{minutes}").state().ended is ended


@pytest.mark.parametrize(("told", "attempts"), [("", 10), ("4", 4)])
def test_all_clients_try_as_often_as_aws_advises_or_the_user_says(
    target: Target, monkeypatch: pytest.MonkeyPatch, told: str, attempts: int
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", told) if told else monkeypatch.delenv(
        "AWS_MAX_ATTEMPTS", raising=False
    )
    retries = target.new_session().client("sagemaker").meta.config.retries
    assert retries == {"mode": "standard", "total_max_attempts": attempts}


def refusal(code: str, attempts: int) -> ClientError:
    told = {"Error": {"Code": code}, "ResponseMetadata": {"RetryAttempts": attempts}}
    return ClientError(told, "CreateIt")


def test_what_is_there_at_the_first_attempt_is_not_ours() -> None:
    assert was_done(refusal("ResourceInUse", 1), "ResourceInUse")
    assert not was_done(refusal("ResourceInUse", 0), "ResourceInUse")
    assert not was_done(refusal("AccessDenied", 1), "ResourceInUse")


def test_patience_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.patience._FIRST_PAUSE_SECONDS", 0.0)
    asked: list[str] = []

    def ask(code: str, until: int) -> str:
        asked.append(code)
        if len(asked) < until:
            raise refusal(code, 0)
        return "there"

    assert patiently(lambda: ask("NoSuchBucket", 3), {"NoSuchBucket"}) == "there"
    asked.clear()
    with pytest.raises(ClientError, match="NoSuchBucket"):
        patiently(lambda: ask("NoSuchBucket", 9), {"NoSuchBucket"}, attempts=2)
    assert len(asked) == 2
    with pytest.raises(ClientError, match="AccessDenied"):
        patiently(lambda: ask("AccessDenied", 9), {"NoSuchBucket"})
    assert len(asked) == 3
