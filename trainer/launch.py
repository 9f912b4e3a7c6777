"""Start training and searches in AWS, follow them, stop them.

    python -m trainer.launch train --env dev --dataset dogs --instances 2 --spot --epochs 5
    python -m trainer.launch tune --env dev --dataset dogs --trials 8 --parallel 2
    python -m trainer.launch attach JOB --env dev

The last line on standard output is the address of the archive, or the path of `best.json`; all else
goes to standard error. Ctrl-C asks whether to leave the job running or to stop it.
"""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from trainer import config as configuration
from trainer import target as targets
from trainer.catalogue import TRAINING_TYPE
from trainer.config import TrainConfig
from trainer.errors import KennelError, UsageError, run_command
from trainer.jobs import Job, Outcome, cost_line, follow, record_latest
from trainer.jobs_ec2 import Ec2Job
from trainer.jobs_ec2 import submit as submit_to_ec2
from trainer.jobs_sagemaker import Machines, TrainingJob, Work, remedy, submit
from trainer.jobs_tuning import TuningJob, finish_search, start_search
from trainer.search_space import search_space
from trainer.target import Target

_HOURS = 12.0


def train(target: Target, options: argparse.Namespace) -> Outcome:
    """Train on SageMaker or EC2 until there is an archive."""
    config = _config(options)
    if options.where == "ec2":
        name = submit_to_ec2(target, options.dataset, config, _ec2_machine(options), options.spot)
        return _finished(target, Ec2Job(target, name), options)
    hyperparameters = config.to_json() | {"package": True}
    name = submit(target, Work("train", options.dataset, hyperparameters), _machines(options))
    return _finished(target, TrainingJob(target, name), options)


def tune(target: Target, options: argparse.Namespace) -> Outcome:
    """Search until there is a best.json."""
    machines = _machines(options)
    if options.engine == "job":
        if options.warm_start:
            raise UsageError("--warm-start is for --engine sagemaker")
        if machines.count > 1:
            raise UsageError("--engine job searches on one machine: leave --instances out")
    # A search that trains whole networks in jobs of their own is for fine-tuning.
    elif not hasattr(options, "unfreeze") and not options.config:
        options.unfreeze = "all"
    config = _config(options)
    searched = search_space(config.unfreeze, configuration.given(options))
    if options.engine == "job":
        # What a job is given it does not search for.
        flags = {name: value for name, value in config.to_json().items() if name not in searched}
        flags |= {"trials": options.trials, "parallel": options.parallel}
        name = submit(target, Work("tune", options.dataset, flags, processes=1), machines)
        return _finished(target, TrainingJob(target, name), options)
    work = Work("train", options.dataset, config.to_json())
    name = start_search(
        target, work, searched, machines, options.trials, options.parallel, options.warm_start
    )
    return _finished(target, TuningJob(target, name), options)


def find(target: Target, name: str) -> Job:
    """A job by its name.

    Raises:
        UsageError: There is none.
    """
    if Ec2Job.exists(target, name):
        return Ec2Job(target, name)
    for kind in (TrainingJob, TuningJob):
        try:
            found: Job = kind(target, name)
        except ClientError as error:
            if error.response["Error"]["Code"] not in {"ResourceNotFound", "ValidationException"}:
                raise
        else:
            return found
    raise UsageError(f"there is no job {name} in account {target.account}, {target.region}")


def _finished(target: Target, job: Job, options: argparse.Namespace) -> Outcome:
    sys.stderr.write(f"job {job.name}\n")
    outcome = follow(job, target.name)
    bucket = target.required_parameter("bucket")
    if isinstance(job, TuningJob) or (isinstance(job, TrainingJob) and job.is_search):
        folder = options.output or Path("build") / job.name / "tune"
        return finish_search(target, bucket, job, outcome, folder)
    record_latest(target, bucket, outcome)
    return outcome


def _config(options: argparse.Namespace) -> TrainConfig:
    config = configuration.from_arguments(options)
    if config.weights not in {"pretrained", "none"}:
        raise UsageError(f"--weights {config.weights}: a job cannot read files of this machine")
    return config


