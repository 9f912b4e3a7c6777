"""Functions created through Lambda's API, which run."""

import base64
import io
import json
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from lambda_src.build import build
from tests.localaws.conftest import SECONDS, LocalAws, until
from tests.localaws.roles import create_role, trust

ACCOUNT = "123456789012"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/kennel-lambda"
QUEUE = f"arn:aws:sqs:us-east-1:{ACCOUNT}:failed"
NAME = {"FunctionName": "kennel"}
LIVE = {**NAME, "Qualifier": "live"}
TIME_SCALE = 60

FUNCTION = """
import json, os, time, boto3
STARTED = time.time()
def handler(event, context):
    do = event.get("do") if isinstance(event, dict) else None
    print("event", do)
    if do == "fail":
        raise ValueError("what failed")
    if do == "exit":
        os._exit(3)
    if do == "sleep":
        time.sleep(event["seconds"])
    if do == "meet":
        open(os.path.join(event["at"], str(os.getpid())), "w").close()
        while len(os.listdir(event["at"])) < event["of"]:
            time.sleep(0.01)
    if do == "eat":
        eaten = b"x" * (event["mb"] << 20)
    if do == "environment":
        return dict(os.environ)
    if do == "context":
        client = context.client_context
        return {"arn": context.invoked_function_arn, "custom": client and client.custom}
    if do == "caller":
        return boto3.client("sts").get_caller_identity()["Arn"]
    if do == "metric":
        print(json.dumps({"_aws": {"Timestamp": 0, "CloudWatchMetrics": [{
            "Namespace": "Kennel", "Dimensions": [["service"]],
            "Metrics": [{"Name": "Answered", "Unit": "Count"}]}]},
            "service": "tests", "Answered": [1, 1]}))
    if do == "large":
        return "x" * 7_000_000
    return {"version": context.function_version, "started": STARTED, "event": event}
"""

# Of a function that is not ready before a file is there.
WAIT = """
while "GATE" in os.environ and not os.path.exists(os.environ["GATE"]):
    time.sleep(0.01)
"""


def package(code: str, **more: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in {"main.py": code, **more}.items():
            archive.writestr(name, content)
    return packed.getvalue()


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    options = ("--time-scale", str(TIME_SCALE), "--iam", "enforce")
    running = LocalAws(tmp_path_factory.mktemp("running"), *options)
    rights = [{"Effect": "Allow", "Action": ["logs:*", "sqs:*", "xray:*"], "Resource": "*"}]
    create_role(running.client("iam"), "kennel-lambda", "lambda", rights)
    running.client("sqs").create_queue(QueueName="failed")
    yield running
    running.stop()


@pytest.fixture
def make(aws: LocalAws) -> Iterator[Callable[..., Any]]:
    """Creates the function `kennel`; all that a test makes goes with it."""
    client = aws.client("lambda")

    def make(code: str = FUNCTION, **config: Any) -> Any:
        client.create_function(
            **NAME,
            **{
                "Role": ROLE,
                "Runtime": "python3.13",
                "Handler": "main.handler",
                "Code": {"ZipFile": package(code)},
                "Timeout": 20,
                "MemorySize": 256,
                **config,
            },
        )
        return client

    yield make
    client.delete_function(**NAME)


def invoke(client: Any, event: object = None, **more: Any) -> tuple[Any, dict[str, Any]]:
    """The answer's content, and the answer."""
    answer = client.invoke(**{**NAME, "Payload": json.dumps(event or {}).encode(), **more})
    return json.load(answer["Payload"]), answer


def log_of(aws: LocalAws, group: str = "/aws/lambda/kennel") -> list[dict[str, Any]]:
    try:
        events: list[dict[str, Any]] = aws.client("logs").filter_log_events(logGroupName=group)[
            "events"
        ]
    except ClientError:
        return []
    return events


def code_of(error: pytest.ExceptionInfo[ClientError]) -> tuple[str, int]:
    answer = error.value.response
    return answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]


