import asyncio
import json
import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from inference.app import create_app
from inference.archive import Model
from inference.logs import JsonFormatter
from inference.predictor import Predictor
from inference.service import Service

if TYPE_CHECKING:
    from conftest import Pictures

JPEG = {"Content-Type": "image/jpeg"}
Scenario = Callable[[httpx.AsyncClient, Service], Coroutine[Any, Any, None]]


@pytest.fixture
def predictor(model: Model) -> Predictor:
    return Predictor(model, threads=1)


def run(predictor: Predictor, scenario: Scenario) -> None:
    async def main() -> None:
        service = Service(predictor, max_batch=4, queue=4)
        transport = httpx.ASGITransport(create_app(service, body_timeout_s=120))
        async with httpx.AsyncClient(transport=transport, base_url="http://kennel") as client:
            await scenario(client, service)
        await service.stop()

    asyncio.run(main())


def test_no_request_is_taken_before_the_model_has_answered(
    predictor: Predictor, picture: "Pictures"
) -> None:
    async def scenario(client: httpx.AsyncClient, service: Service) -> None:
        for response in (
            await client.get("/ping"),
            await client.post("/invocations", content=picture(), headers=JPEG),
        ):
            assert response.status_code == 503
        assert "loading" in response.json()["message"]
        await service.start()
        assert (await client.get("/ping")).status_code == 200
        response = await client.post("/invocations", content=picture(), headers=JPEG)
        assert response.status_code == 200

    run(predictor, scenario)


@pytest.mark.parametrize(
    ("hosts", "status"),
    [
        (["127.0.0.1"], 503),
        (["127.0.0.1:8080"], 503),
        (["LocalHost:1"], 503),
        ([], 403),
        ([""], 403),
        (["evil.example"], 403),
        (["evil.example:8080"], 403),
        (["127.0.0.1.evil.example"], 403),
        (["127.0.0.1:80:80"], 403),
        (["evil@127.0.0.1"], 403),
        (["localhost."], 403),
        (["2130706433"], 403),
        (["127.0.0.1", "evil.example"], 403),
    ],
)
def test_one_that_has_names_answers_to_no_other(
    predictor: Predictor, hosts: list[str], status: int
) -> None:
    """A web page's name may be made to lead here."""

    async def scenario() -> None:
        app = create_app(Service(predictor, 1, 1), body_timeout_s=120, hosts="127.0.0.1,localhost")
        for method, path in (("GET", "/ping"), ("POST", "/invocations")):
            scope = {
                "type": "http",
                "method": method,
                "path": path,
                "query_string": b"",
                "headers": [(b"host", host.encode()) for host in hosts],
            }
            sent: list[Any] = []

            async def receive() -> Any:
                return {"type": "http.request", "body": b""}

            async def send(message: Any, sent: list[Any] = sent) -> None:
                sent.append(message)

            await app(scope, receive, send)
            assert sent[0]["status"] == status
            if status == 403:
                told = json.loads(sent[1]["body"])
                assert told["error"] == "foreign_host"
                assert "127.0.0.1, localhost only" in told["message"]

    asyncio.run(scenario())


def test_no_request_is_taken_while_draining(predictor: Predictor, picture: "Pictures") -> None:
    async def scenario(client: httpx.AsyncClient, service: Service) -> None:
        await service.start()
        service.drain()
        for response in (
            await client.get("/ping"),
            await client.post("/invocations", content=picture(), headers=JPEG),
        ):
            assert response.status_code == 503
            assert response.headers["Connection"] == "close"
        assert response.json()["error"] == "unavailable"

    run(predictor, scenario)


def test_an_unexpected_fault_is_told_to_the_log_only(
    predictor: Predictor,
    picture: "Pictures",
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario(client: httpx.AsyncClient, service: Service) -> None:
        await service.start()

        def fail(*_: object) -> None:
            raise RuntimeError("a secret of the inside")

        monkeypatch.setattr("inference.service.load_image", fail)
        with caplog.at_level(logging.INFO):
            headers = JPEG | {"X-Request-Id": "abc"}
            response = await client.post("/invocations", content=picture(), headers=headers)
        assert response.status_code == 500
        assert response.json()["error"] == "internal"
        assert "secret" not in response.text
        (record,) = [record for record in caplog.records if record.name == "inference"]
        line = json.loads(JsonFormatter().format(record))
        assert (line["level"], line["status"], line["request_id"]) == ("error", 500, "abc")
        assert "a secret of the inside" in line["traceback"]
        assert service.in_flight == 0

    run(predictor, scenario)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"X-Request-Id": "abc-1"}, "abc-1"),
        ({"X-Amzn-SageMaker-Inference-Id": "sm", "X-Request-Id": "abc"}, "sm"),
        ({"X-Request-Id": "a b"}, None),
        ({"X-Request-Id": "x" * 129}, None),
        ({}, None),
    ],
)
def test_a_request_keeps_the_id_it_came_with(
    predictor: Predictor, given: dict[str, str], expected: str | None
) -> None:
    async def scenario(client: httpx.AsyncClient, _: Service) -> None:
        answered = (await client.get("/ping", headers=given)).headers["X-Request-Id"]
        assert answered == expected if expected else len(answered) == 32

    run(predictor, scenario)


def test_paths_that_clients_make_up_do_not_become_metrics(predictor: Predictor) -> None:
    async def scenario(client: httpx.AsyncClient, _: Service) -> None:
        for number in range(5):
            assert (await client.get(f"/made-up-{number}")).status_code == 404
        metrics = (await client.get("/metrics")).text
        assert 'kennel_requests_total{code="404",path="other"} 5.0' in metrics
        assert "made-up" not in metrics

    run(predictor, scenario)
