"""Start training and searches in AWS, follow them, stop them.

    python -m trainer.launch train --env dev --dataset dogs --instances 2 --spot --epochs 5
    python -m trainer.launch tune --env dev --dataset dogs --trials 8 --parallel 2
    python -m trainer.launch attach JOB --env dev
    python -m trainer.launch jobs --env dev

What is done already is not started, and so not billed, a second time; `--fresh` begins anew.
Standard output, if it is no terminal, has the address of the archive, or the path of `best.json`;
all else goes to standard error. Ctrl-C asks whether to leave the job running or to stop it.
"""

import argparse
import json
import math
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from botocore.exceptions import ClientError

from trainer import config as configuration
from trainer import index
from trainer import target as targets
from trainer.catalogue import TRAINING_TYPE
from trainer.config import TrainConfig
from trainer.errors import ArgumentParser, KennelError, UsageError, run_command
from trainer.files import write_bytes_atomic
from trainer.job_history import history, table
from trainer.jobs import (
    Job,
    Named,
    Outcome,
    accuracy_line,
    asked_to_stop,
    cost_line,
    follow,
    read_json,
    record_latest,
    timestamp,
    write_json,
)
from trainer.jobs_ec2 import Ec2Job
from trainer.jobs_ec2 import submit as submit_to_ec2
from trainer.jobs_sagemaker import Machines, TrainingJob, Work, remedy, submit
from trainer.jobs_tuning import (
    BEST,
    OUTPUT,
    TuningJob,
    finish_search,
    search_lines,
    start_search,
)
from trainer.make_command import make_command
from trainer.names import counted
from trainer.search_space import search_space
from trainer.target import Target
from trainer.upload import require_manifest

_HOURS = 12.0
_SCOPES = {
    "none": "the head, on cached features",
    "last": "the head and the last part of the network",
    "all": "the whole network",
}


@dataclass(frozen=True)
class Order:
    """What is to be done, checked as far as AWS need not be asked.

    Attributes:
        title: What it is, for people.
        engine: Who does it: "sagemaker", "ec2" or "tuner".
        work: What is done; the same work on the same data gives the same result.
        submit: Starts it, and gives the job's name; tells the name before AWS is asked for it.
    """

    title: str
    engine: str
    work: Work
    submit: Callable[[Target, Work, Named], str]

    @property
    def name(self) -> str:
        """What one calls it: a training or a search."""
        return self.title.partition(" ")[0]


def training(options: argparse.Namespace) -> Order:
    """A training, which leaves an archive.

    Raises:
        UsageError: The options do not fit.
    """
    found = None if options.config or not options.run else newest_search(options.run)
    options.config = options.config or found
    config = _config(options)
    source = f", hyperparameters of {options.config}" if options.config else ""
    source += " (the last search; CONFIG=... takes another)" if found else ""
    work = Work("train", options.dataset, config.to_json() | {"package": True})
    if options.where == "ec2":
        kind = _ec2_machine(options)
        title = f"training on EC2, {kind or 'the machine of the foundation'}{source}"

        def launch(target: Target, work: Work, named: Named) -> str:
            return submit_to_ec2(target, work, config, kind, options.spot, named)

        return Order(title, "ec2", work, launch)
    machines = _machines(options)
    title = f"training on {machines.count} x {machines.instance_type}{source}"
    return Order(title, "sagemaker", work, partial(submit, machines))


def search(options: argparse.Namespace) -> Order:
    """A search for hyperparameters, which leaves a best.json.

    Raises:
        UsageError: The options do not fit.
    """
    machines = _machines(options)
    in_one_job = options.engine == "job"
    if in_one_job:
        if options.warm_start:
            raise UsageError("--warm-start is for --engine sagemaker")
        if machines.count > 1:
            raise UsageError(
                "--engine job searches on one machine: leave --instances (INSTANCES) out"
            )
    # A search that trains whole networks in jobs of their own is for fine-tuning.
    elif not hasattr(options, "unfreeze") and not options.config:
        options.unfreeze = "all"
    config = _config(options)
    searched = search_space(config.unfreeze, configuration.given(options))
    how = "in one job" if in_one_job else "a job each"
    title = (
        f"search of {_SCOPES[config.unfreeze]}: {counted(options.trials, 'trial')}, {how}, "
        f"{options.parallel} at a time, on {machines.count} x {machines.instance_type}"
    )
    # What a job is given it does not search for.
    flags = {name: value for name, value in config.to_json().items() if name not in searched}
    flags |= {"trials": options.trials, "parallel": options.parallel}
    if in_one_job:
        work = Work("tune", options.dataset, flags, processes=1)
        return Order(title, "sagemaker", work, partial(submit, machines))
    trial = Work("train", options.dataset, config.to_json())

    def start(target: Target, _: Work, named: Named) -> str:
        how_many = (options.trials, options.parallel)
        return start_search(target, trial, searched, machines, *how_many, options.warm_start, named)

    work = Work("search", options.dataset, flags | {"warm_start": options.warm_start})
    return Order(title, "tuner", work, start)


