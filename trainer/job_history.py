"""The jobs of an environment, the newest first: what they were, took, cost and left.

SageMaker keeps the records of its jobs, and the launcher those of the machines on EC2.
"""

import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from trainer.errors import KennelError
from trainer.jobs import Job, Outcome
from trainer.jobs_ec2 import RECORD, Ec2Job
from trainer.jobs_sagemaker import TrainingJob
from trainer.jobs_tuning import TuningJob
from trainer.make_command import make_command
from trainer.target import Target

_LISTS = (
    ("list_hyper_parameter_tuning_jobs", "HyperParameterTuningJob", TuningJob),
    ("list_training_jobs", "TrainingJob", TrainingJob),
)


@dataclass(frozen=True)
class Row:
    """A job.

    Attributes:
        job: Its name.
        kind: "training", "search" (in one job), "tuning" (a job a trial) or "ec2".
        status: AWS's word for how it is, or how it ended.
        created: When, in UTC.
        machines: Such as "2 x ml.g5.xlarge".
        seconds: From its creation to its end; None unless it succeeded, as all that follows.
        usd: Price of all its machines.
        top1: Accuracy of the archive on the test photos, 0 to 1.
        result: Address of the archive, or of the search's reports.
    """

    job: str
    kind: str
    status: str
    created: str
    machines: str
    seconds: float | None = None
    usd: float | None = None
    top1: float | None = None
    result: str = ""

    def to_json(self) -> dict[str, Any]:
        """Give the fields by name."""
        return asdict(self)


def history(target: Target, last: int) -> list[Row]:
    """The last jobs of an environment, the newest first.

    Raises:
        KennelError: The foundation has not been applied.
    """
    bucket = target.required_parameter("bucket")
    found = [*_on_sagemaker(target, last), *_on_ec2(target, bucket)]
    newest = sorted(found, key=lambda entry: entry[0], reverse=True)[:last]
    return [_row(job, bucket, created) for created, job in newest]


def table(rows: list[Row], columns: int | None = None) -> str:
    """The jobs as text, a line each; a few lines each where that is wider than a terminal.

    Args:
        rows: The jobs.
        columns: Width of the terminal; None where nothing bounds a line.
    """
    if not rows:
        return f"no jobs yet; `{make_command('train', WHERE='sagemaker')}` starts one\n"
    head = ("job", "kind", "status", "created", "machines", "s", "USD", "top-1", "result")
    cells = [head, *(_cells(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    if columns is not None and sum(widths) + 2 * len(widths) - 2 > columns:
        return "".join(_block(row, columns) for row in rows)
    lines = (
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True))
        for line in cells
    )
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _block(row: Row, columns: int) -> str:
    """A job in lines that break between words only."""
    _, kind, status, created, machines, seconds, usd, top1, result = _cells(row)
    figures = f", {seconds} s, {usd} USD, top-1 {top1}" if row.seconds is not None else ""
    lines = [f"{kind}, {status}, {created}, {machines}{figures}", result if row.result else ""]
    wrapped = (
        textwrap.fill(
            line,
            columns,
            initial_indent="  ",
            subsequent_indent="  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for line in lines
        if line
    )
    return "".join(f"{line}\n" for line in (row.job, *wrapped))


def _cells(row: Row) -> tuple[str, ...]:
    seconds, usd, top1 = (
        "-" if value is None else f"{value:{form}}"
        for value, form in ((row.seconds, ".0f"), (row.usd, ".2f"), (row.top1, ".4f"))
    )
    told = (row.job, row.kind, row.status, row.created, row.machines)
    return (*told, seconds, usd, top1, row.result or "-")


def _on_sagemaker(target: Target, last: int) -> Iterator[tuple[datetime, Job]]:
    """The last trainings and searches; a search's trials are told by the search."""
    client = target.client("sagemaker")
    searches: list[str] = []
    for operation, shape, kind in _LISTS:
        pages = client.get_paginator(operation).paginate(
            NameContains=f"{target.prefix}-", SortBy="CreationTime", SortOrder="Descending"
        )
        listed = (
            summary
            for page in pages
            for summary in page[f"{shape}Summaries"]
            if summary[f"{shape}Name"].startswith(f"{target.prefix}-")
            and not summary[f"{shape}Name"].startswith(tuple(f"{name}-" for name in searches))
        )
        for summary, _ in zip(listed, range(last), strict=False):
            name = summary[f"{shape}Name"]
            if kind is TuningJob:
                searches.append(name)
            yield summary["CreationTime"], kind(target, name)


def _on_ec2(target: Target, bucket: str) -> Iterator[tuple[datetime, Job]]:
    pages = (
        target.client("s3")
        .get_paginator("list_objects_v2")
        .paginate(Bucket=bucket, Prefix=f"jobs/{target.prefix}-")
    )
    for page in pages:
        for entry in page.get("Contents", []):
            _, name, *rest = entry["Key"].split("/")
            if rest == [RECORD]:
                yield entry["LastModified"], Ec2Job(target, name)


def _row(job: Job, bucket: str, created: datetime) -> Row:
    kind = "search" if isinstance(job, TrainingJob) and job.is_search else job.kind
    when = created.astimezone(UTC).strftime("%Y-%m-%d %H:%M")
    state = job.state()
    row = Row(job.name, kind, state.text.partition(":")[0], when, job.machines)
    outcome = _outcome(job) if state.ended else None
    if outcome is None:
        return row
    return replace(
        row,
        seconds=outcome.seconds,
        usd=outcome.usd,
        top1=outcome.top1_served,
        result=f"s3://{bucket}/jobs/{job.name}/" if job.is_search else outcome.result,
    )


def _outcome(job: Job) -> Outcome | None:
    try:
        return job.outcome()
    except KennelError:
        return None
