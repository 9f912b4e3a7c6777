"""What training, processing and transform jobs have in common while they run."""

import shutil
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import Any, Generic, Protocol, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from localaws import network, regions
from localaws.errors import LocalAwsError
from localaws.execution import Execution, RoleError, Service
from localaws.jobs.hosts import Host, HostError
from localaws.jobs.transfers import Mirror, TransferError
from localaws.monitoring.log_events import put_lines

SERVICE = "sagemaker.amazonaws.com"
STOP_SECONDS = 120.0
"""What SageMaker gives a job between SIGTERM and SIGKILL."""
POLL_SECONDS = 0.1
RUN_SECONDS = 24 * 3600
"""How long a job may run if it does not say."""

_OBSERVE_SECONDS = 1.0
_LAST_LINES = 10


class JobError(LocalAwsError):
    """A job has failed; the message is its `FailureReason`."""


class LeavingError(Exception):
    """localaws ends; what becomes of the job is seen when it is back."""


class Wish(Enum):
    """What a job that runs is asked for."""

    STOP = "Stopped"
    INTERRUPT = "Interrupted"
    LEAVE = "Leave"


class Record(Protocol):
    """What SageMaker keeps of a job."""

    arn: str

    @property
    def ended(self) -> bool:
        """Whether the job has its last status."""

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to end."""

    def stop(self) -> None:
        """Note that it was told to end."""

    def end(self, status: str, *, reason: str = "") -> None:
        """Give it its last status."""


J = TypeVar("J", bound=Record)


class Run(Generic[J]):
    """One job while it runs, in a thread of its own.

    Attributes:
        ended: Set when it does not run any more.
        job: Its record.
        folder: For its files; removed at its end.
        wish: What it is asked for.
    """

    def __init__(self, execution: Execution, job: J, role_arn: str) -> None:
        """Run nothing yet.

        Args:
            execution: For credentials, clients and changes.
            job: The record.
            role_arn: The role under which SageMaker works for the job.
        """
        self.ended = threading.Event()
        self.execution = execution
        self.job = job
        kind, _, self.name = job.arn.rpartition(":")[2].partition("/")
        self.kind = kind
        self.folder = execution.folder / "jobs" / kind / self.name
        self.role_arn = role_arn
        self.wish: Wish | None = None
        self.lock = threading.Lock()

    def work(self) -> None:
        """Do all that the job is for, and give it its last status unless an error is raised.

        Raises:
            JobError: It has failed.
            LeavingError: localaws ends.
            RoleError: SageMaker may not take its role.
        """
        raise NotImplementedError

    def start(self) -> None:
        """Begin."""
        regions.Thread(target=self._run, name=self.name, daemon=True).start()

    def stop(self) -> None:
        """Let it end; it is `Stopping` when this returns."""
        with self.execution.changing(), self.lock:
            if not self.job.ended and not self.job.is_stopping:
                self.wish = Wish.STOP
                self.job.stop()

    def leave(self) -> None:
        """End its processes; the record goes on saying that it runs."""
        with self.lock:
            self.wish = Wish.LEAVE

    def _run(self) -> None:
        try:
            self.work()
        except LeavingError:
            pass
        except JobError as error:
            self.end("Failed", reason=str(error))
        except RoleError as error:
            self.end("Failed", reason=f"ClientError: {error}")
        except Exception as error:
            traceback.print_exc()
            self.end("Failed", reason=f"InternalServerError: {error}")
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.ended.set()

    def end(self, status: str, *, reason: str = "") -> None:
        """Give the job its last status."""
        self.change(lambda: self.job.end(status, reason=reason))

    def change(self, change: Callable[[], None]) -> None:
        """Change the record."""
        with self.execution.changing(), self.lock:
            change()

    def leave_if_asked(self) -> None:
        """Raise `LeavingError` if localaws ends."""
        if self.wish is Wish.LEAVE:
            raise LeavingError

    def ending(self, seconds: float) -> str | None:
        """How the job ends if it is to end now, after so much work; None if it goes on."""
        self.leave_if_asked()
        return self.wish.value if self.wish else None

    def is_saved(self) -> None:
        """Called when a file was put into S3 while the job works."""

    def is_told(self, message: str) -> None:
        """Called with what SageMaker says while it waits for instances."""

    def await_instances(self) -> None:
        """Wait until the instances are there, or somebody wants something else.

        Raises:
            JobError: They never will be.
        """
        start = self.execution.weather.start(self.kind, self.name)
        if start.message:
            self.is_told(start.message)
        ready_at = time.monotonic() + self.execution.seconds(start.seconds)
        while time.monotonic() < ready_at and not self.wish:
            time.sleep(POLL_SECONDS)
        if start.fault and not self.wish:
            raise JobError(start.fault)

    def require_keys(self, output: str | None, volume: str | None) -> None:
        """Use the job's keys as SageMaker does, which asks IAM for the role's right to each.

        Args:
            output: The key of what the job leaves, if it names one.
            volume: The key of its instances' volumes, if it names one.

        Raises:
            JobError: One cannot be used.
        """
        with reasons("ClientError: The KMS key cannot be used:"):
            kms = self.client("kms")
            if output:
                kms.encrypt(KeyId=output, Plaintext=b"SageMaker")
            if volume:
                kms.create_grant(
                    KeyId=volume,
                    GranteePrincipal=SERVICE,
                    Operations=["CreateGrant", "Decrypt", "GenerateDataKeyWithoutPlaintext"],
                )

    def attach(self, vpc: Mapping[str, Any], count: int) -> network.Interfaces:
        """Take a place in a VPC for each host, if S3 and the hosts are reached from there."""
        access_key = self.credentials()["AWS_ACCESS_KEY_ID"]
        try:
            network.require(vpc)
            network.require_rights(access_key, self.role_arn)
            if count > 1:
                network.require_peers(vpc)
        except network.NetworkError as error:
            raise JobError(f"ClientError: {error}") from error
        try:
            network.require_s3(vpc)
        except network.NetworkError as error:
            raise JobError(f"ClientError: Data download failed:{error}") from error
        return network.Interfaces(self.execution, vpc, count)

    def wait(self, hosts: Sequence[Host], follower: "Follower", started: float) -> str | None:
        """Wait until all hosts have ended, one has failed, or they are to end.

        Args:
            hosts: Their processes run.
            follower: Follows them.
            started: Since when, by the monotonic clock.

        Returns:
            How the job ends, if it was made to; see `ending`.
        """
        ending: str | None = None
        kill_at = float("inf")
        while True:
            if follower.observe(final=False):
                self.is_saved()
            codes = [host.exit_code for host in hosts]
            if self.wish is Wish.LEAVE or time.monotonic() >= kill_at or None not in codes:
                return ending
            if ending is None:
                if any(codes):
                    return None
                ending = self.ending(time.monotonic() - started)
                if ending is not None:
                    kill_at = time.monotonic() + self._grace(hosts)
            time.sleep(POLL_SECONDS)

    def _grace(self, hosts: Sequence[Host]) -> float:
        """Tell the hosts to end, and give them the time that SageMaker gives."""
        heard = [host.terminate() for host in hosts]
        # Where nobody hears, AWS waits in vain.
        return STOP_SECONDS if any(heard) else self.execution.seconds(STOP_SECONDS)

    def credentials(self) -> dict[str, str]:
        """Credentials of the job's role."""
        return self.execution.credentials(self.role_arn, SERVICE, "SageMaker")

    def client(self, service: str) -> Any:
        """A client that acts under the job's role."""
        return self.execution.client(service, self.credentials())


