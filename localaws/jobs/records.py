"""What SageMaker keeps of its jobs; transform and processing jobs are kept in the same form."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar, Protocol, TypeVar

from moto.core.common_models import BaseModel
from moto.core.utils import get_service_model, utcnow
from moto.sagemaker.exceptions import ResourceInUseException
from moto.sagemaker.models import sagemaker_backends
from moto.sagemaker.utils import arn_formatter

from localaws import regions
from localaws.execution import ACCOUNT

ENDED = ("Completed", "Failed", "Stopped")
"""The statuses that a job does not leave."""

FAILURE_CHARACTERS = 1024
"""How much of a reason AWS keeps."""

_MODEL = get_service_model("sagemaker")


class _Kept(Protocol):
    arn: str


J = TypeVar("J", bound=_Kept)


def keep_new(kept: dict[str, J], name: str, job: J, kind: str) -> J:
    """Keep the record of a job.

    Args:
        kept: All records of its kind, by name.
        name: Its name.
        job: The record.
        kind: What SageMaker calls it in this message.

    Raises:
        ResourceInUseException: There is one of that name.
    """
    if kept.setdefault(name, job) is not job:
        raise ResourceInUseException(
            f"{kind} names must be unique within an AWS account and region, and a {kind.lower()}"
            f" with this name already exists ({job.arn})"
        )
    return job


class Job(BaseModel):
    """A job's request and what has become of it; nothing in it runs."""

    kind: ClassVar[str]
    """Such as "Transform"."""
    defaults: ClassVar[Mapping[str, Any]] = {}
    """What is described where nobody gave it, member by member of each structure."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        """Make the record of a job that starts.

        Args:
            request: The members of the request; what is empty counts as absent.
        """
        self.given = {name: value for name, value in request.items() if value not in (None, {}, [])}
        self.name: str = self.given[f"{self.kind}JobName"]
        self.arn = arn_formatter(f"{self.kind.lower()}-job", self.name, ACCOUNT, regions.current())
        self.tags: list[dict[str, str]] = self.given.get("Tags", [])
        self.creation_time = self.last_modified_time = utcnow()
        self.start_time: datetime | None = None
        self.end_time: datetime | None = None
        self.status = "InProgress"
        self.failure_reason: str | None = None

    @classmethod
    def all(cls) -> dict[str, Any]:
        """All jobs of this kind by name, as moto keeps them."""
        backend = sagemaker_backends[ACCOUNT][regions.current()]
        found: dict[str, Any] = getattr(backend, f"{cls.kind.lower()}_jobs")
        return found

    def keep(self) -> None:
        """Keep the record.

        Raises:
            ResourceInUseException: There is a job of that name.
        """
        if self.all().setdefault(self.name, self) is not self:
            raise ResourceInUseException(
                "Job name must be unique within an AWS account and region, and a job with this name"
                f" already exists ({self.arn})"
            )

    @property
    def ended(self) -> bool:
        """Whether the job has its last status."""
        return self.status in ENDED

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to end."""
        return self.status == "Stopping"

    def begin(self) -> None:
        """Note that its instances work now."""
        self.start_time = self.last_modified_time = utcnow()

    def stop(self) -> None:
        """Note that it was told to end."""
        self.status = "Stopping"
        self.last_modified_time = utcnow()

    def end(self, status: str, *, reason: str = "") -> None:
        """Give the job its last status, with the reason of a failure."""
        self.status = status
        self.end_time = self.last_modified_time = utcnow()
        self.failure_reason = reason[:FAILURE_CHARACTERS] or None

    def describe(self) -> dict[str, Any]:
        """What the job's `Describe...` answers."""
        filled = {
            name: {**self.defaults[name], **value} if name in self.defaults else value
            for name, value in {**self._absent, **self.given}.items()
        }
        return self._only(f"Describe{self.kind}JobResponse", filled)

    def summary(self) -> dict[str, Any]:
        """What a list answers of the job."""
        return self._only(f"{self.kind}JobSummary", {})

    @property
    def response_object(self) -> dict[str, Any]:
        """What moto answers where it describes the record."""
        return self.describe()

    @property
    def _absent(self) -> dict[str, Any]:
        """Structures that are described even if nobody gave them."""
        return {}

    @property
    def _became(self) -> dict[str, Any]:
        return {
            f"{self.kind}JobArn": self.arn,
            f"{self.kind}JobName": self.name,
            f"{self.kind}JobStatus": self.status,
            f"{self.kind}StartTime": self.start_time,
            f"{self.kind}EndTime": self.end_time,
            "CreationTime": self.creation_time,
            "LastModifiedTime": self.last_modified_time,
            "FailureReason": self.failure_reason,
        }

    def _only(self, shape: str, filled: Mapping[str, Any]) -> dict[str, Any]:
        members = _MODEL.shape_for(shape).members
        told = {**filled, **self._became}
        return {name: told[name] for name in members if told.get(name) is not None}


class TransformJob(Job):
    """A transform job."""

    kind = "Transform"
    defaults: ClassVar[Mapping[str, Any]] = {
        "TransformInput": {"CompressionType": "None", "SplitType": "None"},
        "TransformOutput": {"AssembleWith": "None", "KmsKeyId": ""},
    }


class ProcessingJob(Job):
    """A processing job.

    Attributes:
        exit_message: What its containers left to be told.
    """

    kind = "Processing"
    exit_message: str | None = None

    @property
    def _absent(self) -> dict[str, Any]:
        return {"StoppingCondition": {"MaxRuntimeInSeconds": 24 * 3600}}

    @property
    def _became(self) -> dict[str, Any]:
        return {**super()._became, "ExitMessage": self.exit_message}
