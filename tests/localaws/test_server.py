"""The localaws server through its public edges: AWS's clients, its own pages, its command line."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import urllib.error
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import boto3
import psutil
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.parsers import create_parser
from moto.core.common_models import BaseModel

from localaws import inventory
from localaws.processes import ManagedProcess
from localaws.server import Server, main
from tests.localaws.conftest import SECONDS, until
from tests.localaws.raw import send, signed

UNKNOWN = {
    "json": ("sagemaker", "CreateAlgorithm", "localaws/additions/sagemaker.py"),
    "rest-json": ("lambda", "ListCodeSigningConfigs", "localaws/additions/lambda_.py"),
    "query": ("iam", "GetHumanReadableSummary", "localaws/additions/iam.py"),
    "ec2": ("ec2", "DescribeVpcBlockPublicAccessOptions", "localaws/additions/ec2.py"),
    "query or json": ("cloudwatch", "ListManagedInsightRules", "localaws/additions/cloudwatch.py"),
    "rest-xml": ("s3", "DeleteBucketMetricsConfiguration", "localaws/additions/s3.py"),
    "service of no backend": ("braket", "SearchJobs", "none of those that it keeps"),
}
PARAMETERS: dict[str, dict[str, Any]] = {
    "CreateAlgorithm": {
        "AlgorithmName": "a",
        "TrainingSpecification": {
            "TrainingImage": "i",
            "SupportedTrainingInstanceTypes": ["ml.m5.large"],
            "TrainingChannels": [
                {"Name": "c", "SupportedContentTypes": ["t"], "SupportedInputModes": ["File"]}
            ],
        },
    },
    "DeleteBucketMetricsConfiguration": {"Bucket": "kennel", "Id": "m"},
    "GetHumanReadableSummary": {"EntityArn": "arn:aws:iam::123456789012:role/r"},
    "ListManagedInsightRules": {"ResourceARN": "arn:aws:ec2:us-east-1:123456789012:vpc/v"},
    "SearchJobs": {"filters": []},
}
REGION = "us-east-1"


class Counted:
    """A server with a log of its calls."""

    def __init__(self, folder: Path) -> None:
        self.calls = folder / "calls.jsonl"
        self.state = folder / "state"
        self.log = folder / "log"
        command = [sys.executable, "-m", "localaws.server", "--port", "0"]
        command += ["--state", str(self.state), "--calls", str(self.calls)]
        self.process = ManagedProcess(command, self.log)
        server = until(lambda: Server.of(self.state))
        assert server
        self.server = server

    def client(self, service: str) -> Any:
        """A client with the SDK's usual patience: three attempts."""
        return client(service, self.server.endpoint, retries={"mode": "standard"})

    def told(self) -> list[dict[str, Any]]:
        """The calls so far."""
        return [json.loads(line) for line in self.calls.read_text().splitlines()]


def client(service: str, endpoint: str, **settings: Any) -> Any:
    return boto3.client(
        service,
        region_name=REGION,
        endpoint_url=endpoint,
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(read_timeout=SECONDS, **settings),
    )


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Counted]:
    running = Counted(tmp_path_factory.mktemp("server"))
    running.client("s3").create_bucket(Bucket="kennel")
    yield running
    running.process.stop()


@pytest.mark.parametrize(("service", "operation", "said"), UNKNOWN.values(), ids=UNKNOWN)
def test_an_unknown_operation_is_named_at_once(
    counted: Counted, service: str, operation: str, said: str
) -> None:
    aws = counted.client(service)
    name = next(k for k, v in aws.meta.method_to_api_mapping.items() if v == operation)
    with pytest.raises(ClientError) as raised:
        getattr(aws, name)(**PARAMETERS.get(operation, {}))
    answer = raised.value.response
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 501
    assert answer["ResponseMetadata"]["RetryAttempts"] == 0
    assert answer["Error"]["Code"] == "NotImplemented"
    assert f"{service}:{operation}" in answer["Error"]["Message"]
    assert said in answer["Error"]["Message"]


def test_what_aws_itself_does_not_have_is_named_too(counted: Counted) -> None:
    url = f"{counted.server.endpoint}/dogs"
    answer = send(counted.server.endpoint, "GET", "/dogs", signed("kennels", "GET", url))
    assert answer.status == 501
    assert "kennels:GET /dogs" in json.loads(answer.body)["message"]


