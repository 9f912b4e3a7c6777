"""What AWS refuses before anything is made, and the states that things go through on it."""

import io
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.localaws.conftest import LocalAws, until
from tests.localaws.roles import create_role

ACCOUNT = "123456789012"
IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/kennel:1"
DATA = "s3://strict/model.tar.gz"


class Strict:
    """An account in which IAM is asked, with a bucket and roles."""

    def __init__(self, aws: LocalAws) -> None:
        self.aws = aws
        self.sagemaker = aws.client("sagemaker")
        self.functions = aws.client("lambda")
        iam, s3 = aws.client("iam"), aws.client("s3")
        self.role = create_role(iam, "serving", "sagemaker")
        self.poor = create_role(iam, "poor", "sagemaker", ())
        self.other = create_role(iam, "function", "lambda")
        s3.create_bucket(Bucket="strict")
        s3.put_object(Bucket="strict", Key="model.tar.gz", Body=b"model")

    def model(self, name: str, role: str | None = None, **container: Any) -> Any:
        """Create a model of one container."""
        return self.sagemaker.create_model(
            ModelName=name,
            ExecutionRoleArn=role or self.role,
            PrimaryContainer={"Image": IMAGE, "ModelDataUrl": DATA, **container},
        )

    def job(self, name: str, uri: str = DATA, **more: Any) -> Any:
        """Create a training job of one channel; it fails soon, since its image is none."""
        source = {"S3DataType": "S3Prefix", "S3Uri": uri}
        job: dict[str, Any] = {
            "TrainingJobName": name,
            "RoleArn": self.role,
            "AlgorithmSpecification": {"TrainingImage": IMAGE, "TrainingInputMode": "File"},
            "InputDataConfig": [
                {"ChannelName": "training", "DataSource": {"S3DataSource": source}}
            ],
            "OutputDataConfig": {"S3OutputPath": "s3://strict/jobs"},
            "ResourceConfig": {
                "InstanceType": "ml.m5.large",
                "InstanceCount": 1,
                "VolumeSizeInGB": 1,
            },
            "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        }
        return self.sagemaker.create_training_job(**{**job, **more})


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Strict]:
    folder = tmp_path_factory.mktemp("strict")
    # A busy machine is to see the states that AWS leaves within seconds.
    aws = LocalAws(folder, "--iam", "enforce", "--time-scale", "0.01")
    yield Strict(aws)
    aws.stop()


def unchecked(aws: LocalAws, service: str, keys: dict[str, Any] | None = None) -> Any:
    """A client that sends what botocore would not, signed with the keys of a session."""
    given = keys or {"AccessKeyId": "test", "SecretAccessKey": "test"}
    return boto3.client(
        service,
        region_name="us-east-1",
        endpoint_url=aws.endpoint,
        aws_access_key_id=given["AccessKeyId"],
        aws_secret_access_key=given["SecretAccessKey"],
        aws_session_token=given.get("SessionToken"),
        config=Config(parameter_validation=False, retries={"total_max_attempts": 1}),
    )


@pytest.fixture
def function(aws: LocalAws) -> Iterator[Any]:
    """A client of Lambda with the function `strict`, its versions 1 and 2, and the alias `live`."""
    client = aws.client("lambda")
    create_role(aws.client("iam"), "strict", "lambda")
    made(client, "strict", Publish=True)
    client.update_function_configuration(FunctionName="strict", Timeout=9)
    client.publish_version(FunctionName="strict")
    client.create_alias(FunctionName="strict", Name="live", FunctionVersion="1")
    yield client
    client.delete_function(FunctionName="strict")
    aws.client("iam").delete_role_policy(RoleName="strict", PolicyName="own")
    aws.client("iam").delete_role(RoleName="strict")


def made(client: Any, name: str, **more: Any) -> Any:
    """Create a function."""
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        archive.writestr("main.py", "")
    given: dict[str, Any] = {
        "FunctionName": name,
        "Role": f"arn:aws:iam::{ACCOUNT}:role/strict",
        "Runtime": "python3.13",
        "Handler": "main.handler",
        "Code": {"ZipFile": code.getvalue()},
        **more,
    }
    return client.create_function(**{k: v for k, v in given.items() if v is not None})


