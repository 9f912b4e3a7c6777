"""Keys for the volumes of SageMaker's instances."""

from collections.abc import Iterable, Mapping
from typing import Any

from moto.ec2.models.instance_types import INSTANCE_TYPES
from moto.sagemaker.exceptions import ValidationError


def refuse_volume_key(
    key: str | None, machines: Iterable[Mapping[str, Any]], member: str = "KmsKeyId"
) -> None:
    """Refuse a key for volumes that the instances themselves encrypt.

    API reference, `ResourceConfig.VolumeKmsKeyId` and `CreateEndpointConfig.KmsKeyId`: it cannot be
    requested for an instance type with local storage.

    Raises:
        ValidationError: One of the machines has a type of that kind.
    """
    for machine in machines if key else ():
        kind = str(machine.get("InstanceType", "")).removeprefix("ml.")
        if INSTANCE_TYPES.get(kind, {}).get("InstanceStorageSupported"):
            raise ValidationError(
                f"{member} is not supported for the instance type ml.{kind}, which has local"
                " storage that its own hardware encrypts."
            )
