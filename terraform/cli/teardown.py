"""`make destroy`: the stacks, and what neither Terraform nor AWS removes with them.

SageMaker and Lambda write logs after what wrote them is gone, and so make their log groups again;
the Model Registry, and what jobs wrote to the bucket, are nobody's but these commands'.
"""

import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

from terraform.cli import logs, objects, packages, stack
from terraform.cli.stack import Stack
from trainer.errors import KennelError
from trainer.target import Target

RUNS = ("capture/", "checkpoints/", "jobs/", "models/")
"""Prefixes of the bucket below which jobs, deployments and endpoints write."""

LOGS = {"foundation": ("build", "ec2"), "serving": ("endpoint", "function")}
"""Whose log groups each stack owns; those of training jobs may belong to other environments."""

_INTERFACES_SECONDS = 1200
_POLL_SECONDS = 10.0


def destroy(
    stacks: Sequence[Stack], extra: Sequence[str], approved: bool, delete_data: bool
) -> int:
    """Destroy stacks and what is left of them; give Terraform's exit code.

    Args:
        stacks: In the order in which they go.
        extra: More arguments of `terraform plan`.
        approved: Do not ask.
        delete_data: Remove what jobs and deployments have written, too.

    Raises:
        KennelError: The bucket holds data that are to be kept, or somebody says no.
    """
    is_whole = not any(argument.lstrip("-").startswith("target") for argument in extra)
    held = {}
    for each in stacks:
        stack.prepare(each)
        held[each.name] = stack.resources(each)
        if is_whole and not delete_data:
            require_deletable(each.target, held[each.name])
    gone = []
    for each in stacks:
        if is_whole and delete_data:
            _empty_buckets(each.target, held[each.name], approved)
        code = stack.destroy(each, extra, approved)
        if code != 0:
            return code
        if not stack.resources(each):
            gone.append(each)
            wait_for_interfaces(each.target, security_groups(held[each.name]))
            _clean(each, approved, delete_data, is_last=each is stacks[-1])
    # At the end, since late lines come for a while.
    for each in gone:
        _delete_log_groups(each)
    return 0


def security_groups(held: Iterable[dict[str, Any]]) -> set[str]:
    """Security groups in which SageMaker made network interfaces, by what a state holds."""
    found: set[str] = set()
    for resource in held:
        for attributes in (instance["attributes"] for instance in resource["instances"]):
            if resource["type"] == "aws_sagemaker_notebook_instance":
                found.update(attributes["security_groups"] or [])
            if resource["type"] == "aws_sagemaker_model":
                for network in attributes["vpc_config"] or []:
                    found.update(network["security_group_ids"])
    return found


def wait_for_interfaces(
    target: Target, groups: set[str], seconds: float = _INTERFACES_SECONDS
) -> None:
    """Wait until SageMaker has removed its network interfaces, which outlive what used them.

    Whoever deletes the security groups or the subnets after this would fail before. It goes on
    after a while, since others may use the same groups.
    """
    if not groups:
        return
    client = target.client("ec2")
    filters = [{"Name": "group-id", "Values": sorted(groups)}]
    deadline = time.monotonic() + seconds
    is_told = False
    while found := client.describe_network_interfaces(Filters=filters)["NetworkInterfaces"]:
        names = ", ".join(interface["NetworkInterfaceId"] for interface in found)
        if time.monotonic() > deadline:
            sys.stderr.write(f"note: {names} still use {', '.join(sorted(groups))}\n")
            return
        if not is_told:
            sys.stderr.write(f"waiting for SageMaker to remove {names}\n")
            is_told = True
        time.sleep(min(_POLL_SECONDS, seconds))


def require_deletable(target: Target, held: Iterable[dict[str, Any]]) -> None:
    """Refuse to begin what Terraform would stop half way at: a bucket that is to keep its data.

    Raises:
        KennelError: There is one.
    """
    for bucket, number in _kept_buckets(target, held).items():
        raise KennelError(
            f"{bucket} holds {number} objects and {target.name} keeps its data (force_destroy = "
            f"false): `make destroy ENV={target.name} DELETE_DATA=1` removes them, too"
        )


def _empty_buckets(target: Target, held: Iterable[dict[str, Any]], approved: bool) -> None:
    for bucket, number in _kept_buckets(target, held).items():
        if not approved:
            stack.ask(f"Delete all {number} objects of {bucket}?", bucket)
        objects.delete(target.client("s3"), bucket)


def _kept_buckets(target: Target, held: Iterable[dict[str, Any]]) -> dict[str, int]:
    """Buckets with data that Terraform would not delete, by what a state holds: their objects."""
    kept = [
        instance["attributes"]["bucket"]
        for resource in held
        if (resource["mode"], resource["type"]) == ("managed", "aws_s3_bucket")
        for instance in resource["instances"]
        if not instance["attributes"]["force_destroy"]
    ]
    client = target.client("s3")
    counts = {bucket: objects.count(client, bucket, "") for bucket in kept}
    return {bucket: number for bucket, number in counts.items() if number}


def _clean(gone: Stack, approved: bool, delete_data: bool, is_last: bool) -> None:
    """Remove what only these commands know of, or say that it is kept."""
    target = gone.target
    if gone.name == "foundation":
        # The archives that they name went with the bucket.
        packages.delete_all(target)
        return
    client, bucket = target.client("s3"), target.parameter("bucket")
    places = [(bucket, prefix) for prefix in RUNS] if bucket else []
    counts = {
        f"objects in {each}/{prefix}": objects.count(client, each, prefix)
        for each, prefix in places
    }
    counts["model packages"] = len(list(packages.packages(target)))
    kept = ", ".join(f"{number} {what}" for what, number in counts.items() if number)
    if kept and delete_data:
        if not approved:
            stack.ask(f"Delete {kept}?", target.name)
        packages.delete_all(target)
        for each, prefix in places:
            objects.delete(client, each, prefix)
        sys.stderr.write(f"deleted {kept}\n")
    elif kept and is_last:
        sys.stderr.write(
            f"kept: {kept}; `make destroy STACK={gone.name} ENV={target.name} DELETE_DATA=1` "
            "removes them\n"
        )


def _delete_log_groups(gone: Stack) -> None:
    """Remove log groups that were written to after Terraform had deleted them."""
    client, groups = gone.target.client("logs"), logs.groups(gone.target)
    for name in (groups[what].name for what in LOGS[gone.name]):
        try:
            client.delete_log_group(logGroupName=name)
        except client.exceptions.ResourceNotFoundException:
            continue
        sys.stderr.write(f"deleted the log group {name}, which was written to again\n")
