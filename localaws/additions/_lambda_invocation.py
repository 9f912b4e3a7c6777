"""Lambda's Invoke: a function that runs."""

import base64
import json
from typing import Any
from urllib.parse import unquote
from uuid import uuid4

from moto.awslambda import responses
from moto.awslambda.exceptions import LambdaClientError
from moto.core.common_types import TYPE_RESPONSE

from localaws.execution import running
from localaws.functions.records import InvocationError, function_of, version_of
from localaws.functions.service import Functions
from localaws.operations import RefusedError

MAX_BYTES = 6_291_456
MAX_ASYNCHRONOUS_BYTES = 1_048_576
"""Since October 2025; 256 KiB before."""
MAX_CONTEXT_BYTES = 3583

_REQUEST_ID = "x-amzn-requestid"

Headers = dict[str, str]


class ResourceConflictException(LambdaClientError):
    """What is to be made exists already."""

    code = 409

    def __init__(self, message: str) -> None:
        super().__init__("ResourceConflictException", message)


class InvocationAnswers(responses.LambdaResponse):
    """Moto's answers, with functions that run; where localaws keeps records only, none does."""

    def invoke(self) -> TYPE_RESPONSE:
        """Run a function."""
        try:
            return self._invoke(_service())
        except InvocationError as error:
            return _refused(error)

    def invoke_async(self) -> TYPE_RESPONSE:
        """The operation that `Invoke` with an event has replaced."""
        service = _service()
        try:
            payload = _checked(self._payload(), MAX_ASYNCHRONOUS_BYTES)
        except InvocationError as error:
            return _refused(error)
        service.submit(self._called()[0], None, payload)
        return 202, {"status": "202"}, json.dumps({"Status": 202})

    @staticmethod
    def _enrich_response(headers: Headers, body: Any) -> tuple[Headers, Any]:
        """Add what moto adds, but for an invocation's id, by which its log is found."""
        own = {name: value for name, value in headers.items() if name == _REQUEST_ID}
        enriched, body = responses.LambdaResponse._enrich_response(headers, body)
        return {**enriched, **own}, body

    def _invoke(self, service: Functions) -> TYPE_RESPONSE:
        name, qualifier = self._called()
        kind = self.headers.get("X-Amz-Invocation-Type", "RequestResponse")
        most = MAX_ASYNCHRONOUS_BYTES if kind == "Event" else MAX_BYTES
        payload = _checked(self._payload(), most)
        # Its aliases and versions are not to be had either until it is made.
        if function_of(name).moving == "Pending":
            raise InvocationError(
                409,
                "ResourceConflictException",
                "The operation cannot be performed at this time. The function is currently in the"
                " following state: Pending",
            )
        if kind == "DryRun":
            version_of(name, qualifier)
            return 204, _headers(204, str(uuid4())), ""
        if kind == "Event":
            request_id = service.submit(name, qualifier, payload)
            return 202, _headers(202, request_id), ""
        context = _context(self.headers.get("X-Amz-Client-Context", ""))
        invoked = service.invoke(name, qualifier, payload, context)
        headers = {
            **_headers(200, invoked.request_id),
            "Content-Type": "application/json",
            "X-Amz-Executed-Version": invoked.version,
        }
        if invoked.outcome.failed:
            headers["X-Amz-Function-Error"] = "Unhandled"
        if self.headers.get("X-Amz-Log-Type") == "Tail":
            headers["X-Amz-Log-Result"] = base64.b64encode(invoked.outcome.log_tail).decode()
        return 200, headers, invoked.outcome.payload

    def _called(self) -> tuple[str, str | None]:
        """The function's name and the qualifier, which may be in the name or the ARN."""
        called = unquote(self.path.split("/functions/", 1)[1].split("/", 1)[0])
        name, _, qualifier = called.rpartition("function:")[2].partition(":")
        # Not moto's _get_param, which would look into the event too.
        return name, self.querystring.get("Qualifier", [qualifier])[0] or None

    def _payload(self) -> bytes:
        body: Any = self.body
        return body.encode() if isinstance(body, str) else bytes(body or b"")


def _service() -> Functions:
    if service := running(Functions):
        return service
    raise RefusedError("it keeps records only, so no function runs")


def _headers(status: int, request_id: str) -> Headers:
    # Moto takes the status from here.
    return {"status": str(status), _REQUEST_ID: request_id}


def _checked(payload: bytes, most: int) -> bytes:
    """The JSON that is sent, or `{}`.

    Raises:
        InvocationError: It is too large, or no JSON.
    """
    if len(payload) > most:
        raise InvocationError(
            413,
            "RequestTooLargeException",
            f"Request must be smaller than {most} bytes for the InvokeFunction operation",
        )
    try:
        json.loads(payload or b"{}")
    except ValueError as error:
        raise InvocationError(
            400,
            "InvalidRequestContentException",
            f"Could not parse request body into json: Could not parse payload into json: {error}",
        ) from error
    return payload or b"{}"


def _context(encoded: str) -> str:
    """The client's context as JSON; empty if there is none.

    Raises:
        InvocationError: It is no JSON in base64.
    """
    try:
        if len(encoded) > MAX_CONTEXT_BYTES:
            raise ValueError(f"it is over {MAX_CONTEXT_BYTES} bytes")
        context = base64.b64decode(encoded, validate=True).decode()
        # Over one line, for it goes on in a header.
        return json.dumps(json.loads(context)) if context else ""
    except ValueError as error:
        raise InvocationError(
            400, "InvalidRequestContentException", f"Client context must be a valid Json: {error}"
        ) from error


def _refused(error: InvocationError) -> TYPE_RESPONSE:
    content = {"Type": "User" if error.status < 500 else "Service", "message": str(error)}
    if error.reason:
        content["Reason"] = error.reason
    headers = {
        **_headers(error.status, str(uuid4())),
        "Content-Type": "application/json",
        "x-amzn-ErrorType": error.code,
    }
    return error.status, headers, json.dumps(content)
