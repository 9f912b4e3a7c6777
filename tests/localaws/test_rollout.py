from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localaws.hosting.rollout import Step, alarms, limit_seconds, steps


def policy(kind: str, **more: Any) -> dict[str, Any]:
    routing = {"Type": kind, "WaitIntervalInSeconds": 60, **more}
    return {
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": routing,
            "TerminationWaitInSeconds": 30,
            "MaximumExecutionTimeoutInSeconds": 900,
        }
    }


def percent(value: int) -> dict[str, Any]:
    return {"Type": "CAPACITY_PERCENT", "Value": value}


def rolling(size: dict[str, Any]) -> dict[str, Any]:
    return {"RollingUpdatePolicy": {"MaximumBatchSize": size, "WaitIntervalInSeconds": 60}}


@pytest.mark.parametrize(
    ("deployment", "expected"),
    [
        ({}, [Step(1, 1, 0, 0)]),
        (policy("ALL_AT_ONCE"), [Step(1, 1, 30, 0)]),
        (policy("CANARY", CanarySize=percent(25)), [Step(1, 0.25, 60, 1), Step(1, 1, 30, 0)]),
        (
            policy("CANARY", CanarySize={"Type": "INSTANCE_COUNT", "Value": 1}),
            [Step(1, 0.25, 60, 1), Step(1, 1, 30, 0)],
        ),
        (
            policy("LINEAR", LinearStepSize=percent(50)),
            [Step(1, 0.5, 60, 1), Step(1, 1, 30, 0)],
        ),
        (
            policy("LINEAR", LinearStepSize=percent(40)),
            [Step(1, 0.4, 60, 1), Step(1, 0.8, 60, 1), Step(1, 1, 30, 0)],
        ),
        (rolling(percent(50)), [Step(0.5, 0.5, 60, 0.5), Step(1, 1, 60, 0)]),
        (
            rolling({"Type": "INSTANCE_COUNT", "Value": 2}),
            [Step(0.5, 0.5, 60, 0.5), Step(1, 1, 60, 0)],
        ),
    ],
)
def test_the_steps_of_four_instances(deployment: dict[str, Any], expected: list[Step]) -> None:
    assert steps(deployment, 4) == expected


@given(st.integers(1, 20), st.integers(5, 50), st.sampled_from(["CANARY", "LINEAR", "ROLLING"]))
def test_traffic_only_grows_and_has_capacity(instances: int, size: int, kind: str) -> None:
    deployment = (
        rolling(percent(size))
        if kind == "ROLLING"
        else policy(kind, CanarySize=percent(size), LinearStepSize=percent(size))
    )
    taken = steps(deployment, instances)
    shares = [step.traffic for step in taken]
    assert shares == sorted(set(shares))
    assert (taken[-1].up, taken[-1].traffic, taken[-1].kept) == (1, 1, 0)
    # What a fleet has of the capacity is at least what it has of the traffic.
    assert all(step.up >= step.traffic for step in taken)
    assert all(step.kept >= 1 - step.traffic - 1e-9 for step in taken)
    assert len(taken) <= 20


def test_what_ends_a_release() -> None:
    names = [{"AlarmName": "a"}, {"AlarmName": "b"}]
    assert alarms({"AutoRollbackConfiguration": {"Alarms": names}}) == ["a", "b"]
    assert alarms({}) == []
    assert limit_seconds(policy("ALL_AT_ONCE")) == 900
    assert limit_seconds({}) == float("inf")
