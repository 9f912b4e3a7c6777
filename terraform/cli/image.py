"""Builds the serving image and pushes it: on this machine if it can, else with CodeBuild.

The tag is the digest of all that goes into the image, so that what is there is not built again and
a tag never changes its meaning.
"""

import base64
import configparser
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from terraform.cli import registry, settings
from terraform.cli.paths import ROOT
from trainer.errors import KennelError, UsageError
from trainer.make_command import make_command
from trainer.target import Target

PLATFORM = "linux/amd64"
"""What the endpoint's default instance type runs."""

BASE = "public.ecr.aws/docker/library/python:3.13-slim"
"""Base image where none is named: the copy of Docker's own that has no limit of pulls."""

STAND_IN = f"@sha256:{'0' * 64}"
"""End of the address of an image that nobody fetches, as in localaws."""

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
"""The one form of an image that SageMaker takes: Docker's own, and no list of images."""

FORMS = (
    MANIFEST,
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
)
"""All forms, for whoever asks ECR for a manifest: unasked, it may give another one than it has."""

SOURCE_KEY = "source/image.zip"

_ENGINES = ("docker", "podman", "finch", "buildah")
# What each is told so that it builds and pushes Docker's form; their defaults are OCI's by now.
# https://docs.docker.com/build/exporters/image-registry/, podman-push(1), nerdctl's `push`
_BUILD_FORMS = {
    "docker": ("--output", "type=image,oci-mediatypes=false"),
    "finch": ("--output", "type=docker,oci-mediatypes=false"),
    "podman": ("--format", "docker"),
    "buildah": ("--format", "docker"),
}
_PUSH_FORMS = {
    # It pushes this machine's platform unless it is told another.
    "finch": ("--platform", PLATFORM),
    "podman": ("--format", "v2s2"),
    "buildah": ("--format", "v2s2"),
}
_ENGINE_SECONDS = 20
_PIP_OPTIONS = {
    "PIP_INDEX_URL": "index-url",
    "PIP_EXTRA_INDEX_URL": "extra-index-url",
    "PIP_TRUSTED_HOST": "trusted-host",
}
_POLL_SECONDS = 5.0
_STDERR = 2
_TELL_SECONDS = 30.0
_OLDEST_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Context:
    """What an image is built from.

    Attributes:
        archive: A zip of the Dockerfile and of what it copies; equal files give equal bytes.
        python_image: The base image, by digest.
    """

    archive: bytes
    python_image: str

    @property
    def tag(self) -> str:
        """12 hexadecimal digits of the digest of all of it."""
        return hashlib.sha256(self.archive + self.python_image.encode()).hexdigest()[:12]


def build(target: Target, python_image: str | None) -> str | None:
    """Build and push the image, unless it is in the registry, and record it for `serving`.

    Args:
        target: Where to.
        python_image: Base image; None for `$PYTHON_IMAGE`, the environment's variable or `BASE`.

    Returns:
        Its address by digest; None where `serving` takes no image.

    Raises:
        UsageError: That is no image's name.
        KennelError: The foundation is missing, the digest of the base image cannot be asked for,
            or the build fails or gives an image that SageMaker refuses.
    """
    if (settings.read(target).image_uri or "").endswith(STAND_IN):
        sys.stderr.write(
            f"ENV={target.name} needs no image, nothing to build: its image_uri is a stand-in, "
            "since it serves from the archive\n"
        )
        return None
    context = Context(archive(), _base(target, python_image))
    repository = target.required_parameter("repository_url")
    digest = _usable(target, repository, context.tag)
    if digest:
        sys.stderr.write(f"{repository}:{context.tag} is there, nothing to build\n")
    else:
        digest = _built(target, repository, context)
    uri = f"{repository}@{digest}"
    target.client("ssm").put_parameter(
        Name=target.parameter_name("image_uri"), Type="String", Value=uri, Overwrite=True
    )
    return uri


def _base(target: Target, python_image: str | None) -> str:
    """The base image by digest; one that is named by a tag is asked for, for tags move."""
    base = python_image or os.environ.get("PYTHON_IMAGE") or target.python_image or BASE
    if "@sha256:" in base:
        return base
    pinned = registry.pin(base)
    sys.stderr.write(
        f'base image {pinned}; to stay with it: python_image = "{pinned}" in '
        f"terraform/environments/{target.name}.foundation.tfvars\n"
    )
    return pinned


