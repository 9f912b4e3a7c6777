"""What one service hands to another: topics, buckets, rules, schedules and queues run functions."""

import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.localaws.conftest import LocalAws, until
from tests.localaws.roles import create_role, document

ARN = "arn:aws:{}:us-east-1:123456789012:{}"
FUNCTION = ARN.format("lambda", "function:kennel")
CODE = """
import json
def handler(event, context):
    print("GOT " + json.dumps(event))
    if "fail" in json.dumps(event):
        raise ValueError("as asked")
"""


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    """One whose function `kennel` prints its events."""
    running = LocalAws(tmp_path_factory.mktemp("running"), "--time-scale", "60")
    rights = [{"Effect": "Allow", "Action": ["logs:*", "sqs:*"], "Resource": "*"}]
    role = create_role(running.client("iam"), "kennel-lambda", "lambda", rights)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("main.py", CODE)
    running.client("lambda").create_function(
        FunctionName="kennel",
        Role=role,
        Runtime="python3.13",
        Handler="main.handler",
        Code={"ZipFile": packed.getvalue()},
        MemorySize=256,
    )
    yield running
    running.stop()


def got(aws: LocalAws, text: str) -> dict[str, Any]:
    """The first event with a text that the function got, once it did."""

    def events() -> list[str]:
        try:
            found = aws.client("logs").filter_log_events(logGroupName="/aws/lambda/kennel")
        except ClientError:
            return []
        return [e["message"] for e in found["events"] if "GOT" in e["message"]]

    message = until(lambda: next((m for m in events() if text in m), ""))
    event: dict[str, Any] = json.loads(message.partition("GOT ")[2])
    return event


def allow(aws: LocalAws, service: str, source: str) -> None:
    """Let a service run the function for one of its resources, and nothing else."""
    client = aws.client("lambda")
    with suppress(client.exceptions.ResourceNotFoundException):
        client.remove_permission(FunctionName="kennel", StatementId=service)
    client.add_permission(
        FunctionName="kennel",
        StatementId=service,
        Action="lambda:InvokeFunction",
        Principal=f"{service}.amazonaws.com",
        SourceArn=source,
    )


def queue(aws: LocalAws, name: str, *services: str, **attributes: str) -> str:
    """Create a queue that takes messages of services; give its URL."""
    policy = document(
        *(
            {
                "Effect": "Allow",
                "Principal": {"Service": f"{service}.amazonaws.com"},
                "Action": "sqs:SendMessage",
                "Resource": ARN.format("sqs", name),
                "Condition": {"StringEquals": {"aws:SourceAccount": "123456789012"}},
            }
            for service in services
        )
    )
    given = {**attributes, **({"Policy": policy} if services else {})}
    url: str = aws.client("sqs").create_queue(QueueName=name, Attributes=given)["QueueUrl"]
    return url


def message(aws: LocalAws, url: str) -> dict[str, Any]:
    """The first message of a queue, once there is one."""
    found = until(
        lambda: aws.client("sqs").receive_message(QueueUrl=url, MessageAttributeNames=["All"]),
        lambda answer: answer.get("Messages"),
    )
    first: dict[str, Any] = found["Messages"][0]
    return first


def refusal(error: pytest.ExceptionInfo[ClientError]) -> tuple[int, str]:
    answer = error.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Message"]


def test_a_topic_runs_a_function_that_allows_it(aws: LocalAws) -> None:
    sns = aws.client("sns")
    topic = sns.create_topic(Name="news")["TopicArn"]
    arn = sns.subscribe(TopicArn=topic, Protocol="lambda", Endpoint=FUNCTION)["SubscriptionArn"]
    allow(aws, "sns", topic)
    attributes = {"breed": {"DataType": "String", "StringValue": "Beagle"}}
    sent = sns.publish(
        TopicArn=topic, Message="by-topic", Subject="news", MessageAttributes=attributes
    )
    (record,) = got(aws, "by-topic")["Records"]
    assert (record["EventSource"], record["EventVersion"]) == ("aws:sns", "1.0")
    assert record["EventSubscriptionArn"] == arn
    told = record["Sns"]
    assert (told["Message"], told["Subject"]) == ("by-topic", "news")
    assert (told["Type"], told["TopicArn"]) == ("Notification", topic)
    assert told["MessageId"] == sent["MessageId"]
    assert told["MessageAttributes"] == {"breed": {"Type": "String", "Value": "Beagle"}}
    assert {"Timestamp", "SignatureVersion", "Signature", "SigningCertUrl"} < set(told)
    assert "UnsubscribeUrl" in told


