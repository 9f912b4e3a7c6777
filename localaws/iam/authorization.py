"""IAM on request: who calls, and whether the caller may.

Each call is decided by the caller's own policies, its permissions boundary, the session's policy
and the policy of the resource, as AWS does.
"""

import json
import re
from base64 import urlsafe_b64decode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from moto.awslambda.utils import get_backend
from moto.core.exceptions import JsonRESTError, ServiceException
from moto.core.utils import utcnow
from moto.ec2.models import ec2_backends
from moto.iam.exceptions import NotFoundException
from moto.iam.models import IAMBackend, Policy, iam_backends
from moto.kms.models import kms_backends
from moto.s3.models import s3_backends
from moto.sagemaker.models import sagemaker_backends
from moto.sns.models import sns_backends
from moto.sqs.models import sqs_backends
from moto.sts.models import sts_backends
from werkzeug.wrappers import Response

from localaws import regions
from localaws.calls import Call, refusal
from localaws.execution import ACCOUNT, ADMINISTRATOR, AWS, AWS_SECRET
from localaws.iam.actions import Parameters, UnknownCallError, requests
from localaws.iam.policy import Decision, Outcome, PolicyError, Principal, Request, evaluate, parse
from localaws.iam.signature import AuthenticationError

_EVERYTHING = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}],
    }
)
_ASSUMES = ("sts:AssumeRole", "sts:AssumeRoleWithWebIdentity", "sts:TagSession")


@dataclass(frozen=True)
class Caller:
    """Who makes a call.

    Attributes:
        principal: As resources' policies name it; None for an anonymous caller.
        policies: Identity policies, as JSON.
        boundary: The permissions boundary, as JSON.
        session_policy: The policy given as the role was assumed, as JSON.
        context: Condition keys that say who it is.
        secret: What its requests are signed with.
    """

    principal: Principal | None = None
    policies: tuple[str, ...] = ()
    boundary: str | None = None
    session_policy: str | None = None
    context: Mapping[str, str] = field(default_factory=dict)
    secret: str = field(default="", repr=False)

    @property
    def name(self) -> str:
        """As AWS's messages and logs name it."""
        return self.principal.name if self.principal else "anonymous"


_ADMINISTRATOR = Caller(
    Principal(f"arn:aws:iam::{ACCOUNT}:user/administrator"),
    (_EVERYTHING,),
    context={"aws:PrincipalAccount": ACCOUNT},
    secret=ADMINISTRATOR,
)


_AWS = Caller(Principal("amazonaws.com", "Service"), (_EVERYTHING,), secret=AWS_SECRET)
_UNLIMITED = {ADMINISTRATOR: _ADMINISTRATOR, AWS: _AWS}


class CredentialsError(AuthenticationError):
    """An access key that does not exist, or no longer."""

    def __init__(self, *, has_expired: bool = False) -> None:
        """Say whether it did exist."""
        kind, state = ("expired", "expired") if has_expired else ("unknown", "invalid")
        super().__init__(kind, f"The security token included in the request is {state}")


def caller_of(access_key: str, token: str | None = None) -> Caller:
    """Tell who signs with an access key.

    Args:
        access_key: Id of the key; empty for a request that is not signed.
        token: The session's token, which keys of sessions come with; None where it is not at hand.

    Raises:
        CredentialsError: Nobody does.
    """
    if not access_key:
        return Caller()
    if access_key in _UNLIMITED:
        return _UNLIMITED[access_key]
    iam = iam_backends[ACCOUNT]["aws"]
    session = sts_backends[ACCOUNT]["aws"].get_assumed_role_from_access_key(access_key)
    if session:
        if token is not None and token != session.session_token:
            raise CredentialsError
        if session.expiration < utcnow():
            raise CredentialsError(has_expired=True)
        try:
            role: Any = iam.get_role_by_arn(session.role_arn)
        except NotFoundException as error:
            raise CredentialsError from error
        context = {"aws:PrincipalArn": role.arn, "aws:PrincipalAccount": ACCOUNT}
        # EC2 names the sessions that it makes for an instance by the instance.
        if re.fullmatch(r"i-[0-9a-f]+", session.session_name):
            instance = f"arn:aws:ec2:{regions.current()}:{ACCOUNT}:instance/{session.session_name}"
            context["ec2:SourceInstanceARN"] = instance
        return Caller(
            Principal(session.arn),
            tuple(policies_of(role)),
            _boundary(iam, role),
            session.policy or None,
            context,
            session.secret_access_key,
        )
    user: Any
    for user in list(iam.users.values()):
        for key in user.access_keys:
            if key.access_key_id == access_key and key.status == "Active":
                groups = iam.get_groups_for_user(user.name)
                policies = [p for holder in (user, *groups) for p in policies_of(holder)]
                context = {
                    "aws:PrincipalArn": user.arn,
                    "aws:PrincipalAccount": ACCOUNT,
                    "aws:username": user.name,
                }
                boundary = _boundary(iam, user)
                who, secret = Principal(user.arn), key.secret_access_key
                return Caller(who, tuple(policies), boundary, None, context, secret)
    raise CredentialsError


