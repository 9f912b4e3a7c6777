"""Runs training jobs as processes: SageMaker's life of a job, from the channels to the archive."""

import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from moto.core.utils import utcnow

from localaws import network
from localaws.execution import Execution
from localaws.jobs.hosts import CONTAINER, Cluster, Host, TrainingHost
from localaws.jobs.runs import RUN_SECONDS, SERVICE, Follower, JobError, Jobs, Run, Wish, reasons
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

_GROUP = _NAMESPACE = "/aws/sagemaker/TrainingJobs"
_DATA = 500
# Of the 1024 that AWS keeps; the exit code follows.
_REASON_CHARACTERS = 980


class TrainingJobs(Jobs["_Run"]):
    """Runs the training jobs that were created through SageMaker, each in a thread of its own."""

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
        self.execution.credentials(job.role_arn, SERVICE, "SageMaker")
        with self.execution.changing():
            keep(job)
        self.begin(_Run(self.execution, job))
        return job.arn

    def wait(self, name: str, seconds: float | None = None) -> bool:
        """Wait until a job has ended; false if it has not after `seconds`, or if localaws ends."""
        if run := self.runs.get(name):
            run.ended.wait(seconds)
        return name not in jobs() or jobs()[name].ended

    def values(self, name: str) -> dict[str, list[float]]:
        """All values of each metric that a job has written so far, in their order."""
        run = self.runs.get(name)
        return {metric: list(values) for metric, values in run.values.items()} if run else {}

    def interrupt(self, name: str) -> bool:
        """Take the spot instances of a job away; false if it trains on none."""
        run = self.runs.get(name)
        return bool(run and run.interrupt())

    def records(self) -> list[TrainingJob]:
        """The records of all training jobs."""
        return list(jobs().values())

    def take_up(self, job: TrainingJob) -> None:
        """Let a job that has checkpoints or may be retried go on; another one has failed."""
        has_checkpoints = "CheckpointConfig" in job.given
        attempts = job.given.get("RetryStrategy", {}).get("MaximumRetryAttempts", 0)
        if has_checkpoints or job.retries < attempts:
            job.retries += 1
            origin = "its last checkpoint" if has_checkpoints else "the beginning"
            job.report("Restarting", f"localaws ended; the job goes on from {origin}")
        else:
            job.end(
                "Failed",
                reason="InternalServerError: localaws ended while the job ran. A job with a"
                " CheckpointConfig goes on where it was; one with a RetryStrategy begins anew.",
            )

    def began_again(self, job: TrainingJob) -> None:
        """Run a job that goes on."""
        if not job.ended:
            self.begin(_Run(self.execution, job))


