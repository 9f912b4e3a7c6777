"""An image put to the SageMaker endpoint: its answer, or its failure in words for a caller."""

import http.client
import json
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass

from lambda_src.deadline import Deadline
from lambda_src.errors import RequestError
from lambda_src.images import Image
from lambda_src.runtime import Runtime, ServiceError

RETRY_SECONDS = (0.05, 0.15)
"""Range of the pause before the one retry, so that throttled callers do not come back together."""

_PASSED_ON = frozenset({400, 413, 415})
_THROTTLED = frozenset({"ThrottlingException", "Throttling", "TooManyRequestsException"})


@dataclass(frozen=True)
class Answer:
    """The endpoint's JSON as it came, and how many requests it took."""

    body: str
    attempts: int


@dataclass(frozen=True)
class Endpoint:
    """A SageMaker endpoint by name."""

    runtime: Runtime
    name: str

    def predict(self, image: Image, deadline: Deadline) -> Answer:
        """The endpoint's predictions for `image`; what passes is retried once, as by AWS's SDKs.

        Raises:
            RequestError: 400, 413 and 415 with the endpoint's own words; 429 when throttled twice;
                502 when the endpoint failed; 504 when it did not answer by the deadline.
        """
        try:
            try:
                return Answer(self._invoke(image, deadline), attempts=1)
            except (ServiceError, ConnectionError) as error:
                if not _passes(error):
                    raise
                time.sleep(deadline.left(random.uniform(*RETRY_SECONDS)))
                return Answer(self._invoke(image, deadline), attempts=2)
        except ServiceError as error:
            raise _refusal(error) from error
        except TimeoutError as error:
            raise RequestError(
                504, "endpoint_timeout", "the endpoint did not answer in time"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise _failed() from error

    def _invoke(self, image: Image, deadline: Deadline) -> str:
        body = self.runtime.invoke(self.name, image, deadline)
        try:
            json.loads(body)
        except ValueError as error:
            raise _failed() from error
        return body.decode()


def _passes(error: ServiceError | ConnectionError) -> bool:
    """Whether SageMaker may answer soon: it was asked too often, failed itself, or was cut off."""
    if isinstance(error, ConnectionError):
        return not isinstance(error, ConnectionRefusedError)
    # What the model's container says has a status of its own: 424.
    return _is_throttled(error) or error.status >= 500


def _is_throttled(error: ServiceError) -> bool:
    return error.kind in _THROTTLED or 429 in (error.status, error.original_status)


def _refusal(error: ServiceError) -> RequestError:
    if _is_throttled(error):
        return RequestError(429, "busy", "the endpoint is busy; try again")
    said = _own_words(error.original_message)
    if error.original_status in _PASSED_ON and said:
        return RequestError(error.original_status, said["error"], said["message"])
    return _failed()


def _own_words(original: str) -> Mapping[str, str] | None:
    """The container's `{"error", "message"}`, if it said just that."""
    try:
        said = json.loads(original)
    except ValueError:
        return None
    if isinstance(said, dict) and all(
        isinstance(said.get(key), str) for key in ("error", "message")
    ):
        return said
    return None


def _failed() -> RequestError:
    return RequestError(502, "endpoint_failed", "the endpoint failed")
