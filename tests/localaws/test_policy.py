import fnmatch
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localaws.iam.policy import (
    Outcome,
    PolicyError,
    Principal,
    Request,
    evaluate,
    matches,
    matches_arn,
    parse,
)

ACCOUNT = "123456789012"
USER = f"arn:aws:iam::{ACCOUNT}:user/ann"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/trainer"
SESSION = f"arn:aws:sts::{ACCOUNT}:assumed-role/trainer/job-1"
OBJECT = "arn:aws:s3:::photos/data/a.jpg"


def document(*statements: dict, version: str = "2012-10-17") -> dict:
    return {"Version": version, "Statement": list(statements)}


def allow(action="s3:*", resource="*", **more) -> dict:
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def deny(action="s3:*", resource="*", **more) -> dict:
    return allow(action, resource, **more) | {"Effect": "Deny"}


def outcome(*statements: dict, action="s3:GetObject", resource=OBJECT, **context) -> Outcome:
    return evaluate([document(*statements)], Request(action, resource, context)).outcome


def holds(operator: str, wanted, context: dict, key: str = "k", version="2012-10-17") -> bool:
    statement = allow(Condition={operator: {key: wanted}})
    return evaluate(
        [document(statement, version=version)], Request("s3:GetObject", OBJECT, context)
    ).allowed


class TestPatterns:
    # fnmatch knows character sets too, which policies do not have.
    @given(st.text("ab*?:/", max_size=12), st.text("ab:/\n", max_size=12))
    def test_wildcards_agree_with_an_independent_matcher(self, pattern, text):
        assert matches(pattern, text) == fnmatch.fnmatchcase(text, pattern)

    @given(st.text("ab*?", max_size=8), st.text("[].^$\\{}()|+", max_size=8))
    def test_all_other_characters_stand_for_themselves(self, pattern, literal):
        text = pattern.replace("*", "").replace("?", "a") + literal
        assert matches(pattern + literal, text) == bool(
            re.fullmatch(
                "".join({"*": ".*", "?": "."}.get(c, re.escape(c)) for c in pattern + literal), text
            )
        )

    def test_many_wildcards_take_no_exponential_time(self):
        assert not matches("*a" * 200 + "b", "a" * 2000)

    @pytest.mark.parametrize(
        ("pattern", "action", "fits"),
        [
            ("s3:GetObject", "S3:getobject", True),
            ("S3:Get*", "s3:GetObject", True),
            ("s3:Get*", "s3:PutObject", False),
            ("*", "iam:PassRole", True),
            ("s3:???Object", "s3:PutObject", True),
            ("s3:Get", "s3:GetObject", False),
        ],
    )
    def test_actions(self, pattern, action, fits):
        assert (outcome(allow(pattern), action=action) is Outcome.ALLOWED) == fits

    @pytest.mark.parametrize(
        ("pattern", "arn", "fits"),
        [
            ("*", "arn:aws:s3:::b/k", True),
            ("arn:aws:s3:::b/*", "arn:aws:s3:::b/a/b/c", True),
            ("arn:aws:s3:::b/*", "arn:aws:s3:::b", False),
            ("arn:aws:s3:::b", "arn:aws:s3:::b/k", False),
            ("arn:aws:s3:::B", "arn:aws:s3:::b", False),
            ("arn:aws:logs:*:*:log-group:/g:*", "arn:aws:logs:r:1:log-group:/g:log-stream:s", True),
            ("arn:aws:sqs:*:1:q", "arn:aws:sqs:us-east-1:1:q", True),
            ("arn:aws:sqs:*:q", "arn:aws:sqs:us-east-1:1:q", False),
            ("arn:aws:sqs:*", "arn:aws:sqs:us-east-1:1:q", True),
            ("arn:*:q", "arn:aws:sqs:us-east-1:1:q", False),
            ("arn:aws:s3:::*", "*", False),
        ],
    )
    def test_arns(self, pattern, arn, fits):
        assert matches_arn(pattern, arn) == fits


