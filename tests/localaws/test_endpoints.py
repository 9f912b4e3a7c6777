"""Endpoints that are created through SageMaker's API and answer through its runtime."""

import io
import json
import re
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from PIL import Image

from tests.archives import make_archive
from tests.localaws.conftest import LocalAws, until
from tests.localaws.raw import send
from tests.localaws.roles import create_role

ACCOUNT = "123456789012"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/serving"
REGISTRY = f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com"
IMAGE = f"{REGISTRY}/kennel-serving:good"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
# A container with the command line, the ready line and the routes of the real one. It answers with
# a file of its model's, and does what a request's body says.
SERVER = """
import http.server, json, os, pathlib, sys, time
assert sys.argv[1:] == ["serve"], sys.argv
model = pathlib.Path(os.environ["SM_MODEL_DIR"])
answer = (model / "answer").read_text()
if pathlib.Path(__file__).with_name("crash").exists():
    sys.exit("error: no memory")
hold = pathlib.Path(__file__).with_name("hold")
while hold.exists():
    time.sleep(0.01)
if answer == "broken":
    sys.exit("error: no sound model")
class Requests(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.reply(200, "")
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode(errors="replace")
        what, _, value = body.partition(" ")
        if what == "die":
            os._exit(9)
        if what == "sleep":
            time.sleep(float(value))
        if what == "write":
            (model / "answer").write_text("x")
        if what == "tell":
            told = {"pid": os.getpid(), "environment": dict(os.environ)}
            return self.reply(200, json.dumps(told))
        self.reply(int(value) if what == "status" else 200, answer)
    def reply(self, status, text):
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.send_header("Content-Type", "application/json")
        attributes = self.headers.get("X-Amzn-SageMaker-Custom-Attributes")
        if attributes:
            self.send_header("X-Amzn-SageMaker-Custom-Attributes", attributes + "-back")
        self.end_headers()
        self.wfile.write(text.encode())
    def log_message(self, *_):
        pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
server = Server(("127.0.0.1", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Requests)
print("loaded", answer, flush=True)
print(json.dumps({"event": "ready", "port": server.server_port}), flush=True)
server.serve_forever()
"""


