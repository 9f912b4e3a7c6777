"""Lambda on localaws: functions, versions, aliases and what belongs to them."""

import io
import json
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.localaws.conftest import LocalAws
from tests.localaws.roles import trust

ACCOUNT = "123456789012"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/kennel-lambda"
QUEUE = f"arn:aws:sqs:us-east-1:{ACCOUNT}:kennel-failed"
ARN = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:kennel"
NAME = {"FunctionName": "kennel"}
LIVE = {**NAME, "Qualifier": "live"}
FULL: dict[str, Any] = {
    "Description": "classifies",
    "Timeout": 30,
    "MemorySize": 512,
    "Environment": {"Variables": {"ENDPOINT_NAME": "kennel"}},
    "DeadLetterConfig": {"TargetArn": QUEUE},
    "KMSKeyArn": f"arn:aws:kms:us-east-1:{ACCOUNT}:key/1",
    "TracingConfig": {"Mode": "Active"},
    "EphemeralStorage": {"Size": 1024},
    "LoggingConfig": {
        "LogFormat": "JSON",
        "ApplicationLogLevel": "DEBUG",
        "SystemLogLevel": "WARN",
        "LogGroup": "/aws/lambda/kennel",
    },
}


def code(content: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(zipfile.ZipInfo("handler.py"), content)
    return packed.getvalue()


@pytest.fixture(scope="module", autouse=True)
def role(aws: LocalAws) -> Iterator[None]:
    iam = aws.client("iam")
    iam.create_role(RoleName="kennel-lambda", AssumeRolePolicyDocument=trust("lambda"))
    yield
    iam.delete_role(RoleName="kennel-lambda")


@pytest.fixture
def lambdas(aws: LocalAws) -> Iterator[Any]:
    """A client, and the function `kennel`; all that a test makes goes with it."""
    client = aws.client("lambda")
    client.create_function(
        **NAME,
        Role=ROLE,
        Runtime="python3.13",
        Handler="handler.handler",
        Code={"ZipFile": code("one")},
    )
    yield client
    client.delete_function(**NAME)


@pytest.fixture
def live(lambdas: Any) -> None:
    """Version 1 and its alias `live`."""
    lambdas.publish_version(**NAME)
    lambdas.create_alias(**NAME, Name="live", FunctionVersion="1")


def publish(client: Any) -> str:
    version: str = client.publish_version(**NAME)["Version"]
    return version


def refused(error: pytest.ExceptionInfo[ClientError]) -> str:
    found: str = error.value.response["Error"]["Code"]
    return found


def test_a_function_is_described_as_it_was_changed(lambdas: Any) -> None:
    lambdas.update_function_configuration(**NAME, **FULL)
    described = lambdas.get_function_configuration(**NAME)
    assert FULL.items() <= described.items()


def test_a_function_is_described_as_it_was_given(lambdas: Any) -> None:
    given = {**FULL, "Architectures": ["arm64"], "Role": ROLE, "Runtime": "python3.13"}
    try:
        lambdas.create_function(
            FunctionName="full",
            Handler="handler.handler",
            Code={"ZipFile": code("one")},
            SnapStart={"ApplyOn": "PublishedVersions"},
            Publish=True,
            **given,
        )
        latest = lambdas.get_function_configuration(FunctionName="full")
        assert given.items() <= latest.items()
        assert latest["SnapStart"] == {
            "ApplyOn": "PublishedVersions",
            "OptimizationStatus": "Off",
        }
        version = lambdas.get_function_configuration(FunctionName="full", Qualifier="1")
        assert version["SnapStart"]["OptimizationStatus"] == "On"
    finally:
        lambdas.delete_function(FunctionName="full")


def test_what_a_function_was_not_given_is_as_on_aws(lambdas: Any) -> None:
    described = lambdas.get_function_configuration(**NAME)
    assert described["LoggingConfig"] == {"LogFormat": "Text", "LogGroup": "/aws/lambda/kennel"}
    assert not described.keys() & {"DeadLetterConfig", "ImageConfigResponse"}
    lambdas.update_function_configuration(**NAME, LoggingConfig={"LogFormat": "JSON"})
    assert lambdas.get_function_configuration(**NAME)["LoggingConfig"] == {
        "LogFormat": "JSON",
        "LogGroup": "/aws/lambda/kennel",
        "ApplicationLogLevel": "INFO",
        "SystemLogLevel": "INFO",
    }


def test_a_dead_letter_queue_is_taken_away(lambdas: Any) -> None:
    lambdas.update_function_configuration(**NAME, DeadLetterConfig={"TargetArn": QUEUE})
    lambdas.update_function_configuration(**NAME, DeadLetterConfig={"TargetArn": ""})
    assert "DeadLetterConfig" not in lambdas.get_function_configuration(**NAME)


def test_an_update_gives_another_revision(lambdas: Any) -> None:
    before = lambdas.get_function_configuration(**NAME)["RevisionId"]
    assert lambdas.update_function_configuration(**NAME, Timeout=9)["RevisionId"] != before


def test_code_and_architecture_change_together(lambdas: Any) -> None:
    before = lambdas.get_function_configuration(**NAME)
    after = lambdas.update_function_code(**NAME, ZipFile=code("two"), Architectures=["arm64"])
    assert after["Architectures"] == ["arm64"]
    assert after["CodeSha256"] != before["CodeSha256"]


def test_only_a_change_gives_a_new_version(lambdas: Any) -> None:
    assert [publish(lambdas), publish(lambdas)] == ["1", "1"]
    lambdas.update_function_code(**NAME, ZipFile=code("one"))
    lambdas.update_function_configuration(**NAME, Timeout=3)
    assert publish(lambdas) == "1"
    lambdas.update_function_configuration(**NAME, Timeout=4)
    assert publish(lambdas) == "2"
    assert lambdas.update_function_code(**NAME, ZipFile=code("two"), Publish=True)["Version"] == "3"
    assert publish(lambdas) == "3"


def test_a_version_stays_as_it_was_published(lambdas: Any) -> None:
    publish(lambdas)
    before = lambdas.get_function_configuration(**NAME, Qualifier="1")
    lambdas.update_function_code(**NAME, ZipFile=code("two"), Architectures=["arm64"])
    lambdas.update_function_configuration(**NAME, **FULL)
    after = lambdas.get_function_configuration(**NAME, Qualifier="1")
    assert {**after, "ResponseMetadata": ""} == {**before, "ResponseMetadata": ""}


def test_the_number_of_a_version_is_never_given_twice(lambdas: Any) -> None:
    for timeout in (4, 5):
        lambdas.update_function_configuration(**NAME, Timeout=timeout)
        publish(lambdas)
    for version in ("1", "2"):
        lambdas.delete_function(**NAME, Qualifier=version)
    assert publish(lambdas) == "3"


def test_a_reservation_of_nothing_is_described(lambdas: Any) -> None:
    lambdas.put_function_concurrency(**NAME, ReservedConcurrentExecutions=0)
    assert lambdas.get_function(**NAME)["Concurrency"] == {"ReservedConcurrentExecutions": 0}
    lambdas.delete_function_concurrency(**NAME)
    assert "Concurrency" not in lambdas.get_function(**NAME)


@pytest.mark.usefixtures("live")
def test_environments_are_kept_ready(lambdas: Any) -> None:
    for executions in (2, 3):
        lambdas.put_provisioned_concurrency_config(
            **LIVE, ProvisionedConcurrentExecutions=executions
        )
        found = lambdas.get_provisioned_concurrency_config(**LIVE)
        assert found["Status"] == "READY"
        kinds = ("Requested", "Allocated", "Available")
        counts = [found[f"{kind}ProvisionedConcurrentExecutions"] for kind in kinds]
        assert counts == [executions] * 3
    (listed,) = lambdas.list_provisioned_concurrency_configs(**NAME)[
        "ProvisionedConcurrencyConfigs"
    ]
    assert listed["FunctionArn"] == f"{ARN}:live"
    lambdas.delete_provisioned_concurrency_config(**LIVE)
    with pytest.raises(ClientError) as error:
        lambdas.get_provisioned_concurrency_config(**LIVE)
    assert refused(error) == "ProvisionedConcurrencyConfigNotFoundException"


@pytest.mark.usefixtures("live")
def test_what_cannot_be_kept_ready_is_refused(lambdas: Any) -> None:
    def keep(qualifier: str, executions: int = 1) -> None:
        lambdas.put_provisioned_concurrency_config(
            **NAME, Qualifier=qualifier, ProvisionedConcurrentExecutions=executions
        )

    lambdas.update_function_configuration(**NAME, Timeout=4)
    publish(lambdas)
    weights = {"AdditionalVersionWeights": {"2": 0.25}}
    lambdas.create_alias(**NAME, Name="canary", FunctionVersion="1", RoutingConfig=weights)
    lambdas.create_alias(**NAME, Name="newest", FunctionVersion="$LATEST")
    with pytest.raises(ClientError, match="unpublished function versions"):
        keep("newest")
    with pytest.raises(ClientError, match="Alias with weights can not be used"):
        keep("canary")
    with pytest.raises(ClientError) as error:
        keep("unknown")
    assert refused(error) == "ResourceNotFoundException"
    lambdas.put_function_concurrency(**NAME, ReservedConcurrentExecutions=3)
    keep("live", 2)
    keep("2")
    with pytest.raises(ClientError, match="should not be greater than the reserved"):
        keep("2", 2)
    with pytest.raises(ClientError, match="Alias with weights can not be used"):
        lambdas.update_alias(**NAME, Name="live", RoutingConfig=weights)
    lambdas.update_alias(**NAME, Name="live", FunctionVersion="2", RoutingConfig={})


@pytest.mark.usefixtures("live")
def test_asynchronous_invocations_are_configured_for_each_qualifier(lambdas: Any) -> None:
    destination = {"OnFailure": {"Destination": QUEUE}}
    lambdas.put_function_event_invoke_config(**NAME, MaximumRetryAttempts=0)
    for attempts in (1, 2):
        lambdas.put_function_event_invoke_config(
            **LIVE, MaximumRetryAttempts=attempts, DestinationConfig=destination
        )
    lambdas.update_function_event_invoke_config(**LIVE, MaximumEventAgeInSeconds=300)
    found = lambdas.get_function_event_invoke_config(**LIVE)
    expected = {
        "FunctionArn": f"{ARN}:live",
        "MaximumRetryAttempts": 2,
        "MaximumEventAgeInSeconds": 300,
        "DestinationConfig": destination,
    }
    assert expected.items() <= found.items()
    listed = lambdas.list_function_event_invoke_configs(**NAME)["FunctionEventInvokeConfigs"]
    assert {one["FunctionArn"] for one in listed} == {f"{ARN}:$LATEST", f"{ARN}:live"}
    lambdas.delete_function_event_invoke_config(**LIVE)
    with pytest.raises(ClientError) as error:
        lambdas.get_function_event_invoke_config(**LIVE)
    assert refused(error) == "ResourceNotFoundException"
    assert lambdas.get_function_event_invoke_config(**NAME)["MaximumRetryAttempts"] == 0


@pytest.mark.usefixtures("live")
def test_a_function_and_its_alias_have_urls_of_their_own(lambdas: Any) -> None:
    cors = {"AllowOrigins": ["https://example.com"], "AllowMethods": ["POST"], "MaxAge": 300}
    own = lambdas.create_function_url_config(**NAME, AuthType="NONE")
    of_alias = lambdas.create_function_url_config(**LIVE, AuthType="AWS_IAM", Cors=cors)
    assert own["FunctionUrl"] != of_alias["FunctionUrl"]
    assert of_alias["FunctionUrl"].endswith(".lambda-url.us-east-1.on.aws/")
    found = lambdas.get_function_url_config(**LIVE)
    assert (found["FunctionArn"], found["Cors"]) == (f"{ARN}:live", cors)
    assert found["InvokeMode"] == "BUFFERED"
    changed = lambdas.update_function_url_config(**LIVE, Cors={}, InvokeMode="RESPONSE_STREAM")
    assert (changed["AuthType"], changed["InvokeMode"]) == ("AWS_IAM", "RESPONSE_STREAM")
    assert "Cors" not in changed
    with pytest.raises(ClientError) as error:
        lambdas.create_function_url_config(**LIVE, AuthType="NONE")
    assert refused(error) == "ResourceConflictException"
    lambdas.delete_function_url_config(**LIVE)
    with pytest.raises(ClientError) as error:
        lambdas.get_function_url_config(**LIVE)
    assert refused(error) == "ResourceNotFoundException"
    assert lambdas.get_function_url_config(**NAME)["FunctionUrl"] == own["FunctionUrl"]


@pytest.mark.usefixtures("live")
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {"Principal": "*", "FunctionUrlAuthType": "NONE"},
            {
                "Principal": "*",
                "Condition": {"StringEquals": {"lambda:FunctionUrlAuthType": "NONE"}},
            },
        ),
        (
            {"Principal": "*", "InvokedViaFunctionUrl": True},
            {"Principal": "*", "Condition": {"Bool": {"lambda:InvokedViaFunctionUrl": "true"}}},
        ),
        ({"Principal": ACCOUNT}, {"Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}}),
        ({"Principal": ROLE}, {"Principal": {"AWS": ROLE}}),
        (
            {"Principal": "sns.amazonaws.com", "SourceArn": QUEUE, "SourceAccount": ACCOUNT},
            {
                "Principal": {"Service": "sns.amazonaws.com"},
                "Condition": {
                    "ArnLike": {"AWS:SourceArn": QUEUE},
                    "StringEquals": {"AWS:SourceAccount": ACCOUNT},
                },
            },
        ),
    ],
    ids=["URL", "through the URL", "account", "role", "service"],
)
def test_a_permission_is_written_as_aws_does(
    lambdas: Any, given: dict[str, Any], expected: dict[str, Any]
) -> None:
    action = (
        "lambda:InvokeFunctionUrl" if "FunctionUrlAuthType" in given else "lambda:InvokeFunction"
    )
    lambdas.add_permission(**LIVE, StatementId="one", Action=action, **given)
    (statement,) = json.loads(lambdas.get_policy(**LIVE)["Policy"])["Statement"]
    assert statement == {
        "Sid": "one",
        "Effect": "Allow",
        "Action": action,
        "Resource": f"{ARN}:live",
        **expected,
    }


