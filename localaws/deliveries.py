"""What one service of AWS hands to another: messages to queues and topics, events to functions.

As on AWS, the one that gets it decides by its own policy whether the service may, for the resource
that the message comes from. IAM is asked whether it is enforced for callers or not.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moto.core.exceptions import JsonRESTError, ServiceException
from moto.sns.models import sns_backends
from moto.sqs.models import sqs_backends

from localaws import regions
from localaws.errors import LocalAwsError
from localaws.execution import ACCOUNT, RoleError, require_trust, running
from localaws.functions.records import InvocationError
from localaws.functions.service import Functions
from localaws.iam.authorization import Caller, caller_as, decide
from localaws.iam.policy import PolicyError, Principal, Request


class DeliveryError(LocalAwsError):
    """A message cannot be handed over, and another try would fail too.

    Attributes:
        code: AWS's word for why.
    """

    def __init__(self, code: str, message: str) -> None:
        """Say why."""
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Sender:
    """Who hands something over.

    Attributes:
        caller: The service, or a session of the role under which it acts.
        source: ARN of what the message comes from.
    """

    caller: Caller
    source: str

    @classmethod
    def service(cls, name: str, source: str) -> "Sender":
        """A service that acts under no role, such as "sns.amazonaws.com"."""
        return cls(Caller(Principal(name, "Service")), source)

    @classmethod
    def role(cls, role: str, service: str, source: str) -> "Sender":
        """A service that acts under a role.

        Raises:
            DeliveryError: There is no such role, or it does not trust the service.
        """
        try:
            require_trust(role, service)
        except RoleError as error:
            raise DeliveryError("AccessDenied", str(error)) from error
        return cls(caller_as(role), source)


def require_allowed(sender: Sender, action: str, resource: str) -> None:
    """Ask the policies of what gets a message, and of the role if there is one.

    Args:
        sender: Who sends.
        action: What IAM calls it, such as "sqs:SendMessage".
        resource: ARN of what gets it.

    Raises:
        DeliveryError: They do not allow it.
    """
    context = {
        "aws:SourceArn": sender.source,
        "aws:SourceAccount": ACCOUNT,
        "aws:SecureTransport": "true",
    }
    try:
        if decide(sender.caller, Request(action, resource, context)).allowed:
            return
        why = f"no policy allows {action} to {sender.caller.name}"
    except PolicyError as error:
        why = str(error)
    raise DeliveryError("AccessDenied", f"{resource} takes nothing from {sender.source}: {why}")


def kind_of(arn: str) -> str:
    """What an ARN of this account and region names: "sqs", "sns" or "lambda"; else "".

    Args:
        arn: An ARN; it may be none.
    """
    parts = arn.split(":")
    if parts[:2] != ["arn", "aws"] or parts[3:5] != [regions.current(), ACCOUNT] or len(parts) < 6:
        return ""
    service, rest = parts[2], parts[5:]
    if service == "lambda":
        return service if rest[0] == "function" and len(rest) in (2, 3) and all(rest) else ""
    return service if service in ("sns", "sqs") and len(rest) == 1 and rest[0] else ""


def submit(sender: Sender, function: str, event: Mapping[str, Any] | str) -> None:
    """Put an event into a function's queue, as `Invoke` with the type `Event` does.

    Args:
        sender: Who sends.
        function: ARN of the function, or of an alias or version.
        event: What the function gets, or its JSON.

    Raises:
        DeliveryError: There is no such function, or it takes nothing from there.
    """
    require_allowed(sender, "lambda:InvokeFunction", function)
    functions = running(Functions)
    if not functions:
        return  # Where localaws keeps records only, nothing is executed.
    name, _, qualifier = function.split(":", 6)[6].partition(":")
    text = event if isinstance(event, str) else json.dumps(event)
    try:
        functions.submit(name, qualifier or None, text.encode())
    except (JsonRESTError, InvocationError) as error:
        raise DeliveryError("ResourceNotFound", f"there is no {function}") from error


def send(sender: Sender, queue: str, body: str, **more: Any) -> None:
    """Send a message to a queue.

    Args:
        sender: Who sends.
        queue: ARN of the queue.
        body: The message.
        more: What moto's `send_message` takes besides.

    Raises:
        DeliveryError: There is no such queue, or it takes nothing from there.
    """
    require_allowed(sender, "sqs:SendMessage", queue)
    try:
        sqs_backends[ACCOUNT][regions.current()].send_message(queue.split(":")[5], body, **more)
    except (ServiceException, JsonRESTError) as error:
        raise DeliveryError("ResourceNotFound", f"{queue} takes no message: {error}") from error


def publish(sender: Sender, topic: str, message: str, subject: str | None = None) -> None:
    """Publish a message to a topic.

    Args:
        sender: Who publishes.
        topic: ARN of the topic.
        message: The message.
        subject: Its subject, if it has one.

    Raises:
        DeliveryError: There is no such topic, or it takes nothing from there.
    """
    require_allowed(sender, "sns:Publish", topic)
    try:
        sns_backends[ACCOUNT][regions.current()].publish(message, arn=topic, subject=subject)
    except (ServiceException, JsonRESTError, ValueError) as error:
        raise DeliveryError("ResourceNotFound", f"{topic} takes no message: {error}") from error
