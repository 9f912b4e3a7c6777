"""`make deploy` and `make rollback`: a model goes into service, is checked, and can go back."""

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial

from botocore.exceptions import ClientError

from terraform.cli import model, packages, smoke, stack, verify
from terraform.cli.stack import Stack
from terraform.cli.verify import Report
from trainer.errors import KennelError, UsageError
from trainer.target import LATEST_KEY, Target, load

LATEST = "latest"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `deploy` takes beside the flags of all commands."""
    parser.add_argument(
        "--model",
        default=LATEST,
        help="model.tar.gz, its s3:// address, or `latest`: what was trained last (default)",
    )
    parser.add_argument("--auto-approve", action="store_true", help="do not ask")


def add_rollback_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `rollback` takes beside the flags of all commands."""
    parser.add_argument("--auto-approve", action="store_true", help="do not ask")


def run(options: argparse.Namespace, extra: list[str]) -> int:
    """Deploy a model and print the report of its check."""
    serving = _prepared(options)
    report = deploy(serving, options.model, extra, options.auto_approve)
    verify.show(report, serving.target, options.json)
    if not report.passed:
        raise KennelError(
            f"the new model is in service, but {report.fault}; "
            f"`make rollback ENV={serving.target.name}` goes back"
        )
    return 0


def run_rollback(options: argparse.Namespace, extra: list[str]) -> int:
    """Go back to a model and print the report of its check."""
    serving = _prepared(options)
    report = roll_back(serving, extra, options.auto_approve)
    verify.show(report, serving.target, options.json)
    if not report.passed:
        raise KennelError(f"the rollback is applied, but {report.fault}")
    return 0


def deploy(serving: Stack, requested: str, extra: Sequence[str], approved: bool) -> Report:
    """Register a model, put it in service, check it, and approve or reject its package.

    Args:
        serving: The stack.
        requested: A path, an address in S3, or `latest`.
        extra: More arguments of `terraform plan`.
        approved: Do not ask.

    Raises:
        KennelError: The archive answers nothing, Terraform fails, or SageMaker rolled back.
    """
    target = serving.target
    source = find_latest(target) if requested == LATEST else requested
    archive = model.locate(source, target)
    opened = model.opened(model.fetch(archive, target), source)
    picture = smoke.make(opened)
    model.publish(archive, target)
    smoke.store(picture, archive, target)
    package = packages.register(opened, archive, source, target)
    if stack.apply(serving, archive.uri, extra, approved) != 0:
        fault = _release_fault(serving)
        if fault is None:
            raise KennelError(
                f"the model {archive.digest[:12]} was not released: Terraform stopped before; see "
                "above"
            )
        packages.judge(package, target, fault)
        raise KennelError(f"the model {archive.digest[:12]} is not in service: {fault}")
    report = verify.check(target, stack.outputs(serving))
    packages.judge(package, target, report.fault or None)
    return report


def roll_back(serving: Stack, extra: Sequence[str], approved: bool) -> Report:
    """Go back to the model before; after a release that failed, to the state that serves.

    Args:
        serving: The stack.
        extra: More arguments of `terraform plan`.
        approved: Do not ask.

    Raises:
        UsageError: There is nothing to go back to.
        KennelError: Terraform fails.
    """
    target, outputs = serving.target, stack.outputs(serving)
    endpoint = verify.live(target)
    if "model" not in outputs or not endpoint:
        raise UsageError("no model has been in service: `make deploy MODEL=...` deploys one")
    is_applied = endpoint["EndpointConfigName"] == outputs["endpoint_configuration_name"]
    choice: stack.Choice = model.former
    if not is_applied:
        served = verify.served(target, endpoint["EndpointConfigName"])
        choice = partial(model.restored, served=served)
    goal = choice(outputs)["model"]["digest"][:12]
    failed = "" if is_applied else ", which serves: the last release failed"
    sys.stderr.write(f"back to the model {goal}{failed}\n")
    if stack.roll_back(serving, choice, extra, approved) != 0:
        raise KennelError("the rollback stopped; see above")
    left = packages.find(target, outputs["model"]["digest"]) if is_applied else None
    if left:
        packages.judge(left, target, "make rollback went back from it")
    return verify.check(target, stack.outputs(serving))


def find_latest(target: Target) -> str:
    """Address of the archive that was trained last, else of the one approved last.

    Raises:
        UsageError: There is neither.
    """
    bucket = target.required_parameter("bucket")
    try:
        told = target.client("s3").get_object(Bucket=bucket, Key=LATEST_KEY)["Body"].read()
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchKey":
            raise
        approved = packages.newest_approved(target)
        if approved is None:
            raise UsageError(
                "MODEL=latest: nothing was trained yet; `make train` trains, or name an archive "
                "with MODEL=<model.tar.gz or s3://...>"
            ) from None
        return approved
    try:
        return str(json.loads(told)["archive_uri"])
    except (ValueError, KeyError, TypeError) as error:
        raise KennelError(
            f"s3://{bucket}/{LATEST_KEY} does not say which archive was trained last; name one "
            "with MODEL=s3://..."
        ) from error


def _prepared(options: argparse.Namespace) -> Stack:
    told = sys.stderr if options.json else None
    serving = Stack("serving", load(options.env), options.out, told)
    stack.prepare(serving)
    return serving


def _release_fault(serving: Stack) -> str | None:
    """Why SageMaker did not release what was applied; None if the apply failed for another reason.

    Raises:
        KennelError: AWS refuses a look.
    """
    endpoint = verify.live(serving.target)
    planned = stack.outputs(serving).get("endpoint_configuration_name")
    if not endpoint or planned is None:
        return None
    reason = " ".join(str(endpoint.get("FailureReason", "")).split())
    said = f" ({reason})" if reason else ""
    if endpoint["EndpointStatus"] != "InService":
        return f"the endpoint is {endpoint['EndpointStatus']}{said}"
    if endpoint["EndpointConfigName"] != planned:
        return (
            f"SageMaker rolled the release back{said} and serves as before; "
            f"`make rollback ENV={serving.target.name}` restores the stack to what serves"
        )
    return None
