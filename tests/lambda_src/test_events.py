import base64
import gzip
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambda_src.errors import RequestError
from lambda_src.events import source_of
from lambda_src.http_events import HttpRequest
from lambda_src.images import MAX_BYTES, Image

JPEG = b"\xff\xd8\xff\xe0 a picture"
PNG = b"\x89PNG\r\n\x1a\n a picture"
WEBP = b"RIFF\x00\x00\x00\x00WEBP a picture"
URL = "https://example.com/dog.jpg"


def base64_of(body: bytes) -> str:
    return base64.b64encode(body).decode()


def http_event(body: str | None, content_type: str | None, is_base64: bool) -> dict[str, Any]:
    headers = {} if content_type is None else {"Content-Type": content_type}
    event: dict[str, Any] = {"version": "2.0", "requestContext": {"http": {"method": "POST"}}}
    return {**event, "headers": headers, "body": body, "isBase64Encoded": is_base64}


def api_event(method: str = "POST", **fields: Any) -> dict[str, Any]:
    """A REST API's event, as an HTTP API's of payload format 1.0."""
    context = {"httpMethod": method, "stage": "prod", "identity": {"sourceIp": "192.0.2.1"}}
    parts = {"headers": None, "multiValueHeaders": None, "body": None, "isBase64Encoded": False}
    return {"httpMethod": method, "path": "/", "requestContext": context, **parts, **fields}


def balancer_event(method: str = "POST", **fields: Any) -> dict[str, Any]:
    """A load balancer's event; with `multiValueHeaders` among `fields` it has no `headers`."""
    context = {"elb": {"targetGroupArn": "arn:aws:elasticloadbalancing:::targetgroup/a/1"}}
    parts = {"httpMethod": method, "path": "/", "body": "", "isBase64Encoded": False}
    return {"requestContext": context, **parts, **fields}


PNG_IMAGE = Image(PNG, "image/png")
JSON_TYPE = "application/json"
JSON_URL = json.dumps({"url": URL})
JSON_IMAGE = json.dumps({"image": base64_of(PNG)})


def in_body(body: str | bytes) -> dict[str, Any]:
    """A request with JSON, or what should be."""
    text = body if isinstance(body, str) else base64_of(body)
    return http_event(text, JSON_TYPE, isinstance(body, bytes))


def encoded_event(encoding: str, body: bytes, content_type: str = "image/png") -> dict[str, Any]:
    """A request with a Content-Encoding."""
    event = http_event(base64_of(body), content_type, True)
    event["headers"]["Content-Encoding"] = encoding
    return event