class TestDecision:
    def test_nothing_is_allowed_unless_something_allows_it(self):
        assert outcome() is Outcome.IMPLICIT_DENY
        assert outcome(allow("s3:PutObject")) is Outcome.IMPLICIT_DENY
        assert outcome(allow()) is Outcome.ALLOWED

    def test_a_deny_wins_in_any_order_and_any_document(self):
        assert outcome(allow(), deny()) is Outcome.EXPLICIT_DENY
        assert outcome(deny(), allow()) is Outcome.EXPLICIT_DENY
        request = Request("s3:GetObject", OBJECT)
        assert evaluate([document(allow()), document(deny())], request).outcome == "explicitDeny"

    def test_names_the_statements_that_decided(self):
        statements = [allow(Sid="Reads"), allow("s3:GetObject"), allow("s3:Put*", Sid="Writes")]
        request = Request("s3:GetObject", OBJECT)
        assert evaluate([document(*statements)], request).statements == ("Reads", "statement 1")

    def test_not_action_and_not_resource(self):
        all_but_iam = {"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"}
        assert outcome(all_but_iam) is Outcome.ALLOWED
        assert outcome(all_but_iam, action="iam:PassRole", resource=ROLE) is Outcome.IMPLICIT_DENY
        all_but_photos = {
            "Effect": "Deny",
            "Action": "s3:*",
            "NotResource": ["arn:aws:s3:::photos", "arn:aws:s3:::photos/*"],
        }
        assert outcome(allow(), all_but_photos) is Outcome.ALLOWED
        assert (
            outcome(allow(), all_but_photos, resource="arn:aws:s3:::other/a")
            is Outcome.EXPLICIT_DENY
        )

    def test_one_statement_need_not_be_in_a_list(self):
        policy = {"Version": "2012-10-17", "Statement": allow()}
        assert evaluate([policy], Request("s3:GetObject", OBJECT)).allowed


class TestBoundary:
    request = Request("s3:GetObject", OBJECT)

    def test_it_grants_nothing_and_limits_what_is_granted(self):
        reads, writes = document(allow("s3:Get*")), document(allow("s3:Put*"))
        assert not evaluate([], self.request, boundary=reads).allowed
        assert evaluate([document(allow())], self.request, boundary=reads).allowed
        decision = evaluate([document(allow())], self.request, boundary=writes)
        assert decision.outcome is Outcome.IMPLICIT_DENY

    def test_its_deny_is_explicit(self):
        boundary = document(allow(), deny("s3:Get*", Sid="NoReads"))
        decision = evaluate([document(allow())], self.request, boundary=boundary)
        assert (decision.outcome, decision.statements) == ("explicitDeny", ("NoReads",))

    @pytest.mark.parametrize(
        ("named", "who", "allowed"),
        [
            (USER, USER, True),
            (SESSION, SESSION, True),
            (ROLE, SESSION, False),
            ("*", SESSION, False),
            (ACCOUNT, USER, False),
        ],
    )
    def test_a_resource_policy_passes_it_only_for_a_user_or_session_by_name(
        self, named, who, allowed
    ):
        policy = document(allow(Principal={"AWS": named}))
        request = Request("s3:GetObject", OBJECT, principal=Principal(who))
        decision = evaluate(
            [], request, resource_policies=[policy], boundary=document(allow("s3:Put*"))
        )
        assert decision.allowed == allowed


