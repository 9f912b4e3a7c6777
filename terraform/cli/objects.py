"""Buckets, and their objects with all of their versions."""

from typing import Any

from botocore.exceptions import ClientError

from trainer.errors import KennelError
from trainer.target import Target


def region(target: Target, bucket: str) -> str | None:
    """Region of a bucket of this account; None if there is no such bucket."""
    try:
        answer = target.client("s3").head_bucket(Bucket=bucket, ExpectedBucketOwner=target.account)
    except ClientError as error:
        if error.response["Error"]["Code"] in {"404", "NoSuchBucket"}:
            return None
        raise
    return str(answer["BucketRegion"])


def count(client: Any, bucket: str, prefix: str) -> int:
    """How many objects there are below a prefix."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return sum(page["KeyCount"] for page in pages)


def delete(client: Any, bucket: str, prefix: str = "") -> None:
    """Remove all versions of all objects below a prefix.

    Raises:
        KennelError: S3 keeps one.
    """
    pages = client.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix)
    for page in pages:
        versions = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
        if not versions:
            continue
        doomed = [{"Key": item["Key"], "VersionId": item["VersionId"]} for item in versions]
        answer = client.delete_objects(Bucket=bucket, Delete={"Objects": doomed, "Quiet": True})
        for error in answer.get("Errors", []):
            raise KennelError(f"s3://{bucket}/{error['Key']} stays: {error.get('Message')}")
