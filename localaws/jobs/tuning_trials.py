"""A tuning job's trials: what they have in common, and what has become of each."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from moto.core.utils import get_service_model

from localaws.jobs.ranges import Space, read_space
from localaws.jobs.search import Observation, Search
from localaws.jobs.training_records import TrainingJob, jobs

_OBJECTIVE = "_tuning_objective_metric"
_MACHINES = ("InstanceType", "InstanceCount", "VolumeSizeInGB", "VolumeKmsKeyId")
# Where SageMaker looks for the most epochs, if nobody says how many they are.
_EPOCHS = ("epochs", "numepochs", "n-epochs", "n_epochs", "num_epochs")
_MODEL = get_service_model("sagemaker")
_SHARED = [
    member
    for member in _MODEL.shape_for("HyperParameterTrainingJobDefinition").members
    if member in _MODEL.shape_for("CreateTrainingJobRequest").members
]


class Definition:
    """What the trials of a tuning job have in common; it may have several such kinds."""

    def __init__(self, given: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        """Read a definition.

        Args:
            given: A `TrainingJobDefinition`.
            config: The `HyperParameterTuningJobConfig`, for what the definition does not say.

        Raises:
            RangeError: The ranges cannot be searched.
        """
        self.given = given
        self.name: str | None = given.get("DefinitionName")
        self.strategy: str = config["Strategy"]
        self.objective: Mapping[str, str] = given.get("TuningObjective") or config.get(
            "HyperParameterTuningJobObjective", {}
        )
        self.static: Mapping[str, str] = given.get("StaticHyperParameters", {})
        ranges = given.get("HyperParameterRanges") or config.get("ParameterRanges", {})
        self.space: Space = read_space(ranges)
        hyperband = config.get("StrategyConfig", {}).get("HyperbandStrategyConfig", {})
        self._most_epochs: int | None = hyperband.get("MaxResource")
        self._fewest_epochs: int = hyperband.get("MinResource", 1)

    @property
    def minimizes(self) -> bool:
        """Whether less is better."""
        return self.objective["Type"] == "Minimize"

    @property
    def resource(self) -> tuple[int, int] | None:
        """The fewest and the most epochs of a trial; None if nothing says how many are the most."""
        told = (self.static[name].strip('"') for name in _EPOCHS if name in self.static)
        most = self._most_epochs or next((int(text) for text in told if text.isdecimal()), None)
        return (self._fewest_epochs, most) if most else None

    def search(self, seed: int | None) -> Search:
        """How it is searched."""
        return Search(self.strategy, self.space, self.minimizes, seed, self.resource or (1, 1))

    def training_job(
        self, name: str, tuned: Mapping[str, str], tags: Iterable[Mapping[str, str]]
    ) -> dict[str, Any]:
        """The members of `CreateTrainingJob` for a trial."""
        request = {member: self.given[member] for member in _SHARED if member in self.given}
        if flexible := self.given.get("HyperParameterTuningResourceConfig"):
            # SageMaker takes the first instance type that it has capacity of.
            first: Mapping[str, Any] = next(iter(flexible.get("InstanceConfigs", [])), {})
            request["ResourceConfig"] = {
                member: value
                for member, value in {**flexible, **first}.items()
                if member in _MACHINES
            }
        if checkpoints := request.get("CheckpointConfig"):
            # A trial must not go on from another's.
            uri = f"{checkpoints['S3Uri'].rstrip('/')}/{name}"
            request["CheckpointConfig"] = {**checkpoints, "S3Uri": uri}
        return {
            **request,
            "TrainingJobName": name,
            "HyperParameters": {**self.static, **tuned, _OBJECTIVE: self.objective["MetricName"]},
            "Tags": list(tags),
        }


@dataclass
class Trial:
    """A training job that a tuning job has started."""

    name: str
    definition: str | None
    objective: Mapping[str, str]
    tuned: Mapping[str, str]
    progress: list[float] = field(default_factory=list)
    """The objective after each epoch, as far as it is a number."""

    @property
    def job(self) -> TrainingJob | None:
        """The training job; None once it is deleted."""
        return jobs().get(self.name)

    @property
    def runs(self) -> bool:
        """Whether it has not ended yet."""
        return self.job is not None and not self.job.ended

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to end."""
        return self.job is not None and self.job.is_stopping

    @property
    def result(self) -> float | None:
        """The objective in the end; None while it runs, or if it gave none."""
        job = self.job
        if job is None or job.training_job_status not in ("Completed", "Stopped"):
            return None
        value = job.final_metrics.get(self.objective["MetricName"], {}).get("Value", math.nan)
        return value if math.isfinite(value) else None

    @property
    def objective_status(self) -> str:
        """Whether the objective is known."""
        if self.runs:
            return "Pending"
        return "Failed" if self.result is None else "Succeeded"

    def observe(self) -> Observation:
        """The trial as a search sees it."""
        if self.job is None:
            return Observation(self.tuned, self.progress, "Failed")
        return Observation(
            self.job.given["HyperParameters"],
            self.progress,
            self.job.training_job_status,
            self.result,
        )
