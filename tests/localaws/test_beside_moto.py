"""What moto does right by itself, or where a wrong request ended in an internal error."""

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.localaws.conftest import LocalAws
from tests.localaws.roles import document, trust

ROLE = "arn:aws:iam::123456789012:role/kennel"
REPLICATION = {
    "Role": "arn:aws:iam::123456789012:role/copies",
    "Rules": [
        {"Status": "Enabled", "Prefix": "", "Destination": {"Bucket": "arn:aws:s3:::copies"}}
    ],
}
PLATFORM = {"Name": "p", "Platform": "GCM", "Attributes": {"PlatformCredential": "none"}}
CONTAINER = {"Image": "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-inference:2"}
SAGEMAKER = "arn:aws:sagemaker:us-east-1:123456789012:"


def refusal(error: pytest.ExceptionInfo[ClientError]) -> tuple[int, str]:
    answer = error.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]


def test_a_copy_in_place_has_to_change_something(aws: LocalAws) -> None:
    """The encryption that a bucket has by itself is none that somebody asked for."""
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="in-place")
    s3.put_object(Bucket="in-place", Key="dog", Body=b"dog")
    copy = {"Bucket": "in-place", "Key": "dog", "CopySource": "in-place/dog"}

    def is_refused(**more: Any) -> bool:
        try:
            s3.copy_object(**copy, **more)
        except ClientError as error:
            return bool(error.response["Error"]["Code"] == "InvalidRequest")
        return False

    assert is_refused()
    assert not is_refused(StorageClass="STANDARD")
    assert not is_refused(MetadataDirective="REPLACE", Metadata={"a": "b"})
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    encryption = {"Rules": [rule]}
    s3.put_bucket_encryption(Bucket="in-place", ServerSideEncryptionConfiguration=encryption)
    assert not is_refused()
    s3.delete_bucket_encryption(Bucket="in-place")
    assert is_refused()


@pytest.mark.parametrize(
    "trusted",
    [
        "some policy",
        '"text"',
        "[]",
        document(),
        document({"Effect": "Allow", "Action": "sts:AssumeRole"}),
        trust("lambda").replace('"Action"', '"Resource": "*", "Action"'),
    ],
)
def test_a_role_needs_a_trust_policy(aws: LocalAws, trusted: str) -> None:
    iam = aws.client("iam")
    with pytest.raises(iam.exceptions.MalformedPolicyDocumentException):
        iam.create_role(RoleName="malformed", AssumeRolePolicyDocument=trusted)
    with pytest.raises(iam.exceptions.NoSuchEntityException):
        iam.get_role(RoleName="malformed")


@pytest.mark.parametrize(
    ("service", "operation", "parameters"),
    [
        ("sagemaker", "list_training_jobs", {"NextToken": "no token"}),
        ("sagemaker", "list_tags", {"NextToken": "7", "ResourceArn": f"{SAGEMAKER}model/paged"}),
        ("application-autoscaling", "describe_scalable_targets", {"NextToken": "no token"}),
        ("application-autoscaling", "describe_scaling_activities", {"NextToken": "no token"}),
        ("cloudwatch", "list_metrics", {"NextToken": "no token"}),
        ("service-quotas", "list_service_quotas", {"NextToken": "no token"}),
        ("iam", "list_roles", {"Marker": "no token"}),
        ("sns", "list_topics", {"NextToken": "no token"}),
        ("ssm", "describe_parameters", {"NextToken": "no token"}),
        ("ec2", "describe_instances", {"NextToken": "no token"}),
    ],
)
def test_a_token_that_no_answer_had_is_refused(
    aws: LocalAws, service: str, operation: str, parameters: dict[str, str]
) -> None:
    more = {"application-autoscaling": {"ServiceNamespace": "sagemaker"}}
    more["service-quotas"] = {"ServiceCode": "sagemaker"}
    paged = {"ModelName": "paged"}
    if operation == "list_tags":
        aws.client("sagemaker").create_model(**paged, ExecutionRoleArn=ROLE)
    with pytest.raises(ClientError) as error:
        getattr(aws.client(service), operation)(**parameters, **more.get(service, {}))
    assert refusal(error)[0] == 400
    assert "oken" in str(error.value)
    if operation == "list_tags":
        aws.client("sagemaker").delete_model(**paged)


