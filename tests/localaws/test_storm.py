"""A short chain in bad weather, with IAM enforced: nothing is lost, and nothing is left.

In a storm each command succeeds or says why, and repeated it reaches the goal; in rough weather it
succeeds. Kennel's own functions do what they do in an account; what Terraform would make is made by
hand.
"""

import argparse
import json
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from botocore.exceptions import ClientError
from PIL import Image

from terraform.cli import bootstrap, deploy, model, objects, packages, smoke
from tests.archives import make_archive
from tests.localaws.conftest import LocalAws, until
from tests.localaws.roles import create_role, document
from tests.trainer.launching import BUCKET, work_in
from trainer import jobs, launch, patience
from trainer.errors import KennelError
from trainer.jobs import Named, Outcome
from trainer.jobs_sagemaker import Work, bearing_lost_answers
from trainer.target import Target, explained, load
from trainer.upload import require_manifest, upload

SEEDS = range(20)
REPEATS = 12
"""How often a command is given at most in a storm; no user has the patience for more."""
NAME = "kennel-local"
REPOSITORY = f"123456789012.dkr.ecr.us-east-1.amazonaws.com/{NAME}-serving"
# What the jobs' and the endpoint's roles may do: what Kennel's own may, as far as it is used here.
WRITES_LOGS = {
    "Effect": "Allow",
    "Action": ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"],
    "Resource": "*",
}
OF_OBJECTS = {"Effect": "Allow", "Resource": [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"]}
RIGHTS = {
    "training": (
        WRITES_LOGS,
        {**OF_OBJECTS, "Action": ["s3:GetObject", "s3:ListBucket", "s3:PutObject"]},
    ),
    "serving": (
        WRITES_LOGS,
        {**OF_OBJECTS, "Action": ["s3:GetObject", "s3:ListBucket"]},
        {"Effect": "Allow", "Action": "ecr:*", "Resource": "*"},
    ),
}
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
# A container that answers with the model's own digests.
SERVER = """
import http.server, json, os, pathlib
answer = (pathlib.Path(os.environ["SM_MODEL_DIR"]) / "labels.json").read_bytes()
class Requests(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.reply(b"")
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.reply(answer)
    def reply(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(
    ("127.0.0.1", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Requests)
print(json.dumps({"event": "ready", "port": server.server_port}), flush=True)
server.serve_forever()
"""

T = TypeVar("T")


def given(run: Callable[[], T], attempts: int) -> T:
    """Give a command until it succeeds; whatever else it ends with is one line."""
    for _ in range(attempts):
        try:
            with explained():
                return run()
        except KennelError as error:
            last = str(error)
            assert last
            assert "\n" not in last
    raise AssertionError(last)


def settle(call: Callable[[], object], *signs: str) -> None:
    """As Terraform does: what is there already, or is gone already, is well."""
    try:
        call()
    except ClientError as error:
        if not any(sign in str(error) for sign in signs):
            raise


class Chain:
    """The steps in one environment; each is safe to repeat."""

    def __init__(self, aws: LocalAws, folder: Path) -> None:
        """Bring what the steps work on."""
        self.aws = aws
        self.target: Target = load("local")
        self.photos = folder / "photos"
        for split in ("train", "valid", "test"):
            for name in ("red", "green"):
                (self.photos / split / name).mkdir(parents=True)
                Image.new("RGB", (8, 8), name).save(self.photos / split / name / "a.png")
        self.code = folder / "code"
        (self.code / "inference").mkdir(parents=True)
        (self.code / "inference/__init__.py").touch()
        (self.code / "inference/server.py").write_text(SERVER)
        self.archive = make_archive(folder)
        opened = model.opened(self.archive, "it")
        self.picture, self.digest = smoke.make(opened), opened.digest
        self.started: list[str] = []

    def client(self, service: str) -> Any:
        return self.target.client(service)

    def weather(self, kind: str, seed: int = 0) -> dict[str, Any]:
        page = f"{self.aws.endpoint}/_localaws/weather?kind={kind}&seed={seed}"
        with urllib.request.urlopen(urllib.request.Request(page, method="POST")) as answer:
            told: dict[str, Any] = json.load(answer)
        return told

    def happened(self) -> dict[str, int]:
        with urllib.request.urlopen(f"{self.aws.endpoint}/_localaws/weather") as answer:
            told: dict[str, int] = json.load(answer)["happened"]
        return told

    def lay_the_foundation(self) -> None:
        s3, iam, ssm = (self.client(name) for name in ("s3", "iam", "ssm"))
        settle(lambda: s3.create_bucket(Bucket=BUCKET))
        # Terraform's provider waits for it, too.
        patience.patiently(lambda: s3.head_bucket(Bucket=BUCKET), ("404",))
        for role, rights in RIGHTS.items():
            settle(partial(create_role, iam, role, "sagemaker", ()), "EntityAlreadyExists")
            iam.put_role_policy(RoleName=role, PolicyName="own", PolicyDocument=document(*rights))
        values = {"bucket": BUCKET, "training_role_arn": self.role("training")}
        for key, value in values.items():
            ssm.put_parameter(
                Name=f"/kennel/local/{key}", Type="String", Value=value, Overwrite=True
            )

    def role(self, name: str) -> str:
        return f"arn:aws:iam::123456789012:role/{name}"

    def train(self) -> Outcome:
        work = Work("train", "pets", {})
        order = launch.Order("training", "sagemaker", work, self.submit)
        return launch.carry_out(
            self.target, order, argparse.Namespace(fresh=False, json=False, output=None)
        )

    def submit(self, target: Target, _: Work, named: Named) -> str:
        """Like `jobs_sagemaker.submit`, of a job that takes no time: it hands its model on."""
        source = {"Bucket": BUCKET, "Key": "source/model.tar.gz"}
        self.client("s3").put_object(**source, Body=self.archive.read_bytes())
        name = f"{NAME}-pets-{len(self.started)}"
        self.started.append(name)
        named(name)
        script = (
            'cd "$SAGEMAKER_BASE_DIR"; tar xzf input/data/model/model.tar.gz -C model; echo done'
        )
        channel = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/source/"}
        with bearing_lost_answers():
            self.client("sagemaker").create_training_job(
                TrainingJobName=name,
                RoleArn=target.required_parameter("training_role_arn"),
                AlgorithmSpecification={
                    "TrainingImage": "image",
                    "TrainingInputMode": "File",
                    "ContainerEntrypoint": ["bash", "-c", script],
                },
                InputDataConfig=[{"ChannelName": "model", "DataSource": {"S3DataSource": channel}}],
                OutputDataConfig={"S3OutputPath": f"s3://{BUCKET}/jobs/"},
                ResourceConfig={
                    "InstanceType": "ml.m5.large",
                    "InstanceCount": 1,
                    "VolumeSizeInGB": 1,
                },
                StoppingCondition={"MaxRuntimeInSeconds": 300},
            )
        return name

    def register(self) -> None:
        source, _ = deploy.latest(self.target)
        archive = model.locate(source, self.target)
        opened = model.opened(model.fetch(archive, self.target), source)
        model.publish(archive, self.target)
        smoke.store(self.picture, archive, self.target)
        package = packages.register(opened, archive, source, self.target)
        packages.judge(package, self.target, None)

    def serve(self) -> None:
        sagemaker = self.client("sagemaker")
        ecr = self.client("ecr")
        settle(lambda: ecr.create_repository(repositoryName=f"{NAME}-serving"), "AlreadyExists")
        settle(
            lambda: ecr.put_image(
                repositoryName=f"{NAME}-serving",
                imageManifest=json.dumps({"schemaVersion": 2, "mediaType": MANIFEST}),
                imageTag="good",
            ),
            "AlreadyExists",
        )
        create_model = partial(
            sagemaker.create_model,
            ModelName="it",
            ExecutionRoleArn=self.role("serving"),
            PrimaryContainer={
                "Image": f"{REPOSITORY}:good",
                "ModelDataUrl": f"s3://{BUCKET}/models/{self.digest[:12]}/model.tar.gz",
                "Environment": {"PYTHONPATH": str(self.code)},
            },
        )

        def made() -> bool:
            try:
                settle(create_model, "already existing")
            except ClientError as error:
                # Terraform's provider waits for a new role, too.
                if "assume role" not in str(error):
                    raise
                return False
            return True

        until(made)
        variant = {
            "VariantName": "main",
            "ModelName": "it",
            "InstanceType": "ml.m5.large",
            "InitialInstanceCount": 1,
        }
        settle(
            lambda: sagemaker.create_endpoint_config(
                EndpointConfigName="it", ProductionVariants=[variant]
            ),
            "already existing",
        )
        settle(
            lambda: sagemaker.create_endpoint(EndpointName=NAME, EndpointConfigName="it"),
            "already existing",
        )
        described = until(self.endpoint, lambda found: found["EndpointStatus"] != "Creating")
        if described["EndpointStatus"] == "Failed":
            # As Terraform does: what failed is made anew.
            self.end_endpoint()
            raise KennelError(described["FailureReason"])

    def endpoint(self) -> dict[str, Any]:
        found: dict[str, Any] = self.client("sagemaker").describe_endpoint(EndpointName=NAME)
        return found

    def end_endpoint(self) -> None:
        sagemaker = self.client("sagemaker")
        settle(lambda: sagemaker.delete_endpoint(EndpointName=NAME), "Could not find")

        def gone() -> bool:
            try:
                self.endpoint()
            except ClientError as error:
                if "Could not find" not in str(error):
                    raise
                return True
            return False

        until(gone)

    def invoke(self) -> list[str]:
        runtime = self.client("sagemaker-runtime")
        answer = runtime.invoke_endpoint(EndpointName=NAME, Body=b"photo")
        labels: list[str] = json.loads(answer["Body"].read())
        return labels

    def destroy(self) -> None:
        sagemaker, iam, s3 = (self.client(name) for name in ("sagemaker", "iam", "s3"))
        self.end_endpoint()
        settle(lambda: sagemaker.delete_endpoint_config(EndpointConfigName="it"), "Could not find")
        settle(lambda: sagemaker.delete_model(ModelName="it"), "Could not find")
        packages.delete_all(self.target)
        for name in self.started:
            settle(partial(sagemaker.delete_training_job, TrainingJobName=name), "found")
        settle(lambda: objects.delete(s3, BUCKET), "NoSuchBucket")
        settle(lambda: s3.delete_bucket(Bucket=BUCKET), "NoSuchBucket")
        for role in RIGHTS:
            delete = partial(iam.delete_role_policy, RoleName=role, PolicyName="own")
            settle(delete, "NoSuchEntity")
            settle(partial(iam.delete_role, RoleName=role), "NoSuchEntity")
        settle(
            lambda: self.client("ecr").delete_repository(
                repositoryName=f"{NAME}-serving", force=True
            ),
            "NotFound",
        )
        for key in ("bucket", "training_role_arn"):
            self.target.forget_parameter(key)
        logs = self.client("logs")
        for group in logs.describe_log_groups()["logGroups"]:
            delete = partial(logs.delete_log_group, logGroupName=group["logGroupName"])
            settle(delete, "ResourceNotFound")
        bootstrap.delete(self.target, approved=True)


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    """Its waits pass fast, for nobody watches, and nobody needs its state."""
    options = ("--time-scale", "1000", "--save", "end", "--iam", "enforce")
    running = LocalAws(tmp_path_factory.mktemp("storm"), *options)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def chain(aws: LocalAws, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    with pytest.MonkeyPatch.context() as patch:
        work_in(aws, patch, poll_seconds=0.2)
        # The weather goes by calls, not by time: to wait between them would change nothing.
        backoff = "botocore.retries.standard.ExponentialBackoff.delay_amount"
        patch.setattr(backoff, lambda *_: 0.0)
        patch.setattr(patience, "_FIRST_PAUSE_SECONDS", 0.0)
        # As if each command were a process of its own, whose clients have spent no attempts yet.
        patch.setattr("botocore.retries.quota.RetryQuota.acquire", lambda *_: True)
        yield Chain(aws, tmp_path_factory.mktemp("chain"))


@pytest.mark.parametrize(
    ("kind", "seed", "attempts"),
    [*(("storm", seed, REPEATS) for seed in SEEDS), ("rough", 0, 1)],
)
def test_bad_weather_delays_the_chain_and_loses_nothing(
    chain: Chain, kind: str, seed: int, attempts: int
) -> None:
    def command(run: Callable[[], T]) -> T:
        return given(run, attempts)

    chain.started.clear()
    chain.weather(kind, seed)
    command(lambda: bootstrap.create(chain.target))
    command(chain.lay_the_foundation)
    uploaded = command(lambda: upload(chain.target, chain.photos, "pets"))
    outcome = command(chain.train)
    command(chain.register)
    command(chain.serve)
    assert command(chain.invoke) == ["Red", "Green", "Blue"]

    happened = chain.happened()
    chain.weather("fair")
    assert happened
    # What was reported is there, and was done once.
    assert require_manifest(chain.target, "pets").fingerprint == uploaded.fingerprint
    assert jobs.read_json(chain.target, BUCKET, "jobs/latest.json")["job"] == outcome.job  # type: ignore[index]
    listed = chain.client("sagemaker").list_training_jobs()["TrainingJobSummaries"]
    done = [job["TrainingJobName"] for job in listed if job["TrainingJobStatus"] == "Completed"]
    assert done == [outcome.job]
    assert {found.digest for found in packages.packages(chain.target)} == {chain.digest}

    chain.weather(kind, seed + len(SEEDS))
    command(chain.destroy)
    chain.weather("fair")
    # Logs come late.
    for group in chain.client("logs").describe_log_groups()["logGroups"]:
        chain.client("logs").delete_log_group(logGroupName=group["logGroupName"])
    assert not chain.aws.inventory()
