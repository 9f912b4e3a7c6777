"""ECR: AWS's own images, and one of our own that stands for any.

localaws serves from the archive and pulls no image. The digest of zeros names one that is in every
repository, so that what asks for the image before a deployment finds it.
"""

import json
from typing import Any

from moto.ecr.models import ECRBackend

from localaws.additions import Gap
from localaws.additions._moto import plain_client, refuses

ANY = f"sha256:{'0' * 64}"

_TRAINING = ("763104351884", "pytorch")
# https://aws.github.io/deep-learning-containers/reference/available_images/
_PUBLISHED = frozenset({"2.13-cpu-amzn2023-sagemaker", "2.13-cu133-amzn2023-sagemaker"})
_MEDIA_TYPE = "application/vnd.docker.distribution.manifest.v2+json"


def _probe() -> bool:
    with plain_client("ecr") as ecr:
        return not refuses(
            lambda: ecr.batch_get_image(
                registryId=_TRAINING[0],
                repositoryName=_TRAINING[1],
                imageIds=[{"imageTag": min(_PUBLISHED)}],
            )
        )


GAPS = [
    Gap(
        service="ecr",
        operation="BatchGetImage of AWS's registries",
        effect="nobody can see before a training job whether its image exists",
        closed=_probe,
    )
]


def install() -> None:
    """Publish AWS's images for training, and the one of zeros."""
    original = ECRBackend.batch_get_image

    def batch_get_image(
        self: ECRBackend,
        repository_name: str,
        registry_id: str | None = None,
        image_ids: list[dict[str, Any]] | None = None,
    ) -> dict[str, Any]:
        wanted = image_ids or []
        published = _PUBLISHED if (registry_id, repository_name) == _TRAINING else frozenset()
        there = [
            image
            for image in wanted
            if image.get("imageDigest") == ANY or image.get("imageTag") in published
        ]
        left = [image for image in wanted if image not in there]
        answer: dict[str, Any] = {"images": [], "failures": []}
        if left or not wanted:
            answer = original(self, repository_name, registry_id, left)
        registry = registry_id or self.account_id
        answer["images"] += [_image(registry, repository_name, each) for each in there]
        return answer

    mended: Any = ECRBackend
    mended.batch_get_image = batch_get_image


def _image(registry: str, repository: str, identity: dict[str, Any]) -> dict[str, Any]:
    return {
        "registryId": registry,
        "repositoryName": repository,
        "imageId": {"imageDigest": ANY, **identity},
        "imageManifest": json.dumps({"schemaVersion": 2, "mediaType": _MEDIA_TYPE, "layers": []}),
        "imageManifestMediaType": _MEDIA_TYPE,
    }
