"""`make demo`: the whole chain on one machine, through the interfaces that AWS has.

Each step is a target of the Makefile, run as a user runs it with ENV=local, against a localaws of
the demonstration's own that asks IAM about every call. What no target tells is asked with boto3.
"""

import argparse
import gzip
import hashlib
import io
import itertools
import json
import os
import socket
import statistics
import subprocess
import sys
import tarfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from PIL import Image

from localaws.execution import ADMINISTRATOR, REGION
from localaws.files import unpack
from localaws.loopback import LOOPBACK
from localaws.report import Answered, ScalingTrace, render
from localaws.traffic import Endpoint

NAME = "kennel-local"
FUNCTION = f"{NAME}-classify"
STATE_BUCKET = "kennel-tfstate"
INSTANCES = 2
LONE_REQUESTS = 400
CLIENTS = 8
LOAD_SECONDS = 4.0
HEAVY_CLIENTS = 60
"""Two and a bit times what one instance is to bear (`target` below): three instances are needed."""
CAMERA_SIZE = (1600, 1200)
PHOTOS = 64
TIME_SCALE = 20
"""An alarm's three minutes are nine seconds, a canary's wait too."""
SCALING_SECONDS = 120.0
LOOK_SECONDS = 0.2
LOOKS = 5

# How the models are released, and how the endpoint scales: variables of the serving stack.
CANARY = {"strategy": "canary", "percent": 50, "wait_s": 180}
TWO_INSTANCES = {"min_capacity": 2, "max_capacity": 3}
ONE_TO_THREE = {"min_capacity": 1, "max_capacity": 3, "target": 25}


class DemoError(Exception):
    """A step of the demonstration failed; the message says which and how."""


@dataclass(frozen=True)
class Plan:
    """What is demonstrated.

    Attributes:
        dataset: The data set's name, for people.
        data: Its folder, with dataset_report.json and test/.
        cache: Folder of the decode-once stores.
        run: Where the search's results will be: tune-job/.
        output: Folder for the report and all that is made on the way.
        started: When the chain began, in seconds since 1970.
    """

    dataset: str
    data: Path
    cache: Path
    run: Path
    output: Path
    started: float


@dataclass(frozen=True)
class Step:
    """One step of the timeline, in seconds since the beginning."""

    name: str
    started: float
    seconds: float


