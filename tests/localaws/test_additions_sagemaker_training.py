"""Training jobs on a localaws that keeps records only: what is given is kept and found again."""

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.localaws.conftest import LocalAws

ROLE = "arn:aws:iam::123456789012:role/training"
GIVEN: dict[str, Any] = {
    "TrainingJobName": "kennel",
    "RoleArn": ROLE,
    "AlgorithmSpecification": {
        "TrainingImage": "image",
        "TrainingInputMode": "FastFile",
        "ContainerEntrypoint": ["/bin/bash"],
        "MetricDefinitions": [{"Name": "loss", "Regex": "loss=(.*)"}],
    },
    "CheckpointConfig": {"S3Uri": "s3://kennel/checkpoints", "LocalPath": "/opt/ml/checkpoints"},
    "EnableManagedSpotTraining": True,
    "Environment": {"COLOUR": "blue"},
    "HyperParameters": {"epochs": "3"},
    "InputDataConfig": [
        {
            "ChannelName": "training",
            "DataSource": {
                "S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://kennel/data"},
            },
        }
    ],
    "OutputDataConfig": {"S3OutputPath": "s3://kennel/jobs", "CompressionType": "GZIP"},
    "ResourceConfig": {
        "InstanceType": "ml.g5.xlarge",
        "InstanceCount": 2,
        "VolumeSizeInGB": 50,
        "KeepAlivePeriodInSeconds": 600,
    },
    "RetryStrategy": {"MaximumRetryAttempts": 2},
    "StoppingCondition": {"MaxRuntimeInSeconds": 3600, "MaxWaitTimeInSeconds": 7200},
}
LEAST = {name: GIVEN[name] for name in ("RoleArn", "AlgorithmSpecification", "OutputDataConfig")}


@pytest.fixture
def sagemaker(aws: LocalAws) -> Iterator[Any]:
    client = aws.client("sagemaker")
    yield client
    for job in client.list_training_jobs(MaxResults=100)["TrainingJobSummaries"]:
        client.delete_training_job(TrainingJobName=job["TrainingJobName"])


def test_a_job_is_described_as_it_was_given(sagemaker: Any) -> None:
    tags = [{"Key": "project", "Value": "kennel"}]
    arn = sagemaker.create_training_job(**GIVEN, Tags=tags)["TrainingJobArn"]
    described = sagemaker.describe_training_job(TrainingJobName="kennel")
    assert {name: described[name] for name in GIVEN} == GIVEN
    assert described["TrainingJobStatus"] == "Completed"
    assert described["WarmPoolStatus"] == {"Status": "Available"}
    assert sagemaker.list_tags(ResourceArn=arn)["Tags"] == tags


def test_what_was_not_given_is_not_invented(sagemaker: Any) -> None:
    sagemaker.create_training_job(TrainingJobName="least", **LEAST, HyperParameters={})
    described = sagemaker.describe_training_job(TrainingJobName="least")
    absent = {
        "Environment",
        "FinalMetricDataList",
        "HyperParameters",
        "VpcConfig",
        "DebugHookConfig",
    }
    assert not absent & described.keys()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"TrainingJobName": "under_score"}, "at 'trainingJobName' .* regular expression pattern"),
        ({"TrainingJobName": "a" * 64}, "must have length less than or equal to 63"),
        (
            {"ResourceConfig": {**GIVEN["ResourceConfig"], "InstanceType": "ml.g5.tiny"}},
            "at 'resourceConfig.instanceType' .* enum value set",
        ),
        ({"AlgorithmSpecification": {"TrainingInputMode": "File"}}, "TrainingImage"),
        ({"StoppingCondition": {"MaxRuntimeInSeconds": 60}}, "Invalid MaxWaitTimeInSeconds"),
        ({"EnableManagedSpotTraining": False}, "Invalid MaxWaitTimeInSeconds"),
        ({"InputDataConfig": GIVEN["InputDataConfig"] * 2}, "unique: training"),
        (
            {
                "AlgorithmSpecification": {
                    **GIVEN["AlgorithmSpecification"],
                    "MetricDefinitions": [{"Name": "loss", "Regex": "loss=.*"}],
                }
            },
            "no group",
        ),
    ],
)
def test_a_request_that_aws_refuses_is_refused(
    sagemaker: Any, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ClientError, match=f"(?i){message}") as refused:
        sagemaker.create_training_job(**{**GIVEN, **change})
    assert refused.value.response["Error"]["Code"] == "ValidationException"
    assert not sagemaker.list_training_jobs()["TrainingJobSummaries"]


