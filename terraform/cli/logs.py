"""`make logs`: what endpoint, function, jobs and builds have written, in the order of time.

For people, a call of the function is one line; `--json` gives the records as they are.
"""

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from terraform.cli.log_lines import Event, Lines, time_text
from trainer.errors import drop_output
from trainer.make_command import make_command
from trainer.target import Target, load

_POLL_SECONDS = 2.0
# Events of several writers do not arrive in the order of their times.
_LATE_MS = 30_000
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_AGE = re.compile(r"([1-9]\d{0,5})([smhd])")


@dataclass(frozen=True)
class Group:
    """A log group.

    Attributes:
        name: Its name in CloudWatch Logs.
        streams: First part of the names of the streams that are ours; None for all.
    """

    name: str
    streams: str | None = None


def groups(target: Target) -> dict[str, Group]:
    """The environment's log groups by what writes them."""
    name = target.prefix
    return {
        "endpoint": Group(f"/aws/sagemaker/Endpoints/{name}"),
        "function": Group(f"/aws/lambda/{name}-classify"),
        # One for each account and region.
        "training": Group("/aws/sagemaker/TrainingJobs", f"{name}-"),
        "ec2": Group(f"/{name}/ec2-trainer"),
        "build": Group(f"/aws/codebuild/{name}-image"),
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes beside the flags of all commands."""
    parser.add_argument("--follow", action="store_true", help="go on until Ctrl-C")
    parser.add_argument(
        "--since", default="10m", metavar="AGE", type=age, help="how far back: 30s, 10m, 2h, 1d"
    )
    parser.add_argument(
        "--what",
        action="append",
        choices=("endpoint", "function", "training", "ec2", "build"),
        help="whose logs; may be given several times (default: all)",
    )


def run(options: argparse.Namespace, _: list[str]) -> int:
    """Print the events."""
    target = load(options.env)
    chosen = {
        what: group
        for what, group in groups(target).items()
        if not options.what or what in options.what
    }
    since = int((time.time() - options.since) * 1000)
    events = (follow if options.follow else read)(target, chosen, since)
    is_silent = True
    lines = Lines()
    try:
        for event in events:
            is_silent = False
            sys.stdout.writelines(
                [json.dumps(asdict(event)) + "\n"] if options.json else lines.of(event)
            )
            sys.stdout.flush()
        sys.stdout.writelines(lines.rest())
        sys.stdout.flush()
    except BrokenPipeError:
        # `head` has seen enough.
        drop_output()
        return 0
    if is_silent:
        sys.stderr.write(
            f"no events since {time_text(since)} in {', '.join(chosen)}; "
            f"`{make_command('status', target.name)}` shows what runs\n"
        )
    return 0


def age(text: str) -> int:
    """Seconds of an age such as `10m`.

    Raises:
        argparse.ArgumentTypeError: It is none.
    """
    match = _AGE.fullmatch(text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is no age such as 30s, 10m, 2h or 1d")
    return int(match[1]) * _UNITS[match[2]]


def read(target: Target, chosen: Mapping[str, Group], since: int) -> list[Event]:
    """All events of log groups since a time in milliseconds, in the order of their times."""
    # Sorted by nothing else: lines of one time stay in the order in which they were written.
    return sorted(_events(target, chosen, since), key=lambda event: event.at)


def follow(target: Target, chosen: Mapping[str, Group], since: int) -> Iterator[Event]:
    """Events as they come, each once; it never ends."""
    seen: set[str] = set()
    while True:
        found = read(target, chosen, since)
        yield from (event for event in found if event.id not in seen)
        seen = {event.id for event in found}
        since = max(since, found[-1].at - _LATE_MS if found else since)
        time.sleep(_POLL_SECONDS)


def _events(target: Target, chosen: Mapping[str, Group], since: int) -> Iterator[Event]:
    """The events of each group; one that is not there has none."""
    client = target.client("logs")
    pages = client.get_paginator("filter_log_events")
    for what, group in chosen.items():
        only = {"logStreamNamePrefix": group.streams} if group.streams else {}
        try:
            for page in pages.paginate(logGroupName=group.name, startTime=since, **only):
                yield from (_event(what, found) for found in page["events"])
        except client.exceptions.ResourceNotFoundException:
            continue


def _event(what: str, found: Mapping[str, Any]) -> Event:
    return Event(
        at=found["timestamp"],
        what=what,
        stream=found["logStreamName"],
        message=found["message"].rstrip("\n"),
        id=found["eventId"],
    )