class TestKinds:
    REQUEST = Request("s3:GetObject", OBJECT, principal=Principal(SESSION))

    @pytest.mark.parametrize(
        ("policies", "kind"),
        [
            ({}, "identity-based policy"),
            ({"boundary": deny()}, "permissions boundary"),
            ({"identity": allow(), "boundary": allow("sqs:*")}, "permissions boundary"),
            ({"identity": allow(), "session_policy": allow("sqs:*")}, "session policy"),
            ({"identity": allow(), "resource_decides": True}, "resource-based policy"),
            ({"identity": allow(), "resource": deny(Principal="*")}, "resource-based policy"),
            # Nothing would have been inside the boundary.
            ({"boundary": allow("sqs:*")}, "identity-based policy"),
        ],
    )
    def test_who_denies_is_told(self, policies, kind):
        given = {
            key: document(value) if isinstance(value, dict) else value
            for key, value in policies.items()
        }
        of_resource = given.pop("resource", None)
        identity = given.pop("identity", None)
        decision = evaluate(
            [identity] if identity else [],
            self.REQUEST,
            resource_policies=[of_resource] if of_resource else [],
            **given,
        )
        assert (decision.allowed, decision.kind) == (False, kind)

    def test_a_role_lets_an_account_in_that_lets_its_principal(self):
        trust = document(
            {"Effect": "Allow", "Action": "s3:*", "Principal": {"AWS": ACCOUNT}},
        )
        for identity, allowed in (([], False), ([document(allow())], True)):
            decision = evaluate(
                identity, self.REQUEST, resource_policies=[trust], resource_decides=True
            )
            assert decision.allowed == allowed

    @pytest.mark.parametrize("text", ["", "[]", '{"Statement": 1}'])
    def test_text_that_is_no_policy_is_refused(self, text):
        with pytest.raises(PolicyError):
            parse(text)


class TestResourcePolicies:
    def decide(self, principal, who, *statements, effect=allow):
        return evaluate(
            [document(*statements)],
            Request("s3:GetObject", OBJECT, principal=who),
            resource_policies=[document(effect(Principal=principal))],
        ).outcome

    @pytest.mark.parametrize(
        ("principal", "who", "expected"),
        [
            ("*", None, "allowed"),
            ("*", Principal(USER), "allowed"),
            ({"AWS": "*"}, None, "allowed"),
            ({"AWS": USER}, Principal(USER), "allowed"),
            ({"AWS": USER}, Principal(USER + "2"), "implicitDeny"),
            ({"AWS": USER}, None, "implicitDeny"),
            ({"AWS": ["arn:aws:iam::1:user/x", ROLE]}, Principal(SESSION), "allowed"),
            ({"AWS": SESSION}, Principal(SESSION), "allowed"),
            ({"AWS": SESSION + "2"}, Principal(SESSION), "implicitDeny"),
            ({"AWS": "arn:aws:iam::*:user/ann"}, Principal(USER), "implicitDeny"),
            ({"AWS": ACCOUNT}, Principal(USER), "implicitDeny"),
            (
                {"Service": "lambda.amazonaws.com"},
                Principal("lambda.amazonaws.com", "Service"),
                "allowed",
            ),
            (
                {"Service": "lambda.amazonaws.com"},
                Principal("lambda.amazonaws.com"),
                "implicitDeny",
            ),
            ({"Federated": "arn:p"}, Principal("arn:p", "Federated"), "allowed"),
        ],
    )
    def test_who_is_named_needs_no_other_policy(self, principal, who, expected):
        assert self.decide(principal, who) == expected

    @pytest.mark.parametrize("account", [ACCOUNT, f"arn:aws:iam::{ACCOUNT}:root"])
    def test_an_account_that_is_named_still_has_to_allow_its_principal(self, account):
        assert self.decide({"AWS": account}, Principal(USER)) == "implicitDeny"
        assert self.decide({"AWS": account}, Principal(USER), allow()) == "allowed"
        assert self.decide({"AWS": account}, Principal(USER), allow(), effect=deny) == (
            "explicitDeny"
        )

    def test_a_role_with_a_path_is_known_by_its_arn_in_the_context(self):
        role = f"arn:aws:iam::{ACCOUNT}:role/teams/vision/trainer"
        request = Request("s3:GetObject", OBJECT, {"aws:PrincipalArn": role}, Principal(SESSION))
        policy = document(allow(Principal={"AWS": role}))
        assert evaluate([], request, resource_policies=[policy]).allowed

    def test_not_principal(self):
        policy = document(
            {"Effect": "Deny", "NotPrincipal": {"AWS": USER}, "Action": "*", "Resource": "*"}
        )
        decisions = [
            evaluate(
                [document(allow())],
                Request("s3:GetObject", OBJECT, principal=Principal(who)),
                resource_policies=[policy],
            ).outcome
            for who in (USER, SESSION)
        ]
        assert decisions == ["allowed", "explicitDeny"]

    def test_a_bucket_that_refuses_plain_http(self):
        policy = document(deny(Principal="*", Condition={"Bool": {"aws:SecureTransport": "false"}}))
        for transport, expected in (("true", "allowed"), ("false", "explicitDeny")):
            request = Request("s3:GetObject", OBJECT, {"aws:SecureTransport": transport})
            decision = evaluate([document(allow())], request, resource_policies=[policy])
            assert decision.outcome == expected

    def test_a_trust_policy_has_no_resource(self):
        trust = document(
            {
                "Effect": "Allow",
                "Action": "sts:AssumeRole",
                "Principal": {"Service": "sagemaker.amazonaws.com"},
                "Condition": {"StringEquals": {"aws:SourceAccount": ACCOUNT}},
            }
        )
        for account, allowed in ((ACCOUNT, True), ("999999999999", False)):
            request = Request(
                "sts:AssumeRole",
                ROLE,
                {"aws:SourceAccount": account},
                Principal("sagemaker.amazonaws.com", "Service"),
            )
            assert evaluate([], request, resource_policies=[trust]).allowed == allowed