def test_cbor_is_answered_in_cbor(counted: Counted) -> None:
    target = "/service/GraniteServiceVersion20100801/operation/StartDreaming"
    endpoint = counted.server.endpoint
    content = {"Content-Type": "application/cbor"}
    headers = signed("monitoring", "POST", f"{endpoint}{target}", headers=content)
    answer = send(endpoint, "POST", target, headers)
    told = {"status_code": answer.status, "headers": dict(answer.headers), "body": answer.body}
    parsed = create_parser("smithy-rpc-v2-cbor").parse(told, None)
    assert answer.status == 501
    assert parsed["Error"]["Code"] == "NotImplemented"
    assert "cloudwatch:StartDreaming" in parsed["Error"]["Message"]


def test_a_call_whose_answer_was_lost_is_not_done_twice(counted: Counted) -> None:
    def create(invocation: str) -> int:
        headers = {
            "Content-Type": "application/x-amz-json-1.1",
            "X-Amz-Target": "Logs_20140328.CreateLogGroup",
            "amz-sdk-invocation-id": invocation,
        }
        body = json.dumps({"logGroupName": "/once"}).encode()
        url = f"{counted.server.endpoint}/"
        headers = signed("logs", "POST", url, body, headers)
        return send(counted.server.endpoint, "POST", "/", headers, body).status

    assert [create("first"), create("first"), create("second")] == [200, 200, 400]


def test_an_operation_that_shares_a_path_harms_nothing(counted: Counted) -> None:
    s3 = counted.client("s3")
    with pytest.raises(ClientError, match="DeleteBucketMetricsConfiguration"):
        s3.delete_bucket_metrics_configuration(Bucket="kennel", Id="m")
    s3.head_bucket(Bucket="kennel")


def test_a_failure_inside_says_where_and_why(counted: Counted) -> None:
    ecs = client("ecs", counted.server.endpoint, retries={"total_max_attempts": 1})
    machine = json.dumps({"instanceId": "i-0"})
    with pytest.raises(ClientError) as raised:
        ecs.register_container_instance(cluster="none", instanceIdentityDocument=machine)
    answer = raised.value.response
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 500
    assert (
        "ecs:RegisterContainerInstance: Exception: none is not a cluster"
        in answer["Error"]["Message"]
    )
    assert "Traceback" in counted.log.read_text()


def test_nobody_else_can_reach_it(counted: Counted) -> None:
    sockets = psutil.Process(counted.server.pid).net_connections("inet")
    listening = {s.laddr.ip for s in sockets if s.status == psutil.CONN_LISTEN}
    assert listening == {"127.0.0.1"}


def test_each_call_is_told_with_what_it_is_about(counted: Counted) -> None:
    counted.client("s3").put_object(Bucket="kennel", Key="data/a b.jpg", Body=b"dog")
    counted.client("ec2").describe_vpcs(Filters=[{"Name": "isDefault", "Values": ["true"]}])
    counted.client("sqs").create_queue(QueueName="told")
    with pytest.raises(ClientError):
        counted.client("iam").get_role(RoleName="nobody")
    put, describe, create, get = counted.told()[-4:]
    assert (put["service"], put["operation"], put["status"]) == ("s3", "PutObject", 200)
    assert put["parameters"]["Bucket"] == "kennel"
    assert put["parameters"]["Key"] == "data/a b.jpg"
    assert put["access_key"] == "test"
    assert put["region"] == REGION
    assert describe["parameters"] == {"Filters": [{"Name": "isDefault", "Values": ["true"]}]}
    assert (create["service"], create["operation"]) == ("sqs", "CreateQueue")
    assert create["parameters"]["QueueName"] == "told"
    assert (get["service"], get["operation"], get["status"]) == ("iam", "GetRole", 404)
    assert get["parameters"]["RoleName"] == "nobody"


def test_calls_at_the_same_time_are_all_told(counted: Counted) -> None:
    s3 = counted.client("s3")
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: s3.put_object(Bucket="kennel", Key=f"n/{n}"), range(64)))
    keys = [call["parameters"].get("Key", "") for call in counted.told()]
    assert sorted(key for key in keys if key.startswith("n/")) == sorted(
        f"n/{n}" for n in range(64)
    )


def test_an_object_comes_back_as_it_went(counted: Counted) -> None:
    s3 = counted.client("s3")
    body = os.urandom(9_000_000)
    s3.put_object(Bucket="kennel", Key="süß/ä b+c", Body=body, Metadata={"under_score": "kept"})
    found = s3.get_object(Bucket="kennel", Key="süß/ä b+c")
    assert found["Body"].read() == body
    assert found["Metadata"] == {"under_score": "kept"}


