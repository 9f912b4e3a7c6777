"""CodeBuild on localaws."""

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.localaws.conftest import LocalAws

NAME = "kennel-image"
KEY = "arn:aws:kms:us-east-1:123456789012:key/3f0a9a4c-8a0b-4f7e-9b56-0d3f6a8c1e11"
ROLE = "arn:aws:iam::123456789012:role/kennel-image-build"


@pytest.fixture
def repository(aws: LocalAws) -> Iterator[str]:
    ecr = aws.client("ecr")
    uri = ecr.create_repository(repositoryName="kennel-built", imageTagMutability="IMMUTABLE")
    yield uri["repository"]["repositoryUri"]
    ecr.delete_repository(repositoryName="kennel-built", force=True)


@pytest.fixture
def codebuild(aws: LocalAws, repository: str) -> Iterator[Any]:
    """A client and a project."""
    client = aws.client("codebuild")
    client.create_project(
        name=NAME,
        source={"type": "S3", "location": "kennel/source/image.zip", "buildspec": "version: 0.2"},
        artifacts={"type": "NO_ARTIFACTS"},
        environment={
            "type": "LINUX_CONTAINER",
            "image": "aws/codebuild/amazonlinux-x86_64-standard:6.0",
            "computeType": "BUILD_GENERAL1_SMALL",
            "privilegedMode": True,
            "environmentVariables": [{"name": "REPOSITORY_URL", "value": repository}],
        },
        serviceRole=ROLE,
        encryptionKey=KEY,
        concurrentBuildLimit=1,
        timeoutInMinutes=20,
    )
    yield client
    client.delete_project(name=NAME)


def project(codebuild: Any) -> dict[str, Any]:
    found: dict[str, Any] = codebuild.batch_get_projects(names=[NAME])["projects"][0]
    return found


def build(codebuild: Any, tag: str) -> dict[str, Any]:
    """Start a build and wait for its end, in two looks as clients do."""
    started = codebuild.start_build(
        projectName=NAME,
        sourceVersion="version",
        environmentVariablesOverride=[{"name": "IMAGE_TAG", "value": tag}],
    )["build"]
    assert started["buildStatus"] == "IN_PROGRESS"
    codebuild.batch_get_builds(ids=[started["id"]])
    ended: dict[str, Any] = codebuild.batch_get_builds(ids=[started["id"]])["builds"][0]
    return ended


def test_a_project_comes_back_as_it_went(codebuild: Any) -> None:
    found = project(codebuild)
    assert found["encryptionKey"] == KEY
    assert found["concurrentBuildLimit"] == 1
    assert found["timeoutInMinutes"] == 20


def test_a_project_can_be_changed(codebuild: Any) -> None:
    codebuild.update_project(name=NAME, description="new", concurrentBuildLimit=-1)
    found = project(codebuild)
    assert found["description"] == "new"
    assert "concurrentBuildLimit" not in found
    assert found["timeoutInMinutes"] == 20, "what was not given stays"
    with pytest.raises(ClientError) as error:
        codebuild.update_project(name="nobody", description="new")
    assert error.value.response["Error"]["Code"] == "ResourceNotFoundException"


def test_a_project_can_be_deleted_by_its_arn(codebuild: Any) -> None:
    codebuild.delete_project(name=project(codebuild)["arn"])
    assert not codebuild.batch_get_projects(names=[NAME])["projects"]


def test_a_build_leaves_its_image(codebuild: Any, aws: LocalAws) -> None:
    ended = build(codebuild, "abc123")
    assert ended["buildStatus"] == "SUCCEEDED"
    assert ended["buildComplete"]
    assert ended["sourceVersion"] == "version"
    phases = [phase["phaseType"] for phase in ended["phases"]]
    assert len(phases) == len(set(phases)), "each phase once, however often one looks"

    images = aws.client("ecr").batch_get_image(
        repositoryName="kennel-built", imageIds=[{"imageTag": "abc123"}]
    )["images"]
    assert images[0]["imageId"]["imageDigest"].startswith("sha256:")


@pytest.mark.parametrize(
    ("command", "form"),
    [
        ("docker build .", "oci.image.manifest.v1"),
        ("docker buildx build --output type=docker .", "oci.image.manifest.v1"),
        (
            "docker buildx build --output type=image,oci-mediatypes=false .",
            "docker.distribution.manifest.v2",
        ),
        ("podman build --format docker .", "docker.distribution.manifest.v2"),
    ],
)
def test_the_image_s_form_is_what_the_commands_ask_for(
    codebuild: Any, aws: LocalAws, command: str, form: str
) -> None:
    source = {"type": "S3", "location": "kennel/source/image.zip", "buildspec": command}
    codebuild.update_project(name=NAME, source=source)
    build(codebuild, "form")
    (image,) = aws.client("ecr").describe_images(repositoryName="kennel-built")["imageDetails"]
    assert image["imageManifestMediaType"] == f"application/vnd.{form}+json"


def test_two_builds_of_one_tag_leave_one_image(codebuild: Any, aws: LocalAws) -> None:
    assert build(codebuild, "same")["buildStatus"] == "SUCCEEDED"
    assert build(codebuild, "same")["buildStatus"] == "SUCCEEDED"
    assert build(codebuild, "other")["buildStatus"] == "SUCCEEDED"
    images = aws.client("ecr").describe_images(repositoryName="kennel-built")["imageDetails"]
    assert sorted(tag for image in images for tag in image["imageTags"]) == ["other", "same"]
