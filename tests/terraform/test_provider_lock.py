"""The provider that an environment is locked to, with real Terraform."""

import os
import re
from pathlib import Path

import pytest

from terraform.cli import binary
from terraform.cli.provider import mirrored_releases, usual_folders
from tests.terraform.checkout import ROOT, SHARED, Checkout, done, make_checkout
from tests.terraform.conftest import LocalAws

STACK = (
    (ROOT / "terraform/versions.tf").read_text()
    + SHARED
    + """
provider "aws" {
  region = var.region
}

resource "aws_cloudwatch_log_group" "this" {
  name = "/locked"
}
"""
)
LOCK = ("lock", "--env", "dev")
OUTPUT = ("output", "foundation", "--env")
"""Which initializes a stack and checks its provider, and does no more."""


@pytest.fixture
def checkout(localaws: LocalAws, provider: dict[str, str], tmp_path: Path) -> Checkout:
    """A checkout with two environments, on a machine with a mirror or with the registry."""
    platform = binary.resolve().platform
    mirrors = [path for path in usual_folders(os.environ) if mirrored_releases(path, platform)]
    mirror = {"TF_PLUGIN_MIRROR": str(mirrors[0])} if mirrors else {}
    made = make_checkout(tmp_path / "checkout", {**localaws.environment, **mirror})
    environments = made.folder / "terraform/environments"
    for name in ("tfvars", "s3.tfbackend"):
        text = (environments / f"dev.{name}").read_text()
        (environments / f"two.{name}").write_text(text.replace('"dev"', '"two"'))
    (made.folder / "terraform/stacks/foundation/main.tf").write_text(STACK)
    done(made.run("bootstrap", "--env", "dev"))
    return made


def test_a_locked_environment_takes_the_provider_of_its_lock_alone(checkout: Checkout) -> None:
    own = checkout.folder / "terraform/environments/dev.lock.hcl"
    taken = checkout.folder / "terraform/stacks/foundation/.terraform.lock.hcl"
    missing = checkout.run(*LOCK, "--check")
    assert missing.returncode == 1
    told = f"there is no {own}, so that the newest provider would be taken unseen: "
    assert f"{told}`.venv/bin/python -m terraform.cli lock --env dev` makes it" in missing.stderr

    said = done(checkout.run(*LOCK, "--platform", binary.resolve().platform)).stdout
    assert re.fullmatch(rf"{re.escape(str(own))}: \d+\.\d+\.\d+\n", said)
    assert done(checkout.run(*LOCK, "--check")).stdout == said
    done(checkout.run(*OUTPUT, "dev"))
    assert taken.read_text() == own.read_text()

    # A package that is not the one that was reviewed.
    right = own.read_text()
    own.write_text(re.sub(r'"(h1|zh):.', r'"\1:0', right))
    refused = checkout.run(*OUTPUT, "dev")
    assert refused.returncode == 1
    assert f"(remove {own} if it asks" in refused.stderr
    own.write_text(right)
    # What cannot be had leaves the former lock.
    refused = checkout.run(*LOCK, "--platform", "plan9_386")
    assert refused.returncode == 1
    assert "Terraform could not have hashicorp/aws for plan9_386; see above" in refused.stderr
    assert own.read_text() == right
    # An environment without a lock chooses for itself, whatever another one has left there.
    taken.write_text(right := f"# of another\n{right}")
    own.write_text(right)
    done(checkout.run(*OUTPUT, "two"))
    assert not taken.read_text().startswith("# of another")
    own.write_text("nothing")
    damaged = checkout.run(*LOCK, "--check")
    assert f"{own} locks no hashicorp/aws" in damaged.stderr
