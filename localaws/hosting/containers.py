"""The inference server, started and asked as SageMaker does a model's container."""

import http.client
import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import urllib3

from localaws.loopback import LOOPBACK
from localaws.processes import STOP_SECONDS, ManagedProcess, Running

ANSWER_SECONDS = 60.0
"""What SageMaker gives a container for one answer."""

SERVER = (sys.executable, "-m", "inference.server")
"""The inference server's command; whatever the image, this is what runs here."""

_CONNECT_SECONDS = 2.0
_POLL_SECONDS = 0.02
_LOG_TAIL_BYTES = 2000
_CONNECTIONS = 256
_PASSED_ON = (
    "Content-Type",
    "Accept",
    "X-Amzn-SageMaker-Custom-Attributes",
    "X-Amzn-SageMaker-Inference-Id",
)
_TIMED_OUT = (
    "Your invocation timed out while waiting for a response from container primary. Review the"
    " latency metrics for each container in Amazon CloudWatch, resolve the issue, and try again."
)


class HostingError(Exception):
    """Something that was to be hosted cannot be; the message is a failure reason."""


class UnreachableError(Exception):
    """A container took no connection: it has not seen the request."""


@dataclass(frozen=True)
class Reply:
    """A container's answer.

    Attributes:
        status: Its HTTP status; 0 if it gave none.
        body: The answer; what SageMaker says where there is none.
        headers: The answer's headers.
    """

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_success(self) -> bool:
        """Whether the status is 2XX."""
        return 200 <= self.status < 300


class Connections:
    """Connections to a container's port; they stay open between requests."""

    def __init__(self, host: str, port: int) -> None:
        """Open nothing yet."""
        self._pool = urllib3.HTTPConnectionPool(
            host,
            port,
            maxsize=_CONNECTIONS,
            retries=False,
        )

    def invoke(
        self, body: bytes, headers: Mapping[str, str], seconds: float = ANSWER_SECONDS
    ) -> Reply:
        """`POST /invocations`.

        Args:
            body: The request's body.
            headers: The caller's; those that are a container's business are passed on.
            seconds: How long an answer may take.

        Raises:
            UnreachableError: There was no connection.
        """
        kept = {name: headers[name] for name in _PASSED_ON if name in headers}
        try:
            limits = urllib3.Timeout(connect=_CONNECT_SECONDS, read=seconds)
            answer = self._pool.urlopen("POST", "/invocations", body, kept, timeout=limits)
        except urllib3.exceptions.NewConnectionError:
            raise UnreachableError from None
        except urllib3.exceptions.ReadTimeoutError:
            return Reply(0, _TIMED_OUT.encode())
        except urllib3.exceptions.HTTPError:
            return Reply(0, b"")
        return Reply(answer.status, answer.data, answer.headers)

    def ping(self) -> bool:
        """Whether `GET /ping` is answered with 200."""
        try:
            answer = self._pool.urlopen("GET", "/ping", timeout=urllib3.Timeout(1))
        except urllib3.exceptions.HTTPError:
            return False
        return bool(answer.status == http.client.OK)

    def execution_parameters(self) -> dict[str, Any]:
        """What `GET /execution-parameters` answers; empty where a container does not know it."""
        try:
            answer = self._pool.urlopen("GET", "/execution-parameters", timeout=urllib3.Timeout(2))
            told = json.loads(answer.data) if answer.status == http.client.OK else {}
        except (urllib3.exceptions.HTTPError, ValueError):
            return {}
        return told if isinstance(told, dict) else {}

    def close(self) -> None:
        """Close those that are idle."""
        self._pool.close()


class Container(Running):
    """An inference server that is starting or answers."""

    def __init__(
        self,
        arguments: Sequence[str],
        log: Path,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        """Start it.

        Args:
            arguments: For the server; it has to take a free port, which it says in its log.
            log: File to which its output is appended.
            environment: Its whole environment; this process's own if None.
            folder: Its working folder; this process's own if None.
        """
        self._log = log
        self._log_start = log.stat().st_size if log.exists() else 0
        self._process = ManagedProcess([*SERVER, *arguments], log, environment, folder)
        self._connections: Connections | None = None
        self.port = 0

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether the server's process is gone."""
        return self._process.exit_code is not None

    def wait(self, seconds: float) -> None:
        """Wait until it answers `/ping` with 200.

        SageMaker starts a container that ends again and again until the time is up; here one that
        ends has failed.

        Raises:
            HostingError: It ended, or was not ready in time; the message has the end of its log.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            ended = self.has_ended
            if not self._connections and (port := self._announced_port()):
                self.port, self._connections = port, Connections(LOOPBACK, port)
            if self._connections and self._connections.ping():
                return
            if ended:
                raise HostingError(f"the inference server ended while starting:\n{self._tail()}")
            time.sleep(_POLL_SECONDS)
        raise HostingError(f"the inference server did not become ready in time:\n{self._tail()}")

    @property
    def connections(self) -> Connections:
        """Those to its port; it is ready."""
        assert self._connections  # noqa: S101 (tells the type)
        return self._connections

    def invoke(self, body: bytes, headers: Mapping[str, str]) -> Reply:
        """See `Connections.invoke`; the container is ready."""
        return self.connections.invoke(body, headers)

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """End the server: SIGTERM, and SIGKILL after `seconds`."""
        self._process.stop(seconds)
        if self._connections:
            self._connections.close()

    def kill(self) -> None:
        """End the server by SIGKILL."""
        self._process.kill()

    def _announced_port(self) -> int:
        """The port in the server's ready line, `{"event": "ready", "port": N}`; 0 before it."""
        for line in self._output().splitlines(keepends=True):
            if line.endswith(b"\n") and line.startswith(b"{"):
                with suppress(ValueError):
                    event = json.loads(line)
                    if event.get("event") == "ready":
                        return int(event["port"])
        return 0

    def _output(self) -> bytes:
        return self._log.read_bytes()[self._log_start :]

    def _tail(self) -> str:
        return self._output()[-_LOG_TAIL_BYTES:].decode(errors="replace")
