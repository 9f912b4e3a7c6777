"""The Lambda function: event in, response out.

The function's handler is `lambda_src.handler.handler`. Its environment: ENDPOINT_NAME (required),
KENNEL_ALLOWED_HOSTS, KENNEL_ALLOW_HTTP and KENNEL_CONTACT (see `fetch.py`), and Powertools' own:
POWERTOOLS_SERVICE_NAME, POWERTOOLS_METRICS_NAMESPACE, POWERTOOLS_LOG_LEVEL,
POWERTOOLS_TRACE_DISABLED.
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

from lambda_src.deadline import Deadline
from lambda_src.endpoint import Endpoint
from lambda_src.errors import RequestError
from lambda_src.events import source_of
from lambda_src.fetch import Fetcher
from lambda_src.http_events import METHODS, HttpRequest
from lambda_src.images import Image
from lambda_src.runtime import Runtime

if TYPE_CHECKING:
    from aws_lambda_powertools import Tracer
    from aws_lambda_powertools.utilities.typing import LambdaContext

Response = dict[str, Any]
Handler = Callable[[Any, "LambdaContext"], Response]

FETCH_SECONDS = 5.0
ENDPOINT_SECONDS = 1.0
"""Time that a fetch leaves to the endpoint."""
MARGIN_SECONDS = 0.5
"""Time kept back to answer 504 before Lambda kills the function."""
RETRY_AFTER_SECONDS = 1

_SERVICE = os.environ.get("POWERTOOLS_SERVICE_NAME", "kennel")
logger = Logger(service=_SERVICE)
metrics = Metrics(
    namespace=os.environ.get("POWERTOOLS_METRICS_NAMESPACE", "Kennel"), service=_SERVICE
)
_FETCHER = Fetcher.from_environment(os.environ)
_RUNTIME = Runtime.from_environment(os.environ, _FETCHER.tls)


def _tracer() -> "Tracer | None":
    """X-Ray's, unless POWERTOOLS_TRACE_DISABLED is true."""
    if os.environ.get("POWERTOOLS_TRACE_DISABLED", "").lower() in {"1", "true"}:
        return None
    # Imported here since X-Ray's SDK costs a cold start 0.1 s.
    from aws_lambda_powertools import Tracer

    return Tracer(service=_SERVICE, auto_patch=False)


_TRACER = _tracer()


def _traced(handler: Handler) -> Handler:
    if not _TRACER:
        return handler
    # Without the response and exceptions, which hold what callers sent.
    return _TRACER.capture_lambda_handler(handler, capture_response=False, capture_error=False)


@_traced
@logger.inject_lambda_context(clear_state=True)
def handler(event: object, context: "LambdaContext") -> Response:
    """Answer one event.

    Args:
        event: See `events.source_of`; also a browser's preflight and a load balancer's health
            check, which ask about no image.
        context: Lambda's context; its remaining time bounds everything done here.

    Returns:
        `{"statusCode", "headers", "body"}`, and what a load balancer needs besides. The body is the
        endpoint's JSON, or `{"error", "message"}` with 400, 403, 405, 413, 415, 429, 502, 504, or
        500 for a fault or a missing setting of the function itself. 204 for a preflight.
    """
    request = HttpRequest.in_event(event)
    if request and request.method == "OPTIONS":
        # Which pages may call is set where the address is: a function URL, an API.
        answer = _response(context, 204, "")
    elif request and request.is_health_check:
        answer = _response(context, 200, json.dumps({"status": "ok"}))
    else:
        answer = _counted(event, context)
    return request.answered(answer) if request else answer


@metrics.log_metrics(capture_cold_start_metric=True)
def _counted(event: object, context: "LambdaContext") -> Response:
    try:
        status, body = 200, _predictions(event, _deadline(context))
    except RequestError as error:
        status, body = error.status, _error_body(error.error, error.message)
        log = logger.error if status >= 500 else logger.info
        log(error.message, status=status, error=error.error, exc_info=status >= 500)
    except TimeoutError:
        status, body = 504, _error_body("timeout", "the function ran out of time")
        logger.warning("out of time")
    except Exception:
        # Lambda would send the trace to the caller.
        status, body = 500, _error_body("internal", "the function failed; its log says why")
        logger.exception("failed")
    metrics.add_metric(name=_outcome(status), unit=MetricUnit.Count, value=1)
    return _response(context, status, body)


def _response(context: "LambdaContext", status: int, body: str) -> Response:
    headers = {"x-request-id": context.aws_request_id}
    if body:
        headers["content-type"] = "application/json"
    if status in (204, 405):
        headers["allow"] = METHODS
    if status == 429:
        headers["retry-after"] = str(RETRY_AFTER_SECONDS)
    return {"statusCode": status, "headers": headers, "body": body}


def _deadline(context: "LambdaContext") -> Deadline:
    return Deadline.after(context.get_remaining_time_in_millis() / 1000 - MARGIN_SECONDS)


def _predictions(event: object, deadline: Deadline) -> str:
    name = os.environ.get("ENDPOINT_NAME")
    if not name:
        raise RequestError(500, "misconfigured", "the function's ENDPOINT_NAME is not set")
    image = _image(source_of(event), deadline)
    with _timed("EndpointTime"), _subsegment("runtime.sagemaker"):
        answer = Endpoint(_RUNTIME, name).predict(image, deadline)
    metrics.add_metric(name="EndpointRetries", unit=MetricUnit.Count, value=answer.attempts - 1)
    return answer.body


def _image(source: Image | str, deadline: Deadline) -> Image:
    if isinstance(source, Image):
        return source
    with _timed("FetchTime"):
        return _FETCHER.fetch(source, min(FETCH_SECONDS, deadline.left() - ENDPOINT_SECONDS))


def _subsegment(name: str) -> AbstractContextManager[object]:
    """A call of AWS, for X-Ray."""
    return _TRACER.provider.in_subsegment(name, namespace="aws") if _TRACER else nullcontext()


@contextmanager
def _timed(name: str) -> Iterator[None]:
    started = time.perf_counter()
    try:
        yield
    finally:
        milliseconds = (time.perf_counter() - started) * 1000
        metrics.add_metric(name=name, unit=MetricUnit.Milliseconds, value=milliseconds)


def _error_body(error: str, message: str) -> str:
    return json.dumps({"error": error, "message": message})


def _outcome(status: int) -> str:
    """Name of the metric that counts this answer."""
    if status == 200:
        return "Answered"
    return "Refused" if status < 500 else "Failed"
