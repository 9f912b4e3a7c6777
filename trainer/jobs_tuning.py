"""Searches: SageMaker's tuner with a job a trial, and what a search of either kind leaves."""

import argparse
import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from trainer import config as configuration
from trainer.config import TrainConfig
from trainer.errors import KennelError, UsageError
from trainer.files import json_text, write_bytes_atomic
from trainer.jobs import Job, Named, Outcome, State, timestamp
from trainer.jobs_sagemaker import (
    FINGERPRINT,
    LOG_GROUP,
    Machines,
    Work,
    bearing_lost_answers,
    channels,
    model_trainer,
    remedy,
)
from trainer.make_command import make_command
from trainer.metric_lines import METRICS, metric_regex
from trainer.names import counted
from trainer.patience import read_object
from trainer.prices import hourly_usd
from trainer.search_space import Choice, Range
from trainer.target import Target

BEST = "best.json"
OBJECTIVE = "valid_loss"
OUTPUT = "output.tar.gz"
"""What a training job leaves beside its model."""


STOP_ENVIRONMENT = {
    "KENNEL_STOP": r"""unset BASH_ENV
mapfile -d "" -t me < /proc/$$/cmdline || return
stop() {
for p in $(grep -lzx run_train.py /proc/[0-9]*/cmdline); do
p=${p%/cmdline}
grep -qzx "TRAINING_JOB_NAME=$TRAINING_JOB_NAME" $p/environ && kill -TERM ${p#/proc/}
done 2> /dev/null; }
trap stop TERM
"${me[@]}" &
while :; do wait $!; s=$?; kill -0 $! || break; done 2> /dev/null
exit $s
""",
    "BASH_ENV": '$(echo "$KENNEL_STOP" > /opt/ml/stop.sh; echo /opt/ml/stop.sh)',
}
"""Variables of a trial's container that let a stop reach its training within a step.

A trial runs through the training toolkit, in a container whose first process is bash: the image's
entry point is `bash -m start_with_right_hostname.sh` (aws/deep-learning-containers,
docker/pytorch/Dockerfile.cuda), and a tuning job cannot name another one
(HyperParameterAlgorithmSpecification has no ContainerEntrypoint). As the first process it gets no
SIGTERM unless it has a trap for it (Linux, pid_namespaces(7)), and the toolkit knows no signals
(aws/sagemaker-training-toolkit, issue 125): what SageMaker stops early would train, and be billed,
for the two minutes until SIGKILL.

But bash, before its script, reads the file that BASH_ENV names (bash(1), "Invocation"). This one
runs the entry point again, as a child, with a trap that passes SIGTERM on to the trainer. In an
image whose entry point is no bash, nothing reads it.
"""

_CODE = "sagemaker_submit_directory"
_NAME_CHARACTERS = 32
_ENDED = frozenset({"Completed", "Failed", "Stopped", "DeleteFailed"})
_REPORTS = frozenset({BEST, "search.html", "search.json", "trials.csv"})


def start_search(
    target: Target,
    work: Work,
    searched: Mapping[str, Range | Choice],
    machines: Machines,
    trials: int,
    parallel: int,
    warm_start: str | None,
    named: Named = lambda _: None,
) -> str:
    """Start a hyperparameter tuning job: Bayesian, with early stopping.

    Args:
        target: Where it runs.
        work: What a trial does; the values that are searched for are replaced.
        searched: What is searched for.
        machines: What a trial runs on.
        trials: How many.
        parallel: How many at a time.
        warm_start: A former tuning job to learn from.
        named: Is told its name before it is asked for.

    Returns:
        Its name.

    Raises:
        KennelError: The foundation is missing.
        UsageError: The data set has not been uploaded, or there is no such former job.
    """
    name = f"{target.prefix}-t{timestamp()}"
    if len(name) > _NAME_CHARACTERS:
        raise UsageError(
            f"the name of a tuning job has {_NAME_CHARACTERS} characters at most: {target.prefix} "
            "leaves no room for the time"
        )
    if machines.keep_alive_seconds:
        raise UsageError("--keep-alive: SageMaker's tuner keeps no machines; use --engine job")
    trainer = model_trainer(target, work, machines, f"checkpoints/{name}")
    # The tuner starts trials through the training toolkit, which heeds these and not `Torchrun`;
    # for `source_code`, the SDK would also add a channel with an address of this search alone. All
    # are always set: a warm start takes only searches with the same data and the same names of
    # hyperparameters.
    code, trainer.source_code = trainer.source_code, None
    trainer.hyperparameters |= {
        "sagemaker_program": code.entry_script,
        _CODE: code.source_dir,
        "sagemaker_torch_distributed_enabled": str(machines.count > 1 or machines.gpu).lower(),
    }
    trainer.environment |= STOP_ENVIRONMENT
    from sagemaker.train.tuner import HyperparameterTuner

    class Tuner(HyperparameterTuner):  # type: ignore[misc]
        """The SDK's tuner, which drops the volumes' key and the encryption between instances."""

        def _build_training_job_definition(self, inputs: Any) -> Any:
            definition = super()._build_training_job_definition(inputs)
            definition.resource_config.volume_kms_key_id = trainer.compute.volume_kms_key_id
            encrypts = getattr(
                trainer.networking, "enable_inter_container_traffic_encryption", None
            )
            definition.enable_inter_container_traffic_encryption = encrypts
            return definition

    parent = _warm_start(target, warm_start, trainer) if warm_start else None
    tuner = Tuner(
        model_trainer=trainer,
        objective_metric_name=OBJECTIVE,
        objective_type="Minimize",
        hyperparameter_ranges=ranges(searched),
        metric_definitions=[{"Name": metric, "Regex": metric_regex(metric)} for metric in METRICS],
        strategy="Bayesian",
        max_jobs=trials,
        max_parallel_jobs=min(parallel, trials),
        early_stopping_type="Auto",
        warm_start_config=parent,
    )
    named(name)
    with bearing_lost_answers():
        tuner.tune(inputs=channels(target, work), job_name=name, wait=False)
    return name


