"""Parameters outside the bounds that AWS documents are refused, whatever the operation."""

import re
from typing import Any

import pytest
from botocore import xform_name
from botocore.exceptions import ClientError

from tests.localaws.conftest import LocalAws
from tests.localaws.raw import send, signed

ROLE = "arn:aws:iam::123456789012:role/probe"


def config(**variant: Any) -> dict[str, Any]:
    """An endpoint configuration of one variant."""
    given = {
        "VariantName": "main",
        "ModelName": "model",
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
    }
    return {"EndpointConfigName": "config", "ProductionVariants": [given | variant]}


def function(**changes: Any) -> dict[str, Any]:
    return {
        "FunctionName": "function",
        "Role": ROLE,
        "Code": {"ZipFile": b"zip"},
        "Runtime": "python3.13",
        "Handler": "a.b",
    } | changes


@pytest.mark.parametrize(
    ("service", "operation", "given", "where"),
    [
        ("sagemaker", "CreateModel", {"ModelName": "a/b", "ExecutionRoleArn": ROLE}, "modelName"),
        ("sagemaker", "CreateModel", {"ModelName": "m", "ExecutionRoleArn": "x" * 20}, "execution"),
        (
            "sagemaker",
            "CreateEndpointConfig",
            config(VariantName="../../outside"),
            "productionVariants.1.member.variantName",
        ),
        ("sagemaker", "CreateEndpointConfig", config(VariantName="v" * 64), "length less than"),
        (
            "sagemaker",
            "CreateEndpoint",
            {"EndpointName": "..", "EndpointConfigName": "config"},
            "endpointName",
        ),
        (
            "sagemaker",
            "UpdateEndpointWeightsAndCapacities",
            {"EndpointName": "a", "DesiredWeightsAndCapacities": [{"VariantName": "a b"}]},
            "desiredWeightsAndCapacities.1.member.variantName",
        ),
        (
            "sagemaker",
            "CreateNotebookInstance",
            {"NotebookInstanceName": "a_b", "InstanceType": "ml.t3.medium", "RoleArn": ROLE},
            "notebookInstanceName",
        ),
        (
            "sagemaker",
            "CreateModelPackageGroup",
            {"ModelPackageGroupName": "-a"},
            "modelPackageGroupName",
        ),
        ("lambda", "CreateFunction", function(FunctionName="../../outside"), "functionName"),
        ("lambda", "CreateFunction", function(FunctionName="f" * 141), "length less than"),
        (
            "lambda",
            "CreateFunction",
            function(Code={"ZipFile": bytes(2 << 20)}, FunctionName="a b"),
            "functionName",
        ),
        (
            "lambda",
            "CreateAlias",
            {"FunctionName": "function", "Name": "a/b", "FunctionVersion": "1"},
            "'name'",
        ),
        (
            "lambda",
            "CreateAlias",
            {"FunctionName": "function", "Name": "17", "FunctionVersion": "1"},
            "'name'",
        ),
    ],
)
def test_a_name_is_held_to_its_pattern_and_length(
    aws: LocalAws, service: str, operation: str, given: dict[str, Any], where: str
) -> None:
    with pytest.raises(ClientError, match=re.escape(where)) as refused:
        getattr(aws.client(service), xform_name(operation))(**given)
    error = refused.value.response["Error"]
    assert error["Code"] == "ValidationException"
    assert error["Message"].startswith("1 validation error detected: Value '")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{}", "1 validation error detected: Value null at 'modelName'"),
    ],
)
def test_a_body_without_what_is_required_makes_nothing(
    aws: LocalAws, body: bytes, message: str
) -> None:
    headers = {
        "X-Amz-Target": "SageMaker.CreateModel",
        "Content-Type": "application/x-amz-json-1.1",
    }
    url = f"{aws.endpoint}/"
    answer = send(aws.endpoint, "POST", "/", signed("sagemaker", "POST", url, body, headers), body)
    assert (answer.status, answer.headers["x-amzn-ErrorType"]) == (400, "ValidationException")
    assert message in answer.text
    assert "None" not in [
        found["ModelName"] for found in aws.client("sagemaker").list_models()["Models"]
    ]


def test_a_list_is_told_as_aws_tells_it(aws: LocalAws) -> None:
    event = {"Source": "a", "DetailType": "b", "Detail": "{}"}
    with pytest.raises(
        ClientError, match=re.escape("Value '[PutEventsRequestEntry]' at 'entries'")
    ):
        aws.client("events").put_events(Entries=[event] * 11)
    network = {"SecurityGroupIds": ["sg-1", "sg-2"] * 3, "Subnets": ["subnet-1"]}
    told = "Value '[sg-1, sg-2, sg-1, sg-2, sg-1, sg-2]' at 'vpcConfig.securityGroupIds'"
    with pytest.raises(ClientError, match=re.escape(told)):
        aws.client("sagemaker").create_model(
            ModelName="m", ExecutionRoleArn=ROLE, VpcConfig=network
        )


def test_a_secret_and_a_blob_are_not_told(aws: LocalAws) -> None:
    told = "1 validation error detected: Value at 'plaintext' failed"
    with pytest.raises(ClientError, match=told) as refused:
        aws.client("kms").encrypt(KeyId="alias/kennel", Plaintext=b"secret" * 1000)
    assert "secret" not in str(refused.value)


def test_the_code_is_one_that_the_operation_has(aws: LocalAws) -> None:
    logs = aws.client("logs")
    with pytest.raises(ClientError) as refused:
        logs.describe_log_groups(limit=99)
    assert refused.value.response["Error"]["Code"] == "InvalidParameterException"
    with pytest.raises(ClientError) as refused:
        logs.describe_delivery_destinations(limit=99)
    assert refused.value.response["Error"]["Code"] == "ValidationException"


def test_where_records_only_are_kept_nothing_is_invoked(aws: LocalAws) -> None:
    body = b"\xff\xd8\xff"
    with pytest.raises(ClientError, match="no endpoint serves") as refused:
        aws.client("sagemaker-runtime").invoke_endpoint(EndpointName="kennel", Body=body)
    assert refused.value.response["Error"]["Code"] == "NotImplemented"
    with pytest.raises(ClientError, match="no function runs") as refused:
        aws.client("lambda").invoke(FunctionName="kennel")
    assert refused.value.response["Error"]["Code"] == "NotImplemented"