@pytest.mark.usefixtures("live")
def test_the_kind_of_url_is_no_condition_of_other_actions(lambdas: Any) -> None:
    everybody = {"StatementId": "one", "Principal": "*", "FunctionUrlAuthType": "NONE"}
    with pytest.raises(ClientError) as error:
        lambdas.add_permission(**LIVE, **everybody, Action="lambda:InvokeFunction")
    assert refused(error) == "InvalidParameterValueException"


@pytest.mark.usefixtures("live")
def test_each_qualifier_has_a_policy_of_its_own(lambdas: Any) -> None:
    permission = {"StatementId": "one", "Action": "lambda:InvokeFunction", "Principal": "*"}
    lambdas.add_permission(**LIVE, **permission)
    with pytest.raises(ClientError) as error:
        lambdas.add_permission(**LIVE, **permission)
    assert refused(error) == "ResourceConflictException"
    with pytest.raises(ClientError) as error:
        lambdas.get_policy(**NAME)
    assert refused(error) == "ResourceNotFoundException"
    lambdas.add_permission(**NAME, **permission)
    lambdas.remove_permission(**LIVE, StatementId="one")
    with pytest.raises(ClientError) as error:
        lambdas.remove_permission(**LIVE, StatementId="one")
    assert refused(error) == "ResourceNotFoundException"
    (statement,) = json.loads(lambdas.get_policy(**NAME)["Policy"])["Statement"]
    assert statement["Resource"] == ARN


