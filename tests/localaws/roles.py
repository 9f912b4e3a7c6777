"""Roles for the services that act on a user's behalf."""

import json
from collections.abc import Sequence
from typing import Any

EVERYTHING = ({"Effect": "Allow", "Action": "*", "Resource": "*"},)


def document(*statements: dict[str, Any]) -> str:
    """A policy."""
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


def trust(service: str) -> str:
    """The policy with which a role lets a service act under it: `lambda`, `sagemaker`, ..."""
    principal = {"Service": f"{service}.amazonaws.com"}
    return document({"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"})


def create_role(
    iam: Any, name: str, service: str, rights: Sequence[dict[str, Any]] = EVERYTHING
) -> str:
    """Create a role for a service, which may do what `rights` allow; give its ARN."""
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust(service))
    if rights:
        iam.put_role_policy(RoleName=name, PolicyName="own", PolicyDocument=document(*rights))
    arn: str = role["Role"]["Arn"]
    return arn
