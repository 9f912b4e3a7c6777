"""What one service hands to another: topics, buckets, rules, schedules and queues run functions."""

import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto.events.models import events_backends
from moto.sqs.models import sqs_backends

from localaws.rules import Rules
from tests.localaws.conftest import LocalAws, until
from tests.localaws.roles import create_role, document

ACCOUNT = "123456789012"
ARN = "arn:aws:{}:us-east-1:" + ACCOUNT + ":{}"
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
            f"localaws does not execute sns:Subscribe: no message leaves by {protocol};"
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


def notify(aws: LocalAws, bucket: str, kind: str, arn: str, *events: str, **more: Any) -> None:
    """Let a bucket tell something of its objects."""
    member = {"Lambda": "LambdaFunctionArn", "Queue": "QueueArn", "Topic": "TopicArn"}[kind]
    key = f"{kind}FunctionConfigurations" if kind == "Lambda" else f"{kind}Configurations"
    configuration = {"Id": "tests", member: arn, "Events": list(events), **more}
    aws.client("s3").put_bucket_notification_configuration(
        Bucket=bucket, NotificationConfiguration={key: [configuration]}
    )


def test_a_bucket_runs_a_function_that_allows_it(aws: LocalAws) -> None:
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="photos")
    for events in (["s3:ObjectCreated:*"], ["s3:ObjectRemoved:*"]):
        with pytest.raises(ClientError, match="Unable to validate the following destination"):
            notify(aws, "photos", "Lambda", FUNCTION, *events)
    assert "LambdaFunctionConfigurations" not in s3.get_bucket_notification_configuration(
        Bucket="photos"
    )
    allow(aws, "s3", "arn:aws:s3:::photos")
    rules = [{"Name": "suffix", "Value": ".jpg"}]
    notify(
        aws,
        "photos",
        "Lambda",
        FUNCTION,
        "s3:ObjectCreated:*",
        Filter={"Key": {"FilterRules": rules}},
    )
    s3.put_object(Bucket="photos", Key="not.png", Body=b"dog")
    s3.put_object(Bucket="photos", Key="a dog/1.jpg", Body=b"dog")
    (record,) = got(aws, "a+dog/1.jpg")["Records"]
    assert (record["eventSource"], record["eventName"]) == ("aws:s3", "ObjectCreated:Put")
    assert record["s3"]["bucket"]["arn"] == "arn:aws:s3:::photos"
    assert record["s3"]["object"]["size"] == 3
    assert record["s3"]["configurationId"] == "tests"


def test_a_bucket_tells_a_queue_of_each_version(aws: LocalAws) -> None:
    s3, sqs = aws.client("s3"), aws.client("sqs")
    s3.create_bucket(Bucket="versions")
    enabled = {"Status": "Enabled"}
    s3.put_bucket_versioning(Bucket="versions", VersioningConfiguration=enabled)
    url = queue(aws, "versions", "s3")
    notify(aws, "versions", "Queue", ARN.format("sqs", "versions"), "s3:ObjectRemoved:*")
    test = message(aws, url)
    assert json.loads(test["Body"])["Event"] == "s3:TestEvent"
    sqs.delete_message(QueueUrl=url, ReceiptHandle=test["ReceiptHandle"])
    version = s3.put_object(Bucket="versions", Key="dog", Body=b"dog")["VersionId"]
    s3.delete_object(Bucket="versions", Key="dog")
    s3.delete_object(Bucket="versions", Key="dog", VersionId=version)
    told = [json.loads(message(aws, url)["Body"])["Records"][0] for _ in range(2)]
    names = sorted(record["eventName"] for record in told)
    assert names == ["ObjectRemoved:Delete", "ObjectRemoved:DeleteMarkerCreated"]


