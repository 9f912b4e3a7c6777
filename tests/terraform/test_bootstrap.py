"""The state bucket: made safely, made again without harm, removed only when nothing needs it."""

import json
from typing import Any

import boto3
import pytest

from localaws.loopback import LoopbackServer, Requests
from tests.terraform.checkout import Checkout, make_checkout
from tests.terraform.conftest import LocalAws

REGIONS = ("us-east-1", "eu-central-1")


@pytest.fixture(scope="module")
def checkout(localaws: LocalAws, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """With an environment for each of `REGIONS`, of another project than other tests use."""
    made = make_checkout(tmp_path_factory.mktemp("bootstrap") / "checkout", localaws.environment)
    for number, region in enumerate(REGIONS):
        (made.folder / f"terraform/environments/env{number}.tfvars").write_text(
            f'environment = "env{number}"\nproject = "bootstrap"\nregion = "{region}"\n'
        )
    return made


def client(localaws: LocalAws, region: str) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=localaws.endpoint,
        aws_access_key_id="test",
        aws_secret_access_key="test",
        region_name=region,
    )


def done(finished: Any) -> str:
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


@pytest.mark.parametrize("number", range(len(REGIONS)))
def test_the_bucket_is_private_versioned_encrypted_and_tls_only(
    localaws: LocalAws, checkout: Checkout, number: int
) -> None:
    region = REGIONS[number]
    bucket = f"bootstrap-tfstate-123456789012-{region}"
    said = done(checkout.run("bootstrap", "--env", f"env{number}"))
    assert said == f"{bucket} made\nnext: make apply STACK=foundation ENV=env{number}\n"
    by_make = done(checkout.run("bootstrap", "--env", f"env{number}", MAKELEVEL="0", OUT="my out"))
    assert f"next: make apply STACK=foundation ENV=env{number} OUT='my out'" in by_make
    s3 = client(localaws, region)
    where = s3.get_bucket_location(Bucket=bucket)["LocationConstraint"]
    assert where == (None if region == "us-east-1" else region)
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    access = s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
    assert len(access) == 4
    assert all(access.values())
    (ownership,) = s3.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"]["Rules"]
    assert ownership["ObjectOwnership"] == "BucketOwnerEnforced"
    encryption = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]
    (rule,) = encryption["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    (rule,) = s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    assert rule["NoncurrentVersionExpiration"] == {"NoncurrentDays": 90}
    assert "Expiration" not in rule
    policy = json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"])
    assert {
        (statement["Effect"], statement["Principal"], json.dumps(statement["Condition"]))
        for statement in policy["Statement"]
    } == {
        ("Deny", "*", '{"Bool": {"aws:SecureTransport": "false"}}'),
        ("Deny", "*", '{"NumericLessThan": {"s3:TlsVersion": "1.2"}}'),
    }
    assert all(
        statement["Resource"] == [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
        for statement in policy["Statement"]
    )


def test_a_second_time_only_sets_right_what_was_changed(
    localaws: LocalAws, checkout: Checkout
) -> None:
    s3 = client(localaws, REGIONS[0])
    bucket = f"bootstrap-tfstate-123456789012-{REGIONS[0]}"
    done(checkout.run("bootstrap", "--env", "env0"))
    s3.put_object(Bucket=bucket, Key="env0/foundation.tfstate", Body=b'{"resources": []}')
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    said = done(checkout.run("bootstrap", "--env", "env0"))
    assert said.startswith(f"{bucket} is there; its settings are set again\n")
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    kept = s3.get_object(Bucket=bucket, Key="env0/foundation.tfstate")["Body"].read()
    assert kept == b'{"resources": []}'


@pytest.mark.parametrize("state", [b'{"resources": [{"type": "aws_s3_bucket"}]}', b"no state"])
def test_a_state_that_holds_something_is_never_deleted(
    localaws: LocalAws, checkout: Checkout, state: bytes
) -> None:
    s3 = client(localaws, REGIONS[0])
    bucket = f"bootstrap-tfstate-123456789012-{REGIONS[0]}"
    done(checkout.run("bootstrap", "--env", "env0"))
    s3.put_object(Bucket=bucket, Key="env0/serving.tfstate", Body=state)
    refused = checkout.run("bootstrap", "--env", "env0", "--delete", "--auto-approve")
    assert refused.returncode == 1
    assert "`make destroy STACK=serving ENV=env0` first" in refused.stderr
    assert s3.get_object(Bucket=bucket, Key="env0/serving.tfstate")["Body"].read() == state


def test_an_empty_one_is_deleted_with_all_versions(localaws: LocalAws, checkout: Checkout) -> None:
    s3 = client(localaws, REGIONS[0])
    bucket = f"bootstrap-tfstate-123456789012-{REGIONS[0]}"
    done(checkout.run("bootstrap", "--env", "env0"))
    for stack in ("foundation", "serving"):
        for serial in range(2):
            body = json.dumps({"serial": serial, "resources": []}).encode()
            s3.put_object(Bucket=bucket, Key=f"env0/{stack}.tfstate", Body=body)
    s3.delete_object(Bucket=bucket, Key="env0/serving.tfstate")
    asked = checkout.run("bootstrap", "--env", "env0", "--delete")
    assert asked.returncode == 2
    assert "pass --auto-approve" in asked.stderr
    said = done(checkout.run("bootstrap", "--env", "env0", "--delete", "--auto-approve"))
    assert said == f"{bucket} deleted\n"
    assert bucket not in [entry["Name"] for entry in s3.list_buckets()["Buckets"]]
    again = done(checkout.run("bootstrap", "--env", "env0", "--delete", "--auto-approve"))
    assert again == f"{bucket} is not there\n"


class Somebody(Requests):
    """S3 as it answers for another account's bucket, which localaws' does not."""

    def do_HEAD(self) -> None:
        self.answer(403, b"", {})


def test_somebody_else_s_bucket_is_refused(checkout: Checkout) -> None:
    with LoopbackServer(Somebody) as server:
        refused = checkout.run(
            "bootstrap", "--env", "env0", AWS_ENDPOINT_URL_S3=f"http://{server.address}"
        )
    assert refused.returncode == 1
    assert "somebody else owns the name" in refused.stderr
