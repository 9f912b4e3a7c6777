"""SNS: topics whose messages arrive, at the queues and the functions that take them."""

import json
import re
import sys
from collections.abc import Mapping
from typing import Any, cast

from moto.core.responses import ActionResult
from moto.iam.models import iam_backends
from moto.sns import urls
from moto.sns.exceptions import SNSInvalidParameter, SNSNotFoundError
from moto.sns.models import SNSBackend, Subscription
from moto.sns.responses import SNSResponse
from moto.sqs.models import sqs_backends

from localaws import deliveries, regions
from localaws.additions import Gap
from localaws.additions._moto import (
    ACCOUNT,
    REGION,
    answer_with,
    before,
    plain_client,
    refuses,
    wrap,
)
from localaws.additions.iam import unknown_principal
from localaws.deliveries import DeliveryError, Sender, kind_of
from localaws.operations import RefusedError

Json = dict[str, Any]

_PENDING = ("email", "email-json")
"""Protocols whose subscriptions wait for a click in a mail, which nobody gets here."""
_QUEUE = f"arn:aws:sqs:{REGION}:{ACCOUNT}:probe"


class Answers(SNSResponse):
    """Moto's answers, with refusals of what nobody here would get."""

    def subscribe(self) -> ActionResult:
        """Subscribe a queue, a function, or a mail address that never confirms it."""
        answer = super().subscribe()
        arn = cast(dict[str, str], answer.result)["SubscriptionArn"]
        subscription = self.backend.subscriptions[arn]
        # As text moto takes "false" for true.
        raw = str(subscription.attributes["RawMessageDelivery"]).lower() == "true"
        subscription.attributes["RawMessageDelivery"] = raw
        if _is_pending(subscription) and self._get_param("ReturnSubscriptionArn") is not True:
            return ActionResult({"SubscriptionArn": "pending confirmation"})
        return answer

    def confirm_subscription(self) -> ActionResult:
        """Refuse a token: nobody was sent any."""
        if self._get_param("TopicArn") not in self.backend.topics:
            raise SNSNotFoundError("Topic does not exist")
        raise SNSInvalidParameter("Invalid parameter: Token")

    def publish(self) -> ActionResult:
        """Publish to a topic."""
        if self._get_param("PhoneNumber"):
            raise RefusedError("no text message leaves for a PhoneNumber")
        if ":endpoint/" in (self._get_param("TargetArn") or ""):
            raise RefusedError("no message leaves for a platform's endpoint")
        return super().publish()


def _is_pending(subscription: Subscription) -> bool:
    return subscription.protocol in _PENDING


def _subscribe(
    original: Any, backend: SNSBackend, topic_arn: str, endpoint: str, protocol: str
) -> Subscription:
    """Make a subscription that can be served, as AWS would state it."""
    topic = backend.get_topic(topic_arn)
    # SNS's own list is in its documentation only.
    if protocol not in ("sqs", "lambda", *_PENDING):
        if protocol in ("http", "https", "sms", "application", "firehose"):
            raise RefusedError(f"no message leaves by {protocol}; sqs, lambda and email are known")
        raise SNSInvalidParameter(
            f"Invalid parameter: Amazon SNS does not support this protocol string: {protocol}"
        )
    if protocol in ("sqs", "lambda"):
        if endpoint.split(":")[2:3] != [protocol]:
            name = {"sqs": "SQS", "lambda": "Lambda"}[protocol]
            raise SNSInvalidParameter(f"Invalid parameter: {name} endpoint ARN")
        if kind_of(endpoint) != protocol:
            raise RefusedError(f"{endpoint} is of another account or region")
    if protocol == "lambda" and topic.fifo_topic:
        raise SNSInvalidParameter(
            "Invalid parameter: Invalid parameter: Endpoint Reason: FIFO SNS topics do not"
            " support Lambda subscriptions"
        )
    subscription: Subscription = original(backend, topic_arn, endpoint, protocol)
    if _is_pending(subscription):
        subscription.attributes.update(PendingConfirmation=True, ConfirmationWasAuthenticated=False)
    return subscription


def _unsubscribe(original: Any, backend: SNSBackend, arn: str) -> None:
    """End a subscription; SNS forgets by itself one that is not confirmed."""
    subscription = backend.subscriptions.get(arn)
    if subscription and _is_pending(subscription):
        raise SNSInvalidParameter(
            "Invalid parameter: SubscriptionArn Reason: Cannot unsubscribe a subscription that is"
            " pending confirmation"
        )
    original(backend, arn)


