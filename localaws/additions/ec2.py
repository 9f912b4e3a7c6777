"""EC2: launch templates as they are, and instances that run.

LOCALAWS_NO_CAPACITY names availability zones, with commas between, that have no capacity.
"""

import copy
import os
import re
import sys
from base64 import b64encode
from functools import cache
from typing import Any
from xml.sax.saxutils import escape

from botocore.exceptions import ClientError
from moto.core.responses import ActionResult
from moto.core.utils import utcnow
from moto.ec2.exceptions import EC2ClientError, InvalidLaunchTemplateIdNotFound
from moto.ec2.models import EC2Backend
from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS
from moto.ec2.models.instances import Instance, InstanceState, Reservation, StateReason
from moto.ec2.models.launch_templates import LaunchTemplate
from moto.ec2.responses.general import General
from moto.ec2.responses.instances import InstanceResponse
from moto.ec2.responses.launch_templates import LaunchTemplates
from moto.ec2.responses.security_groups import SecurityGroups
from werkzeug.exceptions import HTTPException

from localaws.additions import Gap
from localaws.additions import _ec2_checks as checks
from localaws.additions._moto import before, plain_client, refuses, wrap
from localaws.execution import running
from localaws.iam import authorization
from localaws.iam.actions import lent_key
from localaws.instances import Instances

_CREDENTIAL = re.compile(r"Credential=([^/]+)/")
_NO_TEMPLATE = "lt-00000000000000000"
_OWN_TAGS = "launch-template"


def _keeps_own_tags_out_of_the_data() -> bool:
    with plain_client("ec2") as ec2:
        ec2.create_launch_template(
            LaunchTemplateName="probe",
            LaunchTemplateData={"InstanceType": "g5.xlarge"},
            TagSpecifications=[
                {"ResourceType": _OWN_TAGS, "Tags": [{"Key": "Name", "Value": "probe"}]}
            ],
        )
        versions = ec2.describe_launch_template_versions(LaunchTemplateName="probe")
    return "TagSpecifications" not in versions["LaunchTemplateVersions"][0]["LaunchTemplateData"]


def _sees_changed_tags() -> bool:
    with plain_client("ec2") as ec2:
        template = ec2.create_launch_template(
            LaunchTemplateName="probe", LaunchTemplateData={"InstanceType": "g5.xlarge"}
        )["LaunchTemplate"]
        tags = [{"Key": "Name", "Value": "probe"}]
        ec2.create_tags(Resources=[template["LaunchTemplateId"]], Tags=tags)
        found = ec2.describe_launch_templates(LaunchTemplateNames=["probe"])
    return bool(found["LaunchTemplates"][0].get("Tags") == tags)


class _FullError(HTTPException):
    """There is no capacity: one of EC2's server errors, which its SDKs repeat."""

    code = 500

    def __init__(self, message: str) -> None:
        error = f"<Code>InsufficientInstanceCapacity</Code><Message>{escape(message)}</Message>"
        super().__init__(f"<Response><Errors><Error>{error}</Error></Errors></Response>")


def _launches_as_the_template_says() -> bool:
    with plain_client("ec2") as ec2:
        ec2.create_launch_template(
            LaunchTemplateName="probe",
            LaunchTemplateData={"InstanceInitiatedShutdownBehavior": "terminate"},
        )
        launched = ec2.run_instances(
            LaunchTemplate={"LaunchTemplateName": "probe"},
            ImageId="ami-12c6146b",
            MinCount=1,
            MaxCount=1,
        )["Instances"][0]
        told = ec2.describe_instance_attribute(
            InstanceId=launched["InstanceId"], Attribute="instanceInitiatedShutdownBehavior"
        )
    return bool(told["InstanceInitiatedShutdownBehavior"]["Value"] == "terminate")


def _refuses_a_root_volume_below_its_snapshot() -> bool:
    root = {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 1}}
    with plain_client("ec2") as ec2:
        return refuses(
            lambda: ec2.run_instances(
                ImageId="ami-999844e0", MinCount=1, MaxCount=1, BlockDeviceMappings=[root]
            )
        )


def _tells_what_an_instance_prints() -> bool:
    with plain_client("ec2") as ec2:
        launched = ec2.run_instances(ImageId="ami-12c6146b", MinCount=1, MaxCount=1)
        (instance,) = launched["Instances"]
        told = ec2.get_console_output(InstanceId=instance["InstanceId"])
    return "2.6.16-xenU" not in told.get("Output", "")


