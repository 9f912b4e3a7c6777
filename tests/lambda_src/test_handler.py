import base64
import importlib
import json
import os
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from awslambdaric.lambda_context import LambdaContext
from hypothesis import HealthCheck, given, settings

from lambda_src.fetch import Fetcher
from localaws.functions.service import InvocationResult, LambdaFunction
from localaws.hosting.endpoints import RuntimeGateway
from tests.lambda_src.test_events import anything
from tests.stub_server import StubAnswer, StubServer

PNG = b"\x89PNG\r\n\x1a\n a picture"
BASE64 = base64.b64encode(PNG).decode()
EVENT = {"image": BASE64}
PREDICTIONS = '{"predictions": [{"label": "Beagle", "index": 4, "probability": 0.9}]}'
HANDLER = "lambda_src.handler.handler"

Start = Callable[..., LambdaFunction]


@pytest.fixture
def container() -> Iterator[StubServer]:
    """Stands in for the inference server."""
    with StubServer([StubAnswer(body=PREDICTIONS.encode())]) as container:
        yield container


@pytest.fixture
def gateway(container: StubServer) -> Iterator[RuntimeGateway]:
    with RuntimeGateway({"dogs": container.url}) as gateway:
        yield gateway


@pytest.fixture
def start(package: Path, gateway: RuntimeGateway, tmp_path: Path) -> Iterator[Start]:
    """Starts the real zip under AWS's runtime interface client."""
    functions: list[LambdaFunction] = []

    def start(timeout_seconds: float = 20.0, **environment: str) -> LambdaFunction:
        variables = {
            "ENDPOINT_NAME": "dogs",
            "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": gateway.url,
            "POWERTOOLS_TRACE_DISABLED": "true",
            **environment,
        }
        function = LambdaFunction(
            package,
            HANDLER,
            tmp_path / "function.log",
            variables,
            timeout_seconds=timeout_seconds,
            init_seconds=60.0,
        )
        functions.append(function)
        return function

    yield start
    for function in functions:
        function.stop()


def answered(result: InvocationResult) -> tuple[int, dict[str, Any]]:
    assert result.error is None
    assert result.payload["headers"]["content-type"] == "application/json"
    return result.payload["statusCode"], json.loads(result.payload["body"])


def http_event(body: str, content_type: str, is_base64: bool) -> dict[str, Any]:
    return {
        "version": "2.0",
        "rawPath": "/",
        "headers": {"content-type": content_type},
        "requestContext": {"http": {"method": "POST", "path": "/"}},
        "body": body,
        "isBase64Encoded": is_base64,
    }