def enforce(enforced: bool) -> None:
    """Say whether IAM is enforced, for what AWS's services look at without a call; see `allows`."""
    global _enforced
    _enforced = enforced


_enforced = False


def allows(access_key: str, request: Request) -> bool:
    """Whether who signs with a key may do something; everybody may where IAM is not enforced."""
    return not _enforced or not _denied(caller_of(access_key), request)


def role_allows(role_arn: str, request: Request) -> bool:
    """Whether a role, which is there, may do something; see `allows`."""
    return not _enforced or not _denied(caller_as(role_arn), request)


def caller_as(role_arn: str) -> Caller:
    """A service that acts under a role.

    Raises:
        NotFoundException: There is no such role; moto's own.
    """
    iam = iam_backends[ACCOUNT]["aws"]
    role: Any = iam.get_role_by_arn(role_arn)
    context = {"aws:PrincipalArn": role.arn, "aws:PrincipalAccount": ACCOUNT}
    principal = Principal(role.arn)
    return Caller(principal, tuple(policies_of(role)), _boundary(iam, role), context=context)


def policies_of(holder: Any) -> Iterator[str]:
    """Give the policies of moto's role, user or group, inline and attached, as JSON."""
    for document in holder.policies.values():
        yield document if isinstance(document, str) else json.dumps(document)
    for policy in holder.managed_policies.values():
        yield default_version(policy)


def default_version(policy: Policy) -> str:
    """Give the document of a managed policy that is in force, as JSON."""
    return next(version.document for version in policy.versions if version.is_default)


def _boundary(iam: IAMBackend, holder: Any) -> str | None:
    arn = getattr(holder, "permissions_boundary_arn", None)
    return default_version(iam.managed_policies[arn]) if arn else None


def decide(caller: Caller, request: Request) -> Decision:
    """Decide one thing that IAM asks for a call.

    Raises:
        PolicyError: A policy that matters cannot be read.
    """
    context = {**caller.context, **request.context}
    asked = Request(request.action, request.resource, context, caller.principal)
    return evaluate(
        [parse(policy) for policy in caller.policies],
        asked,
        resource_policies=[
            parse(policy, names_principal=True)
            for policy in _resource_policies(request.action, request.resource)
        ],
        boundary=parse(caller.boundary) if caller.boundary else None,
        session_policy=parse(caller.session_policy) if caller.session_policy else None,
        resource_decides=request.action in _ASSUMES or request.action.startswith("kms:"),
    )


def _resource_policies(action: str, arn: str) -> Iterator[str]:
    """Give the policy that the resource itself has, as JSON, if it has one."""
    parts = arn.split(":", 5)
    if len(parts) < 6:
        return
    service, region, name = parts[2], parts[3], parts[5]
    policy: Any = None
    try:
        if action in _ASSUMES:
            role: Any = iam_backends[ACCOUNT]["aws"].get_role_by_arn(arn)
            policy = role.assume_role_policy_document
        elif service == "s3":
            bucket = s3_backends[ACCOUNT]["aws"].buckets.get(name.partition("/")[0])
            policy = bucket.policy if bucket else None
        elif service == "lambda":
            _, function, *qualifier = name.split(":")
            record: Any = get_backend(ACCOUNT, region).get_function(function, "$LATEST")
            statements = record.at(qualifier[0] if qualifier else None).policy.statements
            policy = {"Version": "2012-10-17", "Statement": statements} if statements else None
        elif service == "sqs":
            queue = sqs_backends[ACCOUNT][region].queues.get(name)
            policy = queue.policy if queue else None
        elif service == "sns":
            topic = sns_backends[ACCOUNT][region].topics.get(arn)
            policy = topic.policy if topic else None
        elif service == "kms":
            key = kms_backends[ACCOUNT][region].keys.get(name.removeprefix("key/"))
            policy = key.policy if key else None
    # What is not there has no policy; that it is not there is for its service to say.
    except (JsonRESTError, ServiceException, NotFoundException):
        return
    if isinstance(policy, bytes):
        yield policy.decode()
    elif policy:
        yield policy if isinstance(policy, str) else json.dumps(policy)


