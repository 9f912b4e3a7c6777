"""`make preflight`: whether a deployment can succeed, before there is one.

All checks but the first run at the same time, and none stops another: what may not be asked for is
a row, too.
"""

import argparse
import json
import re
import sys
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial

from botocore.exceptions import BotoCoreError, ClientError

from terraform.cli import deploy, settings
from terraform.cli.checks import CHECKS, Check, Plan, Row
from terraform.cli.page import Page
from trainer.errors import KennelError, UsageError
from trainer.make_command import make_command
from trainer.target import Target, explained, load

_DENIED = frozenset(
    {"403", "AccessDenied", "AccessDeniedException", "AuthorizationError", "UnauthorizedOperation"}
)
_COLORS = {"pass": "green", "warn": "yellow", "fail": "red"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `preflight` takes beside the flags of all commands."""
    parser.add_argument("--model", help="archive to look at: a path, an s3:// address or `latest`")
    parser.add_argument("--instance-type", help="SageMaker's type that will train")
    parser.add_argument("--instances", type=_count, default=1, help="how many of them")
    parser.add_argument("--spot", action="store_true", help="they are spot instances")


def run(options: argparse.Namespace, _: list[str]) -> int:
    """Look at everything, print the table, and fail if anything fails."""
    target = load(options.env)
    plan = Plan(
        target=target,
        settings=settings.read(target),
        today=datetime.now(UTC).date(),
        model=options.model,
        instance_type=options.instance_type,
        instances=options.instances,
        is_spot=options.spot,
    )
    rows = look(plan, debug=options.debug)
    _show(rows, plan, options.json)
    failed = [row.name for row in rows if row.state == "fail"]
    if failed:
        raise KennelError(f"not ready: {', '.join(failed)}; the table says what to do")
    if not options.json:
        sys.stderr.write(f"next: {_next(target, options.model)}\n")
    return 0


def look(plan: Plan, checks: Sequence[Check] = CHECKS, debug: bool = False) -> list[Row]:
    """Run checks: the first one alone, for none can be asked without it, the others together.

    Args:
        plan: What is to be done.
        checks: What to look at.
        debug: Print the traces of what could not be looked at.

    Returns:
        Their rows, in the order of the checks.
    """
    first, *others = checks
    rows = _looked(plan, debug, first)
    if any(row.state == "fail" for row in rows):
        return rows
    with ThreadPoolExecutor() as pool:
        return rows + [
            row for found in pool.map(partial(_looked, plan, debug), others) for row in found
        ]


def _looked(plan: Plan, debug: bool, check: Check) -> list[Row]:
    """The rows of a check; the one that says why it failed, if it did."""
    try:
        with explained():
            return list(check.look(plan))
    except KennelError as error:
        if debug:
            traceback.print_exc()
        action = _denied_action(error.__cause__)
        found = f"these credentials may not call {action}" if action else str(error)
        remedy = f"allow {action}, or look by hand" if action else ""
        return [Row(check.name, "fail" if check.is_needed else "warn", found, remedy)]
    except Exception as error:  # no check may take the table from the others
        traceback.print_exc()
        return [Row(check.name, "fail", f"could not be looked at: {error!r}")]


def _denied_action(error: BaseException | None) -> str | None:
    """The action that IAM denies; None if that is not the error."""
    if not isinstance(error, ClientError) or error.response["Error"].get("Code") not in _DENIED:
        return None
    told = re.search(r"perform: ([\w-]+:\w+)", error.response["Error"].get("Message", ""))
    if told:
        return told[1]
    # A HEAD has no body that could say so.
    return "s3:ListBucket" if error.operation_name == "HeadBucket" else error.operation_name


def _show(rows: list[Row], plan: Plan, as_json: bool) -> None:
    if as_json:
        passed = all(row.state != "fail" for row in rows)
        content = {"passed": passed, "checks": [asdict(row) for row in rows]}
        sys.stdout.write(json.dumps(content, indent=2) + "\n")
        return
    page = Page()
    listed = [(row.name, row.state, page.told(row.found, row.remedy)) for row in rows]
    page.rows(f"{plan.target.prefix}: preflight", listed, _COLORS)


def _next(target: Target, model: str | None) -> str:
    """What comes next: before a model can be deployed there must be one."""
    if model is None:
        try:
            deploy.latest(target)
        except UsageError:
            train = make_command("train", target.name, WHERE="sagemaker")
            return f"`{train}` uploads the photos and trains a model that can be deployed"
        except (KennelError, BotoCoreError, ClientError):
            pass  # the checks have said what is amiss
    return f"`{make_command('deploy', target.name, MODEL=model or '')}` puts a model in service"


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 1 or more")
    return int(text)
