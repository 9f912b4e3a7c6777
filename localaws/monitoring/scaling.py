"""Application Auto Scaling, acting: target tracking and schedules move capacities."""

import math
import sys
import time
import uuid
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Protocol

from botocore.exceptions import BotoCoreError, ClientError
from moto.applicationautoscaling import models
from moto.applicationautoscaling.models import applicationautoscaling_backends

from localaws import regions
from localaws.execution import ACCOUNT, Execution
from localaws.monitoring.alarms import Alarms, Watcher
from localaws.monitoring.schedules import ScheduleError, is_due

VARIANT_INSTANCES = "sagemaker:variant:DesiredInstanceCount"
PROVISIONED_CONCURRENCY = "lambda:function:ProvisionedConcurrency"
HIGH, LOW = "-AlarmHigh-", "-AlarmLow-"
"""What the names of a target tracking policy's two alarms hold."""

_KEPT_ACTIVITIES = 1000
_RETRY_SECONDS = 60.0
# AWS's defaults where a policy names none.
_COOLDOWN_SECONDS = {VARIANT_INSTANCES: 300.0, PROVISIONED_CONCURRENCY: 0.0}


@dataclass(frozen=True)
class Tracking:
    """What a target tracking policy sees.

    Attributes:
        target: The value that its metric should have.
        high: Whether the alarm for too high a value is in ALARM.
        low: Whether the alarm for too low a value is in ALARM.
        value: The metric's newest value, if it has one.
        base: The capacity that there was when the metric had that value.
        scales_in: Whether it may take capacity away.
    """

    target: float
    high: bool
    low: bool
    value: float | None
    base: int
    scales_in: bool = True


def tracked(current: int, policies: Sequence[Tracking]) -> int:
    """The capacity that target tracking policies want.

    Out goes at once as far as the metric's value in proportion to its target says; in goes one at a
    time, and only if every policy that may scale in agrees. Of several policies the one that wants
    most prevails.

    Args:
        current: The capacity that there is.
        policies: What they see.
    """
    out = [_needed(policy) for policy in policies if policy.high]
    if out:
        return max(current, *out)
    inward = [policy for policy in policies if policy.scales_in]
    if not inward or not all(policy.low for policy in inward):
        return current
    needed = max(_needed(policy) for policy in inward)
    return min(current, max(current - 1, needed))


def _needed(policy: Tracking) -> int:
    if policy.value is None:
        return policy.base
    # An exact multiple must not become one more by a rounding error.
    return math.ceil(max(1, policy.base) * policy.value / policy.target - 1e-9)


def bounded(capacity: int, least: int, most: int) -> int:
    """A capacity moved into its bounds."""
    return max(least, min(most, capacity))


@dataclass(frozen=True)
class Capacity:
    """What a service says of a capacity: what is wanted of it, and whether that is there."""

    wanted: int
    settled: bool
    failed: bool = False


class Resource(Protocol):
    """Something with a capacity."""

    noun: str

    @abstractmethod
    def read(self) -> Capacity:
        """The capacity as it is.

        Raises:
            ClientError: There is none.
        """

    @abstractmethod
    def change(self, capacity: int) -> None:
        """Ask for another one.

        Raises:
            ClientError: The service refuses.
        """


class Variant(Resource):
    """The instances of an endpoint's variant."""

    noun = "desired instance count"

    def __init__(self, sagemaker: Any, resource: str) -> None:
        """Name it by `endpoint/ENDPOINT/variant/VARIANT`."""
        self._client = sagemaker
        _, self._endpoint, _, self._variant = resource.split("/")

    def read(self) -> Capacity:
        """The capacity as it is."""
        found = self._client.describe_endpoint(EndpointName=self._endpoint)
        (variant,) = (
            each
            for each in found.get("ProductionVariants", [])
            if each["VariantName"] == self._variant
        )
        wanted = variant["DesiredInstanceCount"]
        there = variant.get("CurrentInstanceCount") == wanted
        status = found["EndpointStatus"]
        return Capacity(wanted, there and status == "InService", status == "Failed")

    def change(self, capacity: int) -> None:
        """Ask for another one."""
        wanted = {"VariantName": self._variant, "DesiredInstanceCount": capacity}
        self._client.update_endpoint_weights_and_capacities(
            EndpointName=self._endpoint, DesiredWeightsAndCapacities=[wanted]
        )