def test_values_outside_of_sagemakers_model_are_refused(aws: LocalAws) -> None:
    """Before anything is looked up: a role that is no ARN is not one that is missing."""
    sagemaker = aws.client("sagemaker")
    for call, where in (
        (lambda: sagemaker.list_training_jobs(StatusEquals="blah"), "statusEquals"),
        (lambda: sagemaker.list_endpoints(StatusEquals="blah"), "statusEquals"),
        (lambda: sagemaker.list_models(SortBy="blah"), "sortBy"),
        (
            lambda: sagemaker.create_model(ModelName="m", ExecutionRoleArn="no arn " * 5),
            "executionRoleArn",
        ),
        (lambda: sagemaker.create_model(ModelName="no name!", ExecutionRoleArn=ROLE), "modelName"),
    ):
        with pytest.raises(ClientError, match=f"at '{where}' failed to satisfy") as error:
            call()
        assert refusal(error) == (400, "ValidationException")


def test_tags_are_listed_a_page_at_a_time(aws: LocalAws) -> None:
    sagemaker = aws.client("sagemaker")
    tags = [{"Key": f"{number:02}", "Value": "v"} for number in range(60)]
    arn = sagemaker.create_model(ModelName="tagged", ExecutionRoleArn=ROLE, Tags=tags[:50])[
        "ModelArn"
    ]
    sagemaker.add_tags(ResourceArn=arn, Tags=tags[50:])
    first = sagemaker.list_tags(ResourceArn=arn)
    second = sagemaker.list_tags(ResourceArn=arn, NextToken=first["NextToken"])
    assert (len(first["Tags"]), "NextToken" in second) == (50, False)
    assert first["Tags"] + second["Tags"] == tags
    sagemaker.create_model_card(
        ModelCardName="card", Content="{}", ModelCardStatus="Draft", Tags=tags[:2]
    )
    (card,) = sagemaker.list_model_cards()["ModelCardSummaries"]
    assert sagemaker.list_tags(ResourceArn=card["ModelCardArn"])["Tags"] == tags[:2]
    sagemaker.delete_model_card(ModelCardName="card")
    sagemaker.delete_model(ModelName="tagged")


def test_cloudformation_makes_endpoints_and_instances_of_the_api(aws: LocalAws) -> None:
    cloudformation, sagemaker = aws.client("cloudformation"), aws.client("sagemaker")
    variant = {
        "InitialInstanceCount": 1,
        "InitialVariantWeight": 1,
        "InstanceType": "ml.m5.large",
        "ModelName": {"Fn::GetAtt": ["Model", "ModelName"]},
        "VariantName": "main",
    }
    config = {
        "Type": "AWS::SageMaker::EndpointConfig",
        "Properties": {"ProductionVariants": [variant]},
    }
    named = {"Fn::GetAtt": ["First", "EndpointConfigName"]}
    resources: dict[str, Any] = {
        "Model": {
            "Type": "AWS::SageMaker::Model",
            "Properties": {"ExecutionRoleArn": ROLE, "PrimaryContainer": CONTAINER},
        },
        "First": config,
        "Second": config,
        "Endpoint": {
            "Type": "AWS::SageMaker::Endpoint",
            "Properties": {"EndpointConfigName": named},
        },
        "Instance": {
            "Type": "AWS::EC2::Instance",
            "Properties": {"ImageId": "ami-03cf127a", "InstanceType": "t2.micro"},
        },
    }
    outputs = {"Endpoint": {"Value": {"Fn::GetAtt": ["Endpoint", "EndpointName"]}}}

    def template() -> str:
        return json.dumps({"Resources": resources, "Outputs": outputs})

    cloudformation.create_stack(StackName="stack", TemplateBody=template())
    (stack,) = cloudformation.describe_stacks(StackName="stack")["Stacks"]
    name = stack["Outputs"][0]["OutputValue"]
    first = sagemaker.describe_endpoint(EndpointName=name)
    assert first["EndpointStatus"] == "InService"
    resources["Endpoint"]["Properties"]["EndpointConfigName"] = {
        "Fn::GetAtt": ["Second", "EndpointConfigName"]
    }
    cloudformation.update_stack(StackName="stack", TemplateBody=template())
    second = sagemaker.describe_endpoint(EndpointName=name)
    assert second["CreationTime"] == first["CreationTime"]
    assert second["EndpointConfigName"] != first["EndpointConfigName"]
    cloudformation.delete_stack(StackName="stack")
    with pytest.raises(ClientError, match="Could not find endpoint"):
        sagemaker.describe_endpoint(EndpointName=name)


