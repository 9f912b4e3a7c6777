import json
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import httpx
import psutil
import pytest
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import ClientError

from localaws.hosting import (
    HostingError,
    InvocationResult,
    LambdaFunction,
    RuntimeGateway,
    ServedEndpoint,
)
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
        *("--model", model, "--port", "0", "--max-batch", "4")
    ]
    assert not psutil.pid_exists(pid)


def test_a_server_that_ends_while_starting(server_module: Path, tmp_path: Path) -> None:
    server_module.write_text("raise SystemExit('no such model')")
    with pytest.raises(HostingError, match=r"(?s)ended while starting.*no such model"):
        ServedEndpoint(tmp_path, tmp_path / "server.log")


def test_a_server_that_never_becomes_ready(server_module: Path, tmp_path: Path) -> None:
    server_module.write_text("import os, time; print(os.getpid(), flush=True); time.sleep(1000)")
    log = tmp_path / "server.log"
    with pytest.raises(HostingError, match="did not become ready"):
        ServedEndpoint(tmp_path, log, start_seconds=1.0)
    assert not psutil.pid_exists(int(log.read_text()))


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


FUNCTION = """
import os, sys, time
def handler(event, context):
    print("event", event["do"][:20])
    if event["do"] == "fail":
        raise ValueError("what failed")
    if event["do"] == "exit":
        os._exit(3)
    if event["do"] == "sleep":
        time.sleep(event["seconds"])
    if event["do"] == "environment":
        return dict(os.environ)
    if event["do"] == "context":
        return {
            "name": context.function_name,
            "arn": context.invoked_function_arn,
            "memory": context.memory_limit_in_mb,
            "milliseconds": context.get_remaining_time_in_millis(),
        }
    return event["do"]
"""

Start = Callable[..., LambdaFunction]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "function.log"


@pytest.fixture
def start(tmp_path: Path, log: Path) -> Iterator[Start]:
    functions: list[LambdaFunction] = []

    def start(
        code: str = FUNCTION, timeout_seconds: float = 20.0, init_seconds: float = 20.0
    ) -> LambdaFunction:
        package = tmp_path / "function.zip"
        with zipfile.ZipFile(package, "w") as archive:
            archive.writestr("main.py", code)
        function = LambdaFunction(
            package,
            "main.handler",
            log,
            {"SETTING": "given", "AWS_REGION": "mars-1"},
            timeout_seconds=timeout_seconds,
            init_seconds=init_seconds,
        )
        functions.append(function)
        return function

    yield start
    for function in functions:
        function.stop()


def error_type(result: InvocationResult) -> str:
    assert result.payload is None
    assert result.error is not None
    return str(result.error["errorType"])


def test_a_function_starts_once_and_stays_warm(start: Start, log: Path) -> None:
    function = start()
    first, second = function.invoke({"do": "first"}), function.invoke({"do": "second"})
    assert (first.payload, second.payload) == ("first", "second")
    assert (first.cold, second.cold) == (True, False)
    assert first.error is second.error is None
    text = log.read_text()
    assert [text.count(f"{word} RequestId: ") for word in ("START", "END", "REPORT")] == [2, 2, 2]
    assert text.count("Init Duration: ") == 1
    assert "event first" in text


def test_large_events_and_answers_arrive_whole(start: Start) -> None:
    large = "x" * 5_000_000
    assert start().invoke({"do": large}).payload == large


def test_an_error_is_reported_and_the_function_stays_warm(start: Start) -> None:
    function = start()
    result = function.invoke({"do": "fail"})
    assert error_type(result) == "ValueError"
    assert (result.error or {})["errorMessage"] == "what failed"
    assert not function.invoke({"do": "go on"}).cold


def test_a_crash_is_reported_and_the_function_starts_anew(start: Start) -> None:
    function = start()
    result = function.invoke({"do": "exit"})
    assert error_type(result) == "Runtime.ExitError"
    assert "exit status 3" in (result.error or {})["errorMessage"]
    again = function.invoke({"do": "go on"})
    assert (again.payload, again.cold) == ("go on", True)


def test_a_time_out_kills_the_function_and_it_starts_anew(start: Start, log: Path) -> None:
    function = start(timeout_seconds=1.0)
    result = function.invoke({"do": "sleep", "seconds": 1000})
    assert error_type(result) == "Sandbox.Timedout"
    assert (result.error or {})["errorMessage"].endswith("Task timed out after 1.00 seconds")
    assert "Task timed out after 1.00 seconds" in log.read_text()
    again = function.invoke({"do": "go on"})
    assert (again.payload, again.cold) == ("go on", True)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("import no_such_module", "Runtime.ImportModuleError"),
        ("handler = 1 +", "Runtime.UserCodeSyntaxError"),
        ("import os; os._exit(5)", "Runtime.ExitError"),
    ],
)
def test_a_failed_start_is_reported_and_tried_again(start: Start, code: str, kind: str) -> None:
    function = start(code)
    for _ in range(2):
        result = function.invoke({})
        assert error_type(result) == kind
        assert result.cold


def test_a_start_that_takes_too_long(start: Start) -> None:
    result = start("import time; time.sleep(1000)", init_seconds=1.0).invoke({})
    assert error_type(result) == "Sandbox.Timedout"


def test_the_environment_is_lambdas_own(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "the user's own")
    environment = start().invoke({"do": "environment"}).payload
    assert environment["SETTING"] == "given"
    assert environment["AWS_REGION"] == "us-east-1"
    assert environment["AWS_LAMBDA_FUNCTION_NAME"] == "kennel"
    assert "AWS_SESSION_TOKEN" not in environment


def test_the_context_is_lambdas_own(start: Start) -> None:
    function = start(timeout_seconds=20.0)
    context = function.invoke({"do": "context"}).payload
    assert context["name"] == "kennel"
    assert context["arn"] == function.arn
    assert context["memory"] == "512"
    assert 0 < context["milliseconds"] <= 20_000


def test_calls_from_many_threads_take_turns(start: Start) -> None:
    function = start()
    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(lambda n: function.invoke({"do": str(n)}), range(8)))
    assert [result.payload for result in results] == [str(n) for n in range(8)]
    assert sum(result.cold for result in results) == 1


def test_stopping_leaves_nothing_behind(start: Start) -> None:
    function = start()
    environment = function.invoke({"do": "environment"}).payload
    code = Path(environment["LAMBDA_TASK_ROOT"])
    assert code.is_dir()
    function.stop()
    function.stop()
    assert not code.exists()
    assert not [
        child for child in psutil.Process().children(recursive=True) if child.cwd() == str(code)
    ]
