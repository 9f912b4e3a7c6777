"""SageMaker's transform and processing jobs: what is refused, and what their records tell."""

from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any, ClassVar

from moto.core.responses import ActionResult, EmptyResult
from moto.sagemaker import models, responses
from moto.sagemaker.exceptions import ResourceInUseException, ValidationError
from moto.sagemaker.utils import arn_formatter

from localaws import network
from localaws.additions import Gap
from localaws.additions._moto import ROLE, plain_client, refuses
from localaws.additions._sagemaker import fits_list, flawed, missing, sorted_page
from localaws.additions._sagemaker_data import not_assumed
from localaws.additions._sagemaker_volumes import refuse_volume_key
from localaws.execution import RoleError, running
from localaws.hosting import records
from localaws.jobs.processing import PLACE, ProcessingJobs
from localaws.jobs.records import Job, ProcessingJob, TransformJob
from localaws.jobs.transform import TransformJobs
from localaws.operations import RefusedError

_MOST_MEBIBYTES = 100
_MOST_INSTANCES = 100
_WHOLE = {"InputFilter": "$", "OutputFilter": "$", "JoinSource": "None"}
# Images whose own program does all; an image's program is what localaws does not run.
_SPARK = "sagemaker-spark-processing"


class JobAnswers(responses.SageMakerResponse):
    """Moto's answers about transform and processing jobs, mended."""

    def create_transform_job(self) -> ActionResult:
        """Create a transform job of a new name; it runs, or is a record of one that ran."""
        request = dict(self.params)
        model = self._model(request["ModelName"])
        _refuse_transform(request, model)
        if service := running(TransformJobs):
            return ActionResult({"TransformJobArn": service.create(request, model)})
        return ActionResult({"TransformJobArn": _recorded(TransformJob(request))})

    def describe_transform_job(self) -> ActionResult:
        """Describe a transform job with all that was given."""
        return ActionResult(self._job(TransformJob).describe())

    def list_transform_jobs(self) -> ActionResult:
        """The transform jobs that fit the filters, sorted, a page at a time."""
        return self._listed(TransformJob, "Descending")

    def stop_transform_job(self) -> ActionResult:
        """Let a transform job end."""
        return self._stop(self._job(TransformJob), running(TransformJobs))

    def create_processing_job(self) -> ActionResult:
        """Create a processing job of a new name; it runs, or is a record of one that ran."""
        request = dict(self.params)
        _refuse_processing(request)
        if service := running(ProcessingJobs):
            try:
                return ActionResult({"ProcessingJobArn": service.create(request)})
            except RoleError as error:
                raise ValidationError(not_assumed(request["RoleArn"], error)) from error
        return ActionResult({"ProcessingJobArn": _recorded(ProcessingJob(request))})

    def describe_processing_job(self) -> ActionResult:
        """Describe a processing job with all that was given."""
        return ActionResult(self._job(ProcessingJob).describe())

    def list_processing_jobs(self) -> ActionResult:
        """The processing jobs that fit the filters, sorted, a page at a time."""
        return self._listed(ProcessingJob, "Ascending")

    def stop_processing_job(self) -> ActionResult:
        """Let a processing job end."""
        return self._stop(self._job(ProcessingJob), running(ProcessingJobs))

    def delete_processing_job(self) -> ActionResult:
        """Delete a processing job that has ended."""
        job = self._job(ProcessingJob)
        if not job.ended:
            raise ResourceInUseException(
                f"Processing job {job.arn} is in status {job.status}."
                " Only a job that has ended can be deleted."
            )
        del ProcessingJob.all()[job.name]
        return EmptyResult()

    def _model(self, name: str) -> models.Model:
        found = self.sagemaker_backend._models.get(name)
        if not found:
            arn = arn_formatter("model", name, self.current_account, self.region)
            raise ValidationError(f'Could not find model "{arn}".')
        return found

    def _job(self, kind: type[Job]) -> Any:
        name = self._get_param(f"{kind.kind}JobName")
        if name not in kind.all():
            raise ValidationError(f"Could not find requested job with name: {name}")
        return kind.all()[name]

    def _listed(self, kind: type[Job], order: str) -> ActionResult:
        self.params.setdefault("SortOrder", order)
        found = (
            job
            for job in kind.all().values()
            if fits_list(self, job, job.name, {"StatusEquals": job.status})
        )
        keys = {"CreationTime": "creation_time", "Name": "name", "Status": "status"}
        by = keys[self._get_param("SortBy", "CreationTime")]
        listed, token = sorted_page(self, found, lambda job: getattr(job, by))
        summaries = [job.summary() for job in listed]
        return ActionResult({f"{kind.kind}JobSummaries": summaries, **token})

    @staticmethod
    def _stop(job: Job, service: TransformJobs | ProcessingJobs | None) -> ActionResult:
        if job.ended:
            raise ValidationError(
                f"The request was rejected because the {job.kind.lower()} job is in status"
                f" {job.status}."
            )
        if service:
            service.stop_job(job.name)
        return EmptyResult()