class WarmEnvironments(Resource):
    """The provisioned concurrency of a function's alias."""

    noun = "provisioned concurrency"

    def __init__(self, lambda_: Any, resource: str) -> None:
        """Name it by `function:FUNCTION:ALIAS`."""
        self._client = lambda_
        _, function, alias = resource.split(":")
        self._alias = {"FunctionName": function, "Qualifier": alias}

    def read(self) -> Capacity:
        """The capacity as it is; none where none was ever put."""
        try:
            found = self._client.get_provisioned_concurrency_config(**self._alias)
        except ClientError as error:
            if _code(error) == "ProvisionedConcurrencyConfigNotFoundException":
                return Capacity(0, True)
            raise
        wanted = found["RequestedProvisionedConcurrentExecutions"]
        return Capacity(wanted, found["Status"] == "READY", found["Status"] == "FAILED")

    def change(self, capacity: int) -> None:
        """Ask for another one; Lambda has no configuration of none."""
        if capacity:
            self._client.put_provisioned_concurrency_config(
                **self._alias, ProvisionedConcurrentExecutions=capacity
            )
        else:
            self._client.delete_provisioned_concurrency_config(**self._alias)


def activities(backend: models.ApplicationAutoscalingBackend) -> list[dict[str, Any]]:
    """The scaling activities of a backend, oldest first, as DescribeScalingActivities has them."""
    found: list[dict[str, Any]] = vars(backend).setdefault("activities", [])
    return found


@dataclass
class _Hand:
    """What is under way with one target, and what was last."""

    bounds_moved: str = ""
    """Why the capacity has to be moved into the target's bounds, if it has."""
    activity: dict[str, Any] | None = None
    before: int = 0
    """Capacity before the last change."""
    wanted: int = 0
    grew: bool = False
    cooldowns: tuple[float, float] = (0.0, 0.0)
    """Seconds on AWS after scaling out, and after scaling in."""
    out_until: float = 0.0
    in_until: float = 0.0
    settled_at: float = 0.0
    retry_at: float = 0.0


