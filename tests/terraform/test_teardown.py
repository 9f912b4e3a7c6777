"""`destroy` of a bucket and a registry that Terraform would empty: data stay unless told to go."""

import json
from types import SimpleNamespace
from typing import Any

import boto3
import pytest

from terraform.cli import objects, packages, teardown
from tests.terraform.checkout import SHARED, Checkout, done, make_checkout
from tests.terraform.conftest import LocalAws
from trainer.errors import KennelError
from trainer.target import Target, load

BUCKET, REPOSITORY, REGION = "kept-data", "kept-serving", "us-west-2"
EMPTIED = "kept-emptied"
FOUNDATION = (
    SHARED
    + f"""
provider "aws" {{
  region            = var.region
  s3_use_path_style = true
}}

resource "aws_s3_bucket" "this" {{
  bucket        = "{BUCKET}"
  force_destroy = true
}}

resource "aws_s3_bucket_versioning" "this" {{
  bucket = aws_s3_bucket.this.id

  versioning_configuration {{ status = "Enabled" }}
}}

resource "aws_ecr_repository" "this" {{
  name = "{REPOSITORY}"
}}

resource "aws_s3_bucket" "emptied" {{
  bucket = "{EMPTIED}"
}}

resource "aws_s3_bucket_versioning" "emptied" {{
  bucket = aws_s3_bucket.emptied.id

  versioning_configuration {{ status = "Enabled" }}
}}

resource "aws_ssm_parameter" "this" {{
  name  = "/kennel/kept/repository_url"
  type  = "String"
  value = aws_ecr_repository.this.repository_url
}}
"""
)