def _recorded(job: Job) -> str:
    """Keep the record of a job where nothing is executed."""
    job.keep()
    job.begin()
    job.end("Completed")
    return job.arn


def _refuse(refused: Mapping[str, object], who: str) -> None:
    """Refuse by name what nothing here does."""
    for what, is_given in refused.items():
        if is_given:
            raise RefusedError(f"no {who} here does {what}")


def _refuse_transform(request: Mapping[str, Any], model: models.Model) -> None:
    """Refuse what SageMaker refuses before a transform job exists, and what is not done here."""
    source = request["TransformInput"]["DataSource"]["S3DataSource"]
    payload, concurrent = (
        request.get(name) or 0 for name in ("MaxPayloadInMB", "MaxConcurrentTransforms")
    )
    resources = request["TransformResources"]
    if source["S3DataType"] == "AugmentedManifestFile":
        raise ValidationError("S3DataType AugmentedManifestFile is not supported for a transform.")
    if payload > _MOST_MEBIBYTES:
        raise ValidationError("MaxPayloadInMB cannot be greater than 100.")
    if payload * concurrent > _MOST_MEBIBYTES:
        raise ValidationError("MaxConcurrentTransforms * MaxPayloadInMB cannot exceed 100 MB.")
    if resources["InstanceCount"] > _MOST_INSTANCES:
        raise ValidationError("InstanceCount cannot be greater than 100.")
    refuse_volume_key(resources.get("VolumeKmsKeyId"), [resources], "VolumeKmsKeyId")
    containers = records.containers(model)
    split = request["TransformInput"].get("SplitType", "None")
    _refuse(
        {
            "DataProcessing": {**_WHOLE, **(request.get("DataProcessing") or {})} != _WHOLE,
            "DataCaptureConfig": request.get("DataCaptureConfig"),
            "ExperimentConfig": request.get("ExperimentConfig"),
            "MaxPayloadInMB 0 (chunked bodies)": request.get("MaxPayloadInMB") == 0,
            "S3DataType Converse": source["S3DataType"] == "Converse",
            f"SplitType {split}": split not in ("None", "Line"),
            "TransformAmiVersion": resources.get("TransformAmiVersion"),
            "a model of several containers": len(containers) > 1,
            "a multi-model container": any(c.get("Mode") == "MultiModel" for c in containers),
            **_unnamed([source["S3Uri"], request["TransformOutput"]["S3OutputPath"]]),
        },
        "transform job",
    )