def ranges(searched: Mapping[str, Range | Choice]) -> dict[str, Any]:
    """The search space as the SDK's parameter ranges."""
    from sagemaker.core.parameter import (
        CategoricalParameter,
        ContinuousParameter,
        IntegerParameter,
    )

    def convert(space: Range | Choice) -> Any:
        if isinstance(space, Choice):
            return CategoricalParameter(list(space.values))
        scale = "Logarithmic" if space.log else "Linear"
        if space.integer:
            return IntegerParameter(int(space.low), int(space.high), scaling_type=scale)
        return ContinuousParameter(space.low, space.high, scaling_type=scale)

    return {name: convert(space) for name, space in searched.items()}


def _warm_start(target: Target, parent: str, trainer: Any) -> Any:
    from sagemaker.core.shapes import (
        HyperParameterTuningJobWarmStartConfig,
        ParentHyperParameterTuningJob,
    )

    client = target.client("sagemaker")
    try:
        former = client.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=parent)
    except client.exceptions.ResourceNotFound:
        raise UsageError(f"--warm-start {parent}: there is no such tuning job") from None
    definition = former["TrainingJobDefinition"]
    tags = client.list_tags(ResourceArn=former["HyperParameterTuningJobArn"])["Tags"]
    (fingerprint,) = (tag.value for tag in trainer.tags if tag.key == FINGERPRINT)
    same = (
        definition["AlgorithmSpecification"].get("TrainingImage") == trainer.training_image
        and definition["StaticHyperParameters"].get(_CODE) == trainer.hyperparameters[_CODE]
        and {"Key": FINGERPRINT, "Value": fingerprint} in tags
    )
    return HyperParameterTuningJobWarmStartConfig(
        parent_hyper_parameter_tuning_jobs=[
            ParentHyperParameterTuningJob(hyper_parameter_tuning_job_name=parent)
        ],
        warm_start_type="IdenticalDataAndAlgorithm" if same else "TransferLearning",
    )


