"""What an environment's variables ask AWS for, read before Terraform runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainer.errors import UsageError
from trainer.target import Target


@dataclass(frozen=True)
class Settings:
    """Variables of both stacks; a default here is the stacks' own.

    Attributes:
        endpoint_instance_type: SageMaker's type.
        endpoint_instances: The most that autoscaling starts.
        image_uri: Serving image; None for the one that was built last.
        architecture: Lambda's processors, for which the function's zip is built.
        runtime: Lambda's Python.
        warm: The most warm environments of the function; 0 for none.
        reserved: Executions reserved for the function; None for no reservation.
        ec2_instance_type: Type of the EC2 trainer; None where there is none.
        ec2_image: Id of its machine image; None for AWS's Deep Learning AMI.
        ec2_volume_gb: Size of its root volume in GiB.
        is_spot: Whether the EC2 trainer is a spot instance.
        notebook_instance_type: SageMaker's type; None where there is no notebook.
        notebook_platform: Its platform; None for SageMaker's choice.
    """

    endpoint_instance_type: str = "ml.m5.large"
    endpoint_instances: int = 4
    image_uri: str | None = None
    architecture: str = "arm64"
    runtime: str = "python3.13"
    warm: int = 2
    reserved: int | None = None
    ec2_instance_type: str | None = "g5.xlarge"
    ec2_image: str | None = None
    ec2_volume_gb: int = 45
    is_spot: bool = False
    notebook_instance_type: str | None = "ml.t3.medium"
    notebook_platform: str | None = None


def read(target: Target) -> Settings:
    """Read an environment's variables.

    Raises:
        UsageError: A file is not Terraform's syntax.
    """
    told = {**_variables(target, "foundation"), **_variables(target, "serving")}
    usual = Settings()
    lambda_, ec2, notebook = (_object(told, name) for name in ("lambda", "ec2_trainer", "notebook"))
    warm = _object(lambda_, "provisioned_concurrency")
    return Settings(
        endpoint_instance_type=told.get("instance_type", usual.endpoint_instance_type),
        endpoint_instances=_object(told, "scaling").get("max_capacity", usual.endpoint_instances),
        image_uri=told.get("image_uri"),
        architecture=lambda_.get("architecture", usual.architecture),
        runtime=lambda_.get("runtime", usual.runtime),
        warm=max(warm.get("executions", usual.warm), _object(warm, "autoscaling").get("max", 0)),
        reserved=lambda_.get("reserved_concurrency"),
        ec2_instance_type=ec2.get("instance_type", usual.ec2_instance_type)
        if told.get("enable_ec2_trainer", True)
        else None,
        ec2_image=ec2.get("ami_id"),
        ec2_volume_gb=ec2.get("volume_size_gb", usual.ec2_volume_gb),
        is_spot=ec2.get("enable_spot", usual.is_spot),
        notebook_instance_type=notebook.get("instance_type", usual.notebook_instance_type)
        if told.get("enable_notebook", True)
        else None,
        notebook_platform=notebook.get("platform_identifier"),
    )


def architecture(target: Target) -> str:
    """The same as `read` gives, without its syntax check where no file names one.

    Raises:
        UsageError: A file is not Terraform's syntax.
    """
    # The parser takes longer to load than all else that a plan does before Terraform begins.
    if not any("architecture" in path.read_text() for path in target.variable_files("serving")):
        return Settings.architecture
    return read(target).architecture


def _variables(target: Target, stack: str) -> dict[str, Any]:
    """A stack's variables, as far as the environment sets them."""
    # Imported here, for it takes longer than all the rest.
    import hcl2
    from hcl2.utils import SerializationOptions
    from lark.exceptions import LarkError

    found: dict[str, Any] = {}
    for path in target.variable_files(stack):
        try:
            found |= hcl2.loads(
                path.read_text(),
                serialization_options=SerializationOptions(
                    with_comments=False, strip_string_quotes=True
                ),
            )
        except LarkError as error:
            reason = str(error).splitlines()[0]
            raise UsageError(f"{path} is not Terraform's syntax: {reason}") from error
    return {name: value for name, value in found.items() if value is not None}


def _object(told: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A variable that is an object, without what is null; empty if it is not set."""
    return {key: value for key, value in (told.get(name) or {}).items() if value is not None}
