"""`preflight` against a real localaws that enforces IAM: what is ready, and what is not."""

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from inference.archive import open_model
from terraform.cli import checks, job_logs, settings, stack
from terraform.cli.checks import CHECKS, Check, Plan, Row
from terraform.cli.model import Archive, publish
from terraform.cli.preflight import look
from terraform.cli.settings import Settings
from tests.archives import make_archive
from tests.localaws.conftest import LocalAws
from tests.outside import open_environments
from tests.terraform.conftest import CommandLine
from trainer import catalogue
from trainer import target as targets
from trainer.errors import KennelError, UsageError
from trainer.target import Target, load

ROOT = Path(__file__).parents[2]
BUCKET = "kennel-local-123456789012-us-east-1"
STATES = "kennel-tfstate-123456789012-us-east-1"
TODAY = date(2026, 11, 23)
ROLE = "arn:aws:iam::123456789012:role/looker"


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    """An account with all that a deployment to `local` needs."""
    folder = tmp_path_factory.mktemp("localaws")
    running = LocalAws(folder, "--records-only", "--iam", "enforce")
    s3 = running.client("s3")
    for bucket in (STATES, BUCKET):
        s3.create_bucket(Bucket=bucket)
    encryption = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]}
    s3.put_bucket_encryption(Bucket=BUCKET, ServerSideEncryptionConfiguration=encryption)
    subnets = running.client("ec2").describe_subnets(
        Filters=[{"Name": "availability-zone", "Values": ["us-east-1a", "us-east-1e"]}]
    )["Subnets"]
    logs = running.client("logs")
    logs.create_log_group(logGroupName=job_logs.TRAINING)
    logs.put_retention_policy(logGroupName=job_logs.TRAINING, retentionInDays=30)
    put_parameters(
        running,
        "kennel/local",
        bucket=BUCKET,
        function_name="kennel-local-classify",
        ec2_subnet_ids=",".join(subnet["SubnetId"] for subnet in subnets),
    )
    yield running
    running.stop()


def put_parameters(aws: LocalAws, folder: str, **values: str) -> None:
    for key, value in values.items():
        aws.client("ssm").put_parameter(Name=f"/{folder}/{key}", Type="String", Value=value)


