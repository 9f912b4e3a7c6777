"""`make deploy` and `make rollback`: a model goes into service, is checked, and can go back."""

import argparse
import functools
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from terraform.cli import compare, model, packages, settling, smoke, stack, verify
from terraform.cli.stack import Stack
from terraform.cli.verify import Report
from trainer.errors import KennelError, UsageError
from trainer.job_history import history
from trainer.make_command import make_command
from trainer.patience import read_object
from trainer.target import LATEST_KEY, Target, load

if TYPE_CHECKING:
    from inference.archive import Model

LATEST = "latest"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `deploy` takes beside the flags of all commands."""
    parser.add_argument(
        "--model",
        default=LATEST,
        help="model.tar.gz, its s3:// address, or `latest`: what was trained last (default)",
    )
    parser.add_argument(
        "--new-labels", action="store_true", help="though it has other labels than what serves"
    )
    parser.add_argument("--auto-approve", action="store_true", help="do not ask")


def add_rollback_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `rollback` takes beside the flags of all commands."""
    parser.add_argument("--auto-approve", action="store_true", help="do not ask")


def run(options: argparse.Namespace, extra: list[str]) -> int:
    """Deploy a model and print the report of its check."""
    serving = _prepared(options)
    report = deploy(serving, options.model, extra, options.auto_approve, options.new_labels)
    verify.show(report, serving.target, options.json)
    if not report.passed:
        back = verify.way_back(report, stack.outputs(serving), serving.target)
        raise KennelError(f"the new model is in service, but {report.fault}; {back}")
    _tell_next(serving, report.digest)
    return 0


def run_rollback(options: argparse.Namespace, extra: list[str]) -> int:
    """Go back to a model and print the report of its check."""
    serving = _prepared(options)
    report = roll_back(serving, extra, options.auto_approve)
    verify.show(report, serving.target, options.json)
    if not report.passed:
        raise KennelError(f"the rollback is applied, but {report.fault}")
    _tell_next(serving, report.digest)
    return 0


def deploy(
    serving: Stack, requested: str, extra: Sequence[str], approved: bool, new_labels: bool
) -> Report:
    """Register a model, put it in service, check it, and approve or reject its package.

    Args:
        serving: The stack.
        requested: A path, an address in S3, or `latest`.
        extra: More arguments of `terraform plan`.
        approved: Do not ask.
        new_labels: Whether its labels may differ from those of the model that serves.

    Raises:
        UsageError: It has other labels than the model that serves.
        KennelError: The archive answers nothing, Terraform fails, or SageMaker rolled back.
    """
    target = serving.target
    source, origin = latest(target) if requested == LATEST else (requested, f"MODEL={requested}")
    archive = model.locate(source, target)
    opened = model.opened(model.fetch(archive, target), source)
    packages.image(target)
    picture = smoke.make(opened)
    sys.stderr.write(f"model {opened.digest[:12]}, {len(opened.labels)} classes: {origin}\n")
    _compare(opened, serving, new_labels)

    @functools.cache
    def admit() -> packages.Package:
        model.publish(archive, target)
        smoke.store(picture, archive, target)
        return packages.register(opened, archive, source, target)

    if stack.release(serving, archive, admit, extra, approved) != 0:
        if serving.signals:  # SageMaker goes on, and nothing is wrong with the model
            raise KennelError(
                f"the release of the model {archive.digest[:12]} was not followed to its end: the "
                "command above goes on with it"
            )
        fault = _release_fault(serving)
        if fault is None:
            raise KennelError(
                f"the model {archive.digest[:12]} was not released: Terraform stopped before; see "
                "above"
            )
        packages.judge(admit(), target, fault)
        raise KennelError(f"the model {archive.digest[:12]} is not in service: {fault}")
    package = admit()
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
    endpoint = settling.live(target)
    if "model" not in outputs or not endpoint:
        raise UsageError(
            f"no model has been in service: `{make_command('deploy', target.name)}` deploys "
            "what was trained last"
        )
    is_applied = endpoint["EndpointConfigName"] == outputs["endpoint_configuration_name"]
    choice: stack.Choice = model.former
    if not is_applied:
        served = verify.served(target, endpoint["EndpointConfigName"])
        choice = partial(model.restored, served=served)
    goal = choice(outputs)["model"]["digest"]
    failed = "" if is_applied else ", which serves: the last release failed"
    sys.stderr.write(f"back to the model {goal[:12]}{failed}\n")
    if stack.roll_back(serving, choice, extra, approved) != 0:
        raise KennelError("the rollback stopped; see above")
    left = packages.find(target, outputs["model"]["digest"]) if is_applied else None
    if left:
        packages.judge(left, target, "make rollback went back from it")
    report = verify.check(target, stack.outputs(serving))
    now = packages.find(target, goal)
    if now and report.passed:
        packages.judge(now, target, None)
    return report


def find_latest(target: Target) -> str:
    """Address of the archive of `latest`."""
    return latest(target)[0]


