"""`make invoke`: photos classified by the deployed service, through the function as callers do."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError
from rich.box import SIMPLE
from rich.markup import escape
from rich.table import Table

from terraform.cli import function
from terraform.cli.function import Answer
from terraform.cli.page import Page
from trainer.errors import KennelError
from trainer.make_command import make_command
from trainer.target import Target, load

_BAR = 24


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes beside the flags of all commands."""
    photo = parser.add_mutually_exclusive_group(required=True)
    photo.add_argument("--url", metavar="URL", help="a photo that the function fetches")
    photo.add_argument("--file", metavar="FILE", type=Path, nargs="+", help="photos to send")


def run(options: argparse.Namespace, _: list[str]) -> int:
    """Classify each photo; fail if the service has no answer for one of them."""
    target = load(options.env)
    answers: dict[str, Answer] = {}
    for name, event in _events(options).items():
        answers[name] = _call(target, event)
        if not options.json:
            _show(name, answers[name])
    if options.json:
        sys.stdout.write(json.dumps([_row(*named) for named in answers.items()], indent=2) + "\n")
    failures = [f"{name}: {found.failure}" for name, found in answers.items() if found.failure]
    if failures:
        raise KennelError(f"{'; '.join(failures)} ({_where(target)})")
    return 0


def _call(target: Target, event: dict[str, str]) -> Answer:
    """Ask the function.

    Raises:
        KennelError: There is none.
    """
    try:
        return function.call(target, event)
    except ClientError as error:
        if error.response["Error"]["Code"] != "ResourceNotFoundException":
            raise
        raise KennelError(
            f"nothing is deployed in ENV={target.name}: "
            f"`{make_command('deploy', target.name)}` deploys what was trained last"
        ) from error


def _events(options: argparse.Namespace) -> dict[str, dict[str, str]]:
    """The events by the photos' names; all files are read before the first is sent."""
    if options.url:
        return {options.url: {"url": options.url}}
    return {str(path): function.photo(path) for path in options.file}


def _where(target: Target) -> str:
    return f"`{make_command('logs', target.name, WHAT='function')}` shows more"


def _row(name: str, answer: Answer) -> dict[str, Any]:
    return {
        "photo": name,
        "status": answer.status,
        **answer.body,
        "round_trip_ms": round(answer.round_trip_ms, 1),
        "duration_ms": answer.duration_ms,
        "cold_start_ms": answer.cold_start_ms,
    }


def _show(name: str, answer: Answer) -> None:
    if answer.failure:
        return
    table = Table(box=SIMPLE, show_header=False)
    table.add_column("Label", no_wrap=True)
    table.add_column("Probability", justify="right")
    table.add_column("", min_width=_BAR)
    for found in answer.body["predictions"]:
        probability = found["probability"]
        table.add_row(escape(found["label"]), f"{probability:.1%}", "█" * round(probability * _BAR))
    page = Page()
    # A title or caption of the table would be folded to its width.
    page.print(escape(name), soft_wrap=True)
    page.print(table)
    page.print(_caption(answer), soft_wrap=True)


def _caption(answer: Answer) -> str:
    model = answer.body["model"]
    times = [f"{answer.round_trip_ms:.0f} ms round trip"]
    if answer.duration_ms is not None:
        times.append(f"{answer.duration_ms:.0f} ms in the function")
    if answer.cold_start_ms is not None:
        times.append(f"{answer.cold_start_ms:.0f} ms to start it")
    return escape(f"{model['name']}, {', '.join(times)}")
