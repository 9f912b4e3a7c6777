"""A copy of the commands with stacks of its own: small ones that Terraform applies in a second."""

import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.localaws.conftest import SECONDS

ROOT = Path(__file__).parents[2]

SHARED = """
terraform {
  backend "s3" {}
}

variable "environment" { type = string }
variable "region" { type = string }
"""
FOUNDATION = """
resource "terraform_data" "bucket" {}
"""
SERVING = """
variable "lambda_zip_path" { type = string }
variable "model" { type = object({ archive_uri = string, digest = string }) }
variable "previous_model" {
  type    = object({ archive_uri = string, digest = string, image_uri = optional(string) })
  default = null
}
variable "history" {
  type    = list(object({ archive_uri = string, digest = string, image_uri = optional(string) }))
  default = []
}
variable "wait_s" {
  type    = number
  default = 0
}

resource "terraform_data" "endpoint" {
  input = var.model.digest

  # KENNEL_BUSY is a file with what SageMaker says once, as autoscaling changes the endpoint.
  provisioner "local-exec" {
    command = <<-SH
      if test -e "$KENNEL_BUSY"; then cat "$KENNEL_BUSY"; rm "$KENNEL_BUSY"; exit 1; fi
      touch $KENNEL_STARTED; sleep ${var.wait_s}
    SH
  }

  provisioner "local-exec" {
    when    = destroy
    command = <<-SH
      if test -e "$KENNEL_BUSY"; then cat "$KENNEL_BUSY"; rm "$KENNEL_BUSY"; exit 1; fi
    SH
  }
}

output "model" {
  value = merge(var.model, { image_uri = "image of ${substr(var.model.digest, 0, 12)}" })
}
output "history" { value = var.history }
output "previous_model" { value = var.previous_model }
output "zip" { value = fileexists(var.lambda_zip_path) }
"""


@dataclass(frozen=True)
class Checkout:
    """A folder with `terraform/cli` and whatever it works on.

    Attributes:
        folder: The root.
        environ: The whole environment of what runs in it.
    """

    folder: Path
    environ: Mapping[str, str]

    @contextmanager
    def start(
        self, *arguments: str, stdin: int = subprocess.DEVNULL, **changes: str | None
    ) -> Generator[subprocess.Popen[str], None, None]:
        """Run Python with arguments, no longer than the block that it is started for.

        A change to None takes a variable out of the environment.
        """
        environ = {**self.environ, **changes}
        with subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self.folder,
            env={name: value for name, value in environ.items() if value is not None},
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def run(self, *arguments: str, **changes: str | None) -> subprocess.CompletedProcess[str]:
        """Run `python -m terraform.cli` with arguments to its end."""
        return self.python("-m", "terraform.cli", *arguments, **changes)

    def asked(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The same at a terminal, whose user says no."""
        terminal, other = pty.openpty()
        os.write(terminal, b"no\n")
        with self.start("-m", "terraform.cli", *arguments, stdin=other) as process:
            out, err = process.communicate(timeout=SECONDS)
        os.close(terminal)
        os.close(other)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def python(self, *arguments: str, **changes: str | None) -> subprocess.CompletedProcess[str]:
        """Run Python with arguments to its end."""
        with self.start(*arguments, **changes) as process:
            out, err = process.communicate(timeout=SECONDS)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def program(self, name: str, text: str) -> Path:
        """Put a shell script on PATH, before all that is there."""
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path


def done(finished: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    """Give what has succeeded; fail with all that was said where it has not."""
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished


def make_checkout(folder: Path, aws: Mapping[str, str] | None = None) -> Checkout:
    """Lay out a checkout.

    Args:
        folder: Where.
        aws: The variables that lead to an AWS; without them there is none.
    """
    # With the bytecode, which else each command would make again; not what is being written.
    shutil.copytree(
        ROOT / "terraform/cli",
        folder / "terraform/cli",
        ignore=shutil.ignore_patterns("*.pyc.*"),
    )
    for package in ("trainer", "inference"):
        (folder / package).symlink_to(ROOT / package)
    for path, text in {
        "terraform/environments/dev.tfvars": 'environment = "dev"\nregion      = "us-east-1"\n',
        "terraform/environments/dev.s3.tfbackend": "use_lockfile = true\nuse_path_style = true\n",
        "terraform/stacks/foundation/main.tf": SHARED + FOUNDATION,
        "terraform/stacks/serving/main.tf": SHARED + SERVING,
        "terraform/versions.tf": (ROOT / "terraform/versions.tf").read_text(),
        "build/lambda/kennel-lambda-arm64.zip": "zip",
    }.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    for name in ("bin", "home"):
        (folder / name).mkdir()
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AWS_", "TF_", "XDG_")) and name.upper() != "HTTPS_PROXY"
    }
    environ = {
        **inherited,
        "HOME": str(folder / "home"),
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "PYTHONDONTWRITEBYTECODE": "1",
        **(aws or {}),
    }
    return Checkout(folder, environ)
