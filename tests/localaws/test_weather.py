"""The weather: what goes wrong is what goes wrong on AWS, and the same for the same seed."""

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from localaws.calls import Call
from localaws.weather import Weather
from localaws.weather.climates import CLIMATES
from localaws.weather.words import is_safe
from tests.localaws.conftest import LocalAws
from tests.localaws.roles import create_role

PROBES: tuple[tuple[str, str], ...] = (
    ("application-autoscaling", "describe_scalable_targets"),
    ("cloudwatch", "describe_alarms"),
    ("ec2", "describe_vpcs"),
    ("ecr", "describe_repositories"),
    ("iam", "list_roles"),
    ("lambda", "list_functions"),
    ("logs", "describe_log_groups"),
    ("s3", "list_buckets"),
    ("sagemaker", "list_models"),
    ("sns", "list_topics"),
    ("sqs", "list_queues"),
    ("ssm", "describe_parameters"),
    ("sts", "get_caller_identity"),
)
CONTAINER = {"Image": "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-inference:2"}
GIVEN = {"application-autoscaling": {"ServiceNamespace": "sagemaker"}}


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    running = LocalAws(
        tmp_path_factory.mktemp("weather"), "--time-scale", "10000", "--weather", "rough"
    )
    yield running
    running.stop()


@pytest.fixture(scope="module")
def once(aws: LocalAws) -> Callable[[str], Any]:
    """Clients that try each call once, by service."""
    session = boto3.Session(
        aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1"
    )
    made: dict[str, Any] = {}

    def client(service: str) -> Any:
        if service not in made:
            settings = Config(retries={"total_max_attempts": 1})
            made[service] = session.client(service, endpoint_url=aws.endpoint, config=settings)
        return made[service]

    return client


def told(aws: LocalAws, kind: str = "", seed: int = 0) -> dict[str, Any]:
    """The weather; another one from now on if a kind is given."""
    page = f"{aws.endpoint}/_localaws/weather" + (f"?kind={kind}&seed={seed}" if kind else "")
    request = urllib.request.Request(page, method="POST" if kind else "GET")
    with urllib.request.urlopen(request) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def error_of(call: Callable[..., object], **given: Any) -> str:
    """What a call is refused with; empty if it is not."""
    try:
        call(**given)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    except BotoCoreError as error:
        return type(error).__name__
    return ""


def outcomes(once: Callable[[str], Any], times: int = 8) -> list[str]:
    return [
        error_of(getattr(once(service), operation), **GIVEN.get(service, {}))
        for service, operation in PROBES
        for _ in range(times)
    ]


def test_the_weather_is_said_and_changed(aws: LocalAws) -> None:
    assert (told(aws)["weather"], told(aws)["seed"]) == ("rough", 0)
    assert told(aws, "storm", 7) == {"weather": "storm", "seed": 7, "happened": {}}
    with pytest.raises(urllib.error.HTTPError, match="400"):
        told(aws, "drizzle")


def test_the_same_seed_is_the_same_weather(aws: LocalAws, once: Callable[[str], Any]) -> None:
    runs = []
    for seed in (3, 4, 3):
        told(aws, "storm", seed)
        runs.append(outcomes(once))
    assert runs[0] == runs[2] != runs[1]


def test_fair_weather_is_none(aws: LocalAws, once: Callable[[str], Any]) -> None:
    told(aws, "fair")
    assert set(outcomes(once, 2)) == {""}
    assert told(aws)["happened"] == {}


def test_each_service_says_it_in_its_own_words(aws: LocalAws, once: Callable[[str], Any]) -> None:
    said: dict[str, set[str]] = {service: set() for service, _ in PROBES}
    for seed in range(3):
        told(aws, "storm", seed)
        for (service, _), code in zip(
            (probe for probe in PROBES for _ in range(20)), outcomes(once, 20), strict=True
        ):
            said[service].add(code)
    words = {
        "cloudwatch": {"Throttling", "InternalServiceError"},
        "ec2": {"RequestLimitExceeded", "InternalError"},
        "iam": {"Throttling", "ServiceFailure"},
        "lambda": {"TooManyRequestsException", "ServiceException"},
        "logs": {"ThrottlingException", "ServiceUnavailableException"},
        "s3": {"SlowDown", "InternalError"},
        "sagemaker": {"ThrottlingException", "InternalFailure"},
        "sqs": {"RequestThrottled", "InternalFailure"},
        "sts": {"Throttling", "InternalFailure"},
    }
    for service, codes in words.items():
        assert said[service] <= {*codes, "", "ConnectionClosedError"}, service
    assert {code for codes in said.values() for code in codes} >= {
        "SlowDown",
        "ThrottlingException",
        "Throttling",
        "ConnectionClosedError",
    }


