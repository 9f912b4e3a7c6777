"""Application Auto Scaling: tags, and the rules of scalable targets."""

import json
from typing import Any, cast

from moto.applicationautoscaling import models, responses, urls
from moto.applicationautoscaling.exceptions import AWSValidationException
from moto.awslambda.exceptions import LambdaClientError
from moto.awslambda.utils import get_backend as lambda_backend
from moto.core.exceptions import JsonRESTError
from moto.sagemaker.models import sagemaker_backends
from moto.utilities.utils import get_partition

from localaws.additions import Gap
from localaws.additions._moto import answer_with, plain_client, refuses

VARIANT_INSTANCES = "sagemaker:variant:DesiredInstanceCount"
PROVISIONED_CONCURRENCY = "lambda:function:ProvisionedConcurrency"

_SERVICE_LINKED_ROLES = {
    "lambda": "AWSServiceRoleForApplicationAutoScaling_LambdaConcurrency",
    "sagemaker": "AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint",
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


class Answers(responses.ApplicationAutoScalingResponse):
    """Moto's answers, mended."""

    def register_scalable_target(self) -> str:
        """Register a target for something that exists, with its tags."""
        backend = self.applicationautoscaling_backend
        resource, dimension = self._get_param("ResourceId"), self._get_param("ScalableDimension")
        tags = self._get_param("Tags") or {}
        if resource not in backend.targets.get(dimension, {}):
            _require_resource(backend, dimension, resource)
        elif tags:
            raise AWSValidationException(
                "The scalable target that you tried to tag already exists. To update tags on an"
                " existing scalable target, use the TagResource API."
            )
        answer = super().register_scalable_target()
        _target(backend, resource, dimension).tags.update(tags)
        return answer

    def deregister_scalable_target(self) -> str:
        """Deregister a target, and delete its policies and scheduled actions."""
        answer = super().deregister_scalable_target()
        delete_scaling(self.applicationautoscaling_backend, *self._resource_and_dimension())
        return answer

    def put_scaling_policy(self) -> str:
        """Put a policy on a registered target; one that exists already keeps its ARN."""
        backend = self.applicationautoscaling_backend
        _target(backend, *self._resource_and_dimension())
        key = models.FakeApplicationAutoscalingPolicy.formulate_key(
            self._get_param("ServiceNamespace"),
            *self._resource_and_dimension(),
            self._get_param("PolicyName"),
        )
        former = backend.policies.get(key)
        answer: dict[str, Any] = json.loads(super().put_scaling_policy())
        if former:
            policy = backend.policies[key]
            policy.policy_arn, policy.creation_time = former.policy_arn, former.creation_time
            answer["PolicyARN"] = policy.policy_arn
        return json.dumps(answer)

    def put_scheduled_action(self) -> str:
        """Put a scheduled action on a registered target."""
        _target(self.applicationautoscaling_backend, *self._resource_and_dimension())
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
            lambda_backend(backend.account_id, backend.region_name).get_alias(alias, name)
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
        "DeleteScheduledAction",
        "an unknown scheduled action is deleted without an error",
        _refuses_unknown_scheduled_action,
    ),
]


def install() -> None:
    """Put the additions in moto's place."""
    models.FakeScalableTarget = ScalableTarget  # type: ignore[assignment,misc]
    answer_with(urls, Answers)
