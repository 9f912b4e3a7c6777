"""What changes by itself: an endpoint as autoscaling acts, an alias as Lambda moves it.

Both serve all the while, but AWS refuses to change them further until that is over.
"""

import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from botocore.exceptions import ClientError

from terraform.cli import function
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
_ONE_AT_A_TIME = "SageMaker changes one thing at a time"
_WARM_FIRST = "Lambda makes its environments ready first"
# Terraform breaks the lines of what it says.
_REFUSAL = re.compile(r"in-progress[\s│]+endpoint|Alias[\s│]+with[\s│]+weights[\s│]+can[\s│]+not")


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
    """Whether AWS refused a change since the endpoint or the alias was changing already."""
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
        if kind in _BUSY:
            _wait(partial(_busy, target, kind, name), name, _ONE_AT_A_TIME, seconds)


def wait_for_alias(target: Target, seconds: float = _LONGEST_SECONDS) -> None:
    """Wait until Lambda has moved the function's alias to the version that it has been given.

    It first makes ready there what is provisioned, and has the version before answer meanwhile, by
    weights. Terraform's provider takes those into its state, for a change to be undone, and no
    other number of ready environments is taken until they are gone:
    hashicorp/terraform-provider-aws#48116.

    Args:
        target: Where.
        seconds: How long to wait.

    Raises:
        KennelError: It is still not moved after that time.
    """
    if name := target.parameter("function_name"):
        _wait(partial(_moving, target, name), name, _WARM_FIRST, seconds)


def _wait(busy: Callable[[], str | None], name: str, why: str, seconds: float) -> None:
    started, told = time.monotonic(), -_TELL_SECONDS
    while status := busy():
        passed = time.monotonic() - started
        if passed > seconds:
            raise KennelError(
                f"{name} is still {status} after {passed / 60:.0f} minutes: give the command again "
                "when it is not"
            )
        if passed - told >= _TELL_SECONDS:
            sys.stderr.write(f"waiting for {name}, which is {status}: {why} ({passed:.0f} s)\n")
            told = passed
        time.sleep(min(_POLL_SECONDS, seconds))


def _moving(target: Target, name: str) -> str | None:
    """What Lambda does with the function's alias; None if it leaves it alone, or has none."""
    client = target.client("lambda")
    try:
        alias = client.get_alias(FunctionName=name, Name=function.ALIAS)
    except client.exceptions.ResourceNotFoundException:
        return None
    routing = alias.get("RoutingConfig") or {}
    is_moving = bool(routing.get("AdditionalVersionWeights"))
    return f"moving to version {alias['FunctionVersion']}" if is_moving else None


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