# operator, the policy's value, the request's (None: it has no such key), expected
SINGLE = [
    ("StringEquals", "a", "a", True),
    ("StringEquals", ["x", "a"], "a", True),
    ("StringEquals", "a", "A", False),
    ("StringEquals", "a*", "ab", False),
    ("StringEquals", "a", None, False),
    ("StringNotEquals", "a", "b", True),
    ("StringNotEquals", ["a", "b"], "b", False),
    ("StringNotEquals", "a", None, True),
    ("StringEqualsIgnoreCase", "aB", "Ab", True),
    ("StringNotEqualsIgnoreCase", "aB", "Ab", False),
    ("StringLike", "data/*", "data/x/y", True),
    ("StringLike", "data/?", "data/xy", False),
    ("StringLike", "", "x", False),
    ("StringNotLike", "data/*", "source/x", True),
    ("StringNotLike", "data/*", None, True),
    ("StringEqualsIfExists", "a", None, True),
    ("StringEqualsIfExists", "a", "b", False),
    ("NumericEquals", "10", "10.0", True),
    ("NumericEquals", 10, "10", True),
    ("NumericNotEquals", "10", "11", True),
    ("NumericLessThan", "1.2", "1.1", True),
    ("NumericLessThan", "10", "9", True),
    ("NumericLessThan", "10", "10", False),
    ("NumericLessThanEquals", "10", "10", True),
    ("NumericGreaterThan", "10", "9", False),
    ("NumericGreaterThanEquals", "10", "10", True),
    ("NumericLessThan", "10", "many", False),
    ("NumericLessThan", "10", None, False),
    ("DateGreaterThan", "2020-04-01T00:00:00Z", "2026-01-01T00:00:00Z", True),
    ("DateLessThan", "2020-06-30T23:59:59Z", "2020-06-30T23:59:59+02:00", True),
    ("DateEquals", "1970-01-02T00:00:00Z", "86400", True),
    ("DateNotEquals", "2020-01-01", "2020-01-02", True),
    ("DateLessThanEquals", "2020-01-01", "2020-01-01", True),
    ("DateGreaterThanEquals", "2020-01-01", "2019-12-31", False),
    ("Bool", "true", "true", True),
    ("Bool", True, "TRUE", True),
    ("Bool", "false", "true", False),
    ("Bool", "false", None, False),
    ("BoolIfExists", "false", None, True),
    ("BinaryEquals", "QmluYXJ5", "QmluYXJ5", True),
    ("IpAddress", "203.0.113.0/24", "203.0.113.77", True),
    ("IpAddress", "203.0.113.0/24", "203.0.114.1", False),
    ("IpAddress", "2001:db8::/32", "2001:db8:1::1", True),
    ("IpAddress", "203.0.113.0/24", "2001:db8::1", False),
    ("IpAddress", "203.0.113.5", "203.0.113.5", True),
    ("NotIpAddress", "203.0.113.0/24", "198.51.100.1", True),
    ("NotIpAddress", "203.0.113.0/24", "203.0.113.1", False),
    ("ArnEquals", "arn:aws:sns:*:1:t", "arn:aws:sns:us-east-1:1:t", True),
    ("ArnLike", "arn:aws:sns:*:t", "arn:aws:sns:us-east-1:1:t", False),
    ("ArnNotEquals", "arn:aws:sns:*:1:t", "arn:aws:sns:us-east-1:1:t", False),
    ("ArnNotLike", "arn:aws:sns:*:1:t", "arn:aws:sns:us-east-1:1:u", True),
    ("Null", "true", None, True),
    ("Null", "true", "x", False),
    ("Null", "false", "x", True),
    ("Null", False, None, False),
]