def test_a_function_runs_its_zip_and_stays_warm(make: Callable[..., Any], aws: LocalAws) -> None:
    client = make()
    first, answer = invoke(client, {"do": "something"}, LogType="Tail")
    second, _ = invoke(client, {"do": "something"})
    assert first == second
    assert first["event"] == {"do": "something"}
    assert answer["StatusCode"] == 200
    assert answer["ExecutedVersion"] == "$LATEST"
    assert "FunctionError" not in answer
    tail = base64.b64decode(answer["LogResult"]).decode()
    request_id = answer["ResponseMetadata"]["RequestId"]
    assert f"START RequestId: {request_id} Version: $LATEST\nevent something\n" in tail
    assert f"END RequestId: {request_id}\nREPORT RequestId: {request_id}\tDuration: " in tail
    used = int(tail.partition("Max Memory Used: ")[2].split()[0])
    assert 10 < used < 256
    assert "Init Duration: " in tail
    events = until(lambda: (e := log_of(aws)) and len(e) >= 8 and e)
    assert {event["logStreamName"] for event in events} == {events[0]["logStreamName"]}
    assert "/[$LATEST]" in events[0]["logStreamName"]
    assert "Init Duration" not in events[-1]["message"]


def test_errors_time_outs_and_crashes_are_answers(make: Callable[..., Any]) -> None:
    client = make(Timeout=2)
    failed, answer = invoke(client, {"do": "fail"}, LogType="Tail")
    assert (failed["errorType"], failed["errorMessage"]) == ("ValueError", "what failed")
    assert (answer["StatusCode"], answer["FunctionError"]) == (200, "Unhandled")
    warm, _ = invoke(client)

    crashed, answer = invoke(client, {"do": "exit"})
    assert crashed["errorType"] == "Runtime.ExitError"
    assert crashed["errorMessage"].endswith("Runtime exited with error: exit status 3")
    assert answer["FunctionError"] == "Unhandled"

    late, answer = invoke(client, {"do": "sleep", "seconds": 100}, LogType="Tail")
    assert late["errorMessage"].endswith("Task timed out after 2.00 seconds")
    tail = base64.b64decode(answer["LogResult"]).decode()
    assert f"{answer['ResponseMetadata']['RequestId']} Task timed out after 2.00 seconds" in tail
    assert tail.rstrip().endswith("Status: timeout")
    again, _ = invoke(client)
    assert again["started"] > warm["started"]


def test_memory_is_limited(make: Callable[..., Any]) -> None:
    client = make(MemorySize=128)
    assert "event" in invoke(client, {"do": "eat", "mb": 20})[0]
    killed, answer = invoke(client, {"do": "eat", "mb": 200}, LogType="Tail")
    assert killed["errorType"] == "Runtime.ExitError"
    assert killed["errorMessage"].endswith("Runtime exited with error: signal: killed")
    tail = base64.b64decode(answer["LogResult"]).decode()
    assert int(tail.partition("Max Memory Used: ")[2].split()[0]) > 128
    assert "event" in invoke(client)[0]


def test_the_environment_is_lambdas_and_the_functions(
    make: Callable[..., Any], aws: LocalAws
) -> None:
    client = make(
        Environment={"Variables": {"SETTING": "given"}},
        LoggingConfig={"LogFormat": "JSON", "LogGroup": "/own/group"},
    )
    found, answer = invoke(client, {"do": "environment"}, LogType="Tail")
    assert found["SETTING"] == "given"
    assert found["AWS_ENDPOINT_URL"] == aws.endpoint
    assert found["AWS_LAMBDA_FUNCTION_NAME"] == "kennel"
    assert found["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"] == "256"
    assert found["AWS_LAMBDA_INITIALIZATION_TYPE"] == "on-demand"
    assert found["AWS_LAMBDA_LOG_GROUP_NAME"] == "/own/group"
    assert found["AWS_LAMBDA_LOG_FORMAT"] == "JSON"
    assert Path(found["TMPDIR"]).is_dir()
    assert not {"AWS_XRAY_DAEMON_ADDRESS", "PYTEST_CURRENT_TEST"} & set(found)
    events = until(lambda: (e := log_of(aws, "/own/group")) and len(e) >= 4 and e)
    assert events[0]["logStreamName"] == found["AWS_LAMBDA_LOG_STREAM_NAME"]
    lines = [json.loads(e["message"]) for e in events if e["message"].startswith("{")]
    # Where this machine has no Python of the runtime's version, a line of its own says so.
    lines = [line for line in lines if "type" in line]
    assert [line["type"] for line in lines] == [
        "platform.initStart",
        "platform.start",
        "platform.report",
    ]
    assert lines[-1]["record"]["status"] == "success"
    assert lines[-1]["record"]["requestId"] == answer["ResponseMetadata"]["RequestId"]

    arn, _ = invoke(client, {"do": "caller"})
    assert arn == f"arn:aws:sts::{ACCOUNT}:assumed-role/kennel-lambda/kennel"


