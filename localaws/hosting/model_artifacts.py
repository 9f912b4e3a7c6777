"""Image and archive of a model, had as SageMaker has them: under the model's execution role."""

import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError
from moto.sagemaker import models

from localaws import network, regions
from localaws.execution import ACCOUNT, Execution, RoleError
from localaws.files import unpack
from localaws.hosting.containers import HostingError
from localaws.hosting.records import containers
from localaws.loopback import LOOPBACK

SERVED = ("manifest.json", "model.onnx")
"""What the inference server cannot do without, at the top of an archive."""

_NAMED = 5


class OtherServerError(HostingError):
    """A model is made for another server than the one that runs here."""


class Role:
    """Clients of AWS's services that act under an execution role."""

    def __init__(self, execution: Execution, arn: str) -> None:
        """Take the role.

        Raises:
            HostingError: SageMaker may not take it.
        """
        self.arn = arn
        self._execution = execution
        self._clients: dict[str, Any] = {}
        try:
            self.credentials = execution.credentials(arn, "sagemaker.amazonaws.com", "SageMaker")
        except RoleError as error:
            raise HostingError(f"Could not assume the execution role: {error}.") from error

    def client(self, service: str) -> Any:
        """A client of a service."""
        if service not in self._clients:
            self._clients[service] = self._execution.client(service, self.credentials)
        return self._clients[service]


def container(model: models.Model) -> Mapping[str, Any]:
    """The definition of a model's container.

    Raises:
        HostingError: The model has none or several.
    """
    found = containers(model)
    if len(found) != 1:
        raise HostingError(
            f"Model {model.model_name} has {len(found)} containers; localaws runs one."
        )
    return found[0]


def require_image(image: str, role: Role) -> None:
    """Ask this account's registry for an image; what runs is the inference server all the same.

    Args:
        image: Its URI; one of another registry is taken to exist.
        role: Who asks.

    Raises:
        HostingError: The image does not exist, or the role may not have it.
    """
    registry = f"{ACCOUNT}.dkr.ecr.{regions.current()}.amazonaws.com/"
    if not image.startswith(registry):
        return
    repository, is_digest, version = image.removeprefix(registry).partition("@")
    repository, _, tag = repository.partition(":")
    wanted = {"imageDigest": version} if is_digest else {"imageTag": tag or "latest"}
    try:
        found = role.client("ecr").batch_get_image(repositoryName=repository, imageIds=[wanted])
    except ClientError as error:
        if _is_denied(error):
            reason = f"The role '{role.arn}' does not have BatchGetImage permission for the image:"
            raise HostingError(f"{reason} '{image}'.") from error
        raise HostingError(f"The image '{image}' does not exist.") from error
    if not found["images"]:
        raise HostingError(f"The image '{image}' does not exist.")


def fetch_model(uri: str, folder: Path, role: Role) -> None:
    """Unpack a model's archive from S3; its files cannot be written.

    Args:
        uri: Where the archive is, `s3://...`; empty for a model that has none.
        folder: An empty folder.
        role: Who fetches.

    Raises:
        HostingError: The archive cannot be fetched or is none.
    """
    if not uri:
        return
    place = urlsplit(uri)
    packed = folder.with_name("model.tar.gz")
    try:
        found = role.client("s3").get_object(Bucket=place.netloc, Key=place.path.lstrip("/"))
        with packed.open("wb") as file:
            shutil.copyfileobj(found["Body"], file, 1 << 20)
    except (BotoCoreError, ClientError) as error:
        raise HostingError(
            f"Could not access model data at {uri}. Please ensure that the role"
            f' "{role.arn}" has "s3:GetObject" permissions and that the object exists ({error}).'
        ) from error
    try:
        unpack(packed, folder)
    except (OSError, EOFError, tarfile.TarError) as error:
        raise HostingError(
            f'Failed to extract model data archive for container "primary" from URL "{uri}".'
            f" Please ensure that the object is a valid tar.gz archive ({error})."
        ) from error
    finally:
        packed.unlink()
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o444)


def require_served(folder: Path, uri: str) -> None:
    """See that a model is one of the inference server's, which is all that localaws starts.

    Args:
        folder: Where it was unpacked.
        uri: Where it came from; empty for a model that has no archive.

    Raises:
        OtherServerError: It is made for another server, so that its container would not answer.
    """
    if all((folder / name).is_file() for name in SERVED):
        return
    found = sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )
    named = ", ".join(found[:_NAMED]) or "no file"
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    held = f"{uri} holds {named}{more}" if uri else "the model has no ModelDataUrl"
    raise OtherServerError(
        f"{held}; localaws runs no images: it starts its own inference server, which serves an"
        f" archive with {' and '.join(SERVED)} at its top and no other."
    )


def have_model(
    execution: Execution, model: models.Model, folder: Path, more: Mapping[str, str] | None = None
) -> tuple[Role, dict[str, str]]:
    """Have image and archive of a model, under its role.

    Args:
        execution: For credentials and clients.
        model: The model.
        folder: Where its archive is unpacked, into a folder that does not exist.
        more: Environment variables beside the model's own.

    Returns:
        The role, and the environment of the model's containers.

    Raises:
        HostingError: Image or archive cannot be had.
        OtherServerError: The archive is made for another server.
    """
    definition, role = container(model), Role(execution, model.execution_role_arn)
    require_image(definition.get("Image", ""), role)
    _require_network(vars(model).get("vpc_config"), definition, role)
    unpacked = folder / "model"
    unpacked.mkdir(parents=True)
    archive = definition.get("ModelDataUrl", "")
    fetch_model(archive, unpacked, role)
    require_served(unpacked, archive)
    # An isolated container reaches nothing, so that it gets no credentials either.
    is_isolated = vars(model).get("enable_network_isolation", False)
    return role, {
        **execution.environment({} if is_isolated else role.credentials),
        **(definition.get("Environment") or {}),
        **(more or {}),
        "KENNEL_HOST": LOOPBACK,
        "KENNEL_HOSTS": LOOPBACK,
        "SAGEMAKER_BIND_TO_PORT": "0",
        "SM_MODEL_DIR": str(unpacked),
    }


def _require_network(
    vpc: Mapping[str, Any] | None, definition: Mapping[str, Any], role: Role
) -> None:
    """Look whether SageMaker can place a model in its VPC, and fetch it from there.

    Raises:
        HostingError: It cannot.
    """
    if not vpc:
        return
    try:
        network.require(vpc)
        network.require_rights(role.credentials["AWS_ACCESS_KEY_ID"], role.arn)
    except network.NetworkError as error:
        raise HostingError(f"{error}.") from error
    try:
        network.require_s3(vpc)
    except network.NetworkError as error:
        raise HostingError(
            f'Failed to download model data from URL "{definition.get("ModelDataUrl", "")}". Please'
            " ensure that an S3 VPC endpoint exists in route table or NAT gateway for the VPC mode"
            " and the URL is reachable from within the subnets provided."
        ) from error


def _is_denied(error: ClientError) -> bool:
    return "AccessDenied" in str(error.response["Error"]["Code"])