@dataclass
class Chain:
    """Runs steps against a localaws of its own, and keeps the time."""

    plan: Plan
    timeline: list[Step] = field(default_factory=list)

    @cached_property
    def port(self) -> int:
        """A port that was free."""
        with socket.create_server((LOOPBACK, 0)) as free:
            port: int = free.getsockname()[1]
        return port

    @property
    def endpoint(self) -> str:
        """Address of the localaws."""
        return f"http://{LOOPBACK}:{self.port}"

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Say what goes on, and how long it took."""
        started = time.time() - self.plan.started
        print(f"{started:5.0f} s  {name}", flush=True)
        yield
        seconds = time.time() - self.plan.started - started
        self.timeline.append(Step(name, started, seconds))

    def make(self, target: str, code: int = 0, terraform: Any = None, **variables: object) -> str:
        """Run a target of the Makefile; its output goes to a log.

        Args:
            target: The target.
            code: The exit status that it should have: make's own is 2 for any failure.
            terraform: Values of variables of the stacks.
            variables: Variables of the Makefile.

        Returns:
            Its standard output.

        Raises:
            DemoError: It ended otherwise.
        """
        given = {
            "ENV": "local",
            "OUT": self.plan.output,
            "DATA": self.plan.data,
            "CACHE": self.plan.cache,
            "LOCALAWS_PORT": self.port,
            "INSTANCE_TYPE": "ml.m5.xlarge",
            "YES": 1,
            **variables,
        }
        command = ["make", target, *(f"{name}={value}" for name, value in given.items())]
        environment = {
            **os.environ,
            "LOCALAWS_IAM": "enforce",
            "LOCALAWS_TIME_SCALE": str(TIME_SCALE),
            **{f"TF_VAR_{name}": json.dumps(value) for name, value in (terraform or {}).items()},
        }
        with self.log.open("a") as log:
            log.write(f"\n$ {' '.join(command)}\n")
            log.flush()
            done = subprocess.run(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                check=False,
            )
            log.write(done.stdout)
        if done.returncode != code:
            errors = [line for line in self.log.read_text().splitlines() if "rror:" in line]
            said = errors[-1].strip() if errors else f"exit status {done.returncode}"
            raise DemoError(f"make {target}: {said}; see {self.log}")
        return done.stdout

    @property
    def log(self) -> Path:
        """What all steps printed."""
        return self.plan.output / "demo.log"

    @property
    def job(self) -> Path:
        """What the training job wrote beside the model."""
        return self.plan.output / "job"

    @property
    def model(self) -> Path:
        """The content of the first archive."""
        return self.plan.output / "model"

    def python(self, module: str, *arguments: object) -> None:
        """Run one of the project's commands on the data set in a way that no target does.

        Raises:
            DemoError: It failed.
        """
        data = ("--data", self.plan.data, "--cache-dir", self.plan.cache)
        command = [sys.executable, "-m", module, *map(str, [*data, *arguments])]
        with self.log.open("a") as log:
            done = subprocess.run(command, stdout=log, stderr=log, check=False)
        if done.returncode:
            raise DemoError(f"{module}: exit status {done.returncode}; see {self.log}")

    def client(self, service: str) -> Any:
        """A boto3 client of a service, as the account's administrator."""
        return boto3.client(
            service,
            region_name=REGION,
            endpoint_url=self.endpoint,
            aws_access_key_id=ADMINISTRATOR,
            aws_secret_access_key=ADMINISTRATOR,
            config=Config(max_pool_connections=HEAVY_CLIENTS, retries={"total_max_attempts": 1}),
        )

    def fetch(self, uri: str, file: Path) -> None:
        """Fetch an object of S3 by its address."""
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        self.client("s3").download_file(bucket, key, str(file))

    def inventory(self) -> dict[str, list[str]]:
        """All resources that there are, by service."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{self.endpoint}/_localaws/inventory") as answer:
            found: dict[str, list[str]] = json.load(answer)
        return found


def demonstrate(plan: Plan) -> dict[str, Any]:
    """Run the chain from an empty account to an empty account; write report.html and report.json.

    Returns:
        The content of report.json.

    Raises:
        DemoError: A step failed, or did not do what it should.
    """
    plan.output.mkdir(parents=True, exist_ok=True)
    chain = Chain(plan)
    chain.log.unlink(missing_ok=True)
    chain.make("local-reset")
    with chain.step("start localaws"):
        chain.make("local-up")
    try:
        return _chain(chain)
    except DemoError:
        with suppress(DemoError):
            chain.make("logs", SINCE="1h")  # into the demonstration's own; localaws forgets them
        raise
    finally:
        chain.make("local-reset")


def _chain(chain: Chain) -> dict[str, Any]:
    plan = chain.plan
    photos = test_photos(plan.data)[:PHOTOS]
    endpoint = Endpoint(chain.client("sagemaker-runtime"), NAME)

    with chain.step("foundation: terraform apply"):
        chain.make("bootstrap")
        chain.make("apply", STACK="foundation")
    learned = _learn(chain)
    with chain.step("serving: register, terraform apply, verify"):
        chain.make("deploy", terraform={"scaling": TWO_INSTANCES})
        resources = _resources(chain)
    with chain.step("is the plan empty?"):
        plan_empty = _plan_is_empty(chain)
    measured = _measure(chain, endpoint, photos)
    invoked = _invoke(chain, measured.answers)
    released = _release(chain, endpoint, photos)
    with chain.step("load: 1 to 3 instances and back"):
        chain.make("apply", STACK="serving", terraform={"scaling": ONE_TO_THREE})
        trace = _scale(chain, endpoint, photos)
    with chain.step("destroy everything"):
        chain.make("destroy", DELETE_DATA=1)
        left = _left(chain)

    terraform = {
        "resources": resources,
        "plan_empty": plan_empty,
        "endpoint_replaced": released.pop("endpoint_replaced"),
        "left_after_destroy": left,
    }
    scaling = {
        "min": ONE_TO_THREE["min_capacity"],
        "max": ONE_TO_THREE["max_capacity"],
        "peak": trace.peak,
        "ended_at": trace.instances[-1],
    }
    cuts = statistics.quantiles(measured.lone_ms, n=100)
    report = {
        **learned,
        "endpoint": {
            "p50_ms": cuts[49],
            "p99_ms": cuts[98],
            "requests_per_second": measured.requests_per_second,
        },
        "lambda": invoked,
        "terraform": terraform,
        **released,
        "autoscaling": scaling,
        "timeline": [asdict(step) for step in chain.timeline],
        "seconds_total": time.time() - plan.started,
    }
    pages = {
        "curves": chain.job / "learning_curves.svg",
        "evaluation": plan.output / "evaluation/evaluation.html",
    }
    page = render(report, measured.answers, measured.lone_ms, trace, TIME_SCALE, pages)
    (plan.output / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    (plan.output / "report.html").write_text(page)
    return report


def _learn(chain: Chain) -> dict[str, Any]:
    """From photos to an archive in the bucket, by jobs; give what the report says of it."""
    plan = chain.plan
    with chain.step("upload the photos"):
        chain.make("upload")
    with chain.step("search for hyperparameters, in a training job"):
        chain.make("tune", ENGINE="job")
    with chain.step(f"train on {INSTANCES} instances"):
        trained = _last_json(chain.make("train", WHERE="sagemaker", INSTANCES=INSTANCES, JSON=1))
        jobs = _jobs(chain)
    with chain.step("evaluate on the test photos"):
        for name, folder in (("model", chain.model), ("output", chain.job)):
            file = plan.output / f"{name}.tar.gz"
            chain.fetch(trained["result"].replace("model.tar.gz", file.name), file)
            unpack(file, folder)
        output = plan.output / "evaluation"
        chain.python("trainer.evaluate", "--model", chain.model, "--output", output)

    data = _read(plan.data / "dataset_report.json")
    search, training = (
        _read(plan.run / "tune-job/search.json"),
        _read(chain.job / "training_report.json"),
    )
    package, served = (
        _read(chain.job / "package.json"),
        _read(chain.job / "evaluation/evaluation.json"),
    )
    evaluation = _read(output / "evaluation.json")
    return {
        "dataset": {"name": plan.dataset, "classes": len(data["classes"]), **data["splits"]},
        "tuning": {name: search[name] for name in ("trials", "best", "seconds")},
        "training": {n: training[n] for n in ("epochs", "seconds", "images_per_second")},
        "evaluation": {name: evaluation[name] for name in ("top1", "top5", "ece")},
        "package": {
            **{name: package[name] for name in ("precision", "bytes", "sha256", "agreement")},
            "top1_served": served["top1"],
        },
        "jobs": jobs,
    }


@dataclass(frozen=True)
class Measured:
    """What an endpoint answered to test photos, and how fast."""

    answers: list[Answered]
    lone_ms: list[float]
    requests_per_second: float


def _measure(chain: Chain, endpoint: Endpoint, photos: Sequence[Path]) -> Measured:
    bodies = [photo.read_bytes() for photo in photos]
    with chain.step("measure the endpoint"):
        lone_ms = endpoint.ask_alone(bodies, LONE_REQUESTS)
        with endpoint.clients(bodies, CLIENTS) as load:
            time.sleep(LOAD_SECONDS)
        answers = []
        for photo, body in zip(photos, bodies, strict=True):
            best = endpoint.ask(body)["predictions"][0]
            answers.append(Answered(photo, best["label"], best["probability"]))
    return Measured(answers, lone_ms, load.answers.total() / load.seconds)


def _invoke(chain: Chain, answers: Sequence[Answered]) -> dict[str, Any]:
    chosen = max(answers, key=lambda answered: answered.probability)
    with chain.step("invoke through Lambda"):
        (answer,) = json.loads(chain.make("invoke", FILE=chosen.photo, JSON=1))
        cold_start_ms = _cold_start_ms(chain)
    predictions = answer.get("predictions") or [{"label": None}]
    return {
        "statusCode": answer["status"],
        "label": predictions[0]["label"],
        "expected": chosen.expected,
        "cold_start_ms": cold_start_ms,
        "zip_bytes": (chain.plan.output / "lambda/kennel-lambda-arm64.zip").stat().st_size,
    }


def _release(chain: Chain, endpoint: Endpoint, photos: Sequence[Path]) -> dict[str, Any]:
    """A second model by canary, then a broken one, then back; give what the report says of it."""
    second, broken = (chain.plan.output / f"{name}.tar.gz" for name in ("second", "broken"))
    terraform = {"scaling": TWO_INSTANCES, "release": CANARY}
    bodies = [photo.read_bytes() for photo in photos]
    with chain.step("a second model, by canary under traffic"):
        flags = ("--output", second, "--precision", "fp32")
        chain.python("trainer.package", "--model", _second_model(chain), *flags)
        created = _described(chain)["CreationTime"]
        with endpoint.clients(bodies, 1) as traffic:
            chain.make("deploy", MODEL=second, terraform=terraform)
        replaced = _described(chain)["CreationTime"] != created
    with chain.step("a broken model: SageMaker rolls back, verify says so"):
        before = _described(chain)["EndpointConfigName"]
        damage(second, broken)
        chain.make("apply", code=2, STACK="serving", MODEL=broken, terraform=terraform)
        stayed = _described(chain)
        failed = json.loads(chain.make("verify", code=2, JSON=1))["checks"]
    with chain.step("roll back"):
        chain.make("rollback", terraform=terraform)
        verified = json.loads(chain.make("verify", JSON=1))
    return {
        "endpoint_replaced": replaced,
        "release": {
            "requests": traffic.requests,
            "failed": len(traffic.failures),
            "answers": {digest[:12]: count for digest, count in traffic.answers.items()},
        },
        "rollback": {
            "endpoint_stayed": stayed["EndpointConfigName"] == before,
            "reason": stayed.get("FailureReason", ""),
            "verify_failed": [check["name"] for check in failed if not check["passed"]],
        },
        "verify": {"passed": verified["passed"], "checks": len(verified["checks"])},
    }


def _second_model(chain: Chain) -> Path:
    """The first model, to be served in float32; if it is served so already, one with a new head."""
    if _read(chain.job / "package.json")["precision"] == "int8":
        return chain.model
    folder = chain.plan.output / "second"
    found = chain.plan.run / "tune-job/best.json"
    config = ("--config", found, "--unfreeze", "none", "--epochs", 2)
    places = [(f"--{name}-dir", folder / name) for name in ("model", "output", "checkpoint")]
    chain.python("trainer.train", *config, *itertools.chain.from_iterable(places))
    return folder / "model"


def test_photos(data: Path) -> list[Path]:
    """List the test photos, one of each class in turn: the first few are of many classes."""
    folders = sorted(folder for folder in (data / "test").iterdir() if folder.is_dir())
    columns = [sorted(path for path in folder.rglob("*") if path.is_file()) for folder in folders]
    depth = max(map(len, columns))
    return [column[row] for row in range(depth) for column in columns if row < len(column)]


def damage(archive: Path, broken: Path) -> None:
    """Write an archive whose network is cut in half and whose manifest fits that.

    No checksum tells it from a sound one: only who loads the network finds out.
    """
    with tarfile.open(archive) as packed:
        files = {member.name: packed.extractfile(member) for member in packed.getmembers()}
        content = {name: file.read() for name, file in files.items() if file}
    network = content["model.onnx"][: len(content["model.onnx"]) // 2]
    manifest = json.loads(content["manifest.json"])
    manifest["files"]["model.onnx"] |= {
        "sha256": hashlib.sha256(network).hexdigest(),
        "bytes": len(network),
    }
    content |= {"model.onnx": network, "manifest.json": json.dumps(manifest).encode()}
    with gzip.open(broken, "wb", 1) as file, tarfile.open(fileobj=file, mode="w") as packed:
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            packed.addfile(member, io.BytesIO(data))


def _last_json(printed: str) -> dict[str, Any]:
    """The last object that a command printed: the steps before it may have printed theirs."""
    lines = [line for line in printed.splitlines() if line.startswith("{")]
    content: dict[str, Any] = json.loads(lines[-1])
    return content


def _read(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text())
    return content


def _jobs(chain: Chain) -> list[dict[str, Any]]:
    """What became of the training jobs, the first first."""
    sagemaker = chain.client("sagemaker")
    found = sagemaker.list_training_jobs(SortBy="CreationTime", SortOrder="Ascending")
    jobs: list[dict[str, Any]] = []
    for summary in found["TrainingJobSummaries"]:
        job = sagemaker.describe_training_job(TrainingJobName=summary["TrainingJobName"])
        jobs.append(
            {
                "name": job["TrainingJobName"],
                "kind": "search" if not jobs else "training",
                "instances": job["ResourceConfig"]["InstanceCount"],
                "status": job["TrainingJobStatus"],
                "seconds": job["TrainingTimeInSeconds"],
            }
        )
    return jobs


def _resources(chain: Chain) -> int:
    """How many resources Terraform manages in both stacks."""
    s3 = chain.client("s3")
    (bucket,) = (
        bucket["Name"]
        for bucket in s3.list_buckets()["Buckets"]
        if bucket["Name"].startswith(STATE_BUCKET)
    )
    count = 0
    for stack in ("foundation", "serving"):
        state = json.load(s3.get_object(Bucket=bucket, Key=f"local/{stack}.tfstate")["Body"])
        managed = [found for found in state["resources"] if found["mode"] == "managed"]
        count += sum(len(found["instances"]) for found in managed)
    return count


def _plan_is_empty(chain: Chain) -> bool:
    try:
        chain.make("plan", terraform={"scaling": TWO_INSTANCES})
    except DemoError:
        return False
    return True


def _described(chain: Chain) -> Mapping[str, Any]:
    described: Mapping[str, Any] = chain.client("sagemaker").describe_endpoint(EndpointName=NAME)
    return described


def _cold_start_ms(chain: Chain) -> float | None:
    """What the start of a function's environment took, by its own report."""
    found = chain.client("logs").filter_log_events(
        logGroupName=f"/aws/lambda/{FUNCTION}", filterPattern="initDurationMs"
    )
    reports = [json.loads(event["message"])["record"]["metrics"] for event in found["events"]]
    return min((report["initDurationMs"] for report in reports), default=None)


