"""What a killed run of Terraform has made and its state does not know.

Terraform saves its state every 20 seconds and at its end. What a run made between the last time and
a SIGKILL exists, but not for the next run, which fails since it already exists.
"""

import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from trainer.target import Target

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_FRAME = re.compile(r"^[╷│╵] ?", re.MULTILINE)
_INTERRUPTED = "execution halted"
_ADDRESS = re.compile(r"^ +with (.+),$", re.MULTILINE)
_EXISTS = re.compile(
    r"already[\s_]*exist|AlreadyOwnedByYou|Duplicate|ResourceInUse|UrlConfig exists", re.IGNORECASE
)
_EARLY = re.compile(
    "Could not assume role|role defined for the function cannot be assumed"
    "|not authorized to perform: sts:AssumeRole"
)

# By what `terraform import` knows them, where that can be told before they are made. What can be
# made twice, or is put again and again, needs no entry.
_IDS = {
    "aws_budgets_budget": "{account}:{name}",
    "aws_cloudwatch_log_group": "{name}",
    "aws_codebuild_project": "{name}",
    "aws_ecr_repository": "{name}",
    "aws_iam_instance_profile": "{name}",
    "aws_iam_policy": "arn:{partition}:iam::{account}:policy/{name}",
    "aws_iam_role": "{name}",
    "aws_lambda_alias": "{function_name}/{name}",
    "aws_lambda_function": "{function_name}",
    "aws_lambda_function_url": "{function_name}/{qualifier}",
    "aws_lambda_permission": "{function_name}:{qualifier}/{statement_id}",
    "aws_s3_bucket": "{bucket}",
    "aws_sagemaker_endpoint": "{name}",
    "aws_sagemaker_endpoint_configuration": "{name}",
    "aws_sagemaker_model": "{name}",
    "aws_sagemaker_notebook_instance": "{name}",
    "aws_sagemaker_notebook_instance_lifecycle_configuration": "{name}",
    "aws_ssm_parameter": "{name}",
}


def conflicts(said: str) -> list[str]:
    """The addresses of what exists already, by what `apply` has said; none if it was stopped."""
    if was_interrupted(said):
        return []
    errors = _errors(said)
    existing = (error for error in errors if _EXISTS.search(error))
    return [found[1] for error in existing if (found := _ADDRESS.search(error))]


def without_colour(said: str) -> str:
    """What Terraform has said, as plain text."""
    return _COLOUR.sub("", said)


def _errors(said: str) -> list[str]:
    return _FRAME.sub("", without_colour(said)).split("Error: ")[1:]


def was_interrupted(said: str) -> bool:
    """Whether somebody wanted `apply` to stop, by what it has said."""
    return _INTERRUPTED in said


def is_early(said: str) -> bool:
    """Whether all that `apply` failed in, if anything, names a role that is not known yet."""
    if was_interrupted(said):
        return False
    errors = _errors(said)
    return bool(errors) and all(_EARLY.search(" ".join(error.split())) for error in errors)


def imports(said: str, changes: Iterable[Mapping[str, Any]], target: Target) -> dict[str, str]:
    """What a plan was to make but is there: by address, as what `terraform import` knows it.

    Args:
        said: What `apply` of the plan has said, in vain.
        changes: The plan's `resource_changes`.
        target: The environment.
    """
    existing = set(conflicts(said))
    return {
        change["address"]: identity
        for change in changes
        if change["address"] in existing
        and change["change"]["actions"] == ["create"]
        and (identity := _import_id(change["type"], change["change"]["after"], target))
    }


def _import_id(kind: str, planned: Mapping[str, Any], target: Target) -> str | None:
    """None if the plan does not tell."""
    find = {
        "aws_launch_template": _launch_template,
        "aws_security_group": _security_group,
        "aws_vpc_security_group_egress_rule": _security_group_rule,
        "aws_vpc_security_group_ingress_rule": _security_group_rule,
    }
    with suppress(KeyError):
        if kind in find:
            return find[kind](planned, target)
        places = {"account": target.account, "partition": target.partition}
        return _IDS[kind].format(**places, **planned)
    return None


def _launch_template(planned: Mapping[str, Any], target: Target) -> str:
    names = [planned["name"]]
    found = target.client("ec2").describe_launch_templates(LaunchTemplateNames=names)
    return str(found["LaunchTemplates"][0]["LaunchTemplateId"])


def _security_group(planned: Mapping[str, Any], target: Target) -> str | None:
    wanted = {"group-name": planned["name"], "vpc-id": planned["vpc_id"]}
    filters = [{"Name": name, "Values": [value]} for name, value in wanted.items()]
    found = target.client("ec2").describe_security_groups(Filters=filters)["SecurityGroups"]
    return str(found[0]["GroupId"]) if found else None


def _security_group_rule(planned: Mapping[str, Any], target: Target) -> str | None:
    group = {"Name": "group-id", "Values": [planned["security_group_id"]]}
    found = target.client("ec2").describe_security_group_rules(Filters=[group])
    wanted = planned["from_port"], planned["to_port"], planned["cidr_ipv4"]
    for rule in found["SecurityGroupRules"]:
        if (rule["FromPort"], rule["ToPort"], rule.get("CidrIpv4")) == wanted:
            return str(rule["SecurityGroupRuleId"])
    return None


@contextmanager
def importing(source: Path, imports: Mapping[str, str]) -> Iterator[Path]:
    """A root module's folder, or a copy of it that imports something: the source stays as it is.

    Args:
        source: The root module's folder; its modules are in `../../modules`.
        imports: By address, as what `terraform import` knows it.
    """
    if not imports:
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="kennel-adopt-") as name:
        copy = Path(name) / "stacks" / source.name
        copy.mkdir(parents=True)
        for path in source.iterdir():
            if path.is_file():
                shutil.copy(path, copy)
        (Path(name) / "modules").symlink_to(source.parents[1] / "modules")
        blocks = [
            f"import {{\n  to = {address}\n  id = {json.dumps(identity)}\n}}\n"
            for address, identity in imports.items()
        ]
        (copy / "imports.tf").write_text("\n".join(blocks))
        yield copy


def foreign(changes: Iterable[Mapping[str, Any]]) -> list[str]:
    """The addresses of what a plan would import though it lacks a tag that the stack would give.

    Args:
        changes: The plan's `resource_changes`.
    """

    def tags(values: Mapping[str, Any]) -> Mapping[str, str]:
        return values.get("tags_all") or {}

    imported = (each for each in changes if each["change"].get("importing"))
    return [
        each["address"]
        for each in imported
        if not tags(each["change"]["after"]).items() <= tags(each["change"]["before"]).items()
    ]
