"""What a request tells, and what AWS refuses before a service looks at it.

Each protocol has its own words for a body that cannot be read, for members of another type than the
service's model has, and for required ones that are missing. Members that the model does not know
are passed over, as AWS does. Lengths, values and patterns are held to the bounds of the models of
`SERVICES`; patterns with classes of characters that Python's expressions lack are left out.

Sources: Smithy's protocol specifications (awsJson1_0, awsQuery, restJson1, restXml), "Common Error
Types" in the services' API references, "Error responses" of S3's.
"""

import base64
import binascii
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from math import isfinite
from typing import Any, NamedTuple, NoReturn
from urllib.parse import unquote_to_bytes
from xml.etree import ElementTree

from botocore.exceptions import UnknownServiceError
from botocore.model import OperationModel, Shape
from moto.core.parse import PROTOCOL_PARSERS
from moto.core.request import Request
from moto.core.utils import get_service_model
from werkzeug.wrappers import Response

from localaws.calls import Call, refusal

_MOST_BYTES = 96 << 20
_XML = "The XML you provided was not well-formed or did not validate against our published schema"
_KINDS = {"structure": dict, "map": dict, "list": list, "string": str, "boolean": bool, "blob": str}
_SERIALIZATION = "SerializationException"
_JSON = re.compile(r"application/(x-amz-)?json\b")
_UNREADABLE = {
    "ec2": "InvalidParameterValue",
    "query": "MalformedInput",
    "rest-xml": "InvalidArgument",
}
_BITS = {"byte": 8, "short": 16, "integer": 32, "long": 64}
SERVICES = {
    "budgets": "ValidationException",
    "cloudwatch": "ValidationError",
    "ecr": "InvalidParameterException",
    "events": "ValidationException",
    "iam": "ValidationError",
    "kms": "ValidationException",
    "lambda": "ValidationException",
    "logs": "InvalidParameterException",
    "sagemaker": "ValidationException",
    "scheduler": "ValidationException",
    "sns": "InvalidParameter",
}
"""Those whose values are held to bounds, and what they call one that is out of them."""
# Who calls a missing member otherwise than ValidationException.
_MISSING_CODES = {
    "codebuild": "InvalidInputException",
    "sqs": "MissingParameter",
}


class RefusedError(Exception):
    """A request is refused; `answer` says why."""

    def __init__(self, answer: Response) -> None:
        """Refuse it with an answer."""
        super().__init__(answer.status)
        self.answer = answer