def test_the_context_tells_what_was_called(make: Callable[..., Any]) -> None:
    client = make()
    context = base64.b64encode(json.dumps({"custom": {"key": "value"}}).encode()).decode()
    found, _ = invoke(client, {"do": "context"}, ClientContext=context)
    assert found == {
        "arn": f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:kennel",
        "custom": {"key": "value"},
    }


def test_versions_and_aliases_run_what_they_stand_for(
    make: Callable[..., Any], aws: LocalAws
) -> None:
    client = make("def handler(e, c): return ['one', c.function_version, c.invoked_function_arn]")
    client.publish_version(**NAME)
    client.create_alias(**NAME, Name="live", FunctionVersion="1")
    aws.client("s3").create_bucket(Bucket="code")
    aws.client("s3").put_object(
        Bucket="code", Key="two.zip", Body=package("def handler(e, c): return ['two']")
    )
    client.update_function_code(**NAME, S3Bucket="code", S3Key="two.zip")
    assert invoke(client)[0] == ["two"]
    found, answer = invoke(client, **LIVE)
    assert found[:2] == ["one", "1"]
    assert found[2].endswith(":function:kennel:live")
    assert answer["ExecutedVersion"] == "1"
    assert invoke(client, FunctionName="kennel:1")[0][0] == "one"
    client.publish_version(**NAME)
    weights = {"AdditionalVersionWeights": {"2": 1.0}}
    client.update_alias(**NAME, Name="live", RoutingConfig=weights)
    assert invoke(client, FunctionName=found[2])[1]["ExecutedVersion"] == "2"

    with pytest.raises(ClientError) as unknown:
        invoke(client, Qualifier="none")
    assert code_of(unknown) == ("ResourceNotFoundException", 404)
    with pytest.raises(ClientError) as unknown:
        invoke(client, FunctionName="none")
    assert code_of(unknown) == ("ResourceNotFoundException", 404)


def test_what_cannot_be_run_is_refused(make: Callable[..., Any]) -> None:
    client = make("raise RuntimeError", Environment={"Variables": {}})
    for payload, kind, code in (
        (b"no JSON", "RequestResponse", ("InvalidRequestContentException", 400)),
        (b'"%s"' % (b"x" * 6_300_000), "RequestResponse", ("RequestTooLargeException", 413)),
        (b'"%s"' % (b"x" * 1_100_000), "Event", ("RequestTooLargeException", 413)),
    ):
        with pytest.raises(ClientError) as refused:
            client.invoke(**NAME, Payload=payload, InvocationType=kind)
        assert code_of(refused) == code
    assert client.invoke(**NAME, InvocationType="DryRun")["StatusCode"] == 204
    client.update_function_configuration(**NAME, Runtime="nodejs22.x")
    with pytest.raises(ClientError, match="localaws runs functions of Python") as refused:
        invoke(client)
    assert code_of(refused) == ("InvalidRuntimeException", 502)


def test_a_package_for_another_machine_says_so(make: Callable[..., Any]) -> None:
    client = make(
        Code={
            "ZipFile": package(
                "import fast\ndef handler(e, c): return 1",
                **{"fast.cpython-313-aarch64-linux-gnu.so": "\x7fELF"},
            )
        }
    )
    failed, answer = invoke(client)
    assert answer["FunctionError"] == "Unhandled"
    assert failed["errorType"] == "Runtime.ImportModuleError"
    assert (
        "cannot load the package's fast.cpython-313-aarch64-linux-gnu.so"
        in (failed["errorMessage"])
    )


def test_an_answer_that_is_too_large_is_an_error(make: Callable[..., Any]) -> None:
    failed, answer = invoke(make(), {"do": "large"})
    assert failed["errorType"] == "Function.ResponseSizeTooLarge"
    assert answer["FunctionError"] == "Unhandled"


