"""IAM: what a principal may do, asked beforehand, and roles that keep what is not changed."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any

from moto.core.responses import ActionResult, EmptyResult
from moto.iam.aws_managed_policies import aws_managed_policies_data
from moto.iam.exceptions import (
    DeleteConflictException,
    EntityAlreadyExists,
    LimitExceededException,
    MalformedPolicyDocument,
    NotFoundException,
    ValidationError,
)
from moto.iam.models import AWSManagedPolicy, IAMBackend, User
from moto.iam.responses import IamResponse

from localaws.additions import Gap
from localaws.additions._moto import before, plain_client, refuses, wrap
from localaws.iam.authorization import default_version, policies_of
from localaws.iam.policy import PolicyError, Principal, Request, evaluate, parse

_ANY_POLICY = "arn:aws:iam::aws:policy/AdministratorAccess"
_ADMINISTRATOR_ID = "AKIAIOSFODNN7EXAMPLE"  # as GetCallerIdentity says
_SINCE = datetime(2024, 1, 1, tzinfo=UTC)
_TRUST = (
    '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sts:AssumeRole",'
    '"Principal":{"Service":"lambda.amazonaws.com"}}]}'
)


def _simulates() -> bool:
    with plain_client("iam") as iam:
        arn = iam.create_role(RoleName="probe", AssumeRolePolicyDocument=_TRUST)["Role"]["Arn"]
        try:
            iam.simulate_principal_policy(PolicySourceArn=arn, ActionNames=["s3:GetObject"])
        except NotImplementedError:
            return False
    return True


def _keeps_description() -> bool:
    with plain_client("iam") as iam:
        iam.create_role(RoleName="probe", AssumeRolePolicyDocument=_TRUST, Description="kept")
        iam.update_role(RoleName="probe", MaxSessionDuration=7200)
        return bool(iam.get_role(RoleName="probe")["Role"].get("Description") == "kept")


def _knows_aws_policies() -> bool:
    with plain_client("iam") as iam:
        return not refuses(lambda: iam.get_policy(PolicyArn=_ANY_POLICY))


def _refuses_malformed_trust() -> bool:
    with plain_client("iam") as iam:
        return refuses(lambda: iam.create_role(RoleName="probe", AssumeRolePolicyDocument="probe"))


def _has_quotas() -> bool:
    with plain_client("iam") as iam:
        iam.create_role(RoleName="probe", AssumeRolePolicyDocument=_TRUST)
        allowed = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
        statements = [{"Sid": f"s{number}", **allowed} for number in range(200)]
        document = json.dumps({"Version": "2012-10-17", "Statement": statements})
        return refuses(
            lambda: iam.put_role_policy(
                RoleName="probe", PolicyName="probe", PolicyDocument=document
            )
        )


def _tells_who_asks() -> bool:
    with plain_client("iam") as iam:
        return bool(iam.get_user()["User"]["UserName"] != "default_user")


GAPS = [
    Gap(
        service="iam",
        operation="GetUser.UserName",
        effect="a caller who names nobody is told of a user whom no other call knows",
        closed=_tells_who_asks,
    ),
    Gap(
        service="iam",
        operation="PutRolePolicy and others that have a quota",
        effect="policies are as long and as many as one likes",
        closed=_has_quotas,
    ),
    Gap(
        service="iam",
        operation="CreateRole.AssumeRolePolicyDocument",
        effect="any text is a trust policy, and whoever is to act under the role stumbles over it",
        closed=_refuses_malformed_trust,
    ),
    Gap(
        service="iam",
        operation="GetPolicy",
        effect="AWS's managed policies are not known unless moto is told to load them",
        closed=_knows_aws_policies,
    ),
    Gap(
        service="iam",
        operation="SimulatePrincipalPolicy",
        effect="SageMaker's SDK refuses the role",
        closed=_simulates,
    ),
    Gap(
        service="iam",
        operation="UpdateRole",
        effect="a role whose longest session is changed loses its description",
        closed=_keeps_description,
    ),
]


def install() -> None:
    """Add the simulator and let roles be changed in part."""
    policy: Any = AWSManagedPolicy
    policy.__reduce__ = saved
    wrap(IAMBackend, "create_role", _create_role)
    backend: Any = IAMBackend
    backend._init_aws_policies = _load_aws_policies
    _install_checks()
    mended: Any = IamResponse
    mended.update_role = _update_role
    mended.simulate_principal_policy = _simulate_principal
    mended.simulate_custom_policy = _simulate_custom
    wrap(IamResponse, "get_user", _get_user)


def _get_user(original: Any, response: IamResponse) -> Any:
    """Tell a caller who names nobody about itself, as GetCallerIdentity does."""
    key = response.get_access_key()
    is_user = response._get_param("UserName") or response.backend.get_user_from_access_key_id(key)
    if is_user:
        return original(response)
    if key.startswith("ASIA"):
        raise ValidationError("Must specify userName when calling with non-User credentials")
    made: Any = User
    user = made(response.current_account, region_name=response.region, name="administrator")
    user.id, user.create_date = _ADMINISTRATOR_ID, _SINCE
    return ActionResult({"User": user})


def _create_role(
    original: Any,
    backend: IAMBackend,
    role_name: str,
    assume_role_policy_document: str | Mapping[str, Any],
    *given: Any,
    **named: Any,
) -> Any:
    """Make a role whose trust policy is one, as IAM puts it where it is not."""
    trust = assume_role_policy_document
    # CloudFormation's comes as an object.
    trust = trust if isinstance(trust, str) else json.dumps(trust)
    try:
        json.loads(trust)
    except ValueError:
        raise MalformedPolicyDocument("This policy contains invalid Json") from None
    try:
        statements = parse(trust, names_principal=True).statements
    except PolicyError as error:
        raise MalformedPolicyDocument(f"Syntax errors in policy. ({error})") from None
    if not statements:
        raise MalformedPolicyDocument("Syntax errors in policy. (it has no Statement)")
    if any({"Resource", "NotResource"} & set(statement.body) for statement in statements):
        raise MalformedPolicyDocument("Has prohibited field Resource")
    _check_trust(backend, trust)
    if any(role.name.lower() == role_name.lower() for role in backend.roles.values()):
        raise EntityAlreadyExists(f"Role with name {role_name} already exists.")
    return original(backend, role_name, assume_role_policy_document, *given, **named)


# IAM's user guide, "IAM and AWS STS quotas": characters without white space, and numbers.
_MOST_TRUST = 2048
_MOST_MANAGED = 6144
_MOST_ATTACHED = 10
_MOST_INLINE = {"Group": 5120, "Role": 10240, "User": 2048}
_SID = re.compile(r"[0-9A-Za-z]*")
_OWN_PRINCIPAL = re.compile(r"arn:aws:iam::(\d{12}):(role|user)/(?:.+/)?([^/]+)")


def _install_checks() -> None:
    """Have IAM's quotas, its policies and what depends on what heeded."""
    for holder in _MOST_INLINE:
        before(IamResponse, f"put_{holder.lower()}_policy", _check_inline)
    before(IamResponse, "create_policy", _check_managed)
    before(IamResponse, "create_policy_version", _check_managed)
    before(IamResponse, "attach_role_policy", _check_attached)
    before(IamResponse, "delete_policy", _check_unattached)
    before(IamResponse, "create_role", _check_boundary)
    before(IamResponse, "update_assume_role_policy", _check_changed_trust)
    before(IamResponse, "remove_role_from_instance_profile", _check_member)
    before(
        IamResponse,
        "list_instance_profiles_for_role",
        lambda response, told: response.backend.get_role(told["RoleName"]),
    )
    before(IamResponse, "create_open_id_connect_provider", _check_provider)


