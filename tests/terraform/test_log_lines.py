"""What `make logs` makes of log events: a line a call, and an end that is quiet."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from terraform.cli.log_lines import Event, Lines

STREAM = "2026/11/30/[1]abc"
REQUEST = "1f2e3d4c-0000-4000-8000-000000000001"


def shown(*messages: str | dict[str, Any], what: str = "function") -> list[str]:
    """The lines of a stream's messages, without their time."""
    lines, found = Lines(), []
    for message in messages:
        text = message if isinstance(message, str) else json.dumps(message)
        found += lines.of(Event(0, what, STREAM, text, ""))
    found += lines.rest()
    return [line.removeprefix("1970-01-01T00:00:00.000Z ") for line in found]


def platform(kind: str, **record: Any) -> dict[str, Any]:
    record = {"requestId": REQUEST, **record}
    return {"time": "1970-01-01T00:00:00.000Z", "type": f"platform.{kind}", "record": record}


def report(milliseconds: float, init: float | None = None, **more: Any) -> dict[str, Any]:
    figures = {"durationMs": milliseconds, "billedDurationMs": 40, "memorySizeMB": 512}
    if init is not None:
        figures["initDurationMs"] = init
    return platform("report", metrics=figures, status="success") | more


def metrics(**values: float) -> dict[str, Any]:
    directive = {"Namespace": "Kennel", "Metrics": [{"Name": name} for name in values]}
    lists = {name: [value] for name, value in values.items()}
    return {"_aws": {"Timestamp": 0, "CloudWatchMetrics": [directive]}, "service": "k", **lists}


def test_a_call_is_one_line() -> None:
    assert shown(
        platform("initStart", initializationType="on-demand"),
        platform("start", version="3"),
        metrics(ColdStart=1),
        metrics(EndpointTime=21.4, FetchTime=3.2, EndpointRetries=0, Answered=1),
        report(31.6, init=812.2),
    ) == [
        f"function {REQUEST} 200 in 32 ms, endpoint 21 ms, fetch 3 ms, cold start 812 ms\n",
    ]


def test_a_record_of_the_server_is_its_level_what_happened_and_the_rest() -> None:
    request = {
        "time": "2026-11-30T13:00:00.000+00:00",
        "level": "info",
        "event": "request",
        "path": "/invocations",
        "status": 200,
        "total_ms": 5.12,
        "parts": ["a", 1],
    }
    failed = {"level": "error", "event": "request", "traceback": "Traceback\n  x\nOSError: full\n"}
    other = {"level": "WARNING", "message": "it is late"}
    no_log = '{"predictions": []}'
    assert shown(request, failed, other, no_log, "[1]", "plain", what="endpoint") == [
        f"endpoint {STREAM} {text}\n"
        for text in (
            'INFO request path=/invocations status=200 total_ms=5.12 parts=["a", 1]',
            "ERROR request: OSError: full",
            "WARNING it is late",
            no_log,
            "[1]",
            "plain",
        )
    ]


def test_a_job_begins_with_its_own_first_line() -> None:
    trace = ["Starting training script", "+ python3 --version", "{", '  "a": 1', "}"]
    last = "+ exec /usr/bin/python3 -m trainer.entry"
    own = f"training {STREAM} epoch=1 loss=2\n"
    assert shown(*trace, last, "epoch=1 loss=2", what="training") == [own]
    assert shown("+ a line of its own", what="training") == [
        f"training {STREAM} + a line of its own\n"
    ]
    # Of one that did not come so far, all is said: it says why.
    assert shown(*trace, what="training") == [f"training {STREAM} {line}\n" for line in trace]


def test_a_refusal_and_a_fault_say_why() -> None:
    refused = {"level": "INFO", "message": "that host may not be fetched", "status": 403}
    fault = {"level": "ERROR", "message": "failed", "exception": "Traceback\n  x\nOSError: full"}
    assert shown(
        platform("start"),
        {**refused, "error": "forbidden_address"},
        metrics(Refused=1),
        report(2.0),
        platform("start"),
        fault,
        metrics(Failed=1, EndpointRetries=2),
        report(5.0),
        platform("start"),
        platform("report", metrics={"durationMs": 30000.0}, status="timeout"),
    ) == [
        f"function {REQUEST} 403 in 2 ms: forbidden_address: that host may not be fetched\n",
        f"function {REQUEST} failed in 5 ms, 2 retries: failed: OSError: full\n",
        f"function {REQUEST} timeout in 30000 ms\n",
    ]


def test_lambdas_other_format_is_folded_too() -> None:
    assert shown(
        "INIT_START Runtime Version: python:3.13",
        f"START RequestId: {REQUEST} Version: 3",
        "printed",
        metrics(Answered=1),
        f"END RequestId: {REQUEST}",
        f"REPORT RequestId: {REQUEST}\tDuration: 12.50 ms\tBilled Duration: 13 ms\t"
        "Memory Size: 512 MB\tMax Memory Used: 90 MB\tInit Duration: 300.40 ms\t",
    ) == [
        f"function {STREAM} INIT_START Runtime Version: python:3.13\n",
        f"function {STREAM} printed\n",
        f"function {REQUEST} 200 in 12 ms, cold start 300 ms\n",
    ]


def test_calls_of_several_environments_do_not_mix() -> None:
    lines = Lines()
    events = [
        ("a", platform("start")),
        ("b", platform("start") | {"record": {"requestId": "other"}}),
        ("b", metrics(Refused=1)),
        ("a", metrics(Answered=1)),
        ("a", report(1.0)),
    ]
    found = [
        line
        for stream, message in events
        for line in lines.of(Event(0, "function", stream, json.dumps(message), ""))
    ]
    assert [line.split()[2:4] for line in found] == [[REQUEST, "200"]]
    assert list(lines.rest()) == ["function other has not ended\n"]


@pytest.mark.parametrize(
    ("what", "message"),
    [("endpoint", '{"_aws": {}, "level": "INFO", "message": "x"}'), ("function", '["a list"]')],
)
def test_what_is_no_call_is_shown_as_it_is(what: str, message: str) -> None:
    assert shown(message, what=what) == [f"{what} {STREAM} {message}\n"]


ENDLESS = """
from argparse import Namespace
from terraform.cli import logs
from terraform.cli.log_lines import Event
logs.load = lambda name: None
logs.groups = lambda target: {"ec2": logs.Group("g")}
logs.read = lambda *given: [Event(0, "ec2", "s", "x" * 100, "")] * 100_000
options = Namespace(env="dev", what=None, since=1, follow=False, json=JSON)
raise SystemExit(logs.run(options, []))
"""


@pytest.mark.parametrize("as_json", [True, False])
def test_a_reader_that_has_enough_ends_it_quietly(as_json: bool) -> None:
    program = ENDLESS.replace("JSON", str(as_json))
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "x" * 100 in process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0


def test_an_environment_that_waits_for_its_first_call_has_no_call_that_goes_on() -> None:
    start = platform("initStart", initializationType="provisioned-concurrency")
    note = {"level": "INFO", "message": "Found credentials in environment variables."}
    fault = {"level": "ERROR", "message": "no module"}
    started = "function a new environment starts (provisioned-concurrency)\n"
    assert shown(start, note) == [started]
    assert shown(start, fault) == [started, "function - has not ended: no module\n"]
