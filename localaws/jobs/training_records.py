"""What SageMaker keeps of a training job."""

import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from moto.core.common_models import BaseModel
from moto.core.utils import get_service_model, utcnow
from moto.sagemaker.models import sagemaker_backends
from moto.sagemaker.utils import arn_formatter

from localaws import regions
from localaws.execution import ACCOUNT
from localaws.jobs.records import ENDED, FAILURE_CHARACTERS, keep_new

# What an hour of spot capacity costs of an hour's price: on AWS it differs from hour to hour.
_SPOT_PRICE = 0.3
_DESCRIBED = get_service_model("sagemaker").shape_for("DescribeTrainingJobResponse").members
_MESSAGES = {
    "Starting": "Starting the training job",
    "Downloading": "Downloading input data",
    "Training": "Training image download completed. Training in progress.",
    "Uploading": "Uploading generated training model",
    "Completed": "Training job completed",
    "Failed": "Training job failed",
    "Stopping": "Stopping the training job",
    "Stopped": "Training job stopped",
    "Interrupted": "Training job interrupted",
    "MaxRuntimeExceeded": "Training job runtime exceeded MaxRuntimeInSeconds provided",
    "MaxWaitTimeExceeded": "Training job wait time exceeded MaxWaitTimeInSeconds provided",
}


class TrainingJob(BaseModel):
    """A job's request and what has become of it; nothing in it runs."""

    def __init__(self, request: Mapping[str, Any], tuning_job_arn: str | None = None) -> None:
        """Make the record of a job that starts.

        Args:
            request: The members of `CreateTrainingJob`; what is empty counts as absent.
            tuning_job_arn: The tuning job that the job is a trial of.
        """
        self.given = {name: value for name, value in request.items() if value not in (None, {}, [])}
        self.training_job_name: str = self.given["TrainingJobName"]
        self.arn = arn(self.training_job_name)
        self.tags: list[dict[str, str]] = self.given.get("Tags", [])
        self.role_arn: str = self.given["RoleArn"]
        self.tuning_job_arn = tuning_job_arn
        self.creation_time = self.last_modified_time = utcnow()
        self.training_start_time: datetime | None = None
        self.training_end_time: datetime | None = None
        self.training_seconds = 0.0
        """Time in which hosts ran, without the present attempt."""
        self.retries = 0
        """How often the job began anew after a failure that was not its own."""
        self.failure_reason: str | None = None
        self.training_job_status = "InProgress"
        self.secondary_status_transitions: list[dict[str, Any]] = []
        self.final_metrics: dict[str, dict[str, Any]] = {}
        self.report("Starting")

    @property
    def secondary_status(self) -> str:
        """Where in its life the job is."""
        status: str = self.secondary_status_transitions[-1]["Status"]
        return status

    @property
    def ended(self) -> bool:
        """Whether the job has its last status."""
        return self.training_job_status in ENDED

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to end."""
        return self.training_job_status == "Stopping"

    @property
    def model_uri(self) -> str:
        """Where the archive of the model is, or will be."""
        output = self.given["OutputDataConfig"]
        path = f"{output['S3OutputPath'].rstrip('/')}/{self.training_job_name}/output"
        return f"{path}/model{'/' if output.get('CompressionType') == 'NONE' else '.tar.gz'}"

    def report(self, secondary_status: str, message: str | None = None) -> None:
        """Go on to a secondary status, with AWS's message if no other is given."""
        now = utcnow()
        if self.secondary_status_transitions:
            self.secondary_status_transitions[-1]["EndTime"] = now
        self.secondary_status_transitions.append(
            {
                "Status": secondary_status,
                "StartTime": now,
                "StatusMessage": message or _MESSAGES[secondary_status],
            }
        )
        self.last_modified_time = now

    def stop(self) -> None:
        """Note that it was told to end."""
        self.training_job_status = "Stopping"
        self.report("Stopping")

    def end(self, status: str, secondary_status: str | None = None, reason: str = "") -> None:
        """Give the job its last status.

        Args:
            status: One of `ENDED`.
            secondary_status: Where it differs from the status.
            reason: Why the job failed.
        """
        self.report(secondary_status or status)
        now = utcnow()
        self.secondary_status_transitions[-1]["EndTime"] = now
        self.training_job_status, self.training_end_time = status, now
        self.failure_reason = reason[:FAILURE_CHARACTERS] or None

    def describe(self) -> dict[str, Any]:
        """What `DescribeTrainingJob` answers."""
        defaults = {
            "EnableInterContainerTrafficEncryption": False,
            "EnableManagedSpotTraining": False,
            "EnableNetworkIsolation": False,
            "StoppingCondition": {"MaxRuntimeInSeconds": 24 * 3600},
        }
        seconds = math.ceil(self.training_seconds)
        share = _SPOT_PRICE if self.given.get("EnableManagedSpotTraining") else 1
        became = {
            "TrainingJobArn": self.arn,
            "TuningJobArn": self.tuning_job_arn,
            "ModelArtifacts": {"S3ModelArtifacts": self.model_uri},
            "TrainingJobStatus": self.training_job_status,
            "SecondaryStatus": self.secondary_status,
            "SecondaryStatusTransitions": self.secondary_status_transitions,
            "FailureReason": self.failure_reason,
            "CreationTime": self.creation_time,
            "TrainingStartTime": self.training_start_time,
            "TrainingEndTime": self.training_end_time,
            "LastModifiedTime": self.last_modified_time,
            "FinalMetricDataList": list(self.final_metrics.values()) or None,
            "TrainingTimeInSeconds": seconds if self.ended else None,
            "BillableTimeInSeconds": math.ceil(seconds * share) if self.ended else None,
            "WarmPoolStatus": self.warm_pool_status,
        }
        return {
            **defaults,
            **{name: value for name, value in self.given.items() if name in _DESCRIBED},
            **{name: value for name, value in became.items() if value is not None},
        }

    @property
    def warm_pool_status(self) -> dict[str, Any] | None:
        """Whether the instances wait for another job; None if they were never to."""
        kept = self.given.get("ResourceConfig", {}).get("KeepAlivePeriodInSeconds")
        if kept is None:
            return None
        if not self.training_end_time:
            return {"Status": "InUse"}
        idle = utcnow() - self.training_end_time
        if self.training_job_status == "Completed" and idle < timedelta(seconds=kept):
            return {"Status": "Available"}
        return {
            "Status": "Terminated",
            "ResourceRetainedBillableTimeInSeconds": min(kept, math.ceil(idle.total_seconds())),
        }

    @property
    def response_object(self) -> dict[str, Any]:
        """What moto's `Search` answers."""
        return self.describe()


def arn(name: str) -> str:
    """The ARN of a job."""
    return arn_formatter("training-job", name, ACCOUNT, regions.current())


def jobs() -> dict[str, TrainingJob]:
    """All jobs by name, as moto keeps them."""
    kept: Any = sagemaker_backends[ACCOUNT][regions.current()].training_jobs
    found: dict[str, TrainingJob] = kept
    return found


def keep(job: TrainingJob) -> TrainingJob:
    """Keep a job of a new name; see `keep_new`."""
    return keep_new(jobs(), job.training_job_name, job, "Training job")
