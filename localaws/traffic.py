"""Requests to an endpoint through SageMaker's runtime: one by one, or from many clients.

`python -m localaws.traffic NAME --clients N --photos DIR` is one of the processes of a `Load`.
"""

import argparse
import itertools
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any, Self

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from localaws.errors import LocalAwsError
from localaws.processes import ManagedProcess, Running

CLIENTS_A_PROCESS = 40
"""More would wait for each other's turn in Python, and not for the endpoint."""

_REST_SECONDS = 1.0
_REPORT_SECONDS = 0.5
_STOP_SECONDS = 2.0


class TrafficError(LocalAwsError):
    """A process of a load ended by itself."""


@dataclass(frozen=True)
class Account:
    """Who asks AWS, and where it is.

    Attributes:
        url: Address of AWS.
        key: Access key, which is the secret, too.
        region: The region.
    """

    url: str
    key: str
    region: str

    @classmethod
    def of_environment(cls) -> Self:
        """The account that `environment` gave to this process."""
        names = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_DEFAULT_REGION")
        return cls(*(os.environ[name] for name in names))

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a process that asks in its name."""
        return {
            **os.environ,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_DEFAULT_REGION": self.region,
        }

    def client(self, service: str, connections: int) -> Any:
        """A boto3 client that tries each call once, in bad weather as often as Kennel does.

        Args:
            service: The service's name in boto3.
            connections: How many stay open.
        """
        return boto3.client(
            service,
            region_name=self.region,
            endpoint_url=self.url,
            aws_access_key_id=self.key,
            aws_secret_access_key=self.key,
            # The proxy that the environment may name has no way to this machine's loopback.
            config=Config(
                max_pool_connections=connections,
                proxies={},
                retries={"mode": "standard", "total_max_attempts": _attempts()},
            ),
        )


def _attempts() -> int:
    """How often a call is tried: once, for what fails is to be seen, unless it is to fail."""
    return 1 if os.environ.get("LOCALAWS_WEATHER", "fair") == "fair" else 10


@dataclass
class Tally:
    """What clients were answered.

    Attributes:
        answers: How many answers each model gave, by its digest.
        failures: What the failed requests were told.
        seconds: From the first request to the last answer.
    """

    answers: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def requests(self) -> int:
        """All requests."""
        return self.answers.total() + len(self.failures)


@dataclass(frozen=True)
class Endpoint:
    """An endpoint by name, asked through a boto3 client of "sagemaker-runtime"."""

    runtime: Any
    name: str

    def ask(self, photo: bytes) -> dict[str, Any]:
        """What it says of a photo.

        Raises:
            ClientError: It gave no answer.
        """
        answer = self.runtime.invoke_endpoint(
            EndpointName=self.name, Body=photo, ContentType="application/octet-stream"
        )
        content: dict[str, Any] = json.loads(answer["Body"].read())
        return content

    def ask_alone(
        self, photos: Sequence[bytes], requests: int, between: Callable[[], None] = lambda: None
    ) -> list[float]:
        """Ask for photos one after the other; give the times in milliseconds.

        Args:
            photos: Are asked for in turn.
            requests: How many.
            between: Called before each; what it raises ends it.
        """
        times = []
        for photo, _ in zip(itertools.cycle(photos), range(requests), strict=False):
            between()
            started = time.perf_counter()
            self.ask(photo)
            times.append((time.perf_counter() - started) * 1000)
        return times

    @contextmanager
    def clients(
        self, photos: Sequence[bytes], count: int, rest_seconds: float = 0.0
    ) -> Iterator[Tally]:
        """Until the block ends, let clients ask as fast as they get answers.

        The tally grows meanwhile; its `seconds` are set at the end.

        Args:
            photos: Are asked for in turn.
            count: How many clients.
            rest_seconds: What a client waits after a failure.
        """
        tally, lock, end = Tally(), Lock(), Event()

        def client(first: int) -> None:
            for photo in itertools.cycle([*photos[first:], *photos[:first]]):
                if end.is_set():
                    return
                try:
                    digest = self.ask(photo)["model"]["digest"]
                except (ClientError, BotoCoreError) as error:
                    with lock:
                        tally.failures.append(str(error))
                    end.wait(rest_seconds)
                else:
                    with lock:
                        tally.answers[digest] += 1

        started = time.monotonic()
        threads = [
            Thread(target=client, args=(n % len(photos),), daemon=True) for n in range(count)
        ]
        for thread in threads:
            thread.start()
        try:
            yield tally
        finally:
            end.set()
            for thread in threads:
                thread.join()
            tally.seconds = time.monotonic() - started


class Load(Running):
    """Clients of an endpoint in processes of their own, as many as are wanted.

    The processes end with `stop`, and whenever this process ends.

    Attributes:
        clients: How many there are.
    """

    def __init__(self, account: Account, name: str, photos: Path, log: Path) -> None:
        """Start none yet.

        Args:
            account: Who asks.
            name: The endpoint's.
            photos: Folder of what they ask for.
            log: Name of the processes' logs, each of which gets a number.
        """
        self.clients = 0
        self._answers = 0
        self._numbers = itertools.count(1)
        self._command = [sys.executable, "-m", "localaws.traffic", name, "--photos", str(photos)]
        self._environment = account.environment
        self._log = log
        self._processes: list[tuple[ManagedProcess, Path]] = []

    def add(self, clients: int) -> None:
        """Add clients."""
        while clients > 0:
            count = min(clients, CLIENTS_A_PROCESS)
            log = self._log.with_suffix(f".{next(self._numbers)}{self._log.suffix}")
            log.unlink(missing_ok=True)
            command = [*self._command, "--clients", str(count)]
            self._processes.append((ManagedProcess(command, log, self._environment), log))
            self.clients += count
            clients -= count

    @property
    def has_begun(self) -> bool:
        """Whether all clients ask.

        Raises:
            TrafficError: A process has ended.
        """
        self._check()
        return all(log.read_bytes().endswith(b"\n") for _, log in self._processes)

    @property
    def answers(self) -> int:
        """How many answers they got.

        Raises:
            TrafficError: A process has ended.
        """
        self._check()
        return self._answers + sum(_told(log) for _, log in self._processes)

    def _check(self) -> None:
        for process, log in self._processes:
            if process.exit_code is not None:
                lines = log.read_text(errors="replace").splitlines()
                said = lines[-1] if lines else f"exit status {process.exit_code}"
                raise TrafficError(f"the clients' process ended: {said}; see {log}")

    def stop(self) -> None:
        """End all clients at once. Safe to repeat."""
        for process, log in self._processes:
            process.stop(_STOP_SECONDS)
            self._answers += _told(log)
        self._processes, self.clients = [], 0


def _told(log: Path) -> int:
    """The answers by the last whole line of a process."""
    for line in reversed(log.read_text(errors="replace").splitlines()):
        with suppress(ValueError, KeyError, TypeError):
            return int(json.loads(line)["answers"])
    return 0


def main() -> None:
    """Let clients ask until the process is ended; print every while what they got."""
    parser = argparse.ArgumentParser(prog="python -m localaws.traffic", description=main.__doc__)
    parser.add_argument("name", help="the endpoint's")
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--photos", type=Path, required=True, help="folder of what is asked for")
    given = parser.parse_args()
    photos = [path.read_bytes() for path in sorted(given.photos.iterdir())]
    runtime = Account.of_environment().client("sagemaker-runtime", given.clients)
    endpoint = Endpoint(runtime, given.name)
    with endpoint.clients(photos, given.clients, _REST_SECONDS) as tally:
        while True:
            told = {
                "answers": tally.answers.total(),
                "failures": len(tally.failures),
                "last_failure": tally.failures[-1] if tally.failures else "",
            }
            print(json.dumps(told), flush=True)
            time.sleep(_REPORT_SECONDS)


if __name__ == "__main__":
    main()