def test_a_role_that_lambda_may_not_assume(make: Callable[..., Any], aws: LocalAws) -> None:
    aws.client("iam").create_role(RoleName="other", AssumeRolePolicyDocument=trust("ec2"))
    for account, why in ((ACCOUNT, "cannot be assumed by Lambda"), ("0" * 12, "Cross-account")):
        with pytest.raises(ClientError, match=why):
            aws.client("lambda").create_function(
                FunctionName="none",
                Role=f"arn:aws:iam::{account}:role/other",
                Runtime="python3.13",
                Handler="main.handler",
                Code={"ZipFile": package("")},
            )
    client = make(Role=create_role(aws.client("iam"), "turned", "lambda"))
    elsewhere = {"Role": f"arn:aws:iam::{ACCOUNT}:role/other"}
    with pytest.raises(ClientError, match="cannot be assumed by Lambda"):
        client.update_function_configuration(**NAME, **elsewhere)
    aws.client("iam").update_assume_role_policy(RoleName="turned", PolicyDocument=trust("ec2"))
    with pytest.raises(ClientError, match="cannot be assumed by Lambda") as refused:
        invoke(client)
    assert code_of(refused) == ("AccessDeniedException", 403)


def test_concurrency_is_reserved_and_limited(
    make: Callable[..., Any], aws: LocalAws, tmp_path: Path
) -> None:
    client = make()
    client.put_function_concurrency(**NAME, ReservedConcurrentExecutions=0)
    with pytest.raises(ClientError) as throttled:
        invoke(client)
    assert code_of(throttled) == ("TooManyRequestsException", 429)
    assert throttled.value.response["Reason"] == (
        "ReservedFunctionConcurrentInvocationLimitExceeded"
    )
    client.put_function_concurrency(**NAME, ReservedConcurrentExecutions=1)
    refused = tmp_path / "refused"
    refused.mkdir()
    with ThreadPoolExecutor(2) as threads:
        both = list(threads.map(lambda _: throttles(client, refused), range(2)))
    assert sorted(both) == [False, True]
    with pytest.raises(ClientError, match=r"below its minimum value of \[100\]"):
        client.put_function_concurrency(**NAME, ReservedConcurrentExecutions=901)
    client.delete_function_concurrency(**NAME)
    met = tmp_path / "met"
    met.mkdir()
    with ThreadPoolExecutor(2) as threads:
        both = list(threads.map(lambda _: throttles(client, met), range(2)))
    assert both == [False, False]
    until(lambda: metric(aws, "Throttles", **NAME) >= 2)
    until(lambda: metric(aws, "Duration", **NAME) > 0)


def throttles(client: Any, folder: Path) -> bool:
    """Whether one of two invocations at a time is throttled; each ends after both have begun."""
    try:
        invoke(client, {"do": "meet", "at": str(folder), "of": 2})
    except ClientError:
        (folder / "refused").touch()
        return True
    return False


def metric(aws: LocalAws, name: str, namespace: str = "AWS/Lambda", **dimensions: str) -> float:
    """Sum of a metric's values of the last minutes."""
    found = aws.client("cloudwatch").get_metric_statistics(
        Namespace=namespace,
        MetricName=name,
        Dimensions=[{"Name": key, "Value": value} for key, value in dimensions.items()],
        StartTime=time.time() - 600,
        EndTime=time.time() + 60,
        Period=3600,
        Statistics=["Sum"],
    )["Datapoints"]
    return float(sum(point["Sum"] for point in found))