def _left(chain: Chain) -> list[str]:
    """What there is but the bucket of the states, and the records of jobs, which AWS keeps."""
    return [
        name
        for names in chain.inventory().values()
        for name in names
        if not (name.startswith("TrainingJob ") or STATE_BUCKET in name)
    ]


def _scale(chain: Chain, endpoint: Endpoint, photos: Sequence[Path]) -> ScalingTrace:
    """Load the endpoint until it has all its instances, and leave it alone until it has one.

    Raises:
        DemoError: It does not get there.
    """
    trace = ScalingTrace()
    started = time.monotonic()

    def wait_for(instances: int, clients: int) -> None:
        """Look until it has had that many for a second, which a picture can show."""
        deadline = time.monotonic() + SCALING_SECONDS
        while trace.instances[-LOOKS:] != [instances] * LOOKS:
            if time.monotonic() > deadline:
                raise DemoError(
                    f"the endpoint has {trace.instances[-1]} instances, not {instances}, after "
                    f"{SCALING_SECONDS:.0f} s with {clients} clients"
                )
            (variant,) = _described(chain)["ProductionVariants"]
            trace.add(time.monotonic() - started, variant["CurrentInstanceCount"], clients)
            time.sleep(LOOK_SECONDS)

    wait_for(ONE_TO_THREE["min_capacity"], 0)
    with endpoint.clients([_enlarged(photo) for photo in photos[:CLIENTS]], HEAVY_CLIENTS):
        wait_for(ONE_TO_THREE["max_capacity"], HEAVY_CLIENTS)
    wait_for(ONE_TO_THREE["min_capacity"], 0)
    return trace