@pytest.mark.parametrize("kind", ["rough", "storm"])
def test_a_row_of_failures_ends(aws: LocalAws, once: Callable[[str], Any], kind: str) -> None:
    longest = 0
    for seed in range(4):
        told(aws, kind, seed)
        row = 0
        for _ in range(60):
            row = row + 1 if error_of(once("sts").get_caller_identity) else 0
            longest = max(longest, row)
    assert 0 < longest <= CLIMATES[kind].row


def test_what_sdks_do_by_default_is_enough_when_it_is_rough(
    aws: LocalAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    delays = "botocore.retryhandler.delay_exponential"
    monkeypatch.setattr(delays, lambda *_, **__: 0.0)
    iam = boto3.client(
        "iam",
        endpoint_url=aws.endpoint,
        aws_access_key_id="test",
        aws_secret_access_key="test",
        region_name="us-east-1",
    )
    for seed in range(4):
        told(aws, "rough", seed)
        for _ in range(40):
            iam.list_roles()
    assert told(aws)["happened"]


def test_a_new_role_cannot_be_assumed_at_once(aws: LocalAws, once: Callable[[str], Any]) -> None:
    told(aws, "fair")
    iam, sagemaker = once("iam"), once("sagemaker")
    known = create_role(iam, "known", "sagemaker")
    refusals = {}
    for seed in range(12):
        told(aws, "storm", seed)
        name = f"new-{seed}"
        while error_of(create_role, iam=iam, name=name, service="sagemaker") not in (
            "",
            "EntityAlreadyExists",
        ):
            pass
        role = known.replace("known", name)
        refusals[seed] = [
            error
            for number in range(20)
            if (
                error := error_of(
                    sagemaker.create_model,
                    ModelName=f"m-{seed}-{number}",
                    ExecutionRoleArn=role,
                    PrimaryContainer=CONTAINER,
                )
            )
            == "ValidationException"
        ]
        assert not any(
            error_of(
                sagemaker.create_model,
                ModelName=f"k-{seed}-{number}",
                ExecutionRoleArn=known,
                PrimaryContainer=CONTAINER,
            )
            == "ValidationException"
            for number in range(5)
        )
    counts = [len(found) for found in refusals.values()]
    assert max(counts) <= CLIMATES["storm"].looks
    assert any(counts)


def weather(kind: str, holds: Callable[[Weather], object]) -> Weather:
    """A weather of the first seed for which something holds."""
    return next(found for found in (Weather(kind, seed) for seed in range(200)) if holds(found))


def test_starts_take_minutes_and_fail_in_sagemakers_words() -> None:
    assert Weather().start("training-job", "a").seconds == 0
    starts = [
        Weather("storm", seed).start(kind, "a")
        for seed in range(100)
        for kind in ("training-job", "endpoint")
    ]
    least, most = CLIMATES["storm"].start_seconds
    assert all(least <= start.seconds <= most for start in starts)
    faults = {start.fault.partition(":")[0] for start in starts}
    assert faults == {
        "",
        "CapacityError",
        "InternalServerError",
        "Unable to provision requested ML compute capacity due to InsufficientInstanceCapacity"
        " error. Please retry using a different ML instance type or after some time.",
        "Request to service failed. If failure persists after retry, contact customer support.",
    }
    rough = [Weather("rough", seed).start("training-job", "a") for seed in range(100)]
    assert not any(start.fault for start in rough)
    assert any("retrying" in start.message for start in rough)


def test_what_names_chance_or_the_time_is_the_same_weather() -> None:
    def starts(name: str) -> list[float]:
        found = Weather("storm", 5)
        return [found.start("training-job", name).seconds for _ in range(3)]

    assert starts("pets-20261130132428") == starts("pets-20261201000000") != starts("dogs-1")


@pytest.mark.parametrize(
    ("service", "operation", "given", "safe"),
    [
        ("sagemaker", "DescribeEndpoint", {}, True),
        ("sagemaker", "CreateEndpoint", {}, False),
        ("sagemaker", "UpdateEndpoint", {}, False),
        ("s3", "PutObject", {}, True),
        ("s3", "PutObject", {"IfNoneMatch": "*"}, False),
        ("s3", "DeleteObject", {}, True),
        ("s3", "DeleteBucket", {}, False),
        ("ssm", "PutParameter", {}, False),
        ("ssm", "PutParameter", {"Overwrite": True}, True),
        ("logs", "PutLogEvents", {}, False),
        ("ecr", "PutImage", {}, False),
    ],
)
def test_what_is_safe_to_repeat(
    service: str, operation: str, given: dict[str, object], safe: bool
) -> None:
    assert is_safe(Call(service, operation, "json", "", ""), given) is safe
