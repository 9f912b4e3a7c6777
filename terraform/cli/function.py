"""Calls the deployed Lambda function through its alias, as callers do."""

import base64
import json
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.errors import UsageError
from trainer.target import Target

ALIAS = "live"

MAX_PAYLOAD_BYTES = 6 * 2**20
"""What Lambda takes with a synchronous call, the base64 of a photo included."""

# The second right that a public URL asks for since October 2025, under the provider's own id.
# https://docs.aws.amazon.com/lambda/latest/dg/urls-auth.html
_INVOKE_BY_URL = {
    "StatementId": "FunctionURLAllowInvokeAction",
    "Action": "lambda:InvokeFunction",
    "Principal": "*",
    "InvokedViaFunctionUrl": True,
}

# Lambda's own report of a call, in the two formats of its logs.
_REPORT = re.compile(r"^REPORT .*?\tDuration: ([\d.]+) ms", re.MULTILINE)
_INIT = re.compile(r"\tInit Duration: ([\d.]+) ms")


@dataclass(frozen=True)
class Answer:
    """What the function answered.

    Attributes:
        status: HTTP status; 0 if the function did not survive the call.
        body: The endpoint's answer, or `{"error", "message"}`.
        round_trip_ms: From this machine and back.
        duration_ms: As Lambda measured it; None where the log did not say.
        cold_start_ms: What the start of a new environment took; None for a warm one.
    """

    status: int
    body: dict[str, Any]
    round_trip_ms: float
    duration_ms: float | None = None
    cold_start_ms: float | None = None

    @property
    def failure(self) -> str | None:
        """Why there are no predictions, in one line; None if there are."""
        if self.status == 200:
            return None
        said = f"{self.body.get('error')}: {self.body.get('message')}"
        return f"the function answered {self.status}: {said}" if self.status else said


def photo(path: Path) -> dict[str, str]:
    """The event that carries a photo.

    Raises:
        UsageError: The file cannot be read, or is more than Lambda takes.
    """
    try:
        content = path.read_bytes()
    except IsADirectoryError:
        raise UsageError(
            f"{path} is a folder: name photos in it, such as FILE='{path}/*.jpg'"
        ) from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    event = {"image": base64.b64encode(content).decode()}
    if len(event["image"]) > MAX_PAYLOAD_BYTES - 1024:
        raise UsageError(
            f"{path}: {len(content) / 2**20:.1f} MiB are more than a call may carry (4.5 MiB); "
            "make it smaller, or put it where the function can fetch it and pass its URL"
        )
    return event


def complete_url(target: Target) -> None:
    """Let everybody use a public URL, and nobody one that is public no more.

    The modules cannot say it: the provider knows the right's condition since 6.29 only. By itself
    it adds the right from then on, but not to a URL that becomes public, and never removes it.
    """
    name, client = target.parameter("function_name"), target.client("lambda")
    if name is None:
        return
    alias = {"FunctionName": name, "Qualifier": ALIAS}
    is_public = is_open = False
    with suppress(client.exceptions.ResourceNotFoundException):
        is_public = client.get_function_url_config(**alias)["AuthType"] == "NONE"
    with suppress(client.exceptions.ResourceNotFoundException):
        policy = json.loads(client.get_policy(**alias)["Policy"])
        is_open = _INVOKE_BY_URL["StatementId"] in {each["Sid"] for each in policy["Statement"]}
    if is_public and not is_open:
        client.add_permission(**alias, **_INVOKE_BY_URL)
    elif is_open and not is_public:
        client.remove_permission(**alias, StatementId=_INVOKE_BY_URL["StatementId"])


def call(target: Target, event: Mapping[str, str]) -> Answer:
    """Invoke the alias and wait for the answer.

    Raises:
        KennelError: The foundation is missing.
    """
    name = target.required_parameter("function_name")
    started = time.perf_counter()
    response = target.client("lambda").invoke(
        FunctionName=name,
        Qualifier=ALIAS,
        LogType="Tail",
        Payload=json.dumps(dict(event)).encode(),
    )
    answer = json.loads(response["Payload"].read())
    round_trip_ms = (time.perf_counter() - started) * 1000
    log = base64.b64decode(response.get("LogResult", "")).decode(errors="replace")
    duration_ms, cold_start_ms = report(log)
    status, body = _read(answer, "FunctionError" in response)
    return Answer(status, body, round_trip_ms, duration_ms, cold_start_ms)


def _read(answer: Any, has_crashed: bool) -> tuple[int, dict[str, Any]]:
    """Status and body of what Lambda gave."""
    try:
        if has_crashed:
            return 0, {"error": answer["errorType"], "message": answer["errorMessage"]}
        return int(answer["statusCode"]), dict(json.loads(answer["body"]))
    except (KeyError, TypeError, ValueError):
        # Another function under this name, or one that Lambda ended from outside.
        said = json.dumps(answer)[:200]
        return 0, {"error": "no answer of this service", "message": said}


def report(log: str) -> tuple[float | None, float | None]:
    """Duration and cold start of a call in milliseconds, from the tail of its log.

    Both forms are read: lines of text, and JSON with the type `platform.report`.
    """
    for line in log.splitlines():
        if '"platform.report"' in line:
            try:
                metrics = json.loads(line)["record"]["metrics"]
            except (ValueError, KeyError, TypeError):
                continue
            return metrics.get("durationMs"), metrics.get("initDurationMs")
    found, init = _REPORT.search(log), _INIT.search(log)
    return float(found[1]) if found else None, float(init[1]) if init else None