def newest_search(run: Path) -> Path | None:
    """The best.json of the last search that belongs to a run; None if there was none."""
    found = run.glob(f"tune*/{BEST}")
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def carry_out(target: Target, order: Order, options: argparse.Namespace) -> Outcome:
    """Do what was ordered, unless that is done already; follow it where it runs already.

    Raises:
        UsageError: The data set has not been uploaded.
        KennelError: The foundation is missing, or the job failed.
    """
    bucket = target.required_parameter("bucket")
    fingerprint = require_manifest(target, order.work.dataset).fingerprint
    key = f"jobs/by-work/{order.engine}-{order.work.digest}-{fingerprint[:12]}.json"
    work = replace(order.work, attempt=timestamp() if options.fresh else "")
    former = None if options.fresh else read_json(target, bucket, key)
    if former:
        # An attempt that was interrupted goes on with its own checkpoints.
        work = replace(work, attempt=former["attempt"])
        if (job := _known(target, former["job"])) and not job.state().ended:
            sys.stderr.write(
                f"this very {order.name} runs already, as job {job.name}: it is followed; "
                "FRESH=1 starts another\n"
            )
            return _finished(target, job, options)
        if job and (outcome := _result(target, job)):
            sys.stderr.write(
                f"this very {order.name} is done, by job {job.name}: nothing is started, and "
                f"nothing is billed; FRESH=1 does it anew\n"
            )
            return _finished(target, job, options, outcome)
    sys.stderr.write(f"{order.title}\n")

    def named(job: str) -> None:
        # Before AWS is asked: if its answer is lost for good, the same command finds the job.
        write_json(target, bucket, key, {"job": job, "attempt": work.attempt})

    name = order.submit(target, work, named)
    return _finished(target, find(target, name), options)


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
    raise UsageError(
        f"there is no job {name} in account {target.account}, {target.region}; "
        f"`{make_command('jobs', target.name)}` lists them"
    )


def _known(target: Target, name: str) -> Job | None:
    try:
        return find(target, name)
    except UsageError:
        return None


def _result(target: Target, job: Job) -> Outcome | None:
    """What came of a job that has ended; None if it has left nothing, or that is gone."""
    try:
        outcome = job.outcome()
    except KennelError:
        return None
    if isinstance(job, TuningJob):
        # One that was stopped has a best trial, too, but not all that was asked for.
        return outcome if job.state().text.startswith("Completed") else None
    address = urlsplit(outcome.result)
    key = address.path.lstrip("/")
    if job.is_search:
        key = f"{key.rpartition('/')[0]}/{OUTPUT}"
    client = target.client("s3")
    try:
        client.head_object(Bucket=address.netloc, Key=key)
    except ClientError as error:
        if error.response["Error"]["Code"] not in {"404", "NoSuchKey", "NotFound"}:
            raise
        return None
    return outcome