class _BadError(Exception):
    """What is wrong with a request."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


def read(call: Call, request: Request) -> Mapping[str, Any]:
    """What a call is told.

    Args:
        call: What is asked for.
        request: The request; its body is read, unless it is an object's or an event's content.

    Returns:
        The operation's parameters by botocore's names, an empty text for such a content; those in
        the path alone where AWS has no such operation.

    Raises:
        RefusedError: The service could not understand it, or does not take it.
    """
    try:
        operation = _operation(call, request)
        if operation and operation.input_shape:
            return _checked(call, operation, operation.input_shape, request)
    except _BadError as error:
        raise RefusedError(refusal(call, error.status, error.code, str(error))) from error
    return call.resource


def glance(call: Call, request: Request) -> Mapping[str, Any]:
    """What a call is told that nobody signed, as `read`; as far as it can be understood."""
    try:
        operation = _operation(call, request)
        shape = operation.input_shape if operation else None
        if operation and shape:
            body = b"" if _is_content(shape) else _body(request, operation)
            return _parsed(call, operation, request, body)
    except _BadError:
        pass
    return call.resource


def _operation(call: Call, request: Request) -> OperationModel | None:
    """The model of what is asked for; None where it is no operation of a service that AWS has."""
    if call.protocol not in PROTOCOL_PARSERS:
        return None
    try:
        service = get_service_model(call.service)
    except UnknownServiceError:
        return None
    known = call.operation in service.operation_names
    if call.protocol == "json":
        prefix = request.headers.get("X-Amz-Target", "").rpartition(".")[0]
        content = request.headers.get("Content-Type", "application/json")
        known = known and prefix == service.metadata.get("targetPrefix")
        known = known and bool(_JSON.match(content))
    if known:
        return service.operation_model(call.operation)
    if call.protocol == "json":
        raise _BadError("UnknownOperationException", "")
    if call.protocol in {"query", "ec2"}:
        action = request.values.get("Action")
        if not action:
            raise _BadError("MissingAction", "The request is missing an Action parameter.")
        version = request.values.get("Version", "NO_VERSION_SPECIFIED")
        told = f"Could not find operation {action} for version {version}"
        if call.protocol == "ec2":
            told = f"The action {action} is not valid for this web service."
        raise _BadError("InvalidAction", told)
    return None


def _checked(
    call: Call, operation: OperationModel, shape: Shape, request: Request
) -> Mapping[str, Any]:
    body = b"" if _is_content(shape) else _body(request, operation)
    if call.protocol in {"json", "rest-json"}:
        _check_json(call, shape, body)
    elif call.protocol in {"query", "ec2"}:
        _check_form(body, request)
    elif call.protocol == "rest-xml":
        _check_xml(call, shape, body)
    told = _parsed(call, operation, request, body)
    if _is_content(shape):
        told = {**told, shape.serialization["payload"]: ""}
        if str(call) == "s3:PutBucketPolicy":
            _check_policy(request.get_data())
    breaks = _unlisted if call.service == "s3" else _fits_all
    if call.service in SERVICES:
        breaks = _broken
    if violations := list(_violations(shape, told, "", breaks)):
        _refuse(call, operation, shape, violations)
    return told


def _is_content(shape: Any) -> bool:
    """Whether a body is taken as it is: an object, an event, an image."""
    payload = shape.serialization.get("payload")
    return bool(payload) and shape.members[payload].type_name in {"blob", "string"}


def _body(request: Request, operation: Any) -> bytes:
    body: bytes = request.get_data()
    if request.headers.get("Content-Encoding", "").lower() != "gzip":
        return body
    if not operation.request_compression:
        raise _BadError(_SERIALIZATION, "The operation takes no compressed body")
    try:
        unpacked = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(body, _MOST_BYTES + 1)
        whole = gzip.decompress(body) if len(unpacked) <= _MOST_BYTES else b""
    except (OSError, EOFError, zlib.error) as error:
        raise _BadError(_SERIALIZATION, f"The body is no gzip: {error}") from error
    if len(unpacked) > _MOST_BYTES:
        raise _BadError("RequestEntityTooLargeException", "The body is too large", 413)
    return whole


def _check_json(call: Call, shape: Any, body: bytes) -> None:
    if _is_content(shape):
        return
    if payload := shape.serialization.get("payload"):
        shape = shape.members[payload]
    elif call.protocol == "rest-json" and not _body_members(shape):
        return
    if not body:
        return
    try:
        content = json.loads(body.decode(), parse_constant=_no_number)
    # Nested deeper than Python goes, it is more than any service takes.
    except (ValueError, RecursionError) as error:
        code, what = _SERIALIZATION, ""
        if call.service == "lambda":
            code, what = (
                "InvalidRequestContentException",
                "Could not parse request body into json: ",
            )
        raise _BadError(code, f"{what}{error}") from error
    _check_types(shape, content)


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _body_members(shape: Any) -> list[str]:
    return [name for name, m in shape.members.items() if "location" not in m.serialization]


def _check_types(shape: Any, value: Any) -> None:
    """Look whether a value of JSON has the types of its shape."""
    kind = shape.type_name
    if value is None or getattr(shape, "is_document_type", False):
        return
    if kind in _BITS:
        if not _is_number(value) or value != int(value) or int(value).bit_length() >= _BITS[kind]:
            _refuse_type(kind, value)
    elif kind in {"float", "double"}:
        if not _is_number(value) and value not in ("NaN", "Infinity", "-Infinity"):
            _refuse_type(kind, value)
    elif kind == "timestamp":
        if not _is_number(value) and not isinstance(value, str):
            _refuse_type(kind, value)
        _check_time(value)
    elif not isinstance(value, _KINDS[kind]):
        _refuse_type(kind, value)
    if kind == "structure":
        for name, member in shape.members.items():
            _check_types(member, value.get(member.serialization.get("name", name)))
    elif kind == "map":
        for item in value.values():
            _check_types(shape.value, item)
    elif kind == "list":
        for item in value:
            _check_types(shape.member, item)
    elif kind in {"blob", "string"}:
        try:
            # Half of a surrogate pair is no text.
            content = value.encode()
            if kind == "blob":
                base64.b64decode(content, validate=True)
        except (binascii.Error, ValueError) as error:
            raise _BadError(_SERIALIZATION, f"a {kind} cannot be read: {error}") from error


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _check_time(value: int | float | str) -> None:
    try:
        if isinstance(value, str) and not re.fullmatch(r"-?\d+(\.\d+)?", value):
            datetime.fromisoformat(value)
        else:
            datetime.fromtimestamp(float(value))
    except (ValueError, OverflowError, OSError) as error:
        raise _BadError(_SERIALIZATION, f"{value!r:.40} is no timestamp") from error


def _refuse_type(kind: str, value: Any) -> NoReturn:
    if isinstance(value, dict):
        told = "Start of structure or map found where not expected."
    elif isinstance(value, list):
        told = "Start of list found where not expected."
    elif isinstance(value, bool):
        told = f"{str(value).upper()}_VALUE cannot be converted to {_named(kind)}"
    else:
        token = "STRING_VALUE" if isinstance(value, str) else "NUMBER_VALUE"
        told = f"{token} cannot be converted to {_named(kind)}"
    raise _BadError(_SERIALIZATION, told)


def _named(kind: str) -> str:
    return {"structure": "Structure", "blob": "ByteBuffer"}.get(kind, kind.capitalize())


def _check_form(body: bytes, request: Request) -> None:
    for sent in (body, request.query_string):
        try:
            unquote_to_bytes(sent).decode()
        except UnicodeDecodeError as error:
            raise _BadError("MalformedInput", f"The request is not in UTF-8: {error}") from error


def _check_policy(body: bytes) -> None:
    try:
        is_object = isinstance(json.loads(body), dict)
    except (ValueError, RecursionError):
        is_object = False
    if not is_object:
        told = "Policies must be valid JSON and the first byte must be '{'"
        raise _BadError("MalformedPolicy", told)


def _malformed(call: Call) -> _BadError:
    is_acl = call.operation in {"PutBucketAcl", "PutObjectAcl"}
    return _BadError("MalformedACLError" if is_acl else "MalformedXML", _XML)


def _check_xml(call: Call, shape: Any, body: bytes) -> None:
    payload = shape.serialization.get("payload")
    if _is_content(shape):
        return
    if not payload and not _body_members(shape):
        return
    expected = shape.members[payload] if payload else shape
    if not body.strip():
        required = payload in shape.required_members
        if required and call.service == "s3":
            raise _BadError("MissingRequestBodyError", "Request Body is empty")
        return
    try:
        root = ElementTree.fromstring(body)  # noqa: S314 (expat expands no entity that is large)
    except (ElementTree.ParseError, ValueError) as error:
        raise _malformed(call) from error
    name = expected.serialization.get("name", expected.name)
    if call.service == "s3" and root.tag.rpartition("}")[2] not in {name, expected.name}:
        raise _malformed(call)


def _parsed(
    call: Call, operation: OperationModel, request: Request, body: bytes
) -> Mapping[str, Any]:
    """What is told, by the model's names and in its types."""
    by_form = call.protocol in {"query", "ec2"}
    try:
        told: Mapping[str, Any] | None = PROTOCOL_PARSERS[call.protocol](operation).parse(
            {
                "method": request.method,
                # What a sender calls a form may be an object's content.
                "values": request.values if by_form else request.args,
                "headers": request.headers,
                "body": body,
                "url_path": request.path,
                "url_params": dict(call.resource),
            }
        )
    # moto's parser raises what it stumbles over.
    except Exception as error:
        if call.protocol == "rest-xml" and body:
            raise _malformed(call) from error
        code = _UNREADABLE.get(call.protocol, _SERIALIZATION)
        raise _BadError(code, f"The request cannot be read: {error}") from error
    return told or {}


