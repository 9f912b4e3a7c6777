"""AWS's evaluation of IAM policies: documents and a request in, a decision out.

Source: "Policy evaluation logic" and "IAM JSON policy elements reference" of the IAM user guide.
Principal and resource are taken to be in one account. What a policy says and this file does not
understand is an error, never an allow.
"""

import ipaddress
import json
import re
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal, DecimalException
from enum import Enum, StrEnum
from functools import cached_property, lru_cache
from operator import eq, ge, gt, le, lt
from typing import Any

Document = Mapping[str, Any]


class PolicyError(ValueError):
    """A policy that AWS would refuse, or one that says something unknown here."""


@dataclass(frozen=True)
class Principal:
    """Who makes a request.

    Attributes:
        name: ARN of a user, role or role session; name of a service; ARN of an identity provider.
        kind: The key under which policies name it: AWS, Service or Federated.
    """

    name: str
    kind: str = "AWS"


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        action: Such as s3:GetObject.
        resource: ARN, or * for an action that is on no resource.
        context: Values of condition keys, such as {"aws:SecureTransport": "true"}; several values
            of one key as a sequence. Keys are compared without regard to case.
        principal: Who asks; None for an anonymous caller. Only policies of resources look at it.
    """

    action: str
    resource: str
    context: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    principal: Principal | None = None

    @cached_property
    def _values(self) -> dict[str, tuple[str, ...]]:
        return {
            key.lower(): (value,) if isinstance(value, str) else tuple(value)
            for key, value in self.context.items()
        }

    def values(self, key: str) -> tuple[str, ...]:
        """The values of a condition key; none if the request does not have it."""
        return self._values.get(key.lower(), ())


class Outcome(StrEnum):
    """The answers, in the words of SimulatePrincipalPolicy."""

    ALLOWED = "allowed"
    EXPLICIT_DENY = "explicitDeny"
    IMPLICIT_DENY = "implicitDeny"


@dataclass(frozen=True)
class Decision:
    """The answer to a request.

    Attributes:
        outcome: Allowed, or denied by a statement or for want of one.
        statements: Sids (positions where there are none) of the statements that decided.
        kind: The kind of policy that denied, or that would have had to allow, in the words of
            AWS's messages, such as "identity-based policy". Empty where allowed.
    """

    outcome: Outcome
    statements: tuple[str, ...] = ()
    kind: str = ""

    @property
    def allowed(self) -> bool:
        """Whether the request may go ahead."""
        return self.outcome is Outcome.ALLOWED


@dataclass(frozen=True)
class Policy:
    """A policy that was read; to be evaluated many times."""

    statements: tuple["_Statement", ...]

    @property
    def allows_everything(self) -> bool:
        """Whether it allows what nobody knows the action of: all of AWS, and denies nothing."""
        return all(statement.allows for statement in self.statements) and any(
            statement.fits_everything for statement in self.statements
        )


@lru_cache(maxsize=1024)
def parse(text: str, *, names_principal: bool = False) -> Policy:
    """Read a policy.

    Args:
        text: The policy as JSON.
        names_principal: Whether it is a resource's policy, whose statements say for whom they are.

    Raises:
        PolicyError: It is not a policy, or holds an element or operator unknown here.
    """
    try:
        document = json.loads(text)
    except ValueError as error:
        raise PolicyError(f"not a policy: not JSON ({error})") from error
    if not isinstance(document, Mapping):
        raise PolicyError("not a policy: it has to be an object")
    return Policy(tuple(_parse_all([document], names_principal=names_principal)))


def evaluate(
    policies: Iterable[Document | Policy],
    request: Request,
    *,
    resource_policies: Iterable[Document | Policy] = (),
    boundary: Document | Policy | None = None,
    session_policy: Document | Policy | None = None,
    resource_decides: bool = False,
) -> Decision:
    """Decide a request as AWS does: an explicit deny wins, and what nothing allows is denied.

    Args:
        policies: The principal's identity policies.
        request: What is asked for.
        resource_policies: Policies of the resource: a bucket's, or a role's trust policy.
        boundary: The principal's permissions boundary. It limits all but what a resource's policy
            grants to the very user or role session by name.
        session_policy: What was given as the role was assumed; it limits as the boundary does.
        resource_decides: Whether the resource's policy has to let the principal, or its account,
            in, as those of roles and keys have to.

    Raises:
        PolicyError: A document is not a policy, or holds an element or operator unknown here.
    """

    def applying(documents: Iterable[Document | Policy]) -> list[_Statement]:
        return [s for s in _parse_all(documents, names_principal=False) if s.applies(request)]

    identity = applying(policies)
    limits = {
        kind: applying([limit])
        for kind, limit in ((_BOUNDARY, boundary), (_SESSION, session_policy))
        if limit is not None
    }
    resource = [
        (s, reach)
        for s in _parse_all(resource_policies, names_principal=True)
        if s.applies(request) and (reach := s.reach(request))
    ]

    for kind, applied in {
        _IDENTITY: identity,
        **limits,
        _RESOURCE: [s for s, _ in resource],
    }.items():
        if denies := tuple(s.name for s in applied if not s.allows):
            return Decision(Outcome.EXPLICIT_DENY, denies, kind)

    if resource_decides and not resource:
        return Decision(Outcome.IMPLICIT_DENY, kind=_RESOURCE)
    outside = next((kind for kind, applied in limits.items() if not applied), None)
    named = [s for s, reach in resource if reach is _Reach.NAMED]
    others = [*identity, *(s for s, reach in resource if reach is _Reach.DIRECT)]
    if allows := named + ([] if outside else others):
        return Decision(Outcome.ALLOWED, tuple(s.name for s in allows))
    return Decision(Outcome.IMPLICIT_DENY, kind=outside if outside and others else _IDENTITY)


_IDENTITY = "identity-based policy"
_BOUNDARY = "permissions boundary"
_SESSION = "session policy"
_RESOURCE = "resource-based policy"


class _Reach(Enum):
    """How a resource's policy names the principal."""

    NAMED = 1  # the very user or role session
    DIRECT = 2  # the session's role, a service, everybody
    DELEGATED = 3  # the account: its identity policies have to allow the principal too