# As above, for keys of several values.
SEVERAL = [
    ("ForAllValues:StringEquals", ["a", "b"], ["a"], True),
    ("ForAllValues:StringEquals", ["a", "b"], ["a", "c"], False),
    ("ForAllValues:StringEquals", ["a", "b"], [], True),
    ("ForAllValues:StringNotEquals", ["a", "b"], ["c", "d"], True),
    ("ForAllValues:StringNotEquals", ["a", "b"], ["a", "c"], False),
    ("ForAllValues:StringLike", ["a*"], ["ab", "ac"], True),
    ("ForAnyValue:StringEquals", ["a", "b"], ["x", "b"], True),
    ("ForAnyValue:StringEquals", ["a", "b"], ["x", "y"], False),
    ("ForAnyValue:StringEquals", ["a", "b"], [], False),
    ("ForAnyValue:StringNotEquals", ["a"], ["a", "c"], True),
    ("ForAnyValue:StringNotEquals", ["a"], ["a"], False),
    ("ForAnyValue:StringNotEquals", ["a"], [], False),
    ("ForAnyValue:StringEqualsIfExists", ["a"], [], True),
]


class TestConditions:
    @pytest.mark.parametrize(("operator", "wanted", "actual", "expected"), SINGLE)
    def test_operators(self, operator, wanted, actual, expected):
        assert holds(operator, wanted, {} if actual is None else {"k": actual}) == expected

    @pytest.mark.parametrize(("operator", "wanted", "actual", "expected"), SEVERAL)
    def test_operators_over_several_values(self, operator, wanted, actual, expected):
        assert holds(operator, wanted, {"k": actual}) == expected

    def test_all_operators_and_all_keys_have_to_hold(self):
        both = {"StringEquals": {"a": "1", "b": "2"}, "Bool": {"c": "true"}}
        statement = allow(Condition=both)
        assert outcome(statement, a="1", b="2", c="true") is Outcome.ALLOWED
        for missing in "abc":
            context = dict(zip("abc", ("1", "2", "true"), strict=True))
            del context[missing]
            assert outcome(statement, **context) is Outcome.IMPLICIT_DENY

    def test_keys_have_no_case(self):
        assert holds("Bool", "true", {"AWS:securetransport": "true"}, key="aws:SecureTransport")
        assert holds(
            "StringEquals", "x", {"aws:principaltag/TEAM": "x"}, key="aws:PrincipalTag/team"
        )


