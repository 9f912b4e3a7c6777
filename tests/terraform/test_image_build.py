"""CodeBuild's build of the serving image: the very buildspec, with a fake `aws` and `docker`."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.scripts import SHEBANG

BUILDSPEC = (
    Path(__file__).parents[2] / "terraform" / "modules" / "registry" / "files" / "buildspec.yml"
)
REPOSITORY = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/kennel-dev-serving"
BASE = "python:3.13-slim@sha256:" + "0" * 64
TAG = "4f1d2c3b4a59"
OURS = "sha256:" + "a" * 64
THEIRS = "sha256:" + "b" * 64

DOCKER_FORM = "application/vnd.docker.distribution.manifest.v2+json"
OCI_FORM = "application/vnd.oci.image.manifest.v1+json"

# Answers `--query` as the real one does, from a folder with a file for each tag: digest and form.
AWS = """
import json, pathlib, sys, jmespath
arguments = sys.argv[1:]
if arguments[:2] == ["ecr", "get-login-password"]:
    print("secret")
elif arguments[0] == "ecr" and not pathlib.Path("denied").exists():
    assert arguments[arguments.index("--repository-name") + 1] == "kennel-dev-serving"
    asked, _, value = arguments[arguments.index("--image-ids") + 1].partition("=")
    images = []
    for tag in sorted(pathlib.Path("registry").iterdir()):
        digest, form = tag.read_text().split()
        if value == {"imageTag": tag.name, "imageDigest": digest}[asked]:
            ids = {"imageTag": tag.name, "imageDigest": digest}
            images.append({"imageId": ids, "imageManifestMediaType": form})
            if arguments[1] == "batch-delete-image":
                tag.unlink()
    if arguments[1] == "batch-get-image":
        rows = jmespath.search(arguments[arguments.index("--query") + 1], {"images": images})
        print("\\n".join("\\t".join(row) for row in rows))
else:
    sys.exit("AccessDeniedException")
"""
DOCKER = f"""
import pathlib, sys
arguments = sys.argv[1:]
with pathlib.Path("docker.calls").open("a") as calls:
    print(*arguments, file=calls)
if arguments[0] == "login":
    assert sys.stdin.read() == "secret\\n"
if arguments[0] == "buildx" and pathlib.Path("broken").exists():
    sys.exit("failed to solve")
if arguments[0] == "push":
    tag = pathlib.Path("registry") / arguments[1].rpartition(":")[2]
    if pathlib.Path("offline").exists():
        sys.exit("connection refused")
    if pathlib.Path("overtaken").exists():
        tag.write_text("{THEIRS} {DOCKER_FORM}")
    if tag.exists():
        sys.exit("tag is immutable")
    oci = pathlib.Path("oci").exists()
    tag.write_text("{OURS} " + ("{OCI_FORM}" if oci else "{DOCKER_FORM}"))
