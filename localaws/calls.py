"""Which AWS operation a request asks for, and how AWS says that there is none.

The operation is found by botocore's service models: the credential scope names the service; the
`X-Amz-Target` header, the `Action` parameter or the service's routes name the operation.
"""

import gzip
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from keyword import iskeyword
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

import botocore
from botocore.exceptions import UnknownServiceError
from moto.core.request import Request
from moto.core.routing import get_service_router
from moto.core.utils import get_service_model
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response

from localaws.operations import KEPT

CALL = "localaws.call"
"""Where a request's environ has its call, once that is known."""

_SCOPE = re.compile(r"(?P<key>[^/=\s]+)/\d{8}/(?P<region>[^/]*)/(?P<service>[^/]+)/aws4_request")
_CBOR_PATH = re.compile(r"^/service/(?P<target>[^/]+)/operation/(?P<operation>[^/]+)$")
# Requests that carry no signature, for they are how credentials are got.
_UNSIGNED_ACTIONS = {"AssumeRoleWithSAML": "sts", "AssumeRoleWithWebIdentity": "sts"}
# A service's metadata come within the first bytes of its model, which may hold megabytes.
_METADATA_BYTES = 4096
_METADATA = re.compile(r'"(endpointPrefix|signingName|targetPrefix)"\s*:\s*"([^"]+)"')


@dataclass(frozen=True)
class Call:
    """What a request asks for.

    Attributes:
        service: The service's name in botocore, such as "application-autoscaling"; the name in the
            request's credential scope where botocore has no such service.
        operation: The operation's name in botocore; method and path where it has no such route.
        protocol: "json", "cbor", "query", "ec2", "rest-json" or "rest-xml": how to answer.
        access_key: Id of the caller's access key; empty for an unsigned request.
        region: The region in the credential scope; empty for an unsigned request.
        resource: The parameters in the request's path, such as "Bucket".
    """

    service: str
    operation: str
    protocol: str
    access_key: str
    region: str
    resource: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.service}:{self.operation}"

    @property
    def module(self) -> str:
        """The file in which an addition for the service belongs."""
        name = self.service.replace("-", "_")
        return f"localaws/additions/{name}{'_' if iskeyword(name) else ''}.py"


@dataclass(frozen=True)
class _Metadata:
    service: str
    signing_name: str
    target_prefix: str


@cache
def _services() -> Mapping[str, list[_Metadata]]:
    """The services that botocore knows, by their name in a credential scope."""
    services: dict[str, list[_Metadata]] = {}
    for folder in sorted((Path(botocore.__file__).parent / "data").iterdir()):
        models = sorted(folder.glob("*/service-2.json*")) if folder.is_dir() else []
        if not models:
            continue
        with gzip.open(models[-1]) if models[-1].suffix == ".gz" else models[-1].open("rb") as file:
            head = file.read(_METADATA_BYTES).decode(errors="replace")
        found: dict[str, str] = dict(_METADATA.findall(head))
        signing_name = found.get("signingName", found.get("endpointPrefix", folder.name))
        metadata = _Metadata(folder.name, signing_name, found.get("targetPrefix", ""))
        services.setdefault(signing_name, []).append(metadata)
    return services


def identify(request: Request, form: Mapping[str, str]) -> Call:
    """Say which operation `request` asks for.

    Args:
        request: The request; its body is left unread.
        form: The fields of its body where that is a form; empty otherwise.
    """
    scope = _SCOPE.search(
        request.headers.get("Authorization", "") or request.args.get("X-Amz-Credential", "")
    )
    action = form.get("Action") or request.args.get("Action", "")
    signing_name = scope["service"] if scope else _UNSIGNED_ACTIONS.get(action, "s3")
    candidates = _services().get(signing_name, [])
    names = [candidate.service for candidate in candidates]

    def call(
        service: str, operation: str, protocol: str, resource: Mapping[str, Any] | None = None
    ) -> Call:
        # The presigned URLs of S3's former signatures say nothing of region and service.
        access_key, region = request.args.get("AWSAccessKeyId", ""), ""
        if scope:
            access_key, region = scope["key"], scope["region"]
        return Call(service, operation, protocol, access_key, region, resource or {})

    cbor = _CBOR_PATH.match(request.path)
    if cbor:
        return call(_by_target(signing_name, cbor["target"]), cbor["operation"], "cbor")
    if target := request.headers.get("X-Amz-Target", ""):
        prefix, _, operation = target.rpartition(".")
        return call(_by_target(signing_name, prefix), operation, "json")
    if action:
        version = form.get("Version") or request.args.get("Version", "")
        known = [name for name in names if _has(name, action)]
        # The two of load balancers have one name, and many an operation in common. DocumentDB and
        # Neptune sign as RDS, whose name is the one that people look for.
        own = sorted(
            known,
            key=lambda name: (
                get_service_model(name).api_version != version,
                name not in KEPT,
                name != signing_name,
            ),
        )
        service = own[0] if own else signing_name
        return call(service, action, "ec2" if service == "ec2" else "query")
    # S3's routes take almost any path, so the services beside it (S3 Control) are asked first.
    first = request.path.split("/", 2)[1]
    # So are services of which localaws keeps nothing, but only where no other has the path.
    for name in sorted(names, key=lambda name: (name not in KEPT, name == signing_name)):
        if first not in (_first_segments(name) or {first}):
            continue
        try:
            operation, resource = get_service_router(name).match(request)
        except (HTTPException, NotImplementedError):
            continue
        return call(name, operation.name, _protocol(name), resource)
    service = names[0] if names else signing_name
    return call(service, f"{request.method} {request.path}", _protocol(service))


