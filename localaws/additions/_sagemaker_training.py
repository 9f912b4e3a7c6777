"""SageMaker's training jobs: what is given is kept, and `localaws.jobs.training` runs them."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from moto.core.responses import ActionResult, EmptyResult
from moto.core.utils import get_service_model, utcnow
from moto.sagemaker import responses
from moto.sagemaker.exceptions import ResourceInUseException, ResourceNotFound, ValidationError

from localaws import network
from localaws.additions import Gap
from localaws.additions._moto import ACCOUNT, ROLE, plain_client, refuses
from localaws.additions._sagemaker import fits_list, missing, sorted_page
from localaws.additions._sagemaker_data import not_assumed, require_channels
from localaws.additions._sagemaker_images import refuse_training_image
from localaws.additions._sagemaker_quotas import require_training
from localaws.additions._sagemaker_volumes import refuse_volume_key
from localaws.execution import RoleError, running
from localaws.jobs.training import TrainingJobs
from localaws.jobs.training_records import TrainingJob, arn, jobs, keep

_UPDATES = ("ProfilerConfig", "ProfilerRuleConfigurations", "RemoteDebugConfig", "ResourceConfig")
_SORTED_BY: Mapping[str, Callable[[TrainingJob], Any]] = {
    "CreationTime": lambda job: job.creation_time,
    "Name": lambda job: job.training_job_name,
    "Status": lambda job: job.training_job_status,
}


class TrainingAnswers(responses.SageMakerResponse):
    """Moto's answers about training jobs, mended."""

    def create_training_job(self) -> ActionResult:
        """Create a training job of a new name; it runs, or is a record of one that ran."""
        request = dict(self.params)
        refuse_invalid(request)
        require_training(TrainingJob(request))
        if service := running(TrainingJobs):
            try:
                channels = request.get("InputDataConfig") or []
                require_channels(service.execution, request["RoleArn"], channels)
                return ActionResult({"TrainingJobArn": service.create(request)})
            except RoleError as error:
                raise ValidationError(not_assumed(request["RoleArn"], error)) from error
        job = keep(TrainingJob(request))
        job.training_start_time = utcnow()
        job.end("Completed")
        return ActionResult({"TrainingJobArn": job.arn})

    def describe_training_job(self) -> ActionResult:
        """Describe a job with all that was given."""
        return ActionResult(self._training_job().describe())

    def list_training_jobs(self) -> ActionResult:
        """The jobs that fit the filters, sorted, a page at a time."""
        found = filter(self._fits, jobs().values())
        key = _SORTED_BY[self._get_param("SortBy", "CreationTime")]
        listed, token = sorted_page(self, found, key)
        return ActionResult({"TrainingJobSummaries": list(map(_summary, listed)), **token})

    def stop_training_job(self) -> ActionResult:
        """Let a job end within 120 seconds; it keeps what it has saved."""
        job = self._training_job()
        if job.ended:
            raise ValidationError(
                "The request was rejected because the training job is in status"
                f" {job.training_job_status}."
            )
        if service := running(TrainingJobs):
            service.stop_job(job.training_job_name)
        return EmptyResult()

    def update_training_job(self) -> ActionResult:
        """Change a job's profiling, debugging or warm pool."""
        job = self._training_job()
        for member in _UPDATES:
            if (value := self._get_param(member)) is not None:
                merges = isinstance(value, dict)
                job.given[member] = {**job.given.get(member, {}), **value} if merges else value
        job.last_modified_time = utcnow()
        return ActionResult({"TrainingJobArn": job.arn})

    def delete_training_job(self) -> ActionResult:
        """Delete a job that has ended."""
        job = self._training_job(ResourceNotFound)
        if not job.ended:
            raise ResourceInUseException(
                f"Training job {job.arn} is in status {job.training_job_status}."
                " Only a job that has ended can be deleted."
            )
        del jobs()[job.training_job_name]
        return EmptyResult()

    def _training_job(
        self, error: type[ValidationError | ResourceNotFound] = ValidationError
    ) -> TrainingJob:
        name = self._get_param("TrainingJobName")
        if name not in jobs():
            raise error(f"Requested resource not found: training job {arn(name)}.")
        return jobs()[name]

    def _fits(self, job: TrainingJob) -> bool:
        warm = job.warm_pool_status or {}
        wanted = {
            "StatusEquals": job.training_job_status,
            "WarmPoolStatusEquals": warm.get("Status"),
            "TrainingPlanArnEquals": job.given.get("ResourceConfig", {}).get("TrainingPlanArn"),
        }
        return fits_list(self, job, job.training_job_name, wanted)