class _Run(Run[TrainingJob]):
    """One job while it runs."""

    def __init__(self, execution: Execution, job: TrainingJob) -> None:
        super().__init__(execution, job, job.role_arn)
        self.values: dict[str, list[float]] = {}

    def interrupt(self) -> bool:
        with self.lock:
            is_spot = self.job.given.get("EnableManagedSpotTraining", False)
            if self.wish or not is_spot or self.job.secondary_status != "Training":
                return False
            self.wish = Wish.INTERRUPT
            return True

    def work(self) -> None:
        while self._attempt() is Wish.INTERRUPT:
            with self.lock:
                # Whoever asks for an end meanwhile shall not be forgotten.
                self.wish = None if self.wish is Wish.INTERRUPT else self.wish
            self._report("Interrupted")
            self._report("Starting", "Preparing the instances for training")

    def _attempt(self) -> Wish | None:
        """Run the job on fresh hosts; tell whether they were taken away."""
        given = self.job.given
        cluster = Cluster.of(given.get("ResourceConfig", {}))
        shutil.rmtree(self.folder, ignore_errors=True)
        hosts: list[TrainingHost] = []
        interfaces: network.Interfaces | None = None
        try:
            self.require_keys(
                given["OutputDataConfig"].get("KmsKeyId"),
                given.get("ResourceConfig", {}).get("VolumeKmsKeyId"),
            )
            if vpc := given.get("VpcConfig"):
                interfaces = self.attach(vpc, len(cluster.instances))
            self.await_instances()
            self._report("Downloading")
            with reasons("ClientError: Data download failed:"):
                for number in range(len(cluster.instances)):
                    hosts.append(TrainingHost(self.folder / f"algo-{number + 1}", cluster, number))
                mirrors = self._download(hosts)
            ending = self.ending(0.0)
            if ending is None:
                self._report("Training")
                ending = self._train(hosts, mirrors)
            if ending == Wish.INTERRUPT.value:
                return Wish.INTERRUPT
            if ending is None:
                self._report("Uploading")
            with reasons("ClientError: Artifact upload failed:"):
                self._upload(hosts)
        finally:
            for host in hosts:
                host.stop()
            if interfaces:
                interfaces.remove()
        self.change(lambda: self.job.end("Stopped" if ending else "Completed", ending))
        return None

    def is_told(self, message: str) -> None:
        self._report("Starting", message)

    def _download(self, hosts: list[TrainingHost]) -> list[Mirror]:
        """Fill the hosts' folders; give what keeps their checkpoints in S3."""
        s3 = self.client("s3")
        for channel in self.job.given.get("InputDataConfig", []):
            name, source = channel["ChannelName"], channel["DataSource"].get("S3DataSource")
            if not source:
                raise TransferError(f"localaws has no file systems: channel {name} must be in S3")
            shards = source.get("S3DataDistributionType") == "ShardedByS3Key"
            for position, host in enumerate(hosts):
                self.leave_if_asked()
                host.channel(name).mkdir()
                if shards or position == 0:
                    fetch_channel(s3, source, host.channel(name), position, len(hosts))
                else:
                    shutil.copytree(hosts[0].channel(name), host.channel(name), dirs_exist_ok=True)
        checkpoints = self.job.given.get("CheckpointConfig")
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

    def _train(self, hosts: list[TrainingHost], mirrors: list[Mirror]) -> str | None:
        """Start the hosts and wait for them; give the secondary status if they were made to end."""
        credentials = self.credentials()
        # An isolated container reaches nothing, so that it gets no credentials either.
        is_isolated = self.job.given.get("EnableNetworkIsolation", False)
        environment = {
            **self.execution.environment({} if is_isolated else credentials),
            "TRAINING_JOB_ARN": self.job.arn,
            "TRAINING_JOB_NAME": self.job.training_job_name,
        }
        observer = _Observer(self, hosts, mirrors)
        started = time.monotonic()
        with self.execution.changing():
            self.job.training_start_time = self.job.training_start_time or utcnow()
        try:
            with reasons("AlgorithmError: "):
                for host in hosts:
                    host.start(self.job.given, environment)
            ending = self.wait(hosts, observer, started)
            failed = [host for host in hosts if host.exit_code]
        finally:
            for host in hosts:
                host.kill()
            with self.execution.changing():
                self.job.training_seconds += time.monotonic() - started
            observer.observe(final=True)
        self.leave_if_asked()
        if ending is None and failed:
            reason = failed[0].failure or "\n".join(observer.last_lines[failed[0]])
            raise JobError(
                f"AlgorithmError: {reason[:_REASON_CHARACTERS]}, exit code: {failed[0].exit_code}"
            )
        return ending

    def is_saved(self) -> None:
        """After its state was saved, a spot job may lose its instances."""
        is_spot = self.job.given.get("EnableManagedSpotTraining", False)
        if is_spot and self.execution.weather.interrupts(self.job.training_job_name):
            self.interrupt()

    def ending(self, seconds: float) -> str | None:
        """The secondary status with which a job ends that is to end now, after so much training."""
        self.leave_if_asked()
        limits = self.job.given.get("StoppingCondition", {})
        if self.wish:
            return self.wish.value
        # The wait began before the run: of two limits of the same length it is the first.
        wait = limits.get("MaxWaitTimeInSeconds")
        if wait and utcnow() - self.job.creation_time >= timedelta(seconds=wait):
            return "MaxWaitTimeExceeded"
        longest = limits.get("MaxRuntimeInSeconds", RUN_SECONDS)
        if self.job.training_seconds + seconds >= longest:
            return "MaxRuntimeExceeded"
        return None

    def _upload(self, hosts: list[TrainingHost]) -> None:
        """Put what the hosts have left: all of an archive, or none of it."""
        s3, uri = self.client("s3"), self.job.model_uri
        models = [host.folder / "model" for host in hosts]
        if uri.endswith("/"):
            for folder in reversed(models):
                put_files(s3, folder, uri, self._encryption)
        elif pack(models, archive := self.folder / "model.tar.gz"):
            put_file(s3, archive, uri, self._encryption)
        outputs = [host.folder / "output/data" for host in hosts]
        if pack(outputs, archive := self.folder / "output.tar.gz"):
            beside = f"{uri.rstrip('/').rpartition('/')[0]}/output.tar.gz"
            put_file(s3, archive, beside, self._encryption)

    @property
    def _encryption(self) -> dict[str, str]:
        return encryption(self.job.given["OutputDataConfig"])

    def _report(self, status: str, message: str | None = None) -> None:
        self.change(lambda: self.job.report(status, message))


class _Observer(Follower):
    """Follows the hosts of an attempt, and the metrics in their logs."""

    def __init__(self, run: _Run, hosts: Sequence[Host], mirrors: list[Mirror]) -> None:
        super().__init__(run, _GROUP, hosts, {"ClientError: Checkpoint upload failed:": mirrors})
        self._job = run.job
        self._values = run.values
        definitions = run.job.given["AlgorithmSpecification"].get("MetricDefinitions", [])
        self._definitions = [(d["Name"], re.compile(d["Regex"])) for d in definitions]

    def take_in(self, lines: list[str]) -> None:
        found = [value for line in lines for value in self._measured(line)]
        if not found:
            return
        now = utcnow()
        for name, value in found:
            self._values.setdefault(name, []).append(value)
        with self.execution.changing():
            for name, value in found:
                final = {"MetricName": name, "Value": value, "Timestamp": now}
                self._job.final_metrics[name] = final
        dimensions = [{"Name": "TrainingJobName", "Value": self._job.training_job_name}]
        data = [
            {"MetricName": name, "Value": value, "Timestamp": now, "Dimensions": dimensions}
            for name, value in found
        ]
        for first in range(0, len(data), _DATA):
            with self.if_allowed("metrics"):
                self.metrics.put_metric_data(
                    Namespace=_NAMESPACE, MetricData=data[first : first + _DATA]
                )

    def _measured(self, line: str) -> Iterator[tuple[str, float]]:
        for name, expression in self._definitions:
            for match in expression.finditer(line):
                with suppress(TypeError, ValueError):
                    yield name, float(match[1])
