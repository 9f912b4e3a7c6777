"""Application Auto Scaling: metrics in, capacities out."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st
from moto.applicationautoscaling import models
from moto.applicationautoscaling.models import applicationautoscaling_backends
from moto.cloudwatch.models import cloudwatch_backends

from localaws.additions import application_autoscaling as answers
from localaws.execution import ACCOUNT, REGION, Execution
from localaws.monitoring.scaling import Scaling, Tracking, activities, bounded, tracked
from localaws.monitoring.schedules import ScheduleError, is_due
from tests.localaws.conftest import until
from tests.localaws.test_endpoints import Endpoint as RealEndpoint
from tests.localaws.test_endpoints import aws, code, endpoint, kennel  # noqa: F401 (fixtures)

NOON = datetime(2026, 11, 23, 12, 0, 30, tzinfo=UTC)
"""A Monday."""


def sees(value: float | None, base: int, **changes: Any) -> Tracking:
    """A policy with the target 10, whose alarms are as its metric's value says."""
    known = value or 0.0
    return Tracking(
        10.0, **{"high": known > 10, "low": known < 9, "value": value, "base": base, **changes}
    )


@pytest.mark.parametrize(
    ("current", "policies", "wanted"),
    [
        (1, [sees(30.0, 1)], 3),
        (1, [sees(10.1, 1)], 2),
        (2, [sees(9.5, 2)], 2),
        # Counted from what there was before, 3 are enough; a larger need goes on.
        (3, [sees(30.0, 1)], 3),
        (3, [sees(50.0, 1)], 5),
        (3, [sees(0.0, 3)], 2),
        (2, [sees(8.9, 2)], 2),
        (3, [sees(0.0, 3, scales_in=False)], 3),
        (2, [sees(20.0, 2), sees(30.0, 2)], 6),
        (2, [sees(20.0, 2), sees(0.0, 2)], 4),
        (3, [sees(0.0, 3), sees(9.5, 3)], 3),
        (3, [sees(0.0, 3), sees(9.5, 3, scales_in=False)], 2),
        (0, [sees(20.0, 0)], 2),
        (2, [sees(None, 2, high=True)], 2),
        (2, [], 2),
    ],
)
def test_capacity_follows_the_metric(current: int, policies: list[Tracking], wanted: int) -> None:
    assert tracked(current, policies) == wanted


@given(st.integers(1, 100), st.floats(0, 1e4), st.floats(0.1, 1e3))
def test_what_is_wanted_brings_the_metric_to_its_target(
    current: int, value: float, target: float
) -> None:
    policy = Tracking(target, value > target, value < 0.9 * target, value, current)
    wanted = tracked(current, [policy])
    per_instance = current * value / wanted if wanted else 0.0
    if policy.high:
        assert wanted > current or value <= target * (1 + 1e-6)
        assert per_instance <= target * (1 + 1e-6)
    elif policy.low:
        assert current - 1 <= wanted <= current
        # Scaling in never makes it scale out again.
        assert wanted == current or per_instance <= target * (1 + 1e-6)
    else:
        assert wanted == current


@given(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99))
def test_bounds_are_kept(capacity: int, one: int, other: int) -> None:
    least, most = sorted((one, other))
    assert least <= bounded(capacity, least, most) <= most
    assert bounded(capacity, 0, 99) == capacity


@pytest.mark.parametrize(
    ("schedule", "timezone", "due"),
    [
        ("at(2026-11-23T12:00:00)", None, True),
        ("at(2026-11-23T13:00:00)", "Europe/Berlin", True),
        ("at(2026-11-23T12:00:00)", "Europe/Berlin", False),
        ("rate(1 minute)", None, True),
        ("rate(30 minutes)", None, True),
        ("rate(1 day)", None, False),
        ("cron(0 12 * * ? *)", None, True),
        ("cron(0 13 ? * MON-FRI *)", "Europe/Berlin", True),
        ("cron(0/15 8-18 ? * 2 2026-2027)", None, True),
        ("cron(0 12 ? * SUN,TUE *)", None, False),
        ("cron(0 12 L * ? *)", None, False),
        ("cron(1 12 * * ? *)", None, False),
        ("cron(*/30 12 23 NOV ? *)", None, True),
    ],
)
def test_schedules_are_due_at_their_times(schedule: str, timezone: str | None, due: bool) -> None:
    created = NOON - timedelta(hours=1, seconds=30)
    assert is_due(schedule, timezone, created, (NOON - timedelta(minutes=1), NOON)) is due
    # Not again in the same minute.
    assert not is_due(schedule, timezone, created, (NOON, NOON + timedelta(seconds=20)))


