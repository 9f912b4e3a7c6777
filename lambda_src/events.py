"""What a Lambda event asks about: an image that it carries, or a URL of one."""

import base64
import binascii
import json
from collections.abc import Mapping

from lambda_src.errors import RequestError
from lambda_src.images import Image, check_size, image_from


def source_of(event: object) -> Image | str:
    """The image in `event`, or the URL in it.

    Args:
        event: `{"url": "https://..."}`, `{"image": "<base64>"}`, or an event of an HTTP API
            (payload format 2.0) or a function URL whose body is one of these as JSON, or the image
            itself.

    Raises:
        RequestError: 400 for an event or a body that is neither; 413 and 415 as `image_from`, and
            415 for a body of another content type.
    """
    if isinstance(event, Mapping) and "requestContext" in event:
        return _from_http(event)
    return _from_fields(event)


def _from_fields(fields: object) -> Image | str:
    if not isinstance(fields, Mapping) or ("url" in fields) == ("image" in fields):
        raise _bad_request('send a JSON object with either "url" or "image"')
    key = "url" if "url" in fields else "image"
    value = fields[key]
    if not isinstance(value, str):
        raise _bad_request(f'"{key}" is not a string')
    return value if key == "url" else image_from(_decoded(value))


def _from_http(event: Mapping[str, object]) -> Image | str:
    body = event.get("body")
    if not isinstance(body, str) or not body:
        raise _bad_request("the request has no body")
    content_type = _content_type(event.get("headers"))
    is_base64 = event.get("isBase64Encoded") is True
    if content_type == "application/json":
        return _from_fields(_parsed(_decoded(body) if is_base64 else body))
    if content_type != "application/octet-stream" and not content_type.startswith("image/"):
        raise RequestError(
            415, "unsupported_type", "send application/json, application/octet-stream or image/*"
        )
    if not is_base64:
        raise _bad_request("the body is not binary")
    return image_from(_decoded(body))


def _content_type(headers: object) -> str:
    """The request's media type without parameters; JSON if it names none."""
    items = headers.items() if isinstance(headers, Mapping) else ()
    named = (value for name, value in items if str(name).lower() == "content-type")
    return str(next(named, "application/json")).partition(";")[0].strip().lower()


def _parsed(body: str | bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise _bad_request("the body is not JSON") from None


def _decoded(text: str) -> bytes:
    check_size(len(text) // 4 * 3 - 2)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _bad_request("the base64 does not decode (it may hold no line breaks)") from None


def _bad_request(why: str) -> RequestError:
    return RequestError(400, "bad_request", why)
