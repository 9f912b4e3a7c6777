"""Application Auto Scaling: tags, the rules of scalable targets, alarms and activities."""

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast

from moto.applicationautoscaling import models, responses, urls
from moto.applicationautoscaling.exceptions import AWSValidationException
from moto.awslambda.exceptions import LambdaClientError
from moto.awslambda.utils import get_backend as lambda_backend
from moto.cloudwatch.models import (
    Dimension,
    Metric,
    MetricDataQuery,
    MetricStat,
    cloudwatch_backends,
)
from moto.core.exceptions import JsonRESTError
from moto.moto_api._internal import mock_random
from moto.sagemaker.models import sagemaker_backends
from moto.utilities.utils import get_partition

from localaws.additions import Gap
from localaws.additions._moto import answer_with, page, plain_client, refuses
from localaws.execution import running
from localaws.monitoring.alarms import Alarms
from localaws.monitoring.scaling import (
    HIGH,
    LOW,
    PROVISIONED_CONCURRENCY,
    VARIANT_INSTANCES,
    Scaling,
    activities,
)
from localaws.monitoring.schedules import ScheduleError, is_due

_SERVICE_LINKED_ROLES = {
    "lambda": "AWSServiceRoleForApplicationAutoScaling_LambdaConcurrency",
    "sagemaker": "AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint",
}
_LISTED_ACTIVITIES = 50
# Of what is looked for; an unpublished function has no provisioned concurrency.
_RESOURCES = {
    VARIANT_INSTANCES: r"endpoint/[^/]+/variant/[^/]+",
    PROVISIONED_CONCURRENCY: r"function:[^:]+:(?!\$LATEST)[^:]+",
}
_NOT_SUSPENDED = {
    "DynamicScalingInSuspended": False,
    "DynamicScalingOutSuspended": False,
    "ScheduledScalingSuspended": False,
}


class ScalableTarget(models.FakeScalableTarget):
    """A scalable target with what AWS adds to it: a role and nothing suspended."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.tags: dict[str, str] = {}
        backend = self.applicationautoscaling_backend
        service = self.service_namespace
        self.role_arn = self.role_arn or (
            f"arn:{get_partition(backend.region_name)}:iam::{backend.account_id}:role/"
            f"aws-service-role/{service}.application-autoscaling.amazonaws.com/"
            f"{_SERVICE_LINKED_ROLES.get(service, 'AWSServiceRoleForApplicationAutoScaling')}"
        )
        self._fill_suspended_state()

    def update(
        self, min_capacity: int | None, max_capacity: int | None, suspended_state: Any
    ) -> None:
        """Change what is given."""
        super().update(min_capacity, max_capacity, suspended_state)
        self._fill_suspended_state()

    def _fill_suspended_state(self) -> None:
        given = cast(Any, self.suspended_state) or {}
        self.suspended_state = cast(Any, {**_NOT_SUSPENDED, **given})


# Namespace, metric, statistic and period of what AWS has alarms on. Source: "Predefined metrics for
# target tracking scaling policies" of the Application Auto Scaling User Guide.
_PREDEFINED = {
    "LambdaProvisionedConcurrencyUtilization": (
        "AWS/Lambda",
        "ProvisionedConcurrencyUtilization",
        "Average",
        60,
    ),
    "SageMakerVariantConcurrentRequestsPerModelHighResolution": (
        "AWS/SageMaker",
        "ConcurrentRequestsPerModel",
        "Average",
        10,
    ),
    "SageMakerVariantInvocationsPerInstance": (
        "AWS/SageMaker",
        "InvocationsPerInstance",
        "Sum",
        60,
    ),
}
_HIGH_PERIODS, _LOW_PERIODS = 3, 15
# Between this part of the target and the target nothing scales.
_LOW_THRESHOLD = 0.9


class ScalingPolicy(models.FakeApplicationAutoscalingPolicy):
    """A scaling policy with the alarms that AWS makes for it; one that is changed keeps both."""

    def create_alarms(self) -> None:
        """Make the alarms of a target tracking policy."""
        scaling = models.applicationautoscaling_backends[self.account_id][self.region_name]
        key = self.formulate_key(
            self.service_namespace, self.resource_id, self.scalable_dimension, self.policy_name
        )
        former = scaling.policies.get(key)
        if former:
            self.policy_arn, self.creation_time = former.policy_arn, former.creation_time
        settings = self.target_tracking_scaling_policy_configuration
        if settings is None or self.service_namespace not in _SERVICE_LINKED_ROLES:
            super().create_alarms()
            return
        watched = _watched(self.resource_id, settings)
        cloudwatch = cloudwatch_backends[self.account_id][self.region_name]
        if former:
            cloudwatch.delete_alarms([alarm.name for alarm in former.alarms])
        if not watched:
            return
        target = float(settings["TargetValue"])
        kinds = [(HIGH, "GreaterThanThreshold", _HIGH_PERIODS, target)]
        if not settings.get("DisableScaleIn"):
            kinds.append((LOW, "LessThanThreshold", _LOW_PERIODS, target * _LOW_THRESHOLD))
        for kind, comparison, periods, threshold in kinds:
            alarm = cloudwatch.put_metric_alarm(
                name=_alarm_name(self.resource_id, kind, former),
                description="DO NOT EDIT OR DELETE. For TargetTrackingScaling policy"
                f" {self.policy_arn}.",
                comparison_operator=comparison,
                evaluation_periods=periods,
                threshold=threshold,
                alarm_actions=[self.policy_arn],
                **watched,
            )
            self.alarms.append(alarm)


def _alarm_name(
    resource: str, kind: str, former: models.FakeApplicationAutoscalingPolicy | None
) -> str:
    known = [alarm.name for alarm in former.alarms if kind in alarm.name] if former else []
    return known[0] if known else f"TargetTracking-{resource}{kind}{mock_random.uuid4()}"


def _watched(resource: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What the alarms of a policy watch; nothing where localaws does not know the metric."""
    if predefined := settings.get("PredefinedMetricSpecification"):
        known = _PREDEFINED.get(predefined["PredefinedMetricType"])
        if not known:
            return {}
        namespace, metric, statistic, period = known
        return _simple(namespace, metric, statistic, period, _dimensions(resource))
    customized = settings.get("CustomizedMetricSpecification")
    if not customized:
        raise AWSValidationException(
            "A target tracking policy needs a PredefinedMetricSpecification or a"
            " CustomizedMetricSpecification."
        )
    if queries := customized.get("Metrics"):
        nothing = dict.fromkeys(("namespace", "metric_name", "statistic", "period"))
        asked = [_query(query) for query in queries]
        return {**nothing, "dimensions": [], "metric_data_queries": asked}
    return {
        **_simple(
            customized["Namespace"],
            customized["MetricName"],
            customized["Statistic"],
            60,
            customized.get("Dimensions", []),
        ),
        "unit": customized.get("Unit"),
    }