@cache
def _first_segments(service: str) -> frozenset[str]:
    """How the paths of a service's operations begin; none if any begins with a parameter."""
    model = get_service_model(service)
    operations = map(model.operation_model, model.operation_names)
    paths = [
        re.split(r"[/?#]", operation.http["requestUri"], maxsplit=2) for operation in operations
    ]
    found = {path[1] if len(path) > 1 else "" for path in paths}
    return frozenset() if any("{" in segment for segment in found) else frozenset(found)


def _by_target(signing_name: str, prefix: str) -> str:
    candidates = _services().get(signing_name, [])
    return next(
        (found.service for found in candidates if found.target_prefix == prefix),
        candidates[0].service if candidates else signing_name,
    )


def _has(service: str, operation: str) -> bool:
    try:
        return operation in get_service_model(service).operation_names
    except UnknownServiceError:
        return False


def _protocol(service: str) -> str:
    try:
        return str(get_service_model(service).protocol)
    except UnknownServiceError:
        return "rest-json"


def form_of(content_type: str, body: bytes) -> dict[str, str]:
    """The fields of a form, as the query and EC2 protocols send them; empty for other bodies."""
    if not content_type.startswith("application/x-www-form-urlencoded"):
        return {}
    return dict(parse_qsl(body.decode(errors="replace"), keep_blank_values=True))


def refusal(call: Call, status: int, code: str, message: str) -> Response:
    """An error answer in the form that `call`'s protocol has for it.

    Args:
        call: What was asked for.
        status: HTTP status.
        code: AWS's error code, such as "NotImplemented".
        message: For people.
    """
    if call.protocol == "cbor":
        response = Response(
            _cbor({"__type": code, "message": message}), status, mimetype="application/cbor"
        )
        response.headers["smithy-protocol"] = "rpc-v2-cbor"
        return response
    if call.protocol in {"json", "rest-json"}:
        text = json.dumps({"__type": code, "message": message})
        response = Response(text, status, content_type="application/x-amz-json-1.1")
        response.headers["x-amzn-ErrorType"] = code
        return response
    error = f"<Code>{escape(code)}</Code><Message>{escape(message)}</Message>"
    if call.protocol == "ec2":
        error = f"<Response><Errors><Error>{error}</Error></Errors></Response>"
    elif call.service == "s3":
        error = f"<Error>{error}</Error>"
    else:
        error = f"<ErrorResponse><Error><Type>Sender</Type>{error}</Error></ErrorResponse>"
    return Response(f'<?xml version="1.0" encoding="UTF-8"?>{error}', status, mimetype="text/xml")


def _cbor(content: Mapping[str, str]) -> bytes:
    """A map of fewer than 24 texts of less than 64 KiB, by RFC 8949."""

    def text(value: str) -> bytes:
        data = value.encode()
        return b"\x79" + len(data).to_bytes(2, "big") + data

    pairs = b"".join(text(name) + text(value) for name, value in content.items())
    return bytes([0xA0 | len(content)]) + pairs


def page_refusal(call: Call, told: Mapping[str, Any]) -> Response | None:
    """How a service says that no answer of it had the token that a request names a page by.

    Args:
        call: What was asked for.
        told: The call's parameters.

    Returns:
        The answer; None if the request names no page.
    """
    name = next((name for name in _TOKENS if told.get(name)), None)
    if not name:
        return None
    code = _TOKEN_CODES.get(call.service, "ValidationException")
    why = f'Invalid pagination token: {name} "{told[name]}".'
    if call.service == "cloudwatch":
        why = f"Request parameter {name} is invalid"
    return refusal(call, 400, code, why)


_TOKENS = ("NextToken", "nextToken", "Marker", "PaginationToken", "ContinuationToken")
_TOKEN_CODES = {
    "application-autoscaling": "InvalidNextTokenException",
    "budgets": "InvalidNextTokenException",
    "cloudwatch": "InvalidParameterValue",
    "ec2": "InvalidParameterValue",
    "ecr": "InvalidParameterException",
    "iam": "ValidationError",
    "lambda": "InvalidParameterValueException",
    "logs": "InvalidParameterException",
    "s3": "InvalidArgument",
    "service-quotas": "InvalidPaginationTokenException",
    "sns": "InvalidParameter",
    "ssm": "InvalidNextToken",
}