class Scaling(Watcher):
    """Changes the capacity of scalable targets by their policies and schedules.

    Cooldowns pass as fast as AWS's other waits; schedules keep to the clock. Step scaling policies
    are kept and do not act.
    """

    def __init__(self, execution: Execution) -> None:
        """Make it; nothing runs yet."""
        super().__init__(execution)
        self._hands: dict[models.FakeScalableTarget, _Hand] = {}
        self._scheduled_until = datetime.now(UTC)

    def bounds_moved(self, target: models.FakeScalableTarget, cause: str) -> None:
        """A target was registered with other bounds: move its capacity into them soon."""
        self._hand(target).bounds_moved = cause
        self.look()

    def resume(self) -> None:
        """Give up what was under way when localaws ended, and begin to look around."""
        for activity in activities(applicationautoscaling_backends[ACCOUNT][regions.current()]):
            if activity["StatusCode"] == "InProgress":
                self._give_up(activity, "localaws ended before.", time.time())
        super().resume()

    def _give_up(self, activity: dict[str, Any], reason: str, now: float) -> None:
        with self.execution.changing():
            activity.update(StatusCode="Unfulfilled", StatusMessage=reason, EndTime=now)

    def turn(self, now: float) -> None:
        """Run the schedules, then tend every target."""
        backend = applicationautoscaling_backends[ACCOUNT][regions.current()]
        # Asked before the targets: one that is registered meanwhile is not gone.
        known = set(self._hands)
        targets = [t for kind in list(backend.targets.values()) for t in list(kind.values())]
        self._run_schedules(backend, datetime.fromtimestamp(now, UTC))
        for gone in known - set(targets):
            if activity := self._hands.pop(gone).activity:
                self._give_up(activity, "The scalable target was deregistered.", now)
        for target in targets:
            try:
                self._tend(backend, target, now)
            except (BotoCoreError, ClientError, ValueError) as error:
                self._hand(target).retry_at = now + self.execution.seconds(_RETRY_SECONDS)
                told = f"scalable target {target.resource_id}: {error}"
                print(told, file=sys.stderr, flush=True)

    def _hand(self, target: models.FakeScalableTarget) -> _Hand:
        return self._hands.setdefault(target, _Hand())

    def _run_schedules(self, backend: models.ApplicationAutoscalingBackend, now: datetime) -> None:
        period = self._scheduled_until, now
        self._scheduled_until = now
        for action in list(backend.scheduled_actions):
            target = backend.targets.get(action.scalable_dimension, {}).get(action.resource_id)
            if not target or _is_suspended(target, "ScheduledScalingSuspended"):
                continue
            if not _is_within(action, now.timestamp()):
                continue
            created = datetime.fromtimestamp(action.creation_time, UTC)
            try:
                due = is_due(action.schedule, action.timezone, created, period)
            except ScheduleError as error:
                print(f"{action.scheduled_action_name}: {error}", file=sys.stderr, flush=True)
                continue
            if due:
                moved: Any = target
                bounds: Any = action.scalable_target_action
                with self.execution.changing():
                    moved.update(bounds.get("MinCapacity"), bounds.get("MaxCapacity"), None)
                name = action.scheduled_action_name
                self._hand(target).bounds_moved = f"scheduled action name {name} was triggered"

    def _tend(
        self,
        backend: models.ApplicationAutoscalingBackend,
        target: models.FakeScalableTarget,
        now: float,
    ) -> None:
        hand, resource = self._hand(target), self._resource(target)
        if resource is None or now < hand.retry_at:
            return
        if hand.activity and not self._is_settled(hand, resource, now):
            return
        policies = [
            policy
            for policy in list(backend.policies.values())
            if policy.resource_id == target.resource_id
            and policy.scalable_dimension == target.scalable_dimension
            and policy.target_tracking_scaling_policy_configuration
        ]
        alarmed = any(_is_in_alarm(policy, kind) for policy in policies for kind in (HIGH, LOW))
        if not hand.bounds_moved and not alarmed:
            return
        current = resource.read().wanted
        least, most = int(target.min_capacity or 0), int(target.max_capacity or 0)
        wanted, cause = bounded(current, least, most), hand.bounds_moved
        if wanted == current:
            hand.bounds_moved = ""
            wanted = bounded(self._tracked(target, policies, current, now), least, most)
            cause = _cause(policies, HIGH if wanted > current else LOW)
        if wanted != current:
            self._change(backend, target, resource, (current, wanted), cause, now)

    def _tracked(
        self,
        target: models.FakeScalableTarget,
        policies: Sequence[models.FakeApplicationAutoscalingPolicy],
        current: int,
        now: float,
    ) -> int:
        """What the policies want, as far as suspensions and cooldowns let them."""
        hand = self._hand(target)
        wanted = tracked(current, [self._tracking(p, hand, current, now) for p in policies])
        if wanted > current and _is_suspended(target, "DynamicScalingOutSuspended"):
            return current
        is_too_early = now < max(hand.in_until, hand.out_until)
        if wanted < current and (
            is_too_early or _is_suspended(target, "DynamicScalingInSuspended")
        ):
            return current
        return wanted

    def _tracking(
        self,
        policy: models.FakeApplicationAutoscalingPolicy,
        hand: _Hand,
        current: int,
        now: float,
    ) -> Tracking:
        settings: Mapping[str, Any] = policy.target_tracking_scaling_policy_configuration or {}
        kind = HIGH if _is_in_alarm(policy, HIGH) else LOW
        alarms = self.execution.service(Alarms)
        latest = next((alarms.latest(a.name) for a in policy.alarms if kind in a.name), None)
        # Capacity that was added counts as part of a further step during the cooldown, and what was
        # measured before it was there says nothing about it.
        added = current > hand.before and (
            now < hand.out_until or (latest is not None and latest[0] < hand.settled_at)
        )
        return Tracking(
            float(settings["TargetValue"]),
            high=_is_in_alarm(policy, HIGH),
            low=_is_in_alarm(policy, LOW),
            value=latest[1] if latest else None,
            base=hand.before if added else current,
            scales_in=not settings.get("DisableScaleIn", False),
        )

    def _change(
        self,
        backend: models.ApplicationAutoscalingBackend,
        target: models.FakeScalableTarget,
        resource: Resource,
        capacity: tuple[int, int],
        cause: str,
        now: float,
    ) -> None:
        hand = self._hand(target)
        before, wanted = capacity
        activity = {
            "ActivityId": str(uuid.uuid4()),
            "ServiceNamespace": target.service_namespace,
            "ResourceId": target.resource_id,
            "ScalableDimension": target.scalable_dimension,
            "Description": f"Setting {resource.noun} to {wanted}.",
            "Cause": cause,
            "StartTime": now,
        }
        try:
            resource.change(wanted)
        except (BotoCoreError, ClientError) as error:
            hand.retry_at = now + self.execution.seconds(_RETRY_SECONDS)
            activity["StatusCode"] = "Failed"
            activity["StatusMessage"] = (
                f"Failed to set {resource.noun} to {wanted}. Reason: {error}"
            )
            activity["EndTime"] = now
        else:
            if now >= hand.out_until:
                hand.before = before
            hand.bounds_moved, hand.activity, hand.wanted = "", activity, wanted
            hand.grew, hand.cooldowns = wanted > before, self._cooldowns(backend, target)
            activity["StatusCode"] = "InProgress"
            activity["StatusMessage"] = (
                f"Successfully set {resource.noun} to {wanted}. Waiting for change to be fulfilled"
                f" by {target.service_namespace}."
            )
        with self.execution.changing():
            kept = activities(backend)
            kept.append(activity)
            del kept[:-_KEPT_ACTIVITIES]

    def _is_settled(self, hand: _Hand, resource: Resource, now: float) -> bool:
        """Whether the change that was under way is over; then its cooldown begins."""
        found = resource.read()
        activity = hand.activity
        if activity is None or not (found.settled or found.failed):
            return False
        service, said = activity["ServiceNamespace"], activity["StatusMessage"].split(". ")[0]
        with self.execution.changing():
            activity["EndTime"] = now
            if found.failed:
                activity["StatusCode"] = "Failed"
                activity["StatusMessage"] = f"{said}. {service} could not fulfill it."
            elif found.wanted == hand.wanted:
                activity["StatusCode"] = "Successful"
                activity["StatusMessage"] = f"{said}. Change successfully fulfilled by {service}."
            else:
                activity["StatusCode"] = "Overridden"
                activity["StatusMessage"] = f"{said}. It was set to {found.wanted} since."
        hand.activity, hand.settled_at = None, now
        out, inward = hand.cooldowns
        if hand.grew:
            hand.out_until = now + self.execution.seconds(out)
        else:
            hand.before = found.wanted
            hand.in_until = now + self.execution.seconds(inward)
        return True

    def _cooldowns(
        self, backend: models.ApplicationAutoscalingBackend, target: models.FakeScalableTarget
    ) -> tuple[float, float]:
        """Seconds on AWS after scaling out and after scaling in: the longest of the policies'."""
        default = _COOLDOWN_SECONDS[target.scalable_dimension]
        settings: list[Mapping[str, Any]] = [
            policy.target_tracking_scaling_policy_configuration or {}
            for policy in backend.policies.values()
            if policy.resource_id == target.resource_id
        ]
        out, inward = (
            max((float(each.get(name, default)) for each in settings), default=0.0)
            for name in ("ScaleOutCooldown", "ScaleInCooldown")
        )
        return out, inward

    def _resource(self, target: models.FakeScalableTarget) -> Resource | None:
        if target.scalable_dimension == VARIANT_INSTANCES:
            return Variant(self._sagemaker, target.resource_id)
        if target.scalable_dimension == PROVISIONED_CONCURRENCY:
            return WarmEnvironments(self._lambda, target.resource_id)
        return None

    @cached_property
    def _sagemaker(self) -> Any:
        return self.execution.client("sagemaker")

    @cached_property
    def _lambda(self) -> Any:
        return self.execution.client("lambda")


