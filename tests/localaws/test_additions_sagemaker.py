"""SageMaker on localaws: its models, endpoints, notebook instances and model packages."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.localaws.conftest import LocalAws

ACCOUNT = "123456789012"
ARN = f"arn:aws:sagemaker:us-east-1:{ACCOUNT}"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/kennel"
IMAGE = f"763104351884.dkr.ecr.us-east-1.amazonaws.com/kennel@sha256:{'a' * 64}"
VARIANT: dict[str, Any] = {
    "VariantName": "main",
    "ModelName": "kennel",
    "InstanceType": "ml.m5.large",
    "InitialInstanceCount": 2,
    "InitialVariantWeight": 1.0,
}
CAPTURE: dict[str, Any] = {
    "EnableCapture": True,
    "InitialSamplingPercentage": 10,
    "DestinationS3Uri": "s3://kennel/capture/",
    "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
}
CANARY: dict[str, Any] = {
    "BlueGreenUpdatePolicy": {
        "TrafficRoutingConfiguration": {
            "Type": "CANARY",
            "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 30},
            "WaitIntervalInSeconds": 60,
        },
        "TerminationWaitInSeconds": 60,
        "MaximumExecutionTimeoutInSeconds": 1800,
    },
    "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "kennel-rollback-5xx"}]},
}
ROLLING: dict[str, Any] = {
    "RollingUpdatePolicy": {
        "MaximumBatchSize": {"Type": "CAPACITY_PERCENT", "Value": 50},
        "WaitIntervalInSeconds": 60,
    }
}
SCALED = {
    "ServiceNamespace": "sagemaker",
    "ResourceId": "endpoint/kennel/variant/main",
    "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
}


@pytest.fixture
def sagemaker(aws: LocalAws) -> Iterator[Any]:
    """A client, and the model `kennel`; all that a test makes goes with it."""
    client = aws.client("sagemaker")
    create_model(client, "kennel", PrimaryContainer={"Image": IMAGE})
    yield client
    for endpoint in client.list_endpoints()["Endpoints"]:
        client.delete_endpoint(EndpointName=endpoint["EndpointName"])
    for config in client.list_endpoint_configs()["EndpointConfigs"]:
        client.delete_endpoint_config(EndpointConfigName=config["EndpointConfigName"])
    for model in client.list_models()["Models"]:
        client.delete_model(ModelName=model["ModelName"])
    for notebook in client.list_notebook_instances()["NotebookInstances"]:
        client.stop_notebook_instance(NotebookInstanceName=notebook["NotebookInstanceName"])
        client.delete_notebook_instance(NotebookInstanceName=notebook["NotebookInstanceName"])
    for group in client.list_model_package_groups()["ModelPackageGroupSummaryList"]:
        name = group["ModelPackageGroupName"]
        for package in packages(client, name):
            client.delete_model_package(ModelPackageName=package)
        client.delete_model_package_group(ModelPackageGroupName=name)


@pytest.fixture
def endpoint(sagemaker: Any) -> None:
    """The endpoint `kennel` with the configuration `first`."""
    create_config(sagemaker, "first")
    sagemaker.create_endpoint(EndpointName="kennel", EndpointConfigName="first")


def create_model(client: Any, name: str, **given: Any) -> None:
    client.create_model(ModelName=name, ExecutionRoleArn=ROLE, **given)


def create_config(client: Any, name: str, **changes: Any) -> None:
    given = {"ProductionVariants": [VARIANT], **changes}
    client.create_endpoint_config(EndpointConfigName=name, **given)


def update(client: Any, config: str, **given: Any) -> dict[str, Any]:
    client.update_endpoint(EndpointName="kennel", EndpointConfigName=config, **given)
    return describe(client)


def describe(client: Any) -> dict[str, Any]:
    found: dict[str, Any] = client.describe_endpoint(EndpointName="kennel")
    return found


def packages(client: Any, group: str) -> list[str]:
    found = client.list_model_packages(ModelPackageGroupName=group)["ModelPackageSummaryList"]
    return [package["ModelPackageArn"] for package in found]


def refused(error: pytest.ExceptionInfo[ClientError]) -> str:
    """The message of a `ValidationException`."""
    told = error.value.response["Error"]
    assert told["Code"] == "ValidationException"
    message: str = told["Message"]
    return message


def test_a_model_is_described_as_it_was_given(sagemaker: Any) -> None:
    network = {"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}
    container = {"Image": IMAGE, "ModelDataUrl": "s3://kennel/model.tar.gz", "Mode": "SingleModel"}
    create_model(
        sagemaker,
        "isolated",
        PrimaryContainer=container,
        VpcConfig=network,
        EnableNetworkIsolation=True,
    )
    described = sagemaker.describe_model(ModelName="isolated")
    assert described["PrimaryContainer"] == container
    assert described["VpcConfig"] == network
    assert described["EnableNetworkIsolation"] is True
    assert "Containers" not in described


@pytest.fixture
def pushed(aws: LocalAws) -> Iterator[str]:
    """Address of a repository with the images `docker`, `oci` and `list`, by what they are."""
    ecr, name = aws.client("ecr"), "kennel-forms"
    uri: str = ecr.create_repository(repositoryName=name)["repository"]["repositoryUri"]
    for tag, form in {
        "docker": "docker.distribution.manifest.v2",
        "oci": "oci.image.manifest.v1",
        "list": "oci.image.index.v1",
    }.items():
        manifest = {"schemaVersion": 2, "mediaType": f"application/vnd.{form}+json"}
        ecr.put_image(repositoryName=name, imageManifest=json.dumps(manifest), imageTag=tag)
    yield uri
    ecr.delete_repository(repositoryName=name, force=True)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ("{uri}:oci", "Unsupported manifest media type application/vnd.oci.image.manifest.v1+json"),
        ("{uri}:list", "Unsupported manifest media type application/vnd.oci.image.index.v1+json"),
        ("{uri}:other", "Requested image {uri}:other not found."),
        ("{uri}", "Requested image {uri} not found."),
        (f"{{uri}}@sha256:{'a' * 64}", "not found."),
        ("{uri}-not:docker", "Requested image {uri}-not:docker not found."),
        ("python:3.13", 'Using non-ECR image "python:3.13" without Vpc repository access mode is'),
        (
            f"{ACCOUNT}.dkr.ecr.eu-west-1.amazonaws.com/kennel:1",
            "does not match expected region of us-east-1. Cross region ECR image pulls are not",
        ),
    ],
)
@pytest.mark.parametrize("is_pipeline", [False, True])
def test_a_model_of_an_image_that_sagemaker_refuses(
    sagemaker: Any, pushed: str, image: str, said: str, is_pipeline: bool
) -> None:
    refusable = {"Image": image.format(uri=pushed)}
    taken = {"Image": f"{pushed}:docker"}
    given: dict[str, Any] = (
        {"Containers": [taken, refusable]} if is_pipeline else {"PrimaryContainer": refusable}
    )
    with pytest.raises(ClientError) as error:
        create_model(sagemaker, "refused", **given)
    assert said.format(uri=pushed) in refused(error)
    create_model(sagemaker, "taken", PrimaryContainer=taken)
    assert [model["ModelName"] for model in sagemaker.list_models()["Models"]] == [
        "kennel",
        "taken",
    ]


def test_an_image_of_a_registry_in_the_vpc_is_taken(sagemaker: Any) -> None:
    access = {"RepositoryAccessMode": "Vpc"}
    create_model(
        sagemaker, "vpc", PrimaryContainer={"Image": "registry.corp/a:1", "ImageConfig": access}
    )


def test_what_a_model_was_not_given_is_not_described(sagemaker: Any) -> None:
    described = sagemaker.describe_model(ModelName="kennel")
    assert described["EnableNetworkIsolation"] is False
    assert not described.keys() & {"Containers", "VpcConfig", "InferenceExecutionConfig"}


def test_an_endpoint_configuration_is_described_as_it_was_given(sagemaker: Any) -> None:
    variant = {
        **VARIANT,
        "InstanceType": "ml.c7i.xlarge",
        "ContainerStartupHealthCheckTimeoutInSeconds": 120,
        "ModelDataDownloadTimeoutInSeconds": 300,
        "RoutingConfig": {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"},
        "InferenceAmiVersion": "al2-ami-sagemaker-inference-gpu-2",
        "ManagedInstanceScaling": {"Status": "ENABLED", "MinInstanceCount": 1},
    }
    given = {
        "ProductionVariants": [variant, {**VARIANT, "VariantName": "other"}],
        "ShadowProductionVariants": [{**VARIANT, "VariantName": "shadow"}],
        "DataCaptureConfig": CAPTURE,
        "KmsKeyId": "key",
        "EnableNetworkIsolation": True,
        "ExecutionRoleArn": ROLE,
    }
    create_config(sagemaker, "full", **given)
    described = sagemaker.describe_endpoint_config(EndpointConfigName="full")
    assert given.items() <= described.items()


def test_what_a_configuration_was_not_given_is_not_described(sagemaker: Any) -> None:
    create_config(sagemaker, "plain")
    described = sagemaker.describe_endpoint_config(EndpointConfigName="plain")
    assert not described.keys() & {"DataCaptureConfig", "ShadowProductionVariants", "KmsKeyId"}


@pytest.mark.parametrize("kind", ["ProductionVariants", "ShadowProductionVariants"])
def test_a_configuration_of_an_unknown_model_is_refused(sagemaker: Any, kind: str) -> None:
    with pytest.raises(ClientError) as error:
        create_config(sagemaker, "bad", **{kind: [{**VARIANT, "ModelName": "unknown"}]})
    assert refused(error).startswith("Could not find model")


def test_an_instance_type_that_does_not_exist_is_refused(sagemaker: Any) -> None:
    with pytest.raises(ClientError) as error:
        create_config(
            sagemaker, "bad", ProductionVariants=[{**VARIANT, "InstanceType": "ml.x1.large"}]
        )
    assert "'ml.x1.large' at 'productionVariants.1.member.instanceType'" in refused(error)


@pytest.mark.usefixtures("endpoint")
@pytest.mark.parametrize(
    ("kind", "operation", "given"),
    [
        ('model "{}:model/kennel"', "create_model", {"ModelName": "kennel"}),
        (
            'endpoint configuration "{}:endpoint-config/first"',
            "create_endpoint_config",
            {"EndpointConfigName": "first", "ProductionVariants": [VARIANT]},
        ),
        (
            'endpoint "{}:endpoint/kennel"',
            "create_endpoint",
            {"EndpointName": "kennel", "EndpointConfigName": "first"},
        ),
    ],
)
def test_a_name_in_use_is_refused(
    sagemaker: Any, kind: str, operation: str, given: dict[str, Any]
) -> None:
    with pytest.raises(ClientError) as error:
        getattr(sagemaker, operation)(**given)
    assert refused(error) == f"Cannot create already existing {kind.format(ARN)}."


def test_a_new_endpoint_is_in_service(sagemaker: Any) -> None:
    shadow = {**VARIANT, "VariantName": "shadow"}
    create_config(sagemaker, "full", DataCaptureConfig=CAPTURE, ShadowProductionVariants=[shadow])
    sagemaker.create_endpoint(
        EndpointName="kennel", EndpointConfigName="full", DeploymentConfig=CANARY
    )
    described = describe(sagemaker)
    assert (described["EndpointStatus"], described["EndpointConfigName"]) == ("InService", "full")
    assert described["LastDeploymentConfig"] == CANARY
    assert described["DataCaptureConfig"] == {
        "EnableCapture": True,
        "CaptureStatus": "Started",
        "CurrentSamplingPercentage": 10,
        "DestinationS3Uri": "s3://kennel/capture/",
        "KmsKeyId": "",
    }
    (main,), (shadowing,) = described["ProductionVariants"], described["ShadowProductionVariants"]
    assert shadowing["VariantName"] == "shadow"
    assert main["DeployedImages"][0]["ResolvedImage"] == IMAGE
    counts = [main[f"{when}InstanceCount"] for when in ("Current", "Desired")]
    weights = [main[f"{when}Weight"] for when in ("Current", "Desired")]
    assert (counts, weights) == ([2, 2], [1.0, 1.0])


@pytest.mark.usefixtures("endpoint")
def test_an_endpoint_moves_to_another_model(sagemaker: Any) -> None:
    before = describe(sagemaker)
    create_model(sagemaker, "second", PrimaryContainer={"Image": f"{IMAGE[:-1]}b"})
    create_config(sagemaker, "second", ProductionVariants=[{**VARIANT, "ModelName": "second"}])
    after = update(sagemaker, "second", DeploymentConfig=CANARY)
    assert (after["EndpointConfigName"], after["EndpointStatus"]) == ("second", "InService")
    assert after["LastDeploymentConfig"] == CANARY
    assert after["LastModifiedTime"] > before["LastModifiedTime"]
    assert after["CreationTime"] == before["CreationTime"]
    (variant,) = after["ProductionVariants"]
    assert variant["DeployedImages"][0]["ResolvedImage"].endswith("b")


@pytest.mark.usefixtures("endpoint")
def test_an_endpoint_serves_a_configuration_that_is_deleted(sagemaker: Any) -> None:
    sagemaker.delete_endpoint_config(EndpointConfigName="first")
    assert describe(sagemaker)["EndpointConfigName"] == "first"
    create_config(sagemaker, "second")
    assert update(sagemaker, "second")["EndpointConfigName"] == "second"


@pytest.mark.usefixtures("endpoint")
def test_a_configuration_whose_model_is_deleted_is_not_deployed(sagemaker: Any) -> None:
    create_model(sagemaker, "second")
    create_config(sagemaker, "second", ProductionVariants=[{**VARIANT, "ModelName": "second"}])
    sagemaker.delete_model(ModelName="second")
    before = describe(sagemaker)
    with pytest.raises(ClientError) as error:
        update(sagemaker, "second", DeploymentConfig=CANARY)
    assert refused(error).startswith("Could not find model")
    assert {**describe(sagemaker), "ResponseMetadata": ""} == {**before, "ResponseMetadata": ""}


@pytest.mark.usefixtures("endpoint")
def test_how_it_was_deployed_is_kept_only_if_asked_for(sagemaker: Any) -> None:
    for name in ("second", "third", "fourth"):
        create_config(sagemaker, name)
    assert update(sagemaker, "second", DeploymentConfig=ROLLING)["LastDeploymentConfig"] == ROLLING
    kept = update(sagemaker, "third", RetainDeploymentConfig=True)
    assert kept["LastDeploymentConfig"] == ROLLING
    assert "LastDeploymentConfig" not in update(sagemaker, "fourth")


@pytest.mark.usefixtures("endpoint")
def test_counts_and_weights_are_kept_only_if_asked_for(sagemaker: Any) -> None:
    def scale(count: int, weight: float) -> None:
        desired = {"VariantName": "main", "DesiredInstanceCount": count, "DesiredWeight": weight}
        sagemaker.update_endpoint_weights_and_capacities(
            EndpointName="kennel", DesiredWeightsAndCapacities=[desired]
        )

    def running() -> tuple[int, float]:
        (variant,) = describe(sagemaker)["ProductionVariants"]
        return variant["CurrentInstanceCount"], variant["DesiredWeight"]

    for name in ("second", "third", "fourth"):
        create_config(sagemaker, name)
    scale(4, 0.5)
    update(sagemaker, "second", RetainAllVariantProperties=True)
    assert running() == (4, 0.5)
    update(
        sagemaker,
        "third",
        RetainAllVariantProperties=True,
        ExcludeRetainedVariantProperties=[{"VariantPropertyType": "DesiredWeight"}],
    )
    assert running() == (4, 1.0)
    update(sagemaker, "fourth")
    assert running() == (2, 1.0)


@pytest.mark.usefixtures("endpoint")
@pytest.mark.parametrize(
    ("change", "count", "weight"),
    [({"DesiredInstanceCount": 3}, 3, 1.0), ({"DesiredWeight": 0.25}, 2, 0.25)],
)
def test_a_new_count_leaves_the_weight_and_a_new_weight_the_count(
    sagemaker: Any, change: dict[str, Any], count: int, weight: float
) -> None:
    sagemaker.update_endpoint_weights_and_capacities(
        EndpointName="kennel", DesiredWeightsAndCapacities=[{"VariantName": "main", **change}]
    )
    (variant,) = describe(sagemaker)["ProductionVariants"]
    assert (variant["DesiredInstanceCount"], variant["CurrentWeight"]) == (count, weight)


@pytest.mark.usefixtures("endpoint")
def test_updates_that_aws_refuses_are_refused(sagemaker: Any) -> None:
    with pytest.raises(ClientError) as error:
        update(sagemaker, "first")
    assert refused(error) == (
        'Cannot update endpoint with the currently in use endpoint configuration "first".'
    )
    with pytest.raises(ClientError) as error:
        update(sagemaker, "unknown")
    assert refused(error) == (
        f'Could not find endpoint configuration "{ARN}:endpoint-config/unknown".'
    )
    with pytest.raises(ClientError) as error:
        sagemaker.update_endpoint(EndpointName="unknown", EndpointConfigName="first")
    assert refused(error) == f'Could not find endpoint "{ARN}:endpoint/unknown".'
    with pytest.raises(ClientError) as error:
        sagemaker.create_endpoint(EndpointName="other", EndpointConfigName="unknown")
    assert refused(error).startswith("Could not find endpoint configuration")
    assert describe(sagemaker)["EndpointConfigName"] == "first"


@pytest.mark.usefixtures("endpoint")
@pytest.mark.parametrize(
    "variant",
    [{**VARIANT, "InstanceType": "ml.c6i.large"}, {**VARIANT, "VariantName": "renamed"}],
    ids=["another instance type", "removed"],
)
def test_a_scaled_variant_has_to_be_deregistered_first(
    aws: LocalAws, sagemaker: Any, variant: dict[str, Any]
) -> None:
    scaling = aws.client("application-autoscaling")
    scaling.register_scalable_target(**SCALED, MinCapacity=1, MaxCapacity=4)
    create_config(sagemaker, "same", ProductionVariants=[{**VARIANT, "InitialInstanceCount": 1}])
    create_config(sagemaker, "other", ProductionVariants=[variant])
    update(sagemaker, "same")
    with pytest.raises(ClientError) as error:
        update(sagemaker, "other")
    assert refused(error) == (
        'The variant(s) "["main"]" must be deregistered as scalable targets with AWS Auto Scaling'
        " before they can be removed or have their instance type updated."
    )
    scaling.deregister_scalable_target(**SCALED)
    assert update(sagemaker, "other")["EndpointConfigName"] == "other"


@pytest.mark.usefixtures("endpoint")
def test_a_deleted_endpoint_is_deregistered(aws: LocalAws, sagemaker: Any) -> None:
    scaling = aws.client("application-autoscaling")
    scaling.register_scalable_target(**SCALED, MinCapacity=1, MaxCapacity=4)
    sagemaker.delete_endpoint(EndpointName="kennel")
    found = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")
    assert found["ScalableTargets"] == []


def test_a_notebook_instance_is_described_as_it_was_given(sagemaker: Any) -> None:
    given = {
        "InstanceType": "ml.g5.xlarge",
        "SubnetId": "subnet-1",
        "RoleArn": ROLE,
        "KmsKeyId": "key",
        "DirectInternetAccess": "Disabled",
        "VolumeSizeInGB": 10,
        "RootAccess": "Disabled",
        "PlatformIdentifier": "notebook-al2-v2",
        "InstanceMetadataServiceConfiguration": {"MinimumInstanceMetadataServiceVersion": "2"},
    }
    sagemaker.create_notebook_instance(
        NotebookInstanceName="kennel", SecurityGroupIds=["sg-1"], **given
    )
    described = sagemaker.describe_notebook_instance(NotebookInstanceName="kennel")
    assert given.items() <= described.items()
    assert described["SecurityGroups"] == ["sg-1"]
    assert described["NotebookInstanceStatus"] == "InService"


def test_a_notebook_instance_has_the_defaults_of_aws(sagemaker: Any) -> None:
    name = {"NotebookInstanceName": "kennel"}
    sagemaker.create_notebook_instance(**name, InstanceType="ml.t3.medium", RoleArn=ROLE)
    described = sagemaker.describe_notebook_instance(**name)
    assert (described["RootAccess"], described["DirectInternetAccess"]) == ("Enabled", "Enabled")
    assert described["PlatformIdentifier"].startswith("notebook-al2")
    assert described["InstanceMetadataServiceConfiguration"] == {
        "MinimumInstanceMetadataServiceVersion": "1"
    }


def test_a_notebook_instance_is_changed_while_it_is_stopped(sagemaker: Any) -> None:
    name = {"NotebookInstanceName": "kennel"}
    given = {"LifecycleConfigName": "stop-idle", "DefaultCodeRepository": "https://example.com/a"}
    sagemaker.create_notebook_instance(**name, InstanceType="ml.t3.medium", RoleArn=ROLE, **given)
    changes = {"InstanceType": "ml.t3.large", "RootAccess": "Disabled", "VolumeSizeInGB": 20}
    with pytest.raises(ClientError) as error:
        sagemaker.update_notebook_instance(**name, **changes)
    assert "Status (InService) not in ([Stopped, Failed])" in refused(error)
    sagemaker.stop_notebook_instance(**name)
    sagemaker.update_notebook_instance(**name, **changes, DisassociateLifecycleConfig=True)
    sagemaker.start_notebook_instance(**name)
    described = sagemaker.describe_notebook_instance(**name)
    assert changes.items() <= described.items()
    assert "NotebookInstanceLifecycleConfigName" not in described
    assert described["DefaultCodeRepository"] == "https://example.com/a"


def test_a_lifecycle_script_is_changed(sagemaker: Any) -> None:
    name = {"NotebookInstanceLifecycleConfigName": "kennel"}
    script, other = [{"Content": "ZWNobyBh"}], [{"Content": "ZWNobyBi"}]
    sagemaker.create_notebook_instance_lifecycle_config(**name, OnStart=script, OnCreate=script)
    sagemaker.update_notebook_instance_lifecycle_config(**name, OnStart=other)
    described = sagemaker.describe_notebook_instance_lifecycle_config(**name)
    assert (described["OnStart"], described["OnCreate"]) == (other, script)
    plain = [{"Content": "#!/bin/bash"}]
    for call in ("create", "update"):
        with pytest.raises(ClientError) as error:
            getattr(sagemaker, f"{call}_notebook_instance_lifecycle_config")(
                NotebookInstanceLifecycleConfigName="plain" if call == "create" else "kennel",
                OnStart=plain,
            )
        assert "must be encoded as base64" in refused(error)
    sagemaker.delete_notebook_instance_lifecycle_config(**name)
    with pytest.raises(ClientError) as error:
        sagemaker.update_notebook_instance_lifecycle_config(**name, OnStart=script)
    assert "does not exist" in refused(error)


def test_a_model_package_group_is_deleted_once_it_is_empty(sagemaker: Any) -> None:
    name = {"ModelPackageGroupName": "kennel"}
    sagemaker.create_model_package_group(**name)
    assert sagemaker.describe_model_package_group(**name)["ModelPackageGroupStatus"] == "Completed"
    with pytest.raises(ClientError, match="already exists"):
        sagemaker.create_model_package_group(**name)
    package = sagemaker.create_model_package(**name)["ModelPackageArn"]
    with pytest.raises(ClientError, match="contains model packages"):
        sagemaker.delete_model_package_group(**name)
    sagemaker.delete_model_package(ModelPackageName=package)
    sagemaker.delete_model_package_group(**name)
    with pytest.raises(ClientError, match="does not exist"):
        sagemaker.describe_model_package_group(**name)


def test_the_version_of_a_model_package_is_never_given_twice(sagemaker: Any) -> None:
    name = {"ModelPackageGroupName": "kennel"}
    sagemaker.create_model_package_group(**name)
    first = sagemaker.create_model_package(**name)["ModelPackageArn"]
    second = sagemaker.create_model_package(**name)["ModelPackageArn"]
    sagemaker.delete_model_package(ModelPackageName=first)
    third = sagemaker.create_model_package(**name)["ModelPackageArn"]
    assert third.endswith("/3")
    assert set(packages(sagemaker, "kennel")) == {second, third}


def test_an_approval_keeps_the_rest_of_a_model_package(sagemaker: Any) -> None:
    name = {"ModelPackageGroupName": "kennel"}
    sagemaker.create_model_package_group(**name)
    arn = sagemaker.create_model_package(
        **name,
        ModelApprovalStatus="PendingManualApproval",
        CustomerMetadataProperties={"accuracy": "0.9", "digest": "abc"},
        SourceUri="s3://kennel/model.tar.gz",
        SkipModelValidation="All",
    )["ModelPackageArn"]
    sagemaker.update_model_package(
        ModelPackageArn=arn, ModelApprovalStatus="Approved", ApprovalDescription="good"
    )
    sagemaker.update_model_package(
        ModelPackageArn=arn,
        CustomerMetadataProperties={"accuracy": "0.8"},
        CustomerMetadataPropertiesToRemove=["digest"],
    )
    described = sagemaker.describe_model_package(ModelPackageName=arn)
    expected = {
        "ModelApprovalStatus": "Approved",
        "ApprovalDescription": "good",
        "CustomerMetadataProperties": {"accuracy": "0.8"},
        "SourceUri": "s3://kennel/model.tar.gz",
        "SkipModelValidation": "All",
    }
    assert expected.items() <= described.items()


@pytest.mark.usefixtures("endpoint")
def test_all_kinds_are_tagged_alike(aws: LocalAws, sagemaker: Any) -> None:
    group = {"ModelPackageGroupName": "kennel"}
    lifecycle = {"NotebookInstanceLifecycleConfigName": "kennel"}
    notebook = {"InstanceType": "ml.t3.medium", "RoleArn": ROLE}
    arns = [
        f"{ARN}:model/kennel",
        f"{ARN}:endpoint-config/first",
        f"{ARN}:endpoint/kennel",
        sagemaker.create_notebook_instance_lifecycle_config(**lifecycle)[
            "NotebookInstanceLifecycleConfigArn"
        ],
        sagemaker.create_notebook_instance(NotebookInstanceName="kennel", **notebook)[
            "NotebookInstanceArn"
        ],
        sagemaker.create_model_package_group(**group)["ModelPackageGroupArn"],
        sagemaker.create_model_package(**group)["ModelPackageArn"],
    ]
    for arn in arns:
        for owner in ("me", "you"):
            tags = [{"Key": "owner", "Value": owner}, {"Key": "project", "Value": "kennel"}]
            sagemaker.add_tags(ResourceArn=arn, Tags=tags)
            assert sagemaker.list_tags(ResourceArn=arn)["Tags"] == tags, arn
        with pytest.raises(ClientError) as error:
            sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "aws:owner", "Value": "me"}])
        assert "reserved for AWS" in refused(error)
        sagemaker.delete_tags(ResourceArn=arn, TagKeys=["project"])
        assert sagemaker.list_tags(ResourceArn=arn)["Tags"] == tags[:1], arn
    found = aws.client("resourcegroupstaggingapi").get_resources(
        TagFilters=[{"Key": "owner", "Values": ["you"]}]
    )
    assert {tagged["ResourceARN"] for tagged in found["ResourceTagMappingList"]} == set(arns)
    sagemaker.delete_notebook_instance_lifecycle_config(**lifecycle)
    with pytest.raises(ClientError) as error:
        sagemaker.list_tags(ResourceArn=f"{ARN}:model/unknown")
    assert "Could not find" in refused(error)


@pytest.mark.usefixtures("endpoint")
def test_all_is_there_after_a_restart_and_gone_after_its_end(aws: LocalAws, sagemaker: Any) -> None:
    name = {"NotebookInstanceName": "kennel"}
    sagemaker.create_notebook_instance(**name, InstanceType="ml.t3.medium", RoleArn=ROLE)
    sagemaker.delete_endpoint_config(EndpointConfigName="first")
    before = describe(sagemaker), sagemaker.describe_notebook_instance(**name)
    aws.restart()
    after = describe(sagemaker), sagemaker.describe_notebook_instance(**name)
    for old, new in zip(before, after, strict=True):
        assert {**old, "ResponseMetadata": ""} == {**new, "ResponseMetadata": ""}
    create_config(sagemaker, "second")
    update(sagemaker, "second")
    sagemaker.delete_endpoint(EndpointName="kennel")
    sagemaker.delete_endpoint_config(EndpointConfigName="second")
    sagemaker.delete_model(ModelName="kennel")
    sagemaker.stop_notebook_instance(**name)
    sagemaker.delete_notebook_instance(**name)
    assert "sagemaker" not in aws.inventory()