def archive() -> bytes:
    """A zip of what an image is built from but the base image; equal files give equal bytes."""
    folder = ROOT / "inference"
    files = [folder / "Dockerfile", folder / "requirements.lock", *folder.glob("*.py")]
    content = io.BytesIO()
    # Stored, since compressed bytes depend on the version of zlib.
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as packed:
        for path in sorted(files):
            member = zipfile.ZipInfo(path.relative_to(ROOT).as_posix(), _OLDEST_ZIP_TIME)
            member.create_system = 3
            member.external_attr = 0o644 << 16
            packed.writestr(member, path.read_bytes())
    return content.getvalue()


def _usable(target: Target, repository: str, tag: str) -> str | None:
    """Digest of the image with this tag in the registry, where SageMaker takes it; else None.

    One that it would refuse is deleted: a tag cannot be moved, and says that nothing is to be done.

    Raises:
        KennelError: It cannot be deleted.
    """
    client, name = target.client("ecr"), repository.split("/", 1)[1]
    try:
        images = client.describe_images(repositoryName=name, imageIds=[{"imageTag": tag}])
    except client.exceptions.ImageNotFoundException:
        return None
    (found,) = images["imageDetails"]
    form = found.get("imageManifestMediaType", MANIFEST)
    if form == MANIFEST:
        return str(found["imageDigest"])
    answer = client.batch_delete_image(
        repositoryName=name, imageIds=[{"imageDigest": found["imageDigest"]}]
    )
    for failure in answer["failures"]:
        raise KennelError(f"{repository}:{tag} cannot be deleted: {failure['failureReason']}")
    sys.stderr.write(
        f"deleted {repository}:{tag}: it is a {form}, and SageMaker takes {MANIFEST} only\n"
    )
    return None


def _built(target: Target, repository: str, context: Context) -> str:
    """Build here or, where nothing here makes an image that SageMaker takes, with CodeBuild.

    Returns:
        The image's digest.

    Raises:
        KennelError: The build fails, or gives no image that SageMaker takes.
    """
    if engine := find_engine():
        address = f"{repository}:{context.tag}"
        build_here(engine, address, context)
        _log_in(engine, target, repository.split("/", 1)[0])
        push(engine, address)
        if digest := _usable(target, repository, context.tag):
            return digest
        sys.stderr.write(f"{engine} left no image that SageMaker takes: CodeBuild builds\n")
    else:
        sys.stderr.write("no container program here: CodeBuild builds\n")
    _build_with_codebuild(target, context)
    if digest := _usable(target, repository, context.tag):
        return digest
    raise KennelError(
        f"the build ended well, but {repository}:{context.tag} is not there as SageMaker takes it; "
        f"`{make_command('apply', target.name, STACK='foundation')}` brings the build up to date"
    )


def find_engine() -> str | None:
    """The first program that can build here; installed ones whose daemon is down do not count."""
    for name in filter(shutil.which, _ENGINES):
        # Without buildx Docker does not know the Dockerfile's secrets.
        needed = ("info",) if name != "docker" else ("info", "buildx version")
        failing = [asked for asked in needed if not _answers(name, asked)]
        if not failing:
            return name
        sys.stderr.write(f"note: {name} is installed but `{name} {failing[0]}` fails\n")
    return None


