"""Terraform killed in the middle of an apply, with the real provider: apply again works."""

import shlex
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from terraform.cli import adopt, stack
from tests.localaws.conftest import SECONDS
from tests.terraform.checkout import SHARED, Checkout, make_checkout
from tests.terraform.conftest import LocalAws
from trainer.target import Target

STACK = (
    SHARED
    + """
variable "wait_s" {
  type    = number
  default = 0
}

provider "aws" {
  region = var.region

  default_tags {
    tags = { environment = var.environment }
  }
}

resource "aws_cloudwatch_log_group" "this" {
  name = "/faults"
}

resource "aws_iam_role" "this" {
  for_each = toset(["one", "two"])

  assume_role_policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [{
      Effect = "Allow", Action = "sts:AssumeRole", Principal = { Service = "ec2.amazonaws.com" }
    }]
  })
  name               = "faults-${each.key}"
}

resource "aws_launch_template" "this" {
  name = "faults"
}

resource "terraform_data" "last" {
  depends_on = [aws_cloudwatch_log_group.this, aws_iam_role.this, aws_launch_template.this]

  provisioner "local-exec" {
    command = "touch $KENNEL_STARTED; sleep ${var.wait_s}"
  }
}

output "roles" { value = [aws_iam_role.this["one"].arn, aws_iam_role.this["two"].arn] }
"""
)
MADE = {
    "aws_cloudwatch_log_group.this",
    'aws_iam_role.this["one"]',
    'aws_iam_role.this["two"]',
    "aws_launch_template.this",
}
APPLY = ("apply", "foundation", "--env", "faults", "--auto-approve", "--")


