"""`make demo`: the whole chain on one machine, through the interfaces that AWS has.

Each step is a target of the Makefile, run as a user runs it with ENV=local, against a localaws of
the demonstration's own that asks IAM about every call. What no target tells is asked with boto3.
"""

import argparse
import fcntl
import gzip
import hashlib
import io
import itertools
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tarfile
import threading
import time
import urllib.request
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from PIL import Image

from localaws import shell
from localaws.execution import ADMINISTRATOR, REGION
from localaws.files import replacing, unpack
from localaws.growth import LOOKS, Growth, GrowthError, Seen, grow, shrink
from localaws.progress import STALL_SECONDS, Progress
from localaws.report import Answered, ScalingTrace, render
from localaws.steps import DemoError, Step, Steps, StoppedError, tail, told
from localaws.traffic import Account, Endpoint, Load, TrafficError

NAME = "kennel-local"
FUNCTION = f"{NAME}-classify"
HANDOVER = "/kennel/local/"
STATE_BUCKET = "kennel-tfstate"
INSTANCES = 2
LONE_REQUESTS = 400
CLIENTS = 8
LOAD_SECONDS = 4.0
LOAD_ANSWERS = 50
"""A busy machine gives fewer in that time."""
PHOTOS = 64
MAX_PHOTO_BYTES = 6 * 2**20
"""What SageMaker takes as a request."""
MOSAIC, CAMERA_SIZE = (32, 24), (2400, 1800)
"""What the clients ask for: few bytes to send, and many pixels for an instance to decode."""
TIME_SCALE = 20
"""An alarm's three minutes are nine seconds, a canary's wait too."""
LOOK_SECONDS = 0.2
CI_LINES = 60
"""What of a failed step's log is printed where `CI` is set, and nobody can look at the file."""

# How the models are released, and how the endpoint scales: variables of the serving stack.
CANARY = {"strategy": "canary", "percent": 50, "wait_s": 180}
TWO_INSTANCES = {"min_capacity": 2, "max_capacity": 3}
GROWTH = Growth(least=1, most=3, target=25)
ONE_TO_THREE = {"min_capacity": GROWTH.least, "max_capacity": GROWTH.most, "target": GROWTH.target}
# How late an answer is tells here what else the machine does, not whether the model is good.
PATIENT = {"latency_p99_ms": 59_000}

