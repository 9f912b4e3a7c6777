"""Runs training jobs as processes: SageMaker's life of a job, from the channels to the archive."""

import re
import shutil
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from moto.core.utils import utcnow

from localaws import network, regions
from localaws.errors import LocalAwsError
from localaws.execution import Execution, RoleError, Service
from localaws.jobs.hosts import CONTAINER, Cluster, Host, HostError
from localaws.jobs.training_records import TrainingJob, jobs, keep
from localaws.jobs.transfers import (
    Mirror,
    TransferError,
    encryption,
    fetch_channel,
    fetch_prefix,
    pack,
    put_file,
    put_files,
)
from localaws.monitoring.log_events import put_lines

STOP_SECONDS = 120.0
"""What SageMaker gives a job between SIGTERM and SIGKILL."""

_SERVICE = "sagemaker.amazonaws.com"
_GROUP = _NAMESPACE = "/aws/sagemaker/TrainingJobs"
_POLL_SECONDS = 0.1
_OBSERVE_SECONDS = 1.0
_LAST_LINES = 10
_DATA = 500
# Of the 1024 that AWS keeps; the exit code follows.
_REASON_CHARACTERS = 980
_RUN_SECONDS = 24 * 3600


class JobError(LocalAwsError):
    """A job has failed; the message is its `FailureReason`."""


class _LeavingError(Exception):
    """localaws ends; the job is to go on when it is back."""


class _Wish(Enum):
    """What a job that runs is asked for."""

    STOP = "Stopped"
    INTERRUPT = "Interrupted"
    LEAVE = "Leave"


class TrainingJobs(Service):
    """Runs the training jobs that were created through SageMaker, each in a thread of its own."""

    def __init__(self, execution: Execution) -> None:
        """Make the service; nothing runs yet."""
        super().__init__(execution)
        self._runs: dict[str, _Run] = {}
        self._leaving = False

    def create(self, request: Mapping[str, Any], tuning_job_arn: str | None = None) -> str:
        """Create a job and start it.

        Args:
            request: The members of `CreateTrainingJob`.
            tuning_job_arn: The tuning job that the job is a trial of.

        Returns:
            The job's ARN.

        Raises:
            RoleError: SageMaker cannot act under the job's role.
            ResourceInUseException: There is a job of that name.
        """
        job = TrainingJob(request, tuning_job_arn)
        self.execution.credentials(job.role_arn, _SERVICE, "SageMaker")
        with self.execution.changing():
            keep(job)
        self._start(job)
        return job.arn

    def wait(self, name: str, seconds: float | None = None) -> bool:
        """Wait until a job has ended; false if it has not after `seconds`, or if localaws ends."""
        if run := self._runs.get(name):
            run.ended.wait(seconds)
        return name not in jobs() or jobs()[name].ended

    def values(self, name: str) -> dict[str, list[float]]:
        """All values of each metric that a job has written so far, in their order."""
        run = self._runs.get(name)
        return {metric: list(values) for metric, values in run.values.items()} if run else {}

    def stop_job(self, name: str) -> None:
        """Let a job end within 120 seconds; it is `Stopping` when this returns."""
        if run := self._runs.get(name):
            run.stop()

    def interrupt(self, name: str) -> bool:
        """Take the spot instances of a job away; false if it trains on none."""
        run = self._runs.get(name)
        return bool(run and run.interrupt())

    def resume(self) -> None:
        """Go on with the jobs that have checkpoints or may be retried; the others have failed."""
        for job in list(jobs().values()):
            if not job.ended:
                self._resume(job)

    def stop(self) -> None:
        """End all processes; the records go on saying that the jobs run."""
        self._leaving = True
        for run in list(self._runs.values()):
            run.leave()
        for run in list(self._runs.values()):
            run.ended.wait()

    def _start(self, job: TrainingJob) -> None:
        if self._leaving:
            return  # It is resumed when localaws is back.
        run = self._runs[job.training_job_name] = _Run(self.execution, job)
        run.start()

    def _resume(self, job: TrainingJob) -> None:
        has_checkpoints = "CheckpointConfig" in job.given
        attempts = job.given.get("RetryStrategy", {}).get("MaximumRetryAttempts", 0)
        with self.execution.changing():
            if job.training_job_status == "Stopping":
                job.end("Stopped")
            elif has_checkpoints or job.retries < attempts:
                job.retries += 1
                origin = "its last checkpoint" if has_checkpoints else "the beginning"
                job.report("Restarting", f"localaws ended; the job goes on from {origin}")
            else:
                job.end(
                    "Failed",
                    reason="InternalServerError: localaws ended while the job ran. A job with a"
                    " CheckpointConfig goes on where it was; one with a RetryStrategy begins anew.",
                )
        if not job.ended:
            self._start(job)


