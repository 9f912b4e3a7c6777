"""What the AWS CLI's usual commands and other people's Terraform modules met."""

import io
import json
import zipfile
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.localaws.conftest import LocalAws

ACCOUNT = "123456789012"
TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "lambda.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    ],
}


def error_of(call: Any, **parameters: Any) -> tuple[str, str]:
    """The code and the message that a call is refused with."""
    with pytest.raises(ClientError) as error:
        call(**parameters)
    told = error.value.response["Error"]
    return told["Code"], told["Message"]


@pytest.mark.parametrize(
    ("service", "operation", "parameters"),
    [
        ("cloudwatch", "put_insight_rule", {"RuleName": "r", "RuleDefinition": "{}"}),
        ("ec2", "request_spot_instances", {"InstanceCount": 1}),
        ("ec2", "reboot_instances", {"InstanceIds": ["i-0123456789abcdef0"]}),
        ("ecr", "start_image_scan", {"repositoryName": "rr", "imageId": {"imageTag": "t"}}),
        (
            "logs",
            "put_delivery_source",
            {"name": "d", "resourceArn": "arn:aws:s3:::b", "logType": "x"},
        ),
        ("logs", "start_query", {"startTime": 0, "endTime": 9, "queryString": "nonsense |"}),
        ("s3", "restore_object", {"Bucket": "b-b", "Key": "k"}),
        (
            "s3",
            "put_bucket_website",
            {"Bucket": "b-b", "WebsiteConfiguration": {"IndexDocument": {"Suffix": "i"}}},
        ),
        (
            "s3",
            "select_object_content",
            {
                "Bucket": "b-b",
                "Key": "k",
                "Expression": "select * from s3object s where s.a='1'",
                "ExpressionType": "SQL",
                "InputSerialization": {"CSV": {}},
                "OutputSerialization": {"CSV": {}},
            },
        ),
        ("ssm", "send_command", {"DocumentName": "AWS-RunShellScript"}),
        ("sts", "get_session_token", {}),
        # Services whose records would say that something runs.
        ("eks", "list_clusters", {}),
        ("redshift-data", "execute_statement", {"Sql": "select 1"}),
        ("firehose", "list_delivery_streams", {}),
        ("rds", "describe_db_instances", {}),
        ("organizations", "describe_organization", {}),
    ],
)
def test_what_only_a_record_would_be_made_of_is_refused_by_name(
    aws: LocalAws, service: str, operation: str, parameters: dict[str, Any]
) -> None:
    client = aws.client(service)
    code, message = error_of(getattr(client, operation), **parameters)
    assert code == "NotImplemented"
    name = client.meta.method_to_api_mapping[operation]
    assert message.startswith(f"localaws does not execute {service}:{name}: ")


