"""The serving image: built where it can be, once for each content, and recorded for `serving`."""

import io
import json
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest

from terraform.cli import image, registry
from terraform.cli.image import _failure
from tests.terraform.checkout import ROOT, Checkout, make_checkout
from tests.terraform.conftest import CommandLine, LocalAws
from trainer import target

PROJECT = "imagetest"
MakeImage = Callable[..., tuple[int, str, str]]
"""Takes the number of a base image and changes of the environment; gives exit code and output."""
# Keeps what it was called with; a push puts the image into the registry, as a real one does.
ENGINE = """
echo "${0##*/} $@" >> $CALLS
case "$1" in
info) exit ${INFO:-0};;
--version) echo "${VERSION:-Docker version 29.1.0}";;
buildx) exit ${BUILDX:-0};;
login) cat >> $CALLS; echo >> $CALLS;;
build) for last; do :; done; ls $last/inference >> $CALLS; exit ${BUILD:-0};;
push) for last; do :; done; "$PYTHON" "$PUSH" "$last";;
esac
"""
PUSH = """
import boto3, json, os, sys
name, tag = sys.argv[1].split("/", 1)[1].split(":")
form = os.environ.get("FORM", "application/vnd.docker.distribution.manifest.v2+json")
boto3.client("ecr", region_name="us-east-1").put_image(
    repositoryName=name,
    imageTag=tag,
    imageManifest=json.dumps({"schemaVersion": 2, "tag": tag, "mediaType": form}),
)
"""
DOCKER_FORM = "application/vnd.docker.distribution.manifest.v2+json"
OCI_FORM = "application/vnd.oci.image.manifest.v1+json"
BUILDSPEC = (ROOT / "terraform/modules/registry/files/buildspec.yml").read_text()
ENGINES = {
    "docker": (" --output type=image,oci-mediatypes=false", ""),
    "podman": (" --format docker", " --format v2s2"),
    "finch": (" --output type=docker,oci-mediatypes=false", " --platform linux/amd64"),
    "buildah": (" --format docker", " --format v2s2"),
}
"""What each program is told so that it builds and pushes Docker's form."""


def base(number: int) -> str:
    """A base image; each gives another tag."""
    return f"python:3.13-slim@sha256:{number:064}"


class Aws:
    """What the foundation would have made."""

    def __init__(self, localaws: LocalAws) -> None:
        self.environment = localaws.environment
        self.bucket = f"{PROJECT}-bucket"
        self.client("s3").create_bucket(Bucket=self.bucket)
        self.client("s3").put_bucket_versioning(
            Bucket=self.bucket, VersioningConfiguration={"Status": "Enabled"}
        )
        repository = self.client("ecr").create_repository(
            repositoryName=f"{PROJECT}-serving", imageTagMutability="IMMUTABLE"
        )
        self.url = repository["repository"]["repositoryUri"]
        self.client("codebuild").create_project(
            name=f"{PROJECT}-image",
            source={
                "type": "S3",
                "location": f"{self.bucket}/source/image.zip",
                "buildspec": BUILDSPEC,
            },
            artifacts={"type": "NO_ARTIFACTS"},
            environment={
                "type": "LINUX_CONTAINER",
                "image": "aws/codebuild/amazonlinux-x86_64-standard:6.0",
                "computeType": "BUILD_GENERAL1_SMALL",
                "environmentVariables": [{"name": "REPOSITORY_URL", "value": self.url}],
            },
            serviceRole="arn:aws:iam::123456789012:role/build",
        )
        for key, value in {
            "bucket": self.bucket,
            "repository_url": self.url,
            "image_build_project": f"{PROJECT}-image",
        }.items():
            self.client("ssm").put_parameter(
                Name=f"/{PROJECT}/dev/{key}", Type="String", Value=value
            )

    def client(self, service: str) -> Any:
        return boto3.client(
            service,
            endpoint_url=self.environment["AWS_ENDPOINT_URL"],
            aws_access_key_id="test",
            aws_secret_access_key="test",
            region_name="us-east-1",
        )

    def images(self) -> dict[str, str]:
        """Digests by tag."""
        found = self.client("ecr").describe_images(repositoryName=f"{PROJECT}-serving")
        return {image["imageTags"][0]: image["imageDigest"] for image in found["imageDetails"]}

    def recorded(self) -> str:
        parameter = self.client("ssm").get_parameter(Name=f"/{PROJECT}/dev/image_uri")
        return parameter["Parameter"]["Value"]