@pytest.mark.parametrize(
    ("schedule", "timezone"),
    [
        ("every day", None),
        ("at(noon)", None),
        ("rate(0 minutes)", None),
        ("cron(0 12 * * ?)", None),
        ("cron(60 12 * * ? *)", None),
        ("cron(0 12 ? * 2#1 *)", None),
        ("rate(1 minute)", "Europe/Nowhere"),
    ],
)
def test_a_schedule_that_is_none_is_refused(schedule: str, timezone: str | None) -> None:
    with pytest.raises(ScheduleError):
        is_due(schedule, timezone, NOON, (NOON, NOON))


class Endpoint:
    """SageMaker as far as scaling needs it: an endpoint that changes when it is told to."""

    def __init__(self) -> None:
        self.wanted = self.there = 1
        self.refuses = False

    def describe_endpoint(self, **_: str) -> dict[str, Any]:
        variant = {
            "VariantName": "main",
            "DesiredInstanceCount": self.wanted,
            "CurrentInstanceCount": self.there,
        }
        status = "InService" if self.there == self.wanted else "Updating"
        return {"EndpointStatus": status, "ProductionVariants": [variant]}

    def update_endpoint_weights_and_capacities(
        self,
        EndpointName: str,
        DesiredWeightsAndCapacities: list[dict[str, Any]],
    ) -> None:
        if self.refuses:
            error = {"Code": "ValidationException", "Message": "Cannot update in-progress endpoint"}
            raise ClientError({"Error": error}, "UpdateEndpointWeightsAndCapacities")
        (told,) = DesiredWeightsAndCapacities
        self.wanted = told["DesiredInstanceCount"]


class Scaled:
    """A target of 1 to 4 instances with a policy, and a clock that a test moves."""

    def __init__(self) -> None:
        self.scaling_records = applicationautoscaling_backends[ACCOUNT][REGION]
        self.alarm_records = cloudwatch_backends[ACCOUNT][REGION]
        self.endpoint, self.now = Endpoint(), time.time() // 60 * 60
        self.value: float | None = None
        execution: Any = SimpleNamespace(
            seconds=lambda seconds: seconds,
            changing=nullcontext,
            client=lambda _: self.endpoint,
            service=lambda _: SimpleNamespace(latest=self._latest),
        )
        self.service = Scaling(cast(Execution, execution))
        self.resource = ("sagemaker", "endpoint/kennel/variant/main")
        self.dimension = "sagemaker:variant:DesiredInstanceCount"
        self.target = self.scaling_records.register_scalable_target(
            *self.resource, self.dimension, 1, 4, "", cast(str, None)
        )
        metric = "SageMakerVariantConcurrentRequestsPerModelHighResolution"
        self.policy = self.scaling_records.put_scaling_policy(
            "track",
            *self.resource,
            self.dimension,
            {
                "TargetValue": 10.0,
                "PredefinedMetricSpecification": {"PredefinedMetricType": metric},
                "ScaleOutCooldown": 5,
                "ScaleInCooldown": 30,
            },
            "TargetTrackingScaling",
        )

    def _latest(self, _: str) -> tuple[float, float] | None:
        return None if self.value is None else (self.now - 1, self.value)

    def measure(self, value: float) -> None:
        """Let the metric have a value, and the policy's alarms see it."""
        self.value = value
        high, low = self.policy.alarms
        high.state_value = "ALARM" if value > high.threshold else "OK"
        low.state_value = "ALARM" if value < low.threshold else "OK"

    def after(self, seconds: float, *, settled: bool = True) -> int:
        """Let time pass and the service look; the capacity that it wants then."""
        self.now += seconds
        if settled:
            self.endpoint.there = self.endpoint.wanted
        self.service.turn(self.now)
        return self.endpoint.wanted

    @property
    def last(self) -> dict[str, Any]:
        return activities(self.scaling_records)[-1]