@pytest.mark.parametrize(
    ("event", "source"),
    [
        ({"url": URL}, URL),
        ({"image": base64_of(JPEG)}, Image(JPEG, "image/jpeg")),
        ({"image": base64_of(PNG)}, Image(PNG, "image/png")),
        ({"image": base64_of(WEBP)}, Image(WEBP, "image/webp")),
        (http_event(JSON_URL, "application/json", False), URL),
        (http_event(JSON_URL, "Application/JSON; charset=utf-8", False), URL),
        (http_event(JSON_URL, None, False), URL),
        (http_event(base64_of(JSON_URL.encode()), "application/json", True), URL),
        (http_event(JSON_IMAGE, "application/json", False), Image(PNG, "image/png")),
        (http_event(base64_of(PNG), "image/png", True), Image(PNG, "image/png")),
        (http_event(base64_of(PNG), "image/jpeg", True), Image(PNG, "image/png")),
        (http_event(base64_of(JPEG), "application/octet-stream", True), Image(JPEG, "image/jpeg")),
        (http_event(base64_of(JPEG), "binary/octet-stream", True), Image(JPEG, "image/jpeg")),
        (http_event(base64_of(JPEG), "image/jpg; name=a.jpg", True), Image(JPEG, "image/jpeg")),
        # What curl and browsers call it when nobody says.
        (
            http_event(base64_of(JPEG), "application/x-www-form-urlencoded", True),
            Image(JPEG, "image/jpeg"),
        ),
        (http_event(base64_of(JPEG), None, True), Image(JPEG, "image/jpeg")),
        (http_event(base64_of(JPEG), "", True), Image(JPEG, "image/jpeg")),
        (http_event(JSON_URL, "text/json", False), URL),
        (http_event(JSON_URL, "application/vnd.api+json", False), URL),
        # Byte order marks
        (http_event(f"\ufeff{JSON_URL}", JSON_TYPE, False), URL),
        (http_event(base64_of(f"\ufeff{JSON_URL}".encode()), JSON_TYPE, True), URL),
        (in_body(f"\ufeff\ufeff{JSON_URL}".encode()), URL),
        # Flags as mapping templates write them, headers that came twice
        ({**http_event(base64_of(PNG), "image/png", True), "isBase64Encoded": "true"}, PNG_IMAGE),
        ({**http_event(base64_of(PNG), "image/png", True), "isBase64Encoded": "True"}, PNG_IMAGE),
        ({**http_event(base64_of(PNG), "image/png", True), "isBase64Encoded": 1}, PNG_IMAGE),
        ({**http_event(JSON_URL, JSON_TYPE, False), "isBase64Encoded": "false"}, URL),
        (http_event(JSON_URL, f"{JSON_TYPE}, {JSON_TYPE}", False), URL),
        # What a proxy has unpacked and left the header
        (encoded_event("gzip", PNG), PNG_IMAGE),
        (encoded_event("br", f"\ufeff {JSON_URL}".encode(), JSON_TYPE), URL),
        (encoded_event("aws-chunked, identity", JSON_URL.encode(), JSON_TYPE), URL),
        # Data URIs
        ({"image": f"data:image/png;base64,{base64_of(PNG)}"}, Image(PNG, "image/png")),
        ({"url": f"data:image/jpeg;base64,{base64_of(PNG)}"}, Image(PNG, "image/png")),
        # null is as good as absent
        ({"url": URL, "image": None, "comment": "from Step Functions"}, URL),
        # Other services in front
        (api_event(body=JSON_URL, headers={"Content-Type": JSON_TYPE}), URL),
        (api_event(body=JSON_URL), URL),
        (
            api_event(
                body=base64_of(PNG),
                headers={"content-type": "image/png"},
                multiValueHeaders={"content-type": ["image/png"]},
                isBase64Encoded=True,
            ),
            Image(PNG, "image/png"),
        ),
        (balancer_event(body=JSON_URL, headers={"content-type": JSON_TYPE}), URL),
        (balancer_event(body=JSON_URL, multiValueHeaders={"content-type": [JSON_TYPE]}), URL),
        (
            balancer_event(
                body=base64_of(JPEG),
                multiValueHeaders={"Content-Type": ["image/jpeg"], "accept": ["a", "b"]},
                multiValueQueryStringParameters={"a": ["b"]},
                isBase64Encoded=True,
            ),
            Image(JPEG, "image/jpeg"),
        ),
        (
            {
                "version": "2.0",
                "method": "POST",
                "headers": {"content-type": ["image/png"]},
                "body": base64_of(PNG),
                "isBase64Encoded": True,
                "requestContext": {"serviceArn": "arn:aws:vpc-lattice:::service/svc-1"},
            },
            Image(PNG, "image/png"),
        ),
        (
            {"raw_path": "/", "body": base64_of(PNG), "is_base64_encoded": True},
            Image(PNG, "image/png"),
        ),
        # Written by hand in the console
        ({"body": JSON_URL}, URL),
        ({"body": {"url": URL}}, URL),
    ],
)
def test_each_kind_of_event_names_its_source(event: object, source: Image | str) -> None:
    assert source_of(event) == source


@pytest.mark.parametrize(
    ("event", "status"),
    [
        (None, 400),
        ([], 400),
        ({}, 400),
        ({"url": URL, "image": base64_of(PNG)}, 400),
        ({"url": 5}, 400),
        ({"image": None}, 400),
        ({"image": ""}, 400),
        ({"image": "not base64"}, 400),
        ({"image": "\u00e9\u00e9\u00e9\u00e9"}, 400),
        ({"image": base64_of(b"<html>")}, 415),
        ({"image": base64_of(b"GIF89a")}, 415),
        ({"image": base64_of(PNG + bytes(MAX_BYTES))}, 413),
        (http_event(None, "application/json", False), 400),
        (http_event("", "image/png", True), 400),
        (http_event("{", "application/json", False), 400),
        (http_event("[" * 100_000, "application/json", False), 400),
        (http_event("5", "application/json", False), 400),
        (http_event(base64_of(b"\xff\xfe"), "application/json", True), 400),
        (http_event("raw bytes", "image/png", False), 400),
        (http_event("url=x", "application/x-www-form-urlencoded", False), 415),
        (http_event("<html>", "text/html", False), 415),
        (http_event(base64_of(b"--x"), "multipart/form-data; boundary=x", True), 415),
        (http_event(None, None, False), 400),
        (api_event(), 400),
        (api_event("GET", queryStringParameters={"url": URL}), 405),
        (balancer_event("GET"), 405),
        (balancer_event("DELETE", body=JSON_URL), 405),
        (balancer_event(multiValueHeaders={"content-type": []}, body="{"), 400),
        ("https://example.com/dog.jpg", 400),
        (5, 400),
        ([{"url": URL}], 400),
        ({"url": None, "image": None}, 400),
        ({"requestContext": None, "headers": "no", "body": "{}", "isBase64Encoded": "true"}, 400),
    ],
)
def test_anything_else_is_refused(event: object, status: int) -> None:
    with pytest.raises(RequestError) as refusal:
        source_of(event)
    assert refusal.value.status == status