@pytest.fixture(scope="module")
def aws(localaws: LocalAws) -> Aws:
    return Aws(localaws)


@pytest.fixture
def checkout(aws: Aws, tmp_path: Path) -> Checkout:
    """Without a program that builds, whatever the machine has; one inside keeps its calls."""
    folder = tmp_path / "checkout"
    (tmp_path / "push.py").write_text(PUSH)
    made = make_checkout(
        folder,
        {
            **aws.environment,
            "CALLS": str(tmp_path / "calls"),
            "PYTHON": sys.executable,
            "PUSH": str(tmp_path / "push.py"),
        },
    )
    variables = folder / "terraform/environments/dev.tfvars"
    variables.write_text(f'{variables.read_text()}project = "{PROJECT}"\n')
    for name in ENGINES:
        made.program(name, "exit 1")
    return made


@pytest.fixture
def make_image(
    checkout: Checkout, command_line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> MakeImage:
    """The command within this process, which has loaded all that it needs."""
    monkeypatch.setattr(target, "ENVIRONMENTS", checkout.folder / "terraform/environments")
    monkeypatch.setattr(image, "_POLL_SECONDS", 0)

    def run(number: int, **changes: str) -> tuple[int, str, str]:
        with monkeypatch.context() as patch:
            for name, value in {**checkout.environ, **changes}.items():
                patch.setenv(name, value)
            return command_line("image", "--env", "dev", "--python-image", base(number))

    return run


def calls(checkout: Checkout) -> str:
    return Path(checkout.environ["CALLS"]).read_text()


@pytest.mark.parametrize("engine", ENGINES)
def test_it_is_built_and_pushed_here_if_anything_can(
    checkout: Checkout, aws: Aws, engine: str
) -> None:
    checkout.program(engine, ENGINE)
    before = aws.images()
    python_image = base(10 + list(ENGINES).index(engine))
    built = checkout.run("image", "--env", "dev", "--python-image", python_image)
    assert built.returncode == 0, built.stderr
    ((tag, digest),) = aws.images().items() - before.items()
    assert built.stdout == f"{aws.url}@{digest}\n"
    assert aws.recorded() == f"{aws.url}@{digest}"
    asked = {f"{engine} --version", f"{engine} buildx version"}
    info, build, *files, login, password, push = [
        call for call in calls(checkout).splitlines() if call not in asked
    ]
    assert info == f"{engine} info"
    assert build.startswith(f"{engine} build --platform linux/amd64 --tag {aws.url}:{tag} ")
    assert f"--build-arg PYTHON_IMAGE={python_image}" in build
    form, push_form = ENGINES[engine]
    assert f"{form} /" in build
    sources = [path.name for path in (ROOT / "inference").glob("*.py")]
    assert sorted(files) == sorted(["Dockerfile", "requirements.lock", *sources])
    assert login == f"{engine} login --username AWS --password-stdin {aws.url.split('/')[0]}"
    assert password
    assert push == f"{engine} push{push_form} {aws.url}:{tag}"

    again = checkout.run("image", "--env", "dev", "--python-image", python_image)
    assert again.stdout == built.stdout
    assert "is there, nothing to build" in again.stderr
    assert calls(checkout).count(f"{engine} build ") == 1


def test_a_build_that_fails_ends_the_command(checkout: Checkout, aws: Aws) -> None:
    checkout.program("docker", ENGINE)
    failed = checkout.run("image", "--env", "dev", "--python-image", base(3), BUILD="7")
    assert failed.returncode == 1
    assert failed.stderr.endswith("error: `docker build` failed (7); see above\n")
    assert "push" not in calls(checkout)


def test_podman_may_be_called_docker(checkout: Checkout, make_image: MakeImage) -> None:
    checkout.program("docker", ENGINE)
    code, _, said = make_image(20, VERSION="podman version 5.6.0")
    assert code == 0, said
    (build,) = [call for call in calls(checkout).splitlines() if call.startswith("docker build ")]
    assert " --format docker /" in build


def test_docker_without_buildx_is_passed_over(checkout: Checkout, make_image: MakeImage) -> None:
    """It knows no secrets, and may write any form."""
    checkout.program("docker", ENGINE)
    checkout.program("podman", ENGINE)
    code, _, said = make_image(21, BUILDX="1")
    assert code == 0, said
    assert "note: docker is installed but `docker buildx version` fails" in said
    assert "podman build " in calls(checkout)


def test_pip_s_variables_reach_the_build_as_secrets_and_not_the_tag(
    checkout: Checkout, make_image: MakeImage, tmp_path: Path
) -> None:
    # The fake takes a secret apart as the build would read it.
    checkout.program(
        "docker", ENGINE.replace("build)", 'build) cat "${11#id=pip,src=}" >> $CALLS;')
    )
    (tmp_path / "ca.pem").write_text("certificates")
    (tmp_path / "pip.conf").write_text("[global]\ntimeout = 60\n")
    code, _, said = make_image(
        22,
        PIP_CERT=str(tmp_path / "ca.pem"),
        PIP_CONFIG_FILE=str(tmp_path / "pip.conf"),
        PIP_INDEX_URL="https://somebody:secret@mirror.example/simple",
    )
    assert code == 0, said
    told = calls(checkout)
    assert f" --secret id=ca,src={tmp_path / 'ca.pem'} " in told
    assert "timeout = 60\nindex-url = https://somebody:secret@mirror.example/simple" in told
    assert "secret@" not in next(line for line in told.splitlines() if "docker build" in line)
    assert "nothing to build" in make_image(22)[2]
    code, _, said = make_image(23, PIP_CERT="/none.pem")
    assert code == 2
    assert said.endswith("error: PIP_CERT=/none.pem: no such file; correct or unset PIP_CERT\n")
    wrong = tmp_path / "ca.pem"
    code, _, said = make_image(23, PIP_CONFIG_FILE=str(wrong))
    assert code == 2
    assert f"error: PIP_CONFIG_FILE={wrong} is not in pip's form: " in said.splitlines()[-1]


def test_an_image_that_sagemaker_refuses_is_built_again(
    checkout: Checkout, aws: Aws, make_image: MakeImage
) -> None:
    """The tag cannot be moved and says that nothing is to be done, so the image goes first."""
    checkout.program("docker", ENGINE)
    before = aws.images()
    first = make_image(30)
    ((tag, digest),) = aws.images().items() - before.items()
    ecr, name = aws.client("ecr"), f"{PROJECT}-serving"
    ecr.batch_delete_image(repositoryName=name, imageIds=[{"imageTag": tag}])
    wrong = json.dumps({"schemaVersion": 2, "mediaType": OCI_FORM})
    ecr.put_image(repositoryName=name, imageManifest=wrong, imageTag=tag)
    again = make_image(30)
    assert again[:2] == first[:2] == (0, f"{aws.url}@{digest}\n")
    assert f"deleted {aws.url}:{tag}: it is a {OCI_FORM}" in again[2]
    assert aws.images()[tag] == digest


def test_where_a_program_makes_an_image_that_sagemaker_refuses_codebuild_builds(
    checkout: Checkout, aws: Aws, make_image: MakeImage
) -> None:
    checkout.program("docker", ENGINE)
    code, out, said = make_image(31, FORM=OCI_FORM)
    assert code == 0, said
    assert "docker left no image that SageMaker takes: CodeBuild builds" in said
    found = aws.client("ecr").describe_images(
        repositoryName=f"{PROJECT}-serving",
        imageIds=[{"imageDigest": out.strip().partition("@")[2]}],
    )
    assert found["imageDetails"][0]["imageManifestMediaType"] == DOCKER_FORM


def test_a_build_of_codebuild_that_sagemaker_refuses_ends_the_command(
    aws: Aws, make_image: MakeImage
) -> None:
    before, codebuild = aws.images(), aws.client("codebuild")
    (project,) = codebuild.batch_get_projects(names=[f"{PROJECT}-image"])["projects"]
    name, source = project["name"], project["source"]
    former = {**source, "buildspec": BUILDSPEC.replace("oci-mediatypes=false", "unpack=true")}
    codebuild.update_project(name=name, source=former)
    code, _, said = make_image(32)
    codebuild.update_project(name=name, source=source)
    assert code == 1
    assert "is not there as SageMaker takes it; `make apply STACK=foundation ENV=dev`" in said
    assert aws.images() == before


def test_codebuild_builds_where_nothing_else_can(checkout: Checkout, aws: Aws) -> None:
    before = aws.images()
    built = checkout.run("image", "--env", "dev", PYTHON_IMAGE=base(4))
    assert built.returncode == 0, built.stderr
    assert "note: docker is installed but `docker info` fails" in built.stderr
    ((tag, digest),) = aws.images().items() - before.items()
    assert built.stdout == f"{aws.url}@{digest}\n"
    codebuild = aws.client("codebuild")
    (said,) = [line for line in built.stderr.splitlines() if line.startswith("build ")]
    (build,) = codebuild.batch_get_builds(ids=[said.split()[1]])["builds"]
    variables = build["environment"]["environmentVariables"]
    assert {variable["name"]: variable["value"] for variable in variables} == {
        "REPOSITORY_URL": aws.url,
        "IMAGE_TAG": tag,
        "PYTHON_IMAGE": base(4),
    }
    # The very archive that was uploaded, though another may have been since.
    source = aws.client("s3").get_object(
        Bucket=aws.bucket, Key="source/image.zip", VersionId=build["sourceVersion"]
    )
    archive = zipfile.ZipFile(io.BytesIO(source["Body"].read()))
    dockerfile = archive.read("inference/Dockerfile")
    assert dockerfile == (ROOT / "inference/Dockerfile").read_bytes()


def test_the_same_sources_give_the_same_tag(checkout: Checkout, tmp_path: Path) -> None:
    tag = "from terraform.cli import image; print(image.Context(image.archive(), 'x').tag)"
    first = checkout.python("-c", tag).stdout
    other = make_checkout(tmp_path / "other")
    (other.folder / "inference").unlink()
    shutil.copytree(ROOT / "inference", other.folder / "inference", copy_function=shutil.copyfile)
    assert other.python("-c", tag).stdout == first
    (other.folder / "inference/__init__.py").write_text("changed = True\n")
    assert other.python("-c", tag).stdout != first


def test_the_base_image_may_be_the_environment_s(checkout: Checkout, aws: Aws) -> None:
    variables = checkout.folder / "terraform/environments/dev.foundation.tfvars"
    variables.write_text(f'python_image = "{base(5)}"\n')
    checkout.program("docker", ENGINE)
    assert checkout.run("image", "--env", "dev").returncode == 0
    assert f"PYTHON_IMAGE={base(5)}" in calls(checkout)


def test_a_base_image_by_its_tag_is_pinned_and_told(
    checkout: Checkout, aws: Aws, command_line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default, too, so that the command needs no argument."""
    pinned = []

    def pin(name: str) -> str:
        pinned.append(name)
        return f"{name}@sha256:{'8' * 64}"

    monkeypatch.setattr(registry, "pin", pin)
    built = []
    monkeypatch.setattr(
        image, "_built", lambda *given: built.append(given[-1].python_image) or "sha256:0"
    )
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHON_IMAGE", "")
    monkeypatch.setattr(target, "ENVIRONMENTS", checkout.folder / "terraform/environments")
    for given, base_image in (
        ([], "public.ecr.aws/docker/library/python:3.13-slim"),
        (["--python-image", "python:3.13-slim"], "python:3.13-slim"),
    ):
        _, _, said = command_line("image", "--env", "dev", *given)
        line = f"{base_image}@sha256:{'8' * 64}"
        assert f'base image {line}; to stay with it: python_image = "{line}" in terraform' in said
        assert (pinned.pop(), built.pop()) == (base_image, line)


def test_localaws_needs_no_image(command_line: CommandLine) -> None:
    code, out, err = command_line("image", "--env", "local")
    assert (code, out) == (0, "")
    assert err.startswith("ENV=local needs no image, nothing to build: ")
    assert err.splitlines()[1:] == ["next: `make preflight ENV=local` says what is missing"]


def test_a_failed_build_of_codebuild_names_the_phase_and_the_log() -> None:
    said = _failure(
        {
            "id": "image:1",
            "buildStatus": "FAILED",
            "phases": [
                {"phaseType": "INSTALL", "phaseStatus": "SUCCEEDED"},
                {
                    "phaseType": "BUILD",
                    "phaseStatus": "FAILED",
                    "contexts": [{"message": "Error while executing command: docker build"}],
                },
            ],
            "logs": {"deepLink": "https://console.aws.amazon.com/cloudwatch/log"},
        }
    )
    assert said == (
        "build image:1 FAILED: BUILD: Error while executing command: docker build; its log: "
        "https://console.aws.amazon.com/cloudwatch/log"
    )