def _simple(
    namespace: str, metric: str, statistic: str, period: int, dimensions: list[dict[str, str]]
) -> dict[str, Any]:
    return {
        "namespace": namespace,
        "metric_name": metric,
        "statistic": statistic,
        "period": period,
        "dimensions": dimensions,
    }


def _query(query: Mapping[str, Any]) -> MetricDataQuery:
    """A query of a policy, whose periods are minutes, as moto keeps those of alarms."""
    stat = None
    if told := query.get("MetricStat"):
        metric = told["Metric"]
        dimensions = [Dimension(d["Name"], d["Value"]) for d in metric.get("Dimensions", [])]
        kept: Any = Metric(metric["MetricName"], metric["Namespace"], dimensions)
        stat = MetricStat(kept, cast(Any, 60), told["Stat"], told.get("Unit"))
    returned: Any = query.get("ReturnData", True)
    return MetricDataQuery(
        query["Id"],
        query.get("Label", ""),
        cast(Any, None),
        returned,
        query.get("Expression"),
        stat,
    )


def _dimensions(resource: str) -> list[dict[str, str]]:
    """The dimensions of the metrics of a variant or an alias."""
    if resource.startswith("endpoint/"):
        _, endpoint, _, variant = resource.split("/")
        found = {"EndpointName": endpoint, "VariantName": variant}
    else:
        _, function, alias = resource.split(":")
        found = {"FunctionName": function, "Resource": f"{function}:{alias}"}
    return [{"Name": name, "Value": value} for name, value in found.items()]