def refusal(call: Callable[[], object]) -> tuple[str, str]:
    """Code and message with which a call is refused."""
    with pytest.raises(ClientError) as error:
        call()
    told = error.value.response["Error"]
    return told["Code"], told["Message"]


def test_a_model_needs_its_data_and_a_role_that_may_have_it(strict: Strict) -> None:
    nobody = f"arn:aws:iam::{ACCOUNT}:role/nobody"
    for role, container, said in (
        (strict.role, {"ModelDataUrl": "s3://strict/none"}, "Could not find model data at s3://"),
        (strict.role, {"ModelDataUrl": "s3://no-such/none"}, "Could not find model data at s3://"),
        (strict.poor, {}, f"Could not access model data at {DATA}"),
        (strict.other, {}, f"Could not access model data at {DATA}"),
        (nobody, {}, f"Could not access model data at {DATA}"),
    ):
        code, message = refusal(lambda: strict.model("refused", role, **container))  # noqa: B023
        assert (code, message[: len(said)]) == ("ValidationException", said)
    without: dict[str, Any] = {"ModelName": "refused", "ExecutionRoleArn": nobody}
    container = {"Image": IMAGE}
    assert (
        "Could not assume role"
        in refusal(lambda: strict.sagemaker.create_model(**without, PrimaryContainer=container))[1]
    )
    for containers in ({}, {"PrimaryContainer": container, "Containers": [container]}):
        assert (
            "One of PrimaryContainer and Containers"
            in refusal(
                lambda: strict.sagemaker.create_model(**without, **containers)  # noqa: B023
            )[1]
        )
    assert not strict.sagemaker.list_models(NameContains="refused")["Models"]
    strict.model("data-is-there")


def test_a_training_job_needs_objects_that_its_role_may_list(strict: Strict) -> None:
    strict.aws.client("s3").create_bucket(
        Bucket="elsewhere", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
    )
    strict.aws.client("s3").put_object(Bucket="elsewhere", Key="a", Body=b"a")
    for uri, role in (
        ("s3://strict/none", strict.role),
        ("s3://no-such/none", strict.role),
        ("s3://elsewhere/a", strict.role),
        (DATA, strict.poor),
    ):
        code, message = refusal(lambda: strict.job("refused", uri, RoleArn=role))  # noqa: B023
        assert code == "ValidationException"
        assert message.startswith(f'No S3 objects found under S3 URL "{uri}"')
    assert not strict.sagemaker.list_training_jobs(NameContains="refused")["TrainingJobSummaries"]


def routed(kind: str, wait: int = 60, percent: int = 0, **policy: Any) -> dict[str, Any]:
    """A blue/green release."""
    size = {"CANARY": "CanarySize", "LINEAR": "LinearStepSize"}.get(kind, "")
    sized = {size: {"Type": "CAPACITY_PERCENT", "Value": percent}} if percent else {}
    routing = {"Type": kind, "WaitIntervalInSeconds": wait, **sized}
    return {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing, **policy}}


def rolling(value: int, kind: str = "CAPACITY_PERCENT") -> dict[str, Any]:
    """A rolling release."""
    size = {"Type": kind, "Value": value}
    return {"RollingUpdatePolicy": {"MaximumBatchSize": size, "WaitIntervalInSeconds": 60}}


@pytest.mark.parametrize(
    ("deployment", "said"),
    [
        (routed("CANARY", percent=51), "CanarySize must be at most 50%"),
        (routed("CANARY"), "CanarySize must be given"),
        (routed("LINEAR", percent=9), "LinearStepSize must be 10% to 50%"),
        (rolling(60), "MaximumBatchSize must be 5% to 50%"),
        (rolling(3, "INSTANCE_COUNT"), "MaximumBatchSize must be 5% to 50%"),
        ({**routed("ALL_AT_ONCE"), **rolling(50)}, "Only one update policy"),
        (
            routed("CANARY", 600, 10, MaximumExecutionTimeoutInSeconds=600),
            "MaximumExecutionTimeoutInSeconds (600) must be larger",
        ),
    ],
)
def test_a_release_keeps_to_the_limits_of_guardrails(
    aws: LocalAws, deployment: dict[str, Any], said: str
) -> None:
    client = aws.client("sagemaker")
    configured(client, "guarded", InitialInstanceCount=4)
    code, message = refusal(
        lambda: client.create_endpoint(
            EndpointName="guarded", EndpointConfigName="guarded", DeploymentConfig=deployment
        )
    )
    assert (code, message[: len(said)]) == ("ValidationException", said)


