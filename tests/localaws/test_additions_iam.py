"""IAM's simulator on localaws."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.localaws.conftest import LocalAws
from tests.localaws.roles import trust

DATA = "arn:aws:s3:::kennel/data/*"
PHOTO = "arn:aws:s3:::kennel/data/dog.jpg"


def document(effect: str, action: str, resource: str, **more: Any) -> str:
    statement = {"Sid": "S", "Effect": effect, "Action": action, "Resource": resource, **more}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


@pytest.fixture
def iam(aws: LocalAws) -> Any:
    return aws.client("iam")


@pytest.fixture
def role(iam: Any) -> Iterator[str]:
    """A role that may read data by a policy of its own, and tag models by a managed one."""
    trusted = trust("sagemaker")
    arn = iam.create_role(RoleName="simulated", AssumeRolePolicyDocument=trusted)["Role"]["Arn"]
    iam.put_role_policy(
        RoleName="simulated",
        PolicyName="own",
        PolicyDocument=document("Allow", "s3:GetObject", DATA),
    )
    managed = iam.create_policy(
        PolicyName="managed", PolicyDocument=document("Allow", "sagemaker:AddTags", "*")
    )["Policy"]["Arn"]
    iam.attach_role_policy(RoleName="simulated", PolicyArn=managed)
    yield arn
    iam.detach_role_policy(RoleName="simulated", PolicyArn=managed)
    iam.delete_policy(PolicyArn=managed)
    iam.delete_role_policy(RoleName="simulated", PolicyName="own")
    iam.delete_role(RoleName="simulated")


def decisions(answer: dict[str, Any]) -> dict[tuple[str, str], str]:
    return {
        (result["EvalActionName"], result["EvalResourceName"]): result["EvalDecision"]
        for result in answer["EvaluationResults"]
    }


def test_a_roles_policies_decide(iam: Any, role: str) -> None:
    answer = iam.simulate_principal_policy(
        PolicySourceArn=role,
        ActionNames=["s3:GetObject", "s3:PutObject"],
        ResourceArns=[PHOTO, "arn:aws:s3:::other/dog.jpg"],
    )
    assert decisions(answer) == {
        ("s3:GetObject", PHOTO): "allowed",
        ("s3:GetObject", "arn:aws:s3:::other/dog.jpg"): "implicitDeny",
        ("s3:PutObject", PHOTO): "implicitDeny",
        ("s3:PutObject", "arn:aws:s3:::other/dog.jpg"): "implicitDeny",
    }


def test_attached_policies_count_and_no_resource_means_all(iam: Any, role: str) -> None:
    answer = iam.simulate_principal_policy(PolicySourceArn=role, ActionNames=["sagemaker:AddTags"])
    assert decisions(answer) == {("sagemaker:AddTags", "*"): "allowed"}


def test_a_policy_that_is_tried_on_top_can_deny(iam: Any, role: str) -> None:
    answer = iam.simulate_principal_policy(
        PolicySourceArn=role,
        PolicyInputList=[document("Deny", "s3:*", "*")],
        ActionNames=["s3:GetObject"],
        ResourceArns=[PHOTO],
    )
    assert decisions(answer) == {("s3:GetObject", PHOTO): "explicitDeny"}


def test_the_boundary_limits(iam: Any, role: str) -> None:
    boundary = iam.create_policy(
        PolicyName="boundary", PolicyDocument=document("Allow", "sagemaker:*", "*")
    )["Policy"]["Arn"]
    iam.put_role_permissions_boundary(RoleName="simulated", PermissionsBoundary=boundary)
    answer = iam.simulate_principal_policy(
        PolicySourceArn=role, ActionNames=["s3:GetObject"], ResourceArns=[PHOTO]
    )
    iam.delete_role_permissions_boundary(RoleName="simulated")
    iam.delete_policy(PolicyArn=boundary)
    assert decisions(answer) == {("s3:GetObject", PHOTO): "implicitDeny"}


def test_conditions_see_the_context(iam: Any) -> None:
    policy = document(
        "Allow",
        "iam:PassRole",
        "*",
        Condition={"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}},
    )

    def passed_to(service: str) -> str:
        answer = iam.simulate_custom_policy(
            PolicyInputList=[policy],
            ActionNames=["iam:PassRole"],
            ContextEntries=[
                {
                    "ContextKeyName": "iam:PassedToService",
                    "ContextKeyValues": [service],
                    "ContextKeyType": "string",
                }
            ],
        )
        return decisions(answer)["iam:PassRole", "*"]

    assert passed_to("sagemaker.amazonaws.com") == "allowed"
    assert passed_to("lambda.amazonaws.com") == "implicitDeny"


def test_nobody_has_no_policies(iam: Any) -> None:
    with pytest.raises(ClientError) as error:
        iam.simulate_principal_policy(
            PolicySourceArn="arn:aws:iam::123456789012:role/nobody", ActionNames=["s3:GetObject"]
        )
    assert error.value.response["Error"]["Code"] == "NoSuchEntity"


def test_a_role_keeps_what_is_not_changed(iam: Any, role: str) -> None:
    iam.update_role(RoleName="simulated", Description="trains", MaxSessionDuration=7200)
    iam.update_role(RoleName="simulated", MaxSessionDuration=3600)
    found = iam.get_role(RoleName="simulated")["Role"]
    assert (found["Description"], found["MaxSessionDuration"]) == ("trains", 3600)
    iam.update_role(RoleName="simulated", Description="serves")
    found = iam.get_role(RoleName="simulated")["Role"]
    assert (found["Description"], found["MaxSessionDuration"]) == ("serves", 3600)


@pytest.mark.parametrize("statement", ["text", None, {"Sid": {}}, {"Sid": 1}, [[]]])
def test_what_is_no_statement_is_a_syntax_error(iam: Any, statement: Any) -> None:
    whole = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}
    if isinstance(statement, dict):
        statement = whole | statement
    for listed in (statement, [statement]):
        document = json.dumps({"Version": "2012-10-17", "Statement": listed})
        with pytest.raises(ClientError) as refused:
            iam.create_policy(PolicyName="none", PolicyDocument=document)
        assert refused.value.response["Error"]["Code"] == "MalformedPolicyDocument"
