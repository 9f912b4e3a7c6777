"""What AWS refuses before a service looks at it: parameters outside the bounds of its model.

Lengths, values, patterns and required members are those of botocore's models, the words those of
AWS's own answers. Patterns with classes of characters that Python's expressions lack are left out.
"""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from moto.core.utils import get_service_model
from werkzeug.wrappers import Response

from localaws.calls import Call, refusal

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
"""Those whose calls are looked at, and what they call one that is out of bounds."""


def refuse(call: Call, told: Mapping[str, Any]) -> Response | None:
    """Answer a call that is out of bounds; None for another.

    Args:
        call: What is asked for.
        told: The call's parameters.
    """
    if call.service not in SERVICES:
        return None
    model = get_service_model(call.service)
    if call.operation not in model.operation_names:
        return None
    shape = model.operation_model(call.operation).input_shape
    violations = list(_violations(shape, told, "")) if shape else []
    if not violations:
        return None
    count = f"{len(violations)} validation error{'s' if len(violations) > 1 else ''}"
    code = SERVICES[call.service]
    return refusal(call, 400, code, f"{count} detected: {'; '.join(violations)}")


def _violations(shape: Any, value: Any, where: str) -> Iterator[str]:
    kind = shape.type_name
    expected = {"structure": Mapping, "map": Mapping, "list": list, "string": str}.get(kind)
    if expected and not isinstance(value, expected):
        yield _violation(value, where, f"be a {kind}")
        return
    if kind == "structure":
        for name, member in shape.members.items():
            path = f"{where}.{name[:1].lower()}{name[1:]}".lstrip(".")
            if value.get(name) is not None:
                yield from _violations(member, value[name], path)
            elif name in shape.required_members:
                yield _violation(None, path, "not be null")
    elif kind == "list":
        for position, item in enumerate(value, 1):
            yield from _violations(shape.member, item, f"{where}.{position}.member")
    elif kind == "map":
        for key, item in value.items():
            yield from _violations(shape.key, key, f"{where}.{key}.key")
            yield from _violations(shape.value, item, f"{where}.{key}.value")
    if must := _broken(shape, value):
        yield _violation(value, where, must)


def _violation(value: Any, where: str, must: str) -> str:
    given = "null" if value is None else f"'{value}'"
    return f"Value {given} at '{where}' failed to satisfy constraint: Member must {must}"


def _broken(shape: Any, value: Any) -> str | None:
    """The bound that a value breaks, in AWS's words."""
    bounds = shape.metadata
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
