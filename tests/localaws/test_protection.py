"""Jobs under keys of one's own and in a VPC: what AWS refuses and what fails there, with IAM."""

import json
from collections.abc import Iterator
from itertools import count
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from tests.localaws.conftest import LocalAws, until
from tests.localaws.roles import create_role, document

BUCKET = "kennel-keys"
NO_S3 = (
    "ClientError: Data download failed:Please ensure that the subnet's route table has a route to"
    " an S3 VPC endpoint or a NAT device, and both the security groups and the subnet's network ACL"
    " allow outbound traffic to S3"
)
INTERFACES = [
    "ec2:CreateNetworkInterface",
    "ec2:CreateNetworkInterfacePermission",
    "ec2:DeleteNetworkInterface",
    "ec2:DeleteNetworkInterfacePermission",
    "ec2:DescribeDhcpOptions",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSubnets",
    "ec2:DescribeVpcs",
]
BY_S3 = {"StringEquals": {"kms:ViaService": "s3.us-east-1.amazonaws.com"}}
LENT = {"Bool": {"kms:GrantIsForAWSResource": "true"}}


def allow(*actions: str, condition: dict[str, Any] | None = None) -> dict[str, Any]:
    more = {"Condition": condition} if condition else {}
    return {"Effect": "Allow", "Action": list(actions), "Resource": "*", **more}


class Account:
    """An account with a key, a bucket that takes no other one, and roles of different rights."""

    def __init__(self, aws: LocalAws) -> None:
        self.aws = aws
        self.sagemaker, self.s3, self.ec2 = map(aws.client, ("sagemaker", "s3", "ec2"))
        self.key: str = aws.client("kms").create_key()["KeyMetadata"]["Arn"]
        self.s3.create_bucket(Bucket=BUCKET)
        default = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": self.key}
        rules = [{"ApplyServerSideEncryptionByDefault": default}]
        self.s3.put_bucket_encryption(
            Bucket=BUCKET, ServerSideEncryptionConfiguration={"Rules": rules}
        )
        denied = {
            "Effect": "Deny",
            "Principal": "*",
            "Action": "s3:PutObject",
            "Resource": f"arn:aws:s3:::{BUCKET}/*",
            "Condition": {
                "StringEquals": {"s3:x-amz-server-side-encryption": "aws:kms"},
                "ArnNotEquals": {"s3:x-amz-server-side-encryption-aws-kms-key-id": self.key},
            },
        }
        policy = {"Version": "2012-10-17", "Statement": [denied]}
        self.s3.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(policy))
        base = [allow("s3:PutObject", "logs:*", "cloudwatch:PutMetricData")]
        through_s3 = allow("kms:GenerateDataKey", "kms:Decrypt", condition=BY_S3)
        iam = aws.client("iam")
        self.bare = create_role(iam, "bare", "sagemaker", base)
        self.storing = create_role(iam, "storing", "sagemaker", [*base, through_s3])
        full = [*base, through_s3, allow("kms:Encrypt"), allow("kms:CreateGrant", condition=LENT)]
        self.full = create_role(iam, "full", "sagemaker", full)
        attached = [*full, allow("s3:GetObject", *INTERFACES)]
        self.attached = create_role(iam, "attached", "sagemaker", attached)
        self._numbers = count()

    def client(self, service: str, key: str = "test", secret: str = "test") -> Any:
        return boto3.client(
            service,
            region_name="us-east-1",
            endpoint_url=self.aws.endpoint,
            aws_access_key_id=key,
            aws_secret_access_key=secret,
        )

    def create(self, role: str, hosts: int = 1, **more: Any) -> str:
        """Start a job that leaves a model."""
        name = f"job-{next(self._numbers)}"
        resources = {"InstanceType": "ml.m5.large", "InstanceCount": hosts, "VolumeSizeInGB": 1}
        program = 'echo weights > "$SAGEMAKER_BASE_DIR/model/weights"'
        self.sagemaker.create_training_job(
            TrainingJobName=name,
            RoleArn=role,
            AlgorithmSpecification={
                "TrainingImage": "image",
                "TrainingInputMode": "File",
                "ContainerEntrypoint": ["bash", "-c", program],
            },
            OutputDataConfig={
                "S3OutputPath": f"s3://{BUCKET}/jobs/",
                **more.pop("OutputDataConfig", {"KmsKeyId": self.key}),
            },
            ResourceConfig=resources | more.pop("ResourceConfig", {}),
            StoppingCondition={"MaxRuntimeInSeconds": 300},
            **more,
        )
        return name

    def ended(self, name: str) -> dict[str, Any]:
        def described() -> dict[str, Any]:
            found: dict[str, Any] = self.sagemaker.describe_training_job(TrainingJobName=name)
            return found

        return until(described, lambda job: job["TrainingJobStatus"] in ("Completed", "Failed"))

    def failure(self, name: str) -> str:
        job = self.ended(name)
        assert job["TrainingJobStatus"] == "Failed"
        return str(job["FailureReason"])

    def network(self, number: int) -> dict[str, Any]:
        """A VPC of two subnets with a security group that is open to itself and to the world."""
        block = f"10.{number}"
        vpc = self.ec2.create_vpc(CidrBlock=f"{block}.0.0/16")["Vpc"]["VpcId"]
        subnets = [
            self.ec2.create_subnet(VpcId=vpc, CidrBlock=f"{block}.{part}.0/24")["Subnet"][
                "SubnetId"
            ]
            for part in range(2)
        ]
        group = self.ec2.create_security_group(GroupName="jobs", Description="-", VpcId=vpc)
        tables = self.ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])
        return {
            "vpc": vpc,
            "table": tables["RouteTables"][0]["RouteTableId"],
            "config": {"Subnets": subnets, "SecurityGroupIds": [group["GroupId"]]},
        }


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    local = LocalAws(tmp_path_factory.mktemp("protection"), "--iam", "enforce")
    yield Account(local)
    local.stop()