_POLL_SECONDS = 0.5
_HOURS_A_MONTH = 730


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
        environment: What the targets are run with: the user's own, proxies included.
    """

    dataset: str
    data: Path
    cache: Path
    run: Path
    output: Path
    started: float
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))


@dataclass
class Findings:
    """What the demonstration has found so far.

    Attributes:
        report: Members of report.json.
        answers: What the endpoint said of test photos.
        lone_ms: Answer times of a lone client.
        trace: The endpoint's instances under load.
    """

    report: dict[str, Any]
    answers: list[Answered] = field(default_factory=list)
    lone_ms: list[float] = field(default_factory=list)
    trace: ScalingTrace = field(default_factory=ScalingTrace)


class Chain:
    """The steps, and the localaws that they are done against.

    Attributes:
        plan: What is demonstrated.
        steps: Runs the steps.
        found: What came of them.
        url: Address of localaws once it is up.
        has_state: Whether there is a bucket for Terraform's state, and so something to destroy.
    """

    def __init__(self, plan: Plan, stall_seconds: float = STALL_SECONDS) -> None:
        """Begin.

        Args:
            plan: What is demonstrated.
            stall_seconds: How long nothing may move.
        """
        self.plan = plan
        self.found = Findings({"dataset": {"name": plan.dataset}, "made": _made()})
        self.url = ""
        self.has_state = False
        self._clients: dict[str, Any] = {}
        self._lock = threading.Lock()
        self.steps = Steps(
            plan.output,
            plan.started,
            {
                "ENV": "local",
                "OUT": plan.output,
                "DATA": plan.data,
                "CACHE": plan.cache,
                "LOCALAWS_PORT": 0,  # a free one: the usual one may be taken
                "INSTANCE_TYPE": "ml.m5.xlarge",
                "YES": 1,
            },
            {
                **plan.environment,
                "LOCALAWS_IAM": "enforce",
                # Nobody needs its state, and all checkpoints over and over would keep a disk busy.
                "LOCALAWS_SAVE": "end",
                "LOCALAWS_TIME_SCALE": str(TIME_SCALE),
                "TF_VAR_rollback_thresholds": json.dumps(PATIENT),
            },
            stall_seconds,
        )

    def start(self) -> None:
        """Start localaws with nothing in it."""
        with self.steps.step("start localaws") as step:
            step.make("local-reset")
            step.make("local-up")
            self.url = _read(self.plan.output / "localaws/server.json")["endpoint"]
            self.steps.variables["LOCALAWS_PORT"] = self.url.rpartition(":")[2]

    @property
    def account(self) -> Account:
        """The account, as its administrator."""
        return Account(self.url, ADMINISTRATOR, REGION)

    @property
    def job(self) -> Path:
        """What the training job wrote beside the model."""
        return self.plan.output / "job"

    @property
    def model(self) -> Path:
        """The content of the first archive."""
        return self.plan.output / "model"

    @property
    def evaluation(self) -> Path:
        """What is known of the model on the test photos."""
        return self.plan.output / "evaluation"

    def archive(self, name: str) -> Path:
        """Where an archive of that name lies."""
        return self.plan.output / f"{name}.tar.gz"

    @property
    def data_flags(self) -> tuple[object, ...]:
        """What the project's commands are told of the data set."""
        return "--data", self.plan.data, "--cache-dir", self.plan.cache

    def client(self, service: str) -> Any:
        """A boto3 client of a service, as the account's administrator."""
        # A session makes one client at a time.
        with self._lock:
            if service not in self._clients:
                self._clients[service] = self.account.client(service, CLIENTS)
            return self._clients[service]

    def fetch(self, uri: str, file: Path) -> None:
        """Fetch an object of S3 by its address."""
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        self.client("s3").download_file(bucket, key, str(file))

    def inventory(self) -> dict[str, list[str]]:
        """All resources that there are, by service."""
        found: dict[str, list[str]] = self._page("inventory")
        return found

    def weather(self) -> dict[str, Any]:
        """The weather, and how often what has happened."""
        found = self._page("weather")
        return {name: found[name] for name in ("weather", "seed", "happened")}

    def _page(self, name: str) -> Any:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{self.url}/_localaws/{name}") as answer:
            return json.load(answer)

    def described(self) -> Mapping[str, Any]:
        """The endpoint."""
        found: Mapping[str, Any] = self.client("sagemaker").describe_endpoint(EndpointName=NAME)
        return found


def demonstrate(plan: Plan, stall_seconds: float = STALL_SECONDS) -> dict[str, Any]:
    """Run the chain from an empty account to an empty account; write report.html and report.json.

    Whatever fails, and on SIGINT, SIGTERM and SIGHUP: the report tells how far it came, all that
    was started is ended, what was made in localaws is destroyed, and localaws is reset.

    Args:
        plan: What to demonstrate.
        stall_seconds: How long nothing may move.

    Returns:
        The content of report.json; its "failure" is None if all was done.
    """
    plan.output.mkdir(parents=True, exist_ok=True)
    chain = Chain(plan, stall_seconds)
    with chain.steps as steps:
        try:
            chain.start()
            _chain(chain)
        except StoppedError:
            pass
        except Exception as error:
            steps.fail(told(error))
        try:
            if steps.failure:
                _write(chain)
                _clear_up(chain)
        finally:
            steps.heeds_signals = False
            with suppress(OSError, ValueError, KeyError):
                chain.found.report["weather"] = chain.weather()
            with suppress(Exception), steps.step("reset localaws") as step:
                step.make("local-reset")
    return _write(chain)


def _clear_up(chain: Chain) -> None:
    """After a failure: keep the logs that localaws has, and destroy what was made.

    Another signal cuts this short.
    """
    steps = chain.steps
    steps.recover()
    with suppress(Exception):
        if chain.has_state:
            steps.say("        it ends early; what was made is destroyed (Ctrl-C leaves that out)")
            with steps.step("what the parts wrote") as step:
                step.make("logs", codes=range(256), SINCE="1h")
            with steps.step("destroy everything") as step:
                step.make("destroy", DELETE_DATA=1)
    steps.recover()