@pytest.fixture(scope="module")
def checkout(
    localaws: LocalAws, attached: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Checkout:
    """A small foundation in an environment of its own, in a region that no other test uses."""
    folder = tmp_path_factory.mktemp("faults")
    told = {
        "KENNEL_STARTED": str(folder / "started"),
        "TF_REATTACH_PROVIDERS": attached["TF_REATTACH_PROVIDERS"],
        # On a slow machine Terraform would save what it has made so far before it is killed.
        "TF_STATE_PERSIST_INTERVAL": "600",
    }
    made = make_checkout(folder / "checkout", {**localaws.environment, **told})
    environments = made.folder / "terraform/environments"
    (environments / "faults.tfvars").write_text(
        'environment = "faults"\nregion      = "eu-west-1"\n'
    )
    backend = (environments / "dev.s3.tfbackend").read_text()
    (environments / "faults.s3.tfbackend").write_text(backend)
    (made.folder / "terraform/stacks/foundation/main.tf").write_text(STACK)
    assert made.run("bootstrap", "--env", "faults").returncode == 0
    return made


def run(checkout: Checkout, *arguments: str) -> Any:
    return checkout.run("run", "foundation", "--env", "faults", "--", *arguments)


def test_apply_works_again_after_terraform_was_killed(checkout: Checkout) -> None:
    started = Path(checkout.environ["KENNEL_STARTED"])
    with checkout.start("-m", "terraform.cli", *APPLY, "-var=wait_s=600") as process:
        while not started.exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        children = psutil.Process(process.pid).children(recursive=True)
        for child in children:
            child.kill()
        _, said = process.communicate(timeout=SECONDS)
    assert process.returncode != 0
    lock = next(line for line in said.splitlines() if line.startswith("The state is locked by"))
    words = shlex.split(lock.split("`")[1])
    lock_id = next(word for word in words if word.startswith("LOCK=")).removeprefix("LOCK=")
    unlock = ("unlock", "foundation", "--env", "faults", "--auto-approve", "--lock", lock_id)
    assert checkout.run(*unlock).returncode == 0

    again = checkout.run(*APPLY)
    assert again.returncode == 0, again.stderr
    told = next(line for line in again.stderr.splitlines() if line.startswith("There already"))
    assert set(told.partition(": ")[2].split(", ")) == MADE
    assert "4 to import" in again.stdout
    assert set(run(checkout, "state", "list").stdout.split()) == {*MADE, "terraform_data.last"}
    sources = {path.name for path in (checkout.folder / "terraform/stacks/foundation").glob("*.tf")}
    assert sources == {"main.tf"}


def test_what_another_has_made_is_not_taken() -> None:
    def change(name: str, before: dict[str, str] | None, **more: Any) -> dict[str, Any]:
        after = {"tags_all": {"environment": "faults"}}
        return {"address": name, "change": {"before": {"tags_all": before}, "after": after} | more}

    importing = {"importing": {"id": "any"}}
    changes = [
        change("own", {"environment": "faults", "more": "is harmless"}, **importing),
        change("other", {"environment": "prod"}, **importing),
        change("bare", None, **importing),
        change("known", {}),
    ]
    assert adopt.foreign(changes) == ["other", "bare"]


class China(Target):
    """An environment whose credentials are of another partition."""

    @property
    def _caller(self) -> list[str]:  # type: ignore[override]
        return ["arn", "aws-cn", "sts", "", "210987654321", "assumed-role/deploy/me"]


def test_what_is_there_is_imported_in_every_partition() -> None:
    said = 'Error: EntityAlreadyExists\n\n  with aws_iam_policy.deploy["train"],\n'
    change = {
        "address": 'aws_iam_policy.deploy["train"]',
        "type": "aws_iam_policy",
        "change": {"actions": ["create"], "after": {"name": "kennel-dev-deploy-train"}},
    }
    target = China("dev", "kennel", "cn-north-1")
    assert adopt.imports(said, [change], target) == {
        change["address"]: "arn:aws-cn:iam::210987654321:policy/kennel-dev-deploy-train"
    }


def test_what_is_there_is_told_by_errors_on_a_terminal() -> None:
    said = """\x1b[31m╷\x1b[0m
\x1b[31m│\x1b[0m \x1b[1mError: creating Budget (kennel): DuplicateRecordException: it already
\x1b[31m│\x1b[0m exists
\x1b[31m│\x1b[0m
\x1b[31m│\x1b[0m   with module.observability.aws_budgets_budget.this[0],
\x1b[31m│\x1b[0m   on main.tf line 1, in resource "aws_budgets_budget" "this":
\x1b[31m╵\x1b[0m
\x1b[31m╷\x1b[0m
\x1b[31m│\x1b[0m \x1b[1mError: creating IAM Role (kennel): AccessDenied
\x1b[31m│\x1b[0m
\x1b[31m│\x1b[0m   with aws_iam_role.this["two"],
\x1b[31m╵\x1b[0m"""
    assert adopt.conflicts(said) == ["module.observability.aws_budgets_budget.this[0]"]
    assert adopt.conflicts(said + "\nError: execution halted\n") == []


NOT_KNOWN = """╷
│ Error: creating SageMaker AI Notebook Instance (kennel): ValidationException: Could not assume
│ role arn:aws:iam::123456789012:role/kennel. Please ensure that the role exists
╵
╷
│ Error: creating Lambda Function (kennel): InvalidParameterValueException: The role defined for the
│ function cannot be assumed by Lambda.
╵"""


def test_a_role_that_is_not_known_yet_is_told_from_other_errors() -> None:
    assert adopt.is_early(NOT_KNOWN)
    assert not adopt.is_early(NOT_KNOWN + "\n╷\n│ Error: creating IAM Role: AccessDenied\n╵")
    assert not adopt.is_early(NOT_KNOWN + "\nError: execution halted\n")
    assert not adopt.is_early("")


@pytest.mark.parametrize(("in_vain", "code"), [(2, 0), (99, 1)])
def test_an_apply_waits_for_new_roles_and_not_for_ever(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, in_vain: int, code: int
) -> None:
    applied: list[int] = []

    def apply(_: object) -> tuple[int, stack._Stopped]:
        applied.append(len(applied))
        is_early = len(applied) <= in_vain
        return int(is_early), stack._Stopped({}, passing=False, early=is_early)

    foundation = planless(monkeypatch, tmp_path, apply)
    assert stack.apply(foundation, None, (), approved=True) == code
    assert len(applied) == min(in_vain + 1, 5)


def planless(monkeypatch: pytest.MonkeyPatch, folder: Path, apply: object) -> stack.Stack:
    """A foundation that always has a plan, applied by a function."""
    monkeypatch.setattr(stack, "_ROLE_SECONDS", 0.0)
    monkeypatch.setattr(stack, "_plan", lambda *_, **__: stack.CHANGES)
    monkeypatch.setattr(stack, "_apply_plan", apply)
    monkeypatch.setattr(stack, "planned", lambda _: {"resource_changes": []})
    monkeypatch.setattr(stack, "_summarize", lambda *_, **__: None)
    monkeypatch.setattr(stack, "_explain", lambda *_: None)
    made = stack.Stack("foundation", Target("dev", "kennel", "us-east-1"), folder)
    made.plan_text.parent.mkdir(parents=True)
    made.plan_text.touch()
    return made


@pytest.mark.parametrize(("in_vain", "code"), [(2, 0), (99, 1)])
def test_an_apply_that_its_own_lock_stopped_is_done_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, in_vain: int, code: int
) -> None:
    applied: list[int] = []

    def apply(_: object) -> tuple[int, stack._Stopped]:
        applied.append(len(applied))
        is_stopped = len(applied) <= in_vain
        return int(is_stopped), stack._Stopped({}, passing=is_stopped, early=False)

    foundation = planless(monkeypatch, tmp_path, apply)
    assert stack.apply(foundation, None, (), approved=True) == code
    assert len(applied) == min(in_vain + 1, 5)
