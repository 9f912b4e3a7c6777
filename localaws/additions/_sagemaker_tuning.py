"""SageMaker's tuning jobs: what is given is kept, and `localaws.jobs.tuning` searches."""

from collections.abc import Callable, Mapping
from typing import Any

from moto.core.responses import ActionResult, EmptyResult
from moto.sagemaker import responses
from moto.sagemaker.exceptions import ResourceNotFound, ValidationError

from localaws.additions import Gap
from localaws.additions._moto import ROLE, plain_client
from localaws.additions._sagemaker import missing, sorted_page
from localaws.additions._sagemaker_quotas import require_tuning
from localaws.additions._sagemaker_training import refuse_invalid
from localaws.execution import RoleError, running
from localaws.jobs.ranges import Choice, RangeError, combinations
from localaws.jobs.tuning import TuningJobs
from localaws.jobs.tuning_records import Ending, TuningJob, arn, keep, tuning_jobs
from localaws.jobs.tuning_trials import Definition

_FINAL = "FinalHyperParameterTuningJobObjectiveMetric"
_SORTED_BY: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "CreationTime": lambda trial: trial["CreationTime"],
    "FinalObjectiveMetricValue": lambda trial: trial[_FINAL]["Value"],
    "Name": lambda trial: trial["TrainingJobName"],
    "Status": lambda trial: trial["TrainingJobStatus"],
}


class TuningAnswers(responses.SageMakerResponse):
    """Moto's answers about tuning jobs, mended."""

    def create_hyper_parameter_tuning_job(self) -> ActionResult:
        """Create a tuning job of a new name; it searches, or is a record of one that is over."""
        job = _read(dict(self.params))
        if service := running(TuningJobs):
            try:
                service.create(job)
            except RoleError as error:
                raise ValidationError(
                    "Could not assume role. Please ensure that the role exists and allows"
                    f" principal 'sagemaker.amazonaws.com' to assume the role. ({error})"
                ) from error
        else:
            keep(job).end(Ending("Completed"))
        return ActionResult({"HyperParameterTuningJobArn": job.arn})

    def describe_hyper_parameter_tuning_job(self) -> ActionResult:
        """Describe a tuning job with all that was given."""
        return ActionResult(self._tuning_job().describe())

    def list_training_jobs_for_hyper_parameter_tuning_job(self) -> ActionResult:
        """The trials of a tuning job that have a status, sorted, a page at a time."""
        sort, status = self._get_param("SortBy", "Name"), self._get_param("StatusEquals")
        found = (
            trial
            for trial in self._tuning_job().training_job_summaries()
            if status in (None, trial["TrainingJobStatus"])
            and (sort != "FinalObjectiveMetricValue" or _FINAL in trial)
        )
        listed, token = sorted_page(self, found, _SORTED_BY[sort])
        return ActionResult({"TrainingJobSummaries": listed, **token})

    def stop_hyper_parameter_tuning_job(self) -> ActionResult:
        """Let a tuning job and all of its trials end."""
        job = self._tuning_job()
        if job.ended:
            raise ValidationError(
                "The request was rejected because the hyperparameter tuning job is in status"
                f" {job.hyper_parameter_tuning_job_status}."
            )
        if service := running(TuningJobs):
            service.stop_job(job)
        return EmptyResult()

    def delete_hyper_parameter_tuning_job(self) -> ActionResult:
        """Delete a tuning job that has ended; its trials stay."""
        job = self._tuning_job()
        if not job.ended:
            raise ValidationError(
                f"Hyperparameter tuning job {job.arn} is in status"
                f" {job.hyper_parameter_tuning_job_status}. Only one that has ended can be deleted."
            )
        del tuning_jobs()[job.hyper_parameter_tuning_job_name]
        return EmptyResult()

    def _tuning_job(self) -> TuningJob:
        name = self._get_param("HyperParameterTuningJobName")
        if name not in tuning_jobs():
            raise ResourceNotFound(
                f"Amazon SageMaker can't find a tuning job with the ARN {arn(name)}."
            )
        return tuning_jobs()[name]


def _read(request: Mapping[str, Any]) -> TuningJob:
    """The record of a request that SageMaker takes."""
    if request.get("Autotune"):
        raise ValidationError("localaws has no Autotune: give ParameterRanges and no Autotune")
    if bool(request.get("TrainingJobDefinition")) == bool(request.get("TrainingJobDefinitions")):
        raise ValidationError(
            "One of TrainingJobDefinition and TrainingJobDefinitions must be given, and not both."
        )
    try:
        job = TuningJob(request)
    except RangeError as error:
        raise ValidationError(f"{error}.") from error
    names = [definition.name for definition in job.definitions]
    if len(set(names)) < len(names):
        raise ValidationError("Each of TrainingJobDefinitions must have its own DefinitionName.")
    require_tuning(job.config["ResourceLimits"])
    _refuse_strategy(job)
    for definition in job.definitions:
        _refuse_definition(definition)
    for parent in request.get("WarmStartConfig", {}).get("ParentHyperParameterTuningJobs", []):
        former = _parent(job, parent["HyperParameterTuningJobName"])
        job.former += former.trials
    return job


