"""Terraform, its provider and a localaws for the tests of this folder."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from localaws.processes import ManagedProcess
from terraform import cli
from terraform.cli import binary
from terraform.cli.__main__ import main
from tests.archives import make_archive
from tests.localaws.conftest import LocalAws, until
from trainer.errors import KennelError, run_command

CommandLine = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session", name="localaws")
def records(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    """One for all tests, that keeps records only."""
    running = LocalAws(tmp_path_factory.mktemp("localaws"), "--records-only")
    yield running
    running.stop()


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    """One for a module, that runs what it is asked for."""
    running = LocalAws(tmp_path_factory.mktemp("localaws"))
    yield running
    running.stop()


@pytest.fixture
def command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> CommandLine:
    """`python -m terraform.cli ...` in this process: exit code and what was printed."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["terraform.cli", *arguments])
        with pytest.raises(SystemExit) as ended:
            run_command(main)
        code = ended.value.code
        assert isinstance(code, int)
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models with the same labels."""
    folder = tmp_path_factory.mktemp("models")
    return {
        name: make_archive(folder / name, crop=crop)
        for name, crop in (("one", 32), ("two", 40), ("three", 48))
    }


@pytest.fixture(scope="session")
def provider() -> dict[str, str]:
    """Give the environment in which Terraform finds its provider.

    Where neither the registry answers nor a mirror is there, the tests that need one are skipped:
    nothing that the project could install would help.
    """
    try:
        return cli.environment()
    except KennelError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def terraform_environment(localaws: LocalAws, provider: dict[str, str]) -> dict[str, str]:
    """The whole environment to run Terraform with."""
    return {**os.environ, **provider, **localaws.environment, "CHECKPOINT_DISABLE": "1"}


@pytest.fixture(scope="session")
def terraform_binary() -> Path:
    return binary.find()


@contextmanager
def attach(
    folder: Path, terraform: Path, environment: Mapping[str, str]
) -> Iterator[dict[str, str]]:
    """Run the provider, as for a debugger; give the environment in which Terraform talks to it.

    By itself Terraform starts it twice for each plan, which is most of the work of a small one.

    Args:
        folder: An empty one.
        terraform: The program.
        environment: That of both; what it says of AWS holds for the provider's whole life.
    """
    # It takes this setting only the first time that it is configured.
    environ = {k: v for k, v in environment.items() if k != "AWS_CA_BUNDLE"}
    (folder / "main.tf").write_text('provider "aws" {}\n')
    subprocess.run(
        [terraform, "init", "-input=false"],
        cwd=folder,
        env=environ,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    (program,) = folder.glob(".terraform/providers/*/*/*/*/*/terraform-provider-aws_*")
    log = folder / "log"
    with ManagedProcess([str(program), "-debug"], log, environ) as process:

        def announced() -> re.Match[str] | None:
            assert process.exit_code is None, log.read_text()
            return re.search("TF_REATTACH_PROVIDERS='(.+)'", log.read_text())

        found = until(announced)
        assert found
        yield {**environ, "TF_REATTACH_PROVIDERS": found[1]}


@pytest.fixture(scope="session")
def attached(
    tmp_path_factory: pytest.TempPathFactory,
    terraform_binary: Path,
    terraform_environment: dict[str, str],
) -> Iterator[dict[str, str]]:
    """Give the environment for a provider that runs once for all tests."""
    with attach(
        tmp_path_factory.mktemp("provider"), terraform_binary, terraform_environment
    ) as environ:
        yield environ