def test_what_a_topic_may_not_hand_over_is_a_dead_letter(aws: LocalAws) -> None:
    sns = aws.client("sns")
    topic = sns.create_topic(Name="closed")["TopicArn"]
    letters = queue(aws, "sns-letters", "sns")
    closed = queue(aws, "closed")
    redrive = {
        "RedrivePolicy": json.dumps({"deadLetterTargetArn": ARN.format("sqs", "sns-letters")})
    }
    for protocol, endpoint in (("lambda", FUNCTION), ("sqs", ARN.format("sqs", "closed"))):
        sns.subscribe(TopicArn=topic, Protocol=protocol, Endpoint=endpoint, Attributes=redrive)
    sns.publish(TopicArn=topic, Message="forbidden")
    letter = message(aws, letters)
    assert json.loads(letter["Body"])["Message"] == "forbidden"
    assert letter["MessageAttributes"]["ErrorCode"]["StringValue"] == "AccessDenied"
    assert message(aws, letters)["MessageId"] != letter["MessageId"]
    assert "Messages" not in aws.client("sqs").receive_message(QueueUrl=closed)


def test_a_topic_reaches_a_queue_that_allows_it(aws: LocalAws) -> None:
    sns = aws.client("sns")
    topic = sns.create_topic(Name="queued")["TopicArn"]
    url = queue(aws, "queued", "sns")
    endpoint = ARN.format("sqs", "queued")
    raw = {"RawMessageDelivery": "false"}
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=endpoint, Attributes=raw)
    sns.publish(TopicArn=topic, Message="by-queue")
    assert json.loads(message(aws, url)["Body"])["Message"] == "by-queue"


def test_what_a_topic_cannot_reach_is_refused_by_name(aws: LocalAws) -> None:
    sns = aws.client("sns")
    topic = sns.create_topic(Name="far")["TopicArn"]
    endpoints = {"https": "https://example.com/", "sms": "+12065550100", "firehose": FUNCTION}
    for protocol, endpoint in endpoints.items():
        with pytest.raises(ClientError) as error:
            sns.subscribe(TopicArn=topic, Protocol=protocol, Endpoint=endpoint)
        assert refusal(error) == (
            501,
            f"localaws does not execute this sns:Subscribe: no message leaves by {protocol};"
            " sqs, lambda and email are known",
        )
    with pytest.raises(ClientError) as error:
        sns.publish(PhoneNumber="+12065550100", Message="none")
    assert refusal(error)[0] == 501
    with pytest.raises(ClientError) as error:
        sns.subscribe(TopicArn=topic, Protocol="pigeon", Endpoint="roof")
    assert error.value.response["Error"]["Code"] == "InvalidParameter"


def test_a_mail_address_stays_pending(aws: LocalAws) -> None:
    sns = aws.client("sns")
    topic = sns.create_topic(Name="mail")["TopicArn"]
    address = {"TopicArn": topic, "Protocol": "email", "Endpoint": "dogs@example.com"}
    assert sns.subscribe(**address)["SubscriptionArn"] == "pending confirmation"
    arn = sns.subscribe(**address, ReturnSubscriptionArn=True)["SubscriptionArn"]
    kept = sns.get_subscription_attributes(SubscriptionArn=arn)["Attributes"]
    assert kept["PendingConfirmation"] == "true"
    with pytest.raises(sns.exceptions.InvalidParameterException, match="pending confirmation"):
        sns.unsubscribe(SubscriptionArn=arn)
    with pytest.raises(sns.exceptions.InvalidParameterException, match="Token"):
        sns.confirm_subscription(TopicArn=topic, Token="guessed")


def test_a_message_for_several_protocols_needs_a_default(aws: LocalAws) -> None:
    sns = aws.client("sns")
    topic = sns.create_topic(Name="several")["TopicArn"]
    for text in ("no JSON", '{"sqs": "only"}'):
        with pytest.raises(sns.exceptions.InvalidParameterException, match="Message Structure"):
            sns.publish(TopicArn=topic, Message=text, MessageStructure="json")