def _size(document: str) -> int:
    return len(re.sub(r"\s", "", document))


def _check_policy(document: str) -> None:
    """What IAM asks of an identity's policy, and moto does not."""
    try:
        statements = json.loads(document)["Statement"]
    # moto has the words for what is no policy.
    except (KeyError, TypeError, ValueError):
        return
    for statement in statements if isinstance(statements, list) else [statements]:
        if not isinstance(statement, dict) or not isinstance(statement.get("Sid", ""), str):
            return
        if {"Principal", "NotPrincipal"} & set(statement):
            raise MalformedPolicyDocument("Policy document should not specify a principal.")
        if not _SID.fullmatch(statement.get("Sid", "")):
            raise MalformedPolicyDocument(
                "Statement IDs (SID) must be alpha-numeric. Check that your input satisfies the "
                "regular expression [0-9A-Za-z]*"
            )


def _check_inline(response: IamResponse, told: Mapping[str, Any]) -> None:
    document = told["PolicyDocument"]
    _check_policy(document)
    kind = next(kind for kind in _MOST_INLINE if f"{kind}Name" in told)
    name, most = told[f"{kind}Name"], _MOST_INLINE[kind]
    holder: Any = getattr(response.backend, f"get_{kind.lower()}")(name)
    others = (
        policy if isinstance(policy, str) else json.dumps(policy)
        for policy_name, policy in holder.policies.items()
        if policy_name != told["PolicyName"]
    )
    if sum(map(_size, [document, *others])) > most:
        raise LimitExceededException(
            f"Maximum policy size of {most} bytes exceeded for {kind.lower()} {name}"
        )


