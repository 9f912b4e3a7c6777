"""SSM's public parameters on localaws."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.localaws.conftest import LocalAws

FOLDER = "/aws/service/deeplearning/ami/x86_64"


@pytest.fixture
def ssm(aws: LocalAws) -> Any:
    return aws.client("ssm")


@pytest.mark.parametrize(
    "kind",
    [
        "base-oss-nvidia-driver-ubuntu-22.04",
        "oss-nvidia-driver-gpu-pytorch-2.13-amazon-linux-2023",
    ],
)
def test_a_deep_learning_image_is_published_and_known(ssm: Any, aws: LocalAws, kind: str) -> None:
    found = ssm.get_parameter(Name=f"{FOLDER}/{kind}/latest/ami-id")["Parameter"]
    images = aws.client("ec2").describe_images(ImageIds=[found["Value"]])["Images"]
    assert "Deep Learning" in images[0]["Name"]


def test_they_are_found_by_path(ssm: Any) -> None:
    found = ssm.get_parameters_by_path(Path=FOLDER, Recursive=True)["Parameters"]
    assert len(found) == 2


def test_an_image_that_was_never_published_is_unknown(ssm: Any) -> None:
    with pytest.raises(ClientError) as error:
        ssm.get_parameter(Name=f"{FOLDER}/pytorch-0.1-ubuntu-8.04/latest/ami-id")
    assert error.value.response["Error"]["Code"] == "ParameterNotFound"