class Answers(responses.ApplicationAutoScalingResponse):
    """Moto's answers, mended."""

    def register_scalable_target(self) -> str:
        """Register a target for something that exists, with its tags."""
        backend = self.applicationautoscaling_backend
        resource, dimension = self._resource_and_dimension()
        service = self._get_param("ServiceNamespace")
        pattern = _RESOURCES.get(dimension)
        if str(dimension).split(":")[0] != service or (
            pattern and not re.fullmatch(pattern, str(resource))
        ):
            raise AWSValidationException(
                "Unsupported service namespace, resource type or scalable dimension"
            )
        tags = self._get_param("Tags") or {}
        if resource not in backend.targets.get(dimension, {}):
            _require_resource(backend, dimension, resource)
        elif tags:
            raise AWSValidationException(
                "The scalable target that you tried to tag already exists. To update tags on an"
                " existing scalable target, use the TagResource API."
            )
        answer = super().register_scalable_target()
        target = _target(backend, resource, dimension)
        target.tags.update(tags)
        if scaling := running(Scaling):
            scaling.bounds_moved(
                target,
                f"minimum capacity was set to {target.min_capacity}, maximum capacity to"
                f" {target.max_capacity}",
            )
        return answer

    def deregister_scalable_target(self) -> str:
        """Deregister a target, and delete its policies and scheduled actions."""
        _target(self.applicationautoscaling_backend, *self._resource_and_dimension())
        answer = super().deregister_scalable_target()
        delete_scaling(self.applicationautoscaling_backend, *self._resource_and_dimension())
        return answer

    def put_scaling_policy(self) -> str:
        """Put a policy on a registered target; two policies do not track the same metric."""
        backend, place = self.applicationautoscaling_backend, self._resource_and_dimension()
        _target(backend, *place)
        settings = self._get_param("TargetTrackingScalingPolicyConfiguration")
        if settings:
            _refuse_metric(backend, place, self._get_param("PolicyName"), settings)
        answer = super().put_scaling_policy()
        if alarms := running(Alarms):
            alarms.look()
        return answer

    def delete_scaling_policy(self) -> str:
        """Delete a policy that is there."""
        place, name = self._resource_and_dimension(), self._get_param("PolicyName")
        if not any(
            (policy.resource_id, policy.scalable_dimension) == place and policy.policy_name == name
            for policy in self.applicationautoscaling_backend.policies.values()
        ):
            raise ObjectNotFoundException(
                f"No scaling policy found for service namespace:"
                f" {self._get_param('ServiceNamespace')}, resource ID: {place[0]}, scalable"
                f" dimension: {place[1]}, policy name: {name}"
            )
        return super().delete_scaling_policy()

    def describe_scaling_activities(self) -> str:
        """What was done to capacities and why, the newest first."""
        self._validate_params()
        members = ("ServiceNamespace", "ResourceId", "ScalableDimension")
        wanted = {name: value for name in members if (value := self._get_param(name))}
        found = [
            activity
            for activity in reversed(activities(self.applicationautoscaling_backend))
            if wanted.items() <= activity.items()
        ]
        size = self._get_int_param("MaxResults") or _LISTED_ACTIVITIES
        listed, token = page(found, self._get_param("NextToken"), size)
        return json.dumps({"ScalingActivities": listed, **token})

    def put_scheduled_action(self) -> str:
        """Put a scheduled action on a registered target."""
        _target(self.applicationautoscaling_backend, *self._resource_and_dimension())
        now = datetime.now(UTC)
        bounds = self._get_param("ScalableTargetAction") or {}
        if bounds.get("MinCapacity", 0) > bounds.get("MaxCapacity", math.inf):
            raise AWSValidationException(
                "Maximum capacity cannot be less than minimum capacity in a scheduled action"
            )
        if schedule := self._get_param("Schedule"):
            try:
                is_due(schedule, self._get_param("Timezone"), now, (now, now))
            except ScheduleError as error:
                raise AWSValidationException(str(error)) from error
        return super().put_scheduled_action()

    def delete_scheduled_action(self) -> str:
        """Delete a scheduled action that exists."""
        before = self.applicationautoscaling_backend.scheduled_actions
        answer = super().delete_scheduled_action()
        if len(before) == len(self.applicationautoscaling_backend.scheduled_actions):
            raise ObjectNotFoundException(
                f"No scheduled action {self._get_param('ScheduledActionName')} found for"
                f" {self._get_param('ResourceId')}."
            )
        return answer

    def list_tags_for_resource(self) -> str:
        """The tags of a scalable target."""
        return json.dumps({"Tags": self._tagged().tags})

    def tag_resource(self) -> str:
        """Add tags to a scalable target."""
        self._tagged().tags.update(self._get_param("Tags"))
        return "{}"

    def untag_resource(self) -> str:
        """Remove tags of a scalable target."""
        tags = self._tagged().tags
        for key in self._get_param("TagKeys"):
            tags.pop(key, None)
        return "{}"

    def _resource_and_dimension(self) -> tuple[str, str]:
        return self._get_param("ResourceId"), self._get_param("ScalableDimension")

    def _tagged(self) -> ScalableTarget:
        arn = self._get_param("ResourceARN")
        for targets in self.applicationautoscaling_backend.targets.values():
            for target in targets.values():
                if target.arn == arn:
                    return cast(ScalableTarget, target)
        raise ResourceNotFoundException(f"No scalable target found for resource ARN: {arn}")


