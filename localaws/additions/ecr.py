"""ECR: AWS's own images, one of our own that stands for any, and digests of what was pushed.

localaws serves from the archive and pulls no image. The digest of zeros names one that is in every
repository, so that what asks for the image before a deployment finds it.
"""

import hashlib
import json
from typing import Any

from moto.core.exceptions import ServiceException
from moto.ecr.models import ECRBackend, Image

from localaws.additions import Gap
from localaws.additions._moto import plain_client, refuses

ANY = f"sha256:{'0' * 64}"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"

_TRAINING = ("763104351884", "pytorch")
# https://aws.github.io/deep-learning-containers/reference/available_images/
_PUBLISHED = frozenset({"2.13-cpu-amzn2023-sagemaker", "2.13-cu133-amzn2023-sagemaker"})


class DigestError(ServiceException):
    """The digest that a client gave is not that of its manifest."""

    code = "ImageDigestDoesNotMatchException"


def _has_published() -> bool:
    with plain_client("ecr") as ecr:
        return not refuses(
            lambda: ecr.batch_get_image(
                registryId=_TRAINING[0],
                repositoryName=_TRAINING[1],
                imageIds=[{"imageTag": min(_PUBLISHED)}],
            )
        )


def _digests_manifests() -> bool:
    manifest = json.dumps({"schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "layers": []})
    with plain_client("ecr") as ecr:
        ecr.create_repository(repositoryName="probe")
        pushed = ecr.put_image(repositoryName="probe", imageManifest=manifest, imageTag="probe")
    found: str = pushed["image"]["imageId"]["imageDigest"]
    return found == _digest(manifest)


def _keeps_listed() -> bool:
    with plain_client("ecr") as ecr:
        ecr.create_repository(repositoryName="probe")
        image = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": []}
        digest = _digest(json.dumps(image))
        index = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{"digest": digest}],
        }
        for number, manifest in enumerate((image, index)):
            ecr.put_image(
                repositoryName="probe",
                imageManifest=json.dumps(manifest),
                imageTag=str(number),
                imageDigest=_digest(json.dumps(manifest)),
            )
        answer = ecr.batch_delete_image(repositoryName="probe", imageIds=[{"imageDigest": digest}])
    return bool(answer["failures"])


GAPS = [
    Gap(
        service="ecr",
        operation="BatchGetImage of AWS's registries",
        effect="nobody can see before a training job whether its image exists",
        closed=_has_published,
    ),
    Gap(
        service="ecr",
        operation="PutImage.imageDigest",
        effect="made of the layers or by chance: images of two forms are one to who asks by digest",
        closed=_digests_manifests,
    ),
    Gap(
        service="ecr",
        operation="BatchDeleteImage",
        effect="an image goes that a list names, which AWS refuses: no order is tested",
        closed=_keeps_listed,
    ),
]


def install() -> None:
    """Publish AWS's images for training and the one of zeros, and be as strict as AWS."""
    get, put, delete = (
        ECRBackend.batch_get_image,
        ECRBackend.put_image,
        ECRBackend.batch_delete_image,
    )

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
            answer = get(self, repository_name, registry_id, left)
        registry = registry_id or self.account_id
        answer["images"] += [_image(registry, repository_name, each) for each in there]
        return answer

    def put_image(
        self: ECRBackend,
        repository_name: str,
        image_manifest: str,
        image_tag: str,
        image_manifest_mediatype: str | None = None,
        digest: str | None = None,
    ) -> Image:
        found = _digest(image_manifest)
        if digest not in (None, found):
            raise DigestError(
                "The specified image digest does not match the digest that Amazon ECR calculated"
                " for the image."
            )
        return put(
            self, repository_name, image_manifest, image_tag, image_manifest_mediatype, found
        )

    def batch_delete_image(
        self: ECRBackend,
        repository_name: str,
        registry_id: str | None = None,
        image_ids: list[dict[str, str]] | None = None,
    ) -> dict[str, Any]:
        lists = _lists(self, repository_name)
        refused = [
            image for image in image_ids or [] if _naming(lists, image) and "imageTag" not in image
        ]
        left = [image for image in image_ids or [] if image not in refused]
        untagged = [image for image in left if _is_untagged(self, repository_name, image)]
        answer: dict[str, Any] = {"imageIds": [], "failures": []}
        if left or not image_ids:
            answer = delete(self, repository_name, registry_id, left)
        # moto tells of those with tags only.
        answer["imageIds"] += untagged
        answer["failures"] += [
            {
                "imageId": image,
                "failureCode": "ImageReferencedByManifestList",
                "failureReason": "Requested image referenced by manifest list: "
                f"[{', '.join(_naming(lists, image))}]",
            }
            for image in refused
        ]
        return answer

    mended: Any = ECRBackend
    mended.batch_get_image = batch_get_image
    mended.put_image = put_image
    mended.batch_delete_image = batch_delete_image


def media_type(backend: ECRBackend, repository: str, image: dict[str, str]) -> str | None:
    """The form of an image in a registry; None if there is no such image."""
    if repository not in backend.repositories:
        return None
    images = backend.batch_get_image(repository, image_ids=[image])["images"]
    if not images:
        return None
    found = images[0]
    if isinstance(found, Image):
        return found.image_manifest_media_type or ""
    return str(found["imageManifestMediaType"])


def _digest(manifest: str) -> str:
    return f"sha256:{hashlib.sha256(manifest.encode()).hexdigest()}"


def _lists(backend: ECRBackend, repository: str) -> dict[str, set[str]]:
    """Digests of a repository's lists of images, and of the images that each names."""
    images = backend.repositories[repository].images if repository in backend.repositories else []
    return {
        image.get_image_digest(): {named["digest"] for named in manifest["manifests"]}
        for image in images
        if "manifests" in (manifest := json.loads(image.image_manifest))
    }


def _is_untagged(backend: ECRBackend, repository: str, image: dict[str, str]) -> bool:
    images = backend.repositories[repository].images if repository in backend.repositories else []
    return any(
        found.get_image_digest() == image.get("imageDigest") and not found.image_tags
        for found in images
    )


def _naming(lists: dict[str, set[str]], image: dict[str, str]) -> list[str]:
    return [name for name, named in lists.items() if image.get("imageDigest") in named]


def _image(registry: str, repository: str, identity: dict[str, Any]) -> dict[str, Any]:
    return {
        "registryId": registry,
        "repositoryName": repository,
        "imageId": {"imageDigest": ANY, **identity},
        "imageManifest": json.dumps(
            {"schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "layers": []}
        ),
        "imageManifestMediaType": DOCKER_MANIFEST,
    }
