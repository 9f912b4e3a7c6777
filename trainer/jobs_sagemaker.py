"""Training jobs on SageMaker, submitted with its Python SDK and followed with boto3."""

import hashlib
import importlib
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from botocore.exceptions import ClientError

from trainer import source
from trainer.catalogue import has_gpu, has_local_disks, training_image
from trainer.errors import KennelError, UsageError
from trainer.job_logs import Preamble, Tail
from trainer.jobs import Job, Named, Outcome, State, slug
from trainer.metric_lines import METRICS, TOP1_SERVED, TOP1_TRAINED, metric_regex
from trainer.patience import was_done
from trainer.prices import hourly_usd
from trainer.target import Target

LOG_GROUP = "/aws/sagemaker/TrainingJobs"
FINGERPRINT = "dataset-fingerprint"
"""Tag of a job: the fingerprint of the data that it was started on."""

_NAME_CHARACTERS = 63
_TIMESTAMP_CHARACTERS = 15  # what the SDK appends to a job's name
_LONGEST_WARM_SECONDS = 3600
_LONGEST_RUN_SECONDS = 28 * 24 * 3600
_ENDED = frozenset({"Completed", "Failed", "Stopped"})
_ENTRY = "trainer.entry"
PREAMBLE = Preamble("Starting training script", re.compile(rf"\++ exec .* -m {re.escape(_ENTRY)}"))
"""What the SDK's script says: it tells each of its commands, and the last is the job's own."""
_SDK_ENVIRONMENT = {
    # The SDK asks IAM whether the role may use S3 on all resources; this one may on its own only.
    "SAGEMAKER_VALIDATE_ROLE": "false",
    # What it imports reports home, too.
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
_SDK_CONFIG = {
    "SchemaVersion": "1.0",
    "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}},
}


@dataclass(frozen=True)
class Machines:
    """What a job runs on.

    Attributes:
        instance_type: SageMaker's instance type, such as "ml.g5.xlarge".
        count: How many.
        spot: Whether AWS may take them away, for a lower price.
        keep_alive_seconds: How long they are kept for the next job; 0: not at all.
        max_seconds: Longest run.
    """

    instance_type: str
    count: int
    spot: bool
    keep_alive_seconds: int
    max_seconds: int

    def __post_init__(self) -> None:
        """Check what SageMaker would refuse."""
        if not re.fullmatch(r"ml\.[a-z0-9-]+\.[a-z0-9]+", self.instance_type):
            raise UsageError(
                f"--instance-type {self.instance_type}: SageMaker's begin with ml., "
                "such as ml.g5.xlarge"
            )
        if not 0 <= self.keep_alive_seconds <= _LONGEST_WARM_SECONDS:
            raise UsageError(f"--keep-alive takes 0 to {_LONGEST_WARM_SECONDS} seconds")
        if not 0 < self.max_seconds <= _LONGEST_RUN_SECONDS:
            raise UsageError(f"--max-hours takes more than 0, to {_LONGEST_RUN_SECONDS // 3600}")
        if self.spot and self.keep_alive_seconds:
            raise UsageError(
                "--spot and --keep-alive exclude each other: SageMaker keeps no spot machine warm"
            )

    @property
    def gpu(self) -> bool:
        """Whether they have GPUs."""
        return has_gpu(self.instance_type)


@dataclass(frozen=True)
class Protection:
    """Where jobs run and what encrypts what they keep, as the foundation says.

    Attributes:
        kms_key_arn: Key of volumes and of what jobs write; None: AWS's own keys.
        subnets: Subnets that jobs run in; none: in SageMaker's own network.
        security_groups: The jobs' security groups there.
    """

    kms_key_arn: str | None
    subnets: tuple[str, ...]
    security_groups: tuple[str, ...]

    @classmethod
    def of(cls, target: Target) -> "Protection":
        """What the foundation of an environment says."""
        subnets, groups = (
            tuple(filter(None, (target.parameter(name) or "").split(",")))
            for name in ("job_subnet_ids", "job_security_group_ids")
        )
        return cls(target.parameter("kms_key_arn"), subnets, groups)

    def volume_key(self, machines: Machines) -> str | None:
        """The key of the volumes of such machines; disks of their own are always encrypted."""
        return None if has_local_disks(machines.instance_type) else self.kms_key_arn

    def encrypts_traffic(self, machines: Machines) -> bool:
        """Whether what the machines tell each other is encrypted, which takes time."""
        return machines.count > 1 and bool(self.kms_key_arn or self.subnets)


@dataclass(frozen=True)
class Work:
    """What a job does.

    Attributes:
        entry: Module of `trainer` that it runs: "train" or "tune".
        dataset: Name of an uploaded data set.
        hyperparameters: Flags of the module, by name.
        processes: Processes a machine; None: one a GPU.
        attempt: Tells apart what is done afresh from the first time.
    """

    entry: str
    dataset: str
    hyperparameters: Mapping[str, Any]
    processes: int | None = None
    attempt: str = ""

    @property
    def digest(self) -> str:
        """The same for the same work on a data set of the same name."""
        stated = json.dumps([self.entry, *sorted(self.hyperparameters.items())])
        return hashlib.sha256(stated.encode()).hexdigest()[:12]

    @property
    def checkpoints(self) -> str:
        """The same for the same work: given again, it goes on where it was stopped."""
        attempt = f"-{self.attempt}" if self.attempt else ""
        return f"checkpoints/{slug(self.dataset)}-{self.digest}{attempt}"


def submit(machines: Machines, target: Target, work: Work, named: Named) -> str:
    """Start a training job.

    Args:
        machines: What it runs on.
        target: Where it runs.
        work: What it does.
        named: Is told its name.

    Returns:
        Its name.

    Raises:
        KennelError: The foundation is missing.
        UsageError: The data set has not been uploaded.
    """
    names: list[str] = []

    def keep(name: str) -> None:
        names.append(name)
        named(name)

    trainer = model_trainer(target, work, machines, work.checkpoints, keep)
    trainer.environment["KENNEL_GIT_COMMIT"] = source.git_commit()  # for the archive's manifest
    with bearing_lost_answers():
        trainer.train(input_data_config=channels(target, work), wait=False, logs=False)
    return names[-1]


@contextmanager
def bearing_lost_answers() -> Iterator[None]:
    """Around a job's creation, whose name has this very second in it: nobody else makes it."""
    try:
        yield
    except ClientError as error:
        if not was_done(error, "ResourceInUse"):
            raise


def channels(target: Target, work: Work) -> list[Any]:
    """The data set as the SDK's input configuration."""
    from sagemaker.core.training.configs import InputData

    from trainer.upload import address

    return [InputData(channel_name="training", data_source=address(target, work.dataset))]


def model_trainer(
    target: Target, work: Work, machines: Machines, checkpoints: str, named: Named = lambda _: None
) -> Any:
    """The SDK's description of a training job.

    Args:
        target: Where it runs.
        work: What it does.
        machines: What it runs on.
        checkpoints: Prefix in the bucket that its states are kept under.
        named: Is told a job's name, which the SDK makes up, before the job is asked for.
    """
    # It loads what reads photos, which those who only look at jobs need not wait for.
    from trainer.upload import require_manifest

    session = target.new_session()

    def tell(params: Mapping[str, Any], **_: object) -> None:
        named(params["TrainingJobName"])

    session.events.register("provide-client-params.sagemaker.CreateTrainingJob", tell)
    bucket = target.required_parameter("bucket")
    role = target.required_parameter("training_role_arn")
    manifest = require_manifest(target, work.dataset)
    code = source.publish(target, bucket)
    os.environ.update(_SDK_ENVIRONMENT)
    # Imported here, for it takes seconds.
    from sagemaker.core.helper.session_helper import Session
    from sagemaker.core.training.configs import (
        CheckpointConfig,
        Compute,
        MetricDefinition,
        Networking,
        OutputDataConfig,
        SourceCode,
        StoppingCondition,
        Tag,
    )
    from sagemaker.train import ModelTrainer
    from sagemaker.train.distributed import Torchrun

    _quieten_sdk()
    _check_sdk_schema_no_more()
    stopping = {"max_runtime_in_seconds": machines.max_seconds}
    if machines.spot:
        stopping["max_wait_time_in_seconds"] = 2 * machines.max_seconds
    compute: dict[str, Any] = {}
    if machines.keep_alive_seconds:
        compute["keep_alive_period_in_seconds"] = machines.keep_alive_seconds
    protection = Protection.of(target)
    if key := protection.volume_key(machines):
        compute["volume_kms_key_id"] = key
    network: dict[str, Any] = {}
    if protection.subnets:
        network["subnets"] = list(protection.subnets)
        network["security_group_ids"] = list(protection.security_groups)
    if protection.encrypts_traffic(machines):
        network["enable_inter_container_traffic_encryption"] = True
    tags = {
        "project": target.project,
        "environment": target.name,
        "dataset": work.dataset,
        FINGERPRINT: manifest.fingerprint,
        "git-commit": source.git_commit(),
    }
    trainer = ModelTrainer(
        sagemaker_session=Session(
            boto_session=session,
            default_bucket=bucket,
            default_bucket_prefix="jobs",
            sagemaker_config=_SDK_CONFIG,
        ),
        role=role,
        base_job_name=base_name(target, work.dataset),
        training_image=training_image(target.region, machines.gpu),
        # Both: the script is what torchrun starts, and the command is what starts torchrun.
        source_code=SourceCode(
            source_dir=f"s3://{bucket}/{code}",
            requirements=source.REQUIREMENTS,
            entry_script=source.script(work.entry),
            command=f"exec $SM_PYTHON_CMD -m {_ENTRY}",
        ),
        distributed=Torchrun(process_count_per_node=work.processes),
        compute=Compute(
            instance_type=machines.instance_type,
            instance_count=machines.count,
            enable_managed_spot_training=machines.spot,
            **compute,
        ),
        # Not isolated: code and requirements.txt are installed as the container starts.
        networking=Networking(**network) if network else None,
        stopping_condition=StoppingCondition(**stopping),
        output_data_config=OutputDataConfig(
            s3_output_path=f"s3://{bucket}/jobs/",
            # Without it, SageMaker writes under the account's default key.
            **({"kms_key_id": protection.kms_key_arn} if protection.kms_key_arn else {}),
        ),
        checkpoint_config=CheckpointConfig(s3_uri=f"s3://{bucket}/{checkpoints}/"),
        environment={
            # torchrun kills after half a minute what SageMaker gives two to save its state.
            "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "100",
            "PIP_QUIET": "1",
            # Else the SDK's scripts begin each log with a hundred lines of environment.
            "SM_LOG_LEVEL": str(logging.WARNING),
        },
        hyperparameters=dict(work.hyperparameters),
        tags=[Tag(key=key, value=value) for key, value in tags.items()],
    )
    metrics = [MetricDefinition(name=name, regex=metric_regex(name)) for name in METRICS]
    return trainer.with_metric_definitions(metrics)


def base_name(target: Target, dataset: str) -> str:
    """What a job's name begins with; the SDK appends the time."""
    longest = _NAME_CHARACTERS - _TIMESTAMP_CHARACTERS
    return f"{target.prefix}-{slug(dataset)}"[:longest].rstrip("-")


def _quieten_sdk() -> None:
    """What the SDK logs is said by this package's own messages, once and with a remedy."""
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] == "sagemaker":
            logging.getLogger(name).setLevel(logging.CRITICAL)


