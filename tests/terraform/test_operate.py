"""`invoke`, `logs`, `status`, and what `verify` and `destroy` look at, against a real localaws."""

import base64
import json
import signal
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from PIL import Image

from inference.archive import open_model
from terraform.cli import function, settling, smoke, status, teardown, verify
from terraform.cli.function import Answer
from terraform.cli.logs import age
from terraform.cli.model import Archive, publish
from tests.archives import make_archive
from tests.localaws.conftest import SECONDS, until
from tests.terraform.checkout import Checkout
from tests.terraform.conftest import CommandLine, LocalAws
from tests.terraform.service import BUCKET, FUNCTION, make_service
from trainer.target import Target, load


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_archive(tmp_path_factory.mktemp("model") / "one")


@pytest.fixture(scope="module")
def digest(archive: Path) -> str:
    return open_model(archive).digest


@pytest.fixture(scope="module")
def checkout(
    aws: LocalAws, archive: Path, digest: str, tmp_path_factory: pytest.TempPathFactory
) -> Checkout:
    """A service with one model, which the tests leave as it is."""
    made = make_service(tmp_path_factory.mktemp("operate") / "checkout", aws)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in made.environ.items():
            patch.setenv(name, value)
        place = Archive(BUCKET, digest, archive)
        publish(place, load("dev"))
    released = made.python("release.py", configuration(digest), place.uri)
    assert released.returncode == 0, released.stderr
    return made


