"""Buckets and image registries, and what they hold: objects with all versions, images."""

import sys
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from trainer.errors import KennelError
from trainer.names import counted
from trainer.target import Target

BUCKET, REPOSITORY = "aws_s3_bucket", "aws_ecr_repository"
HOLDERS = frozenset((BUCKET, REPOSITORY))
"""Terraform's types of what holds data."""

_TELL_EACH = 10_000


@dataclass(frozen=True)
class Contents:
    """What a bucket holds.

    Attributes:
        objects: Number of objects.
        old: Number of former versions of objects.
        size: Bytes of all of them.
        models: Number of different model archives among the objects.
    """

    objects: int
    old: int
    size: int
    models: int

    def __bool__(self) -> bool:
        return self.objects + self.old > 0

    def __str__(self) -> str:
        parts = [counted(self.objects, "object")]
        if self.old:
            parts.append(counted(self.old, "old version"))
        return ", ".join([*parts, size_text(self.size), counted(self.models, "model")])


def region(target: Target, bucket: str) -> str | None:
    """Region of a bucket of this account; None if there is no such bucket."""
    try:
        answer = target.client("s3").head_bucket(Bucket=bucket, ExpectedBucketOwner=target.account)
    except ClientError as error:
        if error.response["Error"]["Code"] in {"404", "NoSuchBucket"}:
            return None
        raise
    return str(answer["BucketRegion"])


def count(client: Any, bucket: str, prefix: str) -> tuple[int, int]:
    """How many objects there are below a prefix, and their bytes; without old versions."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    sizes = [item["Size"] for page in pages for item in page.get("Contents", [])]
    return len(sizes), sum(sizes)


def contents(client: Any, bucket: str) -> Contents:
    """What a bucket holds, old versions included; one that is not there holds nothing."""
    pages = client.get_paginator("list_object_versions").paginate(Bucket=bucket)
    objects = old = size = 0
    archives = set()
    try:
        for item in (item for page in pages for item in page.get("Versions", [])):
            size += item["Size"]
            if not item["IsLatest"]:
                old += 1
                continue
            objects += 1
            # A deployed model lies where its job wrote it, too: the same bytes have the same tag.
            if item["Key"].endswith("/model.tar.gz"):
                archives.add(item["ETag"])
    except client.exceptions.NoSuchBucket:
        return Contents(0, 0, 0, 0)
    return Contents(objects, old, size, len(archives))


def images(target: Target, repository: str) -> list[str]:
    """Digests of a repository's images, lists of images first; none without the repository."""
    client = target.client("ecr")
    pages = client.get_paginator("describe_images").paginate(repositoryName=repository)
    try:
        found = [image for page in pages for image in page["imageDetails"]]
    except client.exceptions.RepositoryNotFoundException:
        return []
    found.sort(key=lambda image: "manifest.v" in image.get("imageManifestMediaType", ""))
    return [image["imageDigest"] for image in found]


def held(target: Target, kind: str, name: str) -> str:
    """Say what a bucket or a registry holds; nothing if it is empty or not there.

    Args:
        target: Where it is.
        kind: Its type in Terraform, of `HOLDERS`.
        name: Its own.
    """
    if kind == REPOSITORY:
        count = len(images(target, name))
        return f"{counted(count, 'image')} of {name}" if count else ""
    found = contents(target.client("s3"), name)
    return f"s3://{name} ({found})" if found else ""


def delete(client: Any, bucket: str, prefix: str = "", only_markers: bool = False) -> None:
    """Remove all versions of all objects below a prefix.

    Args:
        client: S3's.
        bucket: The bucket.
        prefix: Where they lie.
        only_markers: Remove delete markers only, which hold nothing and keep a bucket from going.

    Raises:
        KennelError: S3 keeps one.
    """
    pages = client.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix)
    gone = 0
    for page in pages:
        versions = [] if only_markers else page.get("Versions", [])
        versions = [*versions, *page.get("DeleteMarkers", [])]
        if not versions:
            continue
        doomed = [{"Key": item["Key"], "VersionId": item["VersionId"]} for item in versions]
        answer = client.delete_objects(Bucket=bucket, Delete={"Objects": doomed, "Quiet": True})
        for error in answer.get("Errors", []):
            raise KennelError(f"s3://{bucket}/{error['Key']} stays: {error.get('Message')}")
        if gone // _TELL_EACH < (gone := gone + len(doomed)) // _TELL_EACH:
            sys.stderr.write(f"deleted {gone:,} versions from {bucket}\n")


def size_text(size: int) -> str:
    """Bytes in words, such as `1.1 GB`."""
    for unit, power in (("GB", 3), ("MB", 2), ("kB", 1)):
        if size >= 1000**power:
            return f"{size / 1000**power:.1f} {unit}"
    return counted(size, "byte")
