"""S3's DeleteObjects, of which each object is allowed or denied by itself."""

from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape

_END = b"</DeleteResult>"
_NONE_DELETED = b'<?xml version="1.0" encoding="UTF-8"?><DeleteResult></DeleteResult>'


def remaining(delete: Mapping[str, Any], denied: Mapping[str, str]) -> bytes:
    """Give the body of a request for what is not denied; empty if that is nothing.

    Args:
        delete: The request's parameter "Delete".
        denied: Messages by the keys of the objects that the caller may not delete.
    """
    objects = [entry for entry in delete["Objects"] if entry["Key"] not in denied]
    if not objects:
        return b""
    entries = "".join(
        "<Object>"
        + "".join(f"<{name}>{escape(str(value))}</{name}>" for name, value in entry.items())
        + "</Object>"
        for entry in objects
    )
    quiet = "<Quiet>true</Quiet>" if delete.get("Quiet") else ""
    return f"<Delete>{entries}{quiet}</Delete>".encode()


def with_errors(answer: bytes, denied: Mapping[str, str]) -> bytes:
    """Add what was denied to S3's answer about the rest.

    Args:
        answer: S3's answer; empty if it was not asked.
        denied: Messages by the keys of the objects that the caller may not delete.
    """
    errors = "".join(
        f"<Error><Key>{escape(key)}</Key><Code>AccessDenied</Code>"
        f"<Message>{escape(message)}</Message></Error>"
        for key, message in denied.items()
    )
    return (answer or _NONE_DELETED).replace(_END, errors.encode() + _END)