@pytest.fixture
def target(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> Target:
    """The environment, with this process's own environment leading to localaws."""
    for name, value in checkout.environ.items():
        if name.startswith("AWS_") or name == "COLUMNS":
            monkeypatch.setenv(name, value)
    return load("dev")


@pytest.fixture
def command(target: Target, command_line: CommandLine) -> CommandLine:
    """A command for the environment: its name, and its flags."""
    return lambda name, *arguments: command_line(name, "--env", target.name, *arguments)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "red.png"
    Image.new("RGB", (40, 40), "red").save(path)
    return path


def configuration(digest: str) -> str:
    return f"kennel-dev-{digest[:12]}"


def outputs(digest: str, **changes: Any) -> dict[str, Any]:
    return {
        "endpoint_configuration_name": configuration(digest),
        "function_name": FUNCTION,
        "model": {"digest": digest},
        **changes,
    }


def failed(report: verify.Report) -> dict[str, str]:
    return {row.name: row.found for row in report.checks if not row.passed}


def test_invoke_shows_labels_model_and_times(
    command: CommandLine, photo: Path, digest: str
) -> None:
    code, out, _ = command("invoke", "--file", str(photo))
    assert code == 0
    (row,) = (line for line in out.splitlines() if "Red" in line)
    assert "100.0%" in row
    assert row.count("█") == 24
    assert f"kennel-tiny-net-{digest[:12]}" in out
    # The table is as wide as what is in it.
    caption = " ".join(out.split())
    assert "ms round trip" in caption
    assert "ms in the function" in caption


def test_invoke_takes_several_files_and_speaks_json(command: CommandLine, photo: Path) -> None:
    code, out, _ = command("invoke", "--json", "--file", str(photo), str(photo.parent / "red.png"))
    assert code == 0
    for row in json.loads(out):
        assert row["predictions"][0]["label"] == "Red"
        assert row["duration_ms"] <= row["round_trip_ms"]


def test_a_refusal_of_the_function_is_one_line(command: CommandLine) -> None:
    code, out, err = command("invoke", "--url", "https://10.0.0.1/dog.jpg")
    assert code == 1
    assert out == ""
    assert err == (
        "error: https://10.0.0.1/dog.jpg: the function answered 403: forbidden_address: that host "
        "may not be fetched (`make logs WHAT=function ENV=dev` shows more)\n"
    )


def test_photos_that_cannot_be_sent_are_refused_before_any_is(
    command: CommandLine, photo: Path, tmp_path: Path
) -> None:
    code, out, err = command("invoke", "--file", str(photo), str(tmp_path / "nowhere.jpg"))
    assert (code, out) == (2, "")
    assert "nowhere.jpg: cannot be read: No such file" in err
    _, _, err = command("invoke", "--file", str(tmp_path))
    assert f"is a folder: name photos in it, such as FILE='{tmp_path}/*.jpg'" in err
    large = tmp_path / "large.jpg"
    large.write_bytes(bytes(5 * 2**20))
    code, _, err = command("invoke", "--file", str(large))
    assert code == 2
    assert "5.0 MiB are more than a call may carry" in err


@pytest.mark.parametrize(
    ("log", "times"),
    [
        ("START\nREPORT RequestId: 1\tDuration: 12.50 ms\tBilled Duration: 13 ms\t", (12.5, None)),
        (
            "REPORT RequestId: 1\tDuration: 1 ms\tMemory Size: 128 MB\tInit Duration: 90.1 ms\t",
            (1, 90.1),
        ),
        (
            'not json\n{"type": "platform.report", "record": {"metrics": {"durationMs": 7.5, '
            '"initDurationMs": 80}}}',
            (7.5, 80),
        ),
        ('{"type": "platform.report"', (None, None)),
        ("", (None, None)),
    ],
)
def test_lambda_s_report_is_read_in_both_formats(log: str, times: tuple[Any, Any]) -> None:
    assert function.report(log) == times


def test_where_nothing_is_deployed_the_remedy_is_named(
    command: CommandLine, aws: LocalAws, photo: Path
) -> None:
    name = "/kennel/dev/function_name"
    aws.client("ssm").put_parameter(Name=name, Value="nobody", Overwrite=True)
    try:
        code, _, err = command("invoke", "--file", str(photo))
    finally:
        aws.client("ssm").put_parameter(Name=name, Value=FUNCTION, Overwrite=True)
    assert code == 1
    assert err == (
        "error: nothing is deployed in ENV=dev: `make deploy ENV=dev` deploys what was trained "
        "last\n"
    )


def test_a_function_that_does_not_survive_says_why(target: Target) -> None:
    assert function.call(target, {"image": "crash"}).failure == "RuntimeError: crashed"
    answer = function.call(target, {"image": "another"})
    assert answer.failure == "no answer of this service: null"


def test_logs_of_all_writers_come_in_the_order_of_time(command: CommandLine, aws: LocalAws) -> None:
    client, now = aws.client("logs"), int(time.time() * 1000)
    for group, stream, at, message in (
        ("/kennel-dev/ec2-trainer", "run", now - 3000, "epoch=1"),
        ("/aws/codebuild/kennel-dev-image", "build", now - 2000, "built"),
        ("/aws/sagemaker/TrainingJobs", "kennel-dev-1/algo-1", now - 1000, "epoch=2"),
        ("/aws/sagemaker/TrainingJobs", "others-1/algo-1", now - 1000, "not ours"),
        ("/kennel-dev/ec2-trainer", "run-before", now - 7_200_000, "old"),
    ):
        if group not in {
            found["logGroupName"] for found in client.describe_log_groups()["logGroups"]
        }:
            client.create_log_group(logGroupName=group)
        client.create_log_stream(logGroupName=group, logStreamName=stream)
        client.put_log_events(
            logGroupName=group,
            logStreamName=stream,
            logEvents=[{"timestamp": at, "message": message}],
        )
    chosen = ("--what", "ec2", "--what", "training", "--what", "build")
    code, out, err = command("logs", *chosen, "--json")
    assert (code, err) == (0, "")
    lines = [json.loads(line) for line in out.splitlines()]
    assert [(line["what"], line["message"]) for line in lines] == [
        ("ec2", "epoch=1"),
        ("build", "built"),
        ("training", "epoch=2"),
    ]
    _, out, _ = command("logs", "--what", "ec2", "--since", "3h")
    assert [line.split()[1:] for line in out.splitlines()] == [
        ["ec2", "run-before", "old"],
        ["ec2", "run", "epoch=1"],
    ]
    _, out, err = command("logs", "--what", "build", "--since", "1s")
    assert out == ""
    assert err.startswith("no events since ")


def test_logs_end_quietly_when_nobody_reads_on(checkout: Checkout, aws: LocalAws) -> None:
    client, group = aws.client("logs"), "/aws/codebuild/kennel-dev-image"
    with suppress(client.exceptions.ResourceAlreadyExistsException):
        client.create_log_group(logGroupName=group)
    client.create_log_stream(logGroupName=group, logStreamName="head")
    events = [{"timestamp": int(time.time() * 1000), "message": "built"}] * 9
    client.put_log_events(logGroupName=group, logStreamName="head", logEvents=events)
    follow = ("logs", "--env", "dev", "--what", "build", "--json", "--follow")
    with checkout.start("-m", "terraform.cli", *follow) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["what"] == "build"
        process.stdout.close()
        assert process.stderr is not None
        # It notices with the next line.
        while process.poll() is None:
            events[0]["timestamp"] = int(time.time() * 1000)
            client.put_log_events(logGroupName=group, logStreamName="head", logEvents=events)
            time.sleep(0.2)
        assert (process.returncode, process.stderr.read()) == (0, "")


def test_logs_are_followed_until_the_user_ends_it(checkout: Checkout, aws: LocalAws) -> None:
    client, group = aws.client("logs"), "/kennel-dev/followed"
    client.create_log_group(logGroupName=group)
    client.create_log_stream(logGroupName=group, logStreamName="s")
    follow = (
        "import sys, time; from terraform.cli import logs; from trainer.target import load;"
        f"groups = {{'ec2': logs.Group('{group}')}};"
        "[print(e.message, flush=True)"
        " for e in logs.follow(load('dev'), groups, int((time.time() - 60) * 1000))]"
    )
    with checkout.start("-c", follow) as process:
        for message in ("one", "two"):
            client.put_log_events(
                logGroupName=group,
                logStreamName="s",
                logEvents=[{"timestamp": int(time.time() * 1000), "message": message}],
            )
            assert process.stdout is not None
            assert process.stdout.readline() == f"{message}\n"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=SECONDS)


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("10m", 600), ("2h", 7200), ("1d", 86400)]
)
def test_ages(text: str, seconds: int) -> None:
    assert age(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "m", "0m", "-1m", "10 m", "1.5h", "10w", "9999999s"])
