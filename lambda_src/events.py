"""What a Lambda event asks about: an image that it carries, or a URL of one."""

import json
from collections.abc import Mapping

from lambda_src.compression import compressions
from lambda_src.encoded import decoded, is_data_uri
from lambda_src.errors import RequestError
from lambda_src.http_events import HttpRequest
from lambda_src.images import Image, content_type_of, image_from

_EXPECTED = 'send a JSON object with either "url" or "image", alone or as the body of a POST'
_BINARY = frozenset({"application/octet-stream", "binary/octet-stream"})
_TYPES = "application/json, application/octet-stream or image/*"
_UNREAD = "which the function does not read; "
_COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd")
"""First bytes of gzip and zstd."""
_FORMS = frozenset({"multipart/form-data", "application/x-www-form-urlencoded"})


def source_of(event: object) -> Image | str:
    """The image in `event`, or the URL in it.

    Args:
        event: `{"url": "https://..."}`, `{"image": "<base64>"}`, or an HTTP request whose body is
            one of these as JSON, or the image itself.

    Raises:
        RequestError: 400 for an event or a body that is neither; 405 for another method than POST;
            413 and 415 as `image_from`, and 415 for a body of another content type.
    """
    request = HttpRequest.in_event(event)
    return _from_http(request) if request else _from_fields(event)


def _from_fields(fields: object) -> Image | str:
    """From `{"url": ...}` or `{"image": ...}`; null is as good as absent."""
    given = fields if isinstance(fields, Mapping) else {}
    url, image = given.get("url"), given.get("image")
    if (url is None) == (image is None):
        raise _bad_request(f"{_what_came(fields)}{_EXPECTED}")
    key, value = ("image", image) if url is None else ("url", url)
    if not isinstance(value, str):
        raise _bad_request(f'"{key}" is not a string')
    if key == "url" and not is_data_uri(value):
        return value
    return image_from(decoded(value))


def _what_came(event: object) -> str:
    """What another event than ours is, as far as it says so."""
    if not isinstance(event, Mapping):
        return ""
    if "warmer" in event or event.get("source") == "serverless-plugin-warmup":
        return "this is a warmer's event, and provisioned concurrency keeps the function warm; "
    if "detail-type" in event:
        return f"this is an event of EventBridge, {_UNREAD}"
    records = event.get("Records")
    first = records[0] if isinstance(records, list) and records else event
    if isinstance(first, Mapping):
        # SNS has capitals of its own.
        source = first.get("eventSource", first.get("EventSource"))
        if isinstance(source, str):
            return f"this is an event of {source}, {_UNREAD}"
    return ""


def _from_http(request: HttpRequest) -> Image | str:
    if request.method != "POST":
        raise RequestError(
            405, "method_not_allowed", f"{request.method} is not answered; {_EXPECTED}"
        )
    body = request.body
    if isinstance(body, Mapping):
        # A REST API without proxy integration, or an event written by hand.
        return _from_fields(body)
    if body is None or body == "":
        raise _bad_request(f"the request has no body; {_EXPECTED}")
    if not isinstance(body, str):
        raise _bad_request(f'"body" is neither text nor an object; {_EXPECTED}')
    content = decoded(body) if request.is_base64 else body
    # What an image is called does not count.
    if isinstance(content, bytes) and content_type_of(content):
        return image_from(content)
    if isinstance(content, bytes) and _is_compressed(content, request):
        raise RequestError(
            415,
            "unsupported_type",
            "the body is compressed, which is not read; send it without Content-Encoding",
        )
    content_type = request.content_type or "application/json"
    if content_type in ("application/json", "text/json") or content_type.endswith("+json"):
        return _from_fields(_parsed(content))
    if content_type not in _BINARY and not content_type.startswith("image/"):
        raise RequestError(415, "unsupported_type", f"{_form_remedy(content_type)}send {_TYPES}")
    if isinstance(content, str):
        raise _bad_request(
            "the body is not binary; where an API Gateway is in front, name image/* among its"
            " binary media types"
        )
    return image_from(content)


def _is_compressed(content: bytes, request: HttpRequest) -> bool:
    """Whether a body is compressed; one whose header says so may have been unpacked on the way."""
    if content.startswith(_COMPRESSED):
        return True
    is_object = content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")
    return bool(compressions(request.headers.get("content-encoding", ""))) and not is_object


def _form_remedy(content_type: str) -> str:
    if content_type in _FORMS:
        return (
            f"{content_type} is not read; send the file itself as the body with its own"
            " Content-Type, or JSON as application/json; "
        )
    return ""


def _parsed(content: str | bytes) -> object:
    try:
        text = content.decode() if isinstance(content, bytes) else content
        return json.loads(text.lstrip("\ufeff"))  # byte order marks
    except (ValueError, RecursionError) as error:
        raise _bad_request(f"the body is not JSON in UTF-8{_where(content, error)}") from None


def _where(content: str | bytes, error: Exception) -> str:
    # A service that takes UTF-16 for UTF-8 replaces its mark.
    sent = (
        content if isinstance(content, bytes) else content.lstrip("\ufffd").encode(errors="replace")
    )
    encoding = json.detect_encoding(sent)
    if not encoding.startswith("utf-8"):
        return f"; it is {encoding[:6].upper()}, save it as UTF-8"
    return f": {error}" if isinstance(error, json.JSONDecodeError) else ""


def _bad_request(why: str) -> RequestError:
    return RequestError(400, "bad_request", why)