def refuse(call: Call, caller: Caller, told: Parameters) -> Response | None:
    """Answer for the service if the caller may not make a call; None if it may.

    Args:
        call: What is asked for.
        caller: Who asks.
        told: The call's parameters.
    """
    if str(call) == "sts:AssumeRoleWithWebIdentity":
        return _refuse_web_identity(call, told)
    if call.access_key in _UNLIMITED and call.service != "sts":
        return None
    try:
        asked = requests(call.service, call.operation, told, _Account())
    except UnknownCallError:
        if _may_do_everything(caller):
            return None
        why = (
            f"localaws does not know what IAM asks for {call}: it has to be added in "
            "localaws/iam/actions.py, and is allowed to those only who may do everything"
        )
        return _denial(call, f"User: {caller.name} is not authorized to perform: {call}: {why}")
    denials = [message for request in asked if (message := _denied(caller, request))]
    # Each object is denied by itself.
    if not denials or "Delete" in told:
        return None
    return _denial(call, denials[0])


def _may_do_everything(caller: Caller) -> bool:
    """Whether a caller may make calls of which nobody knows what IAM asks for them."""
    limits = [limit for limit in (caller.boundary, caller.session_policy) if limit]
    try:
        policies = [parse(policy) for policy in caller.policies]
        limited = all(parse(limit).allows_everything for limit in limits)
    except PolicyError:
        return False
    denies = any(not s.allows for policy in policies for s in policy.statements)
    return limited and not denies and any(policy.allows_everything for policy in policies)


def denied_objects(call: Call, caller: Caller, told: Parameters) -> dict[str, str]:
    """Give AWS's message for each object that a DeleteObjects may not delete, by its key."""
    if str(call) != "s3:DeleteObjects" or call.access_key in _UNLIMITED or "Delete" not in told:
        return {}
    asked = requests(call.service, call.operation, told, _Account())
    keys = [entry["Key"] for entry in told["Delete"]["Objects"]]
    return {
        key: message
        for key, request in zip(keys, asked, strict=True)
        if (message := _denied(caller, request))
    }


def _denied(caller: Caller, request: Request) -> str:
    """Say why a caller may not; empty if it may."""
    try:
        decision = decide(caller, request)
    except PolicyError as error:
        return f"a policy that decides {request.action} is none: {error}"
    return "" if decision.allowed else _message(caller, request, decision)


def hides_absence(call: Call, caller: Caller) -> bool:
    """Whether the caller is told that it may not, where an object of S3 is not there.

    Only who may list a bucket learns what is not in it.
    """
    if str(call) not in ("s3:GetObject", "s3:HeadObject"):
        return False
    bucket = f"arn:aws:s3:::{call.resource['Bucket']}"
    context = {"aws:SecureTransport": "true", "aws:RequestedRegion": regions.current()}
    return not decide(caller, Request("s3:ListBucket", bucket, context)).allowed


def denied_absence(call: Call) -> Response:
    """Give S3's answer in that case."""
    return _denial(call, "Access Denied")


def _message(caller: Caller, request: Request, decision: Decision) -> str:
    resource = f'"{request.resource}"' if request.action.startswith("s3:") else request.resource
    if decision.outcome is Outcome.EXPLICIT_DENY:
        article = "an" if decision.kind.startswith("identity") else "a"
        because = f"with an explicit deny in {article} {decision.kind}"
    else:
        because = f"because no {decision.kind} allows the {request.action} action"
    return (
        f"User: {caller.name} is not authorized to perform: {request.action} "
        f"on resource: {resource} {because}"
    )