def test_provisioned_concurrency_is_ready_before_it_is_used(
    make: Callable[..., Any], aws: LocalAws, tmp_path: Path
) -> None:
    client = make(FUNCTION, Environment={"Variables": {}})
    client.publish_version(**NAME)
    client.create_alias(**NAME, Name="live", FunctionVersion="1")
    asked = client.put_provisioned_concurrency_config(**LIVE, ProvisionedConcurrentExecutions=1)
    assert asked["Status"] == "IN_PROGRESS"
    ready = until_ready(client)
    assert ready["AvailableProvisionedConcurrentExecutions"] == 1
    begun = time.time()
    found, _ = invoke(client, {"do": "environment"}, **LIVE)
    assert found["AWS_LAMBDA_INITIALIZATION_TYPE"] == "provisioned-concurrency"
    assert invoke(client, **LIVE)[0]["started"] < begun
    met = {"do": "meet", "at": str(tmp_path), "of": 2}
    with ThreadPoolExecutor(2) as threads:
        kinds = list(threads.map(lambda _: invoke(client, met, **LIVE), range(2)))
    assert len({found["started"] for found, _ in kinds}) == 2
    for name, least in (
        ("Invocations", 4),
        ("ProvisionedConcurrencyInvocations", 3),
        ("ProvisionedConcurrencySpilloverInvocations", 1),
        ("ProvisionedConcurrencyUtilization", 1),
    ):
        until(partial(reaches, aws, name, least))

    # A new version behind the alias is made ready in the old one's place.
    client.update_function_code(**NAME, ZipFile=package("import main_missing"), Publish=True)
    client.update_alias(**NAME, Name="live", FunctionVersion="2")
    failed = until(
        lambda: (
            (found := client.get_provisioned_concurrency_config(**LIVE))["Status"] == "FAILED"
            and found
        )
    )
    assert failed["StatusReason"] == "FUNCTION_ERROR_INIT_FAILURE"
    client.update_alias(**NAME, Name="live", FunctionVersion="1")
    until_ready(client)
    client.delete_provisioned_concurrency_config(**LIVE)
    until(
        lambda: (
            invoke(client, {"do": "environment"}, **LIVE)[0]["AWS_LAMBDA_INITIALIZATION_TYPE"]
            == "on-demand"
        )
    )


def test_an_alias_that_moves_is_answered_by_the_version_before_until_all_are_ready(
    make: Callable[..., Any], tmp_path: Path
) -> None:
    client = make(FUNCTION + WAIT)
    client.publish_version(**NAME)
    client.create_alias(**NAME, Name="live", FunctionVersion="1")
    client.put_provisioned_concurrency_config(**LIVE, ProvisionedConcurrentExecutions=1)
    until_ready(client)
    gate = tmp_path / "gate"
    client.update_function_configuration(**NAME, Environment={"Variables": {"GATE": str(gate)}})
    client.publish_version(**NAME)

    alias = {**NAME, "Name": "live"}
    moved = client.update_alias(**alias, FunctionVersion="2")
    weights = {"AdditionalVersionWeights": {"1": 1.0}}
    assert moved["FunctionVersion"] == "2"
    assert moved["RoutingConfig"] == weights
    assert client.get_alias(**alias)["RoutingConfig"] == weights
    assert client.list_aliases(**NAME)["Aliases"][0]["RoutingConfig"] == weights
    assert invoke(client, **LIVE)[1]["ExecutedVersion"] == "1"
    with pytest.raises(ClientError, match="Alias with weights can not be used"):
        client.put_provisioned_concurrency_config(**LIVE, ProvisionedConcurrentExecutions=2)
    with pytest.raises(ClientError, match="aliases reference it"):
        client.delete_function(**NAME, Qualifier="1")

    gate.touch()
    until(lambda: "RoutingConfig" not in client.get_alias(**alias))
    assert client.get_provisioned_concurrency_config(**LIVE)["Status"] == "READY"
    assert invoke(client, **LIVE)[1]["ExecutedVersion"] == "2"


def reaches(aws: LocalAws, name: str, least: float) -> bool:
    return metric(aws, name, **NAME, Resource="kennel:live") >= least


def until_ready(client: Any) -> Any:
    return until(
        lambda: (
            (found := client.get_provisioned_concurrency_config(**LIVE))["Status"] == "READY"
            and found
        )
    )