def configured(client: Any, name: str, **variant: Any) -> None:
    """A model and a configuration of one variant, made anew."""
    for delete, key in (("endpoint_config", "EndpointConfigName"), ("model", "ModelName")):
        with suppress(ClientError):
            getattr(client, f"delete_{delete}")(**{key: name})
    client.create_model(
        ModelName=name,
        ExecutionRoleArn=f"arn:aws:iam::{ACCOUNT}:role/serving",
        PrimaryContainer={"Image": IMAGE},
    )
    more = variant.pop("more", {})
    given = {"VariantName": "main", "ModelName": name, "InstanceType": "ml.m5.large", **variant}
    client.create_endpoint_config(
        EndpointConfigName=name,
        ProductionVariants=[{"InitialInstanceCount": 1, **given}],
        **more,
    )


def test_a_guarded_release_keeps_the_variants_names(aws: LocalAws) -> None:
    client = aws.client("sagemaker")
    configured(client, "named")
    configured(client, "renamed", VariantName="other")
    client.create_endpoint(EndpointName="named", EndpointConfigName="named")
    renamed = {"EndpointName": "named", "EndpointConfigName": "renamed"}
    guarded = routed("ALL_AT_ONCE", TerminationWaitInSeconds=60)
    assert (
        "variant names"
        in refusal(lambda: client.update_endpoint(**renamed, DeploymentConfig=guarded))[1]
    )
    client.update_endpoint(**renamed)
    client.delete_endpoint(EndpointName="named")


def test_a_configuration_refuses_a_key_for_disks_that_encrypt_themselves(aws: LocalAws) -> None:
    client = aws.client("sagemaker")
    key = {"KmsKeyId": f"arn:aws:kms:us-east-1:{ACCOUNT}:key/mine"}
    code, message = refusal(
        lambda: configured(client, "keyed", InstanceType="ml.g5.xlarge", more=key)
    )
    assert (code, message[:8]) == ("ValidationException", "KmsKeyId")
    configured(client, "keyed", more=key)
    twice = {"VariantName": "a", "ModelName": "keyed", "InstanceType": "ml.m5.large"}
    assert (
        "must be unique: a"
        in refusal(
            lambda: client.create_endpoint_config(
                EndpointConfigName="twice", ProductionVariants=[twice, twice]
            )
        )[1]
    )


