"""EC2 on localaws."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.localaws.conftest import LocalAws


def tags(resource: str) -> dict[str, Any]:
    return {"ResourceType": resource, "Tags": [{"Key": "Name", "Value": resource}]}


def linux(aws: LocalAws) -> str:
    name = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-ubuntu-22.04/latest/ami-id"
    return str(aws.client("ssm").get_parameter(Name=name)["Parameter"]["Value"])


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


def test_a_root_volume_holds_its_image_s_snapshot(aws: LocalAws) -> None:
    ec2 = aws.client("ec2")
    image = linux(aws)
    (mapping,) = ec2.describe_images(ImageIds=[image])["Images"][0]["BlockDeviceMappings"]
    least = mapping["Ebs"]["VolumeSize"]

    def launched(size: int, template: str = "") -> str:
        volumes = [{"DeviceName": mapping["DeviceName"], "Ebs": {"VolumeSize": size}}]
        given: dict[str, Any] = {"ImageId": image, "BlockDeviceMappings": volumes}
        if template:
            ec2.create_launch_template(LaunchTemplateName=template, LaunchTemplateData=given)
            given = {"LaunchTemplate": {"LaunchTemplateName": template}}
        (made,) = ec2.run_instances(MinCount=1, MaxCount=1, **given)["Instances"]
        ec2.terminate_instances(InstanceIds=[made["InstanceId"]])
        return str(made["State"]["Name"])

    for template in ("", "small"):
        with pytest.raises(ClientError) as refused:
            launched(least - 1, template)
        error = refused.value.response["Error"]
        assert error["Code"] == "InvalidBlockDeviceMapping"
        assert error["Message"].endswith(f"expect size >= {least}GB")
    assert launched(least, "large") == launched(least) == "pending"
    for template in ("small", "large"):
        ec2.delete_launch_template(LaunchTemplateName=template)


def test_a_zone_of_another_region_is_refused_as_such(aws: LocalAws) -> None:
    with pytest.raises(ClientError, match=r"\(us-west-1b\)") as refused:
        aws.client("ec2").run_instances(
            ImageId="ami-12c6146b",
            InstanceType="t2.nano",
            MinCount=1,
            MaxCount=1,
            Placement={"AvailabilityZone": "us-west-1b"},
        )
    assert refused.value.response["Error"]["Code"] == "InvalidParameterValue"


def test_a_template_that_is_gone_is_refused_by_its_id(aws: LocalAws) -> None:
    ec2 = aws.client("ec2")
    made = ec2.create_launch_template(
        LaunchTemplateName="gone", LaunchTemplateData={"InstanceType": "g5.xlarge"}
    )["LaunchTemplate"]["LaunchTemplateId"]
    ec2.delete_launch_template(LaunchTemplateId=made)
    for call, given in (
        (ec2.delete_launch_template, {"LaunchTemplateId": made}),
        (ec2.modify_launch_template, {"LaunchTemplateId": made, "DefaultVersion": "1"}),
        (ec2.describe_launch_templates, {"LaunchTemplateIds": [made]}),
    ):
        with pytest.raises(
            ClientError, match=f"with template ID {made}, does not exist"
        ) as refused:
            call(**given)
        assert refused.value.response["Error"]["Code"] == "InvalidLaunchTemplateId.NotFound"


@pytest.mark.parametrize(
    ("market", "code"),
    [({}, "VcpuLimitExceeded"), ({"MarketType": "spot"}, "MaxSpotInstanceCountExceeded")],
)
def test_an_account_has_so_many_processors_at_a_time(
    aws: LocalAws, market: dict[str, str], code: str
) -> None:
    ec2 = aws.client("ec2")
    machine = {"ImageId": linux(aws), "MinCount": 1, "InstanceMarketOptions": market}
    launched = ec2.run_instances(InstanceType="g5.12xlarge", MaxCount=1, **machine)  # 48 of 64
    with pytest.raises(ClientError) as refused:
        ec2.run_instances(InstanceType="g4dn.2xlarge", **machine | {"MinCount": 3}, MaxCount=3)
    assert refused.value.response["Error"]["Code"] == code
    # Another group of types has its own.
    others = ec2.run_instances(InstanceType="t2.nano", MaxCount=1, **machine)
    made = [launched["Instances"][0]["InstanceId"], others["Instances"][0]["InstanceId"]]
    ec2.terminate_instances(InstanceIds=made)
    ec2.get_waiter("instance_terminated").wait(InstanceIds=made)
    again = ec2.run_instances(InstanceType="g4dn.2xlarge", **machine | {"MinCount": 3}, MaxCount=3)
    ec2.terminate_instances(InstanceIds=[each["InstanceId"] for each in again["Instances"]])