def _refuse_strategy(job: TuningJob) -> None:
    """Refuse what the strategy cannot do."""
    strategy, limits = job.config["Strategy"], job.config["ResourceLimits"]
    given = limits.get("MaxNumberOfTrainingJobs")
    spaces = [definition.space for definition in job.definitions]
    if strategy == "Hyperband":
        if job.config.get("TrainingJobEarlyStoppingType", "Off") != "Off":
            raise ValidationError(
                "TrainingJobEarlyStoppingType must be Off with the Hyperband strategy, which stops"
                " training jobs by itself."
            )
        if any(definition.resource is None for definition in job.definitions):
            raise ValidationError(
                "The Hyperband strategy needs MaxResource in HyperbandStrategyConfig, or a static"
                " hyperparameter such as epochs that tells it."
            )
    elif job.config.get("StrategyConfig"):
        raise ValidationError("StrategyConfig can only be given with the Hyperband strategy.")
    possible = sum(map(combinations, spaces))
    if strategy == "Grid":
        if any(not isinstance(found, Choice) for space in spaces for found in space.values()):
            raise ValidationError("The Grid strategy takes categorical ranges only.")
        if given not in (None, possible):
            raise ValidationError(
                "With the Grid strategy, MaxNumberOfTrainingJobs must be the number of"
                f" combinations, {possible:g}, or be left out."
            )
    elif given is not None and possible < given:
        # In SageMaker's words (aws/amazon-sagemaker-operator-for-k8s issue 123).
        raise ValidationError(
            "You don't have enough combinations of hyperparameter ranges. The total number of"
            f" hyperparameter combinations for the provided ranges [{possible:.1f}] must be equal"
            f" or greater than the value of MaxNumberOfJobs, [{given}]. Provide additional ranges."
        )


def _refuse_definition(definition: Definition) -> None:
    """Refuse what no trial could be made of."""
    metrics = definition.given["AlgorithmSpecification"].get("MetricDefinitions", [])
    if definition.objective.get("MetricName") not in {metric["Name"] for metric in metrics}:
        raise ValidationError(
            "A metric is required for this hyperparameter tuning job objective. Provide a metric in"
            " the metric definitions."
        )
    if both := definition.space.keys() & definition.static.keys():
        raise ValidationError(
            f"Hyperparameters are both static and searched for: {', '.join(sorted(both))}."
        )
    refuse_invalid(definition.training_job("trial", {}, []))


def _parent(job: TuningJob, name: str) -> TuningJob:
    """A tuning job that another one may learn from."""
    former = tuning_jobs().get(name)
    if former is None:
        raise ValidationError(f"WarmStartConfig: there is no hyperparameter tuning job {name}.")
    if not former.ended:
        raise ValidationError(f"WarmStartConfig: {name} has not ended yet.")
    if _objectives(job) != _objectives(former):
        raise ValidationError(f"WarmStartConfig: the objective metric of {name} is another one.")
    if _hyperparameters(job) != _hyperparameters(former):
        raise ValidationError(
            "WarmStartConfig: the names of all hyperparameters, static and searched for, must be"
            f" those of {name}."
        )
    identical = job.given["WarmStartConfig"]["WarmStartType"] == "IdenticalDataAndAlgorithm"
    if identical and _images(job) != _images(former):
        raise ValidationError(
            f"WarmStartConfig: the training image of {name} is another one, so that the type must"
            " be TransferLearning."
        )
    return former


def _objectives(job: TuningJob) -> dict[str | None, Any]:
    return {definition.name: definition.objective for definition in job.definitions}


def _hyperparameters(job: TuningJob) -> dict[str | None, set[str]]:
    return {found.name: {*found.static, *found.space} for found in job.definitions}


def _images(job: TuningJob) -> dict[str | None, Any]:
    return {
        found.name: found.given["AlgorithmSpecification"].get("TrainingImage")
        for found in job.definitions
    }


def _create(client: Any, name: str = "probe", **more: Any) -> dict[str, Any]:
    objective = {"Type": "Minimize", "MetricName": "loss"}
    client.create_hyper_parameter_tuning_job(
        HyperParameterTuningJobName=name,
        HyperParameterTuningJobConfig={
            "Strategy": "Random",
            "HyperParameterTuningJobObjective": objective,
            "ResourceLimits": {"MaxNumberOfTrainingJobs": 1, "MaxParallelTrainingJobs": 1},
            "ParameterRanges": {"CategoricalParameterRanges": [{"Name": "a", "Values": ["b"]}]},
        },
        TrainingJobDefinition={
            "AlgorithmSpecification": {
                "TrainingImage": "probe",
                "TrainingInputMode": "File",
                "MetricDefinitions": [{"Name": "loss", "Regex": "loss=(.*)"}],
            },
            "RoleArn": ROLE,
            "OutputDataConfig": {"S3OutputPath": "s3://probe"},
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
            "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        },
        **more,
    )
    described: dict[str, Any] = client.describe_hyper_parameter_tuning_job(
        HyperParameterTuningJobName=name
    )
    return described


def _invents_no_trials() -> bool:
    with plain_client("sagemaker") as client:
        return (
            not _create(client)
            .get("BestTrainingJob", {})
            .get("TrainingJobName", "")
            .startswith("Fake")
        )


GAPS: list[Gap] = [
    Gap("sagemaker", "CreateHyperParameterTuningJob", "nothing is searched", _invents_no_trials),
    missing("ListTrainingJobsForHyperParameterTuningJob", "nobody can see the trials"),
    missing("StopHyperParameterTuningJob", "no search can be stopped"),
]
