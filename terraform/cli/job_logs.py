"""The log groups that SageMaker shares among all jobs and notebooks of an account and region.

The foundation makes them where they are not there, and destroying it leaves them, for the jobs of
other environments write to them.
"""

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from trainer.target import Target

TRAINING = "/aws/sagemaker/TrainingJobs"
GROUPS = ("/aws/sagemaker/NotebookInstances", TRAINING)


def found(target: Target) -> dict[str, Mapping[str, Any]]:
    """Those that are there, by name, as CloudWatch Logs describes them."""
    pages = target.client("logs").get_paginator("describe_log_groups")
    return {
        group["logGroupName"]: group
        for page in pages.paginate(logGroupNamePrefix="/aws/sagemaker/")
        for group in page["logGroups"]
        if group["logGroupName"] in GROUPS
    }


def let_go(target: Target, delete_data: bool) -> bool:
    """After a foundation is gone: remove what it had made and nobody else uses, if asked to.

    Args:
        target: The environment.
        delete_data: Remove logs; else they stay, as all data do.

    Returns:
        Whether some stay that it would remove with `delete_data`.
    """
    client = target.client("logs")
    own = [name for name, group in found(target).items() if _is_own(target, client, group)]
    used = [name for name in own if _is_used_by_others(target, client, name)] if delete_data else []
    for name in own if delete_data else []:
        if name not in used:
            client.delete_log_group(logGroupName=name)
            sys.stderr.write(f"deleted the log group {name}\n")
    if used:
        sys.stderr.write(f"kept: {', '.join(used)}, to which others of the account write\n")
    elif own and not delete_data:
        sys.stderr.write(
            f"kept: {', '.join(own)}, which DELETE_DATA=1 removes if nobody else of the account "
            "writes to them\n"
        )
        return True
    return False


def _is_own(target: Target, client: Any, group: Mapping[str, Any]) -> bool:
    """Whether the environment's foundation has made it, by the tags."""
    arn = group["arn"].removesuffix(":*")
    tags = client.list_tags_for_resource(resourceArn=arn)["tags"]
    own = {"project": target.project, "environment": target.name}
    return bool(own.items() <= tags.items())


def _is_used_by_others(target: Target, client: Any, name: str) -> bool:
    """Whether somebody else has written to it, or another foundation is there whose jobs will."""
    own = tuple(f"{target.prefix}{end}" for end in "-/")
    streams = client.get_paginator("describe_log_streams").paginate(logGroupName=name)
    return any(
        not stream["logStreamName"].startswith(own)
        for page in streams
        for stream in page["logStreams"]
    ) or any(_other_foundations(target))


def _other_foundations(target: Target) -> Iterator[str]:
    """What other environments have left in Parameter Store for their jobs."""
    key = "training_role_arn"
    pages = target.client("ssm").get_paginator("describe_parameters")
    wanted = {"Key": "Name", "Option": "Contains", "Values": [f"/{key}"]}
    for page in pages.paginate(ParameterFilters=[wanted]):
        for parameter in page["Parameters"]:
            if parameter["Name"] != target.parameter_name(key):
                yield parameter["Name"]
