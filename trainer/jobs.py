"""What jobs have in common wherever they run: following, Ctrl-C, cost, the record of the last."""

import json
import re
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError, ConnectionError, HTTPClientError
from tqdm import tqdm

from trainer.errors import KennelError
from trainer.files import json_text
from trainer.make_command import make_command
from trainer.metric_lines import read_metrics
from trainer.patience import read_object
from trainer.target import LATEST_KEY, Target

SECONDS_BETWEEN_LINES = 60.0
"""How long a job may say nothing before a log is told that it goes on."""

_MOVING = {"epoch": "epoch", "valid_loss": "loss", "valid_accuracy": "accuracy"}
"""Metrics of the progress line, and what they are called there."""

_POLL_SECONDS = 2.0
# A network that is gone for longer will not be back before somebody looks at it.
_FAILED_POLLS = 30
_DRAINING_POLLS = 3
_SERVERS_FAULTS = frozenset({500, 502, 503, 504})
_THROTTLED = frozenset(
    {
        "RequestLimitExceeded",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)


Named = Callable[[str], object]
"""Is told a job's name before AWS is asked for the job."""


@dataclass(frozen=True)
class State:
    """How a job is.

    Attributes:
        text: What it is doing, for people.
        ended: Whether it has ended.
        word: The text in a word or two, if it is a sentence.
    """

    text: str
    ended: bool
    word: str = ""


@dataclass(frozen=True)
class Outcome:
    """What came of a job that succeeded.

    Attributes:
        job: Its name.
        kind: "training", "ec2" or "tuning".
        result: Address of the archive, or path of `best.json`.
        seconds: From its creation to its end.
        billable_seconds: What one machine is billed for, where that is known.
        usd: Price of all machines; None where the price of their type is not known.
        saved: Share of the price that spot machines saved, 0 to 1.
        top1_trained: Top-1 accuracy on the test photos, of PyTorch; None where it is not known.
        top1_served: The same of the archive, as it is served.
    """

    job: str
    kind: str
    result: str
    seconds: float
    billable_seconds: float
    usd: float | None
    saved: float = 0.0
    top1_trained: float | None = None
    top1_served: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Give the fields by name."""
        return asdict(self)


class Job(ABC):
    """A job that was submitted and can be followed and stopped.

    Attributes:
        name: Its name in AWS.
        kind: "training", "tuning" or "ec2".
        machines: What it runs on, such as "2 x ml.g5.xlarge".
        usd_per_hour: Price of all its machines; None where it is not known.
        is_search: Whether it searches for hyperparameters, and leaves no model.
    """

    name: str
    kind: str
    machines: str
    usd_per_hour: float | None = None
    is_search: bool = False

    @abstractmethod
    def state(self) -> State:
        """Ask how the job is."""

    @abstractmethod
    def lines(self) -> Iterable[str]:
        """What it has said since the last call."""

    @abstractmethod
    def stop(self) -> None:
        """Ask it to stop; it saves its state first."""

    @abstractmethod
    def outcome(self) -> Outcome:
        """What came of it, once it has ended.

        Raises:
            KennelError: It failed or was stopped; the message says why and where its log is.
        """


def asked_to_stop(job: Job) -> bool:
    """Ask a job to stop; false if AWS says that it has ended, or is ending, by itself."""
    try:
        job.stop()
    except ClientError as error:
        if error.response["Error"]["Code"] != "ValidationException":
            raise
        return False
    return True


def follow(job: Job, environment: str) -> Outcome:
    """Show a job's log and progress until it ends.

    Raises:
        KennelError: The job failed or was stopped, or AWS cannot be reached any more.
        SystemExit: Ctrl-C, and the job goes on without us, or has stopped as it was asked to.
    """
    stopped = False
    attach = make_command("attach", environment, about_run=job.is_search, JOB=job.name)
    hints = f"follow it with `{attach}`"
    with _display(job) as show:
        while True:
            try:
                _watch(job, show, hints)
                break
            except KeyboardInterrupt:
                if not _asked_to_stop(job):
                    sys.stderr.write(
                        f"\nleft {job.name} running: {hints}, stop it with "
                        f"`{make_command('stop', environment, JOB=job.name)}`\n"
                    )
                    raise SystemExit(130) from None
                stopped = asked_to_stop(job)
    try:
        return job.outcome()
    except KennelError as error:
        if not stopped:
            raise
        sys.stderr.write(f"{error}\n")
        raise SystemExit(130) from None


def _watch(job: Job, show: "Display", hints: str) -> None:
    failures = 0
    while True:
        try:
            state = job.state()
            show.state(state)
            show.lines(job.lines())
            if state.ended:
                _drain(job, show)
                return
            failures = 0
        except (ClientError, ConnectionError, HTTPClientError) as error:
            failures += 1
            if not _passes(error) or failures == _FAILED_POLLS:
                raise KennelError(f"{error}; {job.name} goes on: {hints}") from error
        time.sleep(_POLL_SECONDS)


def _drain(job: Job, show: "Display") -> None:
    """Wait for the last lines, which reach the log some time after they were written."""
    for _ in range(_DRAINING_POLLS):
        lines = list(job.lines())
        show.lines(lines)
        # Of a short job the whole log may be late.
        if not lines and show.has_lines:
            return
        time.sleep(_POLL_SECONDS)


def _passes(error: Exception) -> bool:
    """Whether the same call may succeed soon."""
    if not isinstance(error, ClientError):
        return True
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return error.response["Error"].get("Code") in _THROTTLED or status in _SERVERS_FAULTS


def _asked_to_stop(job: Job) -> bool:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    sys.stderr.write(f"\nCtrl-C: [d]etach from {job.name}, or [s]top it? [d] ")
    sys.stderr.flush()
    try:
        return sys.stdin.readline().strip().lower().startswith("s")
    except KeyboardInterrupt:
        return False


class Display:
    """Lines on standard error; on a terminal also a bar that tells how far training is."""

    def __init__(self, job: Job) -> None:
        """Begin to tell the time."""
        self._job = job
        self._started = self._last_line = time.monotonic()
        self._state = ""
        self.has_lines = False
        """Whether the log had any so far."""
        # A terminal cuts what does not fit: what moves stands first.
        self._bar = (
            tqdm(bar_format="{desc} [{elapsed}]{postfix}", leave=False, dynamic_ncols=True)
            if sys.stderr.isatty()
            else None
        )
        self._metrics: dict[str, float] = {}

    def state(self, state: State) -> None:
        """Show what the job is doing, if that has changed; in a log now and then if it has not."""
        now = time.monotonic()
        if state.text != self._state:
            self._state = state.text
            self._write(state.text)
        elif self._bar is None and now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._write(f"{state.text}, {now - self._started:.0f} s after the beginning")
        if self._bar is not None:
            hours = (now - self._started) / 3600
            price = self._job.usd_per_hour
            usd = None if price is None else hours * price
            before, after = progress_line(self._job.name, state, self._metrics, usd)
            self._bar.set_description_str(before, refresh=False)
            self._bar.set_postfix_str(after)

    def lines(self, lines: Iterable[str]) -> None:
        """Show lines of the log."""
        for line in lines:
            self.has_lines = True
            self._write(line)
            self._metrics |= read_metrics(line)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()

    def _write(self, line: str) -> None:
        self._last_line = time.monotonic()
        tqdm.write(line, file=sys.stderr)


def progress_line(
    job: str, state: State, metrics: Mapping[str, float], usd: float | None
) -> tuple[str, str]:
    """How a job stands: what is told before the time, and after it; what moves fits 80 columns.

    Args:
        job: Its name.
        state: How it is.
        metrics: What its log has told last, by name; the lines above have all of it.
        usd: What it costs so far; None where the price is not known.
    """
    word = state.word or state.text
    moving = [f"{title} {metrics[name]:.4g}" for name, title in _MOVING.items() if name in metrics]
    rest = [job] if word == state.text else [job, state.text.removeprefix(f"{word}: ")]
    return word, ", ".join([*([] if usd is None else [f"{usd:.2f} USD"]), *moving, *rest])


@contextmanager
def _display(job: Job) -> Iterator[Display]:
    display = Display(job)
    try:
        yield display
    finally:
        display.close()


def cost_line(outcome: Outcome) -> str:
    """Time and price of a job, for people."""
    price = "price unknown" if outcome.usd is None else f"{outcome.usd:.2f} USD"
    saved = f", spot saved {outcome.saved:.0%}" if outcome.saved else ""
    return (
        f"{outcome.job}: {outcome.seconds:.0f} s in all, "
        f"billed {outcome.billable_seconds:.0f} s: {price}{saved}"
    )


def accuracy_line(outcome: Outcome) -> str:
    """Top-1 of a training on the test photos, for people; empty where it is not known."""
    known = [
        f"{value:.4f} {how}"
        for value, how in (
            (outcome.top1_trained, "as trained"),
            (outcome.top1_served, "as served"),
        )
        if value is not None
    ]
    return f"top-1 on test: {', '.join(known)}" if known else ""


def read_json(target: Target, bucket: str, key: str) -> Mapping[str, Any] | None:
    """A JSON object in the bucket; None if there is none.

    Raises:
        KennelError: It is not JSON.
    """
    client = target.client("s3")
    try:
        content = read_object(client, bucket, key).content
    except client.exceptions.NoSuchKey:
        return None
    try:
        found: Mapping[str, Any] = json.loads(content)
    except ValueError as error:
        raise KennelError(f"s3://{bucket}/{key} is not JSON: {error}; remove it") from error
    return found


def write_json(target: Target, bucket: str, key: str, content: Mapping[str, Any]) -> None:
    """Write a JSON object to the bucket."""
    target.client("s3").put_object(
        Bucket=bucket, Key=key, Body=json_text(content).encode(), ContentType="application/json"
    )


def record_latest(target: Target, bucket: str, outcome: Outcome) -> None:
    """Say which archive `make deploy MODEL=latest` takes."""
    content = {
        "job": outcome.job,
        "kind": outcome.kind,
        "archive_uri": outcome.result,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_json(target, bucket, LATEST_KEY, content)


def slug(dataset: str) -> str:
    """A data set's name as part of a job's: letters, digits and single hyphens."""
    return re.sub(r"[^A-Za-z0-9]+", "-", dataset).strip("-")


def timestamp() -> str:
    """This second, as the end of a job's name."""
    return datetime.now(UTC).strftime("%y%m%d%H%M%S")