def _check_managed(_: IamResponse, told: Mapping[str, Any]) -> None:
    _check_policy(told["PolicyDocument"])
    if _size(told["PolicyDocument"]) > _MOST_MANAGED:
        raise LimitExceededException(f"Cannot exceed quota for PolicySize: {_MOST_MANAGED}")


def _check_attached(response: IamResponse, told: Mapping[str, Any]) -> None:
    attached = response.backend.get_role(told["RoleName"]).managed_policies
    if told["PolicyArn"] not in attached and len(attached) >= _MOST_ATTACHED:
        raise LimitExceededException(f"Cannot exceed quota for PoliciesPerRole: {_MOST_ATTACHED}")


def _check_unattached(response: IamResponse, told: Mapping[str, Any]) -> None:
    policy = response.backend.managed_policies.get(told["PolicyArn"])
    if policy and policy.attachment_count:
        raise DeleteConflictException("Cannot delete a policy attached to entities.")
    if policy and len(policy.versions) > 1:
        raise DeleteConflictException(
            "This policy has more than one version. Before you delete a policy, you must delete "
            "the policy's versions. The default version is deleted with the policy."
        )


def _check_boundary(response: IamResponse, told: Mapping[str, Any]) -> None:
    boundary = told.get("PermissionsBoundary")
    if boundary and boundary not in response.backend.managed_policies:
        raise NotFoundException(f"Scope ARN: {boundary} does not exist or is not attachable.")


def _check_changed_trust(response: IamResponse, told: Mapping[str, Any]) -> None:
    _check_trust(response.backend, told["PolicyDocument"])


def _check_trust(backend: IAMBackend, document: str) -> None:
    """A trust policy is short, and names users and roles that are there."""
    if _size(document) > _MOST_TRUST:
        raise LimitExceededException(f"Cannot exceed quota for ACLSizePerRole: {_MOST_TRUST}")
    if unknown := unknown_principal(backend, document):
        raise MalformedPolicyDocument(f'Invalid principal in policy: "AWS":"{unknown}"')


def unknown_principal(backend: IAMBackend, document: str) -> str | None:
    """The first user or role of the account that a resource's policy names and that is not there.

    Args:
        backend: The account's IAM.
        document: The policy, as JSON.
    """
    try:
        statements = json.loads(document)["Statement"]
    except (KeyError, TypeError, ValueError):
        return None
    for statement in statements if isinstance(statements, list) else [statements]:
        principal = statement.get("Principal") if isinstance(statement, dict) else None
        named = principal.get("AWS", []) if isinstance(principal, dict) else []
        for arn in named if isinstance(named, list) else [named]:
            found = _OWN_PRINCIPAL.fullmatch(str(arn))
            if not found or found[1] != backend.account_id:
                continue
            known: Any = (backend.roles if found[2] == "role" else backend.users).values()
            if all(each.arn != arn for each in known):
                return str(arn)
    return None


def _check_member(response: IamResponse, told: Mapping[str, Any]) -> None:
    name = told["InstanceProfileName"]
    role = response.backend.get_role(told["RoleName"])
    if role not in response.backend.get_instance_profile(name).roles:
        raise NotFoundException(f"Role {role.name} is not associated with instance profile {name}.")