class TuningJob(Job):
    """A hyperparameter tuning job on SageMaker."""

    kind = "tuning"
    is_search = True

    def __init__(self, target: Target, name: str) -> None:
        """Take up a job that is there."""
        self.name = name
        self._client = target.client("sagemaker")
        self._told: dict[str, str] = {}
        resources = self.describe()["TrainingJobDefinition"]["ResourceConfig"]
        self.machines = f"{resources['InstanceCount']} x {resources['InstanceType']}"
        price = hourly_usd(resources["InstanceType"], "training")
        self._usd = None if price is None else price * resources["InstanceCount"]

    def describe(self) -> dict[str, Any]:
        """SageMaker's description."""
        answer: dict[str, Any] = self._client.describe_hyper_parameter_tuning_job(
            HyperParameterTuningJobName=self.name
        )
        return answer

    def trials(self) -> list[dict[str, Any]]:
        """SageMaker's summaries of the trials, in the order of their start."""
        pages = self._client.get_paginator(
            "list_training_jobs_for_hyper_parameter_tuning_job"
        ).paginate(
            HyperParameterTuningJobName=self.name, SortBy="CreationTime", SortOrder="Ascending"
        )
        return [trial for page in pages for trial in page["TrainingJobSummaries"]]

    def state(self) -> State:
        """Ask how many trials there are, and whether more come."""
        answer = self.describe()
        counts = answer["TrainingJobStatusCounters"]
        limit = answer["HyperParameterTuningJobConfig"]["ResourceLimits"]
        failed = counts.get("NonRetryableError", 0) + counts.get("RetryableError", 0)
        ended = counts.get("Completed", 0) + counts.get("Stopped", 0) + failed
        text = (
            f"{answer['HyperParameterTuningJobStatus']}: {ended} of "
            f"{limit['MaxNumberOfTrainingJobs']} trials ended, {counts.get('InProgress', 0)} run"
        )
        return State(text, answer["HyperParameterTuningJobStatus"] in _ENDED)

    def lines(self) -> Iterator[str]:
        """A line for each trial whose status has changed."""
        for number, trial in enumerate(self.trials(), 1):
            name, status = trial["TrainingJobName"], trial["TrainingJobStatus"]
            if self._told.get(name) == status:
                continue
            self._told[name] = status
            yield f"trial {number} {status.lower()}{_loss(trial)} {json.dumps(_tuned(trial))}"

    def stop(self) -> None:
        """Stop it and its trials."""
        self._client.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName=self.name)

    def outcome(self) -> Outcome:
        """What it cost; a search that was stopped counts if a trial had ended."""
        answer = self.describe()
        if not answer.get("BestTrainingJob", {}).get("FinalHyperParameterTuningJobObjectiveMetric"):
            status = answer["HyperParameterTuningJobStatus"]
            reason = answer.get("FailureReason") or self._failure() or "no trial succeeded"
            raise KennelError(
                f"tuning job {self.name} {status.lower()}: {reason}{remedy(reason)}; "
                f"its trials' logs: {LOG_GROUP}, streams {self.name}-"
            )
        seconds = (answer["LastModifiedTime"] - answer["CreationTime"]).total_seconds()
        # The trials' own bills would take a call each; a trial bills from its start to its end.
        billable = sum(_seconds(trial) or 0.0 for trial in self.trials())
        usd = None if self._usd is None else self._usd * billable / 3600
        return Outcome(self.name, self.kind, "", seconds, billable, usd)

    def best(self) -> TrainConfig:
        """The hyperparameters of the trial with the lowest validation loss."""
        answer = self.describe()
        static = answer["TrainingJobDefinition"].get("StaticHyperParameters", {})
        return read_config(static | answer["BestTrainingJob"]["TunedHyperParameters"])

    def summary(self) -> dict[str, Any]:
        """The content of search.json, as `trainer.tune` writes it, and each trial's row."""
        trials = self.trials()
        best = self.describe()["BestTrainingJob"]
        return {
            "job": self.name,
            "trials": len(trials),
            "pruned": sum(trial["TrainingJobStatus"] == "Stopped" for trial in trials),
            "best": _tuned(best),
            "best_job": best["TrainingJobName"],
            OBJECTIVE: best["FinalHyperParameterTuningJobObjectiveMetric"]["Value"],
            "rows": [
                {
                    "job": trial["TrainingJobName"],
                    "status": trial["TrainingJobStatus"],
                    OBJECTIVE: trial.get("FinalHyperParameterTuningJobObjectiveMetric", {}).get(
                        "Value"
                    ),
                    **_tuned(trial),
                }
                for trial in trials
            ],
        }

    def page(self) -> str:
        """The search as a page; early stopping is what `trainer.tune` calls pruning."""
        # With Optuna, which takes longer to load than most commands take that know of jobs.
        from trainer import search_page

        answer = self.describe()
        space = _space(answer["HyperParameterTuningJobConfig"].get("ParameterRanges", {}))
        states = {"Completed": "complete", "Stopped": "pruned", "Failed": "failed"}
        best = self.best()
        trials = [
            search_page.Trial(
                number,
                states[trial["TrainingJobStatus"]],
                {name: type(getattr(best, name))(text) for name, text in _tuned(trial).items()},
                trial.get("FinalHyperParameterTuningJobObjectiveMetric", {}).get("Value"),
                seconds=_seconds(trial),
                name=trial["TrainingJobName"],
            )
            for number, trial in enumerate(self.trials())
            if trial["TrainingJobStatus"] in states
        ]
        about = f"{_dataset(answer['TrainingJobDefinition'])}{search_page.UNFROZEN[best.unfreeze]}"
        subtitle = f"{about}; by SageMaker, job {self.name}, Bayesian with early stopping"
        chosen = answer["BestTrainingJob"]["TrainingJobName"]
        winner = next(trial for trial in trials if trial.name == chosen)
        title = f"{best.backbone}: search"
        return search_page.render(title, subtitle, space, trials, winner, best)

    def _failure(self) -> str:
        reasons = [trial["FailureReason"] for trial in self.trials() if trial.get("FailureReason")]
        return " ".join(reasons[-1].split()) if reasons else ""