def test_events_that_never_happen_are_refused(aws: LocalAws) -> None:
    aws.client("s3").create_bucket(Bucket="never")
    with pytest.raises(ClientError) as error:
        notify(aws, "never", "Lambda", FUNCTION, "s3:Replication:*")
    assert refusal(error) == (
        501,
        "localaws does not execute s3:PutBucketNotificationConfiguration: s3:Replication:*"
        " never happens here",
    )


def rule(aws: LocalAws, name: str, target: dict[str, Any], **given: Any) -> str:
    """Make a rule with one target; give its ARN."""
    events = aws.client("events")
    arn: str = events.put_rule(Name=name, **given)["RuleArn"]
    events.put_targets(Rule=name, Targets=[{"Id": "1", **target}])
    return arn


def put(aws: LocalAws, **detail: Any) -> Any:
    """Send an event of `kennel.tests`."""
    entry = {"Source": "kennel.tests", "DetailType": "Test", "Detail": json.dumps(detail)}
    return aws.client("events").put_events(Entries=[entry])


def test_a_rule_runs_a_function_for_what_matches(aws: LocalAws) -> None:
    pattern = json.dumps({"source": ["kennel.tests"], "detail": {"breed": [{"prefix": "Bea"}]}})
    allow(aws, "events", rule(aws, "dogs", {"Arn": FUNCTION}, EventPattern=pattern))
    scheduled = rule(aws, "daily", {"Arn": FUNCTION}, ScheduleExpression="rate(1 day)")
    assert scheduled.endswith(":rule/daily")
    put(aws, breed="Pug", mark="unmatched")
    sent = put(aws, breed="Beagle", mark="matched")
    event = got(aws, '"matched"')
    assert event["id"] == sent["Entries"][0]["EventId"]
    assert (event["detail-type"], event["source"]) == ("Test", "kennel.tests")
    assert event["detail"] == {"breed": "Beagle", "mark": "matched"}
    assert set(event) == {
        *("version", "id", "detail-type", "source", "account"),
        *("time", "region", "resources", "detail"),
    }
    assert event["time"].endswith("Z")
    logs = aws.client("logs").filter_log_events(logGroupName="/aws/lambda/kennel")["events"]
    assert not [line for line in logs if "unmatched" in line["message"]]


def test_a_rule_that_is_off_or_may_not_hands_nothing_over(aws: LocalAws) -> None:
    letters = queue(aws, "event-letters", "events")
    pattern = json.dumps({"source": ["kennel.tests"], "detail": {"mark": ["closed"]}})
    dead = {"DeadLetterConfig": {"Arn": ARN.format("sqs", "event-letters")}}
    arn = rule(aws, "closed", {"Arn": ARN.format("sns", "absent"), **dead}, EventPattern=pattern)
    off = queue(aws, "off", "events")
    rule(aws, "off", {"Arn": ARN.format("sqs", "off")}, EventPattern=pattern, State="DISABLED")
    put(aws, mark="closed")
    letter = message(aws, letters)
    told = {name: value["StringValue"] for name, value in letter["MessageAttributes"].items()}
    assert (told["RULE_ARN"], told["ERROR_CODE"]) == (arn, "NO_PERMISSIONS")
    assert json.loads(letter["Body"])["detail"] == {"mark": "closed"}
    assert "Messages" not in aws.client("sqs").receive_message(QueueUrl=off)


def test_a_target_gets_what_its_input_is_made_into(aws: LocalAws) -> None:
    url = queue(aws, "made", "events")
    pattern = json.dumps({"source": ["kennel.tests"], "detail": {"mark": ["made"]}})
    transformer = {
        "InputPathsMap": {"breed": "$.detail.breed", "detail": "$.detail"},
        "InputTemplate": '{"text": "a <breed>", "breed": <breed>, "all": <detail>,'
        ' "rule": "<aws.events.rule-name>"}',
    }
    target = {"Arn": ARN.format("sqs", "made"), "InputTransformer": transformer}
    rule(aws, "made", target, EventPattern=pattern)
    put(aws, mark="made", breed='"Bully"')
    assert json.loads(message(aws, url)["Body"]) == {
        "text": 'a "Bully"',
        "breed": '"Bully"',
        "all": {"mark": "made", "breed": '"Bully"'},
        "rule": "made",
    }


