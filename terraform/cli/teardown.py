"""`make destroy`: the stacks, and what neither Terraform nor AWS removes with them.

Without `--delete-data` no data go, whatever `force_destroy` says: a bucket with objects and a
registry with images stay, in Terraform's state too, so that the next `apply` goes on with them.

SageMaker and Lambda write logs after what wrote them is gone, and so make their log groups again;
the Model Registry, and what jobs wrote to the bucket, are nobody's but these commands'.
"""

import json
import os
import shlex
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from terraform.cli import logs, model, objects, packages, settling, stack, summary
from terraform.cli.objects import BUCKET, REPOSITORY, size_text
from terraform.cli.stack import Stack
from trainer.errors import KennelError
from trainer.make_command import make_command
from trainer.names import counted
from trainer.target import Target

RUNS = ("capture/", "checkpoints/", "jobs/", "models/")
"""Prefixes of the bucket below which jobs, deployments and endpoints write."""

LOGS = {"foundation": ("build", "ec2"), "serving": ("endpoint", "function")}
"""Whose log groups each stack owns; those of training jobs may belong to other environments."""

Held = Sequence[Mapping[str, Any]]
"""Resources of a state, as `stack.resources` gives them."""

Data = Mapping[tuple[str, str], str]
"""What buckets and registries hold, in words, by type and name."""

_INTERFACES_SECONDS = 1200
_POLL_SECONDS = 10.0
_TELL_SECONDS = 60.0
_ECR_BATCH = 100


@dataclass
class Left:
    """What there is after a `destroy`.

    Attributes:
        gone: The stacks of which only data are left.
        has_data: Whether there are data that it would remove if it were told to.
    """

    gone: set[str] = field(default_factory=set)
    has_data: bool = False


def destroy(
    stacks: Sequence[Stack], extra: Sequence[str], approved: bool, delete_data: bool
) -> tuple[int, Left]:
    """Destroy stacks and what is left of them; give Terraform's exit code and what there is then.

    Args:
        stacks: In the order in which they go.
        extra: More arguments of `terraform plan`.
        approved: Do not ask.
        delete_data: Remove objects, images and models, too.

    Raises:
        KennelError: It would take data without `delete_data`, or somebody says no.
    """
    for each in stacks:
        stack.prepare(each)
    gone: list[Stack] = []
    kept: dict[tuple[str, str], str] = {}
    for each in stacks:
        held = stack.resources(each)
        data = data_in(each.target, held)
        code = _destroy(each, held, data, extra, approved, delete_data)
        if code != 0:
            return code, Left()
        kept |= {} if delete_data else data
        if not _without(stack.resources(each), data):
            gone.append(each)
            wait_for_interfaces(each.target, security_groups(held))
    also = _clean(stacks, gone, kept, approved, delete_data)
    # At the end, since late lines come for a while.
    for each in gone:
        _delete_log_groups(each)
    if staying := [*kept.values(), *also]:
        sys.stderr.write(f"kept: {', '.join(staying)}; DELETE_DATA=1 removes that, too\n")
    return 0, Left({each.name for each in gone}, bool(staying))


def _destroy(
    each: Stack, held: Held, data: Data, extra: Sequence[str], approved: bool, delete_data: bool
) -> int:
    """Plan, ask, and destroy a stack but for data that stay; give Terraform's exit code."""
    target, label = each.target, f"{each.name} ({each.target.name})"
    if not held:
        sys.stderr.write(f"{label} holds nothing\n")
        return 0
    # Who names targets deletes no more than these.
    is_whole = not any(argument.lstrip("-").startswith("target") for argument in extra)
    taken = data if delete_data and is_whole else {}
    kept = {} if delete_data else data
    others = _without(held, kept)
    if not others:
        sys.stderr.write(f"{label} holds nothing but its data\n")
        return 0
    stack.require_answer(approved)
    targets = [f"-target={_address(resource)}" for resource in others if kept and is_whole]
    if targets:
        sys.stderr.write(f"{label}: all but its data goes\n")
    code = stack.plan_destroy(each, [*extra, *targets], approved)
    if code != stack.CHANGES:
        return code
    doomed = summary.deleted(stack.planned(each))
    if kept:
        _require_kept(doomed, kept)
    _require_idle(target, doomed)
    what = f" with {', '.join(taken.values())}" if taken else ""
    if approved:
        sys.stderr.write(f"destroying {label}{what}\n")
    else:
        word = next((name for _, name in taken), target.name)
        stack.ask(f"Destroy {label} in account {target.account}{what}?", word, label)
    settling.wait(target, [(change["type"], summary.name(change)) for change in doomed])
    if taken:
        _delete(target, taken)
    elif not delete_data and data_in(target, others):
        raise KennelError(f"{label} was written to meanwhile, nothing was changed: try again")
    for change in doomed:
        name = summary.name(change)
        if change["type"] == BUCKET and objects.region(target, name):
            objects.delete(target.client("s3"), name, only_markers=True)
    if each.name == "serving" and not delete_data:
        _record_served(each)
    return stack.apply_destroy(each, [*extra, *targets])


