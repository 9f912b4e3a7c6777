"""Stop this SageMaker notebook instance when it is idle, or when it has run too long.

A timer runs it each minute, as root. Work is a busy kernel, or what a kernel or a terminal did
last. A notebook that is only open in a browser is none, nor is a kernel that hangs in "starting".
When work was last seen is remembered as the time of a file, for Jupyter forgets a kernel that is
shut down. A Jupyter that does not answer shows no work.

Needs the AWS command line and Python 3.7, the oldest of the notebook platforms.
"""

from __future__ import annotations

import argparse
import calendar
import json
import os
import ssl
import subprocess
import sys
import time
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any

ANSWER_SECONDS = 10
STOP_SECONDS = 30


def log(message: str) -> None:
    """Write one line with the time in UTC, among Jupyter's own."""
    sys.stdout.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} idle_stop: {message}\n")


def worked_at(item: dict[str, Any], now: float) -> float:
    """When a kernel or terminal last worked: seconds since 1970, 0 for never.

    Args:
        item: As Jupyter's API describes it.
        now: Seconds since 1970.
    """
    state = item.get("execution_state", "idle")  # a terminal has none
    if state == "busy":
        return now
    if state != "idle":
        return 0.0
    return calendar.timegm(time.strptime(item["last_activity"][:19], "%Y-%m-%dT%H:%M:%S"))


def latest_work(url: str, now: float) -> float:
    """When the list at `url` last shows work: seconds since 1970, 0 for never or no answer."""
    # Jupyter's certificate is its own, and the request does not leave the machine.
    context = ssl._create_unverified_context()  # noqa: S323
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_SECONDS, context=context) as answer:  # noqa: S310
            return max((worked_at(item, now) for item in json.load(answer)), default=0.0)
    except (OSError, HTTPException, ValueError, KeyError, TypeError, AttributeError) as error:
        log(f"{url} does not say what runs: {error!r}")
        return 0.0


def remembered_work(memory: Path, jupyter: str, now: float) -> float:
    """When this run or an earlier one last saw work, in seconds since 1970: `memory`'s time."""
    seen = max(latest_work(f"{jupyter}/api/{kind}", now) for kind in ("kernels", "terminals"))
    work = min(now, max(seen, memory.stat().st_mtime))
    os.utime(memory, (work, work))
    return work


def reason_to_stop(options: argparse.Namespace, now: float) -> str:
    """Why the instance is to stop; empty where it is not."""
    up_minutes = (now - options.started) / 60
    # First, so that the limit holds whatever Jupyter does.
    if up_minutes >= 60 * options.max_hours:
        return f"up for {up_minutes / 60:.1f} hours, the limit is {options.max_hours:g}"
    idle_minutes = (now - remembered_work(options.memory, options.jupyter, now)) / 60
    if idle_minutes >= options.idle_minutes:
        return f"idle for {idle_minutes:.0f} minutes, the limit is {options.idle_minutes:g}"
    return ""


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Stop this notebook instance when it is idle.")
    parser.add_argument("--name", required=True, help="the notebook instance")
    parser.add_argument("--region", required=True)
    parser.add_argument("--idle-minutes", type=float, required=True)
    parser.add_argument("--max-hours", type=float, required=True, help="up time since the start")
    parser.add_argument("--started", type=float, required=True, help="seconds since 1970")
    parser.add_argument("--memory", type=Path, required=True, help="file that keeps the last work")
    parser.add_argument("--jupyter", default="https://localhost:8443", help="address of Jupyter")
    return parser.parse_args(arguments)


def main() -> None:
    """Look once, and stop the instance where there is a reason.

    Raises:
        SystemExit: 1 when it could not be stopped, 2 for wrong usage.
    """
    options = parse(sys.argv[1:])
    reason = reason_to_stop(options, time.time())
    if not reason:
        return
    log(f"stopping {options.name}: {reason}")
    command = ["aws", "sagemaker", "stop-notebook-instance"]
    command += ["--notebook-instance-name", options.name, "--region", options.region]
    try:
        subprocess.run(command, check=True, timeout=STOP_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        log(f"error: {error}: the notebook's role needs sagemaker:StopNotebookInstance on it")
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
