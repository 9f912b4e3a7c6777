"""A localaws of their own for the tests of additions."""

import json
import os
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import boto3
import pytest
from botocore.config import Config

from localaws.processes import Running
from tests.localaws.forks import Fork
from tests.localaws.shapes import check_answers

SECONDS = 300
"""How long a test waits for what must happen: far longer than it takes, for loaded machines."""

T = TypeVar("T")


def until(ask: Callable[[], T], holds: Callable[[T], object] = bool) -> T:
    """The first answer of `ask` for which `holds` does."""
    deadline, pause = time.monotonic() + SECONDS, 0.05
    while not holds(found := ask()):
        assert time.monotonic() < deadline, found
        time.sleep(pause)
        # To ask costs both sides something, which what is waited for could do with.
        pause = min(pause * 1.2, 0.2)
    return found


def wait_for_functions(client: Any) -> None:
    """Let a client of Lambda wait until what it has made or changed is so."""

    def wait(parsed: dict[str, Any], **_: Any) -> None:
        if name := parsed.get("FunctionName"):
            until(
                lambda: client.get_function_configuration(FunctionName=name),
                lambda told: (
                    told["State"] == "Active" and told.get("LastUpdateStatus") != "InProgress"
                ),
            )

    for operation in ("CreateFunction", "UpdateFunctionCode", "UpdateFunctionConfiguration"):
        client.meta.events.register(f"after-call.lambda.{operation}", wait)


class LocalAws(Running):
    """A localaws process that can be stopped and started again with its state."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._folder = folder
        self._options = options
        self._clients: dict[str, Any] = {}
        self._start(port=0)

    def _start(self, port: int) -> None:
        log = self._folder / "log"
        arguments = ["run", "--port", str(port), "--state", str(self._folder), *self._options]
        # Functions of Kennel's runtime run where its Python is not, as after `make local-up`.
        environment = {"LOCALAWS_STAND_IN": "python3.13", **os.environ}
        self._process = Fork(arguments, log, environment)
        told = self._folder / "server.json"
        until(lambda: told.exists() or self._process.exit_code is not None)
        assert told.exists(), log.read_text()
        self.endpoint: str = json.loads(told.read_text())["endpoint"]

    @property
    def port(self) -> str:
        return self.endpoint.rpartition(":")[2]

    @property
    def environment(self) -> dict[str, str]:
        """What makes AWS clients, and commands of ENV=local, talk to it.

        It is to be laid over the process's own environment.
        """
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_MAX_ATTEMPTS": "3",
            "LOCALAWS_PORT": self.port,
        }

    def stop(self) -> None:
        self._process.stop()

    def restart(self) -> None:
        """Stop it and start it at the same address: clients go on."""
        self.stop()
        self._start(int(self.port))

    def client(self, service: str) -> Any:
        """A client whose answers are checked against the service's model.

        That of Lambda waits, as Terraform's provider does, for what it has made or changed.
        """
        if service not in self._clients:
            client = boto3.client(
                service,
                region_name="us-east-1",
                endpoint_url=self.endpoint,
                aws_access_key_id="test",
                aws_secret_access_key="test",
                config=Config(retries={"max_attempts": 0}),
            )
            self._clients[service] = check_answers(client)
            if service == "lambda":
                wait_for_functions(client)
        return self._clients[service]

    def inventory(self) -> dict[str, list[str]]:
        """The resources that exist, by service."""
        with urllib.request.urlopen(f"{self.endpoint}/_localaws/inventory") as answer:
            found: dict[str, list[str]] = json.load(answer)
        return found


@pytest.fixture(scope="session")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    """One that keeps records only."""
    running = LocalAws(tmp_path_factory.mktemp("localaws"), "--records-only")
    yield running
    running.stop()
