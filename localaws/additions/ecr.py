"""ECR: AWS's own images, one of our own that stands for any, and digests of what was pushed.

localaws serves from the archive and pulls no image. The digest of zeros names one that is in every
repository, so that what asks for the image before a deployment finds it.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from moto.core.exceptions import ServiceException
from moto.ecr.exceptions import InvalidParameterException, RepositoryNotFoundException
from moto.ecr.models import ECRBackend, Image
from moto.ecr.responses import ECRResponse
from moto.kms.models import kms_backends

from localaws.additions import Gap
from localaws.additions._moto import before, plain_client, refuses

ANY = f"sha256:{'0' * 64}"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"

_TRAINING = ("763104351884", "pytorch")
# https://aws.github.io/deep-learning-containers/reference/available_images/
_PUBLISHED = frozenset({"2.13-cpu-amzn2023-sagemaker", "2.13-cu133-amzn2023-sagemaker"})


class DigestError(ServiceException):
    """The digest that a client gave is not that of its manifest."""

    code = "ImageDigestDoesNotMatchException"


class TagError(ServiceException):
    """A repository's tags stay with their images."""

    code = "ImageTagAlreadyExistsException"


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


def _checks_priorities() -> bool:
    with plain_client("ecr") as ecr:
        ecr.create_repository(repositoryName="probe")
        selection = {"tagStatus": "untagged", "countType": "imageCountMoreThan", "countNumber": 1}
        rule = {"rulePriority": 1, "selection": selection, "action": {"type": "expire"}}
        text = json.dumps({"rules": [rule, rule]})
        return refuses(
            lambda: ecr.put_lifecycle_policy(repositoryName="probe", lifecyclePolicyText=text)
        )


GAPS = [
    Gap(
        service="ecr",
        operation="PutLifecyclePolicy",
        effect="rules that contradict each other or lack a part are taken",
        closed=_checks_priorities,
    ),
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
        repository = self.repositories[repository_name]
        others = [each for each in repository.images if each.get_image_digest() != found]
        is_taken = any(image_tag in other.image_tags for other in others)
        if image_tag and is_taken and repository.image_tag_mutability == "IMMUTABLE":
            raise TagError(
                f"The image tag '{image_tag}' already exists in the '{repository_name}' repository"
                " and cannot be overwritten because the repository is immutable."
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

    before(ECRResponse, "create_repository", _check_key)
    before(ECRResponse, "put_image", _check_image)
    before(ECRResponse, "put_lifecycle_policy", _check_rules)
    mended: Any = ECRBackend
    mended.batch_get_image = batch_get_image
    mended.put_image = put_image
    mended.batch_delete_image = batch_delete_image


_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")


class KmsKeyError(ServiceException):
    """A repository's key cannot be used."""

    code = "KmsException"


def _check_key(response: ECRResponse, told: Mapping[str, Any]) -> None:
    key = (told.get("encryptionConfiguration") or {}).get("kmsKey")
    keys = kms_backends[response.current_account][response.region].keys
    if key and key.rpartition("/")[2] not in keys:
        raise KmsKeyError(f"The key '{key}' does not exist")


def _check_image(response: ECRResponse, told: Mapping[str, Any]) -> None:
    name, tag = told["repositoryName"], told.get("imageTag")
    if name not in response.ecr_backend.repositories:
        raise RepositoryNotFoundException(name, response.current_account)
    try:
        json.loads(told["imageManifest"])
    except ValueError:
        raise InvalidParameterException(
            "Invalid parameter at 'ImageManifest' failed to satisfy constraint: 'Invalid JSON "
            "syntax'"
        ) from None
    if tag is not None and not _TAG.fullmatch(tag):
        raise InvalidParameterException(
            "Invalid parameter at 'imageTag' failed to satisfy constraint: 'must satisfy regular "
            f"expression '{_TAG.pattern}''"
        )


def _check_rules(_: ECRResponse, told: Mapping[str, Any]) -> None:
    """Look at a lifecycle policy's rules together; moto looks at each."""
    try:
        rules = json.loads(told["lifecyclePolicyText"])["rules"]
        priorities = [rule["rulePriority"] for rule in rules]
        selections = {rule["rulePriority"]: rule["selection"] for rule in rules}
        kinds = {priority: chosen["tagStatus"] for priority, chosen in selections.items()}
    # moto has the words for what is no policy.
    except (KeyError, TypeError, ValueError):
        return
    broken = ""
    if len(priorities) > len(set(priorities)):
        broken = "Two rules may not have the same priority"
    if any(kind == "any" and priority < max(priorities) for priority, kind in kinds.items()):
        broken = "A rule for any tag must have the highest number of priority"
    for priority, chosen in selections.items():
        lists = ("tagPatternList", "tagPrefixList")
        if kinds[priority] == "tagged" and not any(chosen.get(name) for name in lists):
            broken = "A rule for tagged images needs tagPrefixList or tagPatternList"
        if chosen.get("countType") == "sinceImagePushed" and "countUnit" not in chosen:
            broken = "countUnit is required with sinceImagePushed"
    if broken:
        raise InvalidParameterException(
            "Invalid parameter at 'LifecyclePolicyText' failed to satisfy constraint: 'Lifecycle "
            f"policy validation failure: {broken}'"
        )


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