def _write(chain: Chain) -> dict[str, Any]:
    """Write what was found so far; return the content of report.json."""
    found, steps = chain.found, chain.steps
    report = {
        **found.report,
        "failure": _failure(chain),
        "timeline": [step.described() for step in steps.timeline],
        "seconds_total": steps.now,
    }
    report["faults"] = [] if steps.failure else list(_faults(report))
    pages = {
        "curves": chain.job / "learning_curves.svg",
        "evaluation": chain.evaluation / "evaluation.html",
    }
    if "evaluation" not in report:
        pages = {}  # there may be those of a former run
    page = render(report, found.answers, found.lone_ms, found.trace, TIME_SCALE, pages)
    content = json.dumps(report, indent=2) + "\n"
    for name, text in (("report.json", content), ("report.html", page)):
        with replacing(chain.plan.output / name) as file:
            file.write_text(text)
            file.chmod(0o644)
    return report


def _failure(chain: Chain) -> dict[str, Any] | None:
    """What failed first, where, and which files tell more; None if nothing did."""
    if not chain.steps.failure:
        return None
    error, step = chain.steps.failure
    logs = [step.log] if step else []
    logs += [each.log for each in chain.steps.timeline if each.name == "what the parts wrote"]
    logs.append(chain.plan.output / "localaws/server.log")
    return {
        "step": step.name if step else "",
        "error": error,
        "logs": [str(log) for log in logs if log.exists() and log.stat().st_size],
    }


def _made() -> dict[str, str]:
    """When, and from which commit."""
    commit = ""
    with suppress(OSError):
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
        ).stdout.strip()
    return {
        "date": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        "commit": commit or "unknown",
    }


def _chain(chain: Chain) -> None:
    steps, report = chain.steps, chain.found.report
    # Terraform's provider lets 55 s pass for the bucket's lifecycle rules, whatever S3 says. What
    # jobs need is there long before.
    foundation = steps.aside(lambda: _foundation(chain))
    with steps.step("build the Lambda function") as step:
        photos = readable(photos_in_turn(chain.plan.data), PHOTOS)
        step.make("lambda")
        month = {
            stack: json.loads(step.python("terraform.cli.cost", stack, "--json"))["usd"]
            for stack in ("foundation", "serving")
        }
    usd = _learn(chain, lambda: foundation.goes_on)
    foundation.result()
    # And 25 s for an SQS queue: meanwhile what the releases need is made.
    packing = steps.aside(lambda: _pack(chain))
    served_at = steps.now
    with steps.step("serving: register, terraform apply, verify") as step:
        _verified(chain, step, "deploy", terraform={"scaling": TWO_INSTANCES})
        report["terraform"] = {"resources": _resources(chain)}
    with steps.step("is the plan empty?") as step:
        # It says so once for each stack.
        plan = step.make("plan", terraform={"scaling": TWO_INSTANCES})
        report["terraform"]["plan_empty"] = plan.count("No changes.") == 2
    # What follows is measured, or has to be watched alone.
    packing.result()
    endpoint = Endpoint(chain.client("sagemaker-runtime"), NAME)
    _measure(chain, endpoint, photos)
    _invoke(chain)
    _release(chain, endpoint, photos)
    _scale(chain, photos)
    with steps.step("destroy everything") as step:
        step.make("destroy", DELETE_DATA=1)
        report["terraform"]["left_after_destroy"] = _left(chain)
    report["cost"] = cost(usd, month, {"foundation": steps.now, "serving": steps.now - served_at})


def _foundation(chain: Chain) -> None:
    with chain.steps.step("foundation: terraform apply") as step:
        step.make("bootstrap")
        chain.has_state = True
        step.make("apply", STACK="foundation")


def _wait_for_handover(chain: Chain, step: Step, is_coming: Callable[[], bool]) -> None:
    """Wait until bucket and roles are there: a role's parameter comes after its policies."""
    step.note = "the foundation's bucket and roles"
    ssm, names = chain.client("ssm"), [f"{HANDOVER}bucket", f"{HANDOVER}training_role_arn"]
    while is_coming():
        # What is throttled or cut off is asked again at the next look.
        with suppress(BotoCoreError, ClientError):
            if len(ssm.get_parameters(Names=names)["Parameters"]) == len(names):
                break
        step.wait(_POLL_SECONDS)
    step.note = ""