@pytest.fixture(autouse=True)
def environment(aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "AWS_ENDPOINT_URL": aws.endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "1",
        "COLUMNS": "200",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """One for all tests: its clients are made once. It is not closed, as on AWS."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(targets, "ENVIRONMENTS", open_environments(tmp_path_factory.mktemp("open")))
        yield load("local")


@pytest.fixture
def plan(target: Target) -> Plan:
    return Plan(target, settings.read(target), TODAY)


@pytest.fixture
def command(command_line: CommandLine, target: Target) -> CommandLine:
    return partial(command_line, "preflight", "--env", "local")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_archive(tmp_path_factory.mktemp("model") / "one")


def asked(plan: Plan, **changes: Any) -> Plan:
    return replace(plan, settings=replace(plan.settings, **changes))


def one(check: Callable[[Plan], Iterator[Row]], plan: Plan, beginning: str = "") -> Row:
    (row,) = (row for row in check(plan) if row.name.startswith(beginning))
    return row


def test_a_ready_account_passes_everything(command: CommandLine, archive: Path) -> None:
    code, out, err = command("--json", "--model", str(archive), "--instances", "2")
    answer = json.loads(out)
    assert code == 0, err
    assert answer["passed"]
    assert [row for row in answer["checks"] if row["state"] != "pass"] == []
    found = {row["name"]: row["found"] for row in answer["checks"]}
    assert found["bucket"] == f"{BUCKET}, us-east-1, AES256"
    assert found["quota: ml.m5.large for endpoint usage"].startswith("8 wanted")
    # Subnets are in a and e, machines in a, b, c, d and f.
    assert found["zones with g5.xlarge"] == "us-east-1a"
    assert found["archive"].endswith("3 classes")
    assert {check.name for check in CHECKS} - set(found) == {
        "budget",
        "end of patch",
        "quota of EC2",
        "quotas of SageMaker",
        "zones",
    }


def test_the_next_command_is_one_that_works(
    command: CommandLine, aws: LocalAws, archive: Path
) -> None:
    s3 = aws.client("s3")
    s3.delete_object(Bucket=BUCKET, Key="jobs/latest.json")
    assert "next: `make train WHERE=sagemaker ENV=local" in command()[2]
    assert f"next: `make deploy MODEL={archive} ENV=local" in command("--model", str(archive))[2]
    latest = b'{"archive_uri": "s3://bucket/model.tar.gz"}'
    s3.put_object(Bucket=BUCKET, Key="jobs/latest.json", Body=latest)
    assert "next: `make deploy ENV=local" in command()[2]
    s3.delete_object(Bucket=BUCKET, Key="jobs/latest.json")


def test_a_failure_is_a_row_with_a_remedy_and_exit_1(command: CommandLine) -> None:
    code, out, err = command("--instance-type", "ml.m5.xlarge", "--instances", "21")
    name = "quota: ml.m5.xlarge for training job usage"
    assert code == 1
    (line,) = (line for line in out.splitlines() if name in line)
    assert re.search(r"fail +21 wanted, 20 allowed +ask for 21 in the Service Quotas", line)
    assert err == f"error: not ready: {name}; the table says what to do\n"


@pytest.mark.parametrize(
    "arguments", [("--instances", "0"), ("--instances", "x"), ("--instance",), ("more",)]
)
def test_wrong_usage_ends_with_2(command: CommandLine, arguments: tuple[str, ...]) -> None:
    assert command(*arguments)[0] == 2


@pytest.mark.parametrize(
    ("changes", "name", "state"),
    [
        ({"endpoint_instances": 10}, "quota: ml.m5.large for endpoint", "pass"),
        ({"endpoint_instances": 11}, "quota: ml.m5.large for endpoint", "fail"),
        ({"endpoint_instance_type": "ml.z9.nano"}, "quota: ml.z9.nano for endpoint", "warn"),
        ({"notebook_instance_type": "ml.z9.nano"}, "quota: ml.z9.nano for notebook", "warn"),
    ],
)
def test_sagemaker_s_quotas(
    plan: Plan, changes: dict[str, Any], name: str, state: checks.State
) -> None:
    assert one(checks.sagemaker_quotas, asked(plan, **changes), name).state == state


def test_who_asked_for_no_machine_is_only_warned(plan: Plan) -> None:
    """A team that trains at home need not ask AWS for machines."""
    row = one(checks.sagemaker_quotas, replace(plan, instances=21), "quota: ml.g5.xlarge")
    assert (row.state, row.found) == ("warn", "21 wanted, 20 allowed")


def test_spot_machines_have_a_quota_of_their_own(plan: Plan) -> None:
    name = "quota: ml.g5.xlarge for spot training job usage"
    assert one(checks.sagemaker_quotas, replace(plan, is_spot=True), name).state == "pass"


@pytest.mark.parametrize(
    ("changes", "state", "found"),
    [
        ({"ec2_instance_type": "g5.xlarge"}, "pass", "4 wanted (vCPUs of a g5.xlarge)"),
        ({"ec2_instance_type": "g5.xlarge", "is_spot": True}, "pass", "4 wanted"),
        ({"ec2_instance_type": "m5.xlarge"}, "pass", "4 wanted (vCPUs of a m5.xlarge)"),
        ({"ec2_instance_type": "trn1.2xlarge"}, "warn", "not looked at"),
    ],
)
def test_ec2_s_quota_counts_processors(
    plan: Plan, changes: dict[str, Any], state: checks.State, found: str
) -> None:
    row = one(checks.ec2_quota, asked(plan, **changes))
    assert row.state == state
    assert row.found.startswith(found)
    assert ("Spot" in row.name) == ("is_spot" in changes)


def test_zones_without_a_subnet_fail(plan: Plan) -> None:
    row = one(checks.ec2_zones, asked(plan, ec2_instance_type="z9.nano"))
    assert (row.state, row.found) == (
        "fail",
        "offered in none of this region; no subnet is there",
    )
    before_the_foundation = replace(plan, target=replace(plan.target, project="other"))
    assert one(checks.ec2_zones, before_the_foundation).found.count(",") == 4


def test_a_volume_holds_the_snapshot_of_its_image(plan: Plan) -> None:
    found = one(checks.machine_image, plan)
    assert (found.state, found.found.split(", ")[1]) == (
        "pass",
        "45 GiB on /dev/xvda; the volume has 45",
    )
    small = one(checks.machine_image, asked(plan, ec2_volume_gb=44))
    assert small.state == "fail"
    assert small.remedy.startswith("set ec2_trainer.volume_size_gb to 55 in ")
    gone = one(checks.machine_image, asked(plan, ec2_image="ami-0123456789abcdef0"))
    assert (gone.state, gone.found) == (
        "fail",
        "ami-0123456789abcdef0 is not there for this account",
    )
    # On Ubuntu the root has another name.
    other = one(checks.machine_image, asked(plan, ec2_image="ami-1e749f67"))
    assert (other.state, "must say /dev/sda1" in other.remedy) == ("warn", True)


def test_a_budget_whose_tag_is_not_activated_counts_nothing(plan: Plan, aws: LocalAws) -> None:
    assert list(checks.budget(plan)) == []
    budgets, ce = aws.client("budgets"), aws.client("ce")
    made = {
        "BudgetName": "kennel-local",
        "BudgetType": "COST",
        "TimeUnit": "MONTHLY",
        "BudgetLimit": {"Amount": "1", "Unit": "USD"},
    }
    account = {"AccountId": "123456789012"}
    tag = {"CostFilters": {"TagKeyValue": ["user:project$kennel"]}}
    budgets.create_budget(**account, Budget=made | tag)
    row = one(checks.budget, plan)
    assert (row.state, row.found) == ("warn", "counts nothing: project is not activated")
    # Typed as it is printed, it asks this machine and nobody else.
    assert row.remedy.startswith("`(unset AWS_PROFILE") == bool(plan.target.fence)
    project = {"TagKey": "project", "Status": "Active"}

    def activated() -> list[Any]:
        return ce.update_cost_allocation_tags_status(CostAllocationTagsStatus=[project])["Errors"]

    # No key is known before something has it.
    assert [error["TagKey"] for error in activated()] == ["project"]
    topic = aws.client("sns").create_topic(
        Name="tagged", Tags=[{"Key": "project", "Value": "kennel"}]
    )["TopicArn"]
    assert one(checks.budget, plan).state == "warn"
    assert activated() == []
    assert one(checks.budget, plan).found == "counts user:project$kennel"
    budgets.update_budget(**account, NewBudget=made)
    assert one(checks.budget, plan).found == "counts the whole account"
    budgets.delete_budget(**account, BudgetName="kennel-local")
    aws.client("sns").delete_topic(TopicArn=topic)


def test_an_image_that_aws_does_not_publish_is_named(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = catalogue.load()
    entry = replace(known.entries["machine_image", "pytorch"], value="/aws/service/none/ami-id")
    entries = {**known.entries, ("machine_image", "pytorch"): entry}
    monkeypatch.setattr(catalogue, "load", lambda: replace(known, entries=entries))
    row = one(checks.machine_image, plan)
    assert (row.state, row.found) == ("fail", "AWS has no /aws/service/none/ami-id here")


def test_jobs_without_a_log_group_are_told_of(plan: Plan, aws: LocalAws) -> None:
    logs, group = aws.client("logs"), {"logGroupName": job_logs.TRAINING}
    assert one(checks.job_log_group, plan).found == "/aws/sagemaker/TrainingJobs, 30 days"
    logs.delete_retention_policy(**group)
    row = one(checks.job_log_group, plan)
    assert (row.state, row.found) == ("warn", "/aws/sagemaker/TrainingJobs keeps logs for ever")
    logs.delete_log_group(**group)
    assert one(checks.job_log_group, plan).state == "warn"
    row = one(checks.job_log_group, replace(plan, instance_type="ml.g5.xlarge"))
    assert (row.state, row.remedy) == (
        "fail",
        "`make apply STACK=foundation ENV=local` makes it, unless enable_job_log_groups is off",
    )
    logs.create_log_group(**group)
    logs.put_retention_policy(**group, retentionInDays=30)


def test_without_an_ec2_trainer_nothing_of_ec2_is_asked(plan: Plan) -> None:
    none = asked(plan, ec2_instance_type=None)
    looks = (checks.ec2_quota, checks.machine_image, checks.ec2_zones)
    assert [row for look_at in looks for row in look_at(none)] == []


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"warm": 900}, "pass"),
        ({"warm": 901}, "fail"),
        ({"warm": 0, "reserved": 901}, "fail"),
        ({"warm": 0, "reserved": None}, "pass"),
    ],
)
def test_lambda_keeps_a_hundred_executions_for_others(
    plan: Plan, changes: dict[str, Any], state: checks.State
) -> None:
    row = one(checks.lambda_concurrency, asked(plan, **changes))
    assert row.state == state
    assert ("local.serving.tfvars" in row.remedy) == (state == "fail")


def test_a_new_account_s_ten_executions_cannot_be_kept_warm(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """localaws has 1000; the answer of an account that has 10 is AWS's own."""

    class Ten:
        def get_account_settings(self) -> dict[str, Any]:
            limit = {"ConcurrentExecutions": 10, "UnreservedConcurrentExecutions": 10}
            return {"AccountLimit": limit}

    other = replace(plan.target, project="other")
    real = Target.client
    monkeypatch.setattr(
        Target,
        "client",
        lambda self, service: Ten() if service == "lambda" else real(self, service),
    )
    row = one(checks.lambda_concurrency, replace(plan, target=other))
    assert (row.state, row.found) == (
        "fail",
        "2 wanted, 0 of 10 can be reserved or kept warm",
    )


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (
            f"123456789012.dkr.ecr.us-east-1.amazonaws.com/xx@sha256:{'1' * 64}",
            "xx@sha256:111111111111 is not in the registry of 123456789012",
        ),
        ("123456789012.dkr.ecr.us-east-1.amazonaws.com/xx:1", "xx:1 is not in the registry"),
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com/xx:1", "is in another region"),
        ("python:3.13-slim", "python:3.13-slim is no image in ECR"),
    ],
)
def test_a_serving_image_that_is_not_there_fails(plan: Plan, image: str, found: str) -> None:
    row = one(checks.serving_image, asked(plan, image_uri=image))
    assert row.state == "fail"
    assert found in row.found
    assert row.remedy


