"""Event source mappings: messages of SQS queues run functions, in batches.

Source: "Using Lambda with Amazon SQS" in Lambda's developer guide, with the event, the batches and
what becomes of messages whose function failed.
"""

import json
import sys
import threading
import time
import traceback
from contextlib import suppress
from typing import Any

from moto.awslambda.models import EventSourceMapping
from moto.awslambda.utils import get_backend
from moto.core.exceptions import JsonRESTError, ServiceException
from moto.sqs.models import Message, sqs_backends

from localaws import deliveries, regions
from localaws.deliveries import DeliveryError, Sender
from localaws.execution import ACCOUNT, Execution, Service
from localaws.functions.records import InvocationError, function_of
from localaws.functions.service import SERVICE, Functions

Json = dict[str, Any]

# What the function's role has to be allowed on the queue.
_ACTIONS = ("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes")
_LOOK_SECONDS = 0.2
_PAUSE_SECONDS = 1.0


class EventSources(Service):
    """Polls the queues of all mappings, one batch of each at a time."""

    def __init__(self, execution: Execution) -> None:
        """Make the service; nothing runs yet."""
        super().__init__(execution)
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._busy: set[str] = set()
        self._waiting_since: dict[str, float] = {}

    def resume(self) -> None:
        """Begin to poll."""
        regions.Thread(target=self._watch, daemon=True).start()

    def stop(self) -> None:
        """Poll no more; messages of batches that run are visible again in time."""
        self._ended.set()

    def _watch(self) -> None:
        while not self._ended.wait(_LOOK_SECONDS):
            for mapping in list(
                get_backend(ACCOUNT, regions.current())._event_source_mappings.values()
            ):
                try:
                    self._look(mapping)
                # Requests change the records meanwhile; the next look finds them whole.
                except Exception:
                    traceback.print_exc()

    def _look(self, mapping: EventSourceMapping) -> None:
        name = mapping.event_source_arn.split(":")[5]
        queue = sqs_backends[ACCOUNT][regions.current()].queues.get(name)
        if queue:
            # Of a state that was saved before: moto would hand messages over by itself.
            queue.lambda_event_source_mappings.clear()
        with self._lock:
            is_idle = queue and mapping.enabled and mapping.uuid not in self._busy
            waiting = len(queue.messages) if queue and is_idle else 0
            if not waiting or not self._is_full(mapping, waiting):
                return
            self._busy.add(mapping.uuid)
        regions.Thread(target=self._run, args=(mapping, name), daemon=True).start()

    def _is_full(self, mapping: EventSourceMapping, waiting: int) -> bool:
        """Whether a batch is large enough, or has waited as long as it is to gather messages."""
        now = time.monotonic()
        since = self._waiting_since.setdefault(mapping.uuid, now)
        window = self.execution.seconds(mapping.max_batch_window or 0)
        if waiting < mapping.batch_size and now - since < window:
            return False
        del self._waiting_since[mapping.uuid]
        return True

    def _run(self, mapping: EventSourceMapping, queue: str) -> None:
        try:
            self._run_batch(mapping, queue)
        except (InvocationError, DeliveryError, JsonRESTError, ServiceException) as error:
            # Throttled, or not allowed, or gone: the messages are visible again in time.
            print(f"{mapping.event_source_arn}: {error}", file=sys.stderr, flush=True)
            self._ended.wait(_PAUSE_SECONDS)
        finally:
            with self._lock:
                self._busy.discard(mapping.uuid)

    def _run_batch(self, mapping: EventSourceMapping, queue: str) -> None:
        backend = sqs_backends[ACCOUNT][regions.current()]
        name, qualifier = called(mapping.function_name)
        require_role(name, mapping.event_source_arn)
        with self.execution.changing():
            # An attribute that moto sets by its name.
            visible = int(vars(backend.get_queue(queue))["visibility_timeout"])
            batch = backend.receive_message(queue, mapping.batch_size, 0, visible, ["All"])
        if not batch:
            return
        event = {"Records": [_record(message, mapping.event_source_arn) for message in batch]}
        functions = self.execution.service(Functions)
        invoked = functions.invoke(name, qualifier, json.dumps(event).encode())
        if invoked.outcome.failed:
            return
        failed: set[str] | None = set()
        if "ReportBatchItemFailures" in (mapping.function_response_types or ()):
            failed = _failures(invoked.outcome.payload, {message.id for message in batch})
        with self.execution.changing():
            for message in batch:
                if failed is not None and message.id not in failed:
                    # It may be visible to others again, and gone.
                    with suppress(ServiceException):
                        backend.delete_message(queue, str(message.receipt_handle))


def called(function: str) -> tuple[str, str | None]:
    """The name and the qualifier in what a mapping calls its function."""
    name, _, qualifier = function.rpartition("function:")[2].partition(":")
    return name, qualifier or None


def require_role(function: str, queue: str) -> None:
    """Ask whether a function's role may take messages from a queue.

    Raises:
        DeliveryError: It may not.
    """
    record = function_of(function)
    sender = Sender.role(record.role, SERVICE, record.function_arn)
    for action in _ACTIONS:
        deliveries.require_allowed(sender, action, queue)


def _record(message: Message, queue: str) -> Json:
    attributes = {
        "ApproximateReceiveCount": str(message.approximate_receive_count),
        "SentTimestamp": str(message.sent_timestamp),
        "SenderId": str(message.sender_id),
        "ApproximateFirstReceiveTimestamp": str(message.approximate_first_receive_timestamp),
    }
    if message.group_id:
        attributes["MessageGroupId"] = message.group_id
    if queue.endswith(".fifo"):
        attributes["SequenceNumber"] = str(message.sequence_number)
        attributes["MessageDeduplicationId"] = str(message.deduplication_id)
    return {
        "messageId": message.id,
        "receiptHandle": message.receipt_handle,
        "body": message.body,
        "attributes": attributes,
        "messageAttributes": {
            name: _attribute(told) for name, told in message.message_attributes.items()
        },
        "md5OfBody": message.body_md5,
        "eventSource": "aws:sqs",
        "eventSourceARN": queue,
        "awsRegion": regions.current(),
    }


def _attribute(told: Json) -> Json:
    kinds = {"string_value": "stringValue", "binary_value": "binaryValue"}
    kinds |= {"StringValue": "stringValue", "BinaryValue": "binaryValue"}
    values = {kinds[name]: _text(value) for name, value in told.items() if name in kinds and value}
    kind = told.get("data_type") or told.get("DataType")
    return {**values, "stringListValues": [], "binaryListValues": [], "dataType": kind}


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _failures(payload: bytes, ids: set[str]) -> set[str] | None:
    """The ids of what failed, or None if all did, as what is not understood counts."""
    try:
        told = json.loads(payload)
        if not told:
            return set()
        failed = {str(each["itemIdentifier"]) for each in told.get("batchItemFailures") or ()}
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    return failed if failed <= ids else None
