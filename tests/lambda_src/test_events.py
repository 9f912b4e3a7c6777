import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambda_src.errors import RequestError
from lambda_src.events import source_of
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


JSON_URL = json.dumps({"url": URL})
JSON_IMAGE = json.dumps({"image": base64_of(PNG)})


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
        ({"requestContext": None, "headers": "no", "body": "{}", "isBase64Encoded": "true"}, 400),
    ],
)
def test_anything_else_is_refused(event: object, status: int) -> None:
    with pytest.raises(RequestError) as refusal:
        source_of(event)
    assert refusal.value.status == status


def test_the_largest_image_passes() -> None:
    largest = PNG + bytes(MAX_BYTES - len(PNG))
    assert source_of({"image": base64_of(largest)}) == Image(largest, "image/png")


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["url", "image", "requestContext", "headers", "body", "isBase64Encoded"]
            ),
            children,
        )
    ),
    max_leaves=10,
)


@given(anything)
def test_any_json_is_understood_or_refused(event: object) -> None:
    try:
        source = source_of(event)
    except RequestError:
        return
    assert isinstance(source, Image | str)
