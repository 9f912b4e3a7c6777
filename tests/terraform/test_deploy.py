"""`deploy`, `verify`, `rollback` and `destroy`, with a stack that releases models in localaws."""

import json
import signal
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest

from inference.archive import describe_files, open_model, write_archive
from terraform.cli import deploy as release
from terraform.cli import model, packages, smoke, stack
from terraform.cli.deploy import find_latest
from terraform.cli.model import Archive
from tests.archives import make_archive, write_manifest
from tests.terraform.checkout import Checkout, done
from tests.terraform.conftest import LocalAws
from tests.terraform.service import BUCKET, FUNCTION, make_service
from trainer.errors import KennelError
from trainer.target import Target, load

GROUP = "kennel-dev"
LATEST = "jobs/latest.json"
JOB_ARCHIVE = f"s3://{BUCKET}/jobs/kennel-dev-1/output/model.tar.gz"


@pytest.fixture(scope="module")
def checkout(aws: LocalAws, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """Ready for a first deployment; the tests share it, in order."""
    made = make_service(tmp_path_factory.mktemp("deploy") / "checkout", aws)
    done(made.run("apply", "foundation", "--env", "dev", "--auto-approve"))
    return made


@pytest.fixture(scope="module")
def digests(archives: dict[str, Path]) -> dict[str, str]:
    return {name: open_model(path).digest for name, path in archives.items()}


def deploy(checkout: Checkout, *arguments: str, **changes: str) -> Any:
    given = ("deploy", "--env", "dev", "--auto-approve", "--json", *arguments)
    return checkout.run(*given, **changes)


def registered(aws: LocalAws) -> list[dict[str, Any]]:
    """All packages, the oldest first, with all that the registry knows of them."""
    client = aws.client("sagemaker")
    listed = client.list_model_packages(ModelPackageGroupName=GROUP, SortBy="CreationTime")
    return [
        client.describe_model_package(ModelPackageName=summary["ModelPackageArn"])
        for summary in listed["ModelPackageSummaryList"]
    ]


def statuses(aws: LocalAws) -> dict[str, str]:
    return {
        package["CustomerMetadataProperties"]["digest"]: package["ModelApprovalStatus"]
        for package in registered(aws)
    }


def live(aws: LocalAws) -> str:
    name: str = aws.client("sagemaker").describe_endpoint(EndpointName=GROUP)["EndpointConfigName"]
    return name


def test_without_a_deployment_there_is_nothing_to_verify_or_to_go_back_to(
    checkout: Checkout,
) -> None:
    for command in ("verify", "rollback"):
        refused = checkout.run(command, "--env", "dev")
        assert refused.returncode == 2
        assert refused.stderr.splitlines()[-1].startswith("error: no model has been in service")


def test_nothing_trained_is_nothing_to_deploy(checkout: Checkout) -> None:
    refused = deploy(checkout)
    assert refused.returncode == 2
    assert "error: MODEL=latest: no job has trained a model for ENV=dev yet" in refused.stderr
    assert "`make train WHERE=sagemaker ENV=dev" in refused.stderr


def test_a_model_is_registered_released_checked_and_approved(
    checkout: Checkout, aws: LocalAws, archives: dict[str, Path], digests: dict[str, str]
) -> None:
    finished = done(deploy(checkout, "--model", str(archives["one"])))
    report = json.loads(finished.stdout)
    assert report["passed"] is True
    assert report["digest"] == digests["one"]
    assert [row["name"] for row in report["checks"]] == [
        "endpoint",
        "configuration",
        "function",
        "model",
        "smoke image",
        "alarms",
        "warm environments",
    ]
    (package,) = registered(aws)
    assert package["ModelApprovalStatus"] == "Approved"
    assert package["ApprovalDescription"] == "make verify passed"
    properties = package["CustomerMetadataProperties"]
    assert properties == {
        "digest": digests["one"],
        "git_commit": "0" * 40,
        "dataset_fingerprint": "0" * 64,
        "backbone": "tiny_net",
        "precision": "fp32",
    }
    (container,) = package["InferenceSpecification"]["Containers"]
    folder = f"models/{digests['one'][:12]}"
    assert container["ModelDataUrl"] == f"s3://{BUCKET}/{folder}/model.tar.gz"
    metrics = package["ModelMetrics"]["ModelQuality"]["Statistics"]["S3Uri"]
    assert metrics == f"s3://{BUCKET}/{folder}/metrics.json"
    stored = aws.client("s3").list_objects_v2(Bucket=BUCKET, Prefix=folder)["Contents"]
    assert {item["Key"].rpartition("/")[2] for item in stored} == {
        "metrics.json",
        "model.tar.gz",
        "smoke.json",
    }


def test_there_is_nothing_to_go_back_to_from_the_first_model(
    checkout: Checkout,
) -> None:
    refused = checkout.run("rollback", "--env", "dev", "--auto-approve")
    assert refused.returncode == 2
    assert "error: there is no former model" in refused.stderr


def test_what_was_trained_last_is_deployed_with_its_lineage(
    checkout: Checkout, aws: LocalAws, archives: dict[str, Path], digests: dict[str, str]
) -> None:
    s3 = aws.client("s3")
    s3.upload_file(str(archives["two"]), BUCKET, JOB_ARCHIVE.split("/", 3)[3])
    told = {"job": "kennel-dev-1", "kind": "ec2", "archive_uri": JOB_ARCHIVE}
    s3.put_object(Bucket=BUCKET, Key=LATEST, Body=json.dumps(told))
    done(deploy(checkout, "--model", "latest"))
    # Again: nothing to do, and no other package.
    again = done(deploy(checkout, "--model", "latest"))
    assert "No changes." in again.stderr
    assert statuses(aws) == {digests["one"]: "Approved", digests["two"]: "Approved"}
    package = registered(aws)[-1]
    assert package["SourceUri"] == JOB_ARCHIVE
    assert package["CustomerMetadataProperties"]["training_job"] == "kennel-dev-1"
    # No training job of SageMaker.
    assert "GeneratedBy" not in package["MetadataProperties"]


def test_where_no_training_is_known_the_newest_approved_model_is_the_latest(
    checkout: Checkout,
    aws: LocalAws,
    digests: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in checkout.environ.items():
        monkeypatch.setenv(name, value)
    s3, target = aws.client("s3"), load("dev")
    assert find_latest(target) == JOB_ARCHIVE
    s3.put_object(Bucket=BUCKET, Key=LATEST, Body=b"half of it")
    with pytest.raises(KennelError, match="does not say which archive was trained last"):
        find_latest(target)
    s3.delete_object(Bucket=BUCKET, Key=LATEST)
    assert find_latest(target) == f"s3://{BUCKET}/models/{digests['two'][:12]}/model.tar.gz"


def test_a_release_that_sagemaker_rolls_back_is_rejected_and_the_way_back_is_named(
    checkout: Checkout, aws: LocalAws, archives: dict[str, Path], digests: dict[str, str]
) -> None:
    third, digest = archives["three"], digests["three"]
    # As an alarm would in the middle of the release.
    refused = deploy(checkout, "--model", str(third), KENNEL_ROLL_BACK=live(aws))
    assert refused.returncode == 1
    last = refused.stderr.splitlines()[-1]
    assert last.startswith(f"error: the model {digest[:12]} is not in service: SageMaker rolled")
    assert "`make rollback ENV=dev`" in last
    assert statuses(aws)[digest] == "Rejected"

    verified = checkout.run("verify", "--env", "dev", "--json")
    assert verified.returncode == 1
    report = json.loads(verified.stdout)
    assert [row["name"] for row in report["checks"] if not row["passed"]] == ["configuration"]
    assert "rolled the release back" in verified.stderr.splitlines()[-1]

    back = done(checkout.run("rollback", "--env", "dev", "--auto-approve", "--json"))
    assert json.loads(back.stdout)["digest"] == digests["two"]
    assert statuses(aws)[digests["two"]] == "Approved"


def test_a_model_that_answers_nothing_never_leaves_this_machine(
    checkout: Checkout, aws: LocalAws, archives: dict[str, Path], tmp_path: Path
) -> None:
    before = len(registered(aws))
    broken = damaged(archives["one"], tmp_path)
    refused = deploy(checkout, "--model", str(broken))
    assert refused.returncode == 1
    assert "answers nothing on this machine" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert len(registered(aws)) == before
    key = f"models/{open_model(broken).digest[:12]}/"
    assert aws.client("s3").list_objects_v2(Bucket=BUCKET, Prefix=key)["KeyCount"] == 0


def test_a_broken_model_that_is_applied_all_the_same_leaves_the_good_one_in_service(
    checkout: Checkout, aws: LocalAws, archives: dict[str, Path], tmp_path: Path
) -> None:
    good = live(aws)
    broken = damaged(archives["one"], tmp_path)
    failed = checkout.run(
        *("apply", "serving", "--env", "dev", "--auto-approve", "--model", str(broken))
    )
    assert failed.returncode == 1
    assert live(aws) == good
    verified = checkout.run("verify", "--env", "dev")
    assert verified.returncode == 1
    assert "FAIL" in verified.stdout
    done(checkout.run("rollback", "--env", "dev", "--auto-approve"))
    assert live(aws) == good


def test_a_rollback_goes_to_the_model_before_and_rejects_the_one_it_leaves(
    checkout: Checkout, aws: LocalAws, digests: dict[str, str]
) -> None:
    done(checkout.run("rollback", "--env", "dev", "--auto-approve"))
    assert live(aws) == f"kennel-dev-{digests['one'][:12]}"
    assert statuses(aws)[digests["one"]] == "Approved"
    assert statuses(aws)[digests["two"]] == "Rejected"


def test_a_second_rollback_never_goes_forward_to_what_was_left(
    checkout: Checkout, aws: LocalAws, digests: dict[str, str]
) -> None:
    before = statuses(aws)
    refused = checkout.run("rollback", "--env", "dev", "--auto-approve")
    assert refused.returncode == 2
    first = digests["one"][:12]
    assert f"error: there is no former model to go back to: {first} is the first" in refused.stderr
    assert live(aws) == f"kennel-dev-{first}"
    assert statuses(aws) == before


def test_other_labels_are_refused_unless_they_are_meant(
    checkout: Checkout, aws: LocalAws, digests: dict[str, str], tmp_path: Path
) -> None:
    other = make_archive(tmp_path / "other", classes=("Red", "Pink", "Rose", "Blue"))
    before = statuses(aws)
    refused = deploy(checkout, "--model", str(other))
    assert refused.returncode == 2
    name, serves = open_model(other).digest[:12], digests["one"][:12]
    assert refused.stderr.splitlines()[-1] == (
        f"error: the model {name} has other labels than {serves}, which serves: 4 labels, not 3; "
        "new: Pink, Rose; gone: Green; callers would get other answers: name another MODEL, or "
        "pass --new-labels (`make`: NEW_LABELS=1) if that is meant"
    )
    # As far as the question, before which nothing is brought to AWS.
    asked = checkout.run("deploy", "--env", "dev", "--model", str(other), "--new-labels")
    assert asked.returncode == 2
    assert f"warning: the model {name} has other labels" in asked.stderr
    assert asked.stderr.endswith("pass --auto-approve (`make`: YES=1)\n")
    assert statuses(aws) == before
    place = f"models/{name}/"
    assert aws.client("s3").list_objects_v2(Bucket=BUCKET, Prefix=place)["KeyCount"] == 0


def test_destroy_says_what_it_keeps_and_removes_it_when_asked(
    checkout: Checkout, aws: LocalAws, digests: dict[str, str]
) -> None:
    s3, logs = aws.client("s3"), aws.client("logs")
    group = f"/aws/lambda/{FUNCTION}"
    s3.put_object(Bucket=BUCKET, Key="data/digits/part", Body=b"kept")
    for name in (group, "/aws/sagemaker/TrainingJobs"):
        with suppress(logs.exceptions.ResourceAlreadyExistsException):
            logs.create_log_group(logGroupName=name)
    serving = ("destroy", "serving", "--env", "dev", "--auto-approve")
    kept = done(checkout.run(*serving)).stderr
    assert f"1 objects in {BUCKET}/jobs/ (" in kept
    assert "3 model packages" in kept
    assert "DELETE_DATA=1" in kept
    assert f"deleted the log group {group}" in kept
    found = logs.describe_log_groups()["logGroups"]
    names = {entry["logGroupName"] for entry in found}
    assert group not in names
    # Other environments write there, too.
    assert "/aws/sagemaker/TrainingJobs" in names

    # What was trained last is not what has served: that is said before anything is done.
    told = {"job": "kennel-dev-1", "archive_uri": JOB_ARCHIVE, "finished": "2026-01-02T03:04:05"}
    s3.put_object(Bucket=BUCKET, Key=LATEST, Body=json.dumps(told))
    asked = checkout.run("deploy", "--env", "dev")
    first = digests["one"][:12]
    assert "3 classes: trained last, 2026-01-02T03:04:05, by kennel-dev-1\n" in asked.stderr
    assert f"another one than {first}, which served until 20" in asked.stderr
    assert f"`make deploy MODEL=s3://{BUCKET}/models/{first}/model.tar.gz ENV=dev`" in asked.stderr

    done(checkout.run(*serving, "--delete-data"))
    left = s3.list_object_versions(Bucket=BUCKET)["Versions"]
    assert [item["Key"] for item in left] == ["data/digits/part"]
    assert aws.client("sagemaker").list_model_package_groups()["ModelPackageGroupSummaryList"] == []


def damaged(archive: Path, folder: Path) -> Path:
    """A model whose files are all what its manifest says, but whose network does not run."""
    opened = open_model(archive)
    made = make_archive(folder / "broken", classes=opened.labels).parent
    network = onnx.load(made / "model/model.onnx")
    del network.graph.node[-1]
    (made / "model/model.onnx").write_bytes(network.SerializeToString())
    write_manifest(made / "model", files=describe_files(made / "model"))
    write_archive(made / "model", made / "model.tar.gz")
    return made / "model.tar.gz"


def test_the_content_types_are_those_that_the_server_takes() -> None:
    from inference.contract import check_content_type

    for content_type in packages.CONTENT_TYPES:
        check_content_type(content_type)


def test_a_release_that_ctrl_c_left_alone_rejects_no_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """SageMaker goes on with it, and the command that is named follows it."""
    digest = "a" * 64
    opened = SimpleNamespace(digest=digest, labels=("a", "b"))
    monkeypatch.setattr(model, "locate", lambda *_: Archive("bucket", digest))
    monkeypatch.setattr(model, "fetch", lambda *_: tmp_path)
    monkeypatch.setattr(model, "opened", lambda *_: opened)
    monkeypatch.setattr(smoke, "make", lambda *_: None)
    monkeypatch.setattr(packages, "image", lambda *_: None)
    monkeypatch.setattr(release, "_compare", lambda *_: None)
    serving = stack.Stack("serving", Target("kennel", "dev", "us-east-1"), tmp_path)

    def stopped(*_: object) -> int:
        serving.signals.append(signal.SIGINT)
        return 1

    monkeypatch.setattr(stack, "release", stopped)
    with pytest.raises(KennelError, match=f"release of the model {digest[:12]} was not followed"):
        release.deploy(serving, "model.tar.gz", (), approved=True, new_labels=False)