@pytest.mark.usefixtures("live")
def test_what_belongs_to_an_alias_ends_with_it(lambdas: Any) -> None:
    lambdas.put_provisioned_concurrency_config(**LIVE, ProvisionedConcurrentExecutions=2)
    lambdas.create_function_url_config(**LIVE, AuthType="NONE")
    lambdas.delete_alias(**NAME, Name="live")
    lambdas.create_alias(**NAME, Name="live", FunctionVersion="1")
    assert (
        lambdas.list_provisioned_concurrency_configs(**NAME)["ProvisionedConcurrencyConfigs"] == []
    )
    with pytest.raises(ClientError):
        lambdas.get_function_url_config(**LIVE)


@pytest.mark.usefixtures("live")
@pytest.mark.parametrize("name", [ARN, "kennel:live", f"{ARN}:live"])
def test_a_function_is_found_by_its_arn_and_with_its_qualifier(lambdas: Any, name: str) -> None:
    lambdas.add_permission(
        FunctionName=name, StatementId="one", Action="lambda:InvokeFunction", Principal="*"
    )
    qualifier = {"Qualifier": "live"} if name.endswith("live") else {}
    assert "one" in lambdas.get_policy(**NAME, **qualifier)["Policy"]


@pytest.mark.usefixtures("live")
def test_all_is_there_after_a_restart_and_gone_after_its_end(aws: LocalAws, lambdas: Any) -> None:
    def describe() -> list[dict[str, Any]]:
        answers = [
            lambdas.get_function_configuration(**NAME),
            lambdas.get_function_configuration(**LIVE),
            lambdas.get_provisioned_concurrency_config(**LIVE),
            lambdas.get_function_url_config(**LIVE),
            lambdas.get_function_event_invoke_config(**LIVE),
            lambdas.get_policy(**LIVE),
        ]
        return [{**answer, "ResponseMetadata": ""} for answer in answers]

    lambdas.put_provisioned_concurrency_config(**LIVE, ProvisionedConcurrentExecutions=2)
    lambdas.create_function_url_config(**LIVE, AuthType="NONE")
    lambdas.put_function_event_invoke_config(**LIVE, MaximumRetryAttempts=0)
    lambdas.add_permission(**LIVE, StatementId="one", Action="lambda:InvokeFunction", Principal="*")
    before = describe()
    aws.restart()
    assert describe() == before
    assert publish(lambdas) == "1"
    lambdas.delete_function(**NAME)
    assert "lambda" not in aws.inventory()
    lambdas.create_function(
        **NAME, Role=ROLE, Runtime="python3.13", Handler="h.h", Code={"ZipFile": code("one")}
    )
    assert lambdas.list_aliases(**NAME)["Aliases"] == []
    with pytest.raises(ClientError):
        lambdas.get_policy(**NAME)


def test_code_that_is_not_in_s3_is_told_in_s3s_words(aws: LocalAws, lambdas: Any) -> None:
    update = lambdas.update_function_code
    with pytest.raises(ClientError, match=r"The specified bucket does not exist$"):
        update(**NAME, S3Bucket="kennel-nowhere", S3Key="code.zip")
    aws.client("s3").create_bucket(Bucket="kennel-code")
    with pytest.raises(ClientError, match=r"The specified key does not exist\.$"):
        update(**NAME, S3Bucket="kennel-code", S3Key="code.zip")
    aws.client("s3").delete_bucket(Bucket="kennel-code")