def test_rules_that_would_do_nothing_are_refused(aws: LocalAws) -> None:
    events = aws.client("events")
    for source in ("aws.ec2", {"prefix": "aws.sagemaker"}):
        with pytest.raises(ClientError) as error:
            events.put_rule(Name="far", EventPattern=json.dumps({"source": [source]}))
        assert refusal(error)[0] == 501
    pattern = json.dumps({"source": ["kennel.tests"]})
    target = {"Arn": ARN.format("kinesis", "stream/far")}
    with pytest.raises(ClientError) as error:
        rule(aws, "far", target, EventPattern=pattern)
    assert refusal(error)[0] == 501
    for given in ({"EventPattern": '{"source": [{"like": "x"}]}'}, {"ScheduleExpression": "daily"}):
        with pytest.raises(ClientError) as error:
            events.put_rule(Name="far", **given)
        assert refusal(error)[0] == 400
    entry = {"Source": "aws.ec2", "DetailType": "Test", "Detail": "{}"}
    (answer,) = events.put_events(Entries=[entry])["Entries"]
    assert answer["ErrorCode"] == "NotAuthorizedForSourceException"
    with pytest.raises(ClientError, match="events:CreateArchive"):
        events.create_archive(ArchiveName="far", EventSourceArn=ARN.format("events", "event-bus/x"))


def test_a_bucket_reaches_functions_by_eventbridge(aws: LocalAws) -> None:
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="bridged")
    s3.put_bucket_notification_configuration(
        Bucket="bridged", NotificationConfiguration={"EventBridgeConfiguration": {}}
    )
    pattern = json.dumps({"source": ["aws.s3"], "detail": {"bucket": {"name": ["bridged"]}}})
    allow(aws, "events", rule(aws, "bridged", {"Arn": FUNCTION}, EventPattern=pattern))
    s3.put_object(Bucket="bridged", Key="by bridge", Body=b"dog")
    event = got(aws, "by bridge")
    assert event["detail-type"] == "Object Created"
    assert event["detail"]["object"]["size"] == 3
    assert event["detail"]["reason"] == "PutObject"


def test_a_schedule_runs_a_function_under_its_role(aws: LocalAws) -> None:
    scheduler = aws.client("scheduler")
    invoke = [{"Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": FUNCTION}]
    role = create_role(aws.client("iam"), "schedules", "scheduler", invoke)
    stranger = create_role(aws.client("iam"), "stranger", "lambda", ())
    soon = (datetime.now(UTC) + timedelta(seconds=3)).strftime("at(%Y-%m-%dT%H:%M:%S)")

    def schedule(name: str, expression: str, role: str, arn: str = FUNCTION) -> None:
        scheduler.create_schedule(
            Name=name,
            ScheduleExpression=expression,
            FlexibleTimeWindow={"Mode": "OFF"},
            ActionAfterCompletion="DELETE",
            Target={"Arn": arn, "RoleArn": role, "Input": '{"by": "<aws.scheduler.schedule-arn>"}'},
        )

    for name, expression, by in (("often", "often", role), ("strange", soon, stranger)):
        with pytest.raises(scheduler.exceptions.ValidationException):
            schedule(name, expression, by)
    with pytest.raises(ClientError) as error:
        schedule("far", soon, role, "arn:aws:scheduler:::aws-sdk:ec2:stopInstances")
    assert refusal(error)[0] == 501
    schedule("soon", soon, role)
    assert got(aws, "schedule/default/soon")["by"].endswith(":schedule/default/soon")
    until(lambda: not scheduler.list_schedules()["Schedules"])