def test_a_model_is_written_under_the_key_that_the_bucket_asks_for(account: Account) -> None:
    # Without a key, SageMaker names the account's own, which the bucket refuses.
    default = account.create(account.full, OutputDataConfig={})
    unencrypted = account.create(account.storing)
    unstored = account.create(account.bare, OutputDataConfig={"KmsKeyId": account.key})
    good = account.create(account.full)
    assert account.failure(default).startswith("ClientError: Artifact upload failed:AccessDenied")
    for name in (unencrypted, unstored):
        assert "not authorized to perform: kms:Encrypt" in account.failure(name)
    job = account.ended(good)
    assert job["TrainingJobStatus"] == "Completed"
    key = job["ModelArtifacts"]["S3ModelArtifacts"].removeprefix(f"s3://{BUCKET}/")
    assert account.s3.head_object(Bucket=BUCKET, Key=key)["SSEKMSKeyId"] == account.key


def test_who_writes_needs_the_buckets_key(account: Account) -> None:
    iam = account.aws.client("iam")

    def client(name: str, *rights: dict[str, Any]) -> Any:
        iam.create_user(UserName=name)
        iam.put_user_policy(UserName=name, PolicyName="own", PolicyDocument=document(*rights))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return account.client("s3", key["AccessKeyId"], key["SecretAccessKey"])

    stores = allow("s3:PutObject", "s3:GetObject")
    through_s3 = allow("kms:GenerateDataKey", "kms:Decrypt", condition=BY_S3)
    keyless, holder = client("keyless", stores), client("holder", stores, through_s3)
    with pytest.raises(ClientError, match="perform: kms:GenerateDataKey on resource"):
        keyless.put_object(Bucket=BUCKET, Key="photo", Body=b"dog")
    holder.put_object(Bucket=BUCKET, Key="photo", Body=b"dog")
    assert holder.get_object(Bucket=BUCKET, Key="photo")["Body"].read() == b"dog"
    with pytest.raises(ClientError, match="perform: kms:Decrypt on resource"):
        keyless.get_object(Bucket=BUCKET, Key="photo")


def test_a_key_for_volumes_needs_volumes_and_the_right_to_lend_it(account: Account) -> None:
    for kind in ("ml.g5.xlarge", "ml.r5d.large", "ml.p4d.24xlarge"):
        with pytest.raises(ClientError, match="VolumeKmsKeyId is not supported") as refused:
            account.create(
                account.full, ResourceConfig={"VolumeKmsKeyId": account.key, "InstanceType": kind}
            )
        assert refused.value.response["Error"]["Code"] == "ValidationException"
    lent = {"VolumeKmsKeyId": account.key}
    keyless = account.create(account.storing, OutputDataConfig={}, ResourceConfig=lent)
    assert "not authorized to perform: kms:CreateGrant" in account.failure(keyless)
    name = account.create(account.full, ResourceConfig=lent)
    assert account.ended(name)["TrainingJobStatus"] == "Completed"