def test_the_inventory_is_what_was_made(counted: Counted) -> None:
    server = counted.server
    counted.client("ec2").describe_vpcs()
    before = server.ask("GET", "inventory")
    assert "ec2" not in before, "the default VPC was not made by anyone"
    group = counted.client("ec2").create_security_group(GroupName="mine", Description="d")
    counted.client("ssm").put_parameter(Name="/mine", Value="v", Type="String")
    counted.client("ssm").get_parameter(
        Name="/aws/service/ami-amazon-linux-latest/amzn2-ami-hvm-x86_64-gp2"
    )
    made = server.ask("GET", "inventory")
    assert any(group["GroupId"] in name for name in made["ec2"])
    assert made["ssm"] == ["Parameter /mine"]
    counted.client("ec2").delete_security_group(GroupId=group["GroupId"])
    counted.client("ssm").delete_parameter(Name="/mine")
    assert server.ask("GET", "inventory") == before


def test_a_backend_to_which_another_thread_adds_is_walked_through() -> None:
    class Model(BaseModel):
        @property
        def arn(self) -> str:
            vars(backend)["added"] = 1
            return "arn"

    backend = SimpleNamespace(model=Model())
    assert list(inventory._names(cast(Any, backend))) == ["Model arn"]


def test_its_own_pages(counted: Counted) -> None:
    health = counted.server.ask("GET", "health")
    assert health["pid"] == counted.process.pid
    assert health["state"] == str(counted.state.resolve())
    assert "sagemaker" in health["services"]
    with pytest.raises(urllib.error.HTTPError) as raised:
        counted.server.ask("GET", "nonsense")
    assert raised.value.code == 404


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    folder = tmp_path / "state"

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        given = [sys.executable, "-m", "localaws.server", *arguments, "--state", str(folder)]
        return subprocess.run(given, capture_output=True, text=True, timeout=SECONDS, check=False)

    yield run
    run("reset")