def _finished(
    target: Target, job: Job, options: argparse.Namespace, outcome: Outcome | None = None
) -> Outcome:
    """Follow a job to its end, keep what it has left, print that, and say what comes next.

    Args:
        target: Where it runs.
        job: The job.
        options: Where a search's results go.
        outcome: What came of it, if that is known already.
    """
    past = "" if outcome is None else "at that time: "
    if outcome is None:
        sys.stderr.write(f"job {job.name}\n")
        outcome = follow(job, target.name)
    bucket = target.required_parameter("bucket")
    if job.is_search:
        folder = options.output or Path("build") / job.name / "tune"
        ended = finish_search(target, bucket, job, outcome, folder)
        *told, next_line = search_lines(target, folder)
        told += _pages(folder)
    else:
        ended = outcome
        record_latest(target, bucket, outcome)
        told = [
            accuracy_line(outcome),
            f"archive: {outcome.result}",
        ]
        next_line = f"next: {make_command('deploy', target.name, MODEL=outcome.result)}"
    sys.stderr.writelines(f"{line}\n" for line in [past + cost_line(ended), *told] if line)
    sys.stderr.flush()
    if options.json:
        print(json.dumps(ended.to_json()), flush=True)
    elif not sys.stdout.isatty():  # who sits there has just read it
        print(ended.result, flush=True)
    sys.stderr.write(f"{next_line}\n")
    return ended


def _pages(folder: Path) -> list[str]:
    """Bring the page that leads to all others up to date, if it leads to what was fetched.

    A search's page leads back to it. The one in the bucket does not: it is read elsewhere.
    """
    output = Path(os.environ.get("KENNEL_OUT", "build"))
    if output.resolve() not in folder.resolve().parents:
        return []
    try:
        leading = index.write(output)
        page = folder / "search.html"
        if page.is_file():
            text = page.read_bytes().decode(errors="surrogateescape")
            told = index.with_way_back(text, folder, output)
            write_bytes_atomic(page, told.encode(errors="surrogateescape"))
        return [f"all pages: {leading}"]
    except (KennelError, OSError) as error:  # what was asked for is there all the same
        return [str(error)]


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
    parser.add_argument("--fresh", action="store_true", help="begin anew, even if it is done")
    parser.add_argument(
        "--check", action="store_true", help="only check the flags, without asking AWS"
    )
    configuration.add_arguments(parser)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(prog="python -m trainer.launch", description="Train and search in AWS.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    training = verbs.add_parser("train", help="train a model and pack it")
    _add_job_arguments(training)
    training.add_argument("--where", choices=("sagemaker", "ec2"), default="sagemaker")
    training.add_argument(
        "--run", type=Path, metavar="DIR", help="take the best.json of the last search in DIR"
    )
    search = verbs.add_parser("tune", help="search for hyperparameters")
    _add_job_arguments(search)
    search.add_argument(
        "--engine",
        choices=("sagemaker", "job"),
        default="sagemaker",
        help="SageMaker's tuner, a job a trial; or trainer.tune in one job; "
        "either begins anew if it is interrupted",
    )
    search.add_argument("--trials", type=_positive, default=8)
    search.add_argument("--parallel", type=_positive, default=2, help="trials at a time")
    search.add_argument("--warm-start", metavar="JOB", help="a former search to learn from")
    known = verbs.add_parser("jobs", help="list the last jobs")
    targets.add_arguments(known)
    known.add_argument("--last", type=_positive, default=20, metavar="COUNT")
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


def run(options: argparse.Namespace) -> None:
    """Do what the command line asks for."""
    target = targets.load(options.env)
    order = {"train": training, "tune": search}.get(options.verb)
    if order:
        ordered = order(options)
        if not options.check:
            carry_out(target, ordered, options)
    elif options.verb == "jobs":
        rows = history(target, options.last)
        listed = json.dumps({"jobs": [row.to_json() for row in rows]}) + "\n"
        columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        sys.stdout.write(listed if options.json else table(rows, columns))
    elif options.verb == "stop":
        job = find(target, options.job)
        if not job.state().ended and asked_to_stop(job):
            said = "was asked to stop; it saves its state first"
        else:
            attach = make_command("attach", target.name, about_run=job.is_search, JOB=job.name)
            said = f"has ended ({job.state().text}), nothing is left to stop; `{attach}` shows it"
        sys.stderr.write(f"{job.name} {said}\n")
        if options.json:
            print(json.dumps({"job": job.name}))
    else:
        _finished(target, find(target, options.job), options)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    options = _parse(arguments)
    try:
        with targets.explained(options.debug):
            run(options)
    except KennelError as error:
        cause = error.__cause__
        raise type(error)(f"{error}{remedy(str(error))}" if cause else str(error)) from cause


if __name__ == "__main__":
    run_command(main)