def test_nobody_has_more_instances_than_the_quotas_say(aws: LocalAws) -> None:
    client = aws.client("sagemaker")
    limited = {"InstanceType": "ml.c6i.large"}
    configured(client, "many", InitialInstanceCount=21, **limited)
    many = {"EndpointName": "many", "EndpointConfigName": "many"}
    code, message = refusal(lambda: client.create_endpoint(**many))
    assert code == "ResourceLimitExceeded"
    assert "'ml.c6i.large for endpoint usage' is 20 Instances" in message
    configured(client, "some", InitialInstanceCount=12, **limited)
    configured(client, "more", InitialInstanceCount=9, **limited)
    client.create_endpoint(EndpointName="many", EndpointConfigName="some")
    # Both fleets are there until the new one serves.
    code, message = refusal(
        lambda: client.update_endpoint(EndpointName="many", EndpointConfigName="more")
    )
    assert (code, "utilization of 12 Instances and a request delta of 9" in message) == (
        "ResourceLimitExceeded",
        True,
    )
    wanted = [{"VariantName": "main", "DesiredInstanceCount": 21}]
    assert (
        refusal(
            lambda: client.update_endpoint_weights_and_capacities(
                EndpointName="many", DesiredWeightsAndCapacities=wanted
            )
        )[0]
        == "ResourceLimitExceeded"
    )
    client.delete_endpoint(EndpointName="many")
    machines = {"InstanceType": "ml.c6i.xlarge", "InstanceCount": 21, "VolumeSizeInGB": 1}
    code, message = refusal(
        lambda: client.create_training_job(
            TrainingJobName="many",
            RoleArn=f"arn:aws:iam::{ACCOUNT}:role/training",
            AlgorithmSpecification={"TrainingImage": IMAGE, "TrainingInputMode": "File"},
            OutputDataConfig={"S3OutputPath": "s3://strict/jobs"},
            ResourceConfig=machines,
            StoppingCondition={"MaxRuntimeInSeconds": 60},
        )
    )
    assert (code, "'ml.c6i.xlarge for training job usage'" in message) == (
        "ResourceLimitExceeded",
        True,
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"Code": {"ZipFile": b"no zip"}}, "Could not unzip uploaded file."),
        (
            {"Code": {"S3Bucket": "no-such-bucket", "S3Key": "a"}},
            "Error occurred while GetObject. S3 Error Code: NoSuchBucket.",
        ),
        ({"Handler": None}, "Runtime and Handler are mandatory"),
        ({"Runtime": None}, "Runtime and Handler are mandatory"),
        (
            {"Environment": {"Variables": {"AWS_REGION": "here", "OWN": "a"}}},
            "Lambda was unable to configure your environment variables because the environment"
            " variables you have provided contains reserved keys that are currently not supported"
            " for modification. Reserved keys used in this request: AWS_REGION",
        ),
        (
            {"Environment": {"Variables": {"OWN": "a" * 4096}}},
            "Lambda was unable to configure your environment variables because the environment"
            " variables you have provided exceeded the 4KB limit.",
        ),
    ],
)
def test_lambda_takes_sound_functions_only(function: Any, given: dict[str, Any], said: str) -> None:
    code, message = refusal(lambda: made(function, "refused", **given))
    assert (code, message[: len(said)]) == ("InvalidParameterValueException", said)
    if "Environment" in given:
        change = {"FunctionName": "strict", **given}
        assert refusal(lambda: function.update_function_configuration(**change))[1] == message
    if "Code" in given:
        change = {"FunctionName": "strict", **given["Code"]}
        assert refusal(lambda: function.update_function_code(**change))[1] == message


def test_what_an_alias_names_is_not_deleted(function: Any) -> None:
    for qualifier, code, said in (
        ("$LATEST", "InvalidParameterValueException", "$LATEST version cannot be deleted"),
        ("live", "InvalidParameterValueException", "Deletion of aliases is not"),
        ("1", "ResourceConflictException", "Unable to delete version because the following"),
    ):
        refused = refusal(
            lambda: function.delete_function(FunctionName="strict", Qualifier=qualifier)  # noqa: B023
        )
        assert (refused[0], refused[1][: len(said)]) == (code, said)
    function.update_alias(FunctionName="strict", Name="live", FunctionVersion="2")
    function.delete_function(FunctionName="strict", Qualifier="1")
    listed = function.list_versions_by_function(FunctionName="strict")["Versions"]
    assert [version["Version"] for version in listed] == ["$LATEST", "2"]
    assert (
        refusal(lambda: function.list_versions_by_function(FunctionName="nobody"))[0]
        == "ResourceNotFoundException"
    )


