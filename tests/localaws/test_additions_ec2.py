"""EC2 on localaws."""

from typing import Any

from tests.localaws.conftest import LocalAws


def tags(resource: str) -> dict[str, Any]:
    return {"ResourceType": resource, "Tags": [{"Key": "Name", "Value": resource}]}


def test_a_templates_own_tags_are_not_those_of_what_it_launches(aws: LocalAws) -> None:
    ec2 = aws.client("ec2")
    made = ec2.create_launch_template(
        LaunchTemplateName="kennel",
        LaunchTemplateData={
            "InstanceType": "g5.xlarge",
            "TagSpecifications": [tags("instance"), tags("volume")],
        },
        TagSpecifications=[tags("launch-template")],
    )["LaunchTemplate"]
    version = ec2.describe_launch_template_versions(LaunchTemplateName="kennel")
    found = ec2.describe_launch_templates(LaunchTemplateNames=["kennel"])["LaunchTemplates"][0]
    ec2.delete_launch_template(LaunchTemplateId=made["LaunchTemplateId"])

    assert version["LaunchTemplateVersions"][0]["LaunchTemplateData"]["TagSpecifications"] == [
        tags("instance"),
        tags("volume"),
    ]
    assert found["Tags"] == [{"Key": "Name", "Value": "launch-template"}]


def test_a_templates_tags_are_those_it_has_now(aws: LocalAws) -> None:
    ec2 = aws.client("ec2")
    made = ec2.create_launch_template(
        LaunchTemplateName="tagged",
        LaunchTemplateData={"InstanceType": "g5.xlarge"},
        TagSpecifications=[tags("launch-template")],
    )["LaunchTemplate"]
    new = [{"Key": "owner", "Value": "me"}]
    ec2.create_tags(Resources=[made["LaunchTemplateId"]], Tags=new)
    ec2.delete_tags(Resources=[made["LaunchTemplateId"]], Tags=[{"Key": "Name"}])
    found = ec2.describe_launch_templates(LaunchTemplateNames=["tagged"])["LaunchTemplates"][0]
    ec2.delete_launch_template(LaunchTemplateId=made["LaunchTemplateId"])
    assert made["Tags"] == [{"Key": "Name", "Value": "launch-template"}]
    assert found["Tags"] == new
