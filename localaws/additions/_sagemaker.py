"""What the additions to SageMaker share: its lists and its gaps."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
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


def fits_list(
    request: responses.SageMakerResponse, job: Any, name: str, wanted: Mapping[str, Any]
) -> bool:
    """Whether a job fits the filters of a list.

    Args:
        request: The request.
        job: The job's record.
        name: The job's name.
        wanted: What the filters of the request compare with.
    """
    times = {"CreationTime": job.creation_time, "LastModifiedTime": job.last_modified_time}
    return (
        request._get_param("NameContains", "") in name
        and all(request._get_param(member, value) == value for member, value in wanted.items())
        and all(
            _plain(request._get_param(f"{member}After", datetime.min))
            <= time
            <= _plain(request._get_param(f"{member}Before", datetime.max))
            for member, time in times.items()
        )
    )


def _plain(time: datetime) -> datetime:
    """A time as moto keeps it: in UTC, without saying so."""
    return time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time


def missing(operation: str, effect: str) -> Gap:
    """An operation of SageMaker that moto does not have."""

    def answered() -> bool:
        return hasattr(responses.SageMakerResponse, xform_name(operation))

    return Gap("sagemaker", operation, effect, answered)


def flawed(where: str, effect: str, closed: Callable[[], bool]) -> Gap:
    """An operation of SageMaker that moto gets wrong."""
    return Gap("sagemaker", where, effect, closed)