@dataclass(frozen=True)
class _Statement:
    name: str
    body: Mapping[str, Any]
    conditions: tuple["_Condition", ...]
    has_variables: bool
    exact_actions: frozenset[str]
    wild_actions: tuple[tuple["Token", ...], ...]

    @property
    def allows(self) -> bool:
        return bool(self.body["Effect"] == "Allow")

    @property
    def fits_everything(self) -> bool:
        """Whether there is no action, resource or circumstance that it does not fit."""
        actions = {str(action) for action in _listed(self.body.get("Action", ()))}
        everywhere = "*" in _listed(self.body.get("Resource", ()))
        return bool(actions & {"*", "*:*"}) and everywhere and not self.conditions

    def applies(self, request: Request) -> bool:
        """Whether action, resource and conditions fit the request."""
        variables = request if self.has_variables else None
        return (
            self._fits_action(request.action.lower())
            and self._fits_resource(request.resource, variables)
            and all(condition.holds(request, variables) for condition in self.conditions)
        )

    def _fits_action(self, action: str) -> bool:
        fits = action in self.exact_actions or any(
            _fits_tokens(pattern, action) for pattern in self.wild_actions
        )
        return fits != ("NotAction" in self.body)

    def _fits_resource(self, arn: str, variables: Request | None) -> bool:
        # A trust policy has no resource: it is that of the role it belongs to.
        patterns = _listed(self.body.get("Resource", self.body.get("NotResource", "*")))
        fits = any(_arn_like(pattern, arn, variables) for pattern in patterns)
        return fits != ("NotResource" in self.body)

    def reach(self, request: Request) -> _Reach | None:
        """How the statement of a resource's policy names the request's principal, if it does."""
        if "NotPrincipal" in self.body:
            named = _reach(_principals(self.body["NotPrincipal"]), request)
            return _Reach.DIRECT if named is None else None
        return _reach(_principals(self.body["Principal"]), request)


