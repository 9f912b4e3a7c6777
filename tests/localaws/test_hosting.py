import json
from collections.abc import Iterator
from pathlib import Path

import boto3
import httpx
import psutil
import pytest
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import ClientError

from localaws.hosting.endpoints import HostingError, RuntimeGateway, ServedEndpoint
from tests.stub_server import StubAnswer, StubServer

# A server with the command line and the ready line of the real one.
SERVER = """
import http.server, json, signal, sys
class Requests(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
def stop(*_):
    print("stopping gently", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
server = http.server.HTTPServer(("127.0.0.1", 0), Requests)
print("not json {", flush=True)
print(json.dumps({"event": "arguments", "arguments": sys.argv[1:]}), flush=True)
print(json.dumps({"event": "ready", "port": server.server_port}), flush=True)
server.serve_forever()
"""


@pytest.fixture
def server_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that `python -m inference.server` runs in this test."""
    module = tmp_path / "inference" / "server.py"
    module.parent.mkdir()
    module.with_name("__init__.py").touch()
    module.write_text(SERVER)
    monkeypatch.chdir(tmp_path)
    return module


@pytest.mark.usefixtures("server_module")
def test_an_endpoint_is_served_until_it_is_stopped(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_text('{"event": "ready", "port": 1}\n')
    with ServedEndpoint(tmp_path / "model.tar.gz", log, ["--max-batch", "4"]) as endpoint:
        assert httpx.get(f"{endpoint.url}/ping").status_code == 200
        pid = endpoint.pid
        assert "inference.server" in psutil.Process(pid).cmdline()
    lines = log.read_text().splitlines()
    assert lines[-1] == "stopping gently"
    model = str(tmp_path / "model.tar.gz")
    assert json.loads(lines[2])["arguments"] == [
        *("--model", model, "--host", "127.0.0.1", "--hosts", "127.0.0.1", "--port", "0"),
        *("--max-batch", "4"),
    ]
    assert not psutil.pid_exists(pid)


def test_a_server_that_ends_while_starting(server_module: Path, tmp_path: Path) -> None:
    server_module.write_text("raise SystemExit('no such model')")
    with pytest.raises(HostingError, match=r"(?s)ended while starting.*no such model"):
        ServedEndpoint(tmp_path, tmp_path / "server.log")


def test_a_server_that_never_becomes_ready(server_module: Path, tmp_path: Path) -> None:
    server_module.write_text("import time; time.sleep(1000)")
    with pytest.raises(HostingError, match="did not become ready"):
        ServedEndpoint(tmp_path, tmp_path / "server.log", start_seconds=0.5)
    commands = [child.cmdline() for child in psutil.Process().children(recursive=True)]
    assert not [command for command in commands if str(tmp_path) in command]


@pytest.fixture
def container() -> Iterator[StubServer]:
    with StubServer() as container:
        yield container


@pytest.fixture
def client(container: StubServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[BaseClient]:
    with RuntimeGateway({"dogs": container.url, "gone": "http://127.0.0.1:1"}) as gateway:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", gateway.url)
        yield boto3.client(
            "sagemaker-runtime",
            region_name="us-east-1",
            aws_access_key_id="local",
            aws_secret_access_key="local",
            config=Config(retries={"total_max_attempts": 1}),
        )


def test_boto3_invokes_an_endpoint_unchanged(client: BaseClient, container: StubServer) -> None:
    body = bytes(range(256)) * 4096
    response = client.invoke_endpoint(
        EndpointName="dogs", Body=body, ContentType="image/png", Accept="application/json"
    )
    assert response["Body"].read() == StubAnswer().body
    assert response["ContentType"] == "application/json"
    assert response["InvokedProductionVariant"] == "AllTraffic"
    request = container.requests[0]
    assert (request.path, request.body) == ("/invocations", body)
    assert request.headers["Content-Type"] == "image/png"
    assert request.headers["Accept"] == "application/json"
    assert "Authorization" not in request.headers


@pytest.mark.parametrize(
    ("status", "words"),
    [(400, "Received client error (400)"), (503, "Received server error (503)")],
)
def test_a_containers_error_is_a_model_error(
    client: BaseClient, container: StubServer, status: int, words: str
) -> None:
    container.answers[0] = StubAnswer(status, b'{"error": "x"}')
    with pytest.raises(client.exceptions.ModelError) as error:
        client.invoke_endpoint(EndpointName="dogs", Body=b"x")
    response = error.value.response
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert response["OriginalStatusCode"] == status
    assert response["OriginalMessage"] == '{"error": "x"}'
    assert response["LogStreamArn"].endswith("/aws/sagemaker/Endpoints/dogs")
    assert response["Error"]["Message"].startswith(words)


def test_a_container_that_does_not_answer_is_a_model_error(client: BaseClient) -> None:
    with pytest.raises(client.exceptions.ModelError) as error:
        client.invoke_endpoint(EndpointName="gone", Body=b"x")
    assert error.value.response["OriginalStatusCode"] == 0


def test_an_unknown_endpoint_is_a_validation_error(client: BaseClient) -> None:
    with pytest.raises(ClientError) as error:
        client.invoke_endpoint(EndpointName="cats", Body=b"x")
    assert error.value.response["Error"]["Code"] == "ValidationError"
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
