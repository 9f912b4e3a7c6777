"""CodeBuild: all members of a project, its update, and what a build leaves in the registry.

A build runs nothing here. Where its environment names an image (REPOSITORY_URL and IMAGE_TAG, as
the registry module's project has it), a manifest without layers appears under that tag, so that
what asks the registry for the image after the build finds one. It is of the form that the build's
commands ask for, and OCI's where they ask for none, as today's Docker writes it.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from moto.codebuild import models
from moto.codebuild.exceptions import InvalidInputException, ResourceNotFoundException
from moto.codebuild.responses import CodeBuildResponse
from moto.core.responses import ActionResult, EmptyResult
from moto.core.utils import unix_time
from moto.ecr.models import ecr_backends
from moto.s3.models import s3_backends

from localaws.additions import Gap
from localaws.additions._moto import ACCOUNT, ROLE, plain_client
from localaws.additions.ecr import DOCKER_MANIFEST, OCI_MANIFEST
from localaws.execution import RoleError, require_trust, running
from localaws.hosting.endpoints import Endpoints

_MEMBERS = (
    "artifacts",
    "autoRetryLimit",
    "cache",
    "concurrentBuildLimit",
    "description",
    "encryptionKey",
    "environment",
    "fileSystemLocations",
    "logsConfig",
    "queuedTimeoutInMinutes",
    "secondaryArtifacts",
    "secondarySources",
    "serviceRole",
    "source",
    "sourceVersion",
    "tags",
    "timeoutInMinutes",
    "vpcConfig",
)
# What makes docker, and podman or buildah, write Docker's own form.
_DOCKER_FORMS = ("oci-mediatypes=false", "--format docker", "--format=docker")
_DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
_OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
_SERVICE = "codebuild.amazonaws.com"
# As CodeBuild fills in what was not given.
_MINUTES = {"queuedTimeoutInMinutes": 480, "timeoutInMinutes": 60}
_PROJECT = {
    "name": "probe",
    "source": {"type": "S3", "location": "probe/source.zip"},
    "artifacts": {"type": "NO_ARTIFACTS"},
    "environment": {
        "type": "LINUX_CONTAINER",
        "image": "probe",
        "computeType": "BUILD_GENERAL1_SMALL",
    },
    "serviceRole": ROLE,
    "concurrentBuildLimit": 1,
}


def _keeps_members() -> bool:
    with plain_client("codebuild") as codebuild:
        codebuild.create_project(**_PROJECT)
        found = codebuild.batch_get_projects(names=["probe"])["projects"][0]
    return "concurrentBuildLimit" in found


def _updates() -> bool:
    with plain_client("codebuild") as codebuild:
        codebuild.create_project(**_PROJECT)
        try:
            codebuild.update_project(name="probe", description="new")
        except NotImplementedError:
            return False
    return True


def _deletes_by_arn() -> bool:
    with plain_client("codebuild") as codebuild:
        arn = codebuild.create_project(**_PROJECT)["project"]["arn"]
        codebuild.delete_project(name=arn)
        return not codebuild.list_projects()["projects"]


def _builds_with_overrides() -> bool:
    with plain_client("codebuild") as codebuild:
        codebuild.create_project(**_PROJECT)
        variables = [{"name": "IMAGE_TAG", "value": "probe", "type": "PLAINTEXT"}]
        build = codebuild.start_build(projectName="probe", environmentVariablesOverride=variables)[
            "build"
        ]
        for _ in range(2):  # at the first look it is under way
            (ended,) = codebuild.batch_get_builds(ids=[build["id"]])["builds"]
    return bool(
        ended["buildComplete"] and ended["environment"]["environmentVariables"] == variables
    )


GAPS = [
    Gap(
        service="codebuild",
        operation="CreateProject.concurrentBuildLimit, .encryptionKey",
        effect="a difference on each plan",
        closed=_keeps_members,
    ),
    Gap(
        service="codebuild",
        operation="UpdateProject",
        effect="a changed project cannot be applied",
        closed=_updates,
    ),
    Gap(
        service="codebuild",
        operation="DeleteProject by ARN",
        effect="Terraform's destroy leaves the project behind",
        closed=_deletes_by_arn,
    ),
    Gap(
        service="codebuild",
        operation="StartBuild.environmentVariablesOverride",
        effect="a build ends and no image is there",
        closed=_builds_with_overrides,
    ),
]


def install() -> None:
    """Mend moto's CodeBuild."""
    create = CodeBuildResponse.create_project
    start = CodeBuildResponse.start_build
    batch_get = models.CodeBuildBackend.batch_get_builds
    get_builds = CodeBuildResponse.batch_get_builds

    def create_project(self: CodeBuildResponse) -> ActionResult:
        if running(Endpoints) and (role := self._get_param("serviceRole")):
            try:
                project = f"arn:aws:codebuild:{self.region}:{ACCOUNT}:project/{_name(self)}"
                require_trust(role, _SERVICE, project)
            except RoleError as error:
                raise InvalidInputException(
                    f"CodeBuild is not authorized to perform: sts:AssumeRole on {role}"
                ) from error
        create(self)
        told = self.codebuild_backend.codebuild_projects[_name(self)].project_metadata
        told.update({member: told.get(member) or n for member, n in _MINUTES.items()})
        return _with_members(self)

    def update_project(self: CodeBuildResponse) -> ActionResult:
        if _name(self) not in self.codebuild_backend.codebuild_projects:
            raise ResourceNotFoundException(f"Project cannot be found: {_name(self)}")
        return _with_members(self)

    def delete_project(self: CodeBuildResponse) -> EmptyResult:
        self.codebuild_backend.delete_project(_name(self))
        return EmptyResult()

    def batch_get_projects(self: CodeBuildResponse) -> ActionResult:
        known = self.codebuild_backend.codebuild_projects
        names = [str(name).rpartition("/")[2] for name in self._get_param("names")]
        found = [known[name].project_metadata for name in names if name in known]
        return ActionResult(
            {"projects": found, "projectsNotFound": [name for name in names if name not in known]}
        )

    def batch_get_told(self: CodeBuildResponse) -> ActionResult:
        answer: Any = get_builds(self)
        found = {build["id"] for build in answer.result["builds"]}
        missing = [name for name in self._get_param("ids") if name not in found]
        return ActionResult({**answer.result, "buildsNotFound": missing})

    def start_build(self: CodeBuildResponse) -> ActionResult:
        start(self)
        return ActionResult({"build": _with_overrides(self)})

    def batch_get_builds(self: models.CodeBuildBackend, ids: list[str]) -> list[dict[str, Any]]:
        builds = [build for some in self.build_metadata_history.values() for build in some]
        ended = [build for build in builds if build["id"] in ids and build["buildComplete"]]
        # moto would add all phases once more each time it is asked.
        going_on = set(ids) - {build["id"] for build in ended}
        for build in [build for some in self.build_metadata_history.values() for build in some]:
            # What is asked for the first time is under way.
            if build["id"] in going_on and build["currentPhase"] == "QUEUED":
                build["currentPhase"] = "PROVISIONING"
                going_on.discard(build["id"])
                ended.append(build)
        for build in batch_get(self, list(going_on)):
            build["buildComplete"] = True
            if not _has_source(build):
                _fail(build)
                ended.append(build)
                continue
            _push_image(self, build["environment"], build["source"].get("buildspec", ""))
            ended.append(build)
        return ended

    mended: Any = CodeBuildResponse
    mended.create_project = create_project
    mended.delete_project = delete_project
    mended.update_project = update_project
    mended.start_build = start_build
    mended.batch_get_projects = batch_get_projects
    mended.batch_get_builds = batch_get_told
    backend: Any = models.CodeBuildBackend
    backend.batch_get_builds = batch_get_builds