@pytest.fixture(scope="module")
def checkout(
    localaws: LocalAws, attached: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Checkout:
    """A foundation that holds two objects, one of them twice, and an image.

    Its other bucket holds a delete marker only, which keeps a bucket from going, too.
    """
    provider = {name: attached[name] for name in attached if name.startswith("TF_")}
    made = make_checkout(
        tmp_path_factory.mktemp("kept") / "checkout", {**localaws.environment, **provider}
    )
    environments = made.folder / "terraform/environments"
    (environments / "kept.tfvars").write_text(f'environment = "kept"\nregion = "{REGION}"\n')
    (environments / "kept.s3.tfbackend").write_text((environments / "dev.s3.tfbackend").read_text())
    (made.folder / "terraform/stacks/foundation/main.tf").write_text(FOUNDATION)
    done(made.run("bootstrap", "--env", "kept"))
    done(made.run("apply", "foundation", "--env", "kept", "--auto-approve"))
    s3 = client(localaws, "s3")
    for body in (b"old", b"newer"):
        s3.put_object(Bucket=BUCKET, Key="data/photo.jpg", Body=body)
    for key in ("jobs/1/output/model.tar.gz", "models/0123456789ab/model.tar.gz"):
        s3.put_object(Bucket=BUCKET, Key=key, Body=b"the same model")
    deleted = s3.put_object(Bucket=EMPTIED, Key="data/photo.jpg", Body=b"deleted")
    s3.delete_object(Bucket=EMPTIED, Key="data/photo.jpg")
    s3.delete_object(Bucket=EMPTIED, Key="data/photo.jpg", VersionId=deleted["VersionId"])
    client(localaws, "ecr").put_image(
        repositoryName=REPOSITORY,
        imageTag="one",
        imageManifest=json.dumps({"schemaVersion": 2}),
        imageManifestMediaType="application/vnd.docker.distribution.manifest.v2+json",
    )
    return made


def client(localaws: LocalAws, service: str) -> Any:
    return boto3.client(
        service,
        endpoint_url=localaws.endpoint,
        aws_access_key_id="test",
        aws_secret_access_key="test",
        region_name=REGION,
    )


def destroy(checkout: Checkout, *arguments: str) -> Any:
    return checkout.run("destroy", "foundation", "--env", "kept", "--auto-approve", *arguments)


def test_targets_of_one_s_own_do_not_take_data(checkout: Checkout, localaws: LocalAws) -> None:
    refused = destroy(checkout, "--", "-target=aws_s3_bucket.this")
    assert refused.returncode == 1
    assert "error: aws_s3_bucket.this would go with s3://kept-data (3 objects" in refused.stderr
    assert "pass --delete-data" in refused.stderr
    assert client(localaws, "s3").list_objects_v2(Bucket=BUCKET)["KeyCount"] == 3


@pytest.mark.parametrize("approval", ["--auto-approve", None])
def test_no_apply_takes_data(checkout: Checkout, localaws: LocalAws, approval: str | None) -> None:
    given = [approval] if approval else []
    run = checkout.run if approval else checkout.asked
    for address, held in (
        ("aws_s3_bucket.this", "s3://kept-data (3 objects"),
        ("aws_ecr_repository.this", f"1 image of {REPOSITORY}"),
    ):
        refused = run(
            *("apply", "foundation", "--env", "kept", *given, "--", f"-replace={address}")
        )
        assert refused.returncode == 1
        assert f"error: {address} would go with {held}" in refused.stderr
    assert client(localaws, "s3").list_objects_v2(Bucket=BUCKET)["KeyCount"] == 3


def test_data_stay_whatever_force_destroy_says(checkout: Checkout, localaws: LocalAws) -> None:
    finished = done(destroy(checkout))
    said = finished.stderr
    # It names targets by itself, which is not for its user to hear.
    assert "3 destroyed." in finished.stdout
    assert "arget" not in finished.stdout
    assert (
        f"kept: 1 image of {REPOSITORY}, s3://{BUCKET} (3 objects, 1 old version, 36 bytes, "
        "1 model); DELETE_DATA=1 removes that, too\n"
    ) in said
    again = "`make destroy STACK=foundation DELETE_DATA=1 ENV=kept`"
    assert said.endswith(f"\nnext: {again} removes what was kept, too\n")
    assert said.count("make destroy") == 1
    s3 = client(localaws, "s3")
    assert len(s3.list_object_versions(Bucket=BUCKET)["Versions"]) == 4
    assert s3.get_bucket_versioning(Bucket=BUCKET)["Status"] == "Enabled"
    assert len(client(localaws, "ecr").list_images(repositoryName=REPOSITORY)["imageIds"]) == 1
    assert EMPTIED not in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]
    # All else is gone; the next apply goes on with what is in the state.
    states = f"kennel-tfstate-123456789012-{REGION}"
    state = s3.get_object(Bucket=states, Key="kept/foundation.tfstate")["Body"].read()
    assert {resource["type"] for resource in json.loads(state)["resources"]} == {
        "aws_ecr_repository",
        "aws_s3_bucket",
        "aws_s3_bucket_versioning",
    }


def test_they_go_where_that_is_asked_for(checkout: Checkout, localaws: LocalAws) -> None:
    said = done(destroy(checkout, "--delete-data")).stderr
    assert "destroying foundation (kept) with 1 image of" in said
    assert "kept:" not in said
    assert "-m terraform.cli bootstrap --delete --env kept` removes it" in said
    assert BUCKET not in [b["Name"] for b in client(localaws, "s3").list_buckets()["Buckets"]]
    assert client(localaws, "ecr").describe_repositories()["repositories"] == []


