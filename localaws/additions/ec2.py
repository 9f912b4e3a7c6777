"""EC2: the tags of a launch template itself."""

from typing import Any

from moto.ec2.models import EC2Backend
from moto.ec2.models.launch_templates import LaunchTemplate

from localaws.additions import Gap
from localaws.additions._moto import plain_client

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


GAPS = [
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
]


def install() -> None:
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

    mended: Any = EC2Backend
    mended.create_launch_template = create_launch_template
    template: Any = LaunchTemplate
    # moto sets them when the template is made; the store of all tags has them as they are.
    template.tags = property(LaunchTemplate.get_tags, lambda self, tags: None)
