"""Transform jobs as a user of SageMaker sees them: photos and lines in, `.out` objects beside."""

import gzip
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from PIL import Image

from tests.archives import make_archive
from tests.localaws.conftest import until
from tests.localaws.job_account import JobAccount
from tests.localaws.roles import create_role
from tests.localaws.test_jobs import KilledLocalAws

GROUP = "/aws/sagemaker/TransformJobs"
# A container that says how it was asked; the body of a request may ask for an error.
SERVER = """
import http.server, json, os, pathlib, sys, time
asked = {"bodies": 0, "now": 0, "most": 0}
hold = pathlib.Path(__file__).with_name("hold")
class Requests(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        told = os.environ.get("PARAMETERS", "") if "parameters" in self.path else "{}"
        self.reply(200 if told else 404, told)
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        print("asked", body[:9], flush=True)
        asked["bodies"] += 1
        asked["now"] += 1
        asked["most"] = max(asked["most"], asked["now"])
        while "wait" in body and asked["most"] < 2:
            time.sleep(0.01)
        while "hold" in body and hold.exists():
            time.sleep(0.01)
        asked["now"] -= 1
        if body.startswith("status"):
            return self.reply(int(body.split()[1]), "no such breed")
        if body.startswith("silence"):
            time.sleep(30)
        told = {name: self.headers.get(name) for name in ("Content-Type", "Accept")}
        told |= {name: value for name, value in os.environ.items() if name.startswith("SAGEMAKER_")}
        full = {"asked": asked, "told": told}
        self.reply(200, json.dumps(full) if body == "tell" else f"<{body}>")
    def reply(self, status, text):
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Requests)
print(json.dumps({"event": "ready", "port": server.server_port}), flush=True)
server.serve_forever()
"""