def _deliver(
    original: Any,
    subscription: Subscription,
    message: str,
    message_id: str,
    subject: str | None = None,
    message_attributes: Json | None = None,
    group_id: str | None = None,
    deduplication_id: str | None = None,
    message_structure: str | None = None,
) -> None:
    """Hand a message to what is subscribed, or to its dead-letter queue."""
    matcher = subscription._filter_policy_matcher
    if _is_pending(subscription) or (matcher and not matcher.matches(message_attributes, message)):
        return
    sender, endpoint = _sender(subscription), subscription.endpoint
    try:
        if subscription.protocol == "sqs":
            deliveries.require_allowed(sender, "sqs:SendMessage", endpoint)
            # moto has the formats of queues; what it looks up has to be there.
            _require_queue(endpoint)
            original(
                subscription,
                message,
                message_id,
                subject,
                message_attributes,
                group_id,
                deduplication_id,
                message_structure,
            )
            return
        if message_structure == "json":
            message = subscription._parse_message_structure(message, subscription.protocol)
        told = subscription.get_post_data(message, message_id, subject, message_attributes)
        deliveries.submit(sender, endpoint, _records(subscription, told))
    except DeliveryError as error:
        _give_up(subscription, error, message, message_id)


def _sender(subscription: Subscription) -> Sender:
    return Sender.service("sns.amazonaws.com", subscription.topic.arn)


def _records(subscription: Subscription, told: Json) -> Json:
    """What a function gets; it spells two names otherwise than a queue's message does."""
    attributes = told.get("MessageAttributes") or {}
    sns = {
        **{name: value for name, value in told.items() if not name.endswith("URL")},
        "SigningCertUrl": told["SigningCertURL"],
        "UnsubscribeUrl": told["UnsubscribeURL"],
        "Subject": told.get("Subject"),
        "MessageAttributes": attributes,
    }
    record = {
        "EventSource": "aws:sns",
        "EventVersion": "1.0",
        "EventSubscriptionArn": subscription.arn,
        "Sns": sns,
    }
    return {"Records": [record]}


def _require_queue(arn: str) -> None:
    if arn.split(":")[5] not in sqs_backends[ACCOUNT][regions.current()].queues:
        raise DeliveryError("ResourceNotFound", f"there is no {arn}")


def _give_up(
    subscription: Subscription, error: DeliveryError, message: str, message_id: str
) -> None:
    """Send what cannot be delivered to the subscription's dead-letter queue, if it has one."""
    print(f"{subscription.topic.arn}: {error}", file=sys.stderr, flush=True)
    redrive = json.loads(subscription.attributes.get("RedrivePolicy") or "{}")
    if letters := redrive.get("deadLetterTargetArn"):
        body = json.dumps(subscription.get_post_data(message, message_id, None))
        attributes = {
            "ErrorCode": {"DataType": "String", "StringValue": error.code},
            "ErrorMessage": {"DataType": "String", "StringValue": str(error)},
        }
        try:
            deliveries.send(_sender(subscription), letters, body, message_attributes=attributes)
        except DeliveryError as lost:
            lost_by = subscription.topic.arn
            print(f"{lost_by}: a message is lost: {lost}", file=sys.stderr, flush=True)


def _checks_structure(original: Any, backend: SNSBackend, message: str, **more: Any) -> str:
    """Refuse a message for several protocols that says nothing to some, before anybody has it."""
    if more.get("message_structure") == "json":
        try:
            told = json.loads(message)
        except ValueError:
            raise SNSInvalidParameter(
                "Invalid parameter: Message Structure - JSON message body failed to parse"
            ) from None
        if not isinstance(told, Mapping) or "default" not in told:
            raise SNSInvalidParameter(
                "Invalid parameter: Message Structure - No default entry in JSON message body"
            )
    published: str = original(backend, message, **more)
    return published


def _waits_for_click() -> bool:
    with plain_client("sns") as sns:
        topic = sns.create_topic(Name="probe")["TopicArn"]
        arn = sns.subscribe(TopicArn=topic, Protocol="email", Endpoint="probe@example.com")[
            "SubscriptionArn"
        ]
        return bool(arn == "pending confirmation")


def _refuses_token() -> bool:
    with plain_client("sns") as sns:
        topic = sns.create_topic(Name="probe")["TopicArn"]
        return refuses(lambda: sns.confirm_subscription(TopicArn=topic, Token="probe"))  # noqa: S106


def _asks_queue() -> bool:
    with plain_client("sqs") as sqs, plain_client("sns") as sns:
        url = sqs.create_queue(QueueName="probe")["QueueUrl"]
        topic = sns.create_topic(Name="probe")["TopicArn"]
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=_QUEUE)
        sns.publish(TopicArn=topic, Message="probe")
        return "Messages" not in sqs.receive_message(QueueUrl=url)


def _checks_json() -> bool:
    with plain_client("sns") as sns:
        topic = sns.create_topic(Name="probe")["TopicArn"]
        return refuses(
            lambda: sns.publish(TopicArn=topic, Message="probe", MessageStructure="json")
        )


def _checks_policies() -> bool:
    with plain_client("sns") as sns:
        topic = sns.create_topic(Name="probe")["TopicArn"]
        statement = {"Effect": "Allow", "Principal": "*", "Action": "sns:*", "Resource": topic}
        given = {"AttributeName": "Policy", "AttributeValue": json.dumps({"Statement": statement})}
        return refuses(lambda: sns.set_topic_attributes(TopicArn=topic, **given))