def data_in(target: Target, held: Held) -> dict[tuple[str, str], str]:
    """The buckets and image registries of a state that are not empty."""
    names = {
        (resource["type"], name)
        for resource in _managed(held)
        if resource["type"] in objects.HOLDERS
        for name in _names(resource)
    }
    found = {}
    for kind, name in sorted(names):
        if contents := objects.held(target, kind, name):
            found[kind, name] = contents
    return found


def _managed(held: Held) -> list[Mapping[str, Any]]:
    return [resource for resource in held if resource["mode"] == "managed"]


def _names(resource: Mapping[str, Any]) -> set[str]:
    """Names of the buckets or registries that a resource is, or is a setting of."""
    keys = ("bucket",) if resource["type"].startswith(BUCKET) else ("name", "repository")
    return {
        str(instance["attributes"][key])
        for instance in resource["instances"]
        for key in keys
        if instance["attributes"].get(key)
    }


def _without(held: Held, data: Data) -> list[Mapping[str, Any]]:
    """What Terraform manages in a state, but for buckets and registries and their settings."""
    buckets, repositories = (
        {name for kind, name in data if kind == wanted} for wanted in (BUCKET, REPOSITORY)
    )

    def stays(resource: Mapping[str, Any]) -> bool:
        if resource["type"].startswith(BUCKET):
            return bool(_names(resource) & buckets)
        return resource["type"].startswith("aws_ecr_") and bool(_names(resource) & repositories)

    return [resource for resource in _managed(held) if not stays(resource)]


def _address(resource: Mapping[str, Any]) -> str:
    """A resource's address, all of its instances together."""
    parts = (resource.get("module"), resource["type"], resource["name"])
    return ".".join(part for part in parts if part)


def _require_kept(doomed: Iterable[Mapping[str, Any]], kept: Data) -> None:
    """Refuse a plan that deletes what is to stay, such as one with targets of the user's.

    Raises:
        KennelError: It does.
    """
    for change in doomed:
        if held := kept.get((change["type"], summary.name(change))):
            raise KennelError(
                f"{change['address']} would go with {held}, nothing was changed: "
                "pass --delete-data (`make`: DELETE_DATA=1) if the data are to go, too"
            )


def _require_idle(target: Target, doomed: Iterable[Mapping[str, Any]]) -> None:
    """Refuse to delete a security group that machines use: EC2 would, half way.

    Raises:
        KennelError: They do.
    """
    groups = [
        change["change"]["before"]["id"]
        for change in doomed
        if change["type"] == "aws_security_group"
    ]
    if not groups:
        return
    states = ["pending", "running", "stopping", "stopped"]
    pages = (
        target.client("ec2")
        .get_paginator("describe_instances")
        .paginate(
            Filters=[
                {"Name": "instance.group-id", "Values": groups},
                {"Name": "instance-state-name", "Values": states},
            ]
        )
    )
    used = [
        instance["InstanceId"]
        for page in pages
        for reservation in page["Reservations"]
        for instance in reservation["Instances"]
    ]
    if used:
        raise KennelError(
            f"{', '.join(groups)} is in use by {', '.join(used)}, nothing was changed: wait for "
            f"the EC2 run, or end it (`aws ec2 terminate-instances --region {target.region} "
            f"--instance-ids {' '.join(used)}`)"
        )


def _delete(target: Target, data: Data) -> None:
    """Empty buckets and registries."""
    for kind, name in data:
        if kind == BUCKET:
            objects.delete(target.client("s3"), name)
        else:
            _delete_images(target, name)