R = TypeVar("R", bound=Run[Any])


class Jobs(Service, Generic[R]):
    """Runs the jobs of one kind that were created through SageMaker."""

    def __init__(self, execution: Execution) -> None:
        """Make the service; nothing runs yet."""
        super().__init__(execution)
        self.runs: dict[str, R] = {}
        self._leaving = False

    def records(self) -> list[Any]:
        """The records of all jobs of this kind."""
        raise NotImplementedError

    def begin(self, run: R) -> None:
        """Run a job, unless localaws ends: then it is resumed when that is back."""
        if not self._leaving:
            self.runs[run.name] = run
            run.start()

    def stop_job(self, name: str) -> None:
        """Let a job end; it is `Stopping` when this returns."""
        if run := self.runs.get(name):
            run.stop()

    def resume(self) -> None:
        """Say what has become of the jobs that ran when localaws ended."""
        for job in self.records():
            if not job.ended:
                with self.execution.changing():
                    if job.is_stopping:
                        job.end("Stopped")
                    else:
                        self.take_up(job)
                self.began_again(job)

    def take_up(self, job: Any) -> None:
        """Change the record of a job that ran when localaws ended."""
        job.end("Failed", reason="InternalServerError: localaws ended while the job ran.")

    def began_again(self, job: Any) -> None:
        """Run a job that goes on."""

    def stop(self) -> None:
        """End all processes; the records go on saying that the jobs run."""
        self._leaving = True
        for run in list(self.runs.values()):
            run.leave()
        for run in list(self.runs.values()):
            run.ended.wait()