def _refuse_processing(request: Mapping[str, Any]) -> None:
    """Refuse what SageMaker refuses before a processing job exists, and what is not done here."""
    inputs = request.get("ProcessingInputs") or []
    outputs = (request.get("ProcessingOutputConfig") or {}).get("Outputs") or []
    cluster = request["ProcessingResources"]["ClusterConfig"]
    sources = [given["S3Input"] for given in inputs if given.get("S3Input")]
    targets = [given["S3Output"] for given in outputs if given.get("S3Output")]
    image = request["AppSpecification"]["ImageUri"]
    _refuse(
        {
            "a DatasetDefinition": any(given.get("DatasetDefinition") for given in inputs),
            "a FeatureStoreOutput": any(given.get("FeatureStoreOutput") for given in outputs),
            "ExperimentConfig": request.get("ExperimentConfig"),
            "InstancePreferences": cluster.get("InstancePreferences"),
            "S3InputMode Pipe": any(s.get("S3InputMode") == "Pipe" for s in sources),
            "Spark": _SPARK in image,
            **_unnamed(given["S3Uri"] for given in (*sources, *targets)),
        },
        "processing job",
    )
    for member, kind, named in (
        ("S3Input", "input", [(given["InputName"], given) for given in inputs]),
        ("S3Output", "output", [(given["OutputName"], given) for given in outputs]),
    ):
        names = [name for name, _ in named]
        if repeated := {name for name in names if names.count(name) > 1}:
            raise ValidationError(
                f"Processing {kind} names must be unique: {', '.join(sorted(repeated))}"
            )
        for name, given in named:
            if not given.get(member):
                raise ValidationError(f"The processing {kind} {name} has no {member}.")
            if not given.get("AppManaged"):
                _refuse_place(given[member].get("LocalPath", ""), f"{kind} {name}")
    if any(source.get("S3CompressionType") == "Gzip" for source in sources):
        raise ValidationError("S3CompressionType Gzip can only be used with S3InputMode Pipe.")
    if not cluster.get("InstanceType"):
        raise ValidationError("One of InstanceType and InstancePreferences must be present.")
    refuse_volume_key(cluster.get("VolumeKmsKeyId"), [cluster], "VolumeKmsKeyId")
    if vpc := (request.get("NetworkConfig") or {}).get("VpcConfig"):
        try:
            network.require(vpc)
        except network.NetworkError as error:
            raise ValidationError(str(error)) from error


def _refuse_place(path: str, whose: str) -> None:
    if not path.startswith(PLACE) or ".." in PurePosixPath(path).parts:
        raise ValidationError(
            f"LocalPath '{path}' of the processing {whose} is invalid: it must be an absolute path"
            f" that begins with {PLACE}"
        )


def _unnamed(uris: Iterable[str]) -> dict[str, bool]:
    """Addresses that AWS takes and nothing here reads."""
    return {f"the address {uri}": True for uri in uris if not uri.startswith("s3://")}


class _Probe:
    """What the gaps ask moto by itself."""

    transform: ClassVar[dict[str, Any]] = {
        "TransformJobName": "probe",
        "ModelName": "probe",
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://probe"}}
        },
        "TransformOutput": {"S3OutputPath": "s3://probe"},
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
    }
    processing: ClassVar[dict[str, Any]] = {
        "ProcessingJobName": "probe",
        "RoleArn": ROLE,
        "AppSpecification": {"ImageUri": "probe"},
        "Environment": {"A": "b"},
        "ProcessingResources": {
            "ClusterConfig": {
                "InstanceCount": 1,
                "InstanceType": "ml.m5.large",
                "VolumeSizeInGB": 1,
            }
        },
    }


def _transform_needs_a_model() -> bool:
    with plain_client("sagemaker") as client:
        return refuses(lambda: client.create_transform_job(**_Probe.transform))


def _processing_keeps_environment() -> bool:
    with plain_client("sagemaker") as client:
        client.create_processing_job(**_Probe.processing)
        return "Environment" in client.describe_processing_job(ProcessingJobName="probe")


def _processing_runs_a_program() -> bool:
    """Whether a job that names no program fails, as it must where jobs are run."""
    with plain_client("sagemaker") as client:
        client.create_processing_job(**_Probe.processing)
        found = client.describe_processing_job(ProcessingJobName="probe")
        return bool(found["ProcessingJobStatus"] != "Completed")


GAPS: list[Gap] = [
    flawed(
        "CreateTransformJob",
        "nothing is predicted, and a model that is not there is taken",
        _transform_needs_a_model,
    ),
    flawed("CreateProcessingJob", "nothing is processed", _processing_runs_a_program),
    flawed(
        "DescribeProcessingJob.Environment",
        "dropped, as are the resources",
        _processing_keeps_environment,
    ),
    missing("StopTransformJob", "no transform job can be stopped"),
    missing("DeleteProcessingJob", "processing jobs outlive all that they belonged to"),
]