def test_events_are_tried_again_and_then_handed_on(make: Callable[..., Any], aws: LocalAws) -> None:
    client = make("def handler(e, c):\n    print('tried')\n    raise ValueError('no')")
    client.update_function_configuration(**NAME, DeadLetterConfig={"TargetArn": QUEUE})
    client.put_function_event_invoke_config(
        **NAME,
        MaximumRetryAttempts=1,
        DestinationConfig={"OnFailure": {"Destination": QUEUE}},
    )
    answer = client.invoke(**NAME, InvocationType="Event", Payload=b'{"n": 1}')
    assert answer["StatusCode"] == 202
    sqs = aws.client("sqs")
    bodies: list[Any] = []
    url = sqs.get_queue_url(QueueName="failed")["QueueUrl"]

    def receive() -> bool:
        messages = sqs.receive_message(
            QueueUrl=url, MessageAttributeNames=["All"], MaxNumberOfMessages=10
        ).get("Messages", [])
        bodies.extend(
            (json.loads(found["Body"]), found.get("MessageAttributes")) for found in messages
        )
        return len(bodies) == 2

    until(receive)
    (record, _), (event, attributes) = sorted(bodies, key=lambda found: found[1] is not None)
    assert event == record["requestPayload"] == {"n": 1}
    assert record["requestContext"]["condition"] == "RetriesExhausted"
    assert record["requestContext"]["approximateInvokeCount"] == 2
    assert record["requestContext"]["requestId"] == answer["ResponseMetadata"]["RequestId"]
    assert record["responsePayload"]["errorMessage"] == "no"
    assert attributes["ErrorMessage"]["StringValue"] == "no"


def test_metrics_in_the_log_are_taken_out_of_it(make: Callable[..., Any], aws: LocalAws) -> None:
    invoke(make(), {"do": "metric"})
    until(lambda: metric(aws, "Answered", "Kennel", service="tests") == 2)


def test_without_the_right_to_log_a_function_runs(make: Callable[..., Any], aws: LocalAws) -> None:
    role = create_role(aws.client("iam"), "silent", "lambda", rights=())
    aws.client("logs").create_log_group(logGroupName="/aws/lambda/silent")
    client = make(
        Role=role,
        LoggingConfig={"LogGroup": "/aws/lambda/silent"},
    )
    _, answer = invoke(client, LogType="Tail")
    assert b"REPORT RequestId" in base64.b64decode(answer["LogResult"])
    # The next lines are sent after these.
    client.update_function_configuration(**NAME, Role=ROLE)
    invoke(client, {"do": "heard"})

    def messages() -> list[str]:
        return [event["message"] for event in log_of(aws, "/aws/lambda/silent")]

    until(lambda: "event heard" in messages())
    assert "event None" not in messages()


def ask(
    url: str,
    method: str = "POST",
    body: bytes = b"",
    key: str = "",
    secret: str = "",
    **headers: str,
) -> tuple[int, Any, Any]:
    """Status, content and headers of a function URL's answer."""
    request = AWSRequest(method, url, headers, body)
    if key:
        SigV4Auth(Credentials(key, secret or key), "lambda", "us-east-1").add_auth(request)
    made = urllib.request.Request(url, body or None, dict(request.headers.items()), method=method)
    try:
        with urllib.request.urlopen(made, timeout=SECONDS) as answer:
            text = answer.read().decode()
            return answer.status, json.loads(text) if text else "", answer.headers
    except urllib.error.HTTPError as error:
        text = error.read().decode()
        return error.code, json.loads(text), error.headers


def test_a_function_url_asks_for_a_signature(make: Callable[..., Any], aws: LocalAws) -> None:
    client = make()
    client.publish_version(**NAME)
    client.create_alias(**NAME, Name="live", FunctionVersion="1")
    cors = {"AllowOrigins": ["https://here"], "AllowMethods": ["POST"], "MaxAge": 60}
    made = client.create_function_url_config(**LIVE, AuthType="AWS_IAM", Cors=cors)
    url = made["FunctionUrl"]
    assert client.get_function_url_config(**LIVE)["FunctionUrl"] == url
    status, content, headers = ask(f"{url}a%20b?x=1&x=2")
    assert (status, headers["x-amzn-ErrorType"]) == (403, "AccessDeniedException")
    assert content["Message"].startswith("Forbidden.")
    assert ask(url, key="unknown")[0] == 403
    assert ask(url, key="test", secret="wrong")[0] == 403
    assert ask(url, key="test", **{"Host": "evil.example"})[0] == 403

    status, _, headers = ask(url, "OPTIONS", Origin="https://here")
    assert (status, headers["Access-Control-Allow-Methods"]) == (200, "POST")
    status, event, headers = ask(
        f"{url}a%20b?x=1&x=2",
        body=json.dumps({"do": "ask"}).encode(),
        key="test",
        Cookie="c=3; d=4",
        Origin="https://here",
        **{"Content-Type": "application/json"},
    )
    assert status == 200
    assert headers["Access-Control-Allow-Origin"] == "https://here"
    event = event["event"]
    assert event["rawPath"] == "/a b"
    assert event["queryStringParameters"] == {"x": "1,2"}
    assert event["cookies"] == ["c=3", "d=4"]
    assert (event["body"], event["isBase64Encoded"]) == ('{"do": "ask"}', False)
    assert event["requestContext"]["http"]["method"] == "POST"
    assert event["requestContext"]["authorizer"]["iam"]["accessKey"] == "test"

    _, event, _ = ask(url, body=b"\xff\xd8", key="test", **{"Content-Type": "image/jpeg"})
    assert event["event"]["isBase64Encoded"]
    assert base64.b64decode(event["event"]["body"]) == b"\xff\xd8"
    client.delete_function_url_config(**LIVE)

    def refuses() -> bool:
        try:
            return ask(url, key="test")[0] == 404
        except OSError:
            return True

    until(refuses)