@cache
def _check_sdk_schema_no_more() -> None:
    """Spare each job a second.

    The SDK looks at its configuration a dozen times, and each time checks its own schema, too.
    The configuration itself is checked as before.
    """
    from sagemaker.core.config.config_schema import SAGEMAKER_PYTHON_SDK_CONFIG_SCHEMA

    validator: Any = importlib.import_module("jsonschema").Draft202012Validator
    check = validator.check_schema

    def check_others(schema: object, *arguments: Any, **options: Any) -> None:
        if schema is not SAGEMAKER_PYTHON_SDK_CONFIG_SCHEMA:
            check(schema, *arguments, **options)

    validator.check_schema = check_others


class TrainingJob(Job):
    """A training job on SageMaker."""

    kind = "training"

    def __init__(self, target: Target, name: str) -> None:
        """Take up a job that is there."""
        self.name = name
        self._client = target.client("sagemaker")
        self._tail = Tail(target, LOG_GROUP, f"{name}/", PREAMBLE)
        self._has_ended = False
        answer = self.describe()
        self.is_search = "trials" in answer.get("HyperParameters", {})
        resources = answer["ResourceConfig"]
        self.machines = f"{resources['InstanceCount']} x {resources['InstanceType']}"
        price = hourly_usd(resources["InstanceType"], "training")
        self.usd_per_hour = None if price is None else price * resources["InstanceCount"]

    def describe(self) -> dict[str, Any]:
        """SageMaker's description."""
        answer: dict[str, Any] = self._client.describe_training_job(TrainingJobName=self.name)
        return answer

    def state(self) -> State:
        """Ask for its status."""
        answer = self.describe()
        steps = answer.get("SecondaryStatusTransitions") or [{}]
        message = steps[-1].get("StatusMessage", "")
        word = answer["SecondaryStatus"]
        text = f"{word}: {message}" if message else word
        self._has_ended = answer["TrainingJobStatus"] in _ENDED
        return State(text, self._has_ended, word)

    def lines(self) -> Iterable[str]:
        """What its hosts have logged, without the trace of the SDK's script that starts it."""
        return self._tail.lines(self._has_ended)

    def stop(self) -> None:
        """Stop it; SageMaker gives it two minutes to save its state."""
        self._client.stop_training_job(TrainingJobName=self.name)

    def outcome(self) -> Outcome:
        """Where its archive is, and what it cost."""
        answer = self.describe()
        if answer["TrainingJobStatus"] != "Completed":
            raise KennelError(_why(answer))
        trained = answer.get("TrainingTimeInSeconds", 0)
        billable = answer.get("BillableTimeInSeconds", trained)
        price = self.usd_per_hour
        metrics = {
            metric["MetricName"]: metric["Value"]
            for metric in answer.get("FinalMetricDataList", [])
        }
        return Outcome(
            job=self.name,
            kind=self.kind,
            result=answer["ModelArtifacts"]["S3ModelArtifacts"],
            seconds=(answer["TrainingEndTime"] - answer["CreationTime"]).total_seconds(),
            billable_seconds=billable,
            usd=None if price is None else price * billable / 3600,
            saved=1 - billable / trained if trained else 0.0,
            top1_trained=metrics.get(TOP1_TRAINED),
            top1_served=metrics.get(TOP1_SERVED),
        )