class Account(JobAccount):
    """A localaws with a bucket, a role for models, and models of the server above."""

    def __init__(self, aws: KilledLocalAws, code: Path) -> None:
        super().__init__(aws, "serving", GROUP)
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for name in ("manifest.json", "model.onnx"):
                archive.addfile(tarfile.TarInfo(name))
        self.put("stub.tar.gz", packed.getvalue())
        self.code = code
        self.model("stub", "stub.tar.gz", PYTHONPATH=str(code))

    def model(self, name: str, key: str, role: str | None = None, **environment: str) -> None:
        self.sagemaker.create_model(
            ModelName=name,
            ExecutionRoleArn=role or self.role,
            PrimaryContainer={
                "Image": "763104351884.dkr.ecr.us-east-1.amazonaws.com/image:latest",
                "ModelDataUrl": f"s3://kennel/{key}",
                "Environment": environment,
            },
        )

    def create(self, name: str, source: str, model: str = "stub", **more: Any) -> None:
        """Start a job over a prefix; members of the request's structures may be given by name."""
        kind = more.pop("S3DataType", "S3Prefix")
        data = {"S3DataSource": {"S3DataType": kind, "S3Uri": f"s3://kennel/{source}"}}
        self.sagemaker.create_transform_job(
            TransformJobName=name,
            ModelName=model,
            TransformInput={"DataSource": data, **more.pop("Input", {})},
            TransformOutput={"S3OutputPath": f"s3://kennel/out/{name}/", **more.pop("Output", {})},
            TransformResources={
                "InstanceType": "ml.m5.large",
                "InstanceCount": more.pop("InstanceCount", 1),
            },
            **more,
        )

    def describe(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.sagemaker.describe_transform_job(TransformJobName=name)
        return found

    def ended(self, name: str) -> dict[str, Any]:
        return until(
            lambda: self.describe(name),
            lambda told: told["TransformJobStatus"] not in ("InProgress", "Stopping"),
        )

    def data_log(self, name: str) -> list[str]:
        """The lines of a job's data logs, without their times."""
        return [
            line.partition(":[sagemaker logs]: ")[2]
            for stream, lines in self.log(name).items()
            for line in lines
            if stream.endswith("/data-log")
        ]


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    code = tmp_path_factory.mktemp("code")
    (code / "inference").mkdir()
    (code / "inference/__init__.py").touch()
    (code / "inference/server.py").write_text(SERVER)
    aws = KilledLocalAws(
        tmp_path_factory.mktemp("transform"), "--time-scale", "100", "--iam", "enforce"
    )
    yield Account(aws, code)
    aws.stop()


@pytest.fixture(scope="module")
def real(account: Account, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model of the real server, which names the brightest colour."""
    archive = make_archive(tmp_path_factory.mktemp("real"))
    account.put("models/real.tar.gz", archive.read_bytes())
    account.model("real", "models/real.tar.gz")
    return "real"


def photo(colour: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (48, 48), colour).save(file, "JPEG")
    return file.getvalue()


def test_photos_get_the_answers_of_the_endpoint(account: Account, real: str) -> None:
    photos = {
        "a/red.jpg": photo("red"),
        "a/b/green.jpg": photo("lime"),
        "blue.jpg": photo("blue"),
    }
    for key, content in photos.items():
        account.put(f"photos/{key}", content)
    given = {"ContentType": "image/jpeg"}
    account.create(
        "real", "photos/", real, Input=given, Output={"Accept": "application/json"},
        MaxConcurrentTransforms=2, BatchStrategy="SingleRecord",
    )  # fmt: skip
    account.sagemaker.create_endpoint_config(
        EndpointConfigName="real",
        ProductionVariants=[
            {
                "VariantName": "main",
                "ModelName": "real",
                "InstanceType": "ml.m5.large",
                "InitialInstanceCount": 1,
            }
        ],
    )
    account.sagemaker.create_endpoint(EndpointName="real", EndpointConfigName="real")
    told = account.ended("real")
    assert told["TransformJobStatus"] == "Completed", told
    assert told["CreationTime"] <= told["TransformStartTime"] <= told["TransformEndTime"]
    results = account.results("real")
    assert set(results) == {f"{key}.out" for key in photos}
    written = account.s3.head_object(Bucket="kennel", Key="out/real/blue.jpg.out")
    assert written["ServerSideEncryption"] == "aws:kms"
    until(
        lambda: account.sagemaker.describe_endpoint(EndpointName="real"),
        lambda found: found["EndpointStatus"] == "InService",
    )
    for key, content in photos.items():
        answer = account.aws.client("sagemaker-runtime").invoke_endpoint(
            EndpointName="real", Body=content, **given
        )
        assert json.loads(results[f"{key}.out"]) == json.loads(answer["Body"].read())
    best = json.loads(results["a/b/green.jpg.out"])["predictions"][0]["label"]
    assert best == "Green"
    account.sagemaker.delete_endpoint(EndpointName="real")


def test_a_bad_photo_fails_the_job_and_not_the_others(account: Account, real: str) -> None:
    account.put("mixed/1.jpg", photo("red"))
    account.put("mixed/2.jpg", b"no photo")
    account.put("mixed/3.jpg", photo("blue"))
    account.create("mixed", "mixed/", real, Input={"ContentType": "image/jpeg"})
    told = account.ended("mixed")
    assert told["TransformJobStatus"] == "Failed"
    assert told["FailureReason"] == "ClientError: See job logs for more information"
    assert set(account.results("mixed")) == {"1.jpg.out", "3.jpg.out"}
    where = "kennel/mixed/2.jpg: "
    first, *lines = account.data_log("mixed")
    assert first == "MaxConcurrentTransforms=1, MaxPayloadInMB=6, BatchStrategy=MULTI_RECORD"
    assert lines[:3] == [f"{where}ClientError: 400", where, f"{where}Message:"]
    assert json.loads(lines[3].removeprefix(where))["error"]


def test_lines_are_sent_alone_or_as_many_as_fit(account: Account) -> None:
    text = "".join(f"{number} {'.' * 400_000}\n" for number in range(6)) + "last"
    account.put("lines/text.csv", gzip.compress(text.encode()))
    given = {"SplitType": "Line", "CompressionType": "Gzip"}
    account.create(
        "single", "lines/text.csv", Input=given, Output={"AssembleWith": "Line"},
        BatchStrategy="SingleRecord",
    )  # fmt: skip
    account.create("multi", "lines/text.csv", Input=given, MaxPayloadInMB=1)
    account.create("small", "lines/text.csv", Input={"CompressionType": "Gzip"}, MaxPayloadInMB=1)
    for name in ("single", "multi"):
        assert account.ended(name)["TransformJobStatus"] == "Completed"
    records = text.splitlines(keepends=True)
    assert account.results("single") == {
        "text.csv.out": "".join(f"<{record}>\n" for record in records).encode()
    }
    twos = ("".join(records[at : at + 2]) for at in (0, 2, 4))
    # The last line is short enough to go with two others.
    *whole, rest = twos
    expected = [*whole, rest + records[6]]
    assert account.results("multi") == {
        "text.csv.out": "".join(f"<{batch}>" for batch in expected).encode()
    }
    assert account.ended("small")["FailureReason"].startswith("ClientError: See job logs")
    assert account.results("small") == {}
    assert account.data_log("small")[1] == (
        "kennel/lines/text.csv: Too much data for max payload size"
    )


def test_a_container_is_asked_how_it_wants_to_be_asked(account: Account) -> None:
    wishes = {"MaxConcurrentTransforms": 2, "BatchStrategy": "SINGLE_RECORD", "MaxPayloadInMB": 3}
    account.model(
        "wishes", "stub.tar.gz", PYTHONPATH=str(account.code), PARAMETERS=json.dumps(wishes)
    )
    account.put("told/1", b"wait 1")
    account.put("told/2", b"wait 2")
    account.put("told/3", b"tell")
    # Two that wait for each other are answered only if both are asked at once.
    account.create("wishes", "told/", "wishes", Output={"Accept": "text/plain"})
    assert account.ended("wishes")["TransformJobStatus"] == "Completed"
    assert account.data_log("wishes") == [
        "MaxConcurrentTransforms=2, MaxPayloadInMB=3, BatchStrategy=SINGLE_RECORD"
    ]
    told = json.loads(account.results("wishes")["3.out"])
    assert told["asked"]["most"] == 2
    assert told["told"] == {
        "Accept": "text/plain",
        "Content-Type": None,
        "SAGEMAKER_BATCH": "true",
        "SAGEMAKER_BIND_TO_PORT": "0",
    }
    # What the job says counts more, and the container is told of it.
    account.create(
        "own", "told/3", "wishes", MaxConcurrentTransforms=1, MaxPayloadInMB=5,
        BatchStrategy="MultiRecord",
        Environment={"SAGEMAKER_COLOUR": "blue", "SAGEMAKER_BIND_TO_PORT": "80"},
    )  # fmt: skip
    assert account.ended("own")["TransformJobStatus"] == "Completed"
    assert account.data_log("own") == [
        "MaxConcurrentTransforms=1, MaxPayloadInMB=5, BatchStrategy=MULTI_RECORD"
    ]
    told = json.loads(account.results("own")["3.out"])["told"]
    assert (told["SAGEMAKER_COLOUR"], told["SAGEMAKER_BIND_TO_PORT"]) == ("blue", "0")
    assert told["SAGEMAKER_BATCH_STRATEGY"] == "MULTI_RECORD"
    assert told["SAGEMAKER_MAX_CONCURRENT_TRANSFORMS"] == "1"
    assert told["SAGEMAKER_MAX_PAYLOAD_IN_MB"] == "5"


def test_a_model_that_fails_is_asked_again_before_the_job_fails(account: Account) -> None:
    account.put("failing/1", b"status 500")
    account.put("failing/2", b"tell")
    limits = {"InvocationsMaxRetries": 2, "InvocationsTimeoutInSeconds": 1}
    account.create("failing", "failing/", ModelClientConfig=limits)
    account.put("silent/1", b"silence")
    silence = {"InvocationsMaxRetries": 0, "InvocationsTimeoutInSeconds": 1}
    account.create("silent", "silent/", ModelClientConfig=silence)
    for name in ("failing", "silent"):
        told = account.ended(name)
        assert told["FailureReason"] == "AlgorithmError: See job logs for more information"
    # Three times the first, then the second.
    (answer,) = account.results("failing").values()
    assert json.loads(answer)["asked"]["bodies"] == 4
    assert account.data_log("failing")[1:] == [
        f"kennel/failing/1: {line}"
        for line in (
            "Bad HTTP status received from algorithm: 500", "", "Message:", "no such breed",
        )
    ]  # fmt: skip
    assert account.data_log("silent")[1] == (
        "kennel/silent/1: Unable to get response from algorithm"
    )


def test_objects_are_shared_by_the_instances(account: Account) -> None:
    for name in "abc":
        account.put(f"many/{name}", name.encode())
    names = json.dumps([{"prefix": "s3://kennel/many/"}, "a", "b", "c"])
    account.put("lists/many.json", names.encode())
    account.create("many", "lists/many.json", S3DataType="ManifestFile", InstanceCount=2)
    assert account.ended("many")["TransformJobStatus"] == "Completed"
    assert account.results("many") == {f"{name}.out": f"<{name}>".encode() for name in "abc"}
    log = account.log("many")
    asked = [
        sorted(line for line in lines if line.startswith("asked"))
        for stream, lines in log.items()
        if not stream.endswith("/data-log")
    ]
    assert sorted(asked) == [["asked a", "asked c"], ["asked b"]]
    assert all(stream.startswith("many/i-") for stream in log)
    assert sum(stream.endswith("/data-log") for stream in log) == 2


def test_a_job_that_is_stopped_leaves_nothing(account: Account) -> None:
    hold = account.code / "inference/hold"
    hold.touch()
    account.put("held/1", b"1")
    account.put("held/2", b"hold")
    account.create("held", "held/", Input={"SplitType": "Line"})
    until(lambda: "TransformStartTime" in account.describe("held"))
    account.sagemaker.stop_transform_job(TransformJobName="held")
    told = account.ended("held")
    hold.unlink()
    assert told["TransformJobStatus"] == "Stopped"
    assert "FailureReason" not in told
    assert account.results("held") == {}
    with pytest.raises(ClientError, match="transform job is in status Stopped"):
        account.sagemaker.stop_transform_job(TransformJobName="held")


def test_a_job_may_do_what_its_models_role_may(account: Account) -> None:
    reads = {"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": "*"}
    role = create_role(account.aws.client("iam"), "reads-only", "sagemaker", [reads])
    account.model("reads-only", "stub.tar.gz", role, PYTHONPATH=str(account.code))
    account.put("denied/1", b"1")
    account.create("denied", "denied/", "reads-only")
    told = account.ended("denied")
    assert told["TransformJobStatus"] == "Failed"
    assert told["FailureReason"].startswith("ClientError: AccessDenied (403)")
    assert "s3:PutObject" in told["FailureReason"]
    assert account.results("denied") == {}


def test_a_job_is_described_and_listed(account: Account) -> None:
    tags = [{"Key": "project", "Value": "kennel"}]
    account.create("told", "nowhere/", Tags=tags, Environment={"A": "b"})
    told = account.ended("told")
    assert told["FailureReason"].startswith(
        'ClientError: No S3 objects found under S3 URL "s3://kennel/nowhere/"'
    )
    assert told["TransformJobArn"] == (
        "arn:aws:sagemaker:us-east-1:123456789012:transform-job/told"
    )
    assert told["TransformInput"] == {
        "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://kennel/nowhere/"}},
        "CompressionType": "None",
        "SplitType": "None",
    }
    assert told["Environment"] == {"A": "b"}
    arn = told["TransformJobArn"]
    assert account.sagemaker.list_tags(ResourceArn=arn)["Tags"] == tags
    listed = account.sagemaker.list_transform_jobs(NameContains="told", StatusEquals="Failed")
    assert [each["TransformJobName"] for each in listed["TransformJobSummaries"]] == ["told"]
    with pytest.raises(ClientError, match="Job name must be unique") as refused:
        account.create("told", "nowhere/")
    assert refused.value.response["Error"]["Code"] == "ResourceInUse"


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        ({"model": "nobody"}, "ValidationException", 'Could not find model "arn:aws:sagemaker:us-'),
        ({"MaxPayloadInMB": 101}, "ValidationException", "MaxPayloadInMB"),
        (
            {"MaxPayloadInMB": 51, "MaxConcurrentTransforms": 2},
            "ValidationException",
            "MaxConcurrentTransforms",
        ),
        ({"S3DataType": "AugmentedManifestFile"}, "ValidationException", "AugmentedManifestFile"),
        ({"DataProcessing": {"InputFilter": "$[1:]"}}, "501", "DataProcessing"),
        ({"Input": {"SplitType": "RecordIO"}}, "501", "RecordIO"),
        ({"DataCaptureConfig": {"DestinationS3Uri": "s3://kennel/x"}}, "501", "DataCaptureConfig"),
        ({"MaxPayloadInMB": 0}, "501", "MaxPayloadInMB 0"),
    ],
)
def test_what_is_refused(account: Account, more: dict[str, Any], code: str, words: str) -> None:
    with pytest.raises(ClientError) as refused:
        account.create("refused", "photos/", **more)
    error = refused.value.response
    status = str(error["ResponseMetadata"]["HTTPStatusCode"])
    assert code in (error["Error"]["Code"], status)
    assert words in str(refused.value)
    with pytest.raises(ClientError, match="Could not find requested job with name: refused"):
        account.describe("refused")


def test_jobs_end_with_a_localaws_that_is_killed(account: Account) -> None:
    hold = account.code / "inference/hold"
    hold.touch()
    account.put("killed/1", b"hold")
    account.create("killed", "killed/")
    account.sagemaker.create_processing_job(
        ProcessingJobName="killed",
        RoleArn=account.role,
        AppSpecification={"ImageUri": "image", "ContainerEntrypoint": ["sleep", "600"]},
        ProcessingResources={"ClusterConfig": {"InstanceType": "ml.m5.large", "VolumeSizeInGB": 1}},
    )

    def processing() -> dict[str, Any]:
        found: dict[str, Any] = account.sagemaker.describe_processing_job(
            ProcessingJobName="killed"
        )
        return found

    until(lambda: "TransformStartTime" in account.describe("killed"))
    until(lambda: "ProcessingStartTime" in processing())
    account.aws.save()
    account.aws.kill()
    account.aws.restart()
    told = account.ended("killed")
    hold.unlink()
    ending = ("Failed", "InternalServerError: localaws ended while the job ran.")
    assert (told["TransformJobStatus"], told["FailureReason"]) == ending
    assert account.results("killed") == {}
    told = until(processing, lambda found: found["ProcessingJobStatus"] != "InProgress")
    assert (told["ProcessingJobStatus"], told["FailureReason"]) == ending