class _Run:
    """One job while it runs."""

    def __init__(self, execution: Execution, job: TrainingJob) -> None:
        self.ended = threading.Event()
        self.values: dict[str, list[float]] = {}
        self._execution = execution
        self._job = job
        self._folder = execution.folder / "jobs" / job.training_job_name
        self._wish: _Wish | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        regions.Thread(target=self._run, name=self._job.training_job_name, daemon=True).start()

    def stop(self) -> None:
        with self._execution.changing(), self._lock:
            if not self._job.ended and self._job.training_job_status != "Stopping":
                self._wish = _Wish.STOP
                self._job.training_job_status = "Stopping"
                self._job.report("Stopping")

    def interrupt(self) -> bool:
        with self._lock:
            is_spot = self._job.given.get("EnableManagedSpotTraining", False)
            if self._wish or not is_spot or self._job.secondary_status != "Training":
                return False
            self._wish = _Wish.INTERRUPT
            return True

    def leave(self) -> None:
        with self._lock:
            self._wish = _Wish.LEAVE

    def _run(self) -> None:
        try:
            while self._attempt() is _Wish.INTERRUPT:
                with self._lock:
                    # Whoever asks for an end meanwhile shall not be forgotten.
                    self._wish = None if self._wish is _Wish.INTERRUPT else self._wish
                self._report("Interrupted")
                self._report("Starting", "Preparing the instances for training")
        except _LeavingError:
            pass
        except JobError as error:
            self._end("Failed", reason=str(error))
        except RoleError as error:
            self._end("Failed", reason=f"ClientError: {error}")
        except Exception as error:
            traceback.print_exc()
            self._end("Failed", reason=f"InternalServerError: {error}")
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
            self.ended.set()

    def _attempt(self) -> _Wish | None:
        """Run the job on fresh hosts; tell whether they were taken away."""
        given = self._job.given
        cluster = Cluster.of(given.get("ResourceConfig", {}))
        shutil.rmtree(self._folder, ignore_errors=True)
        hosts: list[Host] = []
        interfaces: network.Interfaces | None = None
        try:
            with _reasons("ClientError: The KMS key cannot be used:"):
                self._require_keys()
            if vpc := given.get("VpcConfig"):
                interfaces = self._attach(vpc, len(cluster.instances))
            self._await_instances()
            self._report("Downloading")
            with _reasons("ClientError: Data download failed:"):
                for number in range(len(cluster.instances)):
                    hosts.append(Host(self._folder / f"algo-{number + 1}", cluster, number))
                mirrors = self._download(hosts)
            ending = self._ending(0.0)
            if ending is None:
                self._report("Training")
                ending = self._train(hosts, mirrors)
            if ending == _Wish.INTERRUPT.value:
                return _Wish.INTERRUPT
            if ending is None:
                self._report("Uploading")
            with _reasons("ClientError: Artifact upload failed:"):
                self._upload(hosts)
        finally:
            for host in hosts:
                host.stop()
            if interfaces:
                interfaces.remove()
        if ending is None:
            self._end("Completed")
        else:
            self._end("Stopped", ending)
        return None

    def _await_instances(self) -> None:
        """Wait until the instances are there, or somebody wants something else.

        Raises:
            JobError: They never will be.
        """
        start = self._execution.weather.start("training-job", self._job.training_job_name)
        if start.message:
            self._report("Starting", start.message)
        ready_at = time.monotonic() + self._execution.seconds(start.seconds)
        while time.monotonic() < ready_at and not self._wish:
            time.sleep(_POLL_SECONDS)
        if start.fault and not self._wish:
            raise JobError(start.fault)

    def _download(self, hosts: list[Host]) -> list[Mirror]:
        """Fill the hosts' folders; give what keeps their checkpoints in S3."""
        s3 = self._client("s3")
        for channel in self._job.given.get("InputDataConfig", []):
            name, source = channel["ChannelName"], channel["DataSource"].get("S3DataSource")
            if not source:
                raise TransferError(f"localaws has no file systems: channel {name} must be in S3")
            shards = source.get("S3DataDistributionType") == "ShardedByS3Key"
            for position, host in enumerate(hosts):
                self._leave_if_asked()
                host.channel(name).mkdir()
                if shards or position == 0:
                    fetch_channel(s3, source, host.channel(name), position, len(hosts))
                else:
                    shutil.copytree(hosts[0].channel(name), host.channel(name), dirs_exist_ok=True)
        checkpoints = self._job.given.get("CheckpointConfig")
        if not checkpoints:
            return []
        path = checkpoints.get("LocalPath", f"{CONTAINER}/checkpoints")
        if hosts[0].path(path) == path:
            raise TransferError(f"localaws keeps checkpoints below {CONTAINER} only, not in {path}")
        mirrors = []
        for host in hosts:
            folder = Path(host.path(path))
            folder.mkdir(parents=True, exist_ok=True)
            fetch_prefix(s3, checkpoints["S3Uri"], folder)
            mirrors.append(Mirror(folder, checkpoints["S3Uri"], self._encryption))
        return mirrors

    def _train(self, hosts: list[Host], mirrors: list[Mirror]) -> str | None:
        """Start the hosts and wait for them; give the secondary status if they were made to end."""
        credentials = self._credentials()
        # An isolated container reaches nothing, so that it gets no credentials either.
        is_isolated = self._job.given.get("EnableNetworkIsolation", False)
        environment = {
            **self._execution.environment({} if is_isolated else credentials),
            "TRAINING_JOB_ARN": self._job.arn,
            "TRAINING_JOB_NAME": self._job.training_job_name,
        }
        observer = _Observer(self._execution, self._job, self.values, credentials, hosts, mirrors)
        started = time.monotonic()
        with self._execution.changing():
            self._job.training_start_time = self._job.training_start_time or utcnow()
        try:
            with _reasons("AlgorithmError: "):
                for host in hosts:
                    host.start(self._job.given, environment)
            ending = self._wait(hosts, observer, started)
            failed = [host for host in hosts if host.exit_code]
        finally:
            for host in hosts:
                host.kill()
            with self._execution.changing():
                self._job.training_seconds += time.monotonic() - started
            observer.observe(final=True)
        self._leave_if_asked()
        if ending is None and failed:
            reason = failed[0].failure or "\n".join(observer.last_lines[failed[0]])
            raise JobError(
                f"AlgorithmError: {reason[:_REASON_CHARACTERS]}, exit code: {failed[0].exit_code}"
            )
        return ending

    def _wait(self, hosts: list[Host], observer: "_Observer", started: float) -> str | None:
        """Wait until all hosts have ended, one has failed, or their time is up."""
        ending: str | None = None
        kill_at = float("inf")
        while True:
            if observer.observe(final=False):
                self._weather_interrupts()
            codes = [host.exit_code for host in hosts]
            if self._wish is _Wish.LEAVE or time.monotonic() >= kill_at or None not in codes:
                return ending
            if ending is None:
                if any(codes):
                    return None
                ending = self._ending(time.monotonic() - started)
                if ending is not None:
                    kill_at = time.monotonic() + self._grace(hosts)
            time.sleep(_POLL_SECONDS)

    def _weather_interrupts(self) -> None:
        """After its state was saved, a spot job may lose its instances."""
        is_spot = self._job.given.get("EnableManagedSpotTraining", False)
        if is_spot and self._execution.weather.interrupts(self._job.training_job_name):
            self.interrupt()

    def _grace(self, hosts: list[Host]) -> float:
        """Tell the hosts to end, and give them the time that SageMaker gives."""
        heard = [host.terminate() for host in hosts]
        # Where nobody hears, AWS waits in vain.
        return STOP_SECONDS if any(heard) else self._execution.seconds(STOP_SECONDS)

    def _ending(self, seconds: float) -> str | None:
        """The secondary status with which a job ends that is to end now, after so much training."""
        self._leave_if_asked()
        limits = self._job.given.get("StoppingCondition", {})
        if self._wish:
            return self._wish.value
        # The wait began before the run: of two limits of the same length it is the first.
        wait = limits.get("MaxWaitTimeInSeconds")
        if wait and utcnow() - self._job.creation_time >= timedelta(seconds=wait):
            return "MaxWaitTimeExceeded"
        longest = limits.get("MaxRuntimeInSeconds", _RUN_SECONDS)
        if self._job.training_seconds + seconds >= longest:
            return "MaxRuntimeExceeded"
        return None

    def _upload(self, hosts: list[Host]) -> None:
        """Put what the hosts have left: all of an archive, or none of it."""
        s3, uri = self._client("s3"), self._job.model_uri
        models = [host.folder / "model" for host in hosts]
        if uri.endswith("/"):
            for folder in reversed(models):
                put_files(s3, folder, uri, self._encryption)
        elif pack(models, archive := self._folder / "model.tar.gz"):
            put_file(s3, archive, uri, self._encryption)
        outputs = [host.folder / "output/data" for host in hosts]
        if pack(outputs, archive := self._folder / "output.tar.gz"):
            beside = f"{uri.rstrip('/').rpartition('/')[0]}/output.tar.gz"
            put_file(s3, archive, beside, self._encryption)

    @property
    def _encryption(self) -> dict[str, str]:
        return encryption(self._job.given["OutputDataConfig"])

    def _require_keys(self) -> None:
        """Use the job's keys as SageMaker does, which asks IAM for the role's right to each."""
        given = self._job.given
        kms = self._client("kms")
        if key := given["OutputDataConfig"].get("KmsKeyId"):
            kms.encrypt(KeyId=key, Plaintext=b"SageMaker")
        if key := given.get("ResourceConfig", {}).get("VolumeKmsKeyId"):
            kms.create_grant(
                KeyId=key,
                GranteePrincipal=_SERVICE,
                Operations=["CreateGrant", "Decrypt", "GenerateDataKeyWithoutPlaintext"],
            )

    def _attach(self, vpc: Mapping[str, Any], count: int) -> network.Interfaces:
        """Take a place in a VPC for each host, if S3 and the hosts are reached from there."""
        access_key = self._credentials()["AWS_ACCESS_KEY_ID"]
        try:
            network.require(vpc)
            network.require_rights(access_key, self._job.role_arn)
            if count > 1:
                network.require_peers(vpc)
        except network.NetworkError as error:
            raise JobError(f"ClientError: {error}") from error
        try:
            network.require_s3(vpc)
        except network.NetworkError as error:
            raise JobError(f"ClientError: Data download failed:{error}") from error
        return network.Interfaces(self._execution, vpc, count)

    def _report(self, status: str, message: str | None = None) -> None:
        with self._execution.changing(), self._lock:
            self._job.report(status, message)

    def _end(self, status: str, secondary_status: str | None = None, reason: str = "") -> None:
        with self._execution.changing(), self._lock:
            self._job.end(status, secondary_status, reason)

    def _leave_if_asked(self) -> None:
        if self._wish is _Wish.LEAVE:
            raise _LeavingError

    def _credentials(self) -> dict[str, str]:
        return self._execution.credentials(self._job.role_arn, _SERVICE, "SageMaker")

    def _client(self, service: str) -> Any:
        return self._execution.client(service, self._credentials())


