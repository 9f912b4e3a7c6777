"""Function URLs, each on a port of its own of the loopback interface.

Events and answers have payload format 2.0; source: "Invoking Lambda function URLs" of Lambda's
developer guide.
"""

import base64
import json
import re
import sys
import threading
import time
import urllib.parse
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from moto.core.exceptions import JsonRESTError

from localaws import gate
from localaws.execution import ACCOUNT
from localaws.functions.records import InvocationError, arn_of, function_of, functions
from localaws.iam.authorization import Caller, caller_of, decide
from localaws.iam.policy import PolicyError, Request
from localaws.iam.signature import AuthenticationError, Sent, check, find
from localaws.loopback import LOOPBACK, LoopbackServer, Requests
from localaws.processes import Running

if TYPE_CHECKING:
    from localaws.functions.service import Functions

MAX_REQUEST_BYTES = 6_291_456

_SETTLE_SECONDS = 5.0
# The rights that a URL has asked for since October 2025.
_ACTIONS = ("lambda:InvokeFunctionUrl", "lambda:InvokeFunction")
_FORBIDDEN = (
    "Forbidden. For troubleshooting Function URL authorization issues, see: "
    "https://docs.aws.amazon.com/lambda/latest/dg/urls-auth.html"
)
_TEXT = re.compile(
    r"text/|application/(json|javascript|xml|x-www-form-urlencoded)\b|.*\+(json|xml)\b"
)

Json = dict[str, Any]


@dataclass(frozen=True)
class _Served:
    server: LoopbackServer
    since: float


class FunctionUrls(Running):
    """The servers of all function URLs."""

    def __init__(self, functions: "Functions") -> None:
        """Serve none yet."""
        self._functions = functions
        self._lock = threading.Lock()
        self._servers: dict[str, _Served] = {}

    def open(self, name: str, qualifier: str | None, port: int = 0) -> str:
        """Serve the URL of a function or an alias.

        Args:
            name: The function's name.
            qualifier: The alias; None for what is not published.
            port: The one that it had before; 0 for a free one.

        Returns:
            The URL.

        Raises:
            OSError: The port is in use.
        """
        answer = partial(_answer, self._functions, name, qualifier)
        with self._lock:
            server = LoopbackServer(_requests(answer), port)
            url = f"http://{server.address}/"
            self._servers[url] = _Served(server, time.monotonic())
        return url

    def follow_records(self) -> None:
        """Serve what the records hold, where it was before, and nothing else."""
        held = {}
        for function in functions():
            for qualifier, found in list(function.qualified.items()):
                if found.url and found.url.url.startswith(f"http://{LOOPBACK}:"):
                    held[found.url.url] = (function, qualifier, found.url)
        with self._lock:
            # One that was just opened is about to be recorded.
            settled = time.monotonic() - _SETTLE_SECONDS
            gone = [
                self._servers.pop(url)
                for url, served in list(self._servers.items())
                if url not in held and served.since < settled
            ]
        for served in gone:
            served.server.stop()
        for url in set(held) - set(self._servers):
            self._open_again(*held[url])

    def stop(self) -> None:
        """End all servers."""
        with self._lock:
            all_served = list(self._servers.values())
            self._servers.clear()
        for served in all_served:
            served.server.stop()

    def _open_again(self, function: Any, qualifier: str, record: Any) -> None:
        called = None if qualifier == "$LATEST" else qualifier
        try:
            self.open(function.function_name, called, urllib.parse.urlsplit(record.url).port or 0)
        except OSError:
            former = record.url
            with self._functions.execution.changing():
                record.url = self.open(function.function_name, called)
            print(
                f"{former} is in use; {function.function_name} is at {record.url}", file=sys.stderr
            )


class _Refused(Exception):
    """A request that does not reach the function."""

    def __init__(self, status: int, content: Json, error: str = "") -> None:
        super().__init__()
        self.status = status
        self.content = content
        self.headers = {"x-amzn-ErrorType": error} if error else {}


_Answer = tuple[int, bytes, list[tuple[str, str]]]