def metrics_in(log: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    return [line for line in lines if "_aws" in line]


def test_the_zip_answers_every_kind_of_event(
    start: Start, container: StubServer, tmp_path: Path
) -> None:
    function = start()
    results = [
        function.invoke(event)
        for event in (
            EVENT,
            http_event(json.dumps(EVENT), "application/json", False),
            http_event(BASE64, "image/png", True),
        )
    ]
    assert [result.payload["body"] for result in results] == [PREDICTIONS] * 3
    assert [result.payload["statusCode"] for result in results] == [200] * 3
    assert [request.body for request in container.requests] == [PNG] * 3
    assert {request.headers["Content-Type"] for request in container.requests} == {"image/png"}
    assert [result.cold for result in results] == [True, False, False]

    log = (tmp_path / "function.log").read_text()
    assert [request_id_of(result) in log for result in results] == [True] * 3
    metrics = metrics_in(log)
    assert sum("ColdStart" in metric for metric in metrics) == 1
    assert sum("Answered" in metric for metric in metrics) == 3
    assert {metric["_aws"]["CloudWatchMetrics"][0]["Namespace"] for metric in metrics} == {"Kennel"}


def request_id_of(result: InvocationResult) -> str:
    return f"START RequestId: {result.payload['headers']['x-request-id']}"


def test_the_zip_refuses_what_it_must(start: Start, container: StubServer, tmp_path: Path) -> None:
    function = start()
    assert answered(function.invoke({"url": "https://169.254.169.254/"}))[0] == 403
    assert answered(function.invoke({"url": "https://user:secret@example.com/"}))[0] == 403
    assert answered(function.invoke({"url": "http://example.com/"}))[0] == 403
    assert answered(function.invoke({"image": base64.b64encode(b"<html>").decode()}))[0] == 415
    status, body = answered(function.invoke({}))
    assert (status, set(body)) == (400, {"error", "message"})
    assert container.requests == []
    log = (tmp_path / "function.log").read_text()
    assert sum("Refused" in metric for metric in metrics_in(log)) == 5
    assert "secret" not in log


def test_the_containers_errors_reach_the_caller_in_kind(
    start: Start, container: StubServer
) -> None:
    function = start()
    words = {"error": "undecodable", "message": "the image is cut short"}
    container.answers[0] = StubAnswer(400, json.dumps(words).encode())
    assert answered(function.invoke(EVENT)) == (400, words)

    container.answers[0] = StubAnswer(503, b'{"error": "draining", "message": "going"}')
    assert answered(function.invoke(EVENT))[0] == 502

    before = len(container.requests)
    container.answers[0] = StubAnswer(429, b'{"error": "busy", "message": "later"}')
    busy = function.invoke(EVENT)
    assert answered(busy)[0] == 429
    assert busy.payload["headers"]["retry-after"] == "1"
    assert len(container.requests) - before == 2


def test_a_slow_endpoint_is_a_504_within_the_functions_limit(
    start: Start, container: StubServer
) -> None:
    function = start(timeout_seconds=2.0)
    container.answers[0] = StubAnswer(delay=5.0)
    status, body = answered(function.invoke(EVENT))
    assert (status, body["error"]) == (504, "endpoint_timeout")
    container.answers[0] = StubAnswer()
    assert not function.invoke(EVENT).cold


def test_an_endpoint_that_does_not_exist(start: Start) -> None:
    status, body = answered(start(ENDPOINT_NAME="cats").invoke(EVENT))
    assert (status, body["error"]) == (502, "endpoint_failed")
    assert "cats" not in body["message"]


def test_a_function_without_an_endpoint_name(start: Start) -> None:
    status, body = answered(start(ENDPOINT_NAME="").invoke(EVENT))
    assert (status, body["error"]) == (500, "misconfigured")
    assert "ENDPOINT_NAME" in body["message"]


@pytest.mark.parametrize("headers", ["headers", "multiValueHeaders"])
def test_a_load_balancer_is_answered_in_its_form(
    start: Start, container: StubServer, headers: str
) -> None:
    function = start()
    is_multi = headers == "multiValueHeaders"

    def ask(method: str, body: str = "", **named: str) -> Mapping[str, Any]:
        event = {
            "requestContext": {"elb": {"targetGroupArn": "arn:aws:elasticloadbalancing:::a"}},
            "httpMethod": method,
            "path": "/",
            headers: {name: [value] if is_multi else value for name, value in named.items()},
            "body": body,
            "isBase64Encoded": named.get("content-type") == "image/png",
        }
        result = function.invoke(event)
        assert result.error is None
        assert result.payload["isBase64Encoded"] is False
        assert ("multiValueHeaders" in result.payload) == is_multi
        return result.payload

    answer = ask("POST", json.dumps(EVENT), **{"content-type": "application/json"})
    assert (answer["statusDescription"], answer["body"]) == ("200 OK", PREDICTIONS)
    assert ask("POST", BASE64, **{"content-type": "image/png"})["body"] == PREDICTIONS
    answer = ask("POST", "{", **{"content-type": "application/json"})
    assert (answer["statusCode"], answer["statusDescription"]) == (400, "400 Bad Request")
    if is_multi:
        assert answer["multiValueHeaders"]["content-type"] == ["application/json"]
    assert len(container.requests) == 2

    answer = ask("GET", **{"user-agent": "ELB-HealthChecker/2.0"})
    assert (answer["statusCode"], json.loads(answer["body"])) == (200, {"status": "ok"})
    assert ask("GET", **{"user-agent": "curl/8.0"})["statusCode"] == 405
    assert len(container.requests) == 2


def test_methods_other_than_post(start: Start, tmp_path: Path) -> None:
    function = start()

    def ask(method: str) -> dict[str, Any]:
        event = http_event("", "", False)
        event["requestContext"]["http"]["method"] = method
        payload: dict[str, Any] = function.invoke(event).payload
        return payload

    preflight = ask("OPTIONS")
    assert (preflight["statusCode"], preflight["body"]) == (204, "")
    assert set(preflight["headers"]) == {"allow", "x-request-id"}
    for method in ("GET", "HEAD", "PUT", "PATCH", "DELETE", "TRACE"):
        answer = ask(method)
        assert answer["statusCode"] == 405
        assert answer["headers"]["allow"] == preflight["headers"]["allow"] == "OPTIONS, POST"
    log = (tmp_path / "function.log").read_text()
    assert sum("Refused" in metric for metric in metrics_in(log)) == 6
    assert sum("Answered" in metric for metric in metrics_in(log)) == 0


def test_the_zip_knows_names_beyond_ascii(start: Start) -> None:
    function = start(KENNEL_ALLOWED_HOSTS="nowhere.example")
    event = {"url": "https://stra\u00dfe.example/dog.jpg"}
    assert answered(function.invoke(event))[0] == 403


@pytest.mark.parametrize("untraced", ["true", "false"])
def test_the_zip_needs_nothing_that_the_runtime_lacks(
    package: Path, tmp_path: Path, untraced: str
) -> None:
    code, runtime = tmp_path / "code", tmp_path / "runtime"
    with zipfile.ZipFile(package) as archive:
        archive.extractall(code)
    runtime.mkdir()
    for name in ("botocore", "dateutil", "jmespath", "six", "urllib3"):
        origin = Path(importlib.import_module(name).__file__ or "")
        source = origin.parent if origin.name == "__init__.py" else origin
        (runtime / source.name).symlink_to(source)
    script = (
        f"import sys; sys.path[:0] = [{str(code)!r}, {str(runtime)!r}]; import lambda_src.handler"
    )
    subprocess.run(
        [sys.executable, "-I", "-S", "-c", script],
        check=True,
        env={
            "AWS_DEFAULT_REGION": "us-east-1",
            "LAMBDA_TASK_ROOT": str(code),
            "POWERTOOLS_TRACE_DISABLED": untraced,
        },
    )


@pytest.fixture
def handler_module(gateway: RuntimeGateway, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The handler in this process, for what only replaced parts can bring about."""
    for name, value in environment_of(gateway.url).items():
        monkeypatch.setenv(name, value)
    sys.modules.pop("lambda_src.handler", None)
    return importlib.import_module("lambda_src.handler")


def environment_of(url: str) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": url,
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
        "AWS_LAMBDA_FUNCTION_NAME": "kennel",
        "AWS_SECRET_ACCESS_KEY": "local",
        "ENDPOINT_NAME": "dogs",
        "POWERTOOLS_TRACE_DISABLED": "true",
    }


def context(seconds: float) -> LambdaContext:
    deadline_ms = int((time.time() + seconds) * 1000)
    return LambdaContext("request-1", {}, {}, deadline_ms, "arn:aws:lambda:::function:kennel")


def test_an_image_behind_a_url_reaches_the_endpoint(
    handler_module: ModuleType, container: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with StubServer([StubAnswer(body=PNG)]) as site:
        address = ("127.0.0.1", int(site.url.rpartition(":")[2]))
        fetcher = Fetcher(
            allow_http=True,
            resolve=lambda _host: ["93.184.215.14"],
            connect=lambda *_: socket.create_connection(address),
        )
        monkeypatch.setattr(handler_module, "_FETCHER", fetcher)
        answer = handler_module.handler({"url": "http://example.com/dog.png?key=x"}, context(20))
    assert answer["statusCode"] == 200
    assert answer["headers"]["x-request-id"] == "request-1"
    assert site.requests[0].path == "/dog.png?key=x"
    assert container.requests[0].body == PNG


@pytest.mark.parametrize("event", [EVENT, {"url": "https://example.com/"}])
def test_no_time_left_is_a_504(handler_module: ModuleType, event: Mapping[str, str]) -> None:
    answer = handler_module.handler(event, context(0.1))
    assert answer["statusCode"] == 504


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(event=anything)
def test_any_event_gets_a_documented_answer(
    handler_module: ModuleType, event: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(_host: str) -> list[str]:
        raise OSError

    offline = replace(handler_module._FETCHER, resolve=resolve)
    monkeypatch.setattr(handler_module, "_FETCHER", offline)
    answer = handler_module.handler(event, context(20))
    assert answer["statusCode"] in {200, 204, 400, 403, 405, 413, 415}
    assert (answer["body"] == "") == (answer["statusCode"] == 204)
    json.dumps(answer)


def test_a_fault_of_the_function_is_a_500_without_a_trace(
    handler_module: ModuleType, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_event: object) -> str:
        raise RuntimeError("a secret detail")

    monkeypatch.setattr(handler_module, "source_of", fail)
    answer = handler_module.handler(EVENT, context(20))
    assert answer["statusCode"] == 500
    assert "secret" not in answer["body"]
    assert "a secret detail" in caplog.text


def test_x_ray_sees_the_call_of_the_endpoint_and_no_image(
    gateway: RuntimeGateway, tmp_path: Path
) -> None:
    script = (
        "import sys; from tests.lambda_src.test_handler import EVENT, context;"
        "from lambda_src.handler import handler;"
        "sys.exit(handler(EVENT, context(20))['statusCode'] != 200)"
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as daemon:
        daemon.bind(("127.0.0.1", 0))
        daemon.settimeout(10)
        environment = {
            **environment_of(gateway.url),
            "AWS_XRAY_DAEMON_ADDRESS": f"127.0.0.1:{daemon.getsockname()[1]}",
            "LAMBDA_TASK_ROOT": str(tmp_path),
            "POWERTOOLS_TRACE_DISABLED": "false",
            "_X_AMZN_TRACE_ID": f"Root=1-5759e988-{'b' * 24};Parent={'5' * 16};Sampled=1",
            "PATH": os.defpath,
        }
        subprocess.run(
            [sys.executable, "-c", script],
            check=True,
            env=environment,
            cwd=Path(__file__).parents[2],
            stdout=subprocess.DEVNULL,
        )
        sent = [daemon.recv(65536).decode() for _ in range(2)]
    names = {json.loads(text.partition("\n")[2])["name"] for text in sent}
    assert names == {"runtime.sagemaker", "## handler"}
    assert BASE64 not in "".join(sent)