def _asks_for_an_image() -> bool:
    with plain_client("ec2") as ec2:
        return refuses(
            lambda: ec2.run_instances(ImageId="ami-00000000000000000", MinCount=1, MaxCount=1)
        )


def _keeps_used_groups() -> bool:
    with plain_client("ec2") as ec2:
        (vpc,) = ec2.describe_vpcs()["Vpcs"]
        given = {"GroupName": "probe", "Description": "probe", "VpcId": vpc["VpcId"]}
        group = ec2.create_security_group(**given)["GroupId"]
        ec2.run_instances(ImageId="ami-12c6146b", MinCount=1, MaxCount=1, SecurityGroupIds=[group])
        return refuses(lambda: ec2.delete_security_group(GroupId=group))


def _names_the_missing_key_pair() -> bool:
    with plain_client("ec2") as ec2:
        try:
            ec2.describe_key_pairs(KeyNames=["probe"])
        except ClientError as error:
            return "The key pair 'probe' does not exist" in str(error)
    return False


def _knows_templates_by_id() -> bool:
    with plain_client("ec2") as ec2:
        return refuses(lambda: ec2.describe_launch_templates(LaunchTemplateIds=[_NO_TEMPLATE]))


def _refuses_beyond_a_quota() -> bool:
    with plain_client("ec2") as ec2:
        return refuses(
            lambda: ec2.run_instances(
                ImageId="ami-12c6146b", InstanceType="p5.48xlarge", MinCount=9, MaxCount=9
            )
        )


GAPS = [
    Gap(
        service="ec2",
        operation="DescribeKeyPairs",
        effect="the message of a missing key pair shows a set, with those that are there",
        closed=_names_the_missing_key_pair,
    ),
    Gap(
        service="ec2",
        operation="DescribeLaunchTemplates.LaunchTemplateIds, DeleteLaunchTemplate",
        effect="an unknown id is none of an answer, or the error of an unknown name, at which"
        " Terraform stops",
        closed=_knows_templates_by_id,
    ),
    Gap(
        service="ec2",
        operation="RunInstances.MaxCount",
        effect="more launch than the account's quota allows",
        closed=_refuses_beyond_a_quota,
    ),
    Gap(
        service="ec2",
        operation="RunInstances.ImageId, InstanceType, KeyName, SecurityGroupIds",
        effect="images, types and keys that are not there launch, and groups of another network",
        closed=_asks_for_an_image,
    ),
    Gap(
        service="ec2",
        operation="DeleteSecurityGroup",
        effect="a group goes whose instances still run",
        closed=_keeps_used_groups,
    ),
    Gap(
        service="ec2",
        operation="CreateLaunchTemplate.TagSpecifications",
        effect="the template's own tags appear in what it launches: a difference on each plan",
        closed=_keeps_own_tags_out_of_the_data,
    ),
    Gap(
        service="ec2",
        operation="DescribeLaunchTemplates.Tags",
        effect="a template's changed tags are not seen: a difference on each plan",
        closed=_sees_changed_tags,
    ),
    Gap(
        service="ec2",
        operation="RunInstances.LaunchTemplate",
        effect="an instance lacks its template's profile and market, and stops when it should end",
        closed=_launches_as_the_template_says,
    ),
    Gap(
        service="ec2",
        operation="RunInstances.BlockDeviceMappings",
        effect="a root volume that cannot hold its image's snapshot is made",
        closed=_refuses_a_root_volume_below_its_snapshot,
    ),
    Gap(
        service="ec2",
        operation="GetConsoleOutput",
        effect="every instance prints the same, and none runs",
        closed=_tells_what_an_instance_prints,
    ),
]


def install() -> None:
    """Let launch templates be as they are told, and let instances run."""
    _mend_templates()
    _mend_instances()
    before(SecurityGroups, "create_security_group", checks.group)
    before(SecurityGroups, "delete_security_group", checks.unused)
    before(LaunchTemplates, "create_launch_template", checks.template)
    for name in ("delete_launch_template", "describe_launch_templates", "modify_launch_template"):
        before(LaunchTemplates, name, checks.known_templates)
    for way in ("egress", "ingress"):
        before(SecurityGroups, f"authorize_security_group_{way}", checks.rules)
    wrap(EC2Backend, "describe_key_pairs", _describe_key_pairs)


