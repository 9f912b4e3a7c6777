"""What changes by itself: an endpoint as autoscaling acts, and while SageMaker maintains it.

It serves all the while, but SageMaker refuses to update or to delete it until that is over.
"""

import re
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

from botocore.exceptions import ClientError

from trainer.errors import KennelError
from trainer.target import Target

SCALING = frozenset({"SystemUpdating", "Updating"})
"""States in which an endpoint serves as before while its instances change."""

ENDPOINT = "aws_sagemaker_endpoint"
# What SageMaker leaves alone in these states: operation, member that names it, and its states.
_BUSY = {
    ENDPOINT: (
        "describe_endpoint",
        "EndpointName",
        "EndpointStatus",
        SCALING | {"Creating", "Deleting", "RollingBack"},
    ),
    "aws_sagemaker_notebook_instance": (
        "describe_notebook_instance",
        "NotebookInstanceName",
        "NotebookInstanceStatus",
        {"Deleting", "Pending", "Stopping", "Updating"},
    ),
}
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


def wait(
    target: Target, resources: Iterable[tuple[str, str]], seconds: float = _LONGEST_SECONDS
) -> None:
    """Wait until SageMaker changes or deletes what it does not touch while it changes it.

    Terraform's provider asks once. Some releases of it take the refusal for a success, and forget
    an endpoint that goes on.

    Args:
        target: Where.
        resources: By Terraform's type and name; none need be there.
        seconds: How long to wait for each.

    Raises:
        KennelError: Something goes on changing after that time.
    """
    for kind, name in resources:
        if kind not in _BUSY:
            continue
        started, told = time.monotonic(), -_TELL_SECONDS
        while status := _busy(target, kind, name):
            passed = time.monotonic() - started
            if passed > seconds:
                raise KennelError(
                    f"{name} is still {status} after {passed / 60:.0f} minutes, nothing was "
                    "changed: give the command again when it is InService"
                )
            if passed - told >= _TELL_SECONDS:
                sys.stderr.write(
                    f"waiting for {name}, which is {status}: SageMaker changes one thing at a time "
                    f"({passed:.0f} s)\n"
                )
                told = passed
            time.sleep(min(_POLL_SECONDS, seconds))


def _busy(target: Target, kind: str, name: str) -> str | None:
    """State in which something is left alone; None if it is in another, or not there."""
    operation, member, status, states = _BUSY[kind]
    try:
        described = getattr(target.client("sagemaker"), operation)(**{member: name})
    except ClientError as error:
        if error.response["Error"]["Code"] != "ValidationException":
            raise
        return None
    return str(described[status]) if described[status] in states else None