def _requests(answer: Callable[[Requests], _Answer]) -> type[Requests]:
    class Answering(Requests):
        def _serve(self) -> None:
            status, body, headers = answer(self)
            self.send_response_only(status)
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_DELETE = do_GET = do_HEAD = do_OPTIONS = do_PATCH = do_POST = do_PUT = _serve

    return Answering


def _answer(service: "Functions", name: str, qualifier: str | None, request: Requests) -> _Answer:
    """The function's answer to a request, or Lambda's own."""
    request_id = str(uuid.uuid4())
    own = [("Content-Type", "application/json"), ("x-amzn-RequestId", request_id)]
    cors: Mapping[str, Any] = {}
    try:
        body = _body(request)
        if why := gate.foreign_host(request.path, request.headers):
            raise _Refused(403, {"Message": why}, "AccessDeniedException")
        function = function_of(name)
        record = function.at(qualifier).url
        config = record.config if record else {}
        cors = config.get("Cors") or {}
        if cors and request.command == "OPTIONS":
            return 200, b"", [*own, *_cors_headers(cors, request, is_preflight=True)]
        _check_page(cors, request)
        arn, auth_type = arn_of(function, qualifier), config.get("AuthType", "")
        caller = _authorized(request, body, arn, auth_type)
        event = _event(request, body, request_id, caller)
        invoked = service.invoke(name, qualifier, json.dumps(event).encode())
        if invoked.outcome.failed:
            raise _Refused(502, {"Message": "Internal Server Error"})
        status, content, headers = _response(json.loads(invoked.outcome.payload))
        headers.append(own[1])
    except _Refused as error:
        status, content = error.status, json.dumps(error.content).encode()
        headers = own + list(error.headers.items())
    except InvocationError as error:
        told = {"Reason": error.reason, "Type": "User", "message": str(error)}
        status, content = error.status, json.dumps(told).encode()
        headers = [*own, ("x-amzn-ErrorType", error.code)]
    except JsonRESTError:
        status, content, headers = 404, b'{"Message":"Not Found"}', own
    return status, content, headers + _cors_headers(cors, request)


def _body(request: Requests) -> bytes:
    if int(request.headers.get("Content-Length", 0)) <= MAX_REQUEST_BYTES:
        return request.body()
    # What is not read would be taken for the next request.
    request.close_connection = True
    raise _Refused(413, {"Message": "Request Too Long"}, "RequestTooLargeException")


def _check_page(cors: Mapping[str, Any], request: Requests) -> None:
    """Let in the function's own pages, and those of the origins that its URL allows.

    Lambda runs the function for any page and leaves it to the browser to keep the answer from it.
    Here it may be a function that nobody meant for the Internet.
    """
    page = gate.page_of(request.headers)
    if page not in ("", gate.own_origin(request.headers)) and not _allows(cors, page):
        why = f"localaws: the CORS configuration of this URL does not allow the origin {page[:100]}"
        raise _Refused(403, {"Message": why}, "AccessDeniedException")


def _allows(cors: Mapping[str, Any], origin: str) -> bool:
    origins = cors.get("AllowOrigins") or []
    return "*" in origins or origin in origins


def _authorized(request: Requests, body: bytes, arn: str, auth_type: str) -> tuple[Caller, str]:
    """Who calls, and by which access key; a URL's own lock, whether IAM is enforced or not."""
    access_key = ""
    context = {
        "aws:SecureTransport": "true",
        "lambda:FunctionUrlAuthType": auth_type,
        "lambda:InvokedViaFunctionUrl": "true",
    }
    try:
        caller = Caller()
        if auth_type == "AWS_IAM":
            sent = Sent(request.command, request.path, request.headers, lambda: body)
            signature = find(sent)
            if signature and signature.service == "lambda":
                access_key = signature.access_key
                caller = caller_of(access_key, signature.token)
                check(sent, signature, caller.secret)
        allowed = (access_key or auth_type == "NONE") and all(
            decide(caller, Request(action, arn, context)).allowed for action in _ACTIONS
        )
    except (AuthenticationError, PolicyError):
        allowed = False
    if not allowed:
        raise _Refused(403, {"Message": _FORBIDDEN}, "AccessDeniedException")
    return caller, access_key


