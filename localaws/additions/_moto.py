"""How additions take the place of moto's answers, and how they ask what moto does by itself."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, wraps
from types import ModuleType
from typing import Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from moto import mock_aws
from moto.core.responses import BaseResponse

ACCOUNT = "123456789012"
REGION = "us-east-1"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/probe"

T = TypeVar("T")


def answer_with(urls: ModuleType, answers: type[BaseResponse], *more_paths: str) -> None:
    """Let `answers` answer a service's requests.

    Args:
        urls: The service's `moto.*.urls`, changed in place: moto's server reads it when it is made.
        answers: A subclass of the service's own response class.
        more_paths: URL patterns that moto lacks, in its own notation.
    """
    for path in [*urls.url_paths, *more_paths]:
        urls.url_paths[path] = answers.dispatch


def wrap(owner: type, name: str, mended: Callable[..., Any]) -> None:
    """Put a function in a method's place.

    Args:
        owner: moto's class, changed in place.
        name: The method's name.
        mended: Gets the former method before the method's own arguments.
    """
    original = getattr(owner, name)

    @wraps(original)
    def method(*args: Any, **given: Any) -> Any:
        return mended(original, *args, **given)

    setattr(owner, name, method)


def before(
    answers: type[BaseResponse], name: str, check: Callable[[Any, Mapping[str, Any]], object]
) -> None:
    """Look at a request before moto answers it.

    Args:
        answers: A service's response class, changed in place.
        name: The method that answers.
        check: Gets the response, and what it was told by botocore's names; raises moto's exceptions
            where AWS refuses the request.
    """

    def answer(original: Callable[[BaseResponse], Any], response: BaseResponse) -> Any:
        parses = response.automated_parameter_parsing
        check(response, response.params if parses else json.loads(response.body or "{}"))
        return original(response)

    wrap(answers, name, answer)


def page(found: Sequence[T], token: str | None, size: int) -> tuple[Sequence[T], dict[str, str]]:
    """A page of a list.

    Args:
        found: The whole list.
        token: The request's `NextToken`: where the page starts.
        size: How long it is at most.

    Returns:
        The page, and the answer's member `NextToken`, or none after the last page.

    Raises:
        ValueError: No answer had that token; the application knows how the service says so.
    """
    first = int(token or 0)
    if token and not 0 < first < len(found):
        raise ValueError(f"there is no page {token}")
    last = first + size
    return found[first:last], {"NextToken": str(last)} if last < len(found) else {}


@contextmanager
def plain_client(service: str) -> Iterator[Any]:
    """A boto3 client of `service` whose requests moto answers within this process."""
    with mock_aws():
        yield _client(service)


@cache
def _client(service: str) -> Any:
    # The endpoint of a localaws that runs may be in the environment.
    settings = Config(ignore_configured_endpoint_urls=True, retries={"max_attempts": 0})
    return boto3.client(
        service,
        region_name=REGION,
        aws_access_key_id="probe",
        aws_secret_access_key="probe",  # noqa: S106
        config=settings,
    )


def refuses(call: Callable[[], object]) -> bool:
    """Whether moto answers `call` with an error of the service, as AWS does."""
    try:
        call()
    except ClientError:
        return True
    return False