@pytest.mark.parametrize(
    ("version", "weights", "said"),
    [
        ("1", {"1": 0.1}, "Invalid function version 1."),
        ("1", {"2": 0.1, "3": 0.1}, "Number of items in AdditionalVersionWeights"),
        ("$LATEST", {"1": 0.1}, "$LATEST is not supported"),
        ("1", {"9": 0.1}, "Function version 9 does not exist."),
    ],
)
def test_an_alias_routes_to_two_versions_at_most(
    function: Any, version: str, weights: dict[str, float], said: str
) -> None:
    given = {
        "FunctionName": "strict",
        "FunctionVersion": version,
        "RoutingConfig": {"AdditionalVersionWeights": weights},
    }
    for call, name in ((function.create_alias, "other"), (function.update_alias, "live")):
        code, message = refusal(lambda: call(Name=name, **given))  # noqa: B023
        assert (code, message[: len(said)]) == ("InvalidParameterValueException", said)
    alias = {"FunctionName": "strict", "Name": "live", "FunctionVersion": "1"}
    assert refusal(lambda: function.create_alias(**alias))[0] == "ResourceConflictException"


def test_a_change_is_of_the_revision_that_the_caller_knows(function: Any) -> None:
    known = function.get_alias(FunctionName="strict", Name="live")["RevisionId"]
    alias = {"FunctionName": "strict", "Name": "live", "RevisionId": known}
    function.update_alias(**alias, FunctionVersion="2")
    old = {"FunctionName": "strict", "RevisionId": known}
    for call in (
        lambda: function.update_alias(**alias, FunctionVersion="1"),
        lambda: function.update_function_configuration(**old, Timeout=3),
        lambda: function.update_function_code(**old, S3Bucket="strict", S3Key="a"),
        lambda: function.publish_version(**old),
    ):
        assert refusal(call)[0] == "PreconditionFailedException"
    assert (
        "is different from current CodeSHA256"
        in refusal(lambda: function.publish_version(FunctionName="strict", CodeSha256="none"))[1]
    )


def test_a_functions_role_may_do_what_lambda_does_under_it(strict: Strict) -> None:
    role = create_role(strict.aws.client("iam"), "modest", "lambda", ())
    queue = f"arn:aws:sqs:us-east-1:{ACCOUNT}:failed"
    for given, said in (
        ({"TracingConfig": {"Mode": "Active"}}, "PutTraceSegments on XRAY"),
        ({"DeadLetterConfig": {"TargetArn": queue}}, "SendMessage on SQS"),
        (
            {"VpcConfig": {"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}},
            "CreateNetworkInterface on EC2",
        ),
    ):
        refused = refusal(
            lambda: made(strict.functions, "modest", Role=role, **given)  # noqa: B023
        )
        assert refused == (
            "InvalidParameterValueException",
            f"The provided execution role does not have permissions to call {said}",
        )
    made(strict.functions, "modest", Role=role)
    destination = {"OnFailure": {"Destination": queue}}
    told = {"FunctionName": "modest", "DestinationConfig": destination}
    assert (
        "SendMessage on SQS"
        in refusal(lambda: strict.functions.put_function_event_invoke_config(**told))[1]
    )


def test_a_notebook_instance_goes_through_its_states(strict: Strict) -> None:
    client, name = strict.sagemaker, {"NotebookInstanceName": "states"}

    def status() -> str:
        return str(client.describe_notebook_instance(**name)["NotebookInstanceStatus"])

    client.create_notebook_instance(
        **name, InstanceType="ml.t3.medium", RoleArn=strict.role, VolumeSizeInGB=8
    )
    for call, said in (
        (client.stop_notebook_instance, "Status (Pending) not in ([InService])"),
        (client.delete_notebook_instance, "Status (Pending) not in ([Stopped, Failed])"),
    ):
        assert refusal(lambda: call(**name))[1].startswith(said)  # noqa: B023
    until(status, "InService".__eq__)
    assert (
        "Unable to transition to (Pending)"
        in refusal(lambda: client.start_notebook_instance(**name))[1]
    )
    client.stop_notebook_instance(**name)
    assert status() == "Stopping"
    until(status, "Stopped".__eq__)
    assert (
        "cannot be decreased"
        in refusal(lambda: client.update_notebook_instance(**name, VolumeSizeInGB=5))[1]
    )
    client.update_notebook_instance(**name, VolumeSizeInGB=9)
    assert status() == "Updating"
    until(status, "Stopped".__eq__)
    client.delete_notebook_instance(**name)
    assert status() == "Deleting"
    until(client.list_notebook_instances, lambda found: not found["NotebookInstances"])
    assert refusal(status)[0] == "ValidationException"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"RoleArn": f"arn:aws:iam::{ACCOUNT}:role/nobody"}, "Could not assume role"),
        ({"LifecycleConfigName": "none"}, "Unable to describe Notebook Instance Lifecycle"),
        ({"DirectInternetAccess": "Disabled"}, "DirectInternetAccess can only be Disabled"),
        ({"SubnetId": "subnet-1"}, "SubnetId and SecurityGroupIds"),
        ({"SubnetId": "subnet-1", "SecurityGroupIds": ["sg-1"]}, "The subnet ID 'subnet-1'"),
    ],
)
def test_a_notebook_instance_is_of_what_is_there(
    strict: Strict, given: dict[str, Any], said: str
) -> None:
    whole = {
        "NotebookInstanceName": "refused",
        "InstanceType": "ml.t3.medium",
        "RoleArn": strict.role,
    }
    code, message = refusal(lambda: strict.sagemaker.create_notebook_instance(**{**whole, **given}))
    assert (code, message[: len(said)]) == ("ValidationException", said)


