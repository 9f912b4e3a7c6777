"""SSM: the public parameters of the Deep Learning AMIs."""

from typing import Any

from moto.core.utils import utcnow
from moto.ec2.models.amis import Ami
from moto.ssm.models import Parameter, ParameterDict

from localaws.additions import Gap
from localaws.additions._moto import plain_client, refuses

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


GAPS = [
    Gap(
        service="ssm",
        operation="GetParameter of /aws/service/deeplearning",
        effect="the trainer's launch template finds no image",
        closed=_probe,
    )
]


def install() -> None:
    """Publish the Deep Learning AMIs."""
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