def _describe_key_pairs(
    original: Any, backend: EC2Backend, key_names: list[str], *given: Any, **named: Any
) -> Any:
    """Say in AWS's words which one is not there."""
    for name in filter(None, key_names):
        if name not in backend.key_pairs:
            raise EC2ClientError("InvalidKeyPair.NotFound", f"The key pair '{name}' does not exist")
    return original(backend, key_names, *given, **named)


def _mend_templates() -> None:
    """Keep a launch template's own tags out of its data, and tell those it has now."""
    original = EC2Backend.create_launch_template

    def create_launch_template(
        self: EC2Backend, name: str, description: str, template_data: dict[str, Any], tags: Any
    ) -> Any:
        launched = [
            specification
            for specification in template_data.pop("TagSpecifications", [])
            if specification["ResourceType"] != _OWN_TAGS
        ]
        if launched:
            template_data["TagSpecifications"] = launched
        return original(self, name, description, template_data, tags)

    def named_template(named: Any, backend: EC2Backend, told: dict[str, Any]) -> Any:
        try:
            return named(backend, told)
        # moto takes the first of none.
        except IndexError:
            raise InvalidLaunchTemplateIdNotFound(told.get("LaunchTemplateId", "")) from None

    wrap(EC2Backend, "_get_template_from_args", named_template)
    mended: Any = EC2Backend
    mended.create_launch_template = create_launch_template
    template: Any = LaunchTemplate
    # moto sets them when the template is made; the store of all tags has them as they are.
    template.tags = property(LaunchTemplate.get_tags, lambda self, tags: None)


def _mend_instances() -> None:
    """Launch as the template says, run what is launched and end it in its own time."""
    backend, response, instance, general = EC2Backend, InstanceResponse, Instance, General
    run_instances, terminate, stop = backend.run_instances, instance.terminate, instance.stop
    answer_run_instances = response.run_instances

    # moto's own names: CloudFormation gives all of them by name.
    def launch(
        self: EC2Backend,
        image_id: str,
        count: int,
        user_data: Any,
        security_group_names: Any,
        **told: Any,
    ) -> Reservation:
        template = _template(self, told)
        checks.machine(self, image_id or template.get("ImageId"), told, template)
        checks.networks(self, told, template)
        checks.user_data(user_data)
        checks.volumes(self, image_id or template.get("ImageId"), told, template)
        checks.processors(self, count, told, template)
        _check_capacity(self, told, template)
        reservation = run_instances(
            self, image_id, count, user_data, security_group_names, **_completed(told, template)
        )
        for made in reservation.instances:
            _give_profile(self, made, told, template)
        return reservation

    def answer(self: InstanceResponse) -> ActionResult:
        checks.launch(self)
        token = self._get_param("ClientToken")
        if token and (made_before := _made_with(self.ec2_backend, token)):
            return ActionResult(made_before)
        answered = answer_run_instances(self)
        reservation: Any = answered.result
        reservation.client_token = token
        service = running(Instances)
        for made in reservation.instances:
            if keys := _denied_keys(self, _volume_keys(self)):
                _fail(made, keys)
            elif service:
                service.launch(made)
        return answered

    def end(self: Instance, *, terminates: bool) -> InstanceState:
        previous: InstanceState = copy.copy(self._state)
        service = running(Instances)
        if service and service.end(self, terminates=terminates):
            return previous
        return terminate(self) if terminates else stop(self)

    mended: Any = backend
    mended.run_instances = launch
    mended = response
    mended.run_instances = answer
    mended = instance
    mended.terminate = lambda self: end(self, terminates=True)
    mended.stop = lambda self: end(self, terminates=False)
    mended = general
    mended.get_console_output = _console_output


def _made_with(backend: EC2Backend, token: str) -> Reservation | None:
    """What a call has made whose answer was lost: AWS's SDKs repeat it with the same token."""
    reservations = backend.reservations.values()
    return next((made for made in reservations if vars(made).get("client_token") == token), None)


def _template(backend: EC2Backend, told: dict[str, Any]) -> dict[str, Any]:
    """The data of the launch template that is named; empty without one."""
    named = told.get("launch_template")
    data: dict[str, Any] = backend._get_template_from_args(named).data if named else {}
    return data