def test_a_session_lasts_as_long_as_its_role_allows(aws: LocalAws) -> None:
    iam, sts = aws.client("iam"), aws.client("sts")
    role = create_role(iam, "short", "lambda", ())
    for given, said in (
        ({"DurationSeconds": 3601}, "exceeds the MaxSessionDuration set for this role"),
        ({"DurationSeconds": 899}, "must have value greater than or equal to 900"),
        ({"RoleSessionName": "two words"}, "'two words' at 'roleSessionName'"),
    ):
        whole = {"RoleArn": role, "RoleSessionName": "name", **given}
        client = unchecked(aws, "sts")
        code, message = refusal(lambda: client.assume_role(**whole))  # noqa: B023
        assert (code, said in message) == ("ValidationError", True)
    iam.update_role(RoleName="short", MaxSessionDuration=7200)
    keys = sts.assume_role(RoleArn=role, RoleSessionName="name", DurationSeconds=7200)
    chained = unchecked(aws, "sts", keys["Credentials"])
    longer = {"RoleArn": role, "RoleSessionName": "name", "DurationSeconds": 3601}
    assert "role chaining" in refusal(lambda: chained.assume_role(**longer))[1]


def test_a_scalable_target_is_named_as_its_service_names_it(aws: LocalAws, function: Any) -> None:
    client = aws.client("application-autoscaling")
    target = {
        "ServiceNamespace": "lambda",
        "ResourceId": "function:strict:live",
        "ScalableDimension": "lambda:function:ProvisionedConcurrency",
    }
    bounds = {"MinCapacity": 1, "MaxCapacity": 2}
    for wrong in (
        {"ResourceId": "strict"},
        {"ResourceId": "function:strict:$LATEST"},
        {"ScalableDimension": "sagemaker:variant:DesiredInstanceCount"},
    ):
        assert refusal(
            lambda: client.register_scalable_target(**{**target, **wrong}, **bounds)  # noqa: B023
        ) == (
            "ValidationException",
            "Unsupported service namespace, resource type or scalable dimension",
        )
    for missing in (
        lambda: client.deregister_scalable_target(**target),
        lambda: client.delete_scaling_policy(**target, PolicyName="none"),
    ):
        assert refusal(missing)[0] == "ObjectNotFoundException"
    # A version is as good as an alias.
    client.register_scalable_target(**{**target, "ResourceId": "function:strict:1"}, **bounds)
    client.register_scalable_target(**target, **bounds)

    def track(name: str, metric: str = "LambdaProvisionedConcurrencyUtilization") -> None:
        kind = {"PredefinedMetricType": metric}
        client.put_scaling_policy(
            **target,
            PolicyName=name,
            PolicyType="TargetTrackingScaling",
            TargetTrackingScalingPolicyConfiguration={
                "TargetValue": 0.7,
                "PredefinedMetricSpecification": kind,
            },
        )

    track("first")
    track("first")
    assert refusal(lambda: track("second")) == (
        "ValidationException",
        "Only one TargetTrackingScaling policy for a given metric specification is allowed.",
    )
    other = "SageMakerVariantInvocationsPerInstance"
    assert "is not supported for" in refusal(lambda: track("other", other))[1]
    client.deregister_scalable_target(**target)
    client.deregister_scalable_target(**{**target, "ResourceId": "function:strict:1"})