def _learn(chain: Chain, is_coming: Callable[[], bool]) -> dict[str, float | None]:
    """From photos to an archive in the bucket, by jobs.

    Args:
        chain: The chain.
        is_coming: Whether the foundation is still being applied.

    Returns:
        What each job would have cost in USD; None where the price is not known.
    """
    plan, steps, report = chain.plan, chain.steps, chain.found.report
    with steps.step("upload the photos") as step:
        _wait_for_handover(chain, step, is_coming)
        step.make("upload")
        data = _read(plan.data / "dataset_report.json")
        report["dataset"] |= {"classes": len(data["classes"]), **data["splits"]}
    with steps.step("search for hyperparameters, in a training job") as step:
        searched = _last_json(step.make("tune", ENGINE="job", JSON=1))
        search = _read(plan.run / "tune-job/search.json")
        report["tuning"] = {name: search[name] for name in ("trials", "best", "seconds")}
    with steps.step(f"train on {INSTANCES} instances") as step:
        trained = _last_json(step.make("train", WHERE="sagemaker", INSTANCES=INSTANCES, JSON=1))
        report["jobs"] = _jobs(chain)
        for name, folder in (("model", chain.model), ("output", chain.job)):
            chain.fetch(
                trained["result"].replace("model.tar.gz", f"{name}.tar.gz"), chain.archive(name)
            )
            shutil.rmtree(folder, ignore_errors=True)
            unpack(chain.archive(name), folder)
        training = _read(chain.job / "training_report.json")
        report["training"] = {n: training[n] for n in ("epochs", "seconds", "images_per_second")}
        # Beside the archive, as `make package` has it: the page over all runs reads it there.
        shutil.copyfile(chain.job / "package.json", plan.output / "package.json")
        package = _read(chain.job / "package.json")
        report["package"] = {
            **{name: package[name] for name in ("precision", "bytes", "sha256", "agreement")},
            "top1_served": _read(chain.job / "evaluation/evaluation.json")["top1"],
        }
    return {"search": searched["usd"], "training": trained["usd"]}


def _pack(chain: Chain) -> None:
    """Evaluate the first model; make the second one, and one that is broken."""
    with chain.steps.step("evaluate on the test photos") as step:
        places = ("--model", chain.model, "--output", chain.evaluation)
        step.python("trainer.evaluate", *chain.data_flags, *places)
        evaluation = _read(chain.evaluation / "evaluation.json")
        chain.found.report["evaluation"] = {
            name: evaluation[name] for name in ("top1", "top5", "ece")
        }
    with chain.steps.step("pack a second model, and a broken one") as step:
        second = chain.archive("second")
        flags = ("--model", _second_model(chain, step), "--output", second, "--precision", "fp32")
        step.python("trainer.package", *chain.data_flags, *flags)
        damage(second, chain.archive("broken"))


def _second_model(chain: Chain, step: Step) -> Path:
    """The first model, to be served in float32; if it is served so already, one with a new head."""
    if chain.found.report["package"]["precision"] == "int8":
        return chain.model
    folder = chain.plan.output / "second"
    found = chain.plan.run / "tune-job/best.json"
    config = ("--config", found, "--unfreeze", "none", "--epochs", 2)
    places = [(f"--{name}-dir", folder / name) for name in ("model", "output", "checkpoint")]
    flags = [*chain.data_flags, *config, *itertools.chain.from_iterable(places)]
    step.python("trainer.train", *flags)
    return folder / "model"


