"""SageMaker's Model Registry: every model that is deployed, what it came from, and the verdict.

The roles may not write SageMaker's lineage graph; where a model came from is said in its package:
`SourceUri`, `MetadataProperties` and `CustomerMetadataProperties`.
"""

import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from terraform.cli.model import Archive
from trainer.errors import UsageError
from trainer.make_command import make_command
from trainer.patience import was_done
from trainer.target import Target

if TYPE_CHECKING:
    from inference.archive import Model

INSTANCE_TYPES = tuple(
    f"ml.{family}.{size}" for family in ("c5", "c6i", "m5", "m6i") for size in ("large", "xlarge")
)
"""What the serving image (linux/amd64, without a GPU) is known to run on."""

CONTENT_TYPES = ("application/octet-stream", "image/jpeg", "image/png", "image/webp")

_IMAGE = re.compile(r'^image_uri\s*=\s*"([^"]+)"', re.MULTILINE)
_JOB = re.compile(r"/jobs/([^/]+)/")
# ApprovalDescription takes this many characters, all in one line.
_MAX_REASON = 1024
_DELETE_SECONDS = 120.0
_POLL_SECONDS = 2.0


@dataclass(frozen=True)
class Package:
    """A package of the registry.

    Attributes:
        arn: Its ARN.
        digest: The model's digest.
        status: `Approved`, `Rejected` or `PendingManualApproval`.
    """

    arn: str
    digest: str
    status: str


def register(opened: "Model", archive: Archive, source: str, target: Target) -> Package:
    """Register a model that is in the bucket, unless it is registered.

    Args:
        opened: The model itself.
        archive: Its place in the bucket; its metrics are put beside it.
        source: Where it was found: an address in S3, or a path.
        target: The environment.

    Raises:
        UsageError: There is no serving image.
    """
    client = target.client("sagemaker")
    known = find(target, opened.digest)
    if known:
        return known
    if not _has_group(client, target):
        _make_group(client, target)
    manifest = opened.manifest
    job = _JOB.search(source)
    job_arn = _training_job(client, job[1]) if job else None
    properties = {
        "digest": opened.digest,
        "git_commit": manifest.get("git_commit"),
        "dataset_fingerprint": manifest.get("dataset_fingerprint"),
        "backbone": manifest.get("backbone"),
        "precision": manifest.get("precision"),
        "training_job": job[1] if job else None,
    }
    made = client.create_model_package(
        ModelPackageGroupName=target.prefix,
        # Lists of packages tell the description, and so the digest.
        ModelPackageDescription=f"{opened.name} {opened.digest}",
        InferenceSpecification={
            "Containers": [{"Image": image(target), "ModelDataUrl": archive.uri}],
            "SupportedContentTypes": list(CONTENT_TYPES),
            "SupportedRealtimeInferenceInstanceTypes": list(INSTANCE_TYPES),
            "SupportedResponseMIMETypes": ["application/json"],
        },
        ModelMetrics={
            "ModelQuality": {
                "Statistics": {
                    "ContentType": "application/json",
                    "S3Uri": _upload_metrics(opened, archive, target),
                }
            }
        },
        CustomerMetadataProperties={key: str(value) for key, value in properties.items() if value},
        MetadataProperties={
            "CommitId": str(manifest.get("git_commit")),
            **({"GeneratedBy": job_arn} if job_arn else {}),
        },
        ModelApprovalStatus="PendingManualApproval",
        # A path on this machine says nothing to others.
        **({"SourceUri": source} if source.startswith("s3://") else {}),
    )
    sys.stderr.write(f"registered {made['ModelPackageArn']}\n")
    return Package(made["ModelPackageArn"], opened.digest, "PendingManualApproval")


def _make_group(client: Any, target: Target) -> None:
    try:
        client.create_model_package_group(
            ModelPackageGroupName=target.prefix,
            ModelPackageGroupDescription=f"Models of {target.prefix}",
            Tags=_tags(target),
        )
    except ClientError as error:
        # Lists lag, and the answer to an earlier attempt may have been lost.
        if "already exist" not in error.response["Error"].get("Message", ""):
            raise


def judge(package: Package, target: Target, fault: str | None) -> None:
    """Approve a package, or reject it for a fault."""
    status = "Rejected" if fault else "Approved"
    reason = fault or "make verify passed"
    target.client("sagemaker").update_model_package(
        ModelPackageArn=package.arn,
        ModelApprovalStatus=status,
        ApprovalDescription=" ".join(reason.split())[:_MAX_REASON],
    )
    sys.stderr.write(f"{status.lower()} {package.arn}: {reason}\n")


