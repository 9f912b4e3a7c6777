"""Checks the Terraform sources: their format, and that Terraform takes all of them."""

import os
import subprocess
from pathlib import Path

import terraform.cli
from terraform.cli import binary
from terraform.cli.paths import BUILD, TERRAFORM
from trainer.errors import KennelError
from trainer.files import write_text_atomic


def check() -> None:
    """Run `terraform fmt -check` over all, and `terraform validate` over what can be applied.

    Raises:
        KennelError: Something is wrong; Terraform has said what on standard error.
    """
    _run("fmt", "-check", "-diff", "-recursive", str(TERRAFORM), folder=TERRAFORM)
    for folder in (_all_examples(), *sorted((TERRAFORM / "stacks").iterdir())):
        _run("init", "-backend=false", "-input=false", folder=folder)
        _run("validate", folder=folder)


def _all_examples() -> Path:
    """A root of all examples, hence of all modules: each `init` and `validate` takes seconds."""
    folder = BUILD / "examples"
    calls = [
        f'module "{path.parents[1].name}" {{\n  source = "{os.path.relpath(path, folder)}"\n}}\n'
        for path in sorted((TERRAFORM / "modules").glob("*/examples/basic"))
    ]
    write_text_atomic(folder / "main.tf", "\n".join(calls))
    return folder


def _run(*arguments: str, folder: Path) -> None:
    environ = terraform.cli.environment() | {
        "TF_DATA_DIR": str(BUILD / "check" / folder.name),
        "TF_IN_AUTOMATION": "1",
    }
    finished = subprocess.run(
        [binary.find(), *arguments],
        cwd=folder,
        env=environ,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if finished.returncode != 0:
        raise KennelError(
            f"`terraform {arguments[0]}` in {folder} failed; see above\n{finished.stdout}".rstrip()
        )