def _measure(chain: Chain, endpoint: Endpoint, photos: Sequence[Path]) -> None:
    bodies = [photo.read_bytes() for photo in photos]
    labels = _read(chain.evaluation / "evaluation.json")["classes"]
    found = chain.found
    with chain.steps.step("measure the endpoint") as step:
        found.lone_ms = endpoint.ask_alone(bodies, LONE_REQUESTS, chain.steps.check)
        with endpoint.clients(bodies, CLIENTS) as load:
            step.wait(LOAD_SECONDS)
            progress = Progress(chain.steps.stall_seconds)
            while load.answers.total() < LOAD_ANSWERS:
                if progress.stalled(load.requests):
                    raise DemoError("the endpoint answers no more")
                step.wait(_POLL_SECONDS)
        cuts = statistics.quantiles(found.lone_ms, n=100)
        found.report["endpoint"] = {
            "p50_ms": cuts[49],
            "p99_ms": cuts[98],
            "requests_per_second": load.answers.total() / load.seconds,
        }
        for photo, body in zip(photos, bodies, strict=True):
            best = endpoint.ask(body)["predictions"][0]
            expected = label_of(photo.relative_to(chain.plan.data / "test").parts[0], labels)
            found.answers.append(Answered(photo, expected, best["label"], best["probability"]))


def _invoke(chain: Chain) -> None:
    chosen = max(chain.found.answers, key=lambda answered: answered.probability)
    with chain.steps.step("invoke through Lambda") as step:
        # Under a name that needs no quotes, whatever the photo's is.
        photo = chain.plan.output / "photo"
        shutil.copyfile(chosen.photo, photo)
        (answer,) = json.loads(step.make("invoke", FILE=photo, JSON=1))
        predictions = answer.get("predictions") or [{"label": None}]
        chain.found.report["lambda"] = {
            "statusCode": answer["status"],
            "label": predictions[0]["label"],
            "expected": chosen.expected,
            "cold_start_ms": _cold_start_ms(chain),
            "zip_bytes": (chain.plan.output / "lambda/kennel-lambda-arm64.zip").stat().st_size,
        }


def _release(chain: Chain, endpoint: Endpoint, photos: Sequence[Path]) -> None:
    """A second model by canary, then a broken one, then back."""
    steps, report = chain.steps, chain.found.report
    terraform = {"scaling": TWO_INSTANCES, "release": CANARY}
    bodies = [photo.read_bytes() for photo in photos]
    with steps.step("a second model, by canary under traffic") as step:
        created = chain.described()["CreationTime"]
        with endpoint.clients(bodies, 1) as traffic:
            second = chain.archive("second")
            _verified(chain, step, "deploy", MODEL=second, terraform=terraform)
        replaced = chain.described()["CreationTime"] != created
        report["terraform"]["endpoint_replaced"] = replaced
        report["release"] = {
            "requests": traffic.requests,
            "failed": len(traffic.failures),
            "answers": {digest[:12]: count for digest, count in traffic.answers.items()},
        }
    with steps.step("a broken model: SageMaker rolls back, verify says so") as step:
        before = chain.described()["EndpointConfigName"]
        broken = chain.archive("broken")
        step.make("apply", codes=(2,), STACK="serving", MODEL=broken, terraform=terraform)
        stayed = chain.described()
        report["rollback"] = {
            "endpoint_stayed": stayed["EndpointConfigName"] == before,
            "reason": stayed.get("FailureReason", ""),
            "verify_failed": sorted(_failed_checks(step)),
        }
    with steps.step("roll back") as step:
        _verified(chain, step, "rollback", terraform=terraform)
        verified = json.loads(_verified(chain, step, "verify", JSON=1))
        report["verify"] = {"passed": verified["passed"], "checks": len(verified["checks"])}


def _verified(chain: Chain, step: Step, target: str, **variables: Any) -> str:
    """Run a target that makes `make verify`'s checks; give what it or they printed.

    An alarm may be on because answers come late from a busy machine; it has to come to rest.
    """
    try:
        return step.make(target, **variables)
    except DemoError as error:
        if "alarms: " not in str(error) or _failed_checks(step) - {"alarms"}:
            raise
        step.note = "the alarms, which answers that came late have set off"
        progress = Progress(chain.steps.stall_seconds)
        while loud := _loud(chain):
            if progress.stalled(*loud):
                raise
            step.wait(_POLL_SECONDS)
        step.note = ""
    return step.make("verify", JSON=1)


def _failed_checks(step: Step) -> set[str]:
    """Names of the checks that fail now."""
    checks = json.loads(step.make("verify", codes=(0, 2), JSON=1))["checks"]
    return {check["name"] for check in checks if not check["passed"]}


