"""An endpoint that changes by itself: as autoscaling acts, and while SageMaker maintains it.

It serves all the while, but SageMaker refuses to update or to delete it until that is over.
"""

import re
import sys
import time
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError

from trainer.errors import KennelError
from trainer.target import Target

SCALING = frozenset({"SystemUpdating", "Updating"})
"""States in which an endpoint serves as before while its instances change."""

_BUSY = SCALING | {"Creating", "Deleting", "RollingBack"}
# The longest release that the module `endpoint` allows lasts four hours.
_LONGEST_SECONDS = 4 * 3600.0
_POLL_SECONDS = 5.0
_TELL_SECONDS = 60.0
_REFUSAL = re.compile(r"in-progress\s+endpoint")


def live(target: Target) -> dict[str, Any]:
    """The endpoint as SageMaker describes it; empty if there is none."""
    client = target.client("sagemaker")
    try:
        described: dict[str, Any] = client.describe_endpoint(
            EndpointName=target.required_parameter("endpoint_name")
        )
    except ClientError as error:
        if error.response["Error"]["Code"] != "ValidationException":
            raise
        return {}
    return described


def runs(endpoint: Mapping[str, Any], configuration: str) -> bool:
    """Whether an endpoint serves a configuration, if only its instances change meanwhile."""
    return (
        endpoint.get("EndpointStatus") in {"InService", *SCALING}
        and endpoint["EndpointConfigName"] == configuration
        # It is there while another configuration is brought into service.
        and "PendingDeploymentSummary" not in endpoint
    )


def refused(said: str) -> bool:
    """Whether SageMaker refused a change since the endpoint was changing already."""
    return _REFUSAL.search(said) is not None


def wait(target: Target, seconds: float = _LONGEST_SECONDS) -> None:
    """Wait until the endpoint can be changed; there may be none.

    Raises:
        KennelError: It goes on changing.
    """
    if target.parameter("endpoint_name") is None:
        return
    started, told = time.monotonic(), -_TELL_SECONDS
    while (endpoint := live(target)).get("EndpointStatus") in _BUSY:
        name, status = endpoint["EndpointName"], endpoint["EndpointStatus"]
        passed = time.monotonic() - started
        if passed > seconds:
            raise KennelError(
                f"the endpoint {name} is still {status} after {passed / 60:.0f} minutes: give the "
                "command again when it is InService"
            )
        if passed - told >= _TELL_SECONDS:
            sys.stderr.write(
                f"the endpoint {name} is {status}, and SageMaker changes one thing at a time: "
                "waiting until that is over\n"
            )
            told = passed
        time.sleep(min(_POLL_SECONDS, seconds))
