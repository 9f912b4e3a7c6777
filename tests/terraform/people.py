"""An account with a small service, and people in it who may do what they are given."""

from base64 import b64encode
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from tests.archives import make_archive
from tests.terraform.checkout import ROOT, Checkout, done
from tests.terraform.conftest import LocalAws
from tests.terraform.service import BUCKET, make_role, make_service

# Stands for a training: its last word, and the machine's end.
USER_DATA = f"""
trap 'shutdown -h now' EXIT
status='{{"status": "completed", "exit_code": 0, "stage": "done", "ended": "%s"}}'
printf "$status" "$(date -u +%FT%TZ)" |
  aws s3 cp --only-show-errors - "s3://{BUCKET}/jobs/$KENNEL_JOB/status.json"
"""


class Account:
    """A model in service, a data set and a launch template, made by an administrator."""

    def __init__(self, folder: Path, trainer_policies: Iterable[Mapping[str, Any]]) -> None:
        """Make it.

        Args:
            folder: An empty one.
            trainer_policies: What the EC2 trainer's machine may do.
        """
        state = folder / "aws"
        state.mkdir()
        self.aws = LocalAws(state, "--iam", "enforce")
        self.photos = folder / "photos"
        self._checkout = make_service(folder / "checkout", self.aws)
        for name in ("pyproject.toml", "requirements.lock"):
            (self._checkout.folder / name).symlink_to(ROOT / name)
        for split in ("train", "valid", "test"):
            photo = self.photos / split / "red/1.png"
            photo.parent.mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(photo)
        self._make_trainer(trainer_policies)
        group = {"logGroupName": "/aws/sagemaker/TrainingJobs"}
        self.aws.client("logs").create_log_group(**group)
        self.aws.client("logs").put_retention_policy(**group, retentionInDays=30)
        model = str(make_archive(folder / "model"))
        done(self._checkout.run("deploy", "--env", "dev", "--auto-approve", "--model", model))

    def _make_trainer(self, policies: Iterable[Mapping[str, Any]]) -> None:
        make_role(self.aws, "ec2", {"Service": "ec2.amazonaws.com"}, policies)
        iam, ec2 = self.aws.client("iam"), self.aws.client("ec2")
        profile = {"InstanceProfileName": "kennel-dev-ec2"}
        iam.create_instance_profile(**profile)
        iam.add_role_to_instance_profile(**profile, RoleName="kennel-dev-ec2")
        tags = [{"Key": "Name", "Value": "kennel-dev-trainer"}]
        template = ec2.create_launch_template(
            LaunchTemplateName="kennel-dev-trainer",
            LaunchTemplateData={
                "IamInstanceProfile": {"Name": "kennel-dev-ec2"},
                "ImageId": "ami-12c6146b",
                "InstanceInitiatedShutdownBehavior": "terminate",
                "InstanceType": "g5.xlarge",
                "TagSpecifications": [
                    {"ResourceType": kind, "Tags": tags} for kind in ("instance", "volume")
                ],
                "UserData": b64encode(USER_DATA.encode()).decode(),
            },
            TagSpecifications=[{"ResourceType": "launch-template", "Tags": tags}],
        )["LaunchTemplate"]
        subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
        for key, value in {
            "ec2_launch_template_id": template["LaunchTemplateId"],
            "ec2_subnet_ids": subnet,
        }.items():
            self.aws.client("ssm").put_parameter(
                Name=f"/kennel/dev/{key}", Type="String", Value=value
            )

    def person(self, name: str, policies: Iterable[Mapping[str, Any]]) -> Checkout:
        """A checkout in which commands run with these policies and no others."""
        role = make_role(self.aws, name, {"AWS": "123456789012"}, policies)
        keys = self.aws.client("sts").assume_role(RoleArn=role, RoleSessionName=name)["Credentials"]
        session = {
            "AWS_ACCESS_KEY_ID": keys["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": keys["SecretAccessKey"],
            "AWS_SESSION_TOKEN": keys["SessionToken"],
        }
        return Checkout(self._checkout.folder, {**self._checkout.environ, **session})