def _answers(engine: str, asked: str) -> bool:
    command = [engine, *asked.split()]
    try:
        subprocess.run(command, capture_output=True, timeout=_ENGINE_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def build_here(engine: str, image: str, context: Context) -> None:
    """Build an image with a program of this machine, in the form that SageMaker takes.

    Args:
        engine: The program, of `find_engine`.
        image: Address of the image, with its tag.
        context: What it is built from.

    Raises:
        UsageError: pip's settings name a file that is not there.
        KennelError: The program fails.
    """
    sys.stderr.write(f"building {image} with {engine}\n")
    with tempfile.TemporaryDirectory(prefix="kennel-image-") as temporary:
        folder = Path(temporary) / "context"
        with zipfile.ZipFile(io.BytesIO(context.archive)) as packed:
            packed.extractall(folder)
        _run(
            *(engine, "build", "--platform", PLATFORM, "--tag", image),
            *("--file", str(folder / "inference" / "Dockerfile")),
            *("--build-arg", f"PYTHON_IMAGE={context.python_image}"),
            *_secrets(Path(temporary)),
            *_BUILD_FORMS[_kind(engine)],
            str(folder),
        )


def push(engine: str, image: str) -> None:
    """Push an image in the form that SageMaker takes.

    Raises:
        KennelError: The program fails.
    """
    _run(engine, "push", *_PUSH_FORMS.get(_kind(engine), ()), image)


def _log_in(engine: str, target: Target, registry: str) -> None:
    answer = target.client("ecr").get_authorization_token()
    token = answer["authorizationData"][0]["authorizationToken"]
    user, _, password = base64.b64decode(token).decode().partition(":")
    _run(engine, "login", "--username", user, "--password-stdin", registry, given=password)


def _kind(engine: str) -> str:
    """Whose flags a program takes: podman may be there under Docker's name."""
    told = subprocess.run([engine, "--version"], capture_output=True, text=True, check=False)
    return "podman" if "podman" in told.stdout.lower() else engine


def _secrets(folder: Path) -> Iterator[str]:
    """Flags that lend a build the mirror and the certificates that pip's own variables name.

    Raises:
        UsageError: They name a file that is not there or not in pip's form.
    """
    config = configparser.RawConfigParser()
    if named := os.environ.get("PIP_CONFIG_FILE"):
        try:
            config.read_string(_given("PIP_CONFIG_FILE", named).read_text(), named)
        except (configparser.Error, UnicodeDecodeError) as error:
            said = " ".join(str(error).split())
            raise UsageError(f"PIP_CONFIG_FILE={named} is not in pip's form: {said}") from error
    for variable, option in _PIP_OPTIONS.items():
        if value := os.environ.get(variable):
            if not config.has_section("global"):
                config.add_section("global")
            config.set("global", option, value)
    if config.sections():
        with (folder / "pip.conf").open("w") as file:
            config.write(file)
        yield from ("--secret", f"id=pip,src={folder / 'pip.conf'}")
    if named := os.environ.get("PIP_CERT"):
        yield from ("--secret", f"id=ca,src={_given('PIP_CERT', named)}")


def _given(variable: str, named: str) -> Path:
    path = Path(named).expanduser().absolute()
    if not path.exists() or path.is_dir():
        raise UsageError(f"{variable}={named}: no such file; correct or unset {variable}")
    return path


def _run(*command: str, given: str = "") -> None:
    # By default buildx adds an attestation and makes the image an index, which SageMaker refuses;
    # another builder than Docker's own would not leave the image where `push` finds it.
    environ = {**os.environ, "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}
    environ.pop("BUILDX_BUILDER", None)
    # What it prints is for people; standard output is for the image's address.
    finished = subprocess.run(
        command, input=given, text=True, env=environ, stdout=_STDERR, check=False
    )
    if finished.returncode != 0:
        raise KennelError(f"`{command[0]} {command[1]}` failed ({finished.returncode}); see above")


def _build_with_codebuild(target: Target, context: Context) -> None:
    bucket = target.required_parameter("bucket")
    project = target.required_parameter("image_build_project")
    uploaded = target.client("s3").put_object(Bucket=bucket, Key=SOURCE_KEY, Body=context.archive)
    client = target.client("codebuild")
    # The version names these very bytes, whatever is uploaded before CodeBuild fetches them.
    version = {"sourceVersion": uploaded["VersionId"]} if "VersionId" in uploaded else {}
    started = client.start_build(
        projectName=project,
        environmentVariablesOverride=[
            {"name": "IMAGE_TAG", "value": context.tag},
            {"name": "PYTHON_IMAGE", "value": context.python_image},
        ],
        **version,
    )["build"]
    sys.stderr.write(f"build {started['id']}\n")
    build = _follow(client, started["id"])
    if build["buildStatus"] != "SUCCEEDED":
        raise KennelError(_failure(build))


def _follow(client: Any, build_id: str) -> dict[str, Any]:
    """Wait for a build and say which phase it is in, and that it still is."""
    phase = None
    began = told = time.monotonic()
    while True:
        build: dict[str, Any] = client.batch_get_builds(ids=[build_id])["builds"][0]
        now = time.monotonic()
        if build.get("currentPhase") != phase or now - told >= _TELL_SECONDS:
            phase, told = build.get("currentPhase"), now
            sys.stderr.write(f"  {phase} ({now - began:.0f} s)\n")
        if build["buildStatus"] != "IN_PROGRESS":
            return build
        time.sleep(_POLL_SECONDS)


def _failure(build: dict[str, Any]) -> str:
    failed = [phase for phase in build.get("phases", []) if phase.get("phaseStatus") == "FAILED"]
    said = [
        f"{phase['phaseType']}: {context.get('message', '')}"
        for phase in failed
        for context in phase.get("contexts") or [{}]
    ]
    log = build.get("logs", {}).get("deepLink", "the project's log group")
    return f"build {build['id']} {build['buildStatus']}: {'; '.join(said)}; its log: {log}"
