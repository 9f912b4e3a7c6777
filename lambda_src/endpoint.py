"""An image put to the SageMaker endpoint: its answer, or its failure in words for a caller."""

import json
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass

import botocore.session
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ConnectTimeoutError, ReadTimeoutError

from lambda_src.deadline import Deadline
from lambda_src.errors import RequestError
from lambda_src.images import Image

CONNECT_SECONDS = 2
READ_SECONDS = 60
"""SageMaker's own limit for an answer; the deadline of a call is usually sooner."""
RETRY_SECONDS = (0.05, 0.15)
"""Range of the pause before the one retry, so that throttled callers do not come back together."""

_PASSED_ON = frozenset({400, 413, 415})
_THROTTLED = frozenset({"ThrottlingException", "Throttling", "TooManyRequestsException"})


@dataclass(frozen=True)
class Answer:
    """The endpoint's JSON as it came, and how many requests it took."""

    body: str
    attempts: int


def runtime_client() -> BaseClient:
    """A client of SageMaker's runtime; region, credentials and address come from the environment.

    It is botocore's own: boto3 around it would add 0.1 s to every cold start. It retries nothing by
    itself, since its rules would repeat failures and time-outs too.
    """
    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"total_max_attempts": 1},
    )
    return botocore.session.get_session().create_client("sagemaker-runtime", config=config)


@dataclass(frozen=True)
class Endpoint:
    """A SageMaker endpoint by name."""

    client: BaseClient
    name: str

    def predict(self, image: Image, deadline: Deadline) -> Answer:
        """The endpoint's predictions for `image`; throttling is retried once.

        Raises:
            RequestError: 400, 413 and 415 with the endpoint's own words; 429 when throttled twice;
                502 when the endpoint failed; 504 when it did not answer by the deadline.
        """
        try:
            try:
                return Answer(self._invoke(image, deadline), attempts=1)
            except ClientError as error:
                if not _is_throttled(error):
                    raise
                time.sleep(deadline.left(random.uniform(*RETRY_SECONDS)))
                return Answer(self._invoke(image, deadline), attempts=2)
        except ClientError as error:
            raise _refusal(error) from error
        except (TimeoutError, ConnectTimeoutError, ReadTimeoutError) as error:
            raise RequestError(
                504, "endpoint_timeout", "the endpoint did not answer in time"
            ) from error
        except BotoCoreError as error:
            raise _failed() from error

    def _invoke(self, image: Image, deadline: Deadline) -> str:
        def call() -> bytes:
            response = self.client.invoke_endpoint(
                EndpointName=self.name,
                Body=image.body,
                ContentType=image.content_type,
                Accept="application/json",
            )
            body: bytes = response["Body"].read()
            return body

        # The client's time-outs are fixed when it is made and count single reads; the deadline is
        # the call's own.
        body = deadline.run(call)
        try:
            json.loads(body)
        except ValueError as error:
            raise _failed() from error
        return body.decode()


def _original_status(error: ClientError) -> int:
    """The model container's status behind a ModelError, else 0."""
    status = error.response.get("OriginalStatusCode", 0)
    return status if isinstance(status, int) else 0


def _is_throttled(error: ClientError) -> bool:
    return (
        error.response["Error"]["Code"] in _THROTTLED
        or error.response["ResponseMetadata"]["HTTPStatusCode"] == 429
        or _original_status(error) == 429
    )


def _refusal(error: ClientError) -> RequestError:
    if _is_throttled(error):
        return RequestError(429, "busy", "the endpoint is busy; try again")
    status = _original_status(error)
    said = _own_words(error.response.get("OriginalMessage"))
    if status in _PASSED_ON and said:
        return RequestError(status, said["error"], said["message"])
    return _failed()


def _own_words(original: object) -> Mapping[str, str] | None:
    """The container's `{"error", "message"}`, if it said just that."""
    try:
        said = json.loads(original) if isinstance(original, str) else None
    except ValueError:
        return None
    if isinstance(said, dict) and all(
        isinstance(said.get(key), str) for key in ("error", "message")
    ):
        return said
    return None


def _failed() -> RequestError:
    return RequestError(502, "endpoint_failed", "the endpoint failed")