def test_its_life_from_the_command_line(
    command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    folder, kept = tmp_path / "state", tmp_path / "state" / "state.zip"
    assert command("down").stdout == "localaws is not up\n"

    started = command("up", "--port", "0")
    server = Server.of(folder)
    assert server is not None
    assert started.stdout == f"localaws is up at {server.endpoint}\n"
    again = command("up", "--port", "0")
    assert (again.returncode, again.stdout) == (
        0,
        f"localaws is already up at {server.endpoint}\n",
    )
    client("s3", server.endpoint).create_bucket(Bucket="kennel")
    assert "'s3': 1" in command("status").stdout

    assert command("down").returncode == 0
    assert Server.of(folder) is None
    assert not (folder / "server.json").exists()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600

    assert command("up", "--port", "0").returncode == 0
    server = Server.of(folder)
    assert server is not None
    client("s3", server.endpoint).head_bucket(Bucket="kennel")

    os.kill(server.pid, signal.SIGKILL)
    until(lambda: Server.of(folder) is None)
    assert "not up; its state is in" in command("status").stdout
    assert command("up", "--port", "0").returncode == 0

    assert command("reset").stdout == "localaws is down and its state is deleted\n"
    assert not kept.exists()
    assert Server.of(folder) is None


def test_a_copied_folder_does_not_stop_the_server_of_the_first(
    counted: Counted, command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    folder = tmp_path / "state"
    for stop in ("down", "reset"):
        folder.mkdir(exist_ok=True)
        (folder / "server.json").write_bytes((counted.state / "server.json").read_bytes())
        assert Server.of(folder) is None
        assert command(stop).returncode == 0
        assert not (folder / "server.json").exists()
    counted.client("s3").head_bucket(Bucket="kennel")


@pytest.mark.parametrize(
    "written",
    [
        "[]",
        "3",
        "null",
        '{"endpoint": 5, "pid": 1}',
        '{"endpoint": "http://127.0.0.1:x", "pid": 1}',
    ],
)
def test_a_damaged_server_file_is_no_server(tmp_path: Path, written: str) -> None:
    (tmp_path / "server.json").write_text(written)
    assert Server.of(tmp_path) is None


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
    ],
    ids=["no HTTP", "another object", "no object", "cut short", "long header"],
)
def test_what_has_the_port_now_is_not_that_server(tmp_path: Path, answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with listener.accept()[0] as connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        (tmp_path / "server.json").write_text(json.dumps({"endpoint": address, "pid": 1}))
        assert Server.of(tmp_path) is None
        thread.join()


def test_a_server_that_cannot_be_found_is_named(counted: Counted) -> None:
    told, kept = counted.state / "server.json", counted.state / "kept.json"
    told.rename(kept)
    try:
        for stop in ("down", "reset"):
            with pytest.raises(SystemExit) as ended:
                main([stop, "--state", str(counted.state)])
            assert f"another localaws (process {counted.process.pid}) uses" in str(ended.value)
    finally:
        kept.rename(told)
    counted.client("s3").head_bucket(Bucket="kennel")


def test_a_server_that_starts_is_waited_for(
    command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    folder = tmp_path / "state"
    start = [sys.executable, "-m", "localaws.server", "run", "--port", "0", "--state", str(folder)]
    lock = folder / "lock"
    for goal, said in (("up", "localaws is already up at"), ("down", "localaws is down; its")):
        with subprocess.Popen(start, stderr=subprocess.DEVNULL) as server:
            try:
                until(lambda: lock.is_file() and lock.read_text().endswith("starts"))
                told = command(goal)
                assert (told.returncode, told.stderr) == (0, "")
                assert told.stdout.startswith(said)
            finally:
                server.terminate()


@pytest.mark.parametrize(("number", "by"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")])
def test_a_start_that_is_ended_leaves_no_server(
    number: signal.Signals, by: str, tmp_path: Path
) -> None:
    folder = tmp_path / "state"
    command = [sys.executable, "-m", "localaws.server", "up", "--port", "0", "--state", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as starter:

        def servers() -> list[int]:
            return [child.pid for child in psutil.Process(starter.pid).children()]

        (server,) = until(servers)
        starter.send_signal(number)
        out, said = starter.communicate(timeout=SECONDS)
        assert starter.returncode == 128 + number
    assert (out, said.decode()) == (b"", f"error: stopped by {by}; localaws was not started\n")
    assert not psutil.pid_exists(server)
    assert Server.of(folder) is None


@pytest.mark.parametrize("module", ["localaws.server", "localaws.demo", "inference.server"])
def test_ctrl_c_while_a_command_loads_is_one_line(module: str, tmp_path: Path) -> None:
    stops = "import signal\nsignal.raise_signal(signal.SIGINT)\n"
    for name in ("botocore", "uvicorn"):
        (tmp_path / f"{name}.py").write_text(stops)
    ran = subprocess.run(
        [sys.executable, "-m", module, "up"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 128 + signal.SIGINT
    assert ran.stderr.startswith("error: stopped by Ctrl-C; it ")
    assert ran.stderr.count("\n") == 1


def test_a_state_may_be_saved_at_the_end_only(counted: Counted, tmp_path: Path) -> None:
    # Each begins with a wish to save, which the other one grants.
    until(lambda: (counted.state / "state.zip").exists())
    folder, log = tmp_path / "state", tmp_path / "log"
    command = [sys.executable, "-m", "localaws.server", "--port", "0", "--state", str(folder)]
    with ManagedProcess([*command, "--save", "end"], log) as process:
        server = until(lambda: Server.of(folder))
        assert server
        client("s3", server.endpoint).create_bucket(Bucket="kennel")
        assert not (folder / "state.zip").exists()
        process.stop()
    assert (folder / "state.zip").exists()


def test_a_port_that_another_holds_is_refused(
    command: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        refused = command("up", "--port", str(port))
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"error: port {port} of 127.0.0.1 cannot be had")
    assert refused.stderr.count("\n") == 1


def test_a_folder_has_one_server(counted: Counted) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "localaws.server", "--port", "0", "--state", str(counted.state)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert second.returncode == 1
    assert "another localaws (process " in second.stderr


def test_a_damaged_state_is_refused_with_the_remedy(
    command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    kept = tmp_path / "state" / "state.zip"
    kept.parent.mkdir()
    kept.write_bytes(b"PK\x03\x04 not all of it")
    kept.chmod(0o600)
    refused = command("up", "--port", "0")
    assert refused.returncode == 1
    assert "cannot be read" in refused.stderr
    assert "make local-reset" in refused.stderr
    assert kept.exists()


def test_an_unknown_command_is_a_usage_error(
    command: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    assert command("sideways").returncode == 2