def _denial(call: Call, message: str) -> Response:
    if call.protocol == "ec2":
        text = f"You are not authorized to perform this operation. {message}"
        return refusal(call, 403, "UnauthorizedOperation", text)
    if call.service == "sns":
        return refusal(call, 403, "AuthorizationError", message)
    if has_old_codes(call):
        return refusal(call, 403, "AccessDenied", message)
    status = 403 if call.protocol == "rest-json" else 400
    return refusal(call, status, "AccessDeniedException", message)


def has_old_codes(call: Call) -> bool:
    """Whether a service has the error codes that came before JSON, whichever protocol is spoken."""
    return call.protocol in ("query", "rest-xml") or call.service == "cloudwatch"


def _refuse_web_identity(call: Call, told: Parameters) -> Response | None:
    """Ask a role's trust policy whether it takes the bearer of an identity provider's token."""
    claims = _claims(str(told.get("WebIdentityToken", "")))
    host = str(claims.get("iss", "")).removeprefix("https://")
    providers = iam_backends[ACCOUNT]["aws"].open_id_providers
    provider = next((arn for arn in providers if arn.endswith(f":oidc-provider/{host}")), None)
    role = str(told.get("RoleArn", ""))
    context = {
        f"{host}:{name}": value if isinstance(value, list) else str(value)
        for name, value in claims.items()
    }
    asked = Request(
        "sts:AssumeRoleWithWebIdentity", role, {"aws:SecureTransport": "true", **context}
    )
    who = Caller(Principal(provider, "Federated")) if provider and host else Caller()
    try:
        if decide(who, asked).allowed:
            return None
    except PolicyError as error:
        return _denial(call, f"the trust policy of {role} is none: {error}")
    return _denial(call, "Not authorized to perform sts:AssumeRoleWithWebIdentity")


def _claims(token: str) -> Mapping[str, Any]:
    """What a JSON Web Token says; nothing if it is none. Its signature is not checked."""
    try:
        _, payload, _ = token.split(".")
        claims = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except ValueError:
        return {}
    return claims if isinstance(claims, dict) else {}


class _Account:
    """What moto's records say."""

    def tags(self, resource_id: str) -> Mapping[str, str]:
        tags: Mapping[str, str] = ec2_backends[ACCOUNT][regions.current()].tags.get(resource_id, {})
        return tags

    def boundary(self, role: str) -> str | None:
        roles: list[Any] = list(iam_backends[ACCOUNT]["aws"].roles.values())
        return next((found.permissions_boundary_arn for found in roles if found.name == role), None)

    def profile_role(self, profile: str) -> str | None:
        profiles: list[Any] = list(iam_backends[ACCOUNT]["aws"].instance_profiles.values())
        return next(
            (
                found.roles[0].arn
                for found in profiles
                if profile in (found.name, found.arn) and found.roles
            ),
            None,
        )

    def launch_template(self, told: Parameters) -> tuple[str, Mapping[str, Any]]:
        backend: Any = ec2_backends[ACCOUNT][regions.current()]
        try:
            version = backend._get_template_from_args(told)
        # There is no such template: its id is all that is known, and EC2 refuses it.
        except ServiceException:
            return str(told.get("LaunchTemplateId", "lt-unknown")), {}
        return version.template.id, version.data

    def key(self, bucket: str, name: str | None = None) -> str | None:
        found: Any = s3_backends[ACCOUNT]["aws"].buckets.get(bucket)
        if not found:
            return None
        if name:
            # What is deleted has neither.
            stored = found.keys.get(name)
            key, how = (getattr(stored, each, None) for each in ("kms_key_id", "encryption"))
            if key or not stored or how not in (None, "aws:kms"):
                return key
        rule = (found.encryption or {}).get("Rule", {})
        default: str | None = rule.get("ApplyServerSideEncryptionByDefault", {}).get(
            "KMSMasterKeyID"
        )
        return default

    def volume_key(self, endpoint_config: str) -> str | None:
        configs = sagemaker_backends[ACCOUNT][regions.current()].endpoint_configs
        config = configs.get(endpoint_config.rpartition("/")[2])
        return getattr(config, "kms_key_id", None)

    def has_role(self, name: str) -> bool:
        return any(role.name == name for role in iam_backends[ACCOUNT]["aws"].roles.values())