# Logs says of these that they are wrong, and not what they are.
_UNTOLD = {"LogGroupIdentifier", "StartLiveTailLogGroupIdentifiers"}


class _Violation(NamedTuple):
    """A member that is not as the model has it: where, its value, what it must be."""

    shape: Any
    where: str
    value: Any
    must: str

    def __str__(self) -> str:
        given = "" if _is_untold(self.shape) else f" '{_told(self.shape, self.value)}'"
        if self.value is None:
            given = " null"
        return (
            f"Value{given} at '{self.where}' failed to satisfy constraint: Member must {self.must}"
        )


def _is_untold(shape: Any) -> bool:
    """Whether a value is not repeated: what is secret, or no text."""
    is_secret = bool(shape.metadata.get("sensitive")) or shape.type_name == "blob"
    return is_secret or shape.name in _UNTOLD


def _told(shape: Any, value: Any) -> str:
    """A value as AWS's services, which are no Python, tell it."""
    if _is_untold(shape):
        return "***"
    if isinstance(value, bool):
        return str(value).lower()
    if shape.type_name == "list" and isinstance(value, list):
        if shape.member.type_name == "structure":
            # Whatever is in them, and however many they are.
            return f"[{shape.member.name}]" if value else "[]"
        return f"[{', '.join(_told(shape.member, item) for item in value)}]"
    if shape.type_name == "map" and isinstance(value, Mapping):
        pairs = (f"{key}={_told(shape.value, item)}" for key, item in value.items())
        return f"{{{', '.join(pairs)}}}"
    return str(shape.name if shape.type_name == "structure" else value)


_THERE = "not be null"
# What S3's schema takes as any text: it has other words for those that it does not know.
_TEXTS = {"BucketLocationConstraint", "Event"}
_Breaks = Callable[[Any, Any], str | None]
"""The bound of a shape that a value breaks, in AWS's words."""


