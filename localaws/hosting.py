"""Runs what SageMaker would host: a model's endpoint, and SageMaker's runtime in front of it."""

import http.client
import json
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from email.message import Message
from pathlib import Path
from urllib.parse import unquote, urlsplit

from localaws.execution import ACCOUNT, REGION, Service
from localaws.loopback import LOOPBACK, LoopbackServer, Requests
from localaws.processes import STOP_SECONDS, ManagedProcess, Running

CONTAINER_SECONDS = 60.0
"""What SageMaker gives a container for one answer."""

_POLL_SECONDS = 0.02
_LOG_TAIL_BYTES = 2000


class HostingError(Exception):
    """Something that was to be hosted did not start; the message holds the end of its log."""


class Endpoints(Service):
    """Runs the endpoints that were created through SageMaker."""


class ServedEndpoint(Running):
    """The inference server, started from a model as SageMaker would start its container."""

    def __init__(
        self, model: Path, log: Path, options: Sequence[str] = (), start_seconds: float = 60.0
    ) -> None:
        """Start the server and wait until it answers `/ping` with 200.

        Args:
            model: Model archive, or folder that holds an unpacked one.
            log: File to which the server's output is appended.
            options: More flags for `python -m inference.server`.
            start_seconds: How long the start may take.

        Raises:
            HostingError: It ended, or was not ready in time.
        """
        self._log = log
        self._log_start = log.stat().st_size if log.exists() else 0
        command = [sys.executable, "-m", "inference.server", "--model", str(model), "--port", "0"]
        self._process = ManagedProcess([*command, *options], log)
        try:
            self.url = self._wait_until_ready(time.monotonic() + start_seconds)
        except BaseException:
            self._process.kill()
            raise

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self._process.pid

    def stop(self) -> None:
        """End the server: SIGTERM, and SIGKILL after 30 s."""
        self._process.stop(STOP_SECONDS)

    def _wait_until_ready(self, deadline: float) -> str:
        url = ""
        while time.monotonic() < deadline:
            ended = self._process.exit_code is not None
            url = url or self._announced_url()
            if url and _answers_ping(url):
                return url
            if ended:
                raise HostingError(f"the inference server ended while starting:\n{self._tail()}")
            time.sleep(_POLL_SECONDS)
        raise HostingError(f"the inference server did not become ready in time:\n{self._tail()}")

    def _announced_url(self) -> str:
        """The URL in the server's ready line, `{"event": "ready", "port": N}`, or nothing yet."""
        for line in self._output().splitlines(keepends=True):
            if line.endswith(b"\n") and line.startswith(b"{"):
                with suppress(ValueError):
                    event = json.loads(line)
                    if event.get("event") == "ready":
                        return f"http://{LOOPBACK}:{event['port']}"
        return ""

    def _output(self) -> bytes:
        return self._log.read_bytes()[self._log_start :]

    def _tail(self) -> str:
        return self._output()[-_LOG_TAIL_BYTES:].decode(errors="replace")


def _answers_ping(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/ping", timeout=1) as response:  # noqa: S310 (loopback)
            return bool(response.status == http.client.OK)
    except OSError:
        return False


class RuntimeGateway(Running):
    """SageMaker's runtime, `POST /endpoints/{name}/invocations`, for endpoints on this machine.

    boto3 uses it through `AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME`.
    """

    def __init__(self, endpoints: Mapping[str, str]) -> None:
        """Serve `endpoints`, each name to the URL of its inference server."""

        class Answering(Requests):
            def do_POST(self) -> None:
                _invoke_endpoint(self, endpoints)

        self._server = LoopbackServer(Answering)
        self.url = f"http://{self._server.address}"

    def stop(self) -> None:
        """End the gateway; the endpoints go on."""
        self._server.stop()


def _invoke_endpoint(request: Requests, endpoints: Mapping[str, str]) -> None:
    body = request.body()
    name = _endpoint_name(urlsplit(request.path).path)
    url = endpoints.get(name)
    if url is None:
        message = f"Endpoint {name} of account {ACCOUNT} not found."
        _answer_error(request, 400, "ValidationError", {"Message": message})
        return
    status, content_type, answer = _forward(url, body, request.headers)
    if 200 <= status < 300:
        variant = {"x-Amzn-Invoked-Production-Variant": "AllTraffic"}
        request.answer(status, answer, {"Content-Type": content_type, **variant})
        return
    said = answer.decode(errors="replace")
    log_group = f"/aws/sagemaker/Endpoints/{name}"
    side = "client" if 400 <= status < 500 else "server"
    error = {
        "Message": f'Received {side} error ({status}) from primary with message "{said}".',
        "OriginalStatusCode": status,
        "OriginalMessage": said,
        "LogStreamArn": f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{log_group}",
    }
    _answer_error(request, 424, "ModelError", error)


def _endpoint_name(path: str) -> str:
    parts = path.split("/")
    is_invocation = len(parts) == 4 and parts[1] == "endpoints" and parts[3] == "invocations"
    return unquote(parts[2]) if is_invocation else ""


def _answer_error(request: Requests, status: int, kind: str, content: Mapping[str, object]) -> None:
    request.answer_json(status, content, {"x-amzn-ErrorType": kind})


def _forward(url: str, body: bytes, headers: Message) -> tuple[int, str, bytes]:
    """Status, content type and body of the container's answer; status 0 if it gave none."""
    passed_on = ("Content-Type", "Accept", "X-Amzn-SageMaker-Custom-Attributes")
    kept = {name: headers[name] for name in passed_on if name in headers}
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=CONTAINER_SECONDS)
    try:
        connection.request("POST", "/invocations", body, kept)
        response = connection.getresponse()
        content_type = response.headers.get("Content-Type", "application/octet-stream")
        return response.status, content_type, response.read()
    except (OSError, http.client.HTTPException):
        return 0, "", b""
    finally:
        connection.close()
