"""The steps of a release, as SageMaker's deployment guardrails take them.

Source: "Deployment guardrails for updating models in production" of the SageMaker developer guide.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Step:
    """One step; all shares are of 1.

    Attributes:
        up: How much of the new fleet is up before traffic moves.
        traffic: How much of the traffic the new fleet gets.
        wait_seconds: How long alarms are watched after that, in seconds on AWS.
        kept: How much of the old fleet is left after that.
    """

    up: float
    traffic: float
    wait_seconds: float
    kept: float


def steps(deployment: Mapping[str, Any], instances: int) -> list[Step]:
    """The steps from the old fleet to the new one.

    Args:
        deployment: A `DeploymentConfig`; empty for SageMaker's default, all traffic at once.
        instances: How many instances the new fleet is to have.
    """
    if rolling := deployment.get("RollingUpdatePolicy"):
        return _rolling(rolling, instances)
    blue_green = deployment.get("BlueGreenUpdatePolicy", {})
    routing = blue_green.get("TrafficRoutingConfiguration", {})
    wait = routing.get("WaitIntervalInSeconds", 0)
    match routing.get("Type"):
        case "CANARY":
            shares = [_share(routing["CanarySize"], instances)]
        case "LINEAR":
            size = _share(routing["LinearStepSize"], instances)
            # A count that is met exactly must not become one more step by rounding.
            shares = [size * step for step in range(1, math.ceil(1 / size - 1e-9))]
        case _:
            shares = []
    return [
        *(Step(1.0, share, wait, 1.0) for share in shares if share < 1),
        Step(1.0, 1.0, blue_green.get("TerminationWaitInSeconds", 0), 0.0),
    ]


def _rolling(policy: Mapping[str, Any], instances: int) -> list[Step]:
    batch = max(1, math.floor(_share(policy["MaximumBatchSize"], instances) * instances))
    moved = [min(instances, batch * step) for step in range(1, math.ceil(instances / batch) + 1)]
    return [
        Step(
            count / instances,
            count / instances,
            policy["WaitIntervalInSeconds"],
            1 - count / instances,
        )
        for count in moved
    ]


def _share(size: Mapping[str, Any], instances: int) -> float:
    whole = 100 if size["Type"] == "CAPACITY_PERCENT" else instances
    return min(1.0, float(size["Value"]) / whole)


def alarms(deployment: Mapping[str, Any]) -> list[str]:
    """Names of the alarms that end the release and take it back."""
    given = deployment.get("AutoRollbackConfiguration", {}).get("Alarms", [])
    return [alarm["AlarmName"] for alarm in given]


def limit_seconds(deployment: Mapping[str, Any]) -> float:
    """How long the release may take, in real seconds; infinite where nothing is said."""
    policies = ("BlueGreenUpdatePolicy", "RollingUpdatePolicy")
    given = [
        deployment[policy]["MaximumExecutionTimeoutInSeconds"]
        for policy in policies
        if "MaximumExecutionTimeoutInSeconds" in deployment.get(policy, {})
    ]
    return float(given[0]) if given else math.inf