class Follower:
    """Follows the hosts of a job: their logs, and the folders that are kept in S3."""

    def __init__(
        self, run: Run[Any], group: str, hosts: Sequence[Host], mirrors: Mapping[str, list[Mirror]]
    ) -> None:
        """Follow nothing yet.

        Args:
            run: The job.
            group: Its log group.
            hosts: The hosts.
            mirrors: Folders that are kept in S3, by what a failure's reason begins with.
        """
        self.last_lines = {host: deque[str](maxlen=_LAST_LINES) for host in hosts}
        self.execution = run.execution
        self.name = run.name
        self._mirrors = mirrors
        credentials = run.credentials()
        self._s3, self._logs, self.metrics = (
            run.execution.client(service, credentials) for service in ("s3", "logs", "cloudwatch")
        )
        self._group = group
        now = int(time.time() * 1000)
        self._streams = {
            host: f"{self.name}/algo-{number}-{now}" for number, host in enumerate(hosts, 1)
        }
        self._refused: set[str] = set()
        self._next = 0.0

    def take_in(self, lines: list[str]) -> None:
        """Called with the hosts' new lines."""

    def observe(self, *, final: bool) -> bool:
        """Take up what is new, once a second or so; tell whether a file was put into S3.

        Args:
            final: The hosts have ended.
        """
        if not final and time.monotonic() < self._next:
            return False
        found: list[str] = []
        for host, last in self.last_lines.items():
            lines = [line for line in host.lines(final=final) if line.strip()]
            last.extend(lines)
            found += lines
            with self.if_allowed("logs"):
                put_lines(self._logs, self._group, self._streams[host], lines)
        self.take_in(found)
        put = False
        for prefix, mirrors in self._mirrors.items():
            with reasons(prefix):
                for mirror in mirrors:
                    put |= mirror.sync(self._s3, final=final)
        self._next = time.monotonic() + _OBSERVE_SECONDS
        return put

    @contextmanager
    def if_allowed(self, what: str) -> Iterator[None]:
        """Do it as long as the role may: as on AWS, a job does not fail for want of its logs."""
        try:
            yield
        except (BotoCoreError, ClientError) as error:
            if what not in self._refused:
                print(f"{self.name}: no {what}: {error}", file=sys.stderr, flush=True)
            self._refused.add(what)


@contextmanager
def reasons(prefix: str) -> Iterator[None]:
    """Let what goes wrong in the block be the job's failure reason."""
    try:
        yield
    except ClientError as error:
        code, status = error.response["Error"], error.response["ResponseMetadata"]
        told = f"{code['Code']} ({status['HTTPStatusCode']}): {code['Message']}"
        raise JobError(f"{prefix}{told}") from error
    except (BotoCoreError, HostError, OSError, TransferError) as error:
        raise JobError(f"{prefix}{error}") from error