class _Observer:
    """Follows the hosts of an attempt: their logs, the metrics in them, their checkpoints."""

    def __init__(
        self,
        execution: Execution,
        job: TrainingJob,
        values: dict[str, list[float]],
        credentials: Mapping[str, str],
        hosts: list[Host],
        mirrors: list[Mirror],
    ) -> None:
        self.last_lines = {host: deque[str](maxlen=_LAST_LINES) for host in hosts}
        self._execution = execution
        self._job = job
        self._values = values
        self._mirrors = mirrors
        self._s3, self._logs, self._metrics = (
            execution.client(service, credentials) for service in ("s3", "logs", "cloudwatch")
        )
        definitions = job.given["AlgorithmSpecification"].get("MetricDefinitions", [])
        self._definitions = [(d["Name"], re.compile(d["Regex"])) for d in definitions]
        now = int(time.time() * 1000)
        self._streams = {
            host: f"{job.training_job_name}/algo-{number}-{now}"
            for number, host in enumerate(hosts, 1)
        }
        self._refused: set[str] = set()
        self._next = 0.0

    def observe(self, *, final: bool) -> bool:
        """Take up what is new, once a second or so; tell whether a checkpoint was saved.

        Args:
            final: The hosts have ended.
        """
        if not final and time.monotonic() < self._next:
            return False
        found: list[tuple[str, float]] = []
        for host, last in self.last_lines.items():
            lines = [line for line in host.lines(final=final) if line.strip()]
            last.extend(lines)
            found += [value for line in lines for value in self._measured(line)]
            with self._if_allowed("logs"):
                put_lines(self._logs, _GROUP, self._streams[host], lines)
        self._put_metrics(found)
        with _reasons("ClientError: Checkpoint upload failed:"):
            put = [mirror.sync(self._s3, final=final) for mirror in self._mirrors]
        self._next = time.monotonic() + _OBSERVE_SECONDS
        return any(put)

    def _measured(self, line: str) -> Iterator[tuple[str, float]]:
        for name, expression in self._definitions:
            for match in expression.finditer(line):
                with suppress(TypeError, ValueError):
                    yield name, float(match[1])

    def _put_metrics(self, found: list[tuple[str, float]]) -> None:
        if not found:
            return
        now = utcnow()
        for name, value in found:
            self._values.setdefault(name, []).append(value)
        with self._execution.changing():
            for name, value in found:
                final = {"MetricName": name, "Value": value, "Timestamp": now}
                self._job.final_metrics[name] = final
        dimensions = [{"Name": "TrainingJobName", "Value": self._job.training_job_name}]
        data = [
            {"MetricName": name, "Value": value, "Timestamp": now, "Dimensions": dimensions}
            for name, value in found
        ]
        for first in range(0, len(data), _DATA):
            with self._if_allowed("metrics"):
                self._metrics.put_metric_data(
                    Namespace=_NAMESPACE, MetricData=data[first : first + _DATA]
                )

    @contextmanager
    def _if_allowed(self, what: str) -> Iterator[None]:
        """Do it as long as the role may: as on AWS, a job does not fail for want of its logs."""
        try:
            yield
        except (BotoCoreError, ClientError) as error:
            if what not in self._refused:
                print(
                    f"{self._job.training_job_name}: no {what}: {error}",
                    file=sys.stderr,
                    flush=True,
                )
            self._refused.add(what)


@contextmanager
def _reasons(prefix: str) -> Iterator[None]:
    """Let what goes wrong in the block be the job's failure reason."""
    try:
        yield
    except ClientError as error:
        code, status = error.response["Error"], error.response["ResponseMetadata"]
        told = f"{code['Code']} ({status['HTTPStatusCode']}): {code['Message']}"
        raise JobError(f"{prefix}{told}") from error
    except (BotoCoreError, HostError, OSError, TransferError) as error:
        raise JobError(f"{prefix}{error}") from error
