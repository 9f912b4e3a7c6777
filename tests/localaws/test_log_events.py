"""Lines reach CloudWatch Logs within its limits, in streams made for them where none is."""

from typing import Any

import pytest

from localaws.monitoring.log_events import put_lines
from tests.localaws.conftest import LocalAws

# Source: PutLogEvents in CloudWatch Logs' API reference.
CALL_BYTES, CALL_EVENTS, OVERHEAD_BYTES = 1_048_576, 10_000, 26
GROUP = "/kennel/lines"


class Calls:
    """A client of CloudWatch Logs that keeps what each call was to put."""

    def __init__(self) -> None:
        self.messages: list[list[str]] = []

    def put_log_events(self, *, logEvents: list[dict[str, Any]], **_: str) -> None:
        self.messages.append([event["message"] for event in logEvents])


@pytest.mark.parametrize(
    ("lines", "calls"),
    [
        ([], []),
        (["one", "", "  ", "two"], [2]),
        (["short"] * (2 * CALL_EVENTS + 1), [CALL_EVENTS, CALL_EVENTS, 1]),
        # Three of them and what counts for them beside their text fill a call to the byte.
        (["x" * (CALL_BYTES // 3 - OVERHEAD_BYTES)] * 4, [3, 1]),
        (["x" * (CALL_BYTES - OVERHEAD_BYTES), "y"], [1, 1]),
    ],
)
def test_a_call_holds_as_many_lines_as_cloudwatch_takes(lines: list[str], calls: list[int]) -> None:
    logs = Calls()
    put_lines(logs, GROUP, "stream", lines)
    assert [len(messages) for messages in logs.messages] == calls
    sent = [message for messages in logs.messages for message in messages]
    assert sent == [line for line in lines if line.strip()]


def test_an_overlong_line_is_cut_between_characters() -> None:
    logs, line = Calls(), "x" + "é" * CALL_BYTES
    put_lines(logs, GROUP, "stream", ["before", line, "after"])
    [before], [cut], [after] = logs.messages
    assert (before, after) == ("before", "after")
    assert line.startswith(cut)
    # One more would be too long.
    assert CALL_BYTES - OVERHEAD_BYTES - 2 < len(cut.encode()) <= CALL_BYTES - OVERHEAD_BYTES


def test_a_missing_stream_is_made_and_its_group_if_that_may_be(aws: LocalAws) -> None:
    logs = aws.client("logs")
    with pytest.raises(logs.exceptions.ResourceNotFoundException):
        put_lines(logs, GROUP, "first", ["lost"], lambda: False)
    assert logs.describe_log_groups(logGroupNamePrefix=GROUP)["logGroups"] == []
    put_lines(logs, GROUP, "first", ["one"])
    put_lines(logs, GROUP, "first", ["two"], lambda: False)
    put_lines(logs, GROUP, "second", ["three"], lambda: False)
    found = {
        stream: [
            event["message"]
            for event in logs.get_log_events(logGroupName=GROUP, logStreamName=stream)["events"]
        ]
        for stream in ("first", "second")
    }
    assert found == {"first": ["one", "two"], "second": ["three"]}
    logs.delete_log_group(logGroupName=GROUP)