def _loud(chain: Chain) -> list[str]:
    """The environment's alarms that are on; those of autoscaling are not among them."""
    cloudwatch = chain.client("cloudwatch")
    kinds = {"AlarmTypes": ["MetricAlarm", "CompositeAlarm"], "StateValue": "ALARM"}
    found = cloudwatch.describe_alarms(AlarmNamePrefix=f"{NAME}-", **kinds)
    alarms = [*found.get("MetricAlarms", []), *found.get("CompositeAlarms", [])]
    return sorted(alarm["AlarmName"] for alarm in alarms)


def _scale(chain: Chain, photos: Sequence[Path]) -> None:
    """Load the endpoint until it has all its instances, and leave it alone until it has one."""
    trace, plan = chain.found.trace, chain.plan
    with chain.steps.step("load: 1 to 3 instances and back") as step:
        step.make("apply", STACK="serving", terraform={"scaling": ONE_TO_THREE})
        folder = plan.output / "load"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for number, photo in enumerate(photos[:CLIENTS]):
            (folder / f"{number}.png").write_bytes(enlarged(photo))
        started = time.monotonic()
        load = Load(chain.account, NAME, folder, step.log)

        def look() -> Seen:
            step.wait(LOOK_SECONDS)
            answers = load.answers
            seen = _seen(chain)
            trace.add(time.monotonic() - started, seen.instances, load.clients)
            step.note = (
                f"{seen.instances} of {seen.wanted} instances, {load.clients} clients, "
                f"{seen.in_flight:.0f} requests in flight, {answers} answered"
            )
            return seen

        def add(clients: int) -> None:
            load.add(clients)
            progress = Progress(stall)
            while not load.has_begun:
                if progress.stalled():
                    raise TrafficError(f"{clients} clients do not begin to ask; see {step.log}")
                step.wait(LOOK_SECONDS)

        stall = chain.steps.stall_seconds
        try:
            shrink(GROWTH, look, stall)
            with load:
                grow(GROWTH, look, add, stall)
                for _ in range(LOOKS):  # which a picture can show
                    look()
            shrink(GROWTH, look, stall)
        except (GrowthError, TrafficError) as error:
            raise DemoError(str(error)) from error
        chain.found.report["autoscaling"] = {
            "min": GROWTH.least,
            "max": GROWTH.most,
            "peak": trace.peak,
            "ended_at": trace.instances[-1],
        }


def _seen(chain: Chain) -> Seen:
    """The endpoint's instances, and the newest value of what the policy reads."""
    (variant,) = chain.described()["ProductionVariants"]
    now = datetime.now(UTC)
    values = chain.client("cloudwatch").get_metric_statistics(
        Namespace="AWS/SageMaker",
        MetricName="ConcurrentRequestsPerModel",
        Dimensions=[
            {"Name": "EndpointName", "Value": NAME},
            {"Name": "VariantName", "Value": variant["VariantName"]},
        ],
        StartTime=now - timedelta(minutes=1),
        EndTime=now,
        Period=1,
        Statistics=["Average"],
    )["Datapoints"]
    newest = max(values, key=lambda value: value["Timestamp"], default=None)
    instances = variant["CurrentInstanceCount"]
    return Seen(
        instances,
        variant["DesiredInstanceCount"],
        newest["Average"] * instances if newest else 0.0,
        newest["Timestamp"].timestamp() if newest else 0.0,
    )


def cost(
    jobs: Mapping[str, float | None], month: Mapping[str, float], seconds: Mapping[str, float]
) -> dict[str, Any]:
    """What the chain would have cost on AWS.

    Args:
        jobs: USD of each job; None where its price is not known.
        month: USD a month of each stack.
        seconds: How long each stack stood.
    """
    lines = [{"name": f"{name} job", "usd": usd} for name, usd in jobs.items() if usd is not None]
    lines += [
        {
            "name": f"{stack} stack, {seconds[stack] / 60:.1f} minutes",
            "usd": usd * seconds[stack] / 3600 / _HOURS_A_MONTH,
        }
        for stack, usd in month.items()
    ]
    usd = sum(float(str(line["usd"])) for line in lines)
    return {"usd": usd, "lines": lines, "usd_a_month": dict(month)}