def _summary(job: TrainingJob) -> dict[str, Any]:
    described = job.describe()
    members = get_service_model("sagemaker").shape_for("TrainingJobSummary").members
    return {name: described[name] for name in members if name in described}


def refuse_invalid(request: Mapping[str, Any]) -> None:
    """Refuse what SageMaker refuses before a training job exists."""
    algorithm = request.get("AlgorithmSpecification", {})
    if not algorithm.keys() & {"TrainingImage", "AlgorithmName"}:
        raise ValidationError(
            "One of TrainingImage and AlgorithmName must be present in AlgorithmSpecification."
        )
    image = str(algorithm.get("TrainingImage", ""))
    refuse_training_image(ACCOUNT, image, str(request.get("RoleArn", "")))
    for metric in algorithm.get("MetricDefinitions", []):
        try:
            groups = re.compile(metric["Regex"]).groups
        except re.error as error:
            raise ValidationError(
                f"Invalid regex of metric {metric['Name']}: {metric['Regex']} ({error})"
            ) from error
        if not groups:
            raise ValidationError(
                f"Invalid regex of metric {metric['Name']}: {metric['Regex']} has no group that"
                " captures the value"
            )
    names = [channel["ChannelName"] for channel in request.get("InputDataConfig", [])]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise ValidationError(f"Channel names must be unique: {', '.join(sorted(repeated))}")
    resources = request.get("ResourceConfig", {})
    machines = [resources, *resources.get("InstanceGroups", [])]
    refuse_volume_key(resources.get("VolumeKmsKeyId"), machines, "VolumeKmsKeyId")
    if vpc := request.get("VpcConfig"):
        try:
            network.require(vpc)
        except network.NetworkError as error:
            raise ValidationError(str(error)) from error
    limits = request.get("StoppingCondition", {})
    longest, wait = limits.get("MaxRuntimeInSeconds", 0), limits.get("MaxWaitTimeInSeconds")
    if request.get("EnableManagedSpotTraining"):
        if wait is None or wait < longest:
            raise ValidationError(
                "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to"
                " MaxRuntimeInSeconds"
            )
    elif wait is not None:
        raise ValidationError(
            "Invalid MaxWaitTimeInSeconds. It can only be given with EnableManagedSpotTraining"
        )


def _create(client: Any, name: str = "probe", **more: Any) -> dict[str, Any]:
    client.create_training_job(
        TrainingJobName=name,
        RoleArn=ROLE,
        AlgorithmSpecification={"TrainingImage": "probe", "TrainingInputMode": "File"},
        OutputDataConfig={"S3OutputPath": "s3://probe"},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        StoppingCondition={"MaxRuntimeInSeconds": 60},
        **more,
    )
    described: dict[str, Any] = client.describe_training_job(TrainingJobName=name)
    return described


def _keeps_environment() -> bool:
    with plain_client("sagemaker") as client:
        return "Environment" in _create(client, Environment={"A": "b"})


def _invents_no_metrics() -> bool:
    with plain_client("sagemaker") as client:
        return "MetricDefinitions" not in _create(client)["AlgorithmSpecification"]


def _name_is_unique() -> bool:
    with plain_client("sagemaker") as client:
        _create(client)
        return refuses(lambda: _create(client))


def _filters_before_paging() -> bool:
    with plain_client("sagemaker") as client:
        _create(client)
        _create(client, "other")
        found = client.list_training_jobs(NameContains="other", MaxResults=1)
        return bool(found["TrainingJobSummaries"])


def _runs_a_program() -> bool:
    """Whether a job that names no program fails, as it must where jobs are run."""
    with plain_client("sagemaker") as client:
        return bool(_create(client)["TrainingJobStatus"] != "Completed")


GAPS: list[Gap] = [
    Gap("sagemaker", "CreateTrainingJob", "nothing is trained", _runs_a_program),
    Gap(
        "sagemaker",
        "CreateTrainingJob.TrainingJobName",
        "a name in use is taken, which AWS refuses",
        _name_is_unique,
    ),
    Gap(
        "sagemaker",
        "DescribeTrainingJob.Environment",
        "dropped, as are the warm pool, the retry strategy and half of the other members",
        _keeps_environment,
    ),
    Gap(
        "sagemaker",
        "DescribeTrainingJob.AlgorithmSpecification",
        "metric definitions that nobody gave",
        _invents_no_metrics,
    ),
    Gap(
        "sagemaker",
        "ListTrainingJobs",
        "a page is cut before it is filtered, and never sorted: jobs are missed",
        _filters_before_paging,
    ),
    missing("StopTrainingJob", "no job can be stopped"),
    missing("UpdateTrainingJob", "no warm pool can be ended"),
    missing("DeleteTrainingJob", "jobs outlive all that they belonged to"),
]