class TestVariables:
    HOME = "arn:aws:s3:::photos/${aws:username}/*"

    @pytest.mark.parametrize(
        ("context", "resource", "allowed"),
        [
            ({"aws:username": "ann"}, "arn:aws:s3:::photos/ann/a.jpg", True),
            ({"aws:UserName": "ann"}, "arn:aws:s3:::photos/ann/a.jpg", True),
            ({"aws:username": "bob"}, "arn:aws:s3:::photos/ann/a.jpg", False),
            ({"aws:username": "*"}, "arn:aws:s3:::photos/ann/a.jpg", False),
            ({}, "arn:aws:s3:::photos/ann/a.jpg", False),
            ({}, "arn:aws:s3:::photos/${aws:username}/a.jpg", False),
            ({"aws:username": ["ann", "bob"]}, "arn:aws:s3:::photos/ann/a.jpg", False),
        ],
    )
    def test_in_a_resource(self, context, resource, allowed):
        request = Request("s3:GetObject", resource, context)
        assert evaluate([document(allow(resource=self.HOME))], request).allowed == allowed

    def test_in_a_condition(self):
        wanted = "${aws:PrincipalTag/team}/*"
        assert holds("StringLike", wanted, {"k": "red/x", "aws:PrincipalTag/team": "red"})
        assert not holds("StringLike", wanted, {"k": "red/x", "aws:PrincipalTag/team": "blue"})
        assert not holds("StringLike", wanted, {"k": "red/x"})
        assert holds(
            "StringEqualsIgnoreCase", "${aws:username}", {"k": "ANN", "aws:username": "Ann"}
        )

    def test_with_a_default(self):
        wanted = "${aws:PrincipalTag/team, 'everybody'}"
        assert holds("StringEquals", wanted, {"k": "everybody"})
        assert holds("StringEquals", wanted, {"k": "red", "aws:PrincipalTag/team": "red"})

    def test_of_special_characters(self):
        assert holds("StringLike", "a${*}b${?}${$}", {"k": "a*b?$"})
        assert not holds("StringLike", "a${*}b", {"k": "axxb"})

    def test_are_plain_text_in_the_old_version(self):
        context = {"k": "${aws:username}", "aws:username": "ann"}
        assert holds("StringEquals", "${aws:username}", context, version="2008-10-17")


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (allow(Condition={"StringAlmost": {"k": "v"}}), "unknown condition operator StringAlmost"),
        (allow(Condition={"NullIfExists": {"k": "true"}}), "NullIfExists"),
        (allow(Condition={"ForSome:Bool": {"k": "true"}}), "ForSome:Bool"),
        (allow(Condition={"Bool": {"k": "yes"}}), "neither true nor false"),
        (allow(Condition={"NumericEquals": {"k": "ten"}}), "not a number"),
        (allow(Condition={"DateEquals": {"k": "soon"}}), "soon"),
        (allow(Condition={"IpAddress": {"k": "here"}}), "here"),
        (allow(Principal="*"), "unknown element Principal"),
        (allow(NotAction="s3:*"), "one of Action and NotAction"),
        ({"Effect": "Allow", "Action": "s3:*"}, "one of Resource and NotResource"),
        ({"Effect": "allow", "Action": "s3:*", "Resource": "*"}, "Effect"),
        ("s3:*", "object"),
    ],
)
def test_what_is_not_understood_is_refused(broken, message):
    with pytest.raises(PolicyError, match=message):
        outcome(allow(), broken, action="ec2:RunInstances", resource="*")


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({"Version": "2012-10-17"}, "no Statement"),
        ({"Version": "2030-01-01", "Statement": []}, "2030-01-01"),
        (document(allow()), "Principal"),
        (document(allow(Principal="ann")), "Principal"),
        (document(allow(Principal={"Person": "ann"})), "Person"),
    ],
)
def test_a_resource_policy_that_is_none_is_refused(policy, message):
    with pytest.raises(PolicyError, match=message):
        evaluate([], Request("s3:GetObject", OBJECT), resource_policies=[policy])


@given(st.lists(st.sampled_from(["allow", "deny", "other"]), max_size=5), st.booleans())
def test_the_outcome_follows_from_which_effects_are_there(kinds, as_text):
    statements = [
        {"allow": allow(), "deny": deny(), "other": deny("iam:*")}[kind] for kind in kinds
    ]
    policy = document(*statements)
    policy = json.loads(json.dumps(policy)) if as_text else policy
    expected = (
        "explicitDeny" if "deny" in kinds else "allowed" if "allow" in kinds else "implicitDeny"
    )
    assert evaluate([policy], Request("s3:GetObject", OBJECT)).outcome == expected