def _parse_all(
    documents: Iterable[Document | Policy], *, names_principal: bool
) -> Iterator[_Statement]:
    for document in documents:
        if isinstance(document, Policy):
            yield from document.statements
            continue
        version = document.get("Version", "2008-10-17")
        if version not in ("2008-10-17", "2012-10-17"):
            raise PolicyError(f"unknown Version {version}: policies have 2012-10-17")
        if "Statement" not in document:
            raise PolicyError("not a policy: it has no Statement")
        for position, body in enumerate(_listed(document["Statement"])):
            yield _parse(
                body,
                f"statement {position}",
                names_principal=names_principal,
                has_variables=version == "2012-10-17",
            )


def _parse(body: Any, place: str, *, names_principal: bool, has_variables: bool) -> _Statement:
    if not isinstance(body, Mapping):
        raise PolicyError(f"{place}: it has to be an object")
    name = str(body.get("Sid") or place)
    known = {"Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition"}
    known |= {"Principal", "NotPrincipal"} if names_principal else set()
    if unknown := sorted(set(body) - known):
        raise PolicyError(f"{name}: unknown element {unknown[0]}")
    if body.get("Effect") not in ("Allow", "Deny"):
        raise PolicyError(f"{name}: Effect has to be Allow or Deny")
    required = {"Action": True, "Resource": not names_principal, "Principal": names_principal}
    for element, is_required in required.items():
        given = (element in body) + (f"Not{element}" in body)
        if given > 1 or (is_required and not given):
            raise PolicyError(f"{name}: it needs one of {element} and Not{element}")
    if names_principal:
        for element in {"Principal", "NotPrincipal"} & set(body):
            _principals(body[element])
    try:
        conditions = tuple(
            _Condition.parse(operator, key, tuple(_text(value) for value in _listed(values)))
            for operator, keys in body.get("Condition", {}).items()
            for key, values in keys.items()
        )
    except PolicyError as error:
        raise PolicyError(f"{name}: {error}") from error
    actions = [str(action).lower() for action in _listed(body.get("Action", body.get("NotAction")))]
    return _Statement(
        name,
        body,
        conditions,
        has_variables,
        frozenset(action for action in actions if not _is_wild(action)),
        tuple(tuple(_wild(action)) for action in actions if _is_wild(action)),
    )


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


# --- principals


def _principals(element: Any) -> list[Principal]:
    if element == "*":
        return [Principal("*")]
    if not isinstance(element, Mapping):
        raise PolicyError("Principal has to be * or an object")
    if unknown := sorted(set(element) - {"AWS", "Service", "Federated", "CanonicalUser"}):
        raise PolicyError(f"unknown kind of principal {unknown[0]}")
    return [Principal(str(name), kind) for kind in element for name in _listed(element[kind])]


def _reach(named: Sequence[Principal], request: Request) -> _Reach | None:
    found = {reach for principal in named if (reach := _reach_one(principal, request))}
    return min(found, key=lambda reach: reach.value, default=None)


def _reach_one(named: Principal, request: Request) -> _Reach | None:
    if named == Principal("*"):
        return _Reach.DIRECT
    who = request.principal
    if who is None or named.kind != who.kind:
        return None
    if named.kind != "AWS":
        return _Reach.DIRECT if named.name == who.name else None
    role = _role_of_session(who.name)
    if named.name == who.name:
        return _Reach.DIRECT if ":role/" in who.name else _Reach.NAMED
    if named.name == role or named.name in request.values("aws:PrincipalArn"):
        return _Reach.DIRECT
    account = who.name.split(":")[4] if who.name.count(":") >= 5 else ""
    if account and named.name in (account, f"arn:aws:iam::{account}:root"):
        return _Reach.DELEGATED
    return None


def _role_of_session(arn: str) -> str | None:
    session = re.fullmatch(r"arn:([^:]+):sts::(\d+):assumed-role/([^/]+)/[^/]+", arn)
    return f"arn:{session[1]}:iam::{session[2]}:role/{session[3]}" if session else None


# --- patterns


class _Wild(Enum):
    ANY = "*"
    ONE = "?"


Token = str | _Wild


def matches(pattern: str, text: str) -> bool:
    """Whether `text` fits a pattern, in which * stands for any characters and ? for one."""
    return _fits_tokens(_tokens(pattern, None), text)