def _has_source(build: Mapping[str, Any]) -> bool:
    """Whether the zip in S3 that a build is made of is there."""
    source = build["source"]
    if source.get("type") != "S3" or not running(Endpoints):
        return True
    name, _, key = source.get("location", "").partition("/")
    bucket = s3_backends[ACCOUNT]["aws"].buckets.get(name)
    return bool(bucket and bucket.keys.get(key))


def _fail(build: dict[str, Any]) -> None:
    """Let a build end where CodeBuild fetches what it is made of."""
    phases = [phase["phaseType"] for phase in build["phases"]]
    last = phases.index("DOWNLOAD_SOURCE")
    build["phases"] = build["phases"][: last + 1]
    build["phases"][last].update(
        phaseStatus="FAILED",
        contexts=[
            {
                "statusCode": "CLIENT_ERROR",
                "message": "NoSuchKey: The specified key does not exist. for primary source and"
                f" source version {build.get('sourceVersion') or ''}",
            }
        ],
    )
    build["phases"].append({"phaseType": "COMPLETED", "startTime": build["startTime"]})
    build["buildStatus"] = "FAILED"


def _name(response: CodeBuildResponse) -> str:
    """The project's name, by which or by whose ARN it is asked for."""
    return str(response._get_param("name")).rpartition("/")[2]


def _with_members(response: CodeBuildResponse) -> ActionResult:
    project = response.codebuild_backend.codebuild_projects[_name(response)]
    given = {member: response._get_param(member) for member in _MEMBERS}
    told = project.project_metadata
    told.update({member: value for member, value in given.items() if value is not None})
    told["lastModified"] = unix_time()
    # CodeBuild's way to take a limit away.
    if told.get("concurrentBuildLimit") == -1:
        del told["concurrentBuildLimit"]
    project.service_role = told["serviceRole"]
    return ActionResult({"project": told})


def _with_overrides(response: CodeBuildResponse) -> dict[str, Any]:
    name = response._get_param("projectName")
    backend = response.codebuild_backend
    project = backend.codebuild_projects[name].project_metadata
    build = backend.build_metadata[name].build_metadata
    overrides = response._get_param("environmentVariablesOverride", [])
    variables = {
        variable["name"]: {"type": "PLAINTEXT", **variable}
        for variable in [*project["environment"].get("environmentVariables", []), *overrides]
    }
    build["environment"] = {
        **project["environment"],
        "environmentVariables": list(variables.values()),
    }
    build["source"] = project["source"]
    build["encryptionKey"] = project["encryptionKey"]
    build["timeoutInMinutes"] = project["timeoutInMinutes"]
    return build


def _push_image(
    backend: models.CodeBuildBackend, environment: Mapping[str, Any], buildspec: str
) -> None:
    variables = {
        variable["name"]: variable["value"] for variable in environment["environmentVariables"]
    }
    registry = ecr_backends[backend.account_id][backend.region_name]
    repository = variables.get("REPOSITORY_URL", "").partition("/")[2]
    tag = variables.get("IMAGE_TAG")
    if tag and repository in registry.repositories:
        digest = f"sha256:{hashlib.sha256(tag.encode()).hexdigest()}"
        is_docker = any(form in buildspec for form in _DOCKER_FORMS)
        manifest = {
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST if is_docker else OCI_MANIFEST,
            "config": {
                "mediaType": _DOCKER_CONFIG if is_docker else _OCI_CONFIG,
                "size": 0,
                "digest": digest,
            },
            "layers": [],
        }
        images = registry.repositories[repository].images
        if not any(tag in image.image_tags for image in images):
            registry.put_image(repository, json.dumps(manifest), tag)
