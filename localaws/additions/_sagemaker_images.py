"""The images that a model may name: SageMaker looks at them when the model is made.

What it says is of public issues:
https://github.com/aws/amazon-sagemaker-feedback/issues/180 (form),
https://github.com/aws-samples/easy-amazon-sagemaker-deployments/issues/4 (not there),
https://github.com/aws/sagemaker-pytorch-inference-toolkit/pull/7 (another region),
https://github.com/aws/sagemaker-python-sdk/pull/4700 (another registry),
https://github.com/aws/amazon-sagemaker-examples/issues/2534, /1476 (a training job's is not there).
"""

import re
from collections.abc import Mapping
from typing import Any

from moto.ecr.models import ecr_backends
from moto.sagemaker import models
from moto.sagemaker.exceptions import ValidationError

from localaws.additions.ecr import DOCKER_MANIFEST, media_type

_PULLS = "ecr:BatchCheckLayerAvailability, ecr:BatchGetImage, ecr:GetDownloadUrlForLayer"
_ECR = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.[^/]+/(?P<repository>[^@:]+)"
    r"(@(?P<digest>sha256:[0-9a-f]{64})|:(?P<tag>[\w.-]+))?"
)


def refuse_image(backend: models.SageMakerModelBackend, container: Mapping[str, Any]) -> None:
    """Refuse a container whose image SageMaker would not take.

    An image of another account is not looked at.

    Raises:
        ValidationError: It would not.
    """
    image = container.get("Image")
    if not image:
        return
    place = _ECR.fullmatch(image)
    if not place:
        if (container.get("ImageConfig") or {}).get("RepositoryAccessMode") != "Vpc":
            raise ValidationError(
                f'Using non-ECR image "{image}" without Vpc repository access mode is not'
                " supported."
            )
        return
    if place["region"] != backend.region_name:
        raise ValidationError(
            f'Region of "{image}" does not match expected region of {backend.region_name}.'
            " Cross region ECR image pulls are not allowed."
        )
    if place["account"] != backend.account_id:
        return
    registry = ecr_backends[backend.account_id][backend.region_name]
    form = media_type(registry, place["repository"], _identity(place))
    if form is None:
        raise ValidationError(f"Requested image {image} not found.")
    if form != DOCKER_MANIFEST:
        raise ValidationError(
            f"Unsupported manifest media type {form} for image {image}. Ensure that valid manifest"
            " media type is used for specified image."
        )


def refuse_training_image(account: str, image: str, role: str) -> None:
    """Refuse the image of a training job, if it is one of the account's own that is not there.

    Args:
        account: The account.
        image: The image's address.
        role: ARN of the job's role, which is to pull it.

    Raises:
        ValidationError: It is not there.
    """
    place = _ECR.fullmatch(image)
    if not place or place["account"] != account:
        return
    registry, name = ecr_backends[account][place["region"]], place["repository"]
    if name not in registry.repositories:
        raise ValidationError(
            f"Cannot find repository: {name} in registry ID: {account} Please check if your ECR "
            f"repository exists and role {role} has proper pull permissions for SageMaker: {_PULLS}"
        )
    if media_type(registry, name, _identity(place)) is None:
        raise ValidationError(f"Cannot find the requested image: {image}")


def _identity(place: re.Match[str]) -> dict[str, str]:
    """How ECR names the image of an address."""
    if place["digest"]:
        return {"imageDigest": place["digest"]}
    return {"imageTag": place["tag"] or "latest"}