def _machines(options: argparse.Namespace) -> Machines:
    return Machines(
        instance_type=options.instance_type or TRAINING_TYPE,
        count=options.instances,
        spot=options.spot,
        keep_alive_seconds=options.keep_alive,
        max_seconds=int(options.max_hours * 3600),
    )


def _ec2_machine(options: argparse.Namespace) -> str | None:
    for flag, given in (
        ("--instances", options.instances > 1),
        ("--keep-alive", options.keep_alive),
        ("--max-hours", options.max_hours != _HOURS),
    ):
        if given:
            raise UsageError(
                f"{flag} is for --where sagemaker: on EC2 one machine trains, and the foundation's "
                "variables say how long at most"
            )
    kind: str | None = options.instance_type
    if kind and kind.startswith("ml."):
        raise UsageError(f"--instance-type {kind}: EC2's types have no ml., such as g5.xlarge")
    return kind


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a number of 1 or more, not {text!r}")
    return int(text)


def _finite(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"a number, not {text!r}")
    return value


def _add_job_arguments(parser: argparse.ArgumentParser) -> None:
    targets.add_arguments(parser)
    parser.add_argument("--dataset", required=True, metavar="NAME", help="an uploaded data set")
    parser.add_argument("--instances", type=_positive, default=1, metavar="COUNT")
    parser.add_argument("--instance-type", metavar="TYPE", help=f"default: {TRAINING_TYPE}")
    parser.add_argument("--spot", action="store_true", help="cheaper, may be interrupted")
    parser.add_argument(
        "--keep-alive",
        type=int,
        default=0,
        metavar="SECONDS",
        help="keep the machines for the next job",
    )
    parser.add_argument(
        "--max-hours",
        type=_finite,
        default=_HOURS,
        metavar="HOURS",
        help=f"longest run (default: {_HOURS:g})",
    )
    configuration.add_arguments(parser)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m trainer.launch", description="Train and search in AWS."
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    training = verbs.add_parser("train", help="train a model and pack it")
    _add_job_arguments(training)
    training.add_argument("--where", choices=("sagemaker", "ec2"), default="sagemaker")
    search = verbs.add_parser("tune", help="search for hyperparameters")
    _add_job_arguments(search)
    search.add_argument(
        "--engine",
        choices=("sagemaker", "job"),
        default="sagemaker",
        help="SageMaker's tuner, a job a trial; or trainer.tune in one job",
    )
    search.add_argument("--trials", type=_positive, default=8)
    search.add_argument("--parallel", type=_positive, default=2, help="trials at a time")
    search.add_argument("--warm-start", metavar="JOB", help="a former search to learn from")
    for name, text in (("attach", "follow a job again"), ("stop", "stop a job")):
        known = verbs.add_parser(name, help=text)
        targets.add_arguments(known)
        known.add_argument("job", metavar="JOB")
    for verb in ("tune", "attach"):
        verbs.choices[verb].add_argument(
            "--output",
            type=Path,
            metavar="DIR",
            help="folder for a search's best.json (default: build/JOB/tune)",
        )
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Do what the command line asks for; gives what --json prints."""
    target = targets.load(options.env)
    if options.verb == "stop":
        job = find(target, options.job)
        job.stop()
        sys.stderr.write(f"{job.name} was asked to stop; it saves its state first\n")
        return {"job": job.name}
    if options.verb == "attach":
        outcome = _finished(target, find(target, options.job), options)
    else:
        outcome = {"train": train, "tune": tune}[options.verb](target, options)
    sys.stderr.write(cost_line(outcome) + "\n")
    return outcome.to_json()


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    options = _parse(arguments)
    try:
        with targets.explained(options.debug):
            answer = run(options)
    except KennelError as error:
        cause = error.__cause__
        raise type(error)(f"{error}{remedy(str(error))}" if cause else str(error)) from cause
    if options.json:
        print(json.dumps(answer))
    elif "result" in answer:
        print(answer["result"])


if __name__ == "__main__":
    run_command(main)
