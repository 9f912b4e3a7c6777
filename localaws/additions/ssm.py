"""SSM: the public parameters of the Deep Learning AMIs."""

import re
from collections.abc import Mapping
from typing import Any

from moto.core.utils import utcnow
from moto.ec2.models.amis import Ami
from moto.ssm.exceptions import SSMException, ValidationException
from moto.ssm.models import Parameter, ParameterDict
from moto.ssm.responses import SimpleSystemManagerResponse

from localaws.additions import Gap
from localaws.additions._moto import before, plain_client, refuses

# The rule for the names: https://docs.aws.amazon.com/dlami/latest/devguide/find-dlami-id.html
_FOLDER = "/aws/service/deeplearning/ami/"
_PUBLISHED = (
    "x86_64/base-oss-nvidia-driver-ubuntu-22.04",
    "x86_64/oss-nvidia-driver-gpu-pytorch-2.13-amazon-linux-2023",
)
# The one among the images that moto's EC2 knows, so that DescribeImages and RunInstances know it.
_IMAGE = "ami-999844e0"
# No document says how large its snapshot is: all that the trainer's volume holds by default.
_SNAPSHOT_GIB = 45


def _probe() -> bool:
    with plain_client("ssm") as ssm:
        name = f"{_FOLDER}{_PUBLISHED[0]}/latest/ami-id"
        return not refuses(lambda: ssm.get_parameter(Name=name))


def _checks_parameters() -> bool:
    with plain_client("ssm") as ssm:
        long = {"Name": "/probe", "Type": "String", "Value": "x" * 4097}
        return refuses(lambda: ssm.put_parameter(**long))


GAPS = [
    Gap(
        service="ssm",
        operation="PutParameter",
        effect="names, values and types that AWS refuses are taken",
        closed=_checks_parameters,
    ),
    Gap(
        service="ssm",
        operation="GetParameter of /aws/service/deeplearning",
        effect="the trainer's launch template finds no image",
        closed=_probe,
    ),
]


def install() -> None:
    """Publish the Deep Learning AMIs."""
    before(SimpleSystemManagerResponse, "put_parameter", _check_parameter)
    before(SimpleSystemManagerResponse, "get_parameters_by_path", _check_path)
    original = ParameterDict._check_loading_status

    def check_loading_status(self: ParameterDict, key: str) -> None:
        original(self, key)
        if str(key).startswith(_FOLDER.rstrip("/")):
            _publish(self)

    mended: Any = ParameterDict
    mended._check_loading_status = check_loading_status
    original_mappings: Any = Ami.block_device_mappings

    def block_device_mappings(self: Ami) -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = original_mappings.fget(self)
        if self.id == _IMAGE:
            told[0]["Ebs"]["VolumeSize"] = _SNAPSHOT_GIB
        return told

    mended = Ami
    mended.block_device_mappings = property(block_device_mappings)


def _publish(parameters: ParameterDict) -> None:
    for published in _PUBLISHED:
        name = f"{_FOLDER}{published}/latest/ami-id"
        if name not in dict.keys(parameters):
            parameter = Parameter(  # type: ignore[abstract]
                account_id=parameters.account_id,
                name=name,
                value=_IMAGE,
                parameter_type="String",
                description=None,
                allowed_pattern=None,
                keyid=None,
                last_modified_date=utcnow(),
                version=1,
                data_type="aws:ec2:image",
            )
            dict.__setitem__(parameters, name, [parameter])


# PutParameter of the API reference.
_NAME = re.compile(r"[a-zA-Z0-9_.\-/]+")
_MOST_LEVELS = 15
_MOST_CHARACTERS = {"Standard": 4096, "Advanced": 8192, "Intelligent-Tiering": 8192}


def _check_parameter(response: SimpleSystemManagerResponse, told: Mapping[str, Any]) -> None:
    name, value = told["Name"], told["Value"]
    path = name.rpartition(":parameter")[2]
    if not _NAME.fullmatch(path) or ("/" in path and not path.startswith("/")):
        raise ValidationException(
            "Parameter name must be a fully qualified name, and may hold letters, numbers and the "
            "symbols _.-/ only."
        )
    if path.count("/") > _MOST_LEVELS:
        raise SSMException(
            "HierarchyLevelLimitExceededException",
            f"A hierarchy can have a maximum of {_MOST_LEVELS} levels.",
        )
    tier = told.get("Tier", "Standard")
    most = _MOST_CHARACTERS.get(tier, 8192)
    if len(value.encode()) > most:
        raise ValidationException(
            f"{tier} tier parameters support a maximum parameter value of {most} characters. To "
            "create a larger parameter value, upgrade the parameter to use the advanced-parameter "
            "tier."
        )
    pattern = told.get("AllowedPattern")
    if pattern and not re.search(pattern, value):
        raise SSMException(
            "ParameterPatternMismatchException",
            f"Parameter value, cannot be validated against allowedPattern: {pattern}",
        )
    # moto keeps a name of one level without its slash.
    known: Any = response.ssm_backend._parameters
    former = known.get(path) or known.get(path.lstrip("/"))
    kind = told.get("Type")
    if former and kind and former[-1].parameter_type != kind:
        raise SSMException(
            "HierarchyTypeMismatchException",
            f"The parameter type {former[-1].parameter_type} cannot be changed to {kind}.",
        )


def _check_path(_: SimpleSystemManagerResponse, told: Mapping[str, Any]) -> None:
    if not told["Path"].startswith("/"):
        raise ValidationException(
            "The parameter doesn't meet the parameter name requirements. The parameter name must "
            f"begin with a forward slash: {told['Path']}"
        )