GAPS = [
    Gap("sns", "Subscribe.Protocol", "a mail address is confirmed by nobody", _waits_for_click),
    Gap("sns", "ConfirmSubscription", "any token confirms any subscription", _refuses_token),
    Gap("sns", "Publish", "a queue gets what its policy forbids; no function runs", _asks_queue),
    Gap(
        "sns",
        "SetTopicAttributes, CreateTopic.Attributes",
        "policies that SNS cannot evaluate and unknown attributes are taken",
        _checks_policies,
    ),
    Gap("sns", "Publish.MessageStructure", "what is no JSON is taken", _checks_json),
]


def install() -> None:
    """Put the additions in moto's place."""
    wrap(SNSBackend, "subscribe", _subscribe)
    wrap(SNSBackend, "unsubscribe", _unsubscribe)
    wrap(SNSBackend, "publish", _checks_structure)
    wrap(Subscription, "publish", _deliver)
    before(Answers, "create_topic", _check_topic)
    before(Answers, "get_topic_attributes", _check_arn)
    before(Answers, "set_topic_attributes", _check_attribute)
    before(Answers, "subscribe", _check_address)
    before(Answers, "publish", _check_message)
    answer_with(urls, Answers)


# What a topic's policy may be about: "SNS API permissions" of the developer guide.
_POLICY_ACTIONS = {
    "sns:addpermission",
    "sns:deletetopic",
    "sns:getdataprotectionpolicy",
    "sns:gettopicattributes",
    "sns:listsubscriptionsbytopic",
    "sns:listtagsforresource",
    "sns:publish",
    "sns:putdataprotectionpolicy",
    "sns:receive",
    "sns:removepermission",
    "sns:settopicattributes",
    "sns:subscribe",
}
_ATTRIBUTES = {
    "ArchivePolicy",
    "ContentBasedDeduplication",
    "DataProtectionPolicy",
    "DeliveryPolicy",
    "DisplayName",
    "FifoThroughputScope",
    "FifoTopic",
    "KmsMasterKeyId",
    "Policy",
    "SignatureVersion",
    "TracingConfig",
}
_FEEDBACK = re.compile(r"(Application|Firehose|HTTP|Lambda|SQS)(Failure|Success)Feedback\w+")
_MAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")


def _check_topic(response: Answers, told: Mapping[str, Any]) -> None:
    """A topic that is there has the attributes and tags that are asked for again."""
    for name, value in (told.get("Attributes") or {}).items():
        _check_attribute(response, {"AttributeName": name, "AttributeValue": value})
    arn = f"arn:aws:sns:{response.region}:{response.current_account}:{told['Name']}"
    if arn not in response.backend.topics:
        return
    tags = {tag["Key"]: tag["Value"] for tag in told.get("Tags") or []}
    if tags and tags != response.backend.list_tags_for_resource(arn):
        raise SNSInvalidParameter(
            "Invalid parameter: Tags Reason: Topic already exists with different tags"
        )


def _check_arn(_: Answers, told: Mapping[str, Any]) -> None:
    count = len(told["TopicArn"].split(":"))
    if count < 6:
        raise SNSInvalidParameter(
            f"Invalid parameter: TopicArn Reason: An ARN must have at least 6 elements, not {count}"
        )


def _check_attribute(_: Answers, told: Mapping[str, Any]) -> None:
    name, value = told["AttributeName"], told.get("AttributeValue")
    if name not in _ATTRIBUTES and not _FEEDBACK.fullmatch(name):
        raise SNSInvalidParameter("Invalid parameter: AttributeName")
    if name != "Policy" or not value:
        return
    try:
        statements = json.loads(value)["Statement"]
        statements = statements if isinstance(statements, list) else [statements]
        actions = [
            action
            for statement in statements
            for action in _listed(statement.get("Action", statement.get("NotAction")))
        ]
    except (AttributeError, KeyError, TypeError, ValueError):
        raise SNSInvalidParameter("Invalid parameter: Policy failed to parse") from None
    if any(str(action).lower() not in _POLICY_ACTIONS for action in actions):
        raise SNSInvalidParameter(
            "Invalid parameter: Policy statement action out of service scope!"
        )
    if unknown_principal(iam_backends[ACCOUNT]["aws"], value):
        raise SNSInvalidParameter("Invalid parameter: Policy Error: PrincipalNotFound")


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _check_address(_: Answers, told: Mapping[str, Any]) -> None:
    if told["Protocol"] in _PENDING and not _MAIL.fullmatch(told.get("Endpoint") or ""):
        raise SNSInvalidParameter("Invalid parameter: Email address")


def _check_message(_: Answers, told: Mapping[str, Any]) -> None:
    if not told["Message"]:
        raise SNSInvalidParameter("Invalid parameter: Empty message")