@pytest.fixture
def scaled(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scaled]:
    monkeypatch.setattr(models, "FakeScalableTarget", answers.ScalableTarget)
    monkeypatch.setattr(models, "FakeApplicationAutoscalingPolicy", answers.ScalingPolicy)
    made = Scaled()
    yield made
    made.scaling_records.reset()
    made.alarm_records.reset()


def test_a_policy_has_the_alarms_that_aws_makes(scaled: Scaled) -> None:
    high, low = scaled.policy.alarms
    assert high.name.startswith("TargetTracking-endpoint/kennel/variant/main-AlarmHigh-")
    assert (high.threshold, low.threshold) == (10.0, 9.0)
    assert (high.period, high.evaluation_periods, low.evaluation_periods) == (10, 3, 15)
    assert high.alarm_actions == [scaled.policy.policy_arn]


def test_out_and_in_with_cooldowns(scaled: Scaled) -> None:
    scaled.measure(25.0)
    assert scaled.after(10) == 3
    assert (scaled.last["StatusCode"], scaled.last["Description"]) == (
        "InProgress",
        "Setting desired instance count to 3.",
    )
    high, low = scaled.policy.alarms
    assert (
        scaled.last["Cause"] == f"monitor alarm {high.name} in state ALARM triggered policy track"
    )
    scaled.measure(100.0)
    assert scaled.after(10, settled=False) == 3, "nothing more while instances start"
    scaled.measure(28.0)
    assert scaled.after(10) == 3, "measured with one instance, it needs three"
    assert (scaled.last["StatusCode"], scaled.last["EndTime"]) == ("Successful", scaled.now)
    scaled.measure(12.0)
    assert scaled.after(3) == 3, "the cooldown counts what was added"
    assert scaled.after(10) == 4
    scaled.measure(0.0)
    assert scaled.after(1) == 4
    assert scaled.after(6) == 3
    assert low.name in scaled.last["Cause"]
    assert scaled.after(10) == 3
    assert scaled.after(10) == 3, "the cooldown after scaling in"
    assert scaled.after(25) == 2
    assert [scaled.after(40), scaled.after(40), scaled.after(40)] == [2, 1, 1]


def test_scaling_out_does_not_wait_for_the_cooldown_of_scaling_in(scaled: Scaled) -> None:
    scaled.measure(25.0)
    scaled.after(10)
    scaled.after(10)
    scaled.measure(0.0)
    assert scaled.after(10) == 2
    assert scaled.after(1) == 2
    scaled.measure(20.0)
    assert scaled.after(2) == 4


def test_a_failed_change_is_told_and_tried_again(scaled: Scaled) -> None:
    scaled.endpoint.refuses = True
    scaled.measure(25.0)
    assert scaled.after(10) == 1
    assert scaled.last["StatusCode"] == "Failed"
    assert "Cannot update in-progress endpoint" in scaled.last["StatusMessage"]
    scaled.endpoint.refuses = False
    assert scaled.after(10) == 1
    assert scaled.after(60) == 3
    assert [a["StatusCode"] for a in activities(scaled.scaling_records)] == ["Failed", "InProgress"]


def test_what_is_suspended_does_not_act(scaled: Scaled) -> None:
    suspended: Any = {"DynamicScalingOutSuspended": True, "DynamicScalingInSuspended": True}
    scaled.target.update(None, None, suspended)
    scaled.measure(25.0)
    assert scaled.after(10) == 1
    scaled.endpoint.wanted = 3
    scaled.measure(0.0)
    assert scaled.after(10) == 3


def test_other_bounds_move_the_capacity_at_once(scaled: Scaled) -> None:
    scaled.target.update(2, 4, cast(str, None))
    scaled.service.bounds_moved(scaled.target, "minimum capacity was set to 2")
    assert scaled.after(1) == 2
    assert scaled.last["Cause"] == "minimum capacity was set to 2"
    scaled.after(1)
    scaled.target.update(1, 1, cast(str, None))
    scaled.service.bounds_moved(scaled.target, "maximum capacity was set to 1")
    assert scaled.after(1) == 1