class ObjectNotFoundException(JsonRESTError):
    """Nothing of that name belongs to the scalable target."""

    def __init__(self, message: str) -> None:
        super().__init__("ObjectNotFoundException", message)


class ResourceNotFoundException(JsonRESTError):
    """No scalable target has that ARN."""

    def __init__(self, message: str) -> None:
        super().__init__("ResourceNotFoundException", message)


def delete_scaling(
    backend: models.ApplicationAutoscalingBackend, resource: str, dimension: str
) -> None:
    """Delete the policies and scheduled actions of a scalable target, and the target."""
    backend.targets.get(dimension, {}).pop(resource, None)
    for policy in list(backend.policies.values()):
        if (policy.resource_id, policy.scalable_dimension) == (resource, dimension):
            backend.delete_scaling_policy(
                policy.policy_name, policy.service_namespace, resource, dimension
            )
    backend.scheduled_actions = [
        action
        for action in backend.scheduled_actions
        if (action.resource_id, action.scalable_dimension) != (resource, dimension)
    ]


def _target(
    backend: models.ApplicationAutoscalingBackend, resource: str, dimension: str
) -> ScalableTarget:
    """A registered target.

    Raises:
        ObjectNotFoundException: It is not registered.
    """
    target = backend.targets.get(dimension, {}).get(resource)
    if target is None:
        raise ObjectNotFoundException(
            f"No scalable target registered for resource ID: {resource}, scalable dimension:"
            f" {dimension}"
        )
    return cast(ScalableTarget, target)


def _refuse_metric(
    backend: models.ApplicationAutoscalingBackend,
    place: tuple[str, str],
    name: str,
    settings: Mapping[str, Any],
) -> None:
    """Refuse a policy for a metric that another one tracks, or that is another service's.

    Raises:
        AWSValidationException: It is.
    """
    kind = (settings.get("PredefinedMetricSpecification") or {}).get("PredefinedMetricType", "")
    owner = {"lambda:": "Lambda", "sagemaker:": "SageMaker"}
    mine = next((name for key, name in owner.items() if place[1].startswith(key)), None)
    if kind and mine and not kind.startswith(mine):
        raise AWSValidationException(
            f"Predefined metric type {kind} is not supported for scalable dimension {place[1]}"
        )
    members = ("PredefinedMetricSpecification", "CustomizedMetricSpecification")
    metric = [settings.get(member) for member in members]
    for policy in backend.policies.values():
        tracked: Any = policy.target_tracking_scaling_policy_configuration or {}
        if (
            (policy.resource_id, policy.scalable_dimension) == place
            and policy.policy_name != name
            and [tracked.get(member) for member in members] == metric
        ):
            raise AWSValidationException(
                "Only one TargetTrackingScaling policy for a given metric specification is allowed."
            )


def _require_resource(
    backend: models.ApplicationAutoscalingBackend, dimension: str, resource: str
) -> None:
    """Refuse a target for an endpoint's variant or a function's alias that does not exist."""
    if dimension == VARIANT_INSTANCES:
        _, name, _, variant = resource.split("/")
        endpoints = sagemaker_backends[backend.account_id][backend.region_name].endpoints
        running = endpoints[name].production_variants if name in endpoints else []
        if variant not in {found["VariantName"] for found in running}:
            raise AWSValidationException(f"SageMaker endpoint variant doesn't exist: {resource}")
    if dimension == PROVISIONED_CONCURRENCY:
        _, name, alias = resource.split(":")
        try:
            functions = lambda_backend(backend.account_id, backend.region_name)
            if alias.isdigit():
                functions.get_function(name, alias)
            else:
                functions.get_alias(alias, name)
        except LambdaClientError:
            raise AWSValidationException(f"Lambda alias doesn't exist: {resource}") from None


_TARGET = {
    "ServiceNamespace": "sagemaker",
    "ResourceId": "endpoint/probe/variant/main",
    "ScalableDimension": VARIANT_INSTANCES,
}


def _describes_whole_target() -> bool:
    with plain_client("application-autoscaling") as client:
        client.register_scalable_target(**_TARGET, MinCapacity=1, MaxCapacity=2)
        (target,) = client.describe_scalable_targets(ServiceNamespace="sagemaker")[
            "ScalableTargets"
        ]
        return bool(target.get("RoleARN"))


