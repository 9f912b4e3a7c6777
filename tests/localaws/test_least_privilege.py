"""The chain under its real roles with IAM enforced: it passes, and needs what the roles may.

The foundation is applied by Terraform, so the policies are those that an account gets. Taking one
action out of a role makes the step fail that needs it.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from PIL import Image

from lambda_src.build import build
from tests.localaws.chain import BUCKET, Chain, MissingError, apply_foundation
from tests.localaws.conftest import LocalAws
from tests.outside import open_environments
from tests.terraform.conftest import provider, terraform_binary  # noqa: F401 (fixtures)
from tests.terraform.iam_calls import refused
from trainer import target as targets
from trainer.errors import KennelError

STEPS = (
    "upload",
    "train",
    "tune",
    "ec2",
    "register",
    "image",
    "release",
    "release",  # now over the former one, with the rollback alarms asked
    "function",
    "invoke",
    "capture",
    "dead_letter",
    "scale",
    "verify",
    "status",
    "logs",
)

# Role, action, the step that fails without it, and how.
REMOVALS = (
    # SageMaker's own calls for a job or an endpoint end in the reason that it gives.
    ("training", "s3:ListBucket", "train", '"s3:ListBucket" permissions on bucket'),
    ("training", "s3:GetObject", "tune", "ClientError: .*s3:GetObject"),
    ("training", "s3:PutObject", "train", "ClientError: .*s3:PutObject"),
    ("training", "logs:CreateLogStream", "train", "log is missing"),
    ("training", "logs:PutLogEvents", "train", "log is missing"),
    ("training", "cloudwatch:PutMetricData", "train", "metric is missing"),
    ("serving", "s3:GetObject", "release", 'Could not access model data .*-serving" exists'),
    ("serving", "ecr:BatchGetImage", "release", "does not have BatchGetImage permission"),
    ("serving", "cloudwatch:DescribeAlarms", "release", "cloudwatch:DescribeAlarms"),
    ("serving", "logs:PutLogEvents", "release", "log is missing"),
    ("serving", "s3:PutObject", "capture", "capture is missing"),
    ("lambda", "sagemaker:InvokeEndpoint", "invoke", "the function answered 502: endpoint_failed"),
    ("lambda", "logs:PutLogEvents", "invoke", "log is missing"),
    ("lambda", "sqs:SendMessage", "dead_letter", "event is missing"),
    ("ec2", "s3:ListBucket", "ec2", "s3:ListBucket on resource"),
    ("ec2", "s3:GetObject", "ec2", "s3:GetObject on resource"),
    ("ec2", "s3:PutObject", "ec2", "s3:PutObject on resource"),
    ("ec2", "logs:PutLogEvents", "ec2", "logs:PutLogEvents on resource"),
    # The commands' own calls are refused.
    ("deploy", "ssm:GetParameter", "upload", "ssm:GetParameter on resource"),
    ("deploy", "s3:PutObject", "upload", "s3:PutObject on resource"),
    ("deploy", "iam:PassRole", "train", "iam:PassRole on resource: .*-training"),
    ("deploy", "sagemaker:CreateTrainingJob", "train", "sagemaker:CreateTrainingJob on resource"),
    ("deploy", "sagemaker:AddTags", "train", "sagemaker:AddTags on resource"),
    ("deploy", "sagemaker:DescribeTrainingJob", "train", "sagemaker:DescribeTrainingJob on"),
    ("deploy", "logs:GetLogEvents", "train", "logs:GetLogEvents on resource"),
    (
        "deploy",
        "sagemaker:CreateHyperParameterTuningJob",
        "tune",
        "sagemaker:CreateHyperParameterTuningJob on resource",
    ),
    ("deploy", "ec2:RunInstances", "ec2", "ec2:RunInstances on resource"),
    ("deploy", "ec2:CreateTags", "ec2", "ec2:CreateTags on resource"),
    ("deploy", "sagemaker:CreateModelPackage", "register", "sagemaker:CreateModelPackage on"),
    ("deploy", "ecr:PutImage", "image", "ecr:PutImage on resource"),
    ("deploy", "sagemaker:UpdateEndpoint", "release", "sagemaker:UpdateEndpoint on resource"),
    ("deploy", "lambda:UpdateAlias", "function", "lambda:UpdateAlias on resource"),
    ("deploy", "lambda:InvokeFunction", "verify", "lambda:InvokeFunction on resource"),
    ("deploy", "cloudwatch:DescribeAlarms", "verify", "cloudwatch:DescribeAlarms on resource"),
    ("deploy", "iam:CreateServiceLinkedRole", "scale", "iam:CreateServiceLinkedRole on resource"),
    ("deploy", "cloudwatch:GetMetricData", "status", "cloudwatch:GetMetricData on resource"),
    ("deploy", "logs:FilterLogEvents", "logs", "logs:FilterLogEvents on resource"),
    ("deploy", "sagemaker:DeleteEndpoint", "destroy", "sagemaker:DeleteEndpoint on resource"),
)


@pytest.fixture(scope="module")
def chain(
    tmp_path_factory: pytest.TempPathFactory,
    provider: dict[str, str],  # noqa: F811
    terraform_binary: Path,  # noqa: F811
) -> Iterator[Chain]:
    """One that all steps have been taken in."""
    folder = tmp_path_factory.mktemp("chain")
    calls = folder / "calls"
    options = ("--iam", "enforce", "--time-scale", "60", "--calls", str(calls))
    state, work = folder / "aws", folder / "work"
    state.mkdir()
    work.mkdir()
    aws = LocalAws(state, *options)
    administrator = {
        "AWS_ENDPOINT_URL": aws.endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "3",
        "CHECKPOINT_DISABLE": "1",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(targets, "ENVIRONMENTS", open_environments(folder))
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        environment = {**os.environ, **provider, **administrator}
        apply_foundation(folder / "terraform", terraform_binary, environment)
        made = Chain(aws, work, calls, photos(folder / "photos"), build(folder, "arm64"))
        for name, value in made.environment.items():
            patch.setenv(name, value)
        for step in STEPS:
            getattr(made, step)()
        yield made
    aws.stop()


def photos(root: Path) -> Path:
    """A data folder with a photo a class."""
    for split in ("train", "valid", "test"):
        for number, name in enumerate(("red", "green")):
            folder = root / split / name
            folder.mkdir(parents=True)
            Image.new("RGB", (8, 8), (number * 200, 50, 0)).save(folder / "1.png")
    return root


@pytest.mark.parametrize("role", ["deploy", "ec2", "lambda", "serving", "training"])
def test_each_part_acts_under_its_role_and_is_refused_nothing(chain: Chain, role: str) -> None:
    calls = chain.calls(role)
    assert calls
    assert refused(calls, chain.policies(role)) == []


@pytest.mark.parametrize(
    ("role", "action", "step", "told"), REMOVALS, ids=[f"{row[0]}-{row[1]}" for row in REMOVALS]
)
def test_without_an_action_the_step_fails_that_needs_it(
    chain: Chain, role: str, action: str, step: str, told: str
) -> None:
    taken: Any = getattr(chain, step)
    with (
        chain.lacking(role, action),
        pytest.raises((ClientError, KennelError, MissingError), match=f"(?s){told}"),
    ):
        taken()


def test_the_deploy_role_removes_what_it_has_made(chain: Chain) -> None:
    chain.destroy()
    sagemaker = chain.aws.client("sagemaker")
    assert sagemaker.list_endpoints()["Endpoints"] == []
    assert sagemaker.list_endpoint_configs()["EndpointConfigs"] == []
    assert sagemaker.list_models()["Models"] == []
    assert sagemaker.list_model_package_groups()["ModelPackageGroupSummaryList"] == []
    assert chain.aws.client("lambda").list_functions()["Functions"] == []
    assert "Contents" not in chain.aws.client("s3").list_objects_v2(Bucket=BUCKET)
