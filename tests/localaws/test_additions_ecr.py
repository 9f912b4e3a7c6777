"""ECR on localaws: AWS's own images, and the one that stands for any."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localaws.additions.ecr import ANY
from tests.localaws.conftest import LocalAws

AWS = "763104351884"
FORMS = (
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
)
INDEX = "application/vnd.oci.image.index.v1+json"


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


def push(ecr: Any, tag: str | None, **manifest: Any) -> str:
    """Push a manifest; give its digest."""
    text = json.dumps({"schemaVersion": 2, **manifest})
    named = {"imageTag": tag} if tag else {}
    pushed = ecr.put_image(repositoryName="kennel-images", imageManifest=text, **named)
    digest: str = pushed["image"]["imageId"]["imageDigest"]
    assert digest == f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
    return digest


def test_images_of_the_same_layers_and_other_forms_are_two(ecr: Any) -> None:
    layers = [{"digest": f"sha256:{'1' * 64}"}]
    digests = {form: push(ecr, form[-7:-5], mediaType=form, layers=layers) for form in FORMS}
    found = ecr.describe_images(repositoryName="kennel-images")["imageDetails"]
    assert {image["imageManifestMediaType"]: image["imageDigest"] for image in found} == digests


def test_a_digest_that_is_not_the_manifest_s_is_refused(ecr: Any) -> None:
    with pytest.raises(ClientError) as error:
        ecr.put_image(
            repositoryName="kennel-images",
            imageManifest=json.dumps({"schemaVersion": 2, "mediaType": FORMS[0]}),
            imageDigest=f"sha256:{'2' * 64}",
        )
    assert error.value.response["Error"]["Code"] == "ImageDigestDoesNotMatchException"


def test_an_image_stays_while_a_list_names_it(ecr: Any) -> None:
    image = push(ecr, None, mediaType=FORMS[1], layers=[])
    index = push(ecr, "list", mediaType=INDEX, manifests=[{"digest": image}])

    def delete(*digests: str) -> Any:
        asked = [{"imageDigest": digest} for digest in digests]
        return ecr.batch_delete_image(repositoryName="kennel-images", imageIds=asked)

    with pytest.raises(ClientError, match="RepositoryNotEmptyException"):
        ecr.delete_repository(repositoryName="kennel-images")
    answer = delete(image, index)
    (failure,) = answer["failures"]
    assert failure["failureCode"] == "ImageReferencedByManifestList"
    assert index in failure["failureReason"]
    assert [gone["imageDigest"] for gone in answer["imageIds"]] == [index]
    assert delete(image)["imageIds"] == [{"imageDigest": image}]


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