def test_a_schedule_moves_the_bounds_and_the_capacity(scaled: Scaled) -> None:
    action: Any = {"MinCapacity": 3, "MaxCapacity": 4}
    namespace, resource = scaled.resource
    scaled.scaling_records.put_scheduled_action(
        namespace,
        "cron(* * * * ? *)",
        "UTC",
        "day",
        resource,
        scaled.dimension,
        *[cast(str, None)] * 2,
        action,
    )
    assert scaled.after(61) == 3
    assert (scaled.target.min_capacity, scaled.target.max_capacity) == (3, 4)
    assert "scheduled action name day was triggered" in scaled.last["Cause"]


def test_a_target_that_is_deregistered_is_left_alone(scaled: Scaled) -> None:
    scaled.measure(25.0)
    scaled.after(10)
    answers.delete_scaling(scaled.scaling_records, scaled.resource[1], scaled.dimension)
    scaled.after(10, settled=False)
    assert scaled.last["StatusCode"] == "Unfulfilled"
    assert not scaled.alarm_records.alarms


def test_a_changed_policy_keeps_the_names_of_its_alarms(scaled: Scaled) -> None:
    before = [alarm.name for alarm in scaled.policy.alarms]
    settings: Any = scaled.policy.target_tracking_scaling_policy_configuration
    changed = scaled.scaling_records.put_scaling_policy(
        "track",
        *scaled.resource,
        scaled.dimension,
        {**settings, "TargetValue": 20.0, "DisableScaleIn": True},
        "TargetTrackingScaling",
    )
    assert [alarm.name for alarm in changed.alarms] == before[:1]
    assert list(scaled.alarm_records.alarms) == before[:1]
    assert changed.alarms[0].threshold == 20.0
    assert changed.policy_arn == scaled.policy.policy_arn


def test_an_endpoint_under_load_grows_and_shrinks(endpoint: RealEndpoint) -> None:  # noqa: F811
    """The whole loop: requests, metrics, alarms, instances; a minute takes 0.6 s."""
    began = datetime.now(UTC)
    endpoint.create("red")
    client = endpoint.aws.client("application-autoscaling")
    target = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": "endpoint/kennel/variant/main",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }
    client.register_scalable_target(**target, MinCapacity=1, MaxCapacity=3)
    metric = "SageMakerVariantConcurrentRequestsPerModelHighResolution"
    put = client.put_scaling_policy(
        **target,
        PolicyName="track",
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration={
            "TargetValue": 2.0,
            "PredefinedMetricSpecification": {"PredefinedMetricType": metric},
            "ScaleInCooldown": 30,
            "ScaleOutCooldown": 5,
        },
    )

    def instances() -> int:
        (variant,) = endpoint.describe()["ProductionVariants"]
        count: int = variant["CurrentInstanceCount"]
        return count

    loaded = True

    def load() -> None:
        while loaded:
            endpoint.invoke(b"sleep 0.2")

    with ThreadPoolExecutor(8) as pool:
        requests = [pool.submit(load) for _ in range(8)]
        try:
            until(instances, lambda count: count == 3)
        finally:
            loaded = False
    assert [request.result() for request in requests] == [None] * 8
    until(instances, lambda count: count == 1)

    def done() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = client.describe_scaling_activities(**target)[
            "ScalingActivities"
        ]
        return found

    # The last one is over once the endpoint is in service again.
    until(done, lambda found: found[0]["StatusCode"] == "Successful")
    assert done()[0]["Description"] == "Setting desired instance count to 1."
    assert done()[0]["StartTime"] > done()[-1]["EndTime"] > began
    assert {activity["Cause"].split()[2] for activity in done()} == {
        alarm["AlarmName"] for alarm in put["Alarms"]
    }
    concurrency = {
        "Namespace": "AWS/SageMaker",
        "MetricName": "ConcurrentRequestsPerModel",
        "Dimensions": [
            {"Name": "EndpointName", "Value": "kennel"},
            {"Name": "VariantName", "Value": "main"},
        ],
    }
    (trace,) = endpoint.aws.client("cloudwatch").get_metric_data(
        MetricDataQueries=[
            {"Id": "m", "MetricStat": {"Metric": concurrency, "Stat": "Average", "Period": 1}}
        ],
        StartTime=began,
        EndTime=datetime.now(UTC) + timedelta(seconds=1),
    )["MetricDataResults"]
    assert max(trace["Values"]) > 2.0
    assert min(trace["Values"]) == 0.0

    client.deregister_scalable_target(**target)
    assert not endpoint.aws.client("cloudwatch").describe_alarms()["MetricAlarms"]