"""


@dataclass(frozen=True)
class Build:
    """CodeBuild's container: its source folder, where the registry and the switches lie too."""

    folder: Path

    def run(self, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the commands as CodeBuild does, then print what they export."""
        spec: dict[str, Any] = yaml.safe_load(BUILDSPEC.read_text())
        assert spec["env"] == {"shell": "bash", "exported-variables": ["IMAGE_URI"]}
        commands = [command for phase in spec["phases"].values() for command in phase["commands"]]
        return subprocess.run(
            ["bash", "-c", "\n".join([*commands, 'echo "exported $IMAGE_URI"'])],
            cwd=self.folder,
            env={
                "PATH": f"{self.folder}{os.pathsep}{os.environ['PATH']}",
                "REPOSITORY_URL": REPOSITORY,
                **variables,
            },
            capture_output=True,
            text=True,
            check=False,
        )

    def switch(self, name: str) -> None:
        (self.folder / name).touch()

    def push(self, tag: str, digest: str, form: str = DOCKER_FORM) -> None:
        (self.folder / "registry" / tag).write_text(f"{digest} {form}")

    @property
    def docker(self) -> list[str]:
        """The arguments of each call of docker."""
        calls = self.folder / "docker.calls"
        return calls.read_text().splitlines() if calls.exists() else []


@pytest.fixture
def build(tmp_path: Path) -> Build:
    (tmp_path / "registry").mkdir()
    for name, text in {"aws": AWS, "docker": DOCKER}.items():
        (tmp_path / name).write_text(SHEBANG + text)
        (tmp_path / name).chmod(0o755)
    return Build(tmp_path)


def test_new_content_is_built_and_pushed(build: Build) -> None:
    build.push("0123456789ab", THEIRS)
    built = build.run(IMAGE_TAG=TAG, PYTHON_IMAGE=BASE)
    assert built.returncode == 0, built.stderr
    assert f"image {REPOSITORY}@{OURS}\nexported {REPOSITORY}@{OURS}\n" in built.stdout
    login, image, push = build.docker
    assert login == f"login --username AWS --password-stdin {REPOSITORY.partition('/')[0]}"
    assert image == (
        "buildx build --platform linux/amd64 --provenance=false"
        " --output type=image,oci-mediatypes=false"
        f" --file inference/Dockerfile --build-arg PYTHON_IMAGE={BASE} --tag {REPOSITORY}:{TAG} ."
    )
    assert push == f"push {REPOSITORY}:{TAG}"


def test_content_that_is_there_is_not_built_again(build: Build) -> None:
    build.push(TAG, THEIRS)
    built = build.run(IMAGE_TAG=TAG, PYTHON_IMAGE=BASE)
    assert built.returncode == 0, built.stderr
    assert f"exported {REPOSITORY}@{THEIRS}" in built.stdout
    assert build.docker == []


def test_an_image_that_sagemaker_refuses_is_built_again(build: Build) -> None:
    build.push(TAG, THEIRS, OCI_FORM)
    built = build.run(IMAGE_TAG=TAG, PYTHON_IMAGE=BASE)
    assert built.returncode == 0, built.stderr
    assert f"deleting {REPOSITORY}:{TAG}: it is a {OCI_FORM}" in built.stderr
    assert f"exported {REPOSITORY}@{OURS}" in built.stdout
    assert build.docker[-1] == f"push {REPOSITORY}:{TAG}"


def test_a_build_that_leaves_an_image_that_sagemaker_refuses_fails(build: Build) -> None:
    build.switch("oci")
    built = build.run(IMAGE_TAG=TAG, PYTHON_IMAGE=BASE)
    assert built.returncode == 1
    assert f"error: {REPOSITORY}:{TAG} was not pushed as SageMaker takes it" in built.stderr
    assert not (build.folder / "registry" / TAG).exists()


def test_a_quicker_build_of_the_same_content_is_taken(build: Build) -> None:
    build.switch("overtaken")
    built = build.run(IMAGE_TAG=TAG, PYTHON_IMAGE=BASE)
    assert built.returncode == 0, built.stderr
    assert f"exported {REPOSITORY}@{THEIRS}" in built.stdout


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"PYTHON_IMAGE": BASE}, "error: IMAGE_TAG= is not a tag"),
        ({"IMAGE_TAG": "a b", "PYTHON_IMAGE": BASE}, "error: IMAGE_TAG=a b is not a tag"),
        ({"IMAGE_TAG": "x'||'", "PYTHON_IMAGE": BASE}, "error: IMAGE_TAG=x'||' is not a tag"),
        ({"IMAGE_TAG": TAG}, "error: PYTHON_IMAGE= is not pinned"),
        ({"IMAGE_TAG": TAG, "PYTHON_IMAGE": "python:3.13-slim"}, "is not pinned: set the module's"),
        ({"IMAGE_TAG": TAG, "PYTHON_IMAGE": BASE[:-1]}, "is not pinned: set the module's"),
    ],
)
def test_a_build_without_its_variables_fails_with_the_remedy(
    build: Build, variables: dict[str, str], message: str
) -> None:
    built = build.run(**variables)
    assert built.returncode == 1
    assert message in built.stderr
    assert build.docker == []


def test_a_registry_that_does_not_answer_fails_the_build(build: Build) -> None:
    build.switch("denied")
    built = build.run(IMAGE_TAG=TAG, PYTHON_IMAGE=BASE)
    assert built.returncode != 0
    assert build.docker == []


def test_an_image_that_does_not_build_is_not_pushed(build: Build) -> None:
    build.switch("broken")
    built = build.run(IMAGE_TAG=TAG, PYTHON_IMAGE=BASE)
    assert built.returncode != 0
    assert [call.split()[0] for call in build.docker] == ["login", "buildx"]


def test_a_push_that_fails_fails_the_build(build: Build) -> None:
    build.switch("offline")
    built = build.run(IMAGE_TAG=TAG, PYTHON_IMAGE=BASE)
    assert built.returncode == 1
    assert f"error: {REPOSITORY}:{TAG} was not pushed as SageMaker takes it" in built.stderr
