"""How many instances of a type the account may use, as Service Quotas says.

The words are of https://github.com/aws/amazon-sagemaker-examples/issues/307 and newer ones.
"""

from collections import Counter
from collections.abc import Iterator, Mapping

from moto.sagemaker import models
from moto.sagemaker.exceptions import SagemakerClientError

from localaws.additions.service_quotas import INSTANCES
from localaws.hosting import records
from localaws.hosting.records import Release
from localaws.jobs.training_records import TrainingJob, jobs

_REMEDY = "Please use AWS Service Quotas to request an increase for this quota."
_TRIALS = {
    "MaxNumberOfTrainingJobs": ("Number of training jobs per hyperparameter tuning job", 750),
    "MaxParallelTrainingJobs": (
        "Number of parallel training jobs per hyperparameter tuning job",
        100,
    ),
}


class ResourceLimitExceeded(SagemakerClientError):
    """The account may not have that many."""

    code = "ResourceLimitExceeded"


def require(use: str, used: Counter[str], wanted: Counter[str]) -> None:
    """Refuse more instances than the account may have.

    Args:
        use: What for, such as "endpoint usage".
        used: How many of each type there are.
        wanted: How many more are asked for.

    Raises:
        ResourceLimitExceeded: There would be too many.
    """
    for kind, count in wanted.items():
        if count > 0 and used[kind] + count > INSTANCES:
            raise ResourceLimitExceeded(
                f"The account-level service limit '{kind} for {use}' is {INSTANCES:.0f} Instances,"
                f" with current utilization of {used[kind]} Instances and a request delta of"
                f" {count} Instances. {_REMEDY} If AWS Service Quotas is not available, contact"
                " AWS support to request an increase for this quota."
            )


def require_tuning(limits: Mapping[str, int]) -> None:
    """Refuse a tuning job of more trials than the account may have.

    https://docs.aws.amazon.com/sagemaker/latest/dg/automatic-model-tuning-limits.html

    Args:
        limits: The request's `ResourceLimits`.

    Raises:
        ResourceLimitExceeded: There would be too many.
    """
    for member, (name, most) in _TRIALS.items():
        if (given := limits.get(member, 0)) > most:
            raise ResourceLimitExceeded(
                f"The account-level service limit '{name}' is {most}, with a request of {given}."
                f" {_REMEDY}"
            )


def require_endpoint(backend: models.SageMakerModelBackend, wanted: Counter[str]) -> None:
    """Refuse too many instances of endpoints; while one is updated, it has two fleets.

    Raises:
        ResourceLimitExceeded: There would be too many.
    """
    used = Counter[str]()
    for endpoint in backend.endpoints.values():
        for release in (records.served(endpoint), records.pending(endpoint)):
            if release:
                used.update(instances(release))
    require("endpoint usage", used, wanted)


def instances(release: Release) -> Counter[str]:
    """How many instances of each type a release has."""
    found = Counter[str]()
    for variant in [*release.variants, *release.shadows]:
        kind = release.settings(variant).get("InstanceType", "")
        found[kind] += int(variant.get("DesiredInstanceCount") or 0)
    return found


def require_training(job: TrainingJob) -> None:
    """Refuse too many instances of training jobs; those of spot jobs count apart.

    Raises:
        ResourceLimitExceeded: There would be too many.
    """
    is_spot = _is_spot(job)
    used = Counter[str]()
    for other in jobs().values():
        if not other.ended and _is_spot(other) == is_spot:
            used.update(dict(_machines(other)))
    use = "spot training job usage" if is_spot else "training job usage"
    require(use, used, Counter(dict(_machines(job))))


def _is_spot(job: TrainingJob) -> bool:
    return bool(job.given.get("EnableManagedSpotTraining"))


def _machines(job: TrainingJob) -> Iterator[tuple[str, int]]:
    resources = job.given.get("ResourceConfig", {})
    for group in resources.get("InstanceGroups") or [resources]:
        if "InstanceType" in group:
            yield group["InstanceType"], int(group.get("InstanceCount") or 1)
