"""Objects of a bucket, with all of their versions."""

from typing import Any

from trainer.errors import KennelError


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