def test_an_image_of_the_account_s_own_registry_has_to_be_there(
    aws: LocalAws, sagemaker: Any
) -> None:
    ecr, name = aws.client("ecr"), {"repositoryName": "own-training"}
    image = "123456789012.dkr.ecr.us-east-1.amazonaws.com/own-training:one"
    algorithm = {"AlgorithmSpecification": {"TrainingImage": image, "TrainingInputMode": "File"}}

    def refusal() -> str:
        with pytest.raises(ClientError) as refused:
            sagemaker.create_training_job(**{**GIVEN, **algorithm})
        assert refused.value.response["Error"]["Code"] == "ValidationException"
        return str(refused.value)

    assert "Cannot find repository: own-training in registry ID: 123456789012" in refusal()
    ecr.create_repository(**name)
    assert f"Cannot find the requested image: {image}" in refusal()
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    manifest = f'{{"schemaVersion": 2, "mediaType": "{kind}", "layers": []}}'
    ecr.put_image(**name, imageManifest=manifest, imageTag="one")
    sagemaker.create_training_job(**{**GIVEN, **algorithm})
    ecr.delete_repository(**name, force=True)


def test_a_name_is_given_once(sagemaker: Any) -> None:
    sagemaker.create_training_job(**GIVEN)
    with pytest.raises(sagemaker.exceptions.ResourceInUse, match="must be unique"):
        sagemaker.create_training_job(**GIVEN)


def test_jobs_are_found_sorted_and_a_page_at_a_time(sagemaker: Any) -> None:
    for name in ("dog-b", "cat", "dog-c", "dog-a"):
        sagemaker.create_training_job(TrainingJobName=name, **LEAST)

    def names(**wanted: Any) -> list[str]:
        found = sagemaker.list_training_jobs(**wanted)["TrainingJobSummaries"]
        return [job["TrainingJobName"] for job in found]

    assert names() == ["dog-b", "cat", "dog-c", "dog-a"]
    assert names(NameContains="dog", SortBy="Name") == ["dog-a", "dog-b", "dog-c"]
    assert names(StatusEquals="Failed") == []
    created = sagemaker.describe_training_job(TrainingJobName="dog-c")["CreationTime"]
    assert names(CreationTimeAfter=created) == ["dog-c", "dog-a"]
    pages = sagemaker.get_paginator("list_training_jobs").paginate(
        SortBy="Name", SortOrder="Descending", PaginationConfig={"PageSize": 3}
    )
    paged = [[job["TrainingJobName"] for job in page["TrainingJobSummaries"]] for page in pages]
    assert paged == [["dog-c", "dog-b", "dog-a"], ["cat"]]
    with pytest.raises(ClientError, match="Invalid pagination token"):
        names(NextToken="x")


def test_a_warm_pool_can_be_ended(sagemaker: Any) -> None:
    sagemaker.create_training_job(**GIVEN)
    sagemaker.update_training_job(
        TrainingJobName="kennel", ResourceConfig={"KeepAlivePeriodInSeconds": 0}
    )
    described = sagemaker.describe_training_job(TrainingJobName="kennel")
    assert described["WarmPoolStatus"]["Status"] == "Terminated"
    assert described["ResourceConfig"]["InstanceCount"] == 2


def test_a_job_that_has_ended_cannot_be_stopped_but_deleted(sagemaker: Any) -> None:
    sagemaker.create_training_job(**GIVEN)
    with pytest.raises(ClientError, match="in status Completed"):
        sagemaker.stop_training_job(TrainingJobName="kennel")
    sagemaker.delete_training_job(TrainingJobName="kennel")
    with pytest.raises(ClientError, match="not found"):
        sagemaker.describe_training_job(TrainingJobName="kennel")
    with pytest.raises(sagemaker.exceptions.ResourceNotFound):
        sagemaker.delete_training_job(TrainingJobName="kennel")