@pytest.mark.parametrize(
    ("event", "said"),
    [
        # Other services' events
        ({"Records": [{"eventSource": "aws:s3", "s3": {}}]}, "an event of aws:s3"),
        ({"Records": [{"eventSource": "aws:sqs", "body": JSON_URL}]}, "an event of aws:sqs"),
        ({"Records": [{"EventSource": "aws:sns", "Sns": {}}]}, "an event of aws:sns"),
        ({"eventSource": "aws:kafka", "records": {}}, "an event of aws:kafka"),
        ({"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}}, "EventBridge"),
        ({"warmer": True, "concurrency": 3}, "provisioned concurrency"),
        ({"source": "serverless-plugin-warmup"}, "provisioned concurrency"),
        ({"key1": "value1", "key2": "value2"}, 'either "url" or "image"'),
        ({"Records": []}, 'either "url" or "image"'),
        ({"Records": [None]}, 'either "url" or "image"'),
        ("text", 'either "url" or "image"'),
        # What is not JSON
        (in_body("{'url': 'x'}"), "line 1 column 2"),
        (in_body(JSON_URL.encode("utf-16")), "it is UTF-16, save it as UTF-8"),
        (in_body(JSON_URL.encode("utf-16-be")), "it is UTF-16, save it as UTF-8"),
        (in_body(JSON_URL.encode("utf-32")), "it is UTF-32, save it as UTF-8"),
        (in_body("\ufffd\ufffd" + JSON_URL.encode("utf-16-le").decode()), "it is UTF-16"),
        (in_body('{"url": "\u00fc"}'.encode("latin-1")), "not JSON in UTF-8"),
        (in_body("[" * 100_000), "not JSON"),
        # Bodies of other kinds
        (in_body(gzip.compress(JSON_URL.encode())), "the body is compressed"),
        (http_event(base64_of(gzip.compress(PNG)), "image/png", True), "without Content-Encoding"),
        (http_event(base64_of(b"\x28\xb5\x2f\xfd zstd"), None, True), "the body is compressed"),
        (encoded_event("br", b"\x8b\x02\x80 brotli", JSON_TYPE), "the body is compressed"),
        (encoded_event("identity, BR", b"\x8b\x02\x80 brotli"), "without Content-Encoding"),
        (encoded_event("deflate", b"\x78\x9c zlib", JSON_TYPE), "the body is compressed"),
        (http_event("raw bytes", "image/png", False), "binary media types"),
        (
            http_event("eA==", "multipart/form-data; boundary=x", True),
            "the file itself as the body",
        ),
        (http_event(JSON_URL, "application/x-www-form-urlencoded", False), "as application/json"),
        (balancer_event("PUT", body=JSON_URL), "the body of a POST"),
        (http_event("", None, False), "the request has no body"),
        (http_event([1], None, False), '"body" is neither text nor an object'),
        (http_event(False, None, False), '"body" is neither text nor an object'),
        ({"image": URL}, 'a URL goes into "url"'),
        ({"image": {"type": "Buffer", "data": [1]}}, '"image" is not a string'),
    ],
)
def test_a_refusal_names_what_came_and_the_remedy(event: object, said: str) -> None:
    with pytest.raises(RequestError) as refusal:
        source_of(event)
    assert said in refusal.value.message


def test_the_largest_image_passes() -> None:
    largest = PNG + bytes(MAX_BYTES - len(PNG))
    assert source_of({"image": base64_of(largest)}) == Image(largest, "image/png")


NAMES = [
    *("url", "image", "requestContext", "headers", "body", "isBase64Encoded", "httpMethod"),
    *("multiValueHeaders", "http", "method", "elb", "Records", "eventSource", "detail-type"),
    *("content-type", "user-agent"),
]
TEXTS = ["OPTIONS", "GET", "ELB-HealthChecker/2.0", JSON_URL, JSON_TYPE, "image/png", "data:,"]
anything = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text() | st.sampled_from(TEXTS),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.sampled_from(NAMES), children)
    ),
    max_leaves=10,
)
STATUSES = {200, 204, 400, 403, 405, 413, 415, 429, 500, 502, 504}


@given(anything)
def test_any_json_is_understood_or_refused(event: object) -> None:
    with suppress(RequestError):
        assert isinstance(source_of(event), Image | str)
    request = HttpRequest.in_event(event)
    if request:
        for status in STATUSES:
            answer = {"statusCode": status, "headers": {"a": "b"}, "body": ""}
            assert request.answered(dict(answer)).items() >= answer.items()
