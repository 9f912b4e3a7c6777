"""What the additions to SageMaker share: what it refuses, the pages of its lists, its gaps."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from botocore import xform_name
from moto.core.utils import get_service_model
from moto.sagemaker import responses
from moto.sagemaker.exceptions import ValidationError

from localaws.additions import Gap
from localaws.additions._moto import page

_MEASURED = (int, float, str, list, dict)
_PAGE = 10

T = TypeVar("T")


def sorted_page(
    request: responses.SageMakerResponse, found: Iterable[T], key: Callable[[T], Any]
) -> tuple[Sequence[T], dict[str, str]]:
    """What a request to list jobs asks for.

    Args:
        request: The request, with its order and its page.
        found: All that fits it.
        key: What to sort by.

    Returns:
        The page, and the member of the answer that names the next one; see `page`.

    Raises:
        ValidationError: There is no such page.
    """
    is_reversed = request._get_param("SortOrder", "Ascending") == "Descending"
    token = request._get_param("NextToken")
    listed = sorted(found, key=key, reverse=is_reversed)
    return page(listed, token, request._get_param("MaxResults", _PAGE))


def require_enum(shape: str, value: str) -> None:
    """Refuse a value that SageMaker does not know.

    Raises:
        ValidationError: It is none of the shape's.
    """
    # Botocore knows the service's own list; a client that is newer may know more.
    known = get_service_model("sagemaker").shape_for(shape).enum
    if value not in known:
        raise ValidationError(
            f"1 validation error detected: Value '{value}' at 'instanceType' failed to satisfy"
            f" constraint: Member must satisfy enum value set: [{', '.join(known)}]"
        )


def refuse_out_of_bounds(operation: str, request: Mapping[str, Any]) -> None:
    """Refuse values outside the bounds that the service's model gives.

    Args:
        operation: Its name in botocore.
        request: Its members.

    Raises:
        ValidationError: All that is outside, in AWS's words.
    """
    members = get_service_model("sagemaker").operation_model(operation).input_shape
    if violations := list(_violations(members, request, "")):
        count = f"{len(violations)} validation error{'s' if len(violations) > 1 else ''}"
        raise ValidationError(f"{count} detected: {'; '.join(violations)}")


def _violations(shape: Any, value: Any, where: str) -> Iterator[str]:
    """What in a request lies outside the bounds that the service's model gives."""
    if shape.type_name == "structure" and isinstance(value, Mapping):
        for name, member in shape.members.items():
            if name in value:
                named = name[:1].lower() + name[1:]
                yield from _violations(member, value[name], f"{where}.{named}" if where else named)
    elif shape.type_name == "list" and isinstance(value, list):
        for position, item in enumerate(value, 1):
            path = f"{where}.{position}.member"
            yield from _violations(shape.member, item, path)
    # Of what is no value of its kind, and of times, there is nothing to measure.
    constraint = _constraint(shape, value) if isinstance(value, _MEASURED) else None
    if constraint:
        yield f"Value '{value}' at '{where}' failed to satisfy constraint: Member must {constraint}"


def _constraint(shape: Any, value: Any) -> str | None:
    """The bound that a value breaks, in AWS's words."""
    bounds = shape.metadata
    size = value if isinstance(value, int | float) else len(value)
    measured = "value" if isinstance(value, int | float) else "length"
    if "enum" in bounds and value not in bounds["enum"]:
        return f"satisfy enum value set: [{', '.join(bounds['enum'])}]"
    if size < bounds.get("min", size):
        return f"have {measured} greater than or equal to {bounds['min']}"
    if size > bounds.get("max", size):
        return f"have {measured} less than or equal to {bounds['max']}"
    # What is left out are classes of characters that Python's expressions do not have.
    pattern = bounds.get("pattern", "")
    if not pattern or r"\p{" in pattern or not isinstance(value, str):
        return None
    if not re.fullmatch(pattern, value, re.DOTALL):
        return f"satisfy regular expression pattern: {pattern}"
    return None


def missing(operation: str, effect: str) -> Gap:
    """An operation of SageMaker that moto does not have."""

    def answered() -> bool:
        return hasattr(responses.SageMakerResponse, xform_name(operation))

    return Gap("sagemaker", operation, effect, answered)


def flawed(where: str, effect: str, closed: Callable[[], bool]) -> Gap:
    """An operation of SageMaker that moto gets wrong."""
    return Gap("sagemaker", where, effect, closed)