@pytest.mark.parametrize(
    ("more", "variant"),
    [
        ({"AsyncInferenceConfig": {"OutputConfig": {"S3OutputPath": "s3://kennel/out"}}}, {}),
        ({}, {"ServerlessConfig": {"MemorySizeInMB": 2048, "MaxConcurrency": 5}}),
        ({}, {"ModelName": "several"}),
        ({}, {"ModelName": "multi"}),
    ],
)
def test_endpoints_that_nothing_serves_are_refused_by_name(
    aws: LocalAws, more: dict[str, Any], variant: dict[str, Any]
) -> None:
    sagemaker = aws.client("sagemaker")
    for name, given in (
        ("one", {"PrimaryContainer": CONTAINER}),
        ("several", {"Containers": [CONTAINER, CONTAINER]}),
        ("multi", {"PrimaryContainer": {**CONTAINER, "Mode": "MultiModel"}}),
    ):
        sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, **given)
    counted = {"InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    kind = {} if "ServerlessConfig" in variant else counted
    given = {"VariantName": "main", "ModelName": "one", **kind, **variant}
    config = {"EndpointConfigName": "unserved"}
    sagemaker.create_endpoint_config(**config, ProductionVariants=[given], **more)
    try:
        with pytest.raises(ClientError, match="nothing here serves") as error:
            sagemaker.create_endpoint(EndpointName="unserved", **config)
        assert refusal(error) == (501, "NotImplemented")
        assert not sagemaker.list_endpoints(NameContains="unserved")["Endpoints"]
    finally:
        sagemaker.delete_endpoint_config(**config)
        for name in ("one", "several", "multi"):
            sagemaker.delete_model(ModelName=name)


def test_nobody_has_jobs_that_were_not_made(aws: LocalAws) -> None:
    """`make status` asks for them: the lists are truly empty."""
    sagemaker = aws.client("sagemaker")
    assert sagemaker.list_processing_jobs()["ProcessingJobSummaries"] == []
    assert sagemaker.list_transform_jobs()["TransformJobSummaries"] == []


@pytest.mark.parametrize(
    ("service", "operation", "parameters"),
    [
        ("sagemaker", "create_pipeline", {"PipelineName": "p", "ClientRequestToken": "t" * 32}),
        ("sagemaker", "list_feature_groups", {}),
        ("stepfunctions", "start_execution", {"stateMachineArn": "arn:aws:states:::x"}),
        ("batch", "submit_job", {"jobName": "j", "jobQueue": "q", "jobDefinition": "d"}),
        (
            "s3",
            "put_bucket_replication",
            {"Bucket": "none", "ReplicationConfiguration": REPLICATION},
        ),
        ("sns", "create_platform_application", PLATFORM),
        ("sagemaker-runtime", "invoke_endpoint_async", {"EndpointName": "e"}),
    ],
)
def test_what_nothing_here_does_is_refused_by_name(
    aws: LocalAws, service: str, operation: str, parameters: dict[str, Any]
) -> None:
    if operation == "create_pipeline":
        parameters = {**parameters, "RoleArn": ROLE, "PipelineDefinition": "{}"}
    if operation == "invoke_endpoint_async":
        parameters = {**parameters, "InputLocation": "s3://kennel/in"}
    with pytest.raises(ClientError) as error:
        getattr(aws.client(service), operation)(**parameters)
    assert refusal(error) == (501, "NotImplemented")
    name = operation.title().replace("_", "")
    assert f"{service}:{name}" in str(error.value)


def test_what_a_target_lacks_is_told_though_there_is_no_rule(aws: LocalAws) -> None:
    events = aws.client("events")
    queue = {"Id": "dogs", "Arn": "arn:aws:sqs:us-east-1:123456789012:dogs.fifo"}
    with pytest.raises(ClientError, match="SqsParameters must be specified for target: dogs"):
        events.put_targets(Rule="unknown", Targets=[queue])
    with pytest.raises(events.exceptions.ResourceNotFoundException):
        events.put_targets(Rule="unknown", Targets=[{**queue, "Arn": queue["Arn"][:-5]}])
