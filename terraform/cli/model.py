"""Which model a deployment serves, and which have served: `model`, `previous_model`, `history`."""

import atexit
import base64
import hashlib
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from trainer.errors import KennelError, UsageError
from trainer.target import Target

if TYPE_CHECKING:
    from inference.archive import Model

DIGEST_METADATA = "kennel-digest"
"""Metadata key of an uploaded archive: the model's digest, so that nobody need fetch it."""

SERVED_KEY = "models/served.json"
"""Object of the bucket that names the model which served when the stack was destroyed."""

_KEPT = 9
"""Models that are remembered beside the present and the former one."""

_S3_URI = re.compile(r"s3://([^/]+)/(.+)")


@dataclass(frozen=True)
class Archive:
    """A model's archive, at the place in the bucket that its digest gives it.

    Attributes:
        bucket: The bucket's name.
        digest: The model's digest, 64 hexadecimal digits.
        file: The archive on this machine, if it may have to be uploaded.
    """

    bucket: str
    digest: str
    file: Path | None = None

    @property
    def key(self) -> str:
        """The object's key."""
        return f"models/{self.digest[:12]}/model.tar.gz"

    @property
    def uri(self) -> str:
        """The object's address."""
        return f"s3://{self.bucket}/{self.key}"


def choose(outputs: Mapping[str, Any], requested: Archive | None) -> dict[str, Any]:
    """The stack's variables of models for a deployment.

    The former model stays deployable, so that a rollback is one command: another model than the
    present one makes the present one the former; the same one, or none, changes nothing.

    Args:
        outputs: The stack's present outputs; empty before its first deployment.
        requested: The model asked for; None for the present one.

    Raises:
        UsageError: None is asked for and none is deployed.
    """
    present, served = outputs.get("model"), _served_before(outputs)
    # Without an image: the present model takes the newest one, former ones keep those they ran on.
    if requested is None:
        if present is None:
            raise UsageError(
                "no model is deployed yet: name one with MODEL=<model.tar.gz or s3://...>"
            )
        return _variables({key: present[key] for key in ("archive_uri", "digest")}, served)
    if present and present["digest"] != requested.digest:
        # One that comes back is not its own past: a rollback never leads to what was left.
        served = [present, *(one for one in served if one["digest"] != requested.digest)]
    return _variables({"archive_uri": requested.uri, "digest": requested.digest}, served)


def former(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """The stack's variables of models for a rollback, one step back along what has served.

    The former model comes back on the image that it ran on, so that its very configuration does.
    The one that is left is forgotten: another rollback goes further back.

    Raises:
        UsageError: There is no former model.
    """
    served = _served_before(outputs)
    if not served:
        raise UsageError(
            f"there is no former model to go back to: {outputs['model']['digest'][:12]} is the "
            "first that is remembered; deploy another MODEL instead"
        )
    return _variables(served[0], served[1:])


def restored(outputs: Mapping[str, Any], served: Mapping[str, str]) -> dict[str, Any]:
    """The stack's variables of models for what SageMaker serves, whatever Terraform wanted.

    Args:
        outputs: The stack's outputs after a release that failed.
        served: Archive, digest and image of the model that serves.
    """
    before = _served_before(outputs)
    digests = [one["digest"] for one in before]
    if served["digest"] in digests:
        before = before[digests.index(served["digest"]) + 1 :]
    return _variables(dict(served), before)


def _served_before(outputs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The models that served before the present one, the last of them first."""
    return [one for one in (outputs.get("previous_model"), *outputs.get("history", [])) if one]


def _variables(present: dict[str, Any], served: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "model": present,
        "previous_model": served[0] if served else None,
        "history": served[1 : _KEPT + 1],
    }


def locate(model: str, target: Target) -> Archive:
    """Find a model by a path or an address in S3, and verify it unless this made the object.

    Raises:
        UsageError: It is not there.
        KennelError: It is no sound model, or there is no bucket for it.
    """
    bucket = target.required_parameter("bucket")
    if not model.startswith("s3://"):
        path = local_file(model)
        return Archive(bucket, opened(path, model).digest, path)
    match = _S3_URI.fullmatch(model)
    if not match:
        raise UsageError(f"MODEL={model}: must be like s3://bucket/path/model.tar.gz")
    client = target.client("s3")
    try:
        head = client.head_object(Bucket=match[1], Key=match[2])
    except ClientError as error:
        code = error.response["Error"]["Code"]
        raise UsageError(f"MODEL={model}: cannot be read ({code})") from error
    stored = Archive(bucket, head["Metadata"].get(DIGEST_METADATA, ""))
    if stored.digest and stored.uri == model:
        return stored
    path = _download(client, match[1], match[2])
    return Archive(bucket, opened(path, model).digest, path)


def local_file(model: str) -> Path:
    """The archive on this machine that a user names.

    Raises:
        UsageError: It is not there.
    """
    path = Path(model)
    if path.is_dir():
        raise UsageError(f"MODEL={model}: a folder; name the model.tar.gz in it")
    if not path.is_file():
        raise UsageError(f"MODEL={model}: no such file; `make package` writes a model.tar.gz")
    return path


def fetch(archive: Archive, target: Target) -> Path:
    """The archive on this machine; one that is only in the bucket is downloaded."""
    return archive.file or _download(target.client("s3"), archive.bucket, archive.key)


def opened(path: Path, name: str) -> "Model":
    """Verify an archive and unpack it, for as long as this process lives.

    Args:
        path: The archive.
        name: What the user calls it.

    Raises:
        KennelError: It is not sound.
    """
    # The serving half need not be installed where no archive is looked at.
    from inference.archive import ArchiveError, open_model

    try:
        return open_model(path)
    except ArchiveError as error:
        # The archive may be a copy of an object in S3, whose path tells a user nothing.
        raise KennelError(f"MODEL={name}: {str(error).removeprefix(f'{path}: ')}") from error


def publish(archive: Archive, target: Target) -> None:
    """Upload an archive, unless it is there.

    Raises:
        KennelError: Another model lies at its place.
    """
    if archive.file is None:
        return
    client = target.client("s3")
    with archive.file.open("rb") as file:
        checksum = base64.b64encode(hashlib.file_digest(file, "sha256").digest()).decode()
        file.seek(0)
        try:
            client.put_object(
                Bucket=archive.bucket,
                Key=archive.key,
                Body=file,
                ChecksumSHA256=checksum,
                ContentType="application/gzip",
                IfNoneMatch="*",
                Metadata={DIGEST_METADATA: archive.digest},
            )
        except ClientError as error:
            if error.response["Error"]["Code"] != "PreconditionFailed":
                raise
        else:
            sys.stderr.write(f"uploaded {archive.uri}\n")
            return
    head = client.head_object(Bucket=archive.bucket, Key=archive.key, ChecksumMode="ENABLED")
    same = head["Metadata"].get(DIGEST_METADATA) == archive.digest
    if not same and head.get("ChecksumSHA256") != checksum:
        raise KennelError(
            f"{archive.uri} is there and is not the model {archive.digest[:12]}: remove the object"
        )


def _download(client: Any, bucket: str, key: str) -> Path:
    """Download an archive into a folder that is removed when the process ends."""
    folder = tempfile.mkdtemp(prefix="kennel-archive-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = Path(folder) / "model.tar.gz"
    client.download_file(bucket, key, str(path))
    return path