class Endpoint:
    """The endpoint `kennel` of a localaws, its models and its configurations."""

    def __init__(self, aws: LocalAws, code: Path) -> None:
        self.aws = aws
        self._code = code
        self.sagemaker = aws.client("sagemaker")
        self._runtime = boto3.client(
            "sagemaker-runtime",
            region_name="us-east-1",
            endpoint_url=aws.endpoint,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(retries={"total_max_attempts": 1}, max_pool_connections=64),
        )

    @contextmanager
    def starts(self, how: str) -> Iterator[None]:
        """Containers that start within the block `crash`, or `hold` until its end."""
        (self._code / "inference" / how).touch()
        yield
        (self._code / "inference" / how).unlink()

    def model(self, name: str, answer: str, image: str = IMAGE) -> None:
        """A model whose container answers with `answer`."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for place, text in (("answer", answer), ("manifest.json", ""), ("model.onnx", "")):
                member = tarfile.TarInfo(place)
                member.size = len(text)
                archive.addfile(member, io.BytesIO(text.encode()))
        key = f"models/{name}/model.tar.gz"
        self.aws.client("s3").put_object(Bucket="kennel", Key=key, Body=packed.getvalue())
        self.sagemaker.create_model(
            ModelName=name,
            ExecutionRoleArn=ROLE,
            PrimaryContainer={
                "Image": image,
                "ModelDataUrl": f"s3://kennel/{key}",
                "Environment": {"PYTHONPATH": str(self._code), "COLOUR": name},
            },
        )

    def config(self, name: str, *variants: dict[str, Any], **more: Any) -> None:
        """A configuration; a variant is `main`, of one instance, with the model of its name."""
        default = {
            "VariantName": "main",
            "ModelName": name,
            "InstanceType": "ml.m5.large",
            "InitialInstanceCount": 1,
            "InitialVariantWeight": 1.0,
        }
        self.sagemaker.create_endpoint_config(
            EndpointConfigName=name,
            ProductionVariants=[{**default, **given} for given in variants or ({},)],
            **more,
        )

    def create(self, config: str) -> dict[str, Any]:
        self.sagemaker.create_endpoint(EndpointName="kennel", EndpointConfigName=config)
        return self.settled()

    def update(self, config: str, **more: Any) -> None:
        self.sagemaker.update_endpoint(EndpointName="kennel", EndpointConfigName=config, **more)

    def describe(self) -> dict[str, Any]:
        found: dict[str, Any] = self.sagemaker.describe_endpoint(EndpointName="kennel")
        return found

    def settled(self) -> dict[str, Any]:
        """The endpoint once it is in service or has failed."""
        return until(
            self.describe, lambda found: found["EndpointStatus"] in {"InService", "Failed"}
        )

    def invoke(self, body: bytes = b"", **more: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self._runtime.invoke_endpoint(
            EndpointName="kennel", Body=body, **more
        )
        return answer

    def answer(self, body: bytes = b"", **more: Any) -> str:
        text: str = self.invoke(body, **more)["Body"].read().decode()
        return text

    def told(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.answer(b"tell"))
        return told

    def refusal(self, body: bytes = b"", **more: Any) -> dict[str, Any]:
        with pytest.raises(ClientError) as error:
            self.invoke(body, **more)
        found: dict[str, Any] = error.value.response
        return found


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    running = LocalAws(tmp_path_factory.mktemp("endpoints"), "--time-scale", "100")
    create_role(running.client("iam"), "serving", "sagemaker", rights=())
    running.client("s3").create_bucket(Bucket="kennel")
    running.client("ecr").create_repository(repositoryName="kennel-serving")
    running.client("ecr").put_image(
        repositoryName="kennel-serving",
        imageManifest=json.dumps({"schemaVersion": 2, "mediaType": MANIFEST}),
        imageTag="good",
    )
    yield running
    running.stop()


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What runs in the place of the real `inference`."""
    folder = tmp_path_factory.mktemp("code")
    (folder / "inference").mkdir()
    (folder / "inference" / "__init__.py").touch()
    (folder / "inference" / "server.py").write_text(SERVER)
    return folder


@pytest.fixture(scope="module")
def kennel(aws: LocalAws, code: Path) -> Endpoint:
    """Models `red` and `blue` and their configurations."""
    made = Endpoint(aws, code)
    for name in ("red", "blue"):
        made.model(name, name)
        made.config(name)
    return made


@pytest.fixture
def endpoint(kennel: Endpoint) -> Iterator[Endpoint]:
    """One that is gone after the test."""
    yield kennel
    if kennel.sagemaker.list_endpoints()["Endpoints"]:
        kennel.settled()
        kennel.sagemaker.delete_endpoint(EndpointName="kennel")
        until(kennel.sagemaker.list_endpoints, lambda found: not found["Endpoints"])


def test_an_endpoint_answers_as_its_container_does(endpoint: Endpoint) -> None:
    with endpoint.starts("hold"):
        endpoint.sagemaker.create_endpoint(EndpointName="kennel", EndpointConfigName="red")
        described = endpoint.describe()
        assert described["EndpointStatus"] == "Creating"
        assert described["PendingDeploymentSummary"]["EndpointConfigName"] == "red"
        assert endpoint.refusal()["Error"]["Message"] == (
            f"Endpoint kennel of account {ACCOUNT} not found."
        )
    described = endpoint.settled()
    assert described["EndpointStatus"] == "InService", described
    (variant,) = described["ProductionVariants"]
    assert (variant["CurrentInstanceCount"], variant["CurrentWeight"]) == (1, 1.0)
    assert "PendingDeploymentSummary" not in described
    answer = endpoint.invoke(
        bytes(range(256)), ContentType="image/png", CustomAttributes="a", InferenceId="b"
    )
    assert answer["Body"].read() == b"red"
    assert answer["ContentType"] == "application/json"
    assert answer["InvokedProductionVariant"] == "main"
    assert answer["CustomAttributes"] == "a-back"