def find(target: Target, digest: str) -> Package | None:
    """The package of a model; None if it is not registered."""
    return next((found for found in packages(target) if found.digest == digest), None)


def data_fingerprint(target: Target, digest: str) -> str | None:
    """Fingerprint of the photos that a model was trained on; None if it is not registered."""
    if not (package := find(target, digest)):
        return None
    client = target.client("sagemaker")
    described = client.describe_model_package(ModelPackageName=package.arn)
    told: str | None = described.get("CustomerMetadataProperties", {}).get("dataset_fingerprint")
    return told


def newest_approved(target: Target) -> str | None:
    """Address of the archive that was approved last; None if there is none."""
    client = target.client("sagemaker")
    for package in packages(target):
        if package.status == "Approved":
            described = client.describe_model_package(ModelPackageName=package.arn)
            address: str = described["InferenceSpecification"]["Containers"][0]["ModelDataUrl"]
            return address
    return None


def packages(target: Target) -> Iterator[Package]:
    """All packages of the environment, the newest first."""
    client = target.client("sagemaker")
    if not _has_group(client, target):
        return
    pages = client.get_paginator("list_model_packages").paginate(
        ModelPackageGroupName=target.prefix,
        ModelPackageType="Versioned",
        SortBy="CreationTime",
        SortOrder="Descending",
    )
    for page in pages:
        for summary in page["ModelPackageSummaryList"]:
            yield Package(
                arn=summary["ModelPackageArn"],
                digest=summary.get("ModelPackageDescription", "").rpartition(" ")[2],
                status=summary.get("ModelApprovalStatus", ""),
            )


def delete_all(target: Target, seconds: float = _DELETE_SECONDS) -> None:
    """Remove all packages and their group.

    A package may be listed for a while after it was deleted, and its group stays as long.

    Args:
        target: Whose they are.
        seconds: How long to wait for that.

    Raises:
        ClientError: SageMaker keeps one of them.
    """
    client, deadline = target.client("sagemaker"), time.monotonic() + seconds
    if not _has_group(client, target):
        return
    gone: set[str] = set()
    while True:
        for package in list(packages(target)):
            if package.arn not in gone:
                _delete(client.delete_model_package, ModelPackageName=package.arn)
                gone.add(package.arn)
        try:
            _delete(client.delete_model_package_group, ModelPackageGroupName=target.prefix)
        except client.exceptions.ConflictException:
            if time.monotonic() > deadline:
                raise
            time.sleep(min(_POLL_SECONDS, seconds))
        else:
            return


def _delete(call: Callable[..., object], **named: str) -> None:
    """Delete something; what an attempt whose answer was lost has deleted is gone."""
    try:
        call(**named)
    except ClientError as error:
        if not was_done(error, "ValidationException", "ResourceNotFound"):
            raise


def image(target: Target) -> str:
    """The image that the stack will serve with: the pinned one, else the one built last.

    Raises:
        UsageError: There is none.
    """
    for path in reversed(target.variable_files("serving")):
        if pinned := _IMAGE.search(path.read_text()):
            return pinned[1]
    built = target.parameter("image_uri")
    if built is None:
        raise UsageError(
            f"there is no serving image: `{make_command('image', target.name)}` builds one"
        )
    return built


def _has_group(client: Any, target: Target) -> bool:
    pages = client.get_paginator("list_model_package_groups").paginate(NameContains=target.prefix)
    return any(
        group["ModelPackageGroupName"] == target.prefix
        for page in pages
        for group in page["ModelPackageGroupSummaryList"]
    )


def _training_job(client: Any, name: str) -> str | None:
    """ARN of a SageMaker training job; None for a run elsewhere, such as on EC2."""
    try:
        return str(client.describe_training_job(TrainingJobName=name)["TrainingJobArn"])
    except ClientError as error:
        if error.response["Error"]["Code"] not in {"ValidationException", "ResourceNotFound"}:
            raise
        return None


def _upload_metrics(opened: "Model", archive: Archive, target: Target) -> str:
    """Put the archive's own metrics beside it and give their address."""
    key = archive.key.replace("model.tar.gz", "metrics.json")
    body = (opened.folder / "metrics.json").read_bytes()
    target.client("s3").put_object(
        Bucket=archive.bucket, Key=key, Body=body, ContentType="application/json"
    )
    return f"s3://{archive.bucket}/{key}"


def _tags(target: Target) -> list[dict[str, str]]:
    named = {"project": target.project, "environment": target.name}
    return [{"Key": key, "Value": value} for key, value in named.items()]