def _check_provider(_: IamResponse, told: Mapping[str, Any]) -> None:
    if not told["Url"].startswith("https://"):
        raise ValidationError("Invalid Open ID Connect Provider URL")


def saved(policy: AWSManagedPolicy) -> tuple[Any, ...]:
    """How one of AWS's policies is saved: moto has what is in it, four megabytes for all."""
    identity = policy.name, policy.account_id, policy.partition
    return _restored, (*identity, policy.id, policy.attachment_count)


def _restored(
    name: str, account: str, region: str, policy_id: str, attachments: int
) -> AWSManagedPolicy:
    policy = _copied(_aws_policies(account, region)[name])
    policy.id, policy.attachment_count = policy_id, attachments
    return policy


def _load_aws_policies(self: IAMBackend) -> list[AWSManagedPolicy]:
    return list(map(_copied, _aws_policies(self.account_id, self.region_name).values()))


@cache
def _aws_policies(account: str, region: str) -> dict[str, AWSManagedPolicy]:
    # Read once in a process: it takes a while, and moto makes its backends anew for each probe.
    return {
        name: AWSManagedPolicy.from_data(name, account, region, policy)
        for name, policy in json.loads(aws_managed_policies_data).items()
    }


def _copied(policy: AWSManagedPolicy) -> AWSManagedPolicy:
    copied: AWSManagedPolicy = object.__new__(type(policy))
    # What is in it never changes, but for how many have it.
    vars(copied).update(vars(policy))
    return copied


def _update_role(self: IamResponse) -> ActionResult:
    role: Any = self.backend.get_role(self._get_param("RoleName"))
    role.description = self._get_param("Description", role.description)
    role.max_session_duration = self._get_param("MaxSessionDuration", role.max_session_duration)
    return EmptyResult()


def _simulate_principal(self: IamResponse) -> ActionResult:
    arn = self._get_param("PolicySourceArn")
    holder = _holder(self.backend, arn)
    boundary = getattr(holder, "permissions_boundary_arn", None)
    documents = [*policies_of(holder), *self._get_param("PolicyInputList", [])]
    limits = [default_version(self.backend.managed_policies[boundary])] if boundary else []
    return _simulated(self, documents, limits, arn)


def _simulate_custom(self: IamResponse) -> ActionResult:
    return _simulated(self, self._get_param("PolicyInputList"), [], None)


def _holder(backend: IAMBackend, arn: str) -> Any:
    holders: list[Any] = [
        *backend.roles.values(),
        *backend.users.values(),
        *backend.groups.values(),
    ]
    for holder in holders:
        if holder.arn == arn:
            return holder
    raise NotFoundException(f"The entity with {arn} cannot be found.")


def _simulated(
    response: IamResponse, documents: list[str], limits: list[str], source: str | None
) -> ActionResult:
    """Evaluate each action on each resource that `response` was asked about.

    Args:
        response: The request.
        documents: Identity policies, as JSON.
        limits: The permissions boundary, as JSON, if there is one.
        source: ARN of the principal.
    """
    limits = response._get_param("PermissionsBoundaryPolicyInputList", limits)
    resource_policy = response._get_param("ResourcePolicy")
    caller = response._get_param("CallerArn", source)
    context = {
        entry["ContextKeyName"]: entry["ContextKeyValues"]
        for entry in response._get_param("ContextEntries", [])
    }

    def result(action: str, resource: str) -> Mapping[str, Any]:
        decision = evaluate(
            [json.loads(document) for document in documents],
            Request(action, resource, context, Principal(caller) if caller else None),
            resource_policies=[json.loads(resource_policy)] if resource_policy else [],
            boundary=json.loads(limits[0]) if limits else None,
        )
        return {
            "EvalActionName": action,
            "EvalResourceName": resource,
            "EvalDecision": decision.outcome.value,
            "MatchedStatements": [{"SourcePolicyId": sid} for sid in decision.statements],
            "MissingContextValues": [],
        }

    results = [
        result(action, resource)
        for action in response._get_param("ActionNames")
        for resource in response._get_param("ResourceArns", ["*"])
    ]
    return ActionResult({"EvaluationResults": results, "IsTruncated": False})