def test_a_container_has_what_sagemaker_gives_it(endpoint: Endpoint) -> None:
    endpoint.create("red")
    told = endpoint.told()
    assert told["environment"]["COLOUR"] == "red"
    keys = [told["environment"][f"AWS_{name}"] for name in ("ACCESS_KEY_ID", "SESSION_TOKEN")]
    assert all(keys)
    assert keys[0] != "test"
    folder = Path(told["environment"]["SM_MODEL_DIR"])
    modes = {path.name: path.stat().st_mode & 0o222 for path in folder.iterdir()}
    assert modes == {"answer": 0, "manifest.json": 0, "model.onnx": 0}
    endpoint.sagemaker.delete_endpoint(EndpointName="kennel")
    until(endpoint.sagemaker.list_endpoints, lambda found: not found["Endpoints"])
    assert not psutil.pid_exists(told["pid"])
    assert not folder.exists()
    logs = endpoint.aws.client("logs")
    group = {"logGroupName": "/aws/sagemaker/Endpoints/kennel"}
    streams = logs.describe_log_streams(**group)["logStreams"]
    names = [stream["logStreamName"] for stream in streams]
    assert all(name.startswith("main/i-") for name in names)
    events = [
        event["message"]
        for name in names
        for event in logs.get_log_events(**group, logStreamName=name)["events"]
    ]
    assert "loaded red" in events


def test_a_containers_error_is_a_model_error(endpoint: Endpoint) -> None:
    endpoint.create("red")
    error = endpoint.refusal(b"status 400")
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert error["Error"]["Code"] == "ModelError"
    assert (error["OriginalStatusCode"], error["OriginalMessage"]) == (400, "red")
    assert error["LogStreamArn"].endswith(":log-group:/aws/sagemaker/Endpoints/kennel")
    assert error["Error"]["Message"].startswith("Received client error (400) from primary")


def test_a_body_of_more_than_6_mebibytes_is_refused(endpoint: Endpoint) -> None:
    endpoint.create("red")
    assert endpoint.answer(bytes(6 * 2**20)) == "red"
    error = endpoint.refusal(bytes(6 * 2**20 + 1))["Error"]
    assert error["Code"] == "ValidationError"
    assert "less than or equal to 6291456" in error["Message"]