def matches_arn(pattern: str, arn: str) -> bool:
    """Whether an ARN fits a pattern, of which no wildcard reaches over a colon but the last."""
    return _arn_like(pattern, arn, None)


def _fits_tokens(pattern: Sequence[Token], text: str) -> bool:
    # Backtracks to the last * only, which is enough, so that no pattern takes exponential time.
    at = mark = 0
    star = None
    position = 0
    while position < len(text):
        token = pattern[at] if at < len(pattern) else None
        if token is _Wild.ANY:
            star, mark = at, position
            at += 1
        elif token is _Wild.ONE or token == text[position]:
            at += 1
            position += 1
        elif star is not None:
            mark += 1
            at, position = star + 1, mark
        else:
            return False
    return all(token is _Wild.ANY for token in pattern[at:])


_VARIABLE = re.compile(r"\$\{\s*([^},]*?)\s*(?:,\s*'([^'}]*)'\s*)?\}")


class _NoValueError(Exception):
    """A policy variable without a value: what holds it equals nothing."""


def _tokens(pattern: str, request: Request | None) -> list[Token]:
    """Give a pattern's characters and wildcards; what a variable stands for has no wildcards."""
    tokens: list[Token] = []
    end = 0
    for variable in _VARIABLE.finditer(pattern) if request else ():
        tokens += _wild(pattern[end : variable.start()])
        tokens += _value(variable, request) if request else ()
        end = variable.end()
    return tokens + _wild(pattern[end:])


def _is_wild(text: str) -> bool:
    return "*" in text or "?" in text


def _wild(text: str) -> list[Token]:
    wildcards: dict[str, Token] = {"*": _Wild.ANY, "?": _Wild.ONE}
    return [wildcards.get(character, character) for character in text]


def _value(variable: re.Match[str], request: Request) -> str:
    key, default = variable.groups()
    if key in ("*", "?", "$"):
        return str(key)
    values = request.values(key)
    if len(values) == 1:
        return values[0]
    if default is None:
        raise _NoValueError(key)
    return str(default)


def _like(pattern: str, text: str, variables: Request | None) -> bool:
    if pattern == "*" or not (_is_wild(pattern) or "${" in pattern):
        return pattern in ("*", text)
    try:
        return _fits_tokens(_tokens(pattern, variables), text)
    except _NoValueError:
        return False


def _arn_like(pattern: str, arn: str, variables: Request | None) -> bool:
    """Compare the six parts of an ARN one by one."""
    if pattern == "*":
        return True
    # A variable's own colons and those inside its name do not separate parts.
    parts = re.findall(r"(?:^|:)((?:\$\{[^}]*\}|[^:])*)", pattern)
    if len(parts) < 6 and parts[-1].endswith("*"):
        parts += ["*"] * (6 - len(parts))
    if len(parts) > 6:
        parts[5:] = [":".join(parts[5:])]
    actual = arn.split(":", 5)
    return len(parts) == len(actual) and all(
        _like(part, text, variables) for part, text in zip(parts, actual, strict=True)
    )


# --- conditions

_Compare = Callable[[str, str, Request | None], bool]


@dataclass(frozen=True)
class _Operator:
    """A condition operator without its prefix and suffix.

    Attributes:
        compare: Whether the policy's value and the request's fit; variables from the third.
        negated: Whether it holds where `compare` does not.
        check: Refuses a policy's value that is none for the operator, by ValueError.
    """

    compare: _Compare
    negated: bool = False
    check: Callable[[str], object] = str


def _equal(wanted: str, actual: str, variables: Request | None) -> bool:
    return _resolved(wanted, variables) == actual


def _equal_ignoring_case(wanted: str, actual: str, variables: Request | None) -> bool:
    text = _resolved(wanted, variables)
    return text is not None and text.lower() == actual.lower()


def _resolved(wanted: str, variables: Request | None) -> str | None:
    """Give a policy's value with its variables replaced; its asterisks are asterisks."""
    try:
        tokens = _tokens(wanted, variables)
    except _NoValueError:
        return None
    return "".join(token.value if isinstance(token, _Wild) else token for token in tokens)