def _is_in_alarm(policy: models.FakeApplicationAutoscalingPolicy, kind: str) -> bool:
    return any(
        kind in alarm.name and alarm.state_value == "ALARM" and alarm.actions_enabled
        for alarm in policy.alarms
    )


def _cause(policies: Iterable[models.FakeApplicationAutoscalingPolicy], kind: str) -> str:
    """What made the change, as AWS words it."""
    return next(
        (
            f"monitor alarm {alarm.name} in state ALARM triggered policy {policy.policy_name}"
            for policy in policies
            for alarm in policy.alarms
            if kind in alarm.name and alarm.state_value == "ALARM"
        ),
        "",
    )


def _is_suspended(target: models.FakeScalableTarget, kind: str) -> bool:
    suspended: Any = target.suspended_state
    return bool((suspended or {}).get(kind))


def _is_within(action: models.FakeScheduledAction, now: float) -> bool:
    start, end = (_epoch(time) for time in (action.start_time, action.end_time))
    return (start is None or start <= now) and (end is None or now <= end)


def _epoch(time: Any) -> float | None:
    if time is None or isinstance(time, int | float):
        return time
    return datetime.fromisoformat(str(time)).timestamp()


def _code(error: ClientError) -> str:
    code: str = error.response.get("Error", {}).get("Code", "")
    return code