class Load:
    """Requests one after the other, while a block runs: what was answered and what failed."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.answers: list[str] = []
        self.errors: list[dict[str, Any]] = []
        self._endpoint = endpoint
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self.answers.append(self._endpoint.answer())
            except ClientError as error:
                self.errors.append(error.response)
            time.sleep(0.02)

    def __enter__(self) -> "Load":
        self._thread.start()
        until(lambda: self.answers)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def test_an_update_moves_all_requests_and_fails_none(endpoint: Endpoint) -> None:
    endpoint.create("red")
    pid = endpoint.told()["pid"]
    with Load(endpoint) as load:
        with endpoint.starts("hold"):
            endpoint.update("blue")
            described = endpoint.describe()
            assert described["EndpointStatus"] == "Updating"
            assert described["EndpointConfigName"] == "red"
            (pending,) = described["PendingDeploymentSummary"]["ProductionVariants"]
            assert (pending["CurrentInstanceCount"], pending["DesiredInstanceCount"]) == (0, 1)
            with pytest.raises(ClientError, match="Cannot update in-progress endpoint"):
                endpoint.update("blue")
            with pytest.raises(ClientError, match="Cannot update in-progress endpoint"):
                endpoint.sagemaker.delete_endpoint(EndpointName="kennel")
        described = endpoint.settled()
        until(lambda: load.answers[-1], lambda answer: answer == "blue")
    assert (described["EndpointStatus"], described["EndpointConfigName"]) == ("InService", "blue")
    assert "FailureReason" not in described
    assert not load.errors
    first_blue = load.answers.index("blue")
    assert load.answers == ["red"] * first_blue + ["blue"] * (len(load.answers) - first_blue)
    until(lambda: psutil.pid_exists(pid), lambda exists: not exists)


def test_an_endpoint_stays_on_what_serves(endpoint: Endpoint) -> None:
    endpoint.create("red")
    endpoint.model("bad", "broken")
    endpoint.config("bad")
    with Load(endpoint) as load:
        endpoint.update("bad")
        described = endpoint.settled()
    assert (described["EndpointStatus"], described["EndpointConfigName"]) == ("InService", "red")
    assert described["FailureReason"] == (
        "The primary container for production variant main did not pass the ping health check."
        " Please check CloudWatch logs for this endpoint."
    )
    assert (set(load.answers), load.errors) == ({"red"}, [])
    endpoint.update("blue")
    assert "FailureReason" not in endpoint.settled()
    assert endpoint.answer() == "blue"


@pytest.mark.parametrize(
    ("files", "held"),
    [
        (["model.pth"], "holds model.pth; "),
        (["code/inference.py", "model.pth", "model.onnx"], "holds code/inference.py, model.onnx, "),
        (["manifest.json", "1/saved_model.pb"], "holds 1/saved_model.pb, manifest.json; "),
        ([f"{number}.bin" for number in range(7)], "4.bin and 2 more; "),
        ([], "holds no file; "),
        (None, "the model has no ModelDataUrl; "),
    ],
)
def test_a_model_for_another_server_is_told_without_starting_ours(
    endpoint: Endpoint, files: list[str] | None, held: str, request: pytest.FixtureRequest
) -> None:
    name = f"other-{request.node.callspec.indices['files']}"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for place in files or ():
            archive.addfile(tarfile.TarInfo(place))
    key = f"models/{name}/model.tar.gz"
    endpoint.aws.client("s3").put_object(Bucket="kennel", Key=key, Body=packed.getvalue())
    given = {} if files is None else {"ModelDataUrl": f"s3://kennel/{key}"}
    endpoint.sagemaker.create_model(
        ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer={"Image": IMAGE, **given}
    )
    endpoint.config(name)
    described = endpoint.create(name)
    assert described["EndpointStatus"] == "Failed"
    assert described["FailureReason"].startswith(
        "The primary container for production variant main did not pass the ping health check. ("
    )
    assert held in described["FailureReason"]
    assert "serves an archive with manifest.json and model.onnx" in described["FailureReason"]


def test_an_endpoint_that_never_served_has_failed(endpoint: Endpoint) -> None:
    endpoint.model("bad-container", "broken")
    endpoint.config("bad-container")
    described = endpoint.create("bad-container")
    assert described["EndpointStatus"] == "Failed"
    assert "did not pass the ping health check" in described["FailureReason"]
    assert endpoint.refusal()["Error"]["Code"] == "ValidationError"
    with pytest.raises(ClientError, match="Delete it"):
        endpoint.update("red")


def test_an_image_that_went_after_its_model_was_made(endpoint: Endpoint) -> None:
    ecr, images = endpoint.aws.client("ecr"), [{"imageTag": "gone"}]
    ecr.put_image(
        repositoryName="kennel-serving",
        imageManifest=json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "layers": []}),
        imageTag="gone",
    )
    endpoint.model("bad-image", "x", image=f"{REGISTRY}/kennel-serving:gone")
    endpoint.config("bad-image")
    ecr.batch_delete_image(repositoryName="kennel-serving", imageIds=images)
    described = endpoint.create("bad-image")
    assert (described["EndpointStatus"], described["FailureReason"]) == (
        "Failed",
        f"The image '{REGISTRY}/kennel-serving:gone' does not exist.",
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "Could not access model data"), (b"x", "Failed to extract")],
    ids=["none", "damaged"],
)
def test_a_model_without_a_sound_archive(
    endpoint: Endpoint, content: bytes | None, reason: str, request: pytest.FixtureRequest
) -> None:
    name = f"archive-{request.node.callspec.id}"
    endpoint.model(name, "x")
    endpoint.config(name)
    s3, key = endpoint.aws.client("s3"), f"models/{name}/model.tar.gz"
    s3.delete_object(Bucket="kennel", Key=key)
    if content:
        s3.put_object(Bucket="kennel", Key=key, Body=content)
    assert reason in endpoint.create(name)["FailureReason"]


def test_a_role_that_sagemaker_may_not_take(endpoint: Endpoint) -> None:
    iam = endpoint.aws.client("iam")
    role = create_role(iam, "unknown", "sagemaker", ())
    endpoint.sagemaker.create_model(
        ModelName="other", ExecutionRoleArn=role, PrimaryContainer={"Image": IMAGE}
    )
    iam.delete_role(RoleName="unknown")
    endpoint.config("other")
    assert "there is no role" in endpoint.create("other")["FailureReason"]


def test_a_canary_takes_its_share_until_an_alarm_ends_it(endpoint: Endpoint) -> None:
    alarm = {"AlarmName": "kennel-rollback", "StateReason": "a test"}
    cloudwatch = endpoint.aws.client("cloudwatch")
    cloudwatch.put_metric_alarm(
        AlarmName="kennel-rollback",
        Namespace="probe",
        MetricName="probe",
        ComparisonOperator="GreaterThanThreshold",
        EvaluationPeriods=1,
        Period=3600,
        Statistic="Sum",
        Threshold=1.0,
    )
    endpoint.create("red")
    canary = {
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": {
                "Type": "CANARY",
                "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 50},
                "WaitIntervalInSeconds": 3600,
            },
            "TerminationWaitInSeconds": 60,
        },
        "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "kennel-rollback"}]},
    }
    with Load(endpoint) as load:
        endpoint.update("blue", DeploymentConfig=canary)
        until(lambda: load.answers[-20:], lambda last: {"red", "blue"} == set(last))
        cloudwatch.set_alarm_state(**alarm, StateValue="ALARM")
        described = endpoint.settled()
        seen = len(load.answers)
        until(lambda: len(load.answers), lambda count: count > seen + 20)
    assert described["EndpointConfigName"] == "red"
    assert "kennel-rollback" in described["FailureReason"]
    assert set(load.answers[seen + 1 :]) == {"red"}
    assert not load.errors
    cloudwatch.delete_alarms(AlarmNames=["kennel-rollback"])


def test_all_at_once_is_watched_only_while_the_old_instances_are_kept(endpoint: Endpoint) -> None:
    cloudwatch = endpoint.aws.client("cloudwatch")
    alarm = {"AlarmName": "kennel-at-once"}
    cloudwatch.put_metric_alarm(
        **alarm,
        Namespace="probe",
        MetricName="probe",
        Statistic="Sum",
        ComparisonOperator="GreaterThanThreshold",
        EvaluationPeriods=1,
        Period=3600,
        Threshold=1.0,
        TreatMissingData="breaching",
    )
    cloudwatch.set_alarm_state(**alarm, StateValue="ALARM", StateReason="a test")
    endpoint.create("red")

    def released(kept_seconds: int) -> str:
        routing = {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 300}
        policy = {
            "TrafficRoutingConfiguration": routing,
            "TerminationWaitInSeconds": kept_seconds,
        }
        guard = {"BlueGreenUpdatePolicy": policy, "AutoRollbackConfiguration": {"Alarms": [alarm]}}
        endpoint.update("blue", DeploymentConfig=guard)
        return str(endpoint.settled()["EndpointConfigName"])

    assert released(180) == "red"
    assert released(0) == "blue"
    cloudwatch.delete_alarms(AlarmNames=[alarm["AlarmName"]])


def test_a_rolling_update_replaces_the_instances_in_batches(endpoint: Endpoint) -> None:
    for name in ("red", "blue"):
        endpoint.config(f"{name}-2", {"ModelName": name, "InitialInstanceCount": 2})
    endpoint.create("red-2")
    rolling = {
        "RollingUpdatePolicy": {
            "MaximumBatchSize": {"Type": "CAPACITY_PERCENT", "Value": 50},
            "WaitIntervalInSeconds": 180,
        }
    }
    with Load(endpoint) as load:
        endpoint.update("blue-2", DeploymentConfig=rolling)
        mixed = until(
            endpoint.describe,
            lambda found: found["ProductionVariants"][0]["CurrentInstanceCount"] == 1,
        )
        described = endpoint.settled()
    (pending,) = mixed["PendingDeploymentSummary"]["ProductionVariants"]
    assert pending["CurrentInstanceCount"] in {1, 2}
    assert described["EndpointConfigName"] == "blue-2"
    assert described["ProductionVariants"][0]["CurrentInstanceCount"] == 2
    assert (set(load.answers), load.errors) == ({"red", "blue"}, [])
    assert endpoint.answer() == "blue"


def scale(endpoint: Endpoint, count: int) -> None:
    desired = {"VariantName": "main", "DesiredInstanceCount": count}
    endpoint.sagemaker.update_endpoint_weights_and_capacities(
        EndpointName="kennel", DesiredWeightsAndCapacities=[desired]
    )


def counts(found: dict[str, Any]) -> tuple[str, int, int]:
    """Status, instances that serve, instances that are wanted."""
    (variant,) = found["ProductionVariants"]
    wanted = variant["DesiredInstanceCount"]
    return found["EndpointStatus"], variant["CurrentInstanceCount"], wanted


def test_instances_start_and_end_as_wanted(endpoint: Endpoint) -> None:
    endpoint.create("red")
    with endpoint.starts("hold"):
        scale(endpoint, 3)
        assert counts(endpoint.describe()) == ("Updating", 1, 3)
    assert counts(endpoint.settled()) == ("InService", 3, 3)
    pids = {endpoint.told()["pid"] for _ in range(40)}
    assert len(pids) == 3
    with Load(endpoint) as load:
        scale(endpoint, 1)
        assert counts(endpoint.settled()) == ("InService", 1, 1)
    assert not load.errors
    assert len({endpoint.told()["pid"] for _ in range(10)}) == 1
    assert sum(map(psutil.pid_exists, pids)) == 1


def test_instances_that_do_not_start_leave_those_that_serve(endpoint: Endpoint) -> None:
    endpoint.create("red")
    with endpoint.starts("crash"):
        scale(endpoint, 2)
        described = endpoint.settled()
    assert counts(described) == ("InService", 1, 1)
    assert "did not pass the ping health check" in described["FailureReason"]
    assert endpoint.answer() == "red"
    scale(endpoint, 2)
    described = endpoint.settled()
    assert counts(described) == ("InService", 2, 2)
    assert "FailureReason" not in described


def test_variants_by_weight_and_by_name(endpoint: Endpoint) -> None:
    def weigh(name: str, weight: float) -> None:
        endpoint.sagemaker.update_endpoint_weights_and_capacities(
            EndpointName="kennel",
            DesiredWeightsAndCapacities=[{"VariantName": name, "DesiredWeight": weight}],
        )
        endpoint.settled()

    endpoint.config(
        "both",
        {"VariantName": "red", "ModelName": "red"},
        {"VariantName": "blue", "ModelName": "blue", "InitialVariantWeight": 0.0},
    )
    endpoint.create("both")
    assert {endpoint.answer() for _ in range(20)} == {"red"}
    assert endpoint.invoke(TargetVariant="blue")["InvokedProductionVariant"] == "blue"
    weigh("blue", 1.0)
    assert {endpoint.answer() for _ in range(40)} == {"red", "blue"}
    weigh("red", 0.0)
    assert {endpoint.answer() for _ in range(20)} == {"blue"}
    assert endpoint.refusal(TargetVariant="green")["Error"]["Code"] == "ValidationError"


def test_a_container_that_dies_is_replaced(endpoint: Endpoint) -> None:
    endpoint.create("red")
    pid = endpoint.told()["pid"]
    with endpoint.starts("hold"):
        error = endpoint.refusal(b"die")
        assert (error["Error"]["Code"], error["OriginalStatusCode"]) == ("ModelError", 0)
        assert endpoint.refusal()["Error"]["Code"] == "ServiceUnavailable"
    until(lambda: answers_with(endpoint, "red"))
    assert endpoint.told()["pid"] != pid
    assert endpoint.describe()["EndpointStatus"] == "InService"


def test_one_of_two_containers_that_is_killed_under_load(endpoint: Endpoint) -> None:
    endpoint.config("two", {"ModelName": "red", "InitialInstanceCount": 2})
    endpoint.create("two")
    pids: set[int] = set()
    while len(pids) < 2:
        pids.add(endpoint.told()["pid"])
    with Load(endpoint) as load:
        psutil.Process(pids.pop()).kill()
        seen = len(load.answers) + len(load.errors)
        until(lambda: len(load.answers) + len(load.errors), lambda count: count > seen + 5)
        until(lambda: endpoint.told()["pid"], lambda pid: pid not in pids)
    # A request that it had has no answer; those that came later went to the other one.
    assert len(load.errors) <= 1
    assert set(load.answers) == {"red"}


def test_requests_and_answers_are_captured(endpoint: Endpoint) -> None:
    endpoint.config(
        "captured",
        {"ModelName": "red"},
        DataCaptureConfig={
            "EnableCapture": True,
            "InitialSamplingPercentage": 100,
            "DestinationS3Uri": "s3://kennel/capture",
            "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
            "CaptureContentTypeHeader": {"JsonContentTypes": ["application/json"]},
        },
    )
    assert endpoint.create("captured")["DataCaptureConfig"]["CaptureStatus"] == "Started"
    for position in range(3):
        endpoint.invoke(b"\xff\xd8", ContentType="image/jpeg", InferenceId=f"id-{position}")
    s3 = endpoint.aws.client("s3")

    def captured() -> list[dict[str, Any]]:
        found = s3.list_objects_v2(Bucket="kennel", Prefix="capture/").get("Contents", [])
        keys = [each["Key"] for each in found]
        pattern = r"capture/kennel/main/\d{4}/\d\d/\d\d/\d\d/\d\d-\d\d-\d{3}-[0-9a-f-]{36}\.jsonl"
        assert all(re.fullmatch(pattern, key) for key in keys), keys
        bodies = [s3.get_object(Bucket="kennel", Key=key)["Body"].read() for key in keys]
        return [json.loads(line) for body in bodies for line in body.splitlines()]

    lines = until(captured, lambda found: len(found) == 3)
    assert {line["eventMetadata"]["inferenceId"] for line in lines} == {"id-0", "id-1", "id-2"}
    assert lines[0]["captureData"] == {
        "endpointInput": {
            "observedContentType": "image/jpeg",
            "mode": "INPUT",
            "data": "/9g=",
            "encoding": "BASE64",
        },
        "endpointOutput": {
            "observedContentType": "application/json",
            "mode": "OUTPUT",
            "data": "red",
            "encoding": "JSON",
        },
    }


def test_a_shadow_gets_copies(endpoint: Endpoint) -> None:
    shadow = {
        "VariantName": "shadow",
        "ModelName": "blue",
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
        "InitialVariantWeight": 1.0,
    }
    endpoint.config("shadowed", {"ModelName": "red"}, ShadowProductionVariants=[shadow])
    described = endpoint.create("shadowed")
    assert described["ShadowProductionVariants"][0]["CurrentInstanceCount"] == 1
    assert {endpoint.answer() for _ in range(10)} == {"red"}
    until(lambda: total(endpoint, "Invocations", "shadow"), lambda count: count == 10)


def total(endpoint: Endpoint, metric: str, variant: str, statistic: str = "Sum") -> float:
    """A statistic of a metric over the last minutes."""
    now = datetime.now(UTC)
    found = endpoint.aws.client("cloudwatch").get_metric_statistics(
        Namespace="AWS/SageMaker",
        MetricName=metric,
        Dimensions=[
            {"Name": "EndpointName", "Value": "kennel"},
            {"Name": "VariantName", "Value": variant},
        ],
        StartTime=now - timedelta(minutes=10),
        EndTime=now + timedelta(minutes=1),
        Period=3600,
        Statistics=[statistic],
    )["Datapoints"]
    return float(sum(point[statistic] for point in found))


def test_requests_are_counted(endpoint: Endpoint) -> None:
    variant = {"VariantName": "counted", "ModelName": "red", "InitialInstanceCount": 2}
    endpoint.config("counted", variant)
    endpoint.create("counted")
    for body in (b"", b"", b"status 400", b"status 500", b"sleep 1"):
        with suppress(ClientError):
            endpoint.invoke(body)
    until(lambda: total(endpoint, "Invocations", "counted"), lambda count: count == 5)
    sums = {
        name: total(endpoint, name, "counted")
        for name in (
            "Invocation4XXErrors",
            "Invocation5XXErrors",
            "InvocationModelErrors",
            "InvocationsPerInstance",
        )
    }
    assert list(sums.values()) == [1, 1, 2, 2.5]
    slowest = total(endpoint, "ModelLatency", "counted", "Maximum")
    assert 1e6 <= slowest < 60e6
    assert total(endpoint, "OverheadLatency", "counted", "Maximum") < slowest
    # One request for a second at two instances.
    assert total(endpoint, "ConcurrentRequestsPerModel", "counted", "Maximum") >= 0.4


def test_endpoints_are_there_again_after_a_restart(endpoint: Endpoint) -> None:
    wait = {
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0},
            "TerminationWaitInSeconds": 600,
        }
    }
    endpoint.model("green", "green")
    endpoint.config("green")
    endpoint.create("green")
    pid = endpoint.told()["pid"]
    # The model's record may go while it serves.
    endpoint.sagemaker.delete_model(ModelName="green")
    endpoint.sagemaker.delete_endpoint_config(EndpointConfigName="green")
    endpoint.update("blue", DeploymentConfig=wait)
    until(lambda: answers_with(endpoint, "blue"))
    assert endpoint.describe()["EndpointStatus"] == "Updating"
    # Another one, whose model cannot be fetched again.
    lost = {"EndpointName": "lost"}
    endpoint.model("lost", "lost")
    endpoint.config("lost")
    endpoint.sagemaker.create_endpoint(**lost, EndpointConfigName="lost")
    status = "EndpointStatus"
    until(lambda: endpoint.sagemaker.describe_endpoint(**lost)[status], lambda s: s == "InService")
    endpoint.aws.client("s3").delete_object(Bucket="kennel", Key="models/lost/model.tar.gz")
    endpoint.aws.restart()
    until(lambda: endpoint.sagemaker.describe_endpoint(**lost)[status], lambda s: s == "Failed")
    endpoint.sagemaker.delete_endpoint(**lost)
    until(lambda: psutil.pid_exists(pid), lambda exists: not exists)
    until(lambda: answers_with(endpoint, "green") or answers_with(endpoint, "blue"))
    described = endpoint.settled()
    assert (described["EndpointStatus"], described["EndpointConfigName"]) == ("InService", "blue")
    assert endpoint.answer() == "blue"


def answers_with(endpoint: Endpoint, text: str) -> bool:
    try:
        return endpoint.answer() == text
    except ClientError:
        return False


def test_the_real_server_serves_a_real_archive(endpoint: Endpoint, tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "good")
    damaged = tmp_path / "damaged.tar.gz"
    damaged.write_bytes(archive.read_bytes()[:-200])
    s3 = endpoint.aws.client("s3")
    for name, path in (("good", archive), ("damaged", damaged)):
        s3.upload_file(str(path), "kennel", f"models/{name}/model.tar.gz")
        endpoint.sagemaker.create_model(
            ModelName=name,
            ExecutionRoleArn=ROLE,
            PrimaryContainer={
                "Image": IMAGE,
                "ModelDataUrl": f"s3://kennel/models/{name}/model.tar.gz",
            },
        )
        endpoint.config(name)
    assert endpoint.create("good")["EndpointStatus"] == "InService"
    picture = io.BytesIO()
    Image.new("RGB", (64, 64), (0, 255, 0)).save(picture, "PNG")
    answer = json.loads(endpoint.answer(picture.getvalue(), ContentType="image/png"))
    assert answer["predictions"][0]["label"] == "Green"
    error = endpoint.refusal(b"no picture", ContentType="image/png")
    assert error["OriginalStatusCode"] == 400
    # No web page is answered whose name was made to lead here.
    (port,) = {
        found.laddr.port
        for process in psutil.Process(endpoint.aws._process.pid).children(recursive=True)
        for found in process.net_connections("inet")
        if found.status == psutil.CONN_LISTEN
    }
    asked = {"Host": f"evil.example:{port}"}
    assert send(f"http://127.0.0.1:{port}", "GET", "/metrics", asked).status == 403
    assert send(f"http://127.0.0.1:{port}", "GET", "/metrics").status == 200
    endpoint.update("damaged")
    assert endpoint.settled()["EndpointConfigName"] == "good"
