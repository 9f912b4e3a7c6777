"""The HTTP interface: three routes, errors as JSON, a log line and metrics for each request."""

import random
import re
import time
from http import HTTPStatus

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inference.body import RequestBody
from inference.contract import MAX_BODY_BYTES, ContentTypeError, check_content_type
from inference.logs import log
from inference.preprocess import ImageError
from inference.refusal import RefusedError, refused_input
from inference.service import Service
from inference.telemetry import Telemetry

_ID_HEADERS = ("x-amzn-sagemaker-inference-id", "x-request-id")
_ID = re.compile(r"[\x21-\x7e]{1,128}")
_ROUTES = ("GET /ping", "POST /invocations", "GET /metrics")


def create_app(service: Service, body_timeout_s: float, hosts: str = "") -> ASGIApp:
    """Give the ASGI application.

    Args:
        service: What answers pictures.
        body_timeout_s: The longest time, in seconds, that a body may take to arrive.
        hosts: The names, with commas between, by which it may be asked; empty: by any.
    """
    telemetry = Telemetry(lambda: service.in_flight)

    async def ping(_: Request) -> Response:
        return Response(status_code=200 if service.is_ready else 503)

    async def metrics(_: Request) -> Response:
        return Response(telemetry.render(), media_type=CONTENT_TYPE_LATEST)

    async def invocations(request: Request) -> Response:
        with service.admitted():
            check_content_type(request.headers.get("content-type"))
            body = await request.state.body.read(MAX_BODY_BYTES, body_timeout_s)
            request.state.fields["bytes"] = len(body)
            answer = await service.answer(body)
        request.state.fields.update(
            batch=answer.batch,
            decode_ms=answer.decode_ms,
            queue_ms=answer.queue_ms,
            inference_ms=answer.inference_ms,
        )
        return JSONResponse(answer.body)

    app = Starlette(
        routes=[
            Route("/ping", ping),
            Route("/invocations", invocations, methods=["POST"]),
            Route("/metrics", metrics),
        ],
        exception_handlers=dict.fromkeys(
            (RefusedError, ContentTypeError, ImageError, HTTPException, Exception), _respond
        ),
    )
    app.router.redirect_slashes = False
    known = frozenset(hosts.lower().split(",")) if hosts else None
    return _Observed(_Named(app, known) if known else app, service, telemetry)


class _Named:
    """Answers to its own names only: a web page's may have been made to lead here."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        named = Headers(scope=scope).getlist("host")
        hosts = {re.sub(r":\d+$", "", host).lower() for host in named}
        if len(hosts) == 1 and hosts <= self._hosts:
            await self._app(scope, receive, send)
            return
        shown = ", ".join(named)[:100]
        message = f"the server answers to {', '.join(sorted(self._hosts))} only, not to {shown!r}"
        refused = RefusedError(403, "foreign_host", message)
        scope["state"]["fields"]["error"] = refused.error
        await refused.response()(scope, receive, send)


class _Observed:
    """Gives every request its id, its bounded body, its log line and its place in the metrics."""

    def __init__(self, app: ASGIApp, service: Service, telemetry: Telemetry) -> None:
        self._app = app
        self._service = service
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        body = RequestBody(scope, receive)
        fields: dict[str, object] = {"request_id": _request_id(Headers(scope=scope))}
        scope.setdefault("state", {}).update(body=body, fields=fields)
        status = 500

        async def send_observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = str(fields["request_id"])
                is_read = await body.discard()
                if self._service.is_draining or not is_read:
                    headers["Connection"] = "close"
            await send(message)

        error: Exception | None = None
        try:
            await self._app(scope, receive, send_observed)
        except Exception as unexpected:  # answered by _respond; the traceback is for the log only
            error = unexpected
        seconds = time.perf_counter() - started
        path = scope["path"]
        batch = fields.get("batch")
        self._telemetry.count(path, status, seconds, batch if isinstance(batch, int) else None)
        # Health checks and scrapes come every few seconds: a line for each would bury the others.
        if status != HTTPStatus.OK or path == "/invocations":
            milliseconds = round(seconds * 1e3, 2)
            log("request", error, path=path, status=status, total_ms=milliseconds, **fields)


def _request_id(headers: Headers) -> str:
    given = (headers.get(name, "") for name in _ID_HEADERS)
    # Not uuid4: reading the system's random numbers hands the interpreter to another thread.
    made = f"{random.getrandbits(128):032x}"
    return next((value for value in given if _ID.fullmatch(value)), made)


async def _respond(request: Request, error: Exception) -> Response:
    refusal = _refusal(request, error)
    request.state.fields["error"] = refusal.error
    return refusal.response()


def _refusal(request: Request, error: Exception) -> RefusedError:
    match error:
        case RefusedError():
            return error
        case ContentTypeError() | ImageError():
            return refused_input(error)
        case HTTPException(status_code=status, headers=headers):
            message = f"{request.method} {request.url.path} is none of {', '.join(_ROUTES)}"
            return RefusedError(status, HTTPStatus(status).name.lower(), message, headers)
        case _:
            message = "the server failed; its log has the reason under this request's id"
            return RefusedError(500, "internal", message)
