"""EC2 instances that run their user data, with IAM enforced."""

import json
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.localaws.conftest import LocalAws, until
from tests.localaws.roles import create_role

BUCKET = "kennel-instances"
NO_CAPACITY = "us-east-1b"
RIGHTS = [
    {"Effect": "Allow", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{BUCKET}/in/*"},
    {"Effect": "Allow", "Action": "s3:PutObject", "Resource": f"arn:aws:s3:::{BUCKET}/out/*"},
]


def script(text: str) -> str:
    return f"#!/bin/bash\n{text}\n"


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    """With a bucket, and an instance profile whose role may copy from in/ to out/."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCALAWS_NO_CAPACITY", NO_CAPACITY)
        folder = tmp_path_factory.mktemp("instances")
        local = LocalAws(folder, "--iam", "enforce", "--time-scale", "50")
    s3, iam = local.client("s3"), local.client("iam")
    s3.create_bucket(Bucket=BUCKET)
    s3.put_object(Bucket=BUCKET, Key="in/photo", Body=b"dog")
    create_role(iam, "trainer", "ec2", RIGHTS)
    iam.create_instance_profile(InstanceProfileName="trainer")
    iam.add_role_to_instance_profile(InstanceProfileName="trainer", RoleName="trainer")
    local.client("ec2").create_launch_template(
        LaunchTemplateName="trainer",
        LaunchTemplateData={
            "ImageId": "ami-999844e0",
            "InstanceType": "g5.xlarge",
            "IamInstanceProfile": {"Name": "trainer"},
            "InstanceInitiatedShutdownBehavior": "terminate",
            "InstanceMarketOptions": {"MarketType": "spot"},
            "TagSpecifications": [
                {"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "trainer"}]}
            ],
            "UserData": b64encode(
                script("echo from the template; shutdown -h now").encode()
            ).decode(),
        },
    )
    yield local
    local.stop()


@pytest.fixture
def ec2(local: LocalAws) -> Any:
    return local.client("ec2")


@pytest.fixture
def launch(ec2: Any) -> Callable[..., str]:
    def launch(user_data: str | None = None, **more: Any) -> str:
        given = {} if user_data is None else {"UserData": user_data}
        answer = ec2.run_instances(
            LaunchTemplate={"LaunchTemplateName": "trainer"},
            MinCount=1,
            MaxCount=1,
            **given,
            **more,
        )
        (instance,) = answer["Instances"]
        assert instance["State"]["Name"] == "pending"
        return str(instance["InstanceId"])

    return launch


def described(ec2: Any, instance: str) -> dict[str, Any]:
    (reservation,) = ec2.describe_instances(InstanceIds=[instance])["Reservations"]
    (found,) = reservation["Instances"]
    return dict(found)


def console(ec2: Any, instance: str) -> str:
    # boto3 decodes what it is told.
    return str(ec2.get_console_output(InstanceId=instance)["Output"])


def wait(ec2: Any, instance: str, state: str) -> dict[str, Any]:
    until(lambda: described(ec2, instance)["State"]["Name"] == state)
    return described(ec2, instance)


def test_it_works_under_its_role_and_ends_itself(local: LocalAws, launch: Any, ec2: Any) -> None:
    instance = launch(
        script(
            f"""
            cd "$KENNEL_WORK"
            aws s3 cp --quiet s3://{BUCKET}/in/photo photo
            aws s3 cp photo s3://{BUCKET}/in/other || echo "exit status $?"
            aws s3 cp --quiet photo s3://{BUCKET}/out/photo
            shutdown -h now
            sleep 600
            """
        )
    )
    ended = wait(ec2, instance, "terminated")
    assert ended["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"
    assert ended["InstanceLifecycle"] == "spot"
    copy = local.client("s3").get_object(Bucket=BUCKET, Key="out/photo")
    assert copy["Body"].read() == b"dog"

    printed = console(ec2, instance)
    assert "exit status 1" in printed
    assert (
        f"User: arn:aws:sts::123456789012:assumed-role/trainer/{instance} is not authorized to "
        f'perform: s3:PutObject on resource: "arn:aws:s3:::{BUCKET}/in/other" because no '
        "identity-based policy allows the s3:PutObject action"
    ) in printed


def test_it_runs_its_templates_script(launch: Any, ec2: Any) -> None:
    instance = launch()
    wait(ec2, instance, "terminated")
    assert console(ec2, instance) == "from the template\n"


def test_a_terminated_one_may_save_its_work(launch: Any, ec2: Any) -> None:
    instance = launch(
        script("trap 'echo saved; exit' TERM; echo begun; while true; do sleep 0.1; done")
    )
    # What it prints can be read while it runs.
    until(lambda: "begun" in console(ec2, instance))
    assert described(ec2, instance)["State"]["Name"] == "running"
    (answer,) = ec2.terminate_instances(InstanceIds=[instance])["TerminatingInstances"]
    assert answer["PreviousState"]["Name"] == "running"
    assert answer["CurrentState"]["Name"] == "shutting-down"
    ended = wait(ec2, instance, "terminated")
    assert ended["StateReason"]["Code"] == "Client.UserInitiatedShutdown"
    assert console(ec2, instance) == "begun\nsaved\n"


def save(name: str) -> str:
    return (
        f"trap 'aws s3 cp --quiet s3://{BUCKET}/in/photo - | aws s3 cp --quiet - "
        f"s3://{BUCKET}/out/{name} || echo {name} is lost; exit' TERM"
    )


def test_the_network_goes_after_units_and_before_the_user_data_are_told(
    local: LocalAws, launch: Any, ec2: Any
) -> None:
    instance = launch(
        script(
            f"""
            if [ -n "$UNIT" ]; then
              {save("unit")}
              echo unit begun
              while true; do sleep 0.1; done
            fi
            {save("script")}
            systemd-run --no-block --setenv=UNIT=1 --property=KillMode=mixed bash "$0"
            while true; do sleep 0.1; done
            """
        )
    )
    until(lambda: "unit begun" in console(ec2, instance))
    ec2.terminate_instances(InstanceIds=[instance])
    wait(ec2, instance, "terminated")
    stored = local.client("s3").list_objects_v2(Bucket=BUCKET, Prefix="out/")["Contents"]
    assert {"out/unit", "out/script"} & {found["Key"] for found in stored} == {"out/unit"}
    assert "script is lost" in console(ec2, instance)


def test_a_spot_instance_is_told_before_it_is_taken_away(
    local: LocalAws, launch: Any, ec2: Any
) -> None:
    instance = launch(
        script(
            """
            imds=$AWS_EC2_METADATA_SERVICE_ENDPOINT/latest
            page() { curl -s -o /dev/null -w '%{http_code}\\n' "$@"; }
            action=$imds/meta-data/spot/instance-action
            page "$action"
            page -X PUT "$imds/api/token"
            token=$(curl -s -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$imds/api/token")
            page -H "X-aws-ec2-metadata-token: $token" "$action"
            curl -s -H "X-aws-ec2-metadata-token: $token" "$imds/meta-data/instance-id"
            echo " begun"
            until curl -sf -H "X-aws-ec2-metadata-token: $token" "$action"; do sleep 0.1; done
            """
        )
    )
    until(lambda: "begun" in console(ec2, instance))
    page = f"{local.endpoint}/_localaws/interrupt?instance={instance}"
    urllib.request.urlopen(urllib.request.Request(page, method="POST")).close()
    ended = wait(ec2, instance, "terminated")
    assert ended["StateReason"]["Code"] == "Server.SpotInstanceTermination"
    printed = console(ec2, instance).splitlines()
    # Without a token; without its life; before there is a notice.
    assert printed[:4] == ["401", "400", "404", f"{instance} begun"]
    assert json.loads(printed[4])["action"] == "terminate"
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(urllib.request.Request(page, method="POST"))


def test_a_shutdown_can_be_cancelled_and_a_start_runs_nothing_again(launch: Any, ec2: Any) -> None:
    instance = launch(
        script(
            """
            # For `shutdown`, a minute from now is in three seconds.
            date() { echo $(($(command date +%s) - 57)); }
            export -f date
            shutdown -h +1; shutdown -c; sleep 4; echo goes on
            """
        ),
        InstanceInitiatedShutdownBehavior="stop",
    )
    until(lambda: "goes on" in console(ec2, instance))
    ec2.stop_instances(InstanceIds=[instance])
    wait(ec2, instance, "stopped")
    ec2.start_instances(InstanceIds=[instance])
    wait(ec2, instance, "running")
    assert console(ec2, instance) == "goes on\n"
    ec2.terminate_instances(InstanceIds=[instance])
    wait(ec2, instance, "terminated")


def test_its_own_shutdown_may_only_stop_it(launch: Any, ec2: Any) -> None:
    instance = launch(script("shutdown now"), InstanceInitiatedShutdownBehavior="stop")
    stopped = wait(ec2, instance, "stopped")
    assert stopped["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"
    ec2.terminate_instances(InstanceIds=[instance])
    wait(ec2, instance, "terminated")


def test_what_is_no_script_is_told(launch: Any, ec2: Any) -> None:
    instance = launch("#cloud-config\n")
    until(lambda: "only if it is a script" in console(ec2, instance))
    ec2.terminate_instances(InstanceIds=[instance])
    wait(ec2, instance, "terminated")


def test_user_data_have_ec2s_limit(launch: Any) -> None:
    with pytest.raises(ClientError, match="limited to 16384 bytes"):
        launch(script("#" * 17_000))


def test_a_zone_can_be_out_of_capacity(launch: Any, ec2: Any) -> None:
    subnets = {
        subnet["AvailabilityZone"]: subnet["SubnetId"]
        for subnet in ec2.describe_subnets()["Subnets"]
    }
    with pytest.raises(ClientError, match=r"sufficient g5\.xlarge capacity") as refused:
        launch(SubnetId=subnets.pop(NO_CAPACITY))
    assert refused.value.response["Error"]["Code"] == "InsufficientInstanceCapacity"
    # A server error, which SDKs repeat.
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500
    # As in AWS, this zone has no machine of the type, ever.
    with pytest.raises(ClientError, match=r"\(g5\.xlarge\) is not supported in your") as refused:
        launch(SubnetId=subnets.pop("us-east-1e"))
    assert refused.value.response["Error"]["Code"] == "Unsupported"
    instance = launch(SubnetId=next(iter(subnets.values())))
    wait(ec2, instance, "terminated")


def test_one_whose_localaws_ended_is_lost(local: LocalAws, launch: Any, ec2: Any) -> None:
    instance = launch(script("echo begun; sleep 600"))
    until(lambda: "begun" in console(ec2, instance))
    local.restart()
    assert wait(ec2, instance, "terminated")["StateReason"]["Code"] == "Server.InternalError"
