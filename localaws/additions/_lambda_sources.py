"""Lambda's event source mappings: of queues, which are polled; all others are refused."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from moto.awslambda.exceptions import InvalidParameterValueException
from moto.core.common_types import TYPE_RESPONSE
from moto.sqs.models import sqs_backends

from localaws import regions
from localaws.additions import Gap
from localaws.additions._lambda_invocation import InvocationAnswers, ResourceConflictException
from localaws.additions._moto import ROLE, plain_client, refuses
from localaws.deliveries import DeliveryError, kind_of
from localaws.execution import ACCOUNT, running
from localaws.functions.records import arn_of, function_of
from localaws.functions.sources import EventSources, called, require_role
from localaws.operations import RefusedError

Json = dict[str, Any]

_MEMBERS = {
    "BatchSize",
    "Enabled",
    "EventSourceArn",
    "FunctionName",
    "FunctionResponseTypes",
    "MaximumBatchingWindowInSeconds",
    "Tags",
}
_MOST_WITHOUT_WINDOW = 10
_MOST_WINDOW_SECONDS = 300


class SourceAnswers(InvocationAnswers):
    """Moto's answers, with mappings that are served."""

    def create_event_source_mapping(self) -> TYPE_RESPONSE:
        """Map a queue to a function whose role may read it."""
        given = self.json_body
        _refuse_unknown(given)
        queue = given.get("EventSourceArn") or ""
        if kind_of(queue) != "sqs":
            raise RefusedError(f"nothing reads {queue or 'this source'}; queues are read")
        name, qualifier = called(given.get("FunctionName") or "")
        function = function_of(name)
        found = sqs_backends[ACCOUNT][regions.current()].queues.get(queue.split(":")[5])
        if not found:
            raise InvalidParameterValueException(
                "Error occurred while ReceiveMessage. SQS Error Code:"
                " AWS.SimpleQueueService.NonExistentQueue. SQS Error Message: The specified queue"
                " does not exist."
            )
        _check_batch(given, queue)
        visible, timeout = int(vars(found)["visibility_timeout"]), int(function.timeout)
        if visible < timeout:
            raise InvalidParameterValueException(
                f"Queue visibility timeout: {visible} seconds is less than Function timeout:"
                f" {timeout} seconds"
            )
        for other in self.backend._event_source_mappings.values():
            if (other.event_source_arn, called(other.function_name)) == (queue, (name, qualifier)):
                raise ResourceConflictException(
                    f'The event source arn ("{queue}") and function ("{name}") provided mapping'
                    f" already exists. Please update or delete the existing mapping with UUID"
                    f" {other.uuid}"
                )
        if running(EventSources):
            try:
                require_role(name, queue)
            except DeliveryError:
                raise InvalidParameterValueException(
                    "The function execution role does not have permissions to call ReceiveMessage"
                    " on SQS"
                ) from None
        _, headers, body = super().create_event_source_mapping()
        # moto would hand over each message as it is sent, and take it for handled.
        found.lambda_event_source_mappings.clear()
        mapping = self.backend.get_event_source_mapping(json.loads(body)["UUID"])
        return 202, {**headers, "status": "202"}, _told(mapping, "Creating", body)

    def update_event_source_mapping(self) -> TYPE_RESPONSE:
        """Change a mapping."""
        _refuse_unknown(self.json_body)
        mapping = self.backend.get_event_source_mapping(self.path.split("/")[-1])
        if mapping:
            _check_batch(
                {
                    "BatchSize": mapping.batch_size,
                    "MaximumBatchingWindowInSeconds": mapping.max_batch_window,
                    **self.json_body,
                },
                mapping.event_source_arn,
            )
        status, headers, body = super().update_event_source_mapping()
        if not mapping:
            return status, headers, body
        mapping.function_name = self.json_body.get("FunctionName") or mapping.function_name
        return status, headers, _told(mapping, "Updating", body)


def _told(mapping: Any, state: str, body: Any) -> str:
    """What Lambda says of a mapping, which calls the alias, not the version behind it today."""
    name, qualifier = called(mapping.function_name)
    mapping.function_arn = arn_of(function_of(name), qualifier)
    return json.dumps({**json.loads(body), "FunctionArn": mapping.function_arn, "State": state})


def _refuse_unknown(given: Mapping[str, Any]) -> None:
    told = {name for name, value in given.items() if value not in (None, [], {})}
    if unknown := sorted(told - _MEMBERS):
        raise RefusedError(f"nothing here heeds {', '.join(unknown)}")


def _check_batch(given: Mapping[str, Any], queue: str) -> None:
    size = given.get("BatchSize") or _MOST_WITHOUT_WINDOW
    window = given.get("MaximumBatchingWindowInSeconds") or 0
    most = 10 if queue.endswith(".fifo") else 10_000
    if not 1 <= size <= most:
        raise InvalidParameterValueException(f"Batch size must be between 1 and {most}")
    if not 0 <= window <= _MOST_WINDOW_SECONDS or (window and most == _MOST_WITHOUT_WINDOW):
        raise InvalidParameterValueException(
            f"Maximum batch window in seconds must be between 0 and {_MOST_WINDOW_SECONDS}, and 0"
            " for FIFO queues"
        )
    if size > _MOST_WITHOUT_WINDOW and not window:
        raise InvalidParameterValueException(
            "Maximum batch window in seconds must be greater than 0 if maximum batch size is"
            " greater than 10"
        )


@contextmanager
def _probe(**queue: str) -> Iterator[tuple[Any, str]]:
    """A client of moto's Lambda with a function and its alias `live`, and a queue's ARN."""
    with plain_client("iam") as iam, plain_client("sqs") as sqs, plain_client("lambda") as client:
        iam.create_role(RoleName="probe", AssumeRolePolicyDocument="{}")
        sqs.create_queue(QueueName="probe", Attributes=queue)
        client.create_function(
            FunctionName="probe",
            Role=ROLE,
            Runtime="python3.13",
            Handler="probe.handler",
            Code={"ZipFile": b"probe"},
            Publish=True,
        )
        client.create_alias(FunctionName="probe", Name="live", FunctionVersion="1")
        yield client, f"arn:aws:sqs:{regions.current()}:{ACCOUNT}:probe"


def _checks_batch() -> bool:
    with _probe(VisibilityTimeout="1") as (client, queue):
        return refuses(
            lambda: client.create_event_source_mapping(
                EventSourceArn=queue, FunctionName="probe", BatchSize=100
            )
        )


def _calls_the_alias() -> bool:
    with _probe() as (client, queue):
        mapping = client.create_event_source_mapping(
            EventSourceArn=queue, FunctionName="probe:live"
        )
        return str(mapping["FunctionArn"]).endswith(":live")


GAPS = [
    Gap(
        "lambda",
        "CreateEventSourceMapping",
        "the queue's messages vanish and no function runs",
        _checks_batch,
    ),
    Gap(
        "lambda",
        "CreateEventSourceMapping.FunctionName, UpdateEventSourceMapping",
        "a mapping of an alias tells the version behind it, a difference on each plan; one that is"
        " given another function goes on with the former",
        _calls_the_alias,
    ),
]