def test_a_public_url_needs_both_rights_for_everyone(make: Callable[..., Any]) -> None:
    client = make()
    url = client.create_function_url_config(**NAME, AuthType="NONE")["FunctionUrl"]
    assert ask(url)[0] == 403
    everyone = {**NAME, "Principal": "*"}
    client.add_permission(
        **everyone,
        StatementId="url",
        Action="lambda:InvokeFunctionUrl",
        FunctionUrlAuthType="NONE",
    )
    assert ask(url)[0] == 403
    client.add_permission(
        **everyone,
        StatementId="function",
        Action="lambda:InvokeFunction",
        InvokedViaFunctionUrl=True,
    )
    status, content, _ = ask(url, body=b'{"do": 1}', **{"Content-Type": "application/json"})
    assert (status, content["event"]["requestContext"]["accountId"]) == (200, "anonymous")
    client.put_function_concurrency(**NAME, ReservedConcurrentExecutions=0)
    status, content, _ = ask(url)
    assert (status, content["message"]) == (429, "Rate Exceeded.")
    client.delete_function_concurrency(**NAME)
    client.update_function_code(**NAME, ZipFile=package("def handler(e, c): raise ValueError"))
    assert ask(url)[:2] == (502, {"Message": "Internal Server Error"})
    client.update_function_code(
        **NAME,
        ZipFile=package(
            "def handler(e, c): return {'statusCode': 201, 'cookies': ['a=1', 'b=2'],"
            " 'headers': {'X-Own': 'yes'}, 'body': 'IjEi', 'isBase64Encoded': True}"
        ),
    )
    status, content, headers = ask(url)
    assert (status, content, headers["x-own"]) == (201, "1", "yes")
    assert headers.get_all("Set-Cookie") == ["a=1", "b=2"]


def test_the_real_package_answers_for_an_endpoint_that_is_not_there(
    make: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    zip_path = build(tmp_path_factory.mktemp("lambda"), "arm64")
    client = make(
        Code={"ZipFile": zip_path.read_bytes()},
        Handler="lambda_src.handler.handler",
        Architectures=["arm64"],
        MemorySize=512,
        TracingConfig={"Mode": "Active"},
        Environment={
            "Variables": {"ENDPOINT_NAME": "none", "POWERTOOLS_METRICS_NAMESPACE": "Kennel"}
        },
    )
    image = base64.b64encode(b"\x89PNG\r\n\x1a\n a picture").decode()
    answer, _ = invoke(client, {"image": image})
    assert answer["statusCode"] == 502
    assert json.loads(answer["body"])["error"] == "endpoint_failed"


def test_a_restart_brings_back_what_was_ready_and_served(
    make: Callable[..., Any], aws: LocalAws
) -> None:
    client = make()
    client.publish_version(**NAME)
    client.create_alias(**NAME, Name="live", FunctionVersion="1")
    client.put_provisioned_concurrency_config(**LIVE, ProvisionedConcurrentExecutions=1)
    url = client.create_function_url_config(**LIVE, AuthType="AWS_IAM")["FunctionUrl"]
    until_ready(client)
    aws.restart()
    until_ready(client)
    assert client.get_function_url_config(**LIVE)["FunctionUrl"] == url
    assert ask(url, key="test")[0] == 200
