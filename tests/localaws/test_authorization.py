"""LOCALAWS_IAM=enforce: what the caller's policies do not allow is denied, in AWS's words."""

import json
import pickle
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from moto.iam.aws_managed_policies import aws_managed_policies_data
from moto.iam.models import AWSManagedPolicy
from moto.sts.models import sts_backends

from localaws.additions.iam import saved
from localaws.execution import ACCOUNT
from localaws.iam.actions import UnknownCallError, requests
from localaws.iam.authorization import CredentialsError, caller_of
from tests.localaws.conftest import LocalAws

BUCKET = "kennel-enforced"
OBJECTS = f"arn:aws:s3:::{BUCKET}"
GITHUB = "token.actions.githubusercontent.com"
ROOT = {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}


def statement(action: str | list[str], resource: str | list[str], **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def document(*statements: Mapping[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


def trust(principal: Any, action: str = "sts:AssumeRole", **more: Any) -> str:
    return document({"Effect": "Allow", "Action": action, "Principal": principal, **more})


class Account:
    """A localaws that enforces IAM, and ways to act in it."""

    def __init__(self, folder: Path) -> None:
        self.calls = folder / "calls"
        options = ("--iam", "enforce", "--records-only", "--calls", str(self.calls))
        self.local = local = LocalAws(folder, *options)
        self.iam = local.client("iam")
        self.sts = local.client("sts")

    def role(self, name: str, *statements: Mapping[str, Any], by: str | None = None) -> str:
        made = self.iam.create_role(RoleName=name, AssumeRolePolicyDocument=by or trust(ROOT))
        if statements:
            self.iam.put_role_policy(
                RoleName=name, PolicyName="own", PolicyDocument=document(*statements)
            )
        return str(made["Role"]["Arn"])

    def client(self, service: str, keys: Mapping[str, str]) -> Any:
        return boto3.client(
            service,
            region_name="us-east-1",
            endpoint_url=self.local.endpoint,
            aws_access_key_id=keys["AccessKeyId"],
            aws_secret_access_key=keys.get("SecretAccessKey", "secret"),
            aws_session_token=keys.get("SessionToken"),
            config=Config(retries={"total_max_attempts": 1}),
        )

    def session(self, service: str, role: str, **more: Any) -> Any:
        """A client of a session of a role."""
        arn = f"arn:aws:iam::{ACCOUNT}:role/{role}"
        assumed = self.sts.assume_role(RoleArn=arn, RoleSessionName="test", **more)
        return self.client(service, assumed["Credentials"])


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    account = Account(tmp_path_factory.mktemp("enforced"))
    s3 = account.local.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    for key in ("in/photo", "out/photo", "named/photo"):
        s3.put_object(Bucket=BUCKET, Key=key, Body=b"dog")
    account.role("reader", statement("s3:GetObject", f"{OBJECTS}/in/*"))
    account.role(
        "lister",
        statement("s3:GetObject", f"{OBJECTS}/in/*"),
        statement("s3:ListBucket", OBJECTS),
    )
    yield account
    account.local.stop()


def refusal(call: Any, *arguments: Any, **parameters: Any) -> tuple[str, str, int]:
    """Code, message and status of the error that a call ends with."""
    with pytest.raises(ClientError) as refused:
        call(*arguments, **parameters)
    told = refused.value.response
    return (
        told["Error"]["Code"],
        told["Error"].get("Message", ""),
        told["ResponseMetadata"]["HTTPStatusCode"],
    )


class TestRole:
    def test_may_what_its_policy_says(self, account: Account) -> None:
        s3 = account.session("s3", "reader")
        assert s3.get_object(Bucket=BUCKET, Key="in/photo")["Body"].read() == b"dog"

    def test_is_told_what_it_may_not(self, account: Account) -> None:
        s3 = account.session("s3", "reader")
        assert refusal(s3.put_object, Bucket=BUCKET, Key="in/photo", Body=b"cat") == (
            "AccessDenied",
            f"User: arn:aws:sts::{ACCOUNT}:assumed-role/reader/test is not authorized to perform: "
            f's3:PutObject on resource: "{OBJECTS}/in/photo" because no identity-based policy '
            "allows the s3:PutObject action",
            403,
        )
        kept = account.local.client("s3").get_object(Bucket=BUCKET, Key="in/photo")
        assert kept["Body"].read() == b"dog"

    def test_a_head_request_is_denied_without_words(self, account: Account) -> None:
        s3 = account.session("s3", "reader")
        assert refusal(s3.head_object, Bucket=BUCKET, Key="out/photo") == ("403", "Forbidden", 403)

    def test_learns_what_is_missing_only_if_it_may_list(self, account: Account) -> None:
        missing = {"Bucket": BUCKET, "Key": "in/missing"}
        reader, lister = account.session("s3", "reader"), account.session("s3", "lister")
        assert refusal(reader.get_object, **missing)[0] == "AccessDenied"
        assert refusal(reader.head_object, **missing)[0] == "403"
        assert refusal(lister.get_object, **missing)[0] == "NoSuchKey"
        assert refusal(lister.head_object, **missing)[0] == "404"

    def test_is_limited_by_its_sessions_policy(self, account: Account) -> None:
        policy = document(statement("s3:ListBucket", OBJECTS))
        s3 = account.session("s3", "lister", Policy=policy)
        assert s3.list_objects_v2(Bucket=BUCKET)["KeyCount"] == 3
        code, message, _ = refusal(s3.get_object, Bucket=BUCKET, Key="in/photo")
        assert code == "AccessDenied"
        assert message.endswith("because no session policy allows the s3:GetObject action")

    def test_is_limited_by_its_boundary(self, account: Account) -> None:
        boundary = account.iam.create_policy(
            PolicyName="boundary", PolicyDocument=document(statement("sqs:*", "*"))
        )["Policy"]["Arn"]
        account.role("bounded", statement("s3:GetObject", f"{OBJECTS}/*"))
        account.iam.put_role_permissions_boundary(RoleName="bounded", PermissionsBoundary=boundary)
        s3 = account.session("s3", "bounded")
        message = refusal(s3.get_object, Bucket=BUCKET, Key="in/photo")[1]
        assert message.endswith("because no permissions boundary allows the s3:GetObject action")

    def test_can_be_let_in_and_kept_out_by_the_bucket(self, account: Account) -> None:
        reader = {"AWS": f"arn:aws:iam::{ACCOUNT}:role/reader"}
        everybody = statement("s3:GetObject", f"{OBJECTS}/in/*", Principal="*", Effect="Deny")
        policy = document(
            statement("s3:GetObject", f"{OBJECTS}/named/*", Principal=reader), everybody
        )
        administrator = account.local.client("s3")
        administrator.put_bucket_policy(Bucket=BUCKET, Policy=policy)
        try:
            s3 = account.session("s3", "reader")
            assert s3.get_object(Bucket=BUCKET, Key="named/photo")["Body"].read() == b"dog"
            message = refusal(s3.get_object, Bucket=BUCKET, Key="in/photo")[1]
        finally:
            administrator.delete_bucket_policy(Bucket=BUCKET)
        assert message.endswith("with an explicit deny in a resource-based policy")

    def test_loses_a_right_at_once(self, account: Account) -> None:
        account.role("losing", statement("sqs:ListQueues", "*"))
        sqs = account.session("sqs", "losing")
        sqs.list_queues()
        account.iam.delete_role_policy(RoleName="losing", PolicyName="own")
        assert refusal(sqs.list_queues)[0] == "AccessDeniedException"

    def test_deletes_only_what_it_may(self, account: Account) -> None:
        account.role("deleting", statement("s3:DeleteObject", f"{OBJECTS}/scratch/*"))
        account.local.client("s3").put_object(Bucket=BUCKET, Key="scratch/1", Body=b"")
        s3 = account.session("s3", "deleting")
        keys = [{"Key": "scratch/1"}, {"Key": "in/photo"}]
        answer = s3.delete_objects(Bucket=BUCKET, Delete={"Objects": keys})
        assert [deleted["Key"] for deleted in answer["Deleted"]] == ["scratch/1"]
        assert [(e["Key"], e["Code"]) for e in answer["Errors"]] == [("in/photo", "AccessDenied")]
        left = account.local.client("s3").list_objects_v2(Bucket=BUCKET)["Contents"]
        assert [found["Key"] for found in left] == ["in/photo", "named/photo", "out/photo"]


class TestAssumeRole:
    def test_needs_the_roles_trust(self, account: Account) -> None:
        arn = account.role("lambdas", by=trust({"Service": "lambda.amazonaws.com"}))
        code, message, _ = refusal(account.sts.assume_role, RoleArn=arn, RoleSessionName="xx")
        assert code == "AccessDenied"
        assert message.endswith("because no resource-based policy allows the sts:AssumeRole action")

    def test_needs_a_right_where_the_trust_names_the_account(self, account: Account) -> None:
        arn = account.role("target")
        account.role("climber", statement("sts:AssumeRole", arn))
        refused = account.session("sts", "reader").assume_role
        assert refusal(refused, RoleArn=arn, RoleSessionName="xx")[0] == "AccessDenied"
        climber = account.session("sts", "climber")
        assumed = climber.assume_role(RoleArn=arn, RoleSessionName="xx")["AssumedRoleUser"]["Arn"]
        assert assumed.endswith(":assumed-role/target/xx")

    @pytest.mark.parametrize(
        ("subject", "taken"),
        [("repo:example/kennel:environment:dev", True), ("repo:stranger/kennel:pull", False)],
    )
    def test_takes_github_by_its_claims(self, account: Account, subject: str, taken: bool) -> None:
        name = f"deploy-{taken}"
        provider = f"arn:aws:iam::{ACCOUNT}:oidc-provider/{GITHUB}"
        if taken:
            account.iam.create_open_id_connect_provider(
                Url=f"https://{GITHUB}", ClientIDList=["sts.amazonaws.com"]
            )
        claims = {f"{GITHUB}:sub": "repo:example/kennel:environment:dev"}
        arn = account.role(
            name,
            by=trust(
                {"Federated": provider},
                "sts:AssumeRoleWithWebIdentity",
                Condition={"StringEquals": claims},
            ),
        )
        payload = json.dumps({"iss": f"https://{GITHUB}", "sub": subject}).encode()
        token = f"e30.{urlsafe_b64encode(payload).decode().rstrip('=')}.x"
        given = {"RoleArn": arn, "RoleSessionName": "ci", "WebIdentityToken": token}
        assume = account.sts.assume_role_with_web_identity
        if taken:
            assert assume(**given)["AssumedRoleUser"]["Arn"].endswith(f"/{name}/ci")
        else:
            assert refusal(assume, **given)[:2] == (
                "AccessDenied",
                "Not authorized to perform sts:AssumeRoleWithWebIdentity",
            )


def test_a_user_has_the_rights_of_its_groups(account: Account) -> None:
    iam = account.iam
    iam.create_user(UserName="ann")
    keys = iam.create_access_key(UserName="ann")["AccessKey"]
    s3 = account.client("s3", keys)
    code, message, _ = refusal(s3.get_object, Bucket=BUCKET, Key="in/photo")
    assert code == "AccessDenied"
    assert message.startswith(f"User: arn:aws:iam::{ACCOUNT}:user/ann is not")
    iam.create_group(GroupName="readers")
    iam.put_group_policy(
        GroupName="readers",
        PolicyName="own",
        PolicyDocument=document(statement("s3:GetObject", f"{OBJECTS}/*")),
    )
    iam.add_user_to_group(GroupName="readers", UserName="ann")
    assert s3.get_object(Bucket=BUCKET, Key="in/photo")["Body"].read() == b"dog"
    iam.update_access_key(UserName="ann", AccessKeyId=keys["AccessKeyId"], Status="Inactive")
    code = refusal(account.client("sts", keys).get_caller_identity)[0]
    assert code == "InvalidClientTokenId"


@pytest.mark.parametrize(
    ("service", "call", "code", "status"),
    [
        ("s3", "list_buckets", "InvalidAccessKeyId", 403),
        ("ec2", "describe_instances", "AuthFailure", 401),
        ("iam", "list_roles", "InvalidClientTokenId", 403),
        ("sagemaker", "list_models", "UnrecognizedClientException", 400),
        ("lambda", "list_functions", "UnrecognizedClientException", 403),
        ("cloudwatch", "list_metrics", "InvalidClientTokenId", 403),
    ],
)
def test_an_unknown_key_is_refused(
    account: Account, service: str, call: str, code: str, status: int
) -> None:
    client = account.client(service, {"AccessKeyId": "AKIASTRANGER"})
    told, _, answered = refusal(getattr(client, call))
    assert (told, answered) == (code, status)


def test_a_session_ends() -> None:
    session = sts_backends[ACCOUNT]["aws"].assume_role(
        "us-east-1", "x", f"arn:aws:iam::{ACCOUNT}:role/any", "", -1, ""
    )
    with pytest.raises(CredentialsError, match="expired"):
        caller_of(session.access_key_id)
    with pytest.raises(CredentialsError, match="invalid"):
        caller_of(session.access_key_id, "another token")


@pytest.mark.parametrize(
    ("service", "call", "parameters", "code", "missing"),
    [
        ("ec2", "describe_vpcs", {}, "UnauthorizedOperation", "ec2:DescribeVpcs"),
        ("sns", "list_topics", {}, "AuthorizationError", "sns:ListTopics"),
        ("iam", "list_roles", {}, "AccessDenied", "iam:ListRoles"),
        ("cloudwatch", "list_metrics", {}, "AccessDenied", "cloudwatch:ListMetrics"),
        ("sagemaker", "list_models", {}, "AccessDeniedException", "sagemaker:ListModels"),
        ("lambda", "list_functions", {}, "AccessDeniedException", "lambda:ListFunctions"),
        ("dynamodb", "list_tables", {}, "AccessDeniedException", "localaws/iam/actions.py"),
    ],
)
def test_each_service_denies_in_its_own_way(
    account: Account, service: str, call: str, parameters: Any, code: str, missing: str
) -> None:
    client = account.session(service, "reader")
    told, message, _ = refusal(getattr(client, call), **parameters)
    assert told == code
    assert missing in message


def test_a_role_has_to_be_passed(account: Account) -> None:
    endpoint = f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:model/kennel"
    account.role("modeller", statement("sagemaker:CreateModel", endpoint))
    sagemaker = account.session("sagemaker", "modeller")
    reader = f"arn:aws:iam::{ACCOUNT}:role/reader"
    model = {
        "ModelName": "kennel",
        "ExecutionRoleArn": reader,
        "PrimaryContainer": {
            "Image": "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-inference:2",
            "ModelDataUrl": "s3://b/model.tar.gz",
        },
    }
    message = refusal(sagemaker.create_model, **model)[1]
    assert f"is not authorized to perform: iam:PassRole on resource: {reader} because" in message
    for service, passed in (("lambda.amazonaws.com", False), ("sagemaker.amazonaws.com", True)):
        passes = statement(
            "iam:PassRole", reader, Condition={"StringEquals": {"iam:PassedToService": service}}
        )
        account.iam.put_role_policy(
            RoleName="modeller", PolicyName="passes", PolicyDocument=document(passes)
        )
        if passed:
            sagemaker.create_model(**model)
        else:
            assert "iam:PassRole" in refusal(sagemaker.create_model, **model)[1]


def test_the_calls_name_who_made_them(account: Account) -> None:
    account.session("s3", "lister").list_objects_v2(Bucket=BUCKET)
    lines = [json.loads(line) for line in account.calls.read_text().splitlines()]
    assert lines[-1]["principal"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/lister/test"
    assert lines[0]["principal"] == f"arn:aws:iam::{ACCOUNT}:user/administrator"


class Facts:
    """An account with one launch template, whose tag names it."""

    def tags(self, resource_id: str) -> Mapping[str, str]:
        return {"Name": resource_id}

    def boundary(self, role: str) -> str | None:
        return f"boundary-of-{role}" if role else None

    def profile_role(self, profile: str) -> str | None:
        return f"arn:aws:iam::{ACCOUNT}:role/{profile}"

    def launch_template(self, told: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
        return "lt-1", {
            "ImageId": "ami-1",
            "InstanceType": "g5.xlarge",
            "SecurityGroupIds": ["sg-1"],
            "IamInstanceProfile": {"Name": "trainer"},
            "TagSpecifications": [
                {"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "trainer"}]}
            ],
        }

    def has_role(self, name: str) -> bool:
        return False

    def key(self, bucket: str, name: str | None = None) -> str | None:
        return f"{bucket}-key" if "sealed" in bucket else None

    def volume_key(self, endpoint_config: str) -> None:
        return None


JOB = {
    "TrainingJobName": "kennel-1",
    "RoleArn": "arn:aws:iam::123456789012:role/training",
    "Tags": [{"Key": "project", "Value": "kennel"}],
}
TUNING = {
    "HyperParameterTuningJobName": "kennel-t",
    "TrainingJobDefinitions": [{"RoleArn": "arn:aws:iam::123456789012:role/training"}],
}


@pytest.mark.parametrize(
    ("call", "told", "asked"),
    [
        ("s3:HeadObject", {"Bucket": "b", "Key": "k"}, ["s3:GetObject s3:::b/k"]),
        (
            "s3:GetObject",
            {"Bucket": "b", "Key": "k", "VersionId": "1"},
            ["s3:GetObjectVersion s3:::b/k"],
        ),
        ("s3:UploadPart", {"Bucket": "b", "Key": "k"}, ["s3:PutObject s3:::b/k"]),
        ("s3:ListParts", {"Bucket": "b", "Key": "k"}, ["s3:ListMultipartUploadParts s3:::b/k"]),
        (
            "s3:AbortMultipartUpload",
            {"Bucket": "b", "Key": "k"},
            ["s3:AbortMultipartUpload s3:::b/k"],
        ),
        (
            "s3:CopyObject",
            {"Bucket": "b", "Key": "k", "CopySource": "a/x/y"},
            ["s3:PutObject s3:::b/k", "s3:GetObject s3:::a/x/y"],
        ),
        (
            "s3:CopyObject",
            {"Bucket": "b", "Key": "k", "CopySource": {"Bucket": "sealed", "Key": "x"}},
            [
                "s3:PutObject s3:::b/k",
                "s3:GetObject s3:::sealed/x",
                "kms:Decrypt kms:us-east-1:123456789012:key/sealed-key",
            ],
        ),
        (
            "events:PutTargets",
            {"Rule": "r", "Targets": [{"Arn": "a", "RoleArn": "arn:aws:iam::1:role/t"}]},
            [
                "events:PutTargets events:us-east-1:123456789012:rule/r",
                "iam:PassRole iam::1:role/t",
            ],
        ),
        (
            "events:DeleteRule",
            {"Name": "r", "EventBusName": "own"},
            ["events:DeleteRule events:us-east-1:123456789012:rule/own/r"],
        ),
        (
            "events:PutEvents",
            {"Entries": [{}, {"EventBusName": "arn:aws:events:us-east-1:1:event-bus/own"}]},
            [
                "events:PutEvents events:us-east-1:123456789012:event-bus/default",
                "events:PutEvents events:us-east-1:123456789012:event-bus/own",
            ],
        ),
        ("events:ListRules", {}, ["events:ListRules *"]),
        (
            "scheduler:CreateSchedule",
            {"Name": "s", "Target": {"RoleArn": "arn:aws:iam::1:role/t"}},
            [
                "scheduler:CreateSchedule scheduler:us-east-1:123456789012:schedule/default/s",
                "iam:PassRole iam::1:role/t",
            ],
        ),
        (
            "scheduler:DeleteScheduleGroup",
            {"Name": "g"},
            ["scheduler:DeleteScheduleGroup scheduler:us-east-1:123456789012:schedule-group/g"],
        ),
        (
            "sagemaker:CreateTrainingJob",
            JOB,
            [
                "sagemaker:CreateTrainingJob sagemaker:us-east-1:123456789012:"
                "training-job/kennel-1",
                "sagemaker:AddTags sagemaker:us-east-1:123456789012:training-job/kennel-1",
                "iam:PassRole iam::123456789012:role/training",
            ],
        ),
        (
            "sagemaker:CreateHyperParameterTuningJob",
            TUNING,
            [
                "sagemaker:CreateHyperParameterTuningJob sagemaker:us-east-1:123456789012:"
                "hyper-parameter-tuning-job/kennel-t",
                "iam:PassRole iam::123456789012:role/training",
            ],
        ),
        (
            "sagemaker-runtime:InvokeEndpoint",
            {"EndpointName": "kennel", "Body": b""},
            ["sagemaker:InvokeEndpoint sagemaker:us-east-1:123456789012:endpoint/kennel"],
        ),
        (
            "sagemaker:CreateModelPackage",
            {"ModelPackageGroupName": "k"},
            ["sagemaker:CreateModelPackage sagemaker:us-east-1:123456789012:model-package/k/*"],
        ),
        # The group is a filter: no document calls it the resource of the list.
        (
            "sagemaker:ListModelPackages",
            {"ModelPackageGroupName": "k"},
            ["sagemaker:ListModelPackages *"],
        ),
        (
            "lambda:Invoke",
            {"FunctionName": "classify", "Qualifier": "live"},
            ["lambda:InvokeFunction lambda:us-east-1:123456789012:function:classify:live"],
        ),
        (
            "lambda:Invoke",
            {"FunctionName": "arn:aws:lambda:us-east-1:123456789012:function:classify:live"},
            ["lambda:InvokeFunction lambda:us-east-1:123456789012:function:classify:live"],
        ),
        (
            "logs:FilterLogEvents",
            {"logGroupName": "/aws/x"},
            ["logs:FilterLogEvents logs:us-east-1:123456789012:log-group:/aws/x:log-stream:"],
        ),
        (
            "logs:PutLogEvents",
            {"logGroupName": "/aws/x", "logStreamName": "one"},
            ["logs:PutLogEvents logs:us-east-1:123456789012:log-group:/aws/x:log-stream:one"],
        ),
        (
            "ecr:BatchGetImage",
            {"registryId": "763104351884", "repositoryName": "pytorch"},
            ["ecr:BatchGetImage ecr:us-east-1:763104351884:repository/pytorch"],
        ),
        (
            "ec2:RunInstances",
            {"LaunchTemplate": {"LaunchTemplateId": "lt-1"}, "SubnetId": "subnet-1"},
            [
                "ec2:RunInstances ec2:us-east-1:123456789012:launch-template/lt-1",
                "ec2:RunInstances ec2:us-east-1:123456789012:instance/*",
                "ec2:RunInstances ec2:us-east-1:123456789012:network-interface/*",
                "ec2:RunInstances ec2:us-east-1:123456789012:volume/*",
                "ec2:RunInstances ec2:us-east-1::image/ami-1",
                "ec2:RunInstances ec2:us-east-1:123456789012:subnet/subnet-1",
                "ec2:RunInstances ec2:us-east-1:123456789012:security-group/sg-1",
                "ec2:CreateTags ec2:us-east-1:123456789012:instance/*",
                "iam:PassRole iam::123456789012:role/trainer",
            ],
        ),
        ("sts:GetCallerIdentity", {}, []),
    ],
)
def test_what_iam_asks(call: str, told: Mapping[str, Any], asked: list[str]) -> None:
    found = requests(*call.split(":"), told, Facts())
    assert [f"{r.action} {r.resource.removeprefix('arn:aws:')}" for r in found] == asked


@pytest.mark.parametrize(
    ("call", "told", "context"),
    [
        ("s3:ListObjectsV2", {"Bucket": "b", "Prefix": "data/"}, {"s3:prefix": "data/"}),
        ("s3:HeadBucket", {"Bucket": "b"}, {"s3:prefix": None}),
        ("cloudwatch:PutMetricData", {"Namespace": "n"}, {"cloudwatch:namespace": "n"}),
        ("ec2:TerminateInstances", {"InstanceIds": ["i-1"]}, {"aws:ResourceTag/Name": "i-1"}),
        ("iam:PutRolePolicy", {"RoleName": "r"}, {"iam:PermissionsBoundary": "boundary-of-r"}),
        (
            "sagemaker:CreateTrainingJob",
            JOB,
            {"aws:RequestTag/project": "kennel", "aws:TagKeys": ["project"]},
        ),
    ],
)
def test_what_iam_is_told(call: str, told: Mapping[str, Any], context: Mapping[str, Any]) -> None:
    request = requests(*call.split(":"), told, Facts())[0]
    assert {key: request.context.get(key) for key in context} == context


def test_who_may_do_everything_may_call_what_iam_has_no_name_for_here(account: Account) -> None:
    """A call whose action is unknown is allowed only where nothing at all is left out."""
    deny = {"Effect": "Deny", "Action": "iam:DeleteUser", "Resource": "*"}
    local = {"IpAddress": {"aws:SourceIp": "127.0.0.1"}}
    roles = {
        "everything": [statement("*", "*")],
        "its-service": [statement("dynamodb:*", "*")],
        "almost": [statement("*", "*"), deny],
        "here": [statement("*", "*", Condition=local)],
        "one-table": [statement("*", "arn:aws:dynamodb:us-east-1:123456789012:table/dogs")],
    }
    for name, statements in roles.items():
        account.role(name, *statements)
        session = account.session("dynamodb", name)
        if name == "everything":
            assert session.list_tables()["TableNames"] == []
        else:
            code, message, status = refusal(session.list_tables)
            assert (code, status) == ("AccessDeniedException", 400), name
            assert "localaws does not know what IAM asks for dynamodb:ListTables" in message
    narrow = {"Policy": document(statement("s3:*", "*"))}
    assert refusal(account.session("dynamodb", "everything", **narrow).list_tables)[2] == 400


def test_aws_own_policies_are_known(account: Account) -> None:
    account.role("managed")
    arn = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"
    account.iam.attach_role_policy(RoleName="managed", PolicyArn=arn)
    assert account.iam.get_policy(PolicyArn=arn)["Policy"]["AttachmentCount"] == 1
    s3 = account.session("s3", "managed")
    assert s3.get_object(Bucket=BUCKET, Key="in/photo")["Body"].read() == b"dog"
    assert refusal(s3.put_object, Bucket=BUCKET, Key="in/photo", Body=b"cat")[0] == "AccessDenied"


def test_aws_own_policies_take_little_room_in_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AWSManagedPolicy, "__reduce__", saved)
    data = json.loads(aws_managed_policies_data)["AdministratorAccess"]
    policy = AWSManagedPolicy.from_data("AdministratorAccess", ACCOUNT, "us-east-1", data)
    policy.attachment_count = 2
    pickled = pickle.dumps(policy)
    restored = pickle.loads(pickled)
    assert len(pickled) < 200
    assert (restored.arn, restored.id, restored.attachment_count) == (policy.arn, policy.id, 2)
    assert restored.versions[0].document == policy.versions[0].document


@pytest.mark.parametrize("call", ["dynamodb:ListTables", "sagemaker:Search", "ec2:CreateVpc"])
def test_an_unknown_call_is_none_that_needs_no_right(call: str) -> None:
    with pytest.raises(UnknownCallError):
        requests(*call.split(":"), {}, Facts())