def test_what_is_no_age_is_refused(command: CommandLine, text: str) -> None:
    code, _, err = command("logs", f"--since={text}")
    assert code == 2
    assert f"{text!r} is no age such as 30s, 10m, 2h or 1d" in err


def test_status_is_one_page(command: CommandLine, digest: str) -> None:
    code, out, _ = command("status", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["environment"] == "dev"
    (variant,) = found["endpoint"]["variants"]
    assert found["endpoint"]["status"] == "InService"
    assert found["endpoint"]["configuration"] == configuration(digest)
    assert variant["instances"] == variant["desired"] == 1
    assert variant["archive_uri"] == Archive(BUCKET, digest).uri
    assert found["function"]["version"] == "1"
    assert found["function"]["warm"] == 1
    assert found["jobs"] == []
    usd = {line["what"]: line["usd"] for line in found["cost"]["lines"]}
    assert usd["1 x ml.m5.large"] == pytest.approx(83.95)
    assert found["cost"]["usd_a_month"] == pytest.approx(sum(usd.values()))

    code, out, _ = command("status")
    assert code == 0
    for heading in ("endpoint", "function", "alarms", "jobs", "cost"):
        assert heading in out
    assert digest[:12] in out


def test_status_counts_what_runs_by_the_hour(command: CommandLine, aws: LocalAws) -> None:
    sagemaker, ec2 = aws.client("sagemaker"), aws.client("ec2")
    sagemaker.create_notebook_instance(
        NotebookInstanceName="kennel-dev",
        InstanceType="ml.t3.medium",
        RoleArn="arn:aws:iam::123456789012:role/kennel-dev-serving",
    )
    describe = partial(sagemaker.describe_notebook_instance, NotebookInstanceName="kennel-dev")
    until(describe, lambda found: found["NotebookInstanceStatus"] == "InService")
    tags = [{"Key": "Name", "Value": "kennel-dev-trainer"}]
    (machine,) = ec2.run_instances(
        ImageId="ami-999844e0",
        InstanceType="g5.xlarge",
        MinCount=1,
        MaxCount=1,
        UserData="#!/bin/bash\nsleep 600",
        TagSpecifications=[{"ResourceType": "instance", "Tags": tags}],
    )["Instances"]
    try:
        _, out, _ = command("status", "--json")
        found = json.loads(out)
        _, page, _ = command("status")
    finally:
        ec2.terminate_instances(InstanceIds=[machine["InstanceId"]])
        sagemaker.stop_notebook_instance(NotebookInstanceName="kennel-dev")
        until(describe, lambda found: found["NotebookInstanceStatus"] == "Stopped")
    assert found["notebook"]["status"] == "InService"
    cost = found["cost"]
    usd = {line["what"]: line["usd_an_hour"] for line in cost["hourly"]}
    assert usd["notebook, 1 x ml.t3.medium"] == 0.05
    assert usd[f"ec2 {machine['InstanceId']}, 1 x g5.xlarge"] == 1.006
    # The endpoint's ml.m5.large and the function's warm environment run, too.
    assert cost["usd_an_hour"] == pytest.approx(0.05 + 1.006 + 0.115 + 0.006, abs=1e-3)
    # A notebook runs until it is idle, a training ends.
    assert cost["usd_a_month"] == pytest.approx(83.95 + 4.38 + 36.5)
    assert cost["prices"] == "list prices of us-east-1, 2026-11"
    assert "1.18 USD an hour for what runs now; 124.83 USD a month" in " ".join(page.split())
    _, out, _ = command("status", "--json")
    assert json.loads(out)["cost"]["usd_a_month"] == pytest.approx(83.95 + 4.38)


def test_an_endpoint_whose_configuration_is_gone_is_told_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    described = {
        "EndpointName": "it",
        "EndpointStatus": "Deleting",
        "EndpointConfigName": "gone",
        "ProductionVariants": [{"VariantName": "AllTraffic"}],
    }

    def gone(*_: Any) -> Any:
        error = {"Code": "ValidationException", "Message": "Could not find endpoint configuration"}
        raise ClientError({"Error": error}, "DescribeEndpointConfig")

    monkeypatch.setattr(settling, "live", lambda _: described)
    monkeypatch.setattr(verify, "variants", gone)
    found = status._endpoint(Target("dev", "kennel", "eu-west-1"))
    assert found == {"name": "it", "status": "Deleting", "configuration": "gone", "variants": []}
    assert status._endpoint_text(found, "dev") == "it Deleting, configuration gone"


def test_jobs_cost_what_their_machines_cost() -> None:
    groups = [
        {"InstanceType": "ml.g5.xlarge", "InstanceCount": 2},
        {"InstanceType": "ml.nowhere", "InstanceCount": 1},
    ]
    client = SimpleNamespace(
        describe_training_job=lambda TrainingJobName: {
            "ResourceConfig": groups[0] if TrainingJobName == "one" else {"InstanceGroups": groups}
        },
        describe_processing_job=lambda ProcessingJobName: {
            "ProcessingResources": {"ClusterConfig": groups[0]}
        },
    )
    known = {"what": "2 x ml.g5.xlarge", "usd_an_hour": 2.816}
    unknown = {"what": "1 x ml.nowhere", "usd_an_hour": None}
    assert status._machines(client, "training", "one") == [known]
    assert status._machines(client, "training", "groups") == [known, unknown]
    assert status._machines(client, "processing", "any") == [known]
    # Its trials are training jobs.
    assert status._machines(client, "tuning", "any") == []
    jobs = [{"kind": "training", "name": "a", "machines": [known, unknown]}]
    cost = status._cost(Target("dev", "kennel", "eu-west-1"), None, None, None, jobs)
    assert cost == {
        "usd_a_month": 0,
        "lines": [],
        "usd_an_hour": 2.816,
        "hourly": [
            {"what": "training a, 2 x ml.g5.xlarge", "usd_an_hour": 2.816},
            {"what": "training a, 1 x ml.nowhere", "usd_an_hour": None},
        ],
        "prices": "list prices of us-east-1, those of eu-west-1 differ, 2026-11",
    }


def test_a_sound_deployment_passes(target: Target, digest: str) -> None:
    report = verify.check(target, outputs(digest))
    assert report.passed, report.fault
    assert report.fault == ""


@pytest.mark.parametrize("status", ["Updating", "SystemUpdating"])
def test_an_endpoint_that_only_changes_its_instances_passes(
    target: Target, digest: str, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    endpoint = settling.live(target) | {"EndpointStatus": status}
    monkeypatch.setattr(settling, "live", lambda _: endpoint)
    report = verify.check(target, outputs(digest))
    assert report.passed, report.fault
    # Another configuration comes.
    endpoint["PendingDeploymentSummary"] = {"EndpointConfigName": "other"}
    assert failed(verify.check(target, outputs(digest))) == {"endpoint": status}


def test_another_configuration_than_the_applied_one_fails(target: Target, digest: str) -> None:
    report = verify.check(target, outputs(digest, endpoint_configuration_name="kennel-dev-new"))
    assert failed(report) == {
        "configuration": f"runs {configuration(digest)}, applied was kennel-dev-new: SageMaker "
        "rolled the release back"
    }


def test_another_model_than_the_deployed_one_fails(target: Target, digest: str) -> None:
    other = "f" * 64
    report = verify.check(target, outputs(digest, model={"digest": other}))
    # What serves, serves well.
    found = f"{digest[:12]} answers, deployed was {other[:12]}"
    assert failed(report) == {"model": found}


def test_another_answer_than_the_archive_s_own_fails(target: Target, digest: str) -> None:
    place = Archive(BUCKET, digest)
    right = smoke.of(place, target)
    smoke.store(replace(right, label="Nobody"), place, target)
    try:
        report = verify.check(target, outputs(digest))
    finally:
        smoke.store(right, place, target)
    assert set(failed(report)) == {"smoke image"}
    assert f"the archive itself Nobody ({right.probability:.3f})" in report.fault


def test_an_alarm_fails_it_and_missing_data_do_not(
    target: Target, digest: str, aws: LocalAws
) -> None:
    client = aws.client("cloudwatch")
    for name in ("kennel-dev-loud", "kennel-dev-silent", "other-loud"):
        client.put_metric_alarm(
            AlarmName=name,
            Namespace="none",
            MetricName="none",
            Statistic="Sum",
            Period=86400,
            EvaluationPeriods=1,
            Threshold=1,
            ComparisonOperator="GreaterThanThreshold",
        )
    for name in ("kennel-dev-loud", "other-loud"):
        client.set_alarm_state(AlarmName=name, StateValue="ALARM", StateReason="a test")
    try:
        report = verify.check(target, outputs(digest))
    finally:
        client.delete_alarms(AlarmNames=["kennel-dev-loud", "kennel-dev-silent", "other-loud"])
    assert failed(report) == {"alarms": "kennel-dev-loud"}


def test_a_function_that_is_not_there_fails_what_depends_on_it(
    target: Target, digest: str, aws: LocalAws
) -> None:
    name = "/kennel/dev/function_name"
    aws.client("ssm").put_parameter(Name=name, Value="nobody", Overwrite=True)
    try:
        report = verify.check(target, outputs(digest))
    finally:
        aws.client("ssm").put_parameter(Name=name, Value=FUNCTION, Overwrite=True)
    assert {"function", "model", "smoke image"} == set(failed(report))
    assert "ResourceNotFoundException" in failed(report)["function"]
    assert "\n" not in report.fault


def test_the_smoke_image_is_one_that_the_model_is_sure_of(archive: Path) -> None:
    opened = open_model(archive)
    made = smoke.make(opened)
    assert made == smoke.make(opened)
    assert made.probability > 0.9
    assert made.label in opened.labels
    assert base64.b64decode(made.image).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("label", "probability", "is_right"),
    [("Red", 0.9, True), ("Red", 0.82, True), ("Red", 0.75, False), ("Blue", 0.9, False)],
)
def test_the_smoke_image_s_answer_may_differ_by_rounding_only(
    label: str, probability: float, is_right: bool
) -> None:
    body = {"predictions": [{"label": label, "index": 0, "probability": probability}]}
    fault = smoke.Smoke("", "Red", 0.9).fault(Answer(200, body, 1.0))
    assert (fault is None) is is_right


def test_network_interfaces_are_waited_for(
    target: Target,
    aws: LocalAws,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = aws.client("ec2")
    subnet = client.describe_subnets()["Subnets"][0]
    group = client.create_security_group(
        GroupName="endpoint", Description="d", VpcId=subnet["VpcId"]
    )["GroupId"]
    made = client.create_network_interface(SubnetId=subnet["SubnetId"], Groups=[group])
    name = made["NetworkInterface"]["NetworkInterfaceId"]
    teardown.wait_for_interfaces(target, {group}, seconds=0)
    assert capsys.readouterr().err == f"note: {name} still use {group}\n"

    def sleep(seconds: float) -> None:
        client.delete_network_interface(NetworkInterfaceId=name)  # as SageMaker does at last

    clock = SimpleNamespace(monotonic=time.monotonic, sleep=sleep)
    monkeypatch.setattr(teardown, "time", clock)
    teardown.wait_for_interfaces(target, {group})
    assert capsys.readouterr().err == f"waiting for SageMaker to remove {name}\n"


def test_security_groups_are_found_in_a_state() -> None:
    held = [
        {"type": "aws_s3_bucket", "instances": [{"attributes": {}}]},
        {
            "type": "aws_sagemaker_model",
            "instances": [
                {"attributes": {"vpc_config": []}},
                {"attributes": {"vpc_config": [{"security_group_ids": ["sg-1", "sg-2"]}]}},
            ],
        },
        {
            "type": "aws_sagemaker_notebook_instance",
            "instances": [{"attributes": {"security_groups": ["sg-3"]}}],
        },
    ]
    assert teardown.security_groups(held) == {"sg-1", "sg-2", "sg-3"}