def photos_in_turn(data: Path) -> list[Path]:
    """List the test photos, one of each class in turn: the first few are of many classes."""
    folders = sorted(folder for folder in (data / "test").iterdir() if folder.is_dir())
    columns = [sorted(path for path in folder.rglob("*") if path.is_file()) for folder in folders]
    depth = max(map(len, columns), default=0)
    return [column[row] for row in range(depth) for column in columns if row < len(column)]


def readable(files: Sequence[Path], count: int) -> list[Path]:
    """The first that are photos which an endpoint takes.

    Raises:
        DemoError: None is.
    """
    found: list[Path] = []
    for file in files:
        if len(found) == count:
            break
        with suppress(OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            if file.stat().st_size <= MAX_PHOTO_BYTES:
                with Image.open(file, formats=("JPEG", "PNG", "WEBP")) as photo:
                    photo.load()
                found.append(file)
    if not found:
        raise DemoError("none of the test photos can be sent to an endpoint: all exceed 6 MiB")
    return found


def label_of(folder: str, labels: Collection[str]) -> str:
    """A class folder's label: its name, or that without a leading "NNN."."""
    return folder if folder in labels else re.sub(r"^\d+\.(?=.)", "", folder)


def enlarged(photo: Path) -> bytes:
    """A photo in a camera's size and in few bytes.

    An instance is busy with it for longer than all that brings it there: so clients wait for the
    endpoint, and not for each other, however busy the machine is.
    """
    with Image.open(photo) as image:
        mosaic = image.convert("RGB").resize(MOSAIC)
    file = io.BytesIO()
    mosaic.resize(CAMERA_SIZE, Image.Resampling.NEAREST).save(file, "PNG", compress_level=9)
    return file.getvalue()


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


def main() -> None:
    """Run the command line; exit 1 if anything is not as it should be."""
    parser = argparse.ArgumentParser(prog="python -m localaws.demo", description=main.__doc__)
    for flag in ("data", "cache", "run", "output"):
        parser.add_argument(f"--{flag}", type=Path, required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--started", type=float, default=time.time())
    plan = Plan(**vars(parser.parse_args()))
    shell.leave()
    try:
        with _alone(plan.output):
            report = demonstrate(plan)
    except OSError as error:
        sys.exit(f"error: {told(error)}")
    page = plan.output / "report.html"
    # The page that leads to all others, to this one, too.
    index = [sys.executable, "-m", "trainer.index", "--output", str(plan.output.parent)]
    subprocess.run(index, stdout=subprocess.DEVNULL, check=False)
    if failure := report["failure"]:
        if os.environ.get("CI"):
            _print_logs(failure["logs"])
        step = f"{failure['step']}: " if failure["step"] else ""
        log = f"; see {failure['logs'][0]}" if failure["logs"] else ""
        sys.exit(f"error: {step}{failure['error']}{log} and {page}")
    answer, scaling = report["lambda"], report["autoscaling"]
    print(
        f"Lambda answered {answer['statusCode']}: {answer['label']}, "
        f"expected {answer['expected']}\n"
        f"top-1 on test {report['evaluation']['top1']:.4f}, as served "
        f"{report['package']['top1_served']:.4f} ({report['package']['precision']})\n"
        f"canary: {report['release']['requests']} requests, {report['release']['failed']} failed; "
        f"scaled {scaling['min']} to {scaling['peak']} to {scaling['ended_at']}; "
        f"left after destroy: {len(report['terraform']['left_after_destroy'])}\n"
        f"report: {page} after {report['seconds_total']:.0f} s"
    )
    if report["faults"]:
        sys.exit("error: " + "; ".join(report["faults"]))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a folder, whose former content goes, for one demonstration at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(f"error: another demonstration runs in {folder}: wait for it, or give another OUT")
    try:
        yield
    finally:
        os.close(descriptor)


def _print_logs(logs: Sequence[str]) -> None:
    """Print the ends of logs, for who sees no file of this machine."""
    for log in logs:
        print(f"\n--- the end of {log}", *tail(Path(log), CI_LINES), sep="\n")
    sys.stdout.flush()


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
    if not report["rollback"]["verify_failed"]:
        yield "make verify does not see that the broken model is not in service"
    if not report["verify"]["passed"]:
        yield "make verify fails after the rollback"


if __name__ == "__main__":
    main()
