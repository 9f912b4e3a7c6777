import json
import socket
import ssl
from collections.abc import Iterator

import pytest

from lambda_src.deadline import Deadline
from lambda_src.endpoint import Answer, Endpoint
from lambda_src.errors import RequestError
from lambda_src.images import Image
from lambda_src.runtime import Runtime
from tests.stub_server import StubAnswer, StubServer

IMAGE = Image(b"\x89PNG\r\n\x1a\n a picture", "image/png")
INTERNAL = "/opt/ml/model at 10.0.0.1"
SECONDS = 20.0
WORDS = {"error": "undecodable", "message": "the image is cut short"}


@pytest.fixture
def service() -> Iterator[StubServer]:
    """Stands in for SageMaker's runtime itself, so that it can fail as only the service can."""
    with StubServer() as service:
        yield service


@pytest.fixture
def endpoint(service: StubServer) -> Endpoint:
    return endpoint_at(service.url)


def endpoint_at(url: str) -> Endpoint:
    environment = {
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": url,
        "AWS_SECRET_ACCESS_KEY": "local",
    }
    return Endpoint(Runtime.from_environment(environment, ssl.create_default_context()), "dogs")


def failure(kind: str, status: int, **content: object) -> StubAnswer:
    body = json.dumps({"Message": INTERNAL, **content}).encode()
    return StubAnswer(status, body, {"Content-Type": "application/json", "x-amzn-ErrorType": kind})


def model_error(status: int, said: object) -> StubAnswer:
    message = said if isinstance(said, str) else json.dumps(said)
    return failure("ModelError", 424, OriginalStatusCode=status, OriginalMessage=message)


def test_the_answer_is_the_endpoints_own(endpoint: Endpoint, service: StubServer) -> None:
    answer = endpoint.predict(IMAGE, Deadline.after(SECONDS))
    assert answer == Answer('{"predictions": []}', attempts=1)
    request = service.requests[0]
    assert request.path == "/endpoints/dogs/invocations"
    assert request.headers["Content-Type"] == "image/png"
    assert request.body == IMAGE.body


@pytest.mark.parametrize("status", [400, 413, 415])
def test_the_endpoints_words_about_the_image_are_passed_on(
    endpoint: Endpoint, service: StubServer, status: int
) -> None:
    service.answers[0] = model_error(status, {**WORDS, "trace": INTERNAL})
    with pytest.raises(RequestError) as error:
        endpoint.predict(IMAGE, Deadline.after(SECONDS))
    assert (error.value.status, error.value.error) == (status, "undecodable")
    assert error.value.message == "the image is cut short"
    assert len(service.requests) == 1


@pytest.mark.parametrize(
    ("answer", "attempts"),
    [
        (model_error(400, INTERNAL), 1),
        (model_error(400, [INTERNAL]), 1),
        (model_error(400, {"error": INTERNAL, "message": 5}), 1),
        (model_error(404, WORDS), 1),
        (model_error(500, WORDS), 1),
        (model_error(503, WORDS), 1),
        (model_error(0, ""), 1),
        (failure("ModelError", 424), 1),
        (failure("ValidationError", 400), 1),
        (failure("AccessDeniedException", 403), 1),
        (failure("InternalFailure", 500), 2),
        (failure("ServiceUnavailable", 503), 2),
        (StubAnswer(200, b"<html>"), 1),
        (StubAnswer(200, b"\xff"), 1),
    ],
)
def test_any_other_failure_is_a_bad_gateway_and_retried_only_if_it_may_pass(
    endpoint: Endpoint, service: StubServer, answer: StubAnswer, attempts: int
) -> None:
    service.answers[0] = answer
    with pytest.raises(RequestError) as error:
        endpoint.predict(IMAGE, Deadline.after(SECONDS))
    assert (error.value.status, error.value.error) == (502, "endpoint_failed")
    assert INTERNAL not in error.value.message
    assert len(service.requests) == attempts


THROTTLED = [
    failure("ThrottlingException", 400),
    failure("ModelNotReadyException", 429),
    model_error(429, WORDS),
]


@pytest.mark.parametrize("answer", [*THROTTLED, failure("InternalFailure", 500)])
def test_what_passes_is_retried_once_with_success(
    endpoint: Endpoint, service: StubServer, answer: StubAnswer
) -> None:
    service.answers.appendleft(answer)
    assert endpoint.predict(IMAGE, Deadline.after(SECONDS)).attempts == 2
    assert len(service.requests) == 2


@pytest.mark.parametrize("answer", THROTTLED)
def test_throttling_is_retried_once_without_success(
    endpoint: Endpoint, service: StubServer, answer: StubAnswer
) -> None:
    service.answers[0] = answer
    with pytest.raises(RequestError) as error:
        endpoint.predict(IMAGE, Deadline.after(SECONDS))
    assert (error.value.status, error.value.error) == (429, "busy")
    assert len(service.requests) == 2


def test_an_answer_after_the_deadline(endpoint: Endpoint, service: StubServer) -> None:
    service.answers[0] = StubAnswer(delay=1.0)
    with pytest.raises(RequestError) as error:
        endpoint.predict(IMAGE, Deadline.after(0.2))
    assert (error.value.status, error.value.error) == (504, "endpoint_timeout")


def test_nothing_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(RequestError) as error:
        endpoint_at(f"http://127.0.0.1:{port}").predict(IMAGE, Deadline.after(SECONDS))
    assert error.value.status == 502
