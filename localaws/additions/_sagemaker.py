"""What the additions to SageMaker share: the pages of its lists, its gaps."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from botocore import xform_name
from moto.sagemaker import responses

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


def missing(operation: str, effect: str) -> Gap:
    """An operation of SageMaker that moto does not have."""

    def answered() -> bool:
        return hasattr(responses.SageMakerResponse, xform_name(operation))

    return Gap("sagemaker", operation, effect, answered)


def flawed(where: str, effect: str, closed: Callable[[], bool]) -> Gap:
    """An operation of SageMaker that moto gets wrong."""
    return Gap("sagemaker", where, effect, closed)