def _event(request: Requests, body: bytes, request_id: str, called_by: tuple[Caller, str]) -> Json:
    """What the function gets."""
    caller, access_key = called_by
    url = urllib.parse.urlsplit(request.path)
    query = urllib.parse.parse_qs(url.query, keep_blank_values=True)
    headers: dict[str, str] = {}
    for name, value in request.headers.items():
        key = name.lower()
        headers[key] = f"{headers[key]},{value}" if key in headers else value
    cookies = [cookie.strip() for cookie in headers.pop("cookie", "").split(";") if cookie.strip()]
    host = headers.get("host", LOOPBACK)
    path = urllib.parse.unquote(url.path)
    now = datetime.now(UTC)
    context: Json = {
        "accountId": ACCOUNT if access_key else "anonymous",
        "apiId": host.partition(".")[0],
        "domainName": host,
        "domainPrefix": host.partition(".")[0],
        "http": {
            "method": request.command,
            "path": path,
            "protocol": request.request_version,
            "sourceIp": request.client_address[0],
            "userAgent": headers.get("user-agent", ""),
        },
        "requestId": request_id,
        "routeKey": "$default",
        "stage": "$default",
        "time": now.strftime("%d/%b/%Y:%H:%M:%S +0000"),
        "timeEpoch": int(time.time() * 1000),
    }
    if access_key:
        context["authorizer"] = {
            "iam": {
                "accessKey": access_key,
                "accountId": ACCOUNT,
                "callerId": access_key,
                "cognitoIdentity": None,
                "principalOrgId": None,
                "userArn": caller.name,
                "userId": access_key,
            }
        }
    text, is_base64 = _text(body, headers.get("content-type", ""))
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": url.query,
        "headers": headers,
        "requestContext": context,
        **({"cookies": cookies} if cookies else {}),
        **({"queryStringParameters": {k: ",".join(v) for k, v in query.items()}} if query else {}),
        **({"body": text} if body else {}),
        "isBase64Encoded": is_base64,
    }


def _text(body: bytes, content_type: str) -> tuple[str, bool]:
    """A body as it is in an event, and whether it is in base64 there."""
    if not body or _TEXT.match(content_type):
        with suppress(UnicodeDecodeError):
            return body.decode(), False
    return base64.b64encode(body).decode(), True


def _response(content: Any) -> tuple[int, bytes, list[tuple[str, str]]]:
    """The function's answer as HTTP."""
    if not isinstance(content, dict) or "statusCode" not in content:
        text = content if isinstance(content, str) else json.dumps(content)
        return 200, text.encode(), [("Content-Type", "application/json")]
    try:
        status = HTTPStatus(int(content["statusCode"])).value
        headers = {str(k).lower(): str(v) for k, v in (content.get("headers") or {}).items()}
        body = content.get("body") or ""
        text = body if isinstance(body, str) else json.dumps(body)
        raw = base64.b64decode(text) if content.get("isBase64Encoded") else text.encode()
        cookies = [("Set-Cookie", str(cookie)) for cookie in content.get("cookies") or []]
    except (AttributeError, TypeError, ValueError) as error:
        raise _Refused(502, {"Message": "Internal Server Error"}) from error
    headers.setdefault("content-type", "application/json")
    headers.pop("content-length", None)
    return status, raw, [*headers.items(), *cookies]


def _cors_headers(
    cors: Mapping[str, Any], request: Requests, *, is_preflight: bool = False
) -> list[tuple[str, str]]:
    """What a browser is told of who may read the answer."""
    origin = request.headers.get("Origin", "")
    if not origin or not _allows(cors, origin):
        return []
    headers = [("Access-Control-Allow-Origin", origin), ("Vary", "Origin")]
    if cors.get("AllowCredentials"):
        headers.append(("Access-Control-Allow-Credentials", "true"))
    lists = {"Access-Control-Expose-Headers": "ExposeHeaders"}
    if is_preflight:
        lists |= {
            "Access-Control-Allow-Headers": "AllowHeaders",
            "Access-Control-Allow-Methods": "AllowMethods",
        }
        if "MaxAge" in cors:
            headers.append(("Access-Control-Max-Age", str(cors["MaxAge"])))
    return headers + [(name, ",".join(cors[key])) for name, key in lists.items() if cors.get(key)]