def _enlarged(photo: Path) -> bytes:
    """The photo in a camera's size, whose decoding keeps an instance busy."""
    with Image.open(photo) as image:
        file = io.BytesIO()
        image.convert("RGB").resize(CAMERA_SIZE).save(file, "PNG", compress_level=1)
    return file.getvalue()


def main() -> None:
    """Run the command line; exit 1 if anything is not as it should be."""
    parser = argparse.ArgumentParser(prog="python -m localaws.demo", description=main.__doc__)
    for flag in ("data", "cache", "run", "output"):
        parser.add_argument(f"--{flag}", type=Path, required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--started", type=float, default=time.time())
    plan = Plan(**vars(parser.parse_args()))
    try:
        report = demonstrate(plan)
    except (DemoError, ClientError, BotoCoreError, OSError) as error:
        sys.exit(f"error: {error}")
    answer, scaling = report["lambda"], report["autoscaling"]
    print(
        f"Lambda answered {answer['statusCode']}: {answer['label']}, "
        f"expected {answer['expected']}\n"
        f"top-1 on test {report['evaluation']['top1']:.4f}, as served "
        f"{report['package']['top1_served']:.4f} ({report['package']['precision']})\n"
        f"canary: {report['release']['requests']} requests, {report['release']['failed']} failed; "
        f"scaled {scaling['min']} to {scaling['peak']} to {scaling['ended_at']}; "
        f"left after destroy: {len(report['terraform']['left_after_destroy'])}\n"
        f"report: {plan.output / 'report.html'} after {report['seconds_total']:.0f} s"
    )
    if faults := list(_faults(report)):
        sys.exit("error: " + "; ".join(faults))


def _faults(report: Mapping[str, Any]) -> Iterator[str]:
    answer, terraform = report["lambda"], report["terraform"]
    if (answer["statusCode"], answer["label"]) != (200, answer["expected"]):
        yield "the answer through Lambda is not the expected one"
    if not terraform["plan_empty"]:
        yield "a plan right after an apply is not empty"
    if terraform["endpoint_replaced"]:
        yield "the second model replaced the endpoint"
    if left := terraform["left_after_destroy"]:
        yield f"left after destroy: {', '.join(left)}"
    if report["release"]["failed"]:
        yield f"{report['release']['failed']} requests failed during the release"
    if not report["rollback"]["endpoint_stayed"]:
        yield "the broken model is in service"
    if not report["verify"]["passed"]:
        yield "make verify fails after the rollback"


if __name__ == "__main__":
    main()
