"""What AWS refuses before anything is made, and the states that things go through on it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.localaws.conftest import LocalAws
from tests.localaws.roles import create_role

ACCOUNT = "123456789012"
IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/kennel:1"
DATA = "s3://strict/model.tar.gz"


class Strict:
    """An account in which IAM is asked, with a bucket and roles."""

    def __init__(self, aws: LocalAws) -> None:
        self.aws = aws
        self.sagemaker = aws.client("sagemaker")
        self.functions = aws.client("lambda")
        iam, s3 = aws.client("iam"), aws.client("s3")
        self.role = create_role(iam, "serving", "sagemaker")
        self.poor = create_role(iam, "poor", "sagemaker", ())
        self.other = create_role(iam, "function", "lambda")
        s3.create_bucket(Bucket="strict")
        s3.put_object(Bucket="strict", Key="model.tar.gz", Body=b"model")

    def model(self, name: str, role: str | None = None, **container: Any) -> Any:
        """Create a model of one container."""
        return self.sagemaker.create_model(
            ModelName=name,
            ExecutionRoleArn=role or self.role,
            PrimaryContainer={"Image": IMAGE, "ModelDataUrl": DATA, **container},
        )

    def job(self, name: str, uri: str = DATA, **more: Any) -> Any:
        """Create a training job of one channel; it fails soon, since its image is none."""
        source = {"S3DataType": "S3Prefix", "S3Uri": uri}
        job: dict[str, Any] = {
            "TrainingJobName": name,
            "RoleArn": self.role,
            "AlgorithmSpecification": {"TrainingImage": IMAGE, "TrainingInputMode": "File"},
            "InputDataConfig": [
                {"ChannelName": "training", "DataSource": {"S3DataSource": source}}
            ],
            "OutputDataConfig": {"S3OutputPath": "s3://strict/jobs"},
            "ResourceConfig": {
                "InstanceType": "ml.m5.large",
                "InstanceCount": 1,
                "VolumeSizeInGB": 1,
            },
            "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        }
        return self.sagemaker.create_training_job(**{**job, **more})


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Strict]:
    folder = tmp_path_factory.mktemp("strict")
    aws = LocalAws(folder, "--iam", "enforce", "--time-scale", "100")
    yield Strict(aws)
    aws.stop()


def refusal(call: Callable[[], object]) -> tuple[str, str]:
    """Code and message with which a call is refused."""
    with pytest.raises(ClientError) as error:
        call()
    told = error.value.response["Error"]
    return told["Code"], told["Message"]


def test_a_model_needs_its_data_and_a_role_that_may_have_it(strict: Strict) -> None:
    nobody = f"arn:aws:iam::{ACCOUNT}:role/nobody"
    for role, container, said in (
        (strict.role, {"ModelDataUrl": "s3://strict/none"}, "Could not find model data at s3://"),
        (strict.role, {"ModelDataUrl": "s3://no-such/none"}, "Could not find model data at s3://"),
        (strict.poor, {}, f"Could not access model data at {DATA}"),
        (strict.other, {}, f"Could not access model data at {DATA}"),
        (nobody, {}, f"Could not access model data at {DATA}"),
    ):
        code, message = refusal(lambda: strict.model("refused", role, **container))  # noqa: B023
        assert (code, message[: len(said)]) == ("ValidationException", said)
    without: dict[str, Any] = {"ModelName": "refused", "ExecutionRoleArn": nobody}
    container = {"Image": IMAGE}
    assert (
        "Could not assume role"
        in refusal(lambda: strict.sagemaker.create_model(**without, PrimaryContainer=container))[1]
    )
    for containers in ({}, {"PrimaryContainer": container, "Containers": [container]}):
        assert (
            "One of PrimaryContainer and Containers"
            in refusal(
                lambda: strict.sagemaker.create_model(**without, **containers)  # noqa: B023
            )[1]
        )
    assert not strict.sagemaker.list_models(NameContains="refused")["Models"]
    strict.model("data-is-there")


def test_a_training_job_needs_objects_that_its_role_may_list(strict: Strict) -> None:
    strict.aws.client("s3").create_bucket(
        Bucket="elsewhere", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
    )
    strict.aws.client("s3").put_object(Bucket="elsewhere", Key="a", Body=b"a")
    for uri, role in (
        ("s3://strict/none", strict.role),
        ("s3://no-such/none", strict.role),
        ("s3://elsewhere/a", strict.role),
        (DATA, strict.poor),
    ):
        code, message = refusal(lambda: strict.job("refused", uri, RoleArn=role))  # noqa: B023
        assert code == "ValidationException"
        assert message.startswith(f'No S3 objects found under S3 URL "{uri}"')
    assert not strict.sagemaker.list_training_jobs(NameContains="refused")["TrainingJobSummaries"]
