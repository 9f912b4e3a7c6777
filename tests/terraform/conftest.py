"""Terraform, its provider and a localaws for the tests of this folder."""

import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from localaws.processes import ManagedProcess
from terraform import cli
from terraform.cli import binary
from trainer.errors import KennelError

START_SECONDS = 60


@dataclass(frozen=True)
class LocalAws:
    endpoint: str
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """What makes AWS clients talk to it, to be laid over the process's own environment."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_MAX_ATTEMPTS": "3",
        }


@pytest.fixture(scope="session")
def localaws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    folder = tmp_path_factory.mktemp("localaws")
    server = [sys.executable, "-m", "localaws.server", "run", "--port", "0", "--records-only"]
    server += ["--state", str(folder), "--calls", str(folder / "calls")]
    log = folder / "log"
    with ManagedProcess(server, log) as process:
        deadline = time.monotonic() + START_SECONDS
        while not (folder / "server.json").exists():
            assert process.exit_code is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield LocalAws(json.loads((folder / "server.json").read_text())["endpoint"], folder)


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