def _typed(parse: Callable[[str], Any], relation: Callable[[Any, Any], bool]) -> _Operator:
    """An operator over values that are not text; a request's value of another kind never fits."""

    def compare(wanted: str, actual: str, variables: Request | None) -> bool:
        try:
            value = parse(actual)
        except ValueError:
            return False
        return relation(value, parse(wanted))

    return _Operator(compare, check=parse)


def _number(text: str) -> Decimal:
    try:
        number = Decimal(text)
    except DecimalException as error:
        raise ValueError(f"{text!r} is not a number") from error
    if not number.is_finite():
        raise ValueError(f"{text!r} is not a number")
    return number


def _moment(text: str) -> datetime:
    if re.fullmatch(r"\d{5,15}(\.\d+)?", text):
        return datetime.fromtimestamp(float(text), UTC)
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(f"{text!r} is neither true nor false")
    return text.lower() == "true"


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network(text, strict=False)


def _inside(actual: Any, wanted: Any) -> bool:
    return bool(actual.version == wanted.version and actual.subnet_of(wanted))


def _negated(operator: _Operator) -> _Operator:
    return _Operator(operator.compare, True, operator.check)


def _comparisons(kind: str, parse: Callable[[str], Any]) -> dict[str, _Operator]:
    relations = {
        "Equals": eq,
        "LessThan": lt,
        "LessThanEquals": le,
        "GreaterThan": gt,
        "GreaterThanEquals": ge,
    }
    return {kind + name: _typed(parse, relation) for name, relation in relations.items()} | {
        f"{kind}NotEquals": _negated(_typed(parse, eq))
    }


_OPERATORS = {
    "StringEquals": _Operator(_equal),
    "StringNotEquals": _Operator(_equal, negated=True),
    "StringEqualsIgnoreCase": _Operator(_equal_ignoring_case),
    "StringNotEqualsIgnoreCase": _Operator(_equal_ignoring_case, negated=True),
    "StringLike": _Operator(_like),
    "StringNotLike": _Operator(_like, negated=True),
    "ArnEquals": _Operator(_arn_like),
    "ArnNotEquals": _Operator(_arn_like, negated=True),
    "ArnLike": _Operator(_arn_like),
    "ArnNotLike": _Operator(_arn_like, negated=True),
    "Bool": _typed(_truth, eq),
    "BinaryEquals": _typed(lambda text: b64decode(text, validate=True), eq),
    "IpAddress": _typed(_network, _inside),
    "NotIpAddress": _negated(_typed(_network, _inside)),
    **_comparisons("Numeric", _number),
    **_comparisons("Date", _moment),
}


@dataclass(frozen=True)
class _Condition:
    operator: _Operator | None  # None: Null
    quantifier: str
    if_exists: bool
    key: str
    wanted: tuple[str, ...]

    @classmethod
    def parse(cls, name: str, key: str, wanted: tuple[str, ...]) -> "_Condition":
        parts = re.fullmatch(r"(?:(ForAllValues|ForAnyValue):)?(\w+?)(IfExists)?", name)
        quantifier, base, if_exists = parts.groups() if parts else (None, "", None)
        check: Callable[[str], object] = _truth
        operator = None
        if name != "Null":
            if base not in _OPERATORS:
                raise PolicyError(f"unknown condition operator {name}")
            operator = _OPERATORS[base]
            check = operator.check
        try:
            for value in wanted:
                check(value)
        except ValueError as error:
            raise PolicyError(f"{name} {key}: {error}") from error
        return cls(operator, quantifier or "", bool(if_exists), key, wanted)

    def holds(self, request: Request, variables: Request | None) -> bool:
        values = request.values(self.key)
        if self.operator is None:
            return any(_truth(value) == (not values) for value in self.wanted)
        if not values:
            if self.if_exists or self.quantifier == "ForAllValues":
                return True
            return self.operator.negated and not self.quantifier
        compare, negated = self.operator.compare, self.operator.negated
        fits = [
            any(compare(w, value, variables) for w in self.wanted) != negated for value in values
        ]
        if self.quantifier == "ForAnyValue":
            return any(fits)
        # AWS asks for a quantifier where a key has several values. Without one, here, one value is
        # enough to match, and all have to differ.
        return all(fits) if self.quantifier or negated else any(fits)
