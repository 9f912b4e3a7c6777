"""What EC2 asks of a launch, of security groups and of launch templates before it takes them.

Source: "Error codes" of EC2's API reference, and RunInstances, CreateSecurityGroup,
DeleteSecurityGroup and CreateLaunchTemplate there.
"""

import re
from base64 import b64decode
from collections.abc import Mapping
from typing import Any

from moto.ec2.exceptions import (
    DependencyViolationError,
    EC2ClientError,
    InvalidAMIIdError,
    InvalidLaunchTemplateIdNotFound,
    InvalidVPCIdError,
    MalformedAMIIdError,
)
from moto.ec2.models import EC2Backend
from moto.ec2.models.instance_types import INSTANCE_TYPES
from moto.ec2.responses.instances import InstanceResponse
from moto.ec2.responses.launch_templates import LaunchTemplates
from moto.ec2.responses.security_groups import SecurityGroups
from moto.iam.models import iam_backends

from localaws.additions.service_quotas import VCPUS

_MOST_USER_DATA_BYTES = 16 * 1024
_IMAGE = re.compile(r"ami-([0-9a-f]{8}|[0-9a-f]{17})")
# "You can use a-z, A-Z, 0-9, spaces, and ._-:/()#,@[]+=&;{}!$*": CreateSecurityGroup.
_GROUP_TEXT = re.compile(r"[\w\s.:/()#,@\[\]+=&;{}!$*-]{0,255}", re.ASCII)
_TEMPLATE_NAME = re.compile(r"[a-zA-Z0-9().\-/_]{3,128}")
_MOST_PORT = 65535
# https://docs.aws.amazon.com/ec2/latest/instancetypes/ec2-instance-quotas.html
_GROUPS = ("a c d h i im is m r t z", "g gr vt")


def user_data(text: Any) -> None:
    if len(b64decode(str(text or ""))) > _MOST_USER_DATA_BYTES:
        raise EC2ClientError(
            "InvalidParameterValue", f"User data is limited to {_MOST_USER_DATA_BYTES} bytes"
        )


def launch(response: InstanceResponse) -> None:
    """Numbers and profile of a launch."""
    told = response.params
    if int(told.get("MinCount", 1)) > int(told.get("MaxCount", 1)):
        raise EC2ClientError(
            "InvalidParameterValue",
            f"Value ({told['MinCount']}) for parameter minCount is invalid. It must be less than "
            "or equal to maxCount.",
        )
    profile = told.get("IamInstanceProfile") or {}
    known: Any = iam_backends[response.current_account]["aws"].instance_profiles.values()
    for member, attribute in (("Name", "name"), ("Arn", "arn")):
        name = profile.get(member)
        if name and all(getattr(each, attribute) != name for each in known):
            raise EC2ClientError(
                "InvalidParameterValue",
                f"Value ({name}) for parameter iamInstanceProfile.{attribute} is invalid. Invalid "
                f"IAM Instance Profile {attribute if member == 'Name' else 'ARN'}",
            )


def machine(
    backend: EC2Backend, image: Any, told: dict[str, Any], template: dict[str, Any]
) -> None:
    """Image, type and key pair are there, and image and type fit."""
    if not image:
        raise EC2ClientError("MissingParameter", "The request must contain the parameter ImageId")
    # A parameter's name is resolved by EC2 itself.
    if str(image).startswith("resolve:ssm:"):
        return
    if not _IMAGE.fullmatch(str(image)):
        raise MalformedAMIIdError([image])
    if image not in backend.amis:
        raise InvalidAMIIdError([image])
    kind = kind_of(told, template)
    if kind not in INSTANCE_TYPES:
        raise EC2ClientError("InvalidParameterValue", f"Invalid value '{kind}' for InstanceType.")
    has, takes = backend.amis[image].architecture, _architectures(kind)
    if takes and has not in takes:
        raise EC2ClientError(
            "InvalidParameterValue",
            f"The architecture '{','.join(takes)}' of the specified instance type does not match "
            f"the architecture '{has}' of the specified AMI. Specify an instance type and an AMI "
            "that have matching architectures, and try again.",
        )
    key = told.get("key_name") or template.get("KeyName")
    if key:
        # It raises where there is no such key pair.
        backend.describe_key_pairs([key])


def processors(
    backend: EC2Backend, count: int, told: dict[str, Any], template: dict[str, Any]
) -> None:
    """The account may have as many processors of that group of types at a time."""
    kind, is_spot = kind_of(told, template), bool(market(told, template))
    used = sum(
        _vcpus(each.instance_type)
        for reservation in backend.reservations.values()
        for each in reservation.instances
        if each.state in {"pending", "running"}
        and (each.lifecycle == "spot") == is_spot
        and _group(each.instance_type) == _group(kind)
    )
    if used + count * _vcpus(kind) <= VCPUS:
        return
    if is_spot:
        raise EC2ClientError("MaxSpotInstanceCountExceeded", "Max spot instance count exceeded")
    raise EC2ClientError(
        "VcpuLimitExceeded",
        f"You have requested more vCPU capacity than your current vCPU limit of {VCPUS:.0f} allows "
        "for the instance bucket that the specified instance type belongs to. Please visit "
        "http://aws.amazon.com/contact-us/ec2-request to request an adjustment to this limit.",
    )


def market(told: dict[str, Any], template: dict[str, Any]) -> Any:
    of_template = template.get("InstanceMarketOptions", {}).get("MarketType")
    return told.get("instance_market_options") or of_template


def _group(kind: str) -> str:
    """What Service Quotas counts together; a family of its own where it is none of these."""
    family = re.split(r"\d", kind)[0]
    return next((group for group in _GROUPS if family in group.split()), family)