def _completed(told: dict[str, Any], template: dict[str, Any]) -> dict[str, Any]:
    """What moto takes from the request alone, from the template where the request is silent."""
    monitoring = "enabled" if template.get("Monitoring", {}).get("Enabled") else "disabled"
    shutdown = template.get("InstanceInitiatedShutdownBehavior")
    return {
        **told,
        "instance_initiated_shutdown_behavior": told.get("instance_initiated_shutdown_behavior")
        or shutdown,
        "instance_market_options": checks.market(told, template),
        "metadata_options": told.get("metadata_options") or template.get("MetadataOptions", {}),
        "monitoring_state": "enabled" if told.get("monitoring_state") == "enabled" else monitoring,
    }


def _give_profile(
    backend: EC2Backend, made: Instance, told: dict[str, Any], template: dict[str, Any]
) -> None:
    # moto gives the request's own profile afterwards.
    if told.get("iam_instance_profile_name") or told.get("iam_instance_profile_arn"):
        return
    profile = template.get("IamInstanceProfile", {})
    if profile:
        backend.associate_iam_instance_profile(made.id, profile.get("Name"), profile.get("Arn"))


def _volume_keys(response: InstanceResponse) -> set[str]:
    """The KMS keys of a launch's volumes."""
    named = response._get_param("LaunchTemplate")
    data = response.ec2_backend._get_template_from_args(named).data if named else {}
    mappings = response._get_param("BlockDeviceMappings") or data.get("BlockDeviceMappings", [])
    keys = {each.get("Ebs", {}).get("KmsKeyId") for each in mappings}
    return {str(key) for key in keys if key}


def _denied_keys(response: InstanceResponse, keys: set[str]) -> list[str]:
    """Of these keys those that whoever launches may not lend to EBS."""
    # moto knows keys of AWS's length only.
    signed = _CREDENTIAL.search(response.headers.get("Authorization", ""))
    caller = signed[1] if signed else ""
    return [
        key
        for key in sorted(keys)
        if not all(authorization.allows(caller, asked) for asked in lent_key(key, "ec2"))
    ]


def _fail(made: Instance, keys: list[str]) -> None:
    """As EC2 does: the launch is answered, and the instance ends before it has begun.

    Source: "Instance terminates immediately" of EC2's user guide.
    """
    made.terminate()
    code = "Client.InternalError"
    made.state_reason = StateReason(f"{code}: Client error on launch", code)
    print(f"{made.id}: its launcher may not use {', '.join(keys)}", file=sys.stderr, flush=True)


def _check_capacity(backend: EC2Backend, told: dict[str, Any], template: dict[str, Any]) -> None:
    subnet = told.get("subnet_id")
    zone = backend.get_subnet(subnet).availability_zone if subnet else told.get("placement")
    kind = checks.kind_of(told, template)
    zones = _zones(backend.region_name, kind)
    # A zone of another region is refused as such.
    if zone and zones and zone not in zones and backend.get_zone_by_name(zone):
        # Source: "InstanceTypeNotSupported" of EC2's user guide, and what people report of it.
        raise EC2ClientError(
            "Unsupported",
            f"Your requested instance type ({kind}) is not supported in your requested "
            f"Availability Zone ({zone}). Please retry your request by not specifying an "
            f"Availability Zone or choosing {', '.join(zones)}.",
        )
    service = running(Instances)
    is_full = bool(zone and service and service.execution.weather.lacks_capacity(zone, kind))
    if is_full or (zone and zone in os.environ.get("LOCALAWS_NO_CAPACITY", "").split(",")):
        raise _FullError(
            f"We currently do not have sufficient {kind} capacity in the Availability Zone you "
            f"requested ({zone}). Our system will be working on provisioning additional capacity.",
        )


@cache
def _zones(region: str, kind: str) -> tuple[str, ...]:
    """The zones of a region that offer an instance type; empty where moto does not know it."""
    offered = INSTANCE_TYPE_OFFERINGS["availability-zone"].get(region, [])
    return tuple(sorted(each["Location"] for each in offered if each["InstanceType"] == kind))


def _console_output(self: General) -> ActionResult:
    instance: Instance = self.ec2_backend.get_instance(self._get_param("InstanceId"))
    service = running(Instances)
    printed = service.console(instance) if service else b""
    return ActionResult(
        {
            "InstanceId": instance.id,
            "Timestamp": utcnow(),
            "Output": b64encode(printed).decode(),
        }
    )