def _why(answer: Mapping[str, Any]) -> str:
    """Why a job ended without a model, where its log is, and what to do."""
    name, status = answer["TrainingJobName"], answer["TrainingJobStatus"]
    # The trials of a search in one job are in its output, which a job that is stopped loses.
    is_search = "trials" in answer.get("HyperParameters", {})
    if answer["SecondaryStatus"] == "MaxRuntimeExceeded":
        again = "to begin anew" if is_search else "to go on, or"
        reason = f"ran out of time: give the command again {again} with a longer --max-hours"
    elif answer["SecondaryStatus"] == "MaxWaitTimeExceeded":
        reason = "no spot machine in time: give the command again, or without SPOT"
    elif status == "Stopped" and is_search:
        reason = "a search that is stopped keeps no trials: its command begins anew"
    elif status == "Stopped":
        reason = "give its command again, without FRESH, to go on where it was stopped"
    else:
        reason = " ".join(str(answer.get("FailureReason", "no reason is given")).split())
        reason += remedy(reason)
    return f"training job {name} {status.lower()}: {reason}; its log: {LOG_GROUP}, streams {name}/"


def remedy(reason: str) -> str:
    """What to do about what SageMaker says, as the end of a message; empty if nobody knows."""
    for sign, advice in (
        (
            r"ResourceLimitExceeded",
            "ask for more of that quota in the Service Quotas console, "
            "or choose another --instance-type or fewer --instances",
        ),
        (
            r"CapacityError|InsufficientCapacity|Insufficient capacity|Unable to provision",
            "AWS has too few such machines now: try again later, or choose another --instance-type",
        ),
        (
            r"[Cc]ould not assume role|not authorized to perform: sts:AssumeRole",
            "apply the foundation again, which makes the role and its trust policy",
        ),
        (r"ResourceInUse", "a job of that name was started this very second: try again"),
    ):
        if re.search(sign, reason):
            return f" ({advice})"
    return ""
