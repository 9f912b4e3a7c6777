"""The log groups that an account's environments share: who makes them, who removes them."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from terraform.cli import job_logs
from tests.localaws.conftest import LocalAws
from tests.outside import open_environments
from trainer import target as targets
from trainer.target import load

TERRAFORM = Path(__file__).parents[2] / "terraform"
NOTEBOOKS, TRAINING = job_logs.GROUPS
ROOT = f"""
provider "aws" {{
  region = "us-east-1"

  default_tags {{
    tags = {{ project = var.project, environment = var.environment }}
  }}
}}

variable "enable_job_log_groups" {{ default = true }}
variable "environment" {{}}
variable "project" {{ default = "kennel" }}

module "observability" {{
  source         = "{TERRAFORM / "modules/observability"}"
  job_log_groups = local.own_job_log_groups
  name           = "kennel-${{var.environment}}"
  topic_arn      = "arn:aws:sns:us-east-1:123456789012:topic"
}}
"""


class Foundations:
    """The foundations of two environments, as far as they are about these groups."""

    def __init__(self, folder: Path, binary: Path, environ: dict[str, str]) -> None:
        self._folder, self._binary, self._environ = folder, binary, environ
        (folder / "main.tf").write_text(ROOT)
        shutil.copy(TERRAFORM / "stacks/foundation/job_logs.tf", folder)
        self._run("init", "-input=false")

    def _run(self, *arguments: str) -> str:
        finished = subprocess.run(
            [self._binary, *arguments, "-no-color"],
            cwd=self._folder,
            env=self._environ,
            capture_output=True,
            text=True,
        )
        assert finished.returncode == 0, finished.stdout + finished.stderr
        return finished.stdout

    def change(self, command: str, environment: str) -> str:
        """Apply or destroy one of them; give the line that says what was done."""
        said = self._run(
            command, "-auto-approve", f"-state={environment}", f"-var=environment={environment}"
        )
        return next(line for line in said.splitlines() if " complete! " in line)


@pytest.fixture
def logs(localaws: LocalAws) -> Iterator[Any]:
    client = localaws.client("logs")
    yield client
    for group in client.describe_log_groups(logGroupNamePrefix="/aws/sagemaker/")["logGroups"]:
        client.delete_log_group(logGroupName=group["logGroupName"])


def there(logs: Any) -> list[str]:
    found = logs.describe_log_groups(logGroupNamePrefix="/aws/sagemaker/")["logGroups"]
    return sorted(group["logGroupName"] for group in found)


def test_they_outlive_their_maker_who_finds_them_again(
    logs: Any, attached: dict[str, str], terraform_binary: Path, tmp_path: Path
) -> None:
    foundations = Foundations(tmp_path, terraform_binary, attached)
    # Made by SageMaker: another retention would delete logs of a whole account.
    logs.create_log_group(logGroupName=TRAINING)
    done = "Apply complete! Resources: {} added, 0 changed, 0 destroyed."
    assert foundations.change("apply", "dev") == done.format(1)
    described = logs.describe_log_groups(logGroupNamePrefix=TRAINING)["logGroups"][0]
    assert "retentionInDays" not in described
    # What is missing is made by whoever comes next; what another has made is left as it is.
    logs.delete_log_group(logGroupName=TRAINING)
    assert foundations.change("apply", "prod") == done.format(1)
    foundations.change("destroy", "dev")
    assert there(logs) == [NOTEBOOKS, TRAINING]
    again = foundations.change("apply", "dev")
    assert again == "Apply complete! Resources: 1 imported, 0 added, 1 changed, 0 destroyed."


def test_the_last_who_uses_them_may_remove_them(
    logs: Any,
    localaws: LocalAws,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(targets, "ENVIRONMENTS", open_environments(tmp_path))
    for name, value in localaws.environment.items():
        monkeypatch.setenv(name, value)
    target, ssm = load("local"), localaws.client("ssm")
    for name, owner in ((NOTEBOOKS, "local"), (TRAINING, "local")):
        logs.create_log_group(
            logGroupName=name, tags={"project": "kennel", "environment": owner, "stack": "x"}
        )
    job_logs.let_go(target, delete_data=False)
    assert there(logs) == [NOTEBOOKS, TRAINING]
    assert ", which DELETE_DATA=1 removes if nobody else" in capsys.readouterr().err
    own, other = "kennel-local-dogs-1/algo-1", "kennel-local2-dogs-1/algo-1"
    for stream in (own, other):
        logs.create_log_stream(logGroupName=TRAINING, logStreamName=stream)
    job_logs.let_go(target, delete_data=True)
    assert there(logs) == [TRAINING]
    said = capsys.readouterr().err
    assert f"kept: {TRAINING}, to which others of the account write\n" in said
    logs.delete_log_stream(logGroupName=TRAINING, logStreamName=other)
    # Another foundation, whose jobs have not begun yet.
    parameter = {"Name": "/kennel/job-logs/training_role_arn"}
    ssm.put_parameter(**parameter, Type="String", Value="arn")
    job_logs.let_go(target, delete_data=True)
    assert there(logs) == [TRAINING]
    ssm.delete_parameter(**parameter)
    logs.untag_log_group(logGroupName=TRAINING, tags=["environment"])
    job_logs.let_go(target, delete_data=True)
    assert there(logs) == [TRAINING]
    logs.tag_log_group(logGroupName=TRAINING, tags={"environment": "local"})
    job_logs.let_go(target, delete_data=True)
    assert there(logs) == []
