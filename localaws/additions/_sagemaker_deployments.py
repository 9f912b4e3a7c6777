"""What SageMaker refuses of a `DeploymentConfig`.

Sources: API reference, `BlueGreenUpdatePolicy`, `RollingUpdatePolicy`, `TrafficRoutingConfig`;
developer guide, "Deployment guardrails" (exclusions: variants keep their names).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from moto.sagemaker.exceptions import ValidationError

_PERCENT = {
    "CanarySize": (0, 50),
    "LinearStepSize": (10, 50),
    "MaximumBatchSize": (5, 50),
}
_SIZES = {"CANARY": "CanarySize", "LINEAR": "LinearStepSize"}


def refuse_deployment(
    deployment: Mapping[str, Any] | None, variants: Sequence[Mapping[str, Any]]
) -> None:
    """Refuse a release that could not be taken as it says.

    Args:
        deployment: A `DeploymentConfig`.
        variants: The variants of the configuration that it brings into service.

    Raises:
        ValidationError: It could not.
    """
    if not deployment:
        return
    rolling = deployment.get("RollingUpdatePolicy")
    blue_green = deployment.get("BlueGreenUpdatePolicy")
    if rolling and blue_green:
        raise ValidationError("Only one update policy should be used in the deployment config.")
    smallest = min((int(v.get("InitialInstanceCount") or 1) for v in variants), default=1)
    policy = rolling or blue_green or {}
    waits = policy.get("TerminationWaitInSeconds", 0)
    if rolling:
        waits += rolling["WaitIntervalInSeconds"]
        _refuse_size("MaximumBatchSize", rolling["MaximumBatchSize"], smallest)
    elif blue_green:
        routing = blue_green["TrafficRoutingConfiguration"]
        waits += routing.get("WaitIntervalInSeconds", 0)
        for kind, name in _SIZES.items():
            if (routing["Type"] == kind) != (name in routing):
                only = "must be given" if routing["Type"] == kind else "can only be given"
                raise ValidationError(f"{name} {only} with traffic routing of type {kind}.")
            if name in routing:
                _refuse_size(name, routing[name], smallest)
    limit = policy.get("MaximumExecutionTimeoutInSeconds")
    if limit is not None and limit <= waits:
        raise ValidationError(
            f"MaximumExecutionTimeoutInSeconds ({limit}) must be larger than the total waiting time"
            f" specified in TerminationWaitInSeconds and WaitIntervalInSeconds ({waits})."
        )


def refuse_other_names(
    deployment: Mapping[str, Any] | None,
    former: Sequence[Mapping[str, Any]],
    wanted: Sequence[Mapping[str, Any]],
) -> None:
    """Refuse a release with guardrails to variants of other names.

    Raises:
        ValidationError: They are others.
    """
    before, after = ({v["VariantName"] for v in variants} for variants in (former, wanted))
    if deployment and before != after:
        raise ValidationError(
            "With a deployment config the new endpoint configuration must have the variant names of"
            f" the old one: {', '.join(sorted(before))}, not {', '.join(sorted(after))}."
        )


def _refuse_size(name: str, size: Mapping[str, Any], instances: int) -> None:
    least, most = _PERCENT[name]
    value = float(size["Value"])
    # SageMaker moves whole instances; of a single one there is no half.
    if size["Type"] == "INSTANCE_COUNT":
        value = 100 * value / max(instances, 2)
    if not least <= value <= most:
        raise ValidationError(
            f"{name} must be {f'{least}% to ' if least else 'at most '}{most}% of the variant's"
            f" total instance count, and is {value:g}%."
        )