@pytest.fixture
def target(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> Target:
    for name, value in checkout.environ.items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    return load("dev")


def test_all_images_go_lists_before_what_they_name(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a call does not reach as far as the list."""
    monkeypatch.setattr(teardown, "_ECR_BATCH", 2)
    ecr, name = target.client("ecr"), "kept-lists"
    ecr.create_repository(repositoryName=name)

    def push(kind: str, **manifest: Any) -> str:
        text = json.dumps({"schemaVersion": 2, "mediaType": kind, **manifest})
        pushed = ecr.put_image(repositoryName=name, imageManifest=text)
        return str(pushed["image"]["imageId"]["imageDigest"])

    image, index = (f"application/vnd.oci.image.{kind}.v1+json" for kind in ("manifest", "index"))
    digests = [push(image, layers=[], number=number) for number in range(3)]
    push(index, manifests=[{"digest": digest} for digest in digests])
    teardown._delete_images(target, name)
    assert not ecr.describe_images(repositoryName=name)["imageDetails"]
    ecr.delete_repository(repositoryName=name)


def test_an_image_that_stays_is_told(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {"imageIds": [], "failures": [{"failureReason": "kept for a reason"}]}
    monkeypatch.setattr(objects, "images", lambda *_: ["stuck"])
    client = SimpleNamespace(batch_delete_image=lambda **_: kept)
    monkeypatch.setattr(Target, "client", lambda *_: client)
    with pytest.raises(KennelError, match="stays: kept for a reason"):
        teardown._delete_images(target, REPOSITORY)


def test_a_security_group_that_a_machine_uses_is_not_deleted(target: Target) -> None:
    ec2 = target.client("ec2")
    (network,) = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    group = ec2.create_security_group(
        GroupName="kept-trainer", Description="d", VpcId=network["VpcId"]
    )["GroupId"]
    doomed = [{"type": "aws_security_group", "change": {"before": {"id": group}}}]
    teardown._require_idle(target, doomed)
    (image,) = ec2.describe_images(MaxResults=5)["Images"][:1]
    (instance,) = ec2.run_instances(
        ImageId=image["ImageId"],
        InstanceType="g5.xlarge",
        MinCount=1,
        MaxCount=1,
        SecurityGroupIds=[group],
    )["Instances"]
    with pytest.raises(KennelError) as refused:
        teardown._require_idle(target, doomed)
    assert f"{group} is in use by {instance['InstanceId']}, nothing was changed" in str(
        refused.value
    )
    ec2.terminate_instances(InstanceIds=[instance["InstanceId"]])
    teardown._require_idle(target, doomed)


def test_a_package_that_comes_or_stays_meanwhile_is_waited_for(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SageMaker keeps a group while a package of it is listed."""
    listed, deleted = [["one"], ["one", "two"], []], []

    class ConflictError(Exception):
        pass

    class SageMaker:
        exceptions = SimpleNamespace(ConflictException=ConflictError)

        def delete_model_package(self, ModelPackageName: str) -> None:
            deleted.append(ModelPackageName)

        def delete_model_package_group(self, ModelPackageGroupName: str) -> None:
            if listed:
                raise ConflictError
            deleted.append(ModelPackageGroupName)

    def found(_: Target) -> list[packages.Package]:
        return [packages.Package(arn, "", "") for arn in listed.pop(0)]

    monkeypatch.setattr(Target, "client", lambda *_: SageMaker())
    monkeypatch.setattr(packages, "_has_group", lambda *_: True)
    monkeypatch.setattr(packages, "packages", found)
    monkeypatch.setattr(packages, "_POLL_SECONDS", 0)
    packages.delete_all(target)
    assert deleted == ["one", "two", target.prefix]
    listed[:] = [["three"], ["three"]]
    with pytest.raises(ConflictError):
        packages.delete_all(target, seconds=-1)


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        ((0, 0, 0, 0), "0 objects, 0 bytes, 0 models"),
        ((1, 0, 1, 1), "1 object, 1 byte, 1 model"),
        ((1520, 81, 1_100_000_000, 3), "1,520 objects, 81 old versions, 1.1 GB, 3 models"),
        ((0, 2, 2500, 0), "0 objects, 2 old versions, 2.5 kB, 0 models"),
    ],
)
def test_what_a_bucket_holds_in_words(contents: tuple[int, int, int, int], said: str) -> None:
    found = objects.Contents(*contents)
    assert str(found) == said
    assert bool(found) is any(contents[:2])