def latest(target: Target) -> tuple[str, str]:
    """Address of the archive that was trained last, else of the one approved last; and why it.

    Raises:
        UsageError: There is neither.
    """
    bucket = target.required_parameter("bucket")
    told = _object(target, bucket, LATEST_KEY)
    if told is None:
        approved = packages.newest_approved(target)
        if approved is None:
            if job := _unfollowed(target):
                raise UsageError(
                    f"MODEL=latest: the job {job} has trained a model and was not followed to its "
                    f"end: `{make_command('attach', target.name, JOB=job)}` takes it up"
                )
            raise UsageError(
                f"MODEL=latest: no job has trained a model for ENV={target.name} yet; "
                f"`{make_command('train', target.name, WHERE='sagemaker')}` trains one, or name an "
                "archive, such as one that `make package` has made, with "
                "MODEL=<model.tar.gz or s3://...>"
            )
        return approved, "approved last (no training is known)"
    try:
        said = json.loads(told)
        when, job = said.get("finished"), said.get("job")
        origin = "trained last" + (f", {when}" if when else "") + (f", by {job}" if job else "")
        return str(said["archive_uri"]), origin
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise KennelError(
            f"s3://{bucket}/{LATEST_KEY} does not say which archive was trained last; name one "
            "with MODEL=s3://..."
        ) from error


def _unfollowed(target: Target) -> str:
    """The newest job that has left a model; empty if none has, or who asks may not know."""
    with suppress(ClientError):
        for row in history(target, 20):
            if row.result and row.kind in ("training", "ec2"):
                return row.job
    return ""


def _object(target: Target, bucket: str, key: str) -> bytes | None:
    """An object's content; None if it is not there."""
    try:
        content = read_object(target.client("s3"), bucket, key).content
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchKey":
            raise
        return None
    return content


def _compare(opened: "Model", serving: Stack, new_labels: bool) -> None:
    """Say what a model takes the place of, and how they differ.

    Raises:
        UsageError: Its labels differ from those of the model that serves, and may not.
    """
    target, present = serving.target, stack.outputs(serving).get("model")
    if present:
        found = compare.with_other(opened, present, "which serves", target)
        if found.other_labels and not new_labels:
            raise UsageError(
                f"{found.other_labels}; callers would get other answers: name another MODEL, or "
                "pass --new-labels (`make`: NEW_LABELS=1) if that is meant"
            )
        if present["digest"] != opened.digest:
            sys.stderr.write(f"it takes the place of the model {present['digest'][:12]}\n")
    elif before := _served_last(target):
        told = f"which served until {before['until']}"
        found = compare.with_other(opened, before, told, target)
        if before["digest"] != opened.digest:
            sys.stderr.write(
                f"another one than {before['digest'][:12]}, {told}: "
                f"`{make_command('deploy', target.name, MODEL=before['archive_uri'])}` "
                "deploys that\n"
            )
    else:
        return
    for remark in filter(None, (found.other_labels, *found.remarks)):
        sys.stderr.write(f"warning: {remark}\n")


def _served_last(target: Target) -> dict[str, str] | None:
    """The model that served when the stack was destroyed; None if none is known."""
    told = _object(target, target.required_parameter("bucket"), model.SERVED_KEY)
    with suppress(ValueError, TypeError, KeyError):
        said = json.loads(told or b"null")
        return {name: str(said[name]) for name in ("archive_uri", "digest", "until")}
    return None


def _tell_next(serving: Stack, digest: str) -> None:
    target = serving.target
    photo = _photo(serving.out, packages.data_fingerprint(target, digest))
    ask = f"; `{make_command('invoke', target.name, FILE=str(photo))}` asks it" if photo else ""
    sys.stderr.write(f"next: `{make_command('status', target.name)}` shows it at work{ask}\n")


def _photo(out: Path, fingerprint: str | None) -> Path | None:
    """A test photo of the data set that a model was trained on, if it was prepared here."""
    for report in out.glob("data/*/dataset_report.json"):
        with suppress(OSError, ValueError, KeyError):
            if json.loads(report.read_text())["fingerprint"] == fingerprint:
                return next(filter(Path.is_file, report.parent.glob("test/*/*")), None)
    return None


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
    endpoint = settling.live(serving.target)
    planned = stack.outputs(serving).get("endpoint_configuration_name")
    if not endpoint or planned is None or settling.runs(endpoint, planned):
        return None
    reason = " ".join(str(endpoint.get("FailureReason", "")).split())
    said = f" ({reason})" if reason else ""
    if endpoint["EndpointStatus"] != "InService":
        return f"the endpoint is {endpoint['EndpointStatus']}{said}"
    if endpoint["EndpointConfigName"] != planned:
        return (
            f"SageMaker rolled the release back{said} and serves as before; "
            f"`{make_command('rollback', serving.target.name)}` restores the stack to what serves"
        )
    return None