def _requires_resource() -> bool:
    with plain_client("application-autoscaling") as client:
        return refuses(
            lambda: client.register_scalable_target(**_TARGET, MinCapacity=1, MaxCapacity=2)
        )


def _requires_target() -> bool:
    with plain_client("application-autoscaling") as client:
        return refuses(lambda: _put_policy(client))


def _deletes_policies() -> bool:
    with plain_client("application-autoscaling") as client:
        client.register_scalable_target(**_TARGET, MinCapacity=1, MaxCapacity=2)
        _put_policy(client)
        client.deregister_scalable_target(**_TARGET)
        left = client.describe_scaling_policies(ServiceNamespace="sagemaker")
        return not left["ScalingPolicies"]


def _keeps_policy_arn() -> bool:
    with plain_client("application-autoscaling") as client:
        client.register_scalable_target(**_TARGET, MinCapacity=1, MaxCapacity=2)
        return len({_put_policy(client)["PolicyARN"] for _ in range(2)}) == 1


def _refuses_unknown_scheduled_action() -> bool:
    with plain_client("application-autoscaling") as client:
        return refuses(
            lambda: client.delete_scheduled_action(**_TARGET, ScheduledActionName="unknown")
        )


def _put_policy(client: Any) -> dict[str, Any]:
    metric = {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}
    answer: dict[str, Any] = client.put_scaling_policy(
        **_TARGET,
        PolicyName="probe",
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration={
            "TargetValue": 1.0,
            "PredefinedMetricSpecification": metric,
        },
    )
    return answer


def _makes_alarms() -> bool:
    with plain_client("application-autoscaling") as client:
        client.register_scalable_target(**_TARGET, MinCapacity=1, MaxCapacity=2)
        return bool(_put_policy(client)["Alarms"])


def _answers_activities() -> bool:
    return hasattr(responses.ApplicationAutoScalingResponse, "describe_scaling_activities")


def _refuses_unknown_schedule() -> bool:
    with plain_client("application-autoscaling") as client:
        client.register_scalable_target(**_TARGET, MinCapacity=1, MaxCapacity=2)
        return refuses(
            lambda: client.put_scheduled_action(
                **_TARGET, ScheduledActionName="probe", Schedule="cron(never)"
            )
        )


def _answers_tags() -> bool:
    return hasattr(responses.ApplicationAutoScalingResponse, "list_tags_for_resource")


_SERVICE = "application-autoscaling"

GAPS = [
    Gap(
        _SERVICE,
        "ListTagsForResource",
        "Terraform retries for minutes, then fails: targets have no tags",
        _answers_tags,
    ),
    Gap(
        _SERVICE,
        "RegisterScalableTarget",
        "a target may be registered before its endpoint or alias exists, which AWS refuses",
        _requires_resource,
    ),
    Gap(
        _SERVICE,
        "DescribeScalableTargets.RoleARN",
        "a required member is missing: the service-linked role that AWS fills in",
        _describes_whole_target,
    ),
    Gap(
        _SERVICE,
        "DeregisterScalableTarget",
        "policies and scheduled actions outlive their target",
        _deletes_policies,
    ),
    Gap(
        _SERVICE,
        "PutScalingPolicy",
        "a policy may be put on a target that is not registered, which AWS refuses",
        _requires_target,
    ),
    Gap(
        _SERVICE,
        "PutScalingPolicy.PolicyARN",
        "a changed policy gets another ARN, so what refers to it changes too",
        _keeps_policy_arn,
    ),
    Gap(
        _SERVICE,
        "PutScalingPolicy.Alarms",
        "a target tracking policy of an endpoint or a function has no alarms",
        _makes_alarms,
    ),
    Gap(
        _SERVICE,
        "PutScheduledAction.Schedule",
        "a schedule that is no schedule is taken, and never due",
        _refuses_unknown_schedule,
    ),
    Gap(
        _SERVICE,
        "DescribeScalingActivities",
        "nothing tells what was scaled, when and why",
        _answers_activities,
    ),
    Gap(
        _SERVICE,
        "DeleteScheduledAction",
        "an unknown scheduled action is deleted without an error",
        _refuses_unknown_scheduled_action,
    ),
]


def install() -> None:
    """Put the additions in moto's place."""
    models.FakeScalableTarget = ScalableTarget  # type: ignore[assignment,misc]
    models.FakeApplicationAutoscalingPolicy = ScalingPolicy  # type: ignore[misc]
    answer_with(urls, Answers)
