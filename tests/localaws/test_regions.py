"""Each region is its own: what is made in one runs there and bears its name."""

import io
import json
import zipfile
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.localaws.conftest import LocalAws, until
from tests.localaws.raw import send, signed
from tests.localaws.roles import create_role

HERE, THERE = "us-east-1", "eu-west-1"
FUNCTION = """
import os, boto3
def handler(event, context):
    told = boto3.client("logs").meta.region_name
    return {"arn": context.invoked_function_arn, "region": os.environ["AWS_REGION"], "sdk": told}
"""


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    running = LocalAws(tmp_path_factory.mktemp("regions"), "--time-scale", "60")
    yield running
    running.stop()


def client(aws: LocalAws, service: str, region: str) -> Any:
    return boto3.client(
        service,
        region_name=region,
        endpoint_url=aws.endpoint,
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(retries={"max_attempts": 0}),
    )


def test_a_function_runs_in_its_region(aws: LocalAws) -> None:
    role = create_role(aws.client("iam"), "regions", "lambda")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("main.py", FUNCTION)
    there = client(aws, "lambda", THERE)
    made = there.create_function(
        FunctionName="f",
        Role=role,
        Runtime="python3.13",
        Handler="main.handler",
        Code={"ZipFile": packed.getvalue()},
        Timeout=60,
    )
    there.get_waiter("function_active_v2").wait(FunctionName="f")
    assert made["FunctionArn"] == f"arn:aws:lambda:{THERE}:123456789012:function:f"
    told = json.load(there.invoke(FunctionName="f")["Payload"])
    assert told == {"arn": made["FunctionArn"], "region": THERE, "sdk": THERE}
    with pytest.raises(ClientError, match="ResourceNotFound"):
        client(aws, "lambda", HERE).invoke(FunctionName="f")

    def lines() -> list[str]:
        try:
            found = client(aws, "logs", THERE).filter_log_events(logGroupName="/aws/lambda/f")
        except ClientError:
            return []
        return [event["message"] for event in found["events"]]

    until(lines, lambda told: any(line.startswith("REPORT") for line in told))


def test_an_alarm_is_evaluated_in_its_region(aws: LocalAws) -> None:
    for region in (HERE, THERE):
        cloudwatch = client(aws, "cloudwatch", region)
        cloudwatch.put_metric_alarm(
            AlarmName="a",
            Namespace="Probe",
            MetricName="m",
            Statistic="Maximum",
            Period=60,
            EvaluationPeriods=1,
            Threshold=1.0,
            ComparisonOperator="GreaterThanThreshold",
        )

    def states() -> dict[str, str]:
        for region, value in ((HERE, 0.0), (THERE, 9.0)):
            data = [{"MetricName": "m", "Value": value}]
            client(aws, "cloudwatch", region).put_metric_data(Namespace="Probe", MetricData=data)
        return {
            region: client(aws, "cloudwatch", region).describe_alarms()["MetricAlarms"][0][
                "StateValue"
            ]
            for region in (HERE, THERE)
        }

    assert until(states, lambda told: "INSUFFICIENT_DATA" not in told.values()) == {
        HERE: "OK",
        THERE: "ALARM",
    }


def test_a_job_bears_the_name_of_its_region(aws: LocalAws) -> None:
    role = create_role(aws.client("iam"), "jobs", "sagemaker")
    there = client(aws, "sagemaker", THERE)
    made = there.create_training_job(
        TrainingJobName="j",
        RoleArn=role,
        AlgorithmSpecification={"TrainingImage": "i", "TrainingInputMode": "File"},
        OutputDataConfig={"S3OutputPath": "s3://nowhere/"},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        StoppingCondition={"MaxRuntimeInSeconds": 60},
    )
    assert made["TrainingJobArn"] == f"arn:aws:sagemaker:{THERE}:123456789012:training-job/j"
    assert client(aws, "sagemaker", HERE).list_training_jobs()["TrainingJobSummaries"] == []
    until(
        lambda: there.describe_training_job(TrainingJobName="j")["TrainingJobStatus"],
        lambda status: status == "Failed",
    )


def test_a_role_of_another_partition_is_assumed_there_only(aws: LocalAws) -> None:
    china = "cn-north-1"
    role = create_role(client(aws, "iam", china), "r", "lambda")
    assert role == "arn:aws-cn:iam::123456789012:role/r"
    there = client(aws, "sts", china)
    assumed = there.assume_role(RoleArn=role, RoleSessionName="probe")["AssumedRoleUser"]
    assert assumed["Arn"] == "arn:aws-cn:sts::123456789012:assumed-role/r/probe"
    caller = there.get_caller_identity()["Arn"]
    assert caller == "arn:aws-cn:iam::123456789012:user/administrator"
    with pytest.raises(ClientError, match="AccessDenied"):
        client(aws, "sts", HERE).assume_role(RoleArn=role, RoleSessionName="probe")


@pytest.mark.parametrize(
    ("service", "headers", "code"),
    [
        ("sagemaker", {"X-Amz-Target": "SageMaker.ListModels"}, "InvalidSignatureException"),
        ("iam", {}, "SignatureDoesNotMatch"),
        ("s3", {}, "AuthorizationHeaderMalformed"),
    ],
)
@pytest.mark.parametrize("region", ["mars-north-1", "us-east-9", "x"])
def test_a_region_that_does_not_exist_is_refused(
    aws: LocalAws, service: str, headers: dict[str, str], code: str, region: str
) -> None:
    body = b"Action=ListUsers&Version=2010-05-08" if service == "iam" else b"{}" if headers else b""
    content = "application/x-www-form-urlencoded" if service == "iam" else "application/json"
    given = {**headers, "Content-Type": content}
    method = "POST" if body else "GET"
    sent = signed(service, method, f"{aws.endpoint}/", body, given, region=region)
    answer = send(aws.endpoint, method, "/", sent, body)
    assert answer.status in {400, 403}
    assert code in answer.text
    assert region in answer.text