def test_the_image_that_was_built_last_is_looked_for(plan: Plan, aws: LocalAws) -> None:
    other = replace(plan.target, project="built")
    built = replace(asked(plan, image_uri=None), target=other)
    row = one(checks.serving_image, built)
    assert (row.state, row.remedy) == ("fail", "`make image ENV=local`")
    ecr = aws.client("ecr")
    ecr.create_repository(repositoryName="built-local-serving")
    media_type = "application/vnd.docker.distribution.manifest.v2+json"
    digest = ecr.put_image(
        repositoryName="built-local-serving",
        imageManifest=json.dumps({"schemaVersion": 2, "mediaType": media_type}),
        imageTag="1",
    )["image"]["imageId"]["imageDigest"]
    address = f"123456789012.dkr.ecr.us-east-1.amazonaws.com/built-local-serving@{digest}"
    put_parameters(aws, "built/local", image_uri=address)
    assert one(checks.serving_image, built).state == "pass"


def test_a_serving_image_that_sagemaker_refuses_fails(plan: Plan, aws: LocalAws) -> None:
    media_type = "application/vnd.oci.image.manifest.v1+json"
    uri = aws.client("ecr").create_repository(repositoryName="oci-local-serving")["repository"]
    digest = aws.client("ecr").put_image(
        repositoryName="oci-local-serving",
        imageManifest=json.dumps({"schemaVersion": 2, "mediaType": media_type}),
        imageTag="1",
    )["image"]["imageId"]["imageDigest"]
    address = f"{uri['repositoryUri']}@{digest}"
    put_parameters(aws, "oci/local", image_uri=address)
    built = replace(asked(plan, image_uri=None), target=replace(plan.target, project="oci"))
    pinned = asked(plan, image_uri=address)
    for asked_for, remedy in (
        (built, "`make image ENV=local` builds it again"),
        (pinned, "push it again, built with `--output type=image,oci-mediatypes=false`"),
    ):
        row = one(checks.serving_image, asked_for)
        assert (row.state, row.remedy) == ("fail", remedy)
        assert f"is a {media_type}, which SageMaker refuses" in row.found


