"""What SageMaker keeps of a hyperparameter tuning job."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from moto.core.common_models import BaseModel
from moto.core.utils import get_service_model, utcnow
from moto.sagemaker.models import sagemaker_backends
from moto.sagemaker.utils import arn_formatter

from localaws import regions
from localaws.execution import ACCOUNT
from localaws.jobs.ranges import combinations
from localaws.jobs.records import ENDED, keep_new
from localaws.jobs.training_records import TrainingJob
from localaws.jobs.tuning_trials import Definition, Trial

# Of a tuning job that gives no number: the quota of an account.
_MAX_TRIALS = 750
# How many trials without a result AWS takes before it gives a search up.
_ATTEMPTS = 5
# A better objective counts as an improvement from 1 % on (BestObjectiveNotImproving).
_IMPROVEMENT = 0.01
# AWS does not say when it takes a search for converged.
_CONVERGED_AFTER = 10
_DESCRIBED = (
    get_service_model("sagemaker").shape_for("DescribeHyperParameterTuningJobResponse").members
)


@dataclass(frozen=True)
class Ending:
    """How a tuning job ends, once no trial runs any more."""

    status: str
    reason: str = ""


class TuningJob(BaseModel):
    """A tuning job's request and what has become of it; nothing in it runs."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        """Make the record of a tuning job that starts.

        Args:
            request: The members of `CreateHyperParameterTuningJob`.

        Raises:
            RangeError: The ranges cannot be searched.
        """
        self.given = {name: value for name, value in request.items() if value not in (None, {}, [])}
        self.hyper_parameter_tuning_job_name: str = self.given["HyperParameterTuningJobName"]
        self.arn = arn(self.hyper_parameter_tuning_job_name)
        self.tags: list[dict[str, str]] = self.given.get("Tags", [])
        self.config: Mapping[str, Any] = self.given["HyperParameterTuningJobConfig"]
        self.definitions = [
            Definition(given, self.config)
            for given in self.given.get("TrainingJobDefinitions")
            or [self.given["TrainingJobDefinition"]]
        ]
        self.hyper_parameter_tuning_job_status = "InProgress"
        self.creation_time = self.last_modified_time = utcnow()
        self.end_time: datetime | None = None
        self.convergence_time: datetime | None = None
        self.trials: list[Trial] = []
        self.former: list[Trial] = []
        """The trials of the tuning jobs that it learns from."""
        self.ending: Ending | None = None
        """Set once it is to end; trials may still run."""

    @property
    def ended(self) -> bool:
        """Whether the job has its last status."""
        return self.hyper_parameter_tuning_job_status in ENDED

    @property
    def max_trials(self) -> float:
        """How many trials there may be."""
        if self.config["Strategy"] == "Grid":
            return sum(combinations(definition.space) for definition in self.definitions)
        given: int = self.config["ResourceLimits"].get("MaxNumberOfTrainingJobs", _MAX_TRIALS)
        return given

    @property
    def running(self) -> list[Trial]:
        """The trials that have not ended."""
        return [trial for trial in self.trials if trial.runs]

    @property
    def best(self) -> Trial | None:
        """The trial with the best objective so far.

        Definitions may have different objectives, which cannot be compared: the first one's counts.
        """
        return self._best(self.trials)

    def trials_of(self, definition: Definition) -> list[Trial]:
        """The trials of one definition."""
        return [trial for trial in self.trials if trial.definition == definition.name]

    def next_definition(self) -> Definition | None:
        """The definition whose turn it is; None if there are enough trials."""
        if self.ending or len(self.trials) >= self.max_trials:
            return None
        open_ = [
            found
            for found in self.definitions
            if found.strategy != "Grid" or len(self.trials_of(found)) < combinations(found.space)
        ]
        return min(open_, key=lambda found: len(self.trials_of(found)))

    def stop(self) -> None:
        """Let it end as its user wants, once no trial runs any more."""
        self.ending = Ending("Stopped")
        self.hyper_parameter_tuning_job_status = "Stopping"
        self.last_modified_time = utcnow()

    def end(self, ending: Ending) -> None:
        """Give the job its last status."""
        self.ending = ending
        self.hyper_parameter_tuning_job_status = ending.status
        self.last_modified_time = self.end_time = utcnow()

    def judge(self) -> None:
        """Set `ending` where the trials so far, or the time, leave nothing more to try."""
        if self.ending:
            return
        if self.convergence_time is None and self._not_improving() >= _CONVERGED_AFTER:
            self.convergence_time = utcnow()
        limits = self.config["ResourceLimits"]
        if self._seconds >= limits.get("MaxRuntimeInSeconds", math.inf):
            self.ending = Ending("Stopped")
        elif reason := self._failure():
            self.ending = Ending("Failed", reason)
        elif self._is_good_enough() or (len(self.trials) >= self.max_trials and not self.running):
            self.ending = Ending("Completed")

    def describe(self) -> dict[str, Any]:
        """What `DescribeHyperParameterTuningJob` answers."""
        became = {
            **self.summary(),
            "BestTrainingJob": self._summary_of(self.best),
            "OverallBestTrainingJob": self._summary_of(self._overall_best()),
            "FailureReason": self.ending.reason if self.ended and self.ending else None,
            "TuningJobCompletionDetails": {
                "NumberOfTrainingJobsObjectiveNotImproving": self._not_improving(),
                **(
                    {"ConvergenceDetectedTime": self.convergence_time}
                    if self.convergence_time
                    else {}
                ),
            },
            "ConsumedResources": {"RuntimeInSeconds": math.ceil(self._seconds)},
        }
        return {
            name: value
            for name, value in {**self.given, **became}.items()
            if name in _DESCRIBED and value
        }

    def summary(self) -> dict[str, Any]:
        """What `ListHyperParameterTuningJobs` answers of the job."""
        statuses = [trial.job.training_job_status for trial in self.trials if trial.job]
        internal = sum(bool(trial.job and _is_internal(trial.job)) for trial in self.trials)
        objectives = [trial.objective_status for trial in self.trials]
        told = {
            "HyperParameterTuningJobName": self.hyper_parameter_tuning_job_name,
            "HyperParameterTuningJobArn": self.arn,
            "HyperParameterTuningJobStatus": self.hyper_parameter_tuning_job_status,
            "Strategy": self.config["Strategy"],
            "CreationTime": self.creation_time,
            "LastModifiedTime": self.last_modified_time,
            "TrainingJobStatusCounters": {
                "Completed": statuses.count("Completed"),
                "InProgress": len(self.running),
                "RetryableError": internal,
                "NonRetryableError": statuses.count("Failed") - internal,
                "Stopped": statuses.count("Stopped"),
            },
            "ObjectiveStatusCounters": {
                status: objectives.count(status) for status in ("Succeeded", "Pending", "Failed")
            },
            "ResourceLimits": self.config["ResourceLimits"],
        }
        return {**told, "HyperParameterTuningEndTime": self.end_time} if self.end_time else told

    def training_job_summaries(self) -> Iterator[dict[str, Any]]:
        """What `ListTrainingJobsForHyperParameterTuningJob` answers of each trial."""
        return (summary for trial in self.trials if (summary := self._summary_of(trial)))

    @property
    def response_object(self) -> dict[str, Any]:
        """What moto's `Search` answers."""
        return self.describe()

    @property
    def _seconds(self) -> float:
        return ((self.end_time or utcnow()) - self.creation_time).total_seconds()

    def _best(self, trials: Iterable[Trial]) -> Trial | None:
        objective = self.definitions[0].objective
        good = [
            (trial.result, trial)
            for trial in trials
            if trial.result is not None and trial.objective == objective
        ]
        best = min if self.definitions[0].minimizes else max
        return best(good, key=lambda found: found[0])[1] if good else None

    def _overall_best(self) -> Trial | None:
        warm = self.given.get("WarmStartConfig", {})
        if warm.get("WarmStartType") != "IdenticalDataAndAlgorithm":
            return None
        return self._best([*self.former, *self.trials])

    def _not_improving(self) -> int:
        """How many trials have ended since one was better by a percent than all before it."""
        minimizes = self.definitions[0].minimizes
        ended = sorted(
            (
                (trial.job.training_end_time, trial.result)
                for trial in self.trials
                if trial.job and trial.job.training_end_time and trial.result is not None
            ),
        )
        count, best = 0, None
        for _, result in ended:
            gain = math.inf if best is None else (best - result) * (1 if minimizes else -1)
            if best is None or gain > abs(best) * _IMPROVEMENT:
                count, best = 0, result
            else:
                count += 1
        return count

    def _is_good_enough(self) -> bool:
        criteria = self.config.get("TuningJobCompletionCriteria", {})
        sign = 1 if self.definitions[0].minimizes else -1
        target = sign * criteria.get("TargetObjectiveMetricValue", sign * -math.inf)
        best = self.best.result if self.best else None
        most = criteria.get("BestObjectiveNotImproving", {}).get(
            "MaxNumberOfTrainingJobsNotImproving", math.inf
        )
        heeds = criteria.get("ConvergenceDetected", {}).get("CompleteOnConvergence") == "Enabled"
        return (
            (best is not None and sign * best <= target)
            or self._not_improving() >= most
            or (heeds and self.convergence_time is not None)
        )

    def _failure(self) -> str:
        """Why the search is given up; empty where it is not."""
        ended = [trial for trial in self.trials if not trial.runs]
        if any(trial.result is not None for trial in ended):
            return ""
        if len(ended) < min(_ATTEMPTS, self.max_trials):
            return ""
        if any(trial.job and trial.job.training_job_status == "Completed" for trial in ended):
            return (
                f"No objective metrics found after running {len(ended)} training jobs. The regular"
                " expression of the objective metric must match what the training jobs print."
            )
        return (
            f"No training job succeeded after {len(ended)} attempts. The failure reasons of the"
            " training jobs tell why."
        )

    def _summary_of(self, trial: Trial | None) -> dict[str, Any] | None:
        job = trial.job if trial else None
        if not (trial and job):
            return None
        final = {
            "Type": trial.objective["Type"],
            "MetricName": trial.objective["MetricName"],
            "Value": trial.result,
        }
        told = {
            "TrainingJobDefinitionName": trial.definition,
            "TrainingJobName": trial.name,
            "TrainingJobArn": job.arn,
            "TuningJobName": (job.tuning_job_arn or self.arn).rpartition("/")[2],
            "CreationTime": job.creation_time,
            "TrainingStartTime": job.training_start_time,
            "TrainingEndTime": job.training_end_time,
            "TrainingJobStatus": job.training_job_status,
            "TunedHyperParameters": trial.tuned,
            "FailureReason": job.failure_reason,
            "FinalHyperParameterTuningJobObjectiveMetric": (
                None if trial.result is None else final
            ),
            "ObjectiveStatus": trial.objective_status,
        }
        return {name: value for name, value in told.items() if value is not None}


def arn(name: str) -> str:
    """The ARN of a tuning job."""
    return arn_formatter("hyper-parameter-tuning-job", name, ACCOUNT, regions.current())


def tuning_jobs() -> dict[str, TuningJob]:
    """All tuning jobs by name, as moto keeps them."""
    kept: Any = sagemaker_backends[ACCOUNT][regions.current()].hyper_parameter_tuning_jobs
    found: dict[str, TuningJob] = kept
    return found


def keep(job: TuningJob) -> TuningJob:
    """Keep a tuning job of a new name; see `keep_new`."""
    name = job.hyper_parameter_tuning_job_name
    return keep_new(tuning_jobs(), name, job, "Hyperparameter tuning job")


def _is_internal(job: TrainingJob) -> bool:
    """Whether SageMaker, not the job, is to blame for its failure."""
    return (job.failure_reason or "").startswith("InternalServerError")