def finish_search(target: Target, bucket: str, job: Job, outcome: Outcome, folder: Path) -> Outcome:
    """Write a search's `best.json`, `search.json` and page to a folder and to the bucket.

    Returns:
        The outcome, with the path of `best.json`.

    Raises:
        KennelError: The job has left none.
    """
    if isinstance(job, TuningJob):
        reports = {
            BEST: json_text(job.best().to_json()).encode(),
            "search.json": json_text(job.summary()).encode(),
            "search.html": job.page().encode(),
        }
    else:
        reports = _from_output(target, bucket, job.name)
    client = target.client("s3")
    for name, content in reports.items():
        write_bytes_atomic(folder / name, content)
        client.put_object(Bucket=bucket, Key=f"jobs/{job.name}/{name}", Body=content)
    return replace(outcome, kind=TuningJob.kind, result=str(folder / BEST))


def search_lines(target: Target, folder: Path) -> list[str]:
    """What a search has found, where that is, and what comes next, for people."""
    found = json.loads((folder / "search.json").read_text())
    best = json.loads((folder / BEST).read_text())
    values = ", ".join(f"{name}={_short(value)}" for name, value in found["best"].items())
    page = folder / "search.html"
    scope = {} if best["unfreeze"] == "none" else {"UNFREEZE": best["unfreeze"]}
    command = make_command(
        "train",
        target.name,
        about_run=True,
        WHERE="sagemaker",
        CONFIG=str(folder / BEST),
        **dict.fromkeys(("ENGINE", "TRIALS", "PARALLEL"), ""),
        **scope,
    )
    return [
        f"best of {counted(found['trials'], 'trial')} ({found['pruned']} ended early): "
        f"{OBJECTIVE}={found[OBJECTIVE]:.6g} with {values}",
        f"results: {folder / BEST}" + (f", {page}" if page.exists() else ""),
        f"next: {command}",
    ]


def _short(value: Any) -> str:
    try:
        return f"{float(value):.4g}"
    except ValueError:
        return str(value)


def _from_output(target: Target, bucket: str, job: str) -> dict[str, bytes]:
    key = f"jobs/{job}/output/{OUTPUT}"
    content = read_object(target.client("s3"), bucket, key).content
    reports = {}
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        for member in tar:
            name = PurePosixPath(member.name).name
            if name in _REPORTS and (file := tar.extractfile(member)):
                reports[name] = file.read()
    if BEST not in reports:
        raise KennelError(f"s3://{bucket}/{key} holds no {BEST}: the job's log says why")
    return reports


def read_config(hyperparameters: Mapping[str, str]) -> TrainConfig:
    """Read a job's hyperparameters; those of SageMaker itself are left out."""
    parser = argparse.ArgumentParser()
    configuration.add_arguments(parser)
    flags: list[str] = []
    for name, value in hyperparameters.items():
        flags += [f"--{name}", value.strip('"')]
    known, _ = parser.parse_known_args(flags)
    return configuration.from_arguments(known)


def _tuned(trial: Mapping[str, Any]) -> dict[str, str]:
    return {name: value.strip('"') for name, value in trial["TunedHyperParameters"].items()}


def _loss(trial: Mapping[str, Any]) -> str:
    final = trial.get("FinalHyperParameterTuningJobObjectiveMetric")
    return f" {OBJECTIVE}={final['Value']:.6g}" if final else ""


def _seconds(trial: Mapping[str, Any]) -> float | None:
    """How long a trial ran; None if it has not started, or not ended."""
    if "TrainingStartTime" not in trial or "TrainingEndTime" not in trial:
        return None
    seconds: float = (trial["TrainingEndTime"] - trial["TrainingStartTime"]).total_seconds()
    return seconds


def _dataset(definition: Mapping[str, Any]) -> str:
    """The data set's name and a comma, by where the trials read it; "" if they read none."""
    for channel in definition.get("InputDataConfig", []):
        if channel["ChannelName"] == "training":
            address = channel["DataSource"]["S3DataSource"]["S3Uri"]
            return f"{PurePosixPath(address).name}, "
    return ""


def _space(parameters: Mapping[str, Any]) -> dict[str, Range | Choice]:
    """What was searched, of SageMaker's description of it."""
    kinds = {name: type(value) for name, value in TrainConfig().to_json().items()}
    found: dict[str, Range | Choice] = {}
    for one in parameters.get("CategoricalParameterRanges", []):
        kind = kinds[one["Name"]]
        found[one["Name"]] = Choice(tuple(kind(value.strip('"')) for value in one["Values"]))
    for group, integer in (
        ("ContinuousParameterRanges", False),
        ("IntegerParameterRanges", True),
    ):
        for one in parameters.get(group, []):
            low, high = float(one["MinValue"]), float(one["MaxValue"])
            found[one["Name"]] = Range(low, high, one.get("ScalingType") == "Logarithmic", integer)
    return found