def test_the_training_image_is_that_of_the_machine(plan: Plan) -> None:
    for kind, expected in (("ml.g5.xlarge", "cu133"), ("ml.m5.xlarge", "cpu")):
        row = one(checks.training_image, replace(plan, instance_type=kind))
        assert row.state == "pass"
        assert expected in row.found


@pytest.mark.parametrize(
    ("today", "state", "found"),
    [
        (date(2027, 5, 20), "pass", "until 2027-07-20"),
        (date(2027, 5, 21), "warn", "ends on 2027-07-20, in 60 days"),
        (date(2027, 7, 20), "warn", "in 0 days"),
        (date(2027, 7, 21), "fail", "ended on 2027-07-20"),
    ],
)
def test_patches_are_warned_of_60_days_before_they_end(
    plan: Plan, today: date, state: checks.State, found: str
) -> None:
    row = one(checks.end_of_patch, replace(plan, today=today), "patches: training image")
    assert row.state == state
    assert row.found.endswith(found)
    assert bool(row.remedy) == (state != "pass")


@pytest.mark.parametrize(
    ("changes", "name", "state"),
    [
        ({"runtime": "python3.99"}, "patches: Lambda runtime", "warn"),
        ({"notebook_platform": "notebook-al2-v3"}, "patches: notebook platform", "fail"),
        ({"notebook_platform": "notebook-al2023-v2"}, "patches: notebook platform", "pass"),
    ],
)
def test_what_the_variables_name_is_looked_up(
    plan: Plan, changes: dict[str, Any], name: str, state: checks.State
) -> None:
    assert one(checks.end_of_patch, asked(plan, **changes), name).state == state