def test_a_queue_runs_a_function_in_batches(aws: LocalAws) -> None:
    client, sqs = aws.client("lambda"), aws.client("sqs")
    letters = queue(aws, "batch-letters")
    redrive = {"deadLetterTargetArn": ARN.format("sqs", "batch-letters"), "maxReceiveCount": 1}
    given = {"RedrivePolicy": json.dumps(redrive), "VisibilityTimeout": "3"}
    url, arn = queue(aws, "batches", **given), ARN.format("sqs", "batches")
    attributes = {"breed": {"DataType": "String", "StringValue": "Pug"}}
    sqs.send_message(QueueUrl=url, MessageBody="in a batch", MessageAttributes=attributes)
    mapping = client.create_event_source_mapping(EventSourceArn=arn, FunctionName="kennel")
    assert mapping["State"] == "Creating"
    (record,) = got(aws, "in a batch")["Records"]
    assert (record["eventSource"], record["eventSourceARN"]) == ("aws:sqs", arn)
    assert record["messageAttributes"]["breed"]["stringValue"] == "Pug"
    assert record["attributes"]["ApproximateReceiveCount"] == "1"
    sqs.send_message(QueueUrl=url, MessageBody="to fail")
    assert message(aws, letters)["Body"] == "to fail"
    left = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    until(
        lambda: sqs.get_queue_attributes(QueueUrl=url, AttributeNames=left)["Attributes"],
        lambda found: set(found.values()) == {"0"},
    )
    client.delete_event_source_mapping(UUID=mapping["UUID"])
    sqs.send_message(QueueUrl=url, MessageBody="no longer")
    assert message(aws, url)["Body"] == "no longer"


def test_mappings_that_cannot_be_served_are_refused(aws: LocalAws) -> None:
    client = aws.client("lambda")
    queue(aws, "short", VisibilityTimeout="1")
    queue(aws, "long", VisibilityTimeout="60")
    known = {"FunctionName": "kennel", "EventSourceArn": ARN.format("sqs", "long")}
    stream = ARN.format("kinesis", "stream/dogs")
    pattern = {"FilterCriteria": {"Filters": [{"Pattern": "{}"}]}}
    for more, status in (
        ({"EventSourceArn": stream, "StartingPosition": "LATEST"}, 501),
        (pattern, 501),
        ({"EventSourceArn": ARN.format("sqs", "short")}, 400),
        ({"EventSourceArn": ARN.format("sqs", "absent")}, 400),
        ({"BatchSize": 100}, 400),
    ):
        with pytest.raises(ClientError) as error:
            client.create_event_source_mapping(**{**known, **more})
        assert refusal(error)[0] == status, more
    assert not client.list_event_source_mappings(FunctionName="kennel")["EventSourceMappings"]


def test_a_rule_is_due_by_its_schedule() -> None:
    """In this process: a rule's schedule is due on the minute, for which nobody should wait."""
    events, queues = events_backends[ACCOUNT]["us-east-1"], sqs_backends[ACCOUNT]["us-east-1"]
    target = ARN.format("sqs", "due")
    policy = {"Effect": "Allow", "Principal": "*", "Action": "sqs:SendMessage", "Resource": target}
    due = queues.create_queue("due", Policy=document(policy))
    events.put_rule("hourly", scheduled_expression="cron(0 * * * ? *)")
    events.put_targets("hourly", None, [{"Id": "1", "Arn": target}])
    noon = datetime(2026, 11, 30, 12, tzinfo=UTC)
    second = timedelta(seconds=1)
    rules = Rules(SimpleNamespace(changing=nullcontext))  # type: ignore[arg-type]
    try:
        rules.run((noon, noon + second))
        assert not due.messages
        rules.run((noon - second, noon))
        (sent,) = due.messages
        event = json.loads(sent.body)
        assert (event["source"], event["detail-type"]) == ("aws.events", "Scheduled Event")
        assert event["resources"] == [ARN.format("events", "rule/hourly")]
    finally:
        events.remove_targets("hourly", None, ["1"])
        events.delete_rule("hourly", None)
        queues.delete_queue("due")
