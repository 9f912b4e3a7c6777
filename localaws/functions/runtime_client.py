"""The part of AWS's runtime interface client that is compiled, in Python.

`awslambdaric` brings it as an extension module for the Python that it was installed for. Under any
other one, this file is found in its place; all else of the client is AWS's own.
"""

import http.client
import os
from collections.abc import Mapping
from typing import Any

_INVOCATION = "/2018-06-01/runtime/invocation"
_ACCEPTED = 202

_agent = ""


def initialize_client(user_agent: str) -> None:
    """Take the name under which the client asks."""
    global _agent
    _agent = user_agent


def next() -> tuple[bytes, dict[str, Any]]:
    """Wait for an event; give it, and what is said of it."""
    body, headers = _ask("GET", "next", None, {}, http.client.OK)
    deadline = "Lambda-Runtime-Deadline-Ms"
    return body, {**headers, deadline: int(headers[deadline])}


def post_invocation_result(
    invoke_id: str, data: bytes, content_type: str, invocation_id: str | None = None
) -> None:
    """Give the function's answer."""
    headers = {"Content-Type": content_type, **_id(invocation_id)}
    _ask("POST", f"{invoke_id}/response", data, headers, _ACCEPTED)


def post_error(
    invoke_id: str, data: str, xray_fault: str, invocation_id: str | None = None
) -> None:
    """Give the function's error."""
    headers = {"Content-Type": "application/json", **_id(invocation_id)}
    if xray_fault:
        headers["Lambda-Runtime-Function-XRay-Error-Cause"] = xray_fault
    _ask("POST", f"{invoke_id}/error", data.encode(), headers, _ACCEPTED)


def _id(invocation_id: str | None) -> dict[str, str]:
    return {"Lambda-Runtime-Invocation-Id": invocation_id} if invocation_id else {}


def _ask(
    method: str, path: str, body: bytes | None, headers: Mapping[str, Any], expected: int
) -> tuple[bytes, dict[str, str]]:
    connection = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    try:
        connection.request(method, f"{_INVOCATION}/{path}", body, {"User-Agent": _agent, **headers})
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != expected:
            raise RuntimeError(f"the runtime API answered {answer.status} to {method} {path}")
        return content, dict(answer.getheaders())
    finally:
        connection.close()