def test_who_launches_a_machine_lends_its_volumes_key(account: Account) -> None:
    iam = account.aws.client("iam")
    template = account.ec2.create_launch_template(
        LaunchTemplateName="encrypted",
        LaunchTemplateData={
            "ImageId": "ami-999844e0",
            "InstanceType": "g5.xlarge",
            "BlockDeviceMappings": [
                {
                    "DeviceName": "/dev/xvda",
                    "Ebs": {"VolumeSize": 45, "Encrypted": True, "KmsKeyId": account.key},
                }
            ],
        },
    )["LaunchTemplate"]["LaunchTemplateId"]
    by_ec2 = {"StringEquals": {"kms:ViaService": "ec2.us-east-1.amazonaws.com"}}
    uses = ["Decrypt", "DescribeKey", "GenerateDataKeyWithoutPlaintext", "ReEncryptFrom"]
    rights = [
        allow(*(f"kms:{use}" for use in [*uses, "ReEncryptTo"]), condition=by_ec2),
        allow("kms:CreateGrant", condition={**by_ec2, **LENT}),
    ]
    for name, given, state in (
        ("half", [allow("ec2:*"), rights[1]], "terminated"),
        ("whole", [allow("ec2:*"), *rights], "running"),
    ):
        iam.create_user(UserName=name)
        iam.put_user_policy(UserName=name, PolicyName="own", PolicyDocument=document(*given))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        ec2 = account.client("ec2", key["AccessKeyId"], key["SecretAccessKey"])
        (made,) = ec2.run_instances(
            LaunchTemplate={"LaunchTemplateId": template}, MinCount=1, MaxCount=1
        )["Instances"]

        def described(instance: str = made["InstanceId"]) -> dict[str, Any]:
            (found,) = account.ec2.describe_instances(InstanceIds=[instance])["Reservations"]
            return dict(found["Instances"][0])

        found = until(described, lambda one: one["State"]["Name"] != "pending")
        assert found["State"]["Name"] == state
        if state == "terminated":
            # As EC2 says it of a key that the launcher may not use.
            assert found["StateReason"]["Code"] == "Client.InternalError"
        account.ec2.terminate_instances(InstanceIds=[made["InstanceId"]])


def test_a_job_in_a_vpc_needs_a_way_to_s3_and_rights_on_interfaces(account: Account) -> None:
    network, other = account.network(1), account.network(2)
    config = network["config"]
    for wrong, message in (
        ({"Subnets": ["subnet-0"]}, "subnet-0"),
        ({"SecurityGroupIds": ["sg-0"]}, "sg-0"),
        ({"SecurityGroupIds": other["config"]["SecurityGroupIds"]}, "different networks"),
        ({"Subnets": [*config["Subnets"], *other["config"]["Subnets"]]}, "different networks"),
    ):
        with pytest.raises(ClientError, match=message) as refused:
            account.create(account.attached, VpcConfig=config | wrong)
        assert refused.value.response["Error"]["Code"] == "ValidationException"
    closed = account.create(account.attached, VpcConfig=config)
    assert account.failure(closed) == NO_S3
    gateway = account.ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    account.ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=network["vpc"])
    account.ec2.create_route(
        RouteTableId=network["table"], DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway
    )
    public = account.create(account.attached, VpcConfig=config)
    assert account.failure(public) == NO_S3
    # EC2 says "available", its model "Available": the answer is not checked.
    account.client("ec2").create_vpc_endpoint(
        VpcId=network["vpc"],
        ServiceName="com.amazonaws.us-east-1.s3",
        RouteTableIds=[network["table"]],
    )
    rightless = account.create(account.full, VpcConfig=config)
    assert "ec2:CreateNetworkInterface" in account.failure(rightless)
    apart = account.create(account.attached, 2, VpcConfig=config)
    assert "cannot reach each other" in account.failure(apart)
    (group,) = config["SecurityGroupIds"]
    permission = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}
    account.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[permission])
    joined = account.create(
        account.attached, 2, VpcConfig=config, EnableInterContainerTrafficEncryption=True
    )
    job = account.ended(joined)
    assert (job["TrainingJobStatus"], job["VpcConfig"]) == ("Completed", config)
    assert job["EnableInterContainerTrafficEncryption"] is True
    # The interfaces go with the job.
    filters = [{"Name": "group-id", "Values": [group]}]
    until(lambda: not account.ec2.describe_network_interfaces(Filters=filters)["NetworkInterfaces"])


def test_an_endpoint_in_a_vpc_needs_a_way_to_s3(account: Account) -> None:
    sagemaker = account.sagemaker
    account.s3.put_object(Bucket=BUCKET, Key="model.tar.gz", Body=b"model")
    sagemaker.create_model(
        ModelName="closed",
        ExecutionRoleArn=account.attached,
        PrimaryContainer={
            "Image": "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-inference:2",
            "ModelDataUrl": f"s3://{BUCKET}/model.tar.gz",
        },
        VpcConfig=account.network(3)["config"],
    )
    variant = {"VariantName": "main", "ModelName": "closed", "InstanceType": "ml.m5.large"}
    sagemaker.create_endpoint_config(
        EndpointConfigName="closed", ProductionVariants=[variant | {"InitialInstanceCount": 1}]
    )
    sagemaker.create_endpoint(EndpointName="closed", EndpointConfigName="closed")

    def described() -> dict[str, Any]:
        found: dict[str, Any] = sagemaker.describe_endpoint(EndpointName="closed")
        return found

    failed = until(described, lambda found: found["EndpointStatus"] != "Creating")
    assert failed["EndpointStatus"] == "Failed"
    assert "ensure that an S3 VPC endpoint exists in route table" in failed["FailureReason"]
