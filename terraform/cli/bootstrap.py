"""Makes the bucket that holds the states, and removes it when nothing needs it."""

import json
import sys
from functools import partial
from typing import Any

from botocore.exceptions import ClientError

from terraform.cli import objects, stack
from trainer.errors import KennelError
from trainer.make_command import make_command
from trainer.patience import patiently, read_object, was_done
from trainer.target import Target

_OLD_STATES_DAYS = 90
# A new bucket is not known everywhere at once, and S3 makes one change of it at a time.
_PASSING = frozenset({"NoSuchBucket", "OperationAborted"})


def create(target: Target) -> None:
    """Make the state bucket, or bring the one that is there up to date. Safe to repeat.

    Raises:
        KennelError: The name belongs to another account.
    """
    client, bucket = target.client("s3"), target.state_bucket
    if _exists(target):
        sys.stdout.write(f"{bucket} is there; its settings are set again\n")
    else:
        # us-east-1 is what a request without a location means, and may not be named.
        location = {"LocationConstraint": target.region}
        elsewhere = target.region != "us-east-1"
        make = partial(
            client.create_bucket,
            Bucket=bucket,
            ObjectOwnership="BucketOwnerEnforced",
            **({"CreateBucketConfiguration": location} if elsewhere else {}),
        )
        try:
            patiently(make, _PASSING)
        except client.exceptions.BucketAlreadyOwnedByYou:
            sys.stdout.write(f"{bucket} is there\n")
        else:
            sys.stdout.write(f"{bucket} made\n")
    owned = {"Bucket": bucket, "ExpectedBucketOwner": target.account}

    def put(setting: str, **values: Any) -> None:
        patiently(partial(getattr(client, f"put_{setting}"), **owned, **values), _PASSING)

    put(
        "public_access_block",
        PublicAccessBlockConfiguration={
            "BlockPublicAcls": True,
            "BlockPublicPolicy": True,
            "IgnorePublicAcls": True,
            "RestrictPublicBuckets": True,
        },
    )
    put(
        "bucket_ownership_controls",
        OwnershipControls={"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]},
    )
    put("bucket_versioning", VersioningConfiguration={"Status": "Enabled"})
    put(
        "bucket_encryption",
        ServerSideEncryptionConfiguration={
            "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
        },
    )
    put(
        "bucket_lifecycle_configuration",
        LifecycleConfiguration={
            "Rules": [
                {
                    "ID": "forget-old-states",
                    "Status": "Enabled",
                    "Filter": {"Prefix": ""},
                    "NoncurrentVersionExpiration": {"NoncurrentDays": _OLD_STATES_DAYS},
                    "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
                }
            ]
        },
    )
    put(
        "bucket_tagging",
        Tagging={"TagSet": [{"Key": "project", "Value": target.project}]},
    )
    put("bucket_policy", Policy=json.dumps(_policy(target, client.meta.partition)))
    sys.stdout.write(f"next: {make_command('apply', target.name, STACK='foundation')}\n")


def delete(target: Target, approved: bool) -> None:
    """Remove the state bucket with all versions of its states, if these hold no resource.

    Raises:
        KennelError: A state still holds resources, or this is not confirmed.
    """
    client, bucket = target.client("s3"), target.state_bucket
    if not _exists(target):
        sys.stdout.write(f"{bucket} is not there\n")
        return
    for key in _keys(client, bucket):
        if _holds_resources(client, bucket, key):
            name, _, held = key.removesuffix(".tfstate").partition("/")
            raise KennelError(
                f"s3://{bucket}/{key} still holds resources: "
                f"`{make_command('destroy', name, STACK=held)}` first, "
                "with DELETE_DATA=1 where it keeps data"
            )
    if not approved:
        stack.ask(f"Delete {bucket} with all former states?", bucket, bucket)
    objects.delete(client, bucket)
    try:
        client.delete_bucket(Bucket=bucket, ExpectedBucketOwner=target.account)
    except ClientError as error:
        if not was_done(error, "NoSuchBucket"):
            raise
    sys.stdout.write(f"{bucket} deleted\n")


def _exists(target: Target) -> bool:
    try:
        return objects.region(target, target.state_bucket) is not None
    except ClientError as error:
        if error.response["Error"]["Code"] not in {"403", "AccessDenied"}:
            raise
        raise KennelError(
            f"{target.state_bucket} is there, but not for account {target.account}: somebody else "
            "owns the name, or these credentials may not read it; choose another `project`, or use "
            "credentials that may"
        ) from None


def _keys(client: Any, bucket: str) -> list[str]:
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return [item["Key"] for page in pages for item in page.get("Contents", [])]


def _holds_resources(client: Any, bucket: str, key: str) -> bool:
    """Whether an object is a state with resources; what is no state is kept, too."""
    content = read_object(client, bucket, key).content
    try:
        return bool(json.loads(content)["resources"])
    except (ValueError, KeyError):
        return True


def _policy(target: Target, partition: str) -> dict[str, Any]:
    arn = f"arn:{partition}:s3:::{target.state_bucket}"
    everything = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [arn, f"{arn}/*"],
    }
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                **everything,
                "Sid": "DenyWithoutTls",
                "Condition": {"Bool": {"aws:SecureTransport": "false"}},
            },
            {
                **everything,
                "Sid": "DenyOldTls",
                "Condition": {"NumericLessThan": {"s3:TlsVersion": "1.2"}},
            },
        ],
    }