def test_a_stack_of_what_nothing_here_makes_is_refused_whole(aws: LocalAws) -> None:
    cloudformation = aws.client("cloudformation")
    resources = {
        "Queue": {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": "of-a-stack"}},
        "Other": {"Type": "AWS::Nowhere::Thing"},
    }
    template = json.dumps({"Resources": resources})
    code, message = error_of(cloudformation.create_stack, StackName="half", TemplateBody=template)
    assert (code, "AWS::Nowhere::Thing" in message) == ("NotImplemented", True)
    assert cloudformation.describe_stacks()["Stacks"] == []
    assert not aws.client("sqs").list_queues(QueueNamePrefix="of-a-stack").get("QueueUrls")


def test_a_role_that_is_not_there_gives_no_keys(aws: LocalAws) -> None:
    code, message = error_of(
        aws.client("sts").assume_role,
        RoleArn=f"arn:aws:iam::{ACCOUNT}:role/nobody",
        RoleSessionName="probe",
    )
    assert code == "AccessDenied"
    assert message == (
        f"User: arn:aws:iam::{ACCOUNT}:user/administrator is not authorized to perform:"
        f" sts:AssumeRole on resource: arn:aws:iam::{ACCOUNT}:role/nobody"
    )


def test_who_names_no_user_is_told_of_itself(aws: LocalAws) -> None:
    identity = aws.client("sts").get_caller_identity()
    user = aws.client("iam").get_user()["User"]
    assert (user["Arn"], user["UserId"]) == (identity["Arn"], identity["UserId"])


def test_a_log_group_keeps_its_class(aws: LocalAws) -> None:
    logs = aws.client("logs")
    logs.create_log_group(logGroupName="/foreign/rare", logGroupClass="INFREQUENT_ACCESS")
    logs.create_log_group(logGroupName="/foreign/usual")
    groups = logs.describe_log_groups(logGroupNamePrefix="/foreign/")["logGroups"]
    assert [group["logGroupClass"] for group in groups] == ["INFREQUENT_ACCESS", "STANDARD"]
    code, message = error_of(
        logs.create_log_group, logGroupName="/foreign/kept", deletionProtectionEnabled=True
    )
    assert (code, "deletionProtectionEnabled" in message) == ("NotImplemented", True)


def test_a_bucket_tells_that_event_bridge_is_told(aws: LocalAws) -> None:
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="foreign-bridge")
    assert "EventBridgeConfiguration" not in s3.get_bucket_notification_configuration(
        Bucket="foreign-bridge"
    )
    s3.put_bucket_notification_configuration(
        Bucket="foreign-bridge", NotificationConfiguration={"EventBridgeConfiguration": {}}
    )
    told = s3.get_bucket_notification_configuration(Bucket="foreign-bridge")
    assert told["EventBridgeConfiguration"] == {}


def test_a_mapping_calls_the_alias_and_the_function_that_it_was_given(aws: LocalAws) -> None:
    role = aws.client("iam").create_role(
        RoleName="foreign-mapping", AssumeRolePolicyDocument=json.dumps(TRUST)
    )["Role"]["Arn"]
    queue = aws.client("sqs").create_queue(QueueName="foreign-mapping")["QueueUrl"]
    source = f"arn:aws:sqs:us-east-1:{ACCOUNT}:{queue.rpartition('/')[2]}"
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        archive.writestr("fn.py", "def handler(event, context): return None\n")
    client = aws.client("lambda")
    arns = [
        client.create_function(
            FunctionName=name,
            Runtime="python3.13",
            Role=role,
            Handler="fn.handler",
            Code={"ZipFile": code.getvalue()},
        )["FunctionArn"]
        for name in ("foreign-first", "foreign-second")
    ]
    version = client.publish_version(FunctionName="foreign-first")["Version"]
    client.create_alias(FunctionName="foreign-first", Name="live", FunctionVersion=version)
    mapping = client.create_event_source_mapping(
        FunctionName="foreign-first:live", EventSourceArn=source
    )
    assert mapping["FunctionArn"] == f"{arns[0]}:live"
    uuid = mapping["UUID"]
    assert client.get_event_source_mapping(UUID=uuid)["FunctionArn"] == f"{arns[0]}:live"
    client.update_event_source_mapping(UUID=uuid, FunctionName="foreign-second")
    found = client.list_event_source_mappings(FunctionName="foreign-second")
    assert [each["FunctionArn"] for each in found["EventSourceMappings"]] == [arns[1]]
    # A service beside Lambda has the same path.
    assert client.list_tags(Resource=mapping["EventSourceMappingArn"])["Tags"] == {}
    client.delete_event_source_mapping(UUID=uuid)
    for arn in arns:
        client.delete_function(FunctionName=arn)


@pytest.mark.parametrize("pattern", ["{ $.a = 1 }", "?dogs ?cats", "%do+gs%", "dogs -cats", '"'])
def test_a_pattern_that_is_not_understood_finds_nothing(aws: LocalAws, pattern: str) -> None:
    code, message = error_of(
        aws.client("logs").filter_log_events, logGroupName="/foreign", filterPattern=pattern
    )
    assert (code, pattern in message) == ("NotImplemented", True)