def _violations(shape: Any, value: Any, where: str, breaks: _Breaks) -> Iterator[_Violation]:
    """Required members that are not there, and values that break something."""
    kind = shape.type_name
    if kind == "structure" and isinstance(value, Mapping):
        for name, member in shape.members.items():
            path = f"{where}.{name[:1].lower()}{name[1:]}".lstrip(".")
            if value.get(name) is not None:
                # S3's schema is of its XML.
                is_outside = breaks is _unlisted and "location" in member.serialization
                inner = _fits_all if is_outside else breaks
                yield from _violations(member, value[name], path, inner)
            elif name in shape.required_members and not _is_part_of_host(member):
                yield _Violation(member, path, None, _THERE)
    elif kind == "list" and isinstance(value, list):
        for number, item in enumerate(value, 1):
            yield from _violations(shape.member, item, f"{where}.{number}.member", breaks)
    elif kind == "map" and isinstance(value, Mapping):
        for key, item in value.items():
            yield from _violations(shape.key, key, f"{where}.{key}.key", breaks)
            yield from _violations(shape.value, item, f"{where}.{key}.value", breaks)
    if must := breaks(shape, value):
        yield _Violation(shape, where, value, must)


def _fits_all(shape: Any, value: Any) -> None:
    """Nothing is looked at."""


def _unlisted(shape: Any, value: Any) -> str | None:
    """Of S3: the bound of a text in XML that is none of those that its schema has."""
    is_listed = "enum" in shape.metadata and shape.name not in _TEXTS
    return _broken(shape, value) if is_listed else None


def _broken(shape: Any, value: Any) -> str | None:
    """The bound that a value breaks, in AWS's words."""
    bounds = shape.metadata
    if value is None:
        return _THERE
    if "enum" in bounds and value not in bounds["enum"]:
        return f"satisfy enum value set: [{', '.join(bounds['enum'])}]"
    if isinstance(value, bool) or not isinstance(value, int | float | str | bytes | list | Mapping):
        return None
    if isinstance(value, int | float):
        size, measured = float(value), "value"
    else:
        size, measured = float(len(value)), "length"
    if "min" in bounds and size < bounds["min"]:
        return f"have {measured} greater than or equal to {bounds['min']}"
    if "max" in bounds and size > bounds["max"]:
        return f"have {measured} less than or equal to {bounds['max']}"
    pattern = bounds.get("pattern", "")
    if pattern and isinstance(value, str) and not _fits(pattern, value):
        return f"satisfy regular expression pattern: {pattern}"
    return None


def _fits(pattern: str, text: str) -> bool:
    expression = _compiled(pattern)
    return expression is None or expression.fullmatch(text) is not None


@cache
def _compiled(pattern: str) -> re.Pattern[str] | None:
    try:
        return re.compile(pattern, re.DOTALL)
    except re.error:
        return None


def _is_part_of_host(member: Any) -> bool:
    return bool(member.serialization.get("hostLabel"))


def _refuse(
    call: Call, operation: OperationModel, shape: Any, violations: Sequence[_Violation]
) -> NoReturn:
    if code := SERVICES.get(call.service):
        count = f"{len(violations)} validation error{'s' if len(violations) > 1 else ''}"
        told = f"{count} detected: {'; '.join(map(str, violations))}"
        # The newer operations of a service may have the other one.
        errors = {error.error_code for error in operation.error_shapes}
        is_newer = code not in errors and "ValidationException" in errors
        raise _BadError("ValidationException" if is_newer else code, told)
    if any(violation.must is not _THERE for violation in violations):
        raise _malformed(call)
    _refuse_missing(call, shape, violations[0])


def _refuse_missing(call: Call, shape: Any, missing: _Violation) -> NoReturn:
    where = missing.where
    if call.protocol == "rest-xml" and call.service == "s3":
        first = where.partition(".")[0]
        if "." in where or first[:1].upper() + first[1:] == shape.serialization.get("payload"):
            raise _malformed(call)
        raise _BadError("InvalidRequest", f"Missing required parameter: {where}")
    name = where.rpartition(".")[2]
    if call.protocol == "ec2" and name[:1].upper() + name[1:] == "InstanceIds":
        # Source: "Error codes for the Amazon EC2 API", whose example is TerminateInstances.
        raise _BadError("InvalidParameterCombination", "No instances specified")
    if call.protocol == "ec2" or _MISSING_CODES.get(call.service) == "MissingParameter":
        told = name[:1].upper() + name[1:]
        if str(call) in {"ec2:CreateTags", "ec2:DeleteTags"} and told == "Resources":
            told = "resourceIdSet"
        raise _BadError("MissingParameter", f"The request must contain the parameter {told}")
    default = "ValidationError" if call.protocol == "query" else "ValidationException"
    raise _BadError(
        _MISSING_CODES.get(call.service, default),
        f"1 validation error detected: {missing}",
    )
