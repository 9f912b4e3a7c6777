"""Asynchronous invocations: tries, and what becomes of an event when they are over."""

import json
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError
from moto.core.exceptions import JsonRESTError

from localaws import regions
from localaws.execution import RoleError
from localaws.functions.log import timestamp
from localaws.functions.records import LATEST, InvocationError, Invoked, arn_of, function_of

if TYPE_CHECKING:
    from localaws.functions.service import Functions

RETRIES = 2
"""Tries after the first, unless the function's configuration says otherwise."""
MAX_AGE_SECONDS = 6 * 3600
RETRY_SECONDS = 60.0
"""How long Lambda waits after the first failure; twice as long after the second."""

_LONGEST_BACKOFF_SECONDS = 300.0
_DEAD_LETTER_BYTES = 1024

Json = dict[str, Any]


@dataclass
class _Queued:
    name: str
    qualifier: str | None
    payload: bytes
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    tries: int = 0
    last: Invoked | None = None


class EventQueue:
    """Lambda's queue of events, each with a thread that sees it through."""

    def __init__(self, functions: "Functions") -> None:
        """Make an empty one."""
        self._functions = functions
        self._execution = functions.execution

    def submit(self, name: str, qualifier: str | None, payload: bytes) -> str:
        """Take an event.

        Returns:
            The id of the request.
        """
        queued = _Queued(name, qualifier, payload)
        regions.Thread(target=self._see_through, args=(queued,), daemon=True).start()
        return queued.request_id

    def _see_through(self, queued: _Queued) -> None:
        # Where the function is gone, what should happen to its events is too.
        with suppress(JsonRESTError, InvocationError):
            if condition := self._try(queued):
                self._hand_on(queued, condition)

    def _try(self, queued: _Queued) -> str:
        """Invoke until it succeeds or is given up; say which. Empty if localaws ends."""
        taken, backoff = time.monotonic(), 1.0
        while True:
            config = self._config(queued)
            try:
                queued.last = self._functions.invoke(queued.name, queued.qualifier, queued.payload)
                queued.tries += 1
                wait = RETRY_SECONDS * queued.tries
                if not queued.last.outcome.failed:
                    return "Success"
                if queued.tries > config.get("MaximumRetryAttempts", RETRIES):
                    return "RetriesExhausted"
            except InvocationError:
                # Throttled, or a fault of Lambda's: no try of the function's.
                wait, backoff = backoff, min(2 * backoff, _LONGEST_BACKOFF_SECONDS)
            age = (time.monotonic() - taken) * self._execution.time_scale + wait
            if age > config.get("MaximumEventAgeInSeconds", MAX_AGE_SECONDS):
                return "EventAgeExceeded"
            if not self._execution.sleep(wait):
                return ""

    def _config(self, queued: _Queued) -> Json:
        found = function_of(queued.name).at(queued.qualifier).event_invoke
        config: Json = found.config if found else {}
        return config

    def _hand_on(self, queued: _Queued, condition: str) -> None:
        """Send the event to its destination and to the function's dead-letter queue."""
        fleet = self._functions.fleet(queued.name, queued.qualifier)
        outcome = "OnSuccess" if condition == "Success" else "OnFailure"
        destinations = self._config(queued).get("DestinationConfig") or {}
        destination = (destinations.get(outcome) or {}).get("Destination")
        if destination:
            arn = arn_of(function_of(queued.name), queued.qualifier or LATEST)
            record = _record(queued, condition, arn)
            self._deliver(
                queued, destination, json.dumps(record), {}, "DestinationDeliveryFailures"
            )
        letters = fleet.config.get("DeadLetterConfig", {}).get("TargetArn")
        if letters and outcome == "OnFailure":
            attributes = _dead_letter_attributes(queued)
            self._deliver(queued, letters, queued.payload.decode(), attributes, "DeadLetterErrors")
        if outcome == "OnFailure" and not destination and not letters:
            self._functions.count("AsyncEventsDropped", queued.name, queued.qualifier)

    def _deliver(
        self,
        queued: _Queued,
        arn: str,
        message: str,
        attributes: Mapping[str, tuple[str, str]],
        failures: str,
    ) -> None:
        service = arn.split(":")[2]
        try:
            credentials = self._functions.fleet(queued.name, queued.qualifier).credentials()
            client = self._execution.client(service, credentials)
            _SENDERS[service](client, arn, message, _message_attributes(attributes))
        except (ClientError, BotoCoreError, RoleError, KeyError) as error:
            print(f"{queued.name}: an event cannot go to {arn}: {error}", file=sys.stderr)
            self._functions.count(failures, queued.name, queued.qualifier)


def _send_to_queue(client: Any, arn: str, message: str, attributes: Json) -> None:
    account, name = arn.split(":")[4:]
    url = f"{client.meta.endpoint_url}/{account}/{name}"
    client.send_message(QueueUrl=url, MessageBody=message, MessageAttributes=attributes)


def _send_to_topic(client: Any, arn: str, message: str, attributes: Json) -> None:
    client.publish(TopicArn=arn, Message=message, MessageAttributes=attributes)


_SENDERS: Mapping[str, Callable[[Any, str, str, Json], None]] = {
    "sns": _send_to_topic,
    "sqs": _send_to_queue,
}


def _message_attributes(attributes: Mapping[str, tuple[str, str]]) -> Json:
    return {
        name: {"DataType": kind, "StringValue": value} for name, (kind, value) in attributes.items()
    }


def _dead_letter_attributes(queued: _Queued) -> dict[str, tuple[str, str]]:
    attributes = {"RequestID": ("String", queued.request_id)}
    if queued.last:
        message = json.loads(queued.last.outcome.payload).get("errorMessage", "")
        attributes["ErrorCode"] = ("Number", "200")
        attributes["ErrorMessage"] = ("String", message[:_DEAD_LETTER_BYTES] or "none")
    return attributes


def _record(queued: _Queued, condition: str, arn: str) -> Json:
    """What Lambda tells a destination."""
    record: Json = {
        "version": "1.0",
        "timestamp": timestamp(),
        "requestContext": {
            "requestId": queued.request_id,
            "functionArn": arn,
            "condition": condition,
            "approximateInvokeCount": queued.tries,
        },
        "requestPayload": json.loads(queued.payload),
    }
    if queued.last:
        outcome = queued.last.outcome
        error = {"functionError": "Unhandled"} if outcome.failed else {}
        record["responseContext"] = {
            "statusCode": 200,
            "executedVersion": queued.last.version,
            **error,
        }
        record["responsePayload"] = json.loads(outcome.payload)
    return record
