"""ECR on localaws: AWS's own images, and the one that stands for any."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localaws.additions.ecr import ANY
from tests.localaws.conftest import LocalAws

AWS = "763104351884"


@pytest.fixture
def ecr(aws: LocalAws) -> Iterator[Any]:
    client = aws.client("ecr")
    client.create_repository(repositoryName="kennel-images")
    yield client
    client.delete_repository(repositoryName="kennel-images", force=True)


def test_aws_s_images_are_there(ecr: Any) -> None:
    tag = {"imageTag": "2.13-cpu-amzn2023-sagemaker"}
    found = ecr.batch_get_image(registryId=AWS, repositoryName="pytorch", imageIds=[tag])
    assert found["images"][0]["imageId"]["imageTag"] == tag["imageTag"]
    assert found["images"][0]["registryId"] == AWS


@pytest.mark.parametrize(
    ("registry", "tag"), [(AWS, "0.1-cpu"), ("123456789012", "2.13-cpu-amzn2023-sagemaker")]
)
def test_others_are_not(ecr: Any, registry: str, tag: str) -> None:
    with pytest.raises(ClientError) as error:
        ecr.batch_get_image(
            registryId=registry, repositoryName="pytorch", imageIds=[{"imageTag": tag}]
        )
    assert error.value.response["Error"]["Code"] == "RepositoryNotFoundException"


def test_an_image_that_was_pushed_is_found_beside_the_one_of_zeros(ecr: Any) -> None:
    media_type = "application/vnd.docker.distribution.manifest.v2+json"
    pushed = ecr.put_image(
        repositoryName="kennel-images",
        imageManifest=json.dumps({"schemaVersion": 2, "mediaType": media_type}),
        imageTag="one",
    )["image"]["imageId"]
    found = ecr.batch_get_image(
        repositoryName="kennel-images",
        imageIds=[{"imageTag": "one"}, {"imageDigest": ANY}, {"imageTag": "two"}],
    )
    digests = {image["imageId"]["imageDigest"] for image in found["images"]}
    assert digests == {pushed["imageDigest"], ANY}
    assert [failure["failureCode"] for failure in found["failures"]] == ["ImageNotFound"]