def _vcpus(kind: str) -> int:
    return int(INSTANCE_TYPES.get(kind, {}).get("VCpuInfo", {}).get("DefaultVCpus", 0))


def kind_of(told: dict[str, Any], template: dict[str, Any]) -> str:
    given = told["instance_type"] if not told["is_instance_type_default"] else None
    return str(given or template.get("InstanceType", told["instance_type"]))


def _architectures(kind: str) -> list[str]:
    found: list[str] = (
        INSTANCE_TYPES[kind].get("ProcessorInfo", {}).get("SupportedArchitectures", [])
    )
    return found


def networks(backend: EC2Backend, told: dict[str, Any], template: dict[str, Any]) -> None:
    """Security groups are of the subnet's network."""
    subnet = told.get("subnet_id")
    if not subnet:
        return
    vpc = backend.get_subnet(subnet).vpc_id
    for name in told.get("security_group_ids") or template.get("SecurityGroupIds") or []:
        group = backend.get_security_group_from_id(name)
        if group and group.vpc_id != vpc:
            raise EC2ClientError(
                "InvalidParameter",
                f"Security group {name} and subnet {subnet} belong to different networks.",
            )


def group(response: SecurityGroups, told: Mapping[str, Any]) -> None:
    if told["GroupName"].startswith("sg-"):
        raise EC2ClientError(
            "InvalidParameterValue",
            f"Value ({told['GroupName']}) for parameter GroupName is invalid. Group names may not "
            "be in the format sg-*",
        )
    _check_texts(told)
    vpc = told.get("VpcId")
    if vpc and vpc not in response.ec2_backend.vpcs:
        raise InvalidVPCIdError(vpc)


def _check_texts(told: Mapping[str, Any]) -> None:
    for name in ("GroupName", "Description"):
        text = told.get(name)
        if text is not None and not _GROUP_TEXT.fullmatch(text):
            raise EC2ClientError(
                "InvalidParameterValue",
                f"Value ({text}) for parameter {name} is invalid. Character sets beyond ASCII are "
                "not supported."
                if not text.isascii()
                else f"Invalid security group {name.lower()}. Valid {name.lower()}s are strings "
                "less than 256 characters from the following set:  a-zA-Z0-9. "
                "_-:/()#,@[]+=&;{}!$*",
            )


def rules(_: SecurityGroups, told: Mapping[str, Any]) -> None:
    for rule in told.get("IpPermissions") or []:
        first, last = rule.get("FromPort"), rule.get("ToPort")
        has_ports = rule.get("IpProtocol") in ("tcp", "udp", "6", "17")
        if has_ports and not 0 <= int(first or 0) <= int(last or 0) <= _MOST_PORT:
            raise EC2ClientError(
                "InvalidParameterValue", f"Invalid TCP/UDP port range ({first}:{last})"
            )
        for kind in ("IpRanges", "Ipv6Ranges", "PrefixListIds", "UserIdGroupPairs"):
            for entry in rule.get(kind) or []:
                _check_texts({"Description": entry.get("Description")})


def unused(response: SecurityGroups, told: Mapping[str, Any]) -> None:
    """A group stays while a network interface has it: until its instance has terminated."""
    name = told.get("GroupId")
    for reservation in response.ec2_backend.reservations.values():
        for instance in reservation.instances:
            groups = {group.id for nic in instance.nics.values() for group in nic.group_set}
            if name in groups and instance.state != "terminated":
                raise DependencyViolationError(f"resource {name} has a dependent object")


def template(_: LaunchTemplates, told: Mapping[str, Any]) -> None:
    name = told.get("LaunchTemplateName", "")
    if not _TEMPLATE_NAME.fullmatch(name):
        raise EC2ClientError(
            "InvalidLaunchTemplateName.MalformedException",
            "A launch template name must be between 3 and 128 characters, and may contain "
            "letters, numbers, and the following characters: - ( ) . / _.",
        )
    data = (told.get("LaunchTemplateData") or {}).get("UserData")
    try:
        user_data(data)
    except ValueError as error:
        raise EC2ClientError(
            "InvalidUserData.Malformed", "Invalid BASE64 encoding of user data."
        ) from error


def known_templates(response: LaunchTemplates, told: Mapping[str, Any]) -> None:
    """Templates named by id are there; deleting one twice is a success to Terraform's provider."""
    if told.get("LaunchTemplateId") and told.get("LaunchTemplateName"):
        does = response._get_action().removesuffix("LaunchTemplate").lower()
        raise EC2ClientError(
            "InvalidParameterCombination",
            f"Either provide launch template ID or launch template name to {does} the template.",
        )
    known = response.ec2_backend.launch_templates
    for template in told.get("LaunchTemplateIds") or [told.get("LaunchTemplateId")]:
        if template and template not in known:
            raise InvalidLaunchTemplateIdNotFound(template)


def volumes(
    backend: EC2Backend, image: Any, told: dict[str, Any], template: dict[str, Any]
) -> None:
    """A root volume holds at least its image's snapshot."""
    asked = told.get("block_device_mappings") or template.get("BlockDeviceMappings") or []
    sizes = {each["DeviceName"]: each.get("Ebs", {}).get("VolumeSize") for each in asked}
    for held in backend.amis[image].block_device_mappings if image in backend.amis else []:
        size, least = sizes.get(held["DeviceName"]), held["Ebs"]["VolumeSize"]
        if size is not None and int(size) < least:
            raise EC2ClientError(
                "InvalidBlockDeviceMapping",
                f"Volume of size {size}GB is smaller than snapshot "
                f"'{held['Ebs']['SnapshotId']}', expect size >= {least}GB",
            )
