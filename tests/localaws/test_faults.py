"""What is left of jobs, endpoints and objects after a kill, a cut line, a full disk."""

import base64
import http.client
import io
import json
import os
import resource
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from botocore.exceptions import ClientError
from PIL import Image

from lambda_src.build import build
from localaws.errors import LocalAwsError
from localaws.server import down
from tests.archives import make_archive
from tests.localaws.conftest import until
from tests.localaws.roles import create_role
from tests.localaws.test_endpoints import SERVER, Endpoint
from tests.localaws.test_jobs import Account, KilledLocalAws
from trainer.errors import KennelError
from trainer.target import load
from trainer.upload import upload

IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/kennel:1"
ARCHIVE = "models/green/model.tar.gz"


class Machine(Account):
    """A localaws on a machine that has faults, with a bucket and roles."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        aws = KilledLocalAws(folder, "--time-scale", "100", "--calls", str(folder / "calls"))
        super().__init__(aws)
        for name, service in (("serving", "sagemaker"), ("lambda", "lambda")):
            create_role(aws.client("iam"), name, service)

    @property
    def state(self) -> Path:
        return self.folder / "state.zip"

    @property
    def pid(self) -> int:
        pid: int = json.loads((self.folder / "server.json").read_text())["pid"]
        return pid

    def save(self) -> tuple[int, dict[str, str]]:
        """Ask for the state to be saved; the answer's status and content."""
        request = urllib.request.Request(f"{self.aws.endpoint}/_localaws/save", method="POST")
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def has(self, key: str) -> bool:
        return key in self.keys(key)

    @contextmanager
    def half_sent(self, key: str, content: bytes) -> Iterator[None]:
        """Within the block half of an object is on its way; the rest never comes."""
        url = self.s3.generate_presigned_url("put_object", {"Bucket": "kennel", "Key": key})
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.netloc)
        connection.putrequest("PUT", f"{parts.path}?{parts.query}")
        connection.putheader("Content-Length", str(len(content)))
        connection.endheaders(content[: len(content) // 2])
        try:
            yield
        finally:
            connection.close()

    def full_disk(self, free: int = 0) -> AbstractContextManager[None]:
        """See `full_disk`; it is localaws' own and that of all that it starts."""
        return full_disk(self.pid, free)


@contextmanager
def full_disk(pid: int, free: int = 0) -> Iterator[None]:
    """Within the block no file of a process can grow beyond `free` bytes.

    That fails as on a full disk, but for the error's name, and nobody else's disk gets full.
    """
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (free, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    made = Machine(tmp_path_factory.mktemp("faults"))
    yield made
    made.aws.stop()


@pytest.fixture
def endpoint(machine: Machine, tmp_path: Path) -> Iterator[Endpoint]:
    """Models `red` and `blue` and their configurations; the endpoint is gone after the test."""
    (tmp_path / "inference").mkdir()
    (tmp_path / "inference/__init__.py").touch()
    (tmp_path / "inference/server.py").write_text(SERVER)
    made = Endpoint(machine.aws, tmp_path)
    for name in ("red", "blue"):
        made.model(name, name, IMAGE)
        made.config(name)
    yield made
    made.settled()
    made.sagemaker.delete_endpoint(EndpointName="kennel")
    until(made.sagemaker.list_endpoints, lambda found: not found["Endpoints"])
    for name in ("red", "blue"):
        made.sagemaker.delete_endpoint_config(EndpointConfigName=name)
        made.sagemaker.delete_model(ModelName=name)


def test_half_an_object_is_none(machine: Machine) -> None:
    machine.put("there", b"former")
    for key in ("there", "new"):
        with machine.half_sent(key, bytes(1_000_000)):
            pass
    # One that is sent later is there: those before it were dealt with, or never will be.
    machine.put("later", b"later")
    assert machine.read("there") == b"former"
    assert not machine.has("new")


def test_localaws_killed_while_an_endpoint_is_updated(machine: Machine, endpoint: Endpoint) -> None:
    endpoint.create("red")
    machine.put("whole", b"whole")
    pid = endpoint.told()["pid"]
    with endpoint.starts("hold"), machine.half_sent(ARCHIVE, os.urandom(1_000_000)):
        endpoint.update("blue")
        assert endpoint.describe()["EndpointStatus"] == "Updating"
        assert machine.save()[0] == 200
        machine.aws.kill()
    until(lambda: psutil.pid_exists(pid), lambda exists: not exists)
    machine.aws.restart()

    assert machine.read("whole") == b"whole"
    assert not machine.has(ARCHIVE)
    described = endpoint.settled()
    assert (described["EndpointStatus"], described["EndpointConfigName"]) == ("InService", "blue")
    assert endpoint.answer() == "blue"
    assert not list(machine.folder.glob(".state.zip.*"))


def test_a_full_disk_leaves_what_is_there(machine: Machine) -> None:
    machine.put("large", b"former")
    assert machine.save()[0] == 200
    former = machine.state.read_bytes()
    with machine.full_disk():
        machine.put("small", b"new")
        status, told = machine.save()
        assert status == 500
        assert "the state could not be saved" in told["error"]
        assert told["error"].endswith("the former one is untouched")
        with pytest.raises(LocalAwsError, match=r"could not be saved.*; localaws goes on"):
            down(machine.folder)
        with pytest.raises(ClientError) as error:
            machine.put("large", bytes(20_000_000))
        assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500
        machine.create("early", "")
        failed = machine.ended("early")
        assert failed["FailureReason"].startswith("ClientError: Data download failed:")
        assert machine.state.read_bytes() == former
        assert not list(machine.folder.glob(".state.zip.*"))
        assert machine.read("large") == b"former"

    # The end of the job was to be saved: that is made up for when there is room.
    until(lambda: machine.state.read_bytes() != former)
    machine.aws.kill()
    machine.aws.restart()
    assert machine.read("small") == b"new"
    assert machine.describe("early")["TrainingJobStatus"] == "Failed"


def test_a_model_that_finds_no_room_is_not_uploaded(machine: Machine, tmp_path: Path) -> None:
    script = f"""
        folder = Path({str(tmp_path)!r})
        (folder / "started").touch()
        while not (folder / "full").exists():
            time.sleep(0.05)
        (ml / "model/weights").write_bytes(os.urandom(3_000_000))
    """
    machine.create("late", script)
    until((tmp_path / "started").exists)
    with machine.full_disk(free=1_000_000):
        (tmp_path / "full").touch()
        failed = machine.ended("late")
    assert failed["TrainingJobStatus"] == "Failed"
    assert failed["FailureReason"].startswith("ClientError: Artifact upload failed:")
    assert machine.keys("jobs/late/") == []


def test_an_endpoint_outlives_a_full_disk(machine: Machine, endpoint: Endpoint) -> None:
    endpoint.create("red")
    with machine.full_disk():
        endpoint.update("blue")
        described = endpoint.settled()
        assert described["EndpointConfigName"] == "red"
        assert described["FailureReason"]
        # Its output has no room either.
        psutil.Process(endpoint.told()["pid"]).kill()
        until(lambda: answers(endpoint), lambda answer: answer != "red")
    until(lambda: answers(endpoint), lambda answer: answer == "red")


def answers(endpoint: Endpoint) -> str | None:
    with suppress(ClientError):
        return endpoint.answer()
    return None


def test_an_upload_without_room_leaves_the_former_data_set(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.aws.client("ssm").put_parameter(
        Name="/kennel/dev/bucket", Type="String", Value="kennel"
    )
    monkeypatch.setenv("AWS_ENDPOINT_URL", machine.aws.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    for split in ("train", "valid", "test"):
        for name in ("1.red", "2.green"):
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (32, 32), name[2:]).save(tmp_path / split / name / "a.png")
    target = load("dev")
    upload(target, tmp_path, "photos")
    former = machine.read("data/photos/manifest.json")
    Image.new("RGB", (32, 32), "blue").save(tmp_path / "train/1.red/b.png")

    with (
        full_disk(os.getpid(), free=1000),
        pytest.raises(KennelError, match=r"cannot write a shard to .*set TMPDIR"),
    ):
        upload(target, tmp_path, "photos")
    assert machine.read("data/photos/manifest.json") == former
    assert upload(target, tmp_path, "photos").changed


class Callers:
    """Those who call the function one after the other while a block runs."""

    def __init__(self, call: Callable[[], tuple[int, dict[str, Any]]]) -> None:
        self.answers: list[tuple[int, dict[str, Any]]] = []
        self._call = call
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(2)]

    def _run(self) -> None:
        while not self._ended.is_set():
            self.answers.append(self._call())
            time.sleep(0.05)

    def seen(self, status: int, after: int = 0) -> None:
        """Wait for an answer with a status."""
        until(lambda: [found for found, _ in self.answers[after:]], lambda all_: status in all_)

    def __enter__(self) -> "Callers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()


def has_unread(server: psutil.Process) -> bool:
    """Whether something was sent to a server that it has not read yet."""
    ports = {found.laddr.port for found in server.net_connections() if found.status == "LISTEN"}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, queues, *_ = line.split()
        established, port, unread = state == "01", local[-4:], queues[-8:]
        if established and int(port, 16) in ports and int(unread, 16):
            return True
    return False


def test_an_endpoint_killed_under_load_is_replaced(machine: Machine, tmp_path: Path) -> None:
    machine.put("models/good/model.tar.gz", make_archive(tmp_path).read_bytes())
    sagemaker, functions = machine.aws.client("sagemaker"), machine.aws.client("lambda")
    sagemaker.create_model(
        ModelName="good",
        ExecutionRoleArn="arn:aws:iam::123456789012:role/serving",
        PrimaryContainer={"Image": IMAGE, "ModelDataUrl": "s3://kennel/models/good/model.tar.gz"},
    )
    served = Endpoint(machine.aws, tmp_path)
    served.config("good")
    assert served.create("good")["EndpointStatus"] == "InService"
    functions.create_function(
        FunctionName="kennel-classify",
        Role="arn:aws:iam::123456789012:role/lambda",
        Runtime="python3.13",
        Handler="lambda_src.handler.handler",
        Architectures=["arm64"],
        Code={"ZipFile": build(tmp_path, "arm64").read_bytes()},
        MemorySize=512,
        Timeout=900,  # so that no call's time is over while the server is suspended
        Environment={"Variables": {"ENDPOINT_NAME": "kennel", "POWERTOOLS_METRICS_NAMESPACE": "K"}},
        Publish=True,
    )
    functions.create_alias(FunctionName="kennel-classify", Name="live", FunctionVersion="1")
    picture = io.BytesIO()
    Image.new("RGB", (64, 64), (0, 255, 0)).save(picture, "PNG")
    event = json.dumps({"image": base64.b64encode(picture.getvalue()).decode()})

    def call() -> tuple[int, dict[str, Any]]:
        answer = functions.invoke(
            FunctionName="kennel-classify", Qualifier="live", Payload=event.encode()
        )
        content = json.load(answer["Payload"])
        return content["statusCode"], json.loads(content["body"])

    with Callers(call) as callers:
        callers.seen(200)
        (process,) = (
            found
            for found in psutil.Process(machine.pid).children(recursive=True)
            if found.cmdline()[-3:] == ["-m", "inference.server", "serve"]
        )
        # It is replaced so soon that the function's second try may already be answered: a request
        # that it has got and will never answer is one that fails.
        process.suspend()
        until(lambda: has_unread(process))
        before = len(callers.answers)
        process.kill()
        callers.seen(502, before)
        callers.seen(200, before + [status for status, _ in callers.answers[before:]].index(502))
    statuses = [status for status, _ in callers.answers]
    assert set(statuses) == {200, 502}
    assert 502 not in statuses[:before]
    for status, body in callers.answers:
        if status == 502:
            assert (body["error"], body["message"]) == ("endpoint_failed", "the endpoint failed")
        else:
            assert body["predictions"][0]["label"] == "Green"
    assert served.describe()["EndpointStatus"] == "InService"