def _delete_images(target: Target, repository: str) -> None:
    """Remove all images; those that a list of images names go after the list only.

    Raises:
        KennelError: ECR keeps one.
    """
    while digests := objects.images(target, repository):
        answer = target.client("ecr").batch_delete_image(
            repositoryName=repository,
            imageIds=[{"imageDigest": digest} for digest in digests[:_ECR_BATCH]],
        )
        if not answer["imageIds"]:
            failure = answer["failures"][0]
            raise KennelError(f"an image of {repository} stays: {failure['failureReason']}")


def _record_served(serving: Stack) -> None:
    """Say in the bucket which model served last, for the next `deploy`."""
    target, served = serving.target, stack.outputs(serving).get("model")
    bucket = target.parameter("bucket")
    if served and bucket:
        content = {**served, "until": datetime.now(UTC).isoformat(timespec="seconds")}
        target.client("s3").put_object(
            Bucket=bucket,
            Key=model.SERVED_KEY,
            Body=json.dumps(content).encode(),
            ContentType="application/json",
        )


def _clean(
    stacks: Sequence[Stack], gone: Sequence[Stack], kept: Data, approved: bool, delete_data: bool
) -> list[str]:
    """Remove what only these commands know of; give what of it is kept, in words."""
    if not gone or gone[-1] is not stacks[-1]:
        return []
    target = gone[-1].target
    models = len(list(packages.packages(target)))
    packed = [counted(models, "model package")] if models else []
    if gone[-1].name == "foundation":
        if not any(kind == REPOSITORY for kind, _ in kept):
            # The image that it names went with the registry.
            target.forget_parameter("image_uri")
        if delete_data:
            # The archives that they name went with the bucket.
            packages.delete_all(target)
        return [] if delete_data else packed
    client, bucket = target.client("s3"), target.parameter("bucket") or ""
    counts = {prefix: objects.count(client, bucket, prefix) for prefix in RUNS if bucket}
    found = [
        f"{number} objects in {bucket}/{prefix} ({size_text(size)})"
        for prefix, (number, size) in counts.items()
        if number
    ] + packed
    if not found or not delete_data:
        return found
    if not approved:
        stack.ask(f"Delete {', '.join(found)}?", target.name, "the data")
    packages.delete_all(target)
    for prefix in counts:
        objects.delete(client, bucket, prefix)
    sys.stderr.write(f"deleted {', '.join(found)}\n")
    return []


def tell_next(stacks: Sequence[Stack], left: Left) -> None:
    """Say what comes next: in the last line, and each command once."""
    target = stacks[0].target
    if "foundation" in left.gone:
        sys.stderr.write(f"the bucket of Terraform's state, {target.state_bucket}, stays\n")
    elif "serving" in left.gone:
        sys.stderr.write("nothing serves now\n")
        again = make_command("deploy", target.name)
        sys.stderr.write(f"next: `{again}` serves again what served last\n")
        return
    if left.has_data:
        only = stacks[0].name if len(stacks) == 1 else ""
        again = make_command("destroy", target.name, STACK=only, DELETE_DATA="1")
        sys.stderr.write(f"next: `{again}` removes what was kept, too\n")
    elif "foundation" in left.gone:
        python = shlex.quote(os.path.relpath(sys.executable))
        sys.stderr.write(
            f"next: `{python} -m terraform.cli bootstrap --delete --env {target.name}` removes it\n"
        )


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
    started = time.monotonic()
    told = -_TELL_SECONDS
    while found := client.describe_network_interfaces(Filters=filters)["NetworkInterfaces"]:
        names = ", ".join(interface["NetworkInterfaceId"] for interface in found)
        passed = time.monotonic() - started
        if passed > seconds:
            sys.stderr.write(f"note: {names} still use {', '.join(sorted(groups))}\n")
            return
        if passed - told >= _TELL_SECONDS:
            since = f" ({passed:.0f} s)" if told >= 0 else ""
            sys.stderr.write(f"waiting for SageMaker to remove {names}{since}\n")
            told = passed
        time.sleep(min(_POLL_SECONDS, seconds))


def _delete_log_groups(gone: Stack) -> None:
    """Remove log groups that were written to after Terraform had deleted them."""
    client, groups = gone.target.client("logs"), logs.groups(gone.target)
    for name in (groups[what].name for what in LOGS[gone.name]):
        try:
            client.delete_log_group(logGroupName=name)
        except client.exceptions.ResourceNotFoundException:
            continue
        sys.stderr.write(f"deleted the log group {name}, which was written to again\n")