def test_a_build_is_under_way_and_ends_where_its_source_is_not(strict: Strict) -> None:
    client = strict.aws.client("codebuild")
    role = create_role(strict.aws.client("iam"), "building", "codebuild")
    project = {
        "name": "strict",
        "source": {"type": "S3", "location": "strict/source.zip", "buildspec": "version: 0.2"},
        "artifacts": {"type": "NO_ARTIFACTS"},
        "environment": {
            "type": "LINUX_CONTAINER",
            "image": "aws/codebuild/standard:7.0",
            "computeType": "BUILD_GENERAL1_SMALL",
        },
    }
    assert refusal(lambda: client.create_project(**project, serviceRole=strict.other)) == (
        "InvalidInputException",
        f"CodeBuild is not authorized to perform: sts:AssumeRole on {strict.other}",
    )
    made = client.create_project(**project, serviceRole=role)["project"]
    assert (made["timeoutInMinutes"], made["queuedTimeoutInMinutes"]) == (60, 480)
    assert client.batch_get_projects(names=["strict", "none"])["projectsNotFound"] == ["none"]

    def looks() -> list[str]:
        name = client.start_build(projectName="strict")["build"]["id"]
        found = [client.batch_get_builds(ids=[name])["builds"][0] for _ in range(3)]
        return [each["buildStatus"] for each in found]

    assert looks() == ["IN_PROGRESS", "FAILED", "FAILED"]
    strict.aws.client("s3").put_object(Bucket="strict", Key="source.zip", Body=b"zip")
    assert looks() == ["IN_PROGRESS", "SUCCEEDED", "SUCCEEDED"]
    unknown = "strict:12345678-1234-1234-1234-123456789012"
    assert client.batch_get_builds(ids=[unknown])["buildsNotFound"] == [unknown]


def test_a_function_is_pending_before_it_is_active(strict: Strict) -> None:
    client = unchecked(strict.aws, "lambda")
    name = {"FunctionName": "slow"}

    def told() -> tuple[str, str]:
        found = client.get_function_configuration(**name)
        return found["State"], found["LastUpdateStatus"]

    assert made(client, "slow", Role=strict.other)["State"] == "Pending"
    for call, said in (
        (lambda: client.invoke(**name), "in the following state: Pending"),
        (lambda: client.publish_version(**name), "An update is in progress for resource"),
    ):
        code, message = refusal(call)
        assert (code, said in message) == ("ResourceConflictException", True)
    assert [told(), told()] == [("Pending", "Successful"), ("Active", "Successful")]
    change = {**name, "Timeout": 9}
    assert client.update_function_configuration(**change)["LastUpdateStatus"] == "InProgress"
    assert refusal(lambda: client.update_function_configuration(**change))[0] == (
        "ResourceConflictException"
    )
    assert [told(), told()] == [("Active", "InProgress"), ("Active", "Successful")]
    assert client.publish_version(**name)["Version"] == "1"
    client.delete_function(**name)


def test_what_is_kept_ready_fits_the_account_and_the_function(function: Any) -> None:
    live = {"FunctionName": "strict", "Qualifier": "live"}
    assert (
        "below its minimum value of [100]"
        in refusal(
            lambda: function.put_provisioned_concurrency_config(
                **live, ProvisionedConcurrentExecutions=901
            )
        )[1]
    )
    function.put_provisioned_concurrency_config(**live, ProvisionedConcurrentExecutions=2)
    assert (
        "total provisioned concurrency [2]"
        in refusal(
            lambda: function.put_function_concurrency(
                FunctionName="strict", ReservedConcurrentExecutions=1
            )
        )[1]
    )
    assert (
        "at least one of error handling"
        in refusal(lambda: function.put_function_event_invoke_config(**live))[1]
    )