def test_buckets_that_are_not_there_name_the_next_command(plan: Plan, aws: LocalAws) -> None:
    other = replace(plan, target=replace(plan.target, project="other"))
    assert one(checks.state_bucket, other) == Row(
        "state bucket",
        "fail",
        "there is no other-tfstate-123456789012-us-east-1",
        "`make bootstrap ENV=local`",
    )
    before = one(checks.bucket, other)
    assert (before.state, before.remedy) == ("fail", "`make apply STACK=foundation ENV=local`")
    put_parameters(aws, "other/local", bucket="other-gone")
    assert one(checks.bucket, other).found == "other-gone is gone"


def test_a_bucket_in_another_region_fails(plan: Plan, aws: LocalAws) -> None:
    aws.client("s3").create_bucket(
        Bucket="abroad-bucket", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
    )
    put_parameters(aws, "abroad/local", bucket="abroad-bucket")
    row = one(checks.bucket, replace(plan, target=replace(plan.target, project="abroad")))
    assert (row.state, row.found) == ("fail", "abroad-bucket is in eu-west-1")


def test_the_user_s_own_region_may_differ(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    assert one(checks.region, plan).state == "pass"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    row = one(checks.region, plan)
    assert (row.state, row.found) == ("warn", "us-east-1, but your own is eu-west-1")
    shut = replace(plan, target=replace(plan.target, region="ap-east-1"))
    assert one(checks.region, shut).found == "ap-east-1 is not-opted-in"


@pytest.mark.parametrize(
    ("version", "endpoint", "state"),
    [
        ("5.100.0", "http://127.0.0.1:4588", "pass"),
        (None, "http://127.0.0.1:4588", "pass"),
        ("5.100.0", None, "fail"),
        ("6.9.0", None, "fail"),
        ("6.39.1", None, "fail"),
        ("6.40.0", None, "pass"),
        (None, None, "warn"),
    ],
)
def test_the_provider_is_late_enough_for_aws(
    plan: Plan,
    monkeypatch: pytest.MonkeyPatch,
    version: str | None,
    endpoint: str | None,
    state: checks.State,
) -> None:
    monkeypatch.setattr(stack, "provider_version", lambda _: version)
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    if endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    assert one(checks.terraform, plan, "provider").state == state
    unlocked = [row for row in checks.terraform(plan) if row.name == "lock of the provider"]
    assert [row.state for row in unlocked] == ([] if endpoint else ["warn"])


def test_the_model_trained_last_is_looked_at(plan: Plan, aws: LocalAws, archive: Path) -> None:
    place = Archive(BUCKET, open_model(archive).digest, archive)
    publish(place, plan.target)
    latest = json.dumps({"archive_uri": place.uri})
    aws.client("s3").put_object(Bucket=BUCKET, Key="jobs/latest.json", Body=latest.encode())
    for wanted in ("latest", place.uri):
        rows = list(checks.archive(replace(plan, model=wanted)))
        assert [row.state for row in rows] == ["pass", "pass"]


def test_a_damaged_archive_fails(plan: Plan, archive: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "model.tar.gz"
    damaged.write_bytes(archive.read_bytes()[:-100])
    check = Check("archive", checks.archive, is_needed=True)
    for path, reason in ((damaged, "not a sound model"), (tmp_path / "none", "no such file")):
        _, row = look(replace(plan, model=str(path)), [CHECKS[0], check])
        assert row.state == "fail"
        assert reason in row.found


def test_an_archive_in_s3_is_named_as_it_was_asked_for(plan: Plan, aws: LocalAws) -> None:
    aws.client("s3").put_object(Bucket=BUCKET, Key="mine/model.tar.gz", Body=b"<html>")
    address = f"s3://{BUCKET}/mine/model.tar.gz"
    with pytest.raises(KennelError, match=rf"^MODEL={address}: not a sound model: "):
        list(checks.archive(replace(plan, model=address)))


@pytest.mark.parametrize(
    ("kind", "state"),
    [("ml.m5.large", "pass"), ("ml.t2.medium", "fail"), ("ml.z9.nano", "warn")],
)
def test_a_large_network_needs_a_large_machine(
    plan: Plan, archive: Path, tmp_path: Path, kind: str, state: checks.State
) -> None:
    with (tmp_path / "model.onnx").open("wb") as file:
        file.truncate(2**30)
    large = replace(open_model(archive), folder=tmp_path)
    assert checks.memory(large, kind).state == state


def test_what_is_denied_is_a_row_that_names_the_action(
    plan: Plan, aws: LocalAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    denied = ["servicequotas:*", "s3:ListBucket", "ec2:DescribeInstanceTypeOfferings"]
    act_as_looker(aws, monkeypatch, denied)
    rows = {row.name: row for row in look(replace(plan, target=load("local")))}
    assert rows["credentials"].found.endswith("assumed-role/looker/test")
    assert {row.found: row.state for row in rows.values() if row.state != "pass"} == {
        "these credentials may not call servicequotas:ListServiceQuotas": "warn",
        "these credentials may not call servicequotas:GetServiceQuota": "warn",
        "these credentials may not call ec2:DescribeInstanceTypeOfferings": "warn",
        "these credentials may not call s3:ListBucket": "fail",
    }
    assert rows["bucket"].state == rows["state bucket"].state == "fail"
    assert rows["quota of EC2"].remedy.startswith("allow servicequotas:GetServiceQuota")


def act_as_looker(aws: LocalAws, patch: pytest.MonkeyPatch, denied: list[str]) -> None:
    def document(*statements: dict[str, Any]) -> str:
        return json.dumps({"Version": "2012-10-17", "Statement": statements})

    trusted = {"AWS": "arn:aws:iam::123456789012:root"}
    aws.client("iam").create_role(
        RoleName="looker",
        AssumeRolePolicyDocument=document(
            {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": trusted}
        ),
    )
    aws.client("iam").put_role_policy(
        RoleName="looker",
        PolicyName="own",
        PolicyDocument=document(
            {"Effect": "Allow", "Action": "*", "Resource": "*"},
            {"Effect": "Deny", "Action": denied, "Resource": "*"},
        ),
    )
    keys = aws.client("sts").assume_role(RoleArn=ROLE, RoleSessionName="test")["Credentials"]
    patch.setenv("AWS_ACCESS_KEY_ID", keys["AccessKeyId"])
    patch.setenv("AWS_SECRET_ACCESS_KEY", keys["SecretAccessKey"])
    patch.setenv("AWS_SESSION_TOKEN", keys["SessionToken"])


def test_a_check_that_breaks_takes_nothing_from_the_others(plan: Plan) -> None:
    def broken(plan: Plan) -> Iterator[Row]:
        yield Row("first half", "pass", "")
        raise ZeroDivisionError

    credentials, region = CHECKS[0], CHECKS[1]
    rows = look(plan, [credentials, Check("broken", broken), region])
    assert [row.state for row in rows] == ["pass", "fail", "pass"]
    assert "ZeroDivisionError" in rows[1].found


def test_without_credentials_nothing_else_is_asked(
    command: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    code, out, _ = command("--json")
    assert code == 1
    (row,) = json.loads(out)["checks"]
    assert "aws sso login" in row["found"]


@pytest.mark.parametrize(("minutes", "state"), [(12, "warn"), (90, "pass")])
def test_credentials_that_end_soon_are_warned_of(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, minutes: int, state: checks.State
) -> None:
    ends = datetime.now(UTC) + timedelta(minutes=minutes)
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", ends.isoformat())
    assert one(checks.credentials, plan).state == state


STACKS = {
    "serving": [
        (Settings().endpoint_instance_type, r'"instance_type" .*?default     = "(.*?)"'),
        (Settings().endpoint_instances, r"max_capacity         = optional\(number, (\d+)\)"),
        (Settings().warm, r"executions  = optional\(number, (\d+)\)"),
        (Settings().architecture, r'architecture = optional\(string, "(.*?)"\)'),
        (Settings().runtime, r'runtime              = optional\(string, "(.*?)"\)'),
    ],
    "foundation": [
        (
            Settings().ec2_instance_type,
            r'"ec2_trainer" .*? instance_type +?= optional\(string, "(.*?)"\)',
        ),
        (Settings().ec2_volume_gb, r"volume_size_gb +?= optional\(number, (\d+)\)"),
        ("false", r"enable_spot +?= optional\(bool, (.*?)\)"),
        ("true", r'"enable_ec2_trainer" .*?default     = (\w+)'),
        ("true", r'"enable_notebook" .*?default     = (\w+)'),
        (Settings().notebook_instance_type, r'instance_type       = optional\(string, "(.*?)"\)'),
    ],
}


@pytest.mark.parametrize(
    ("name", "default", "pattern"),
    [(name, *row) for name, rows in STACKS.items() for row in rows],
)
def test_defaults_are_the_stacks_own(name: str, default: Any, pattern: str) -> None:
    source = (ROOT / "terraform/stacks" / name / "variables.tf").read_text()
    found = re.search(pattern, source, re.DOTALL)
    assert found
    assert found[1] == str(default)


def test_variables_are_read_as_terraform_reads_them(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "ENVIRONMENTS", tmp_path)
    (tmp_path / "local.tfvars").write_text('environment = "local"\n')
    assert settings.read(target) == Settings()
    (tmp_path / "local.foundation.tfvars").write_text(
        'enable_notebook = false # none\nec2_trainer = {\n  instance_type = "g6.xlarge"\n'
        "  enable_spot = true\n}\n"
    )
    (tmp_path / "local.serving.tfvars").write_text(
        'scaling = { max_capacity = 9 }\nimage_uri = null\ninstance_type = "ml.c5.large"\n'
        "lambda = {\n  provisioned_concurrency = { executions = 3, autoscaling = { max = 7 } }\n"
        '  reserved_concurrency = 20, runtime = "python3.14", architecture = "x86_64"\n}\n'
    )
    assert settings.read(target) == Settings(
        endpoint_instance_type="ml.c5.large",
        endpoint_instances=9,
        architecture="x86_64",
        runtime="python3.14",
        warm=7,
        reserved=20,
        ec2_instance_type="g6.xlarge",
        is_spot=True,
        notebook_instance_type=None,
    )
    (tmp_path / "local.serving.tfvars").write_text("scaling = { max_capacity\n")
    with pytest.raises(UsageError, match=r"local\.serving\.tfvars is not Terraform's syntax"):
        settings.read(target)
