"""Runs transform jobs: a model's server for each instance, and what it answers to objects of S3.

Sources: SageMaker's developer guide, "Use batch transform" and "Use your own inference code with
batch transform"; API reference, `CreateTransformJob`. The words of the data log are those of public
issues: aws/amazon-sagemaker-examples 1620, aws/sagemaker-python-sdk 1951,
aws/sagemaker-tensorflow-serving-container 93.
"""

import gzip
import io
import shutil
import threading
import time
import uuid
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from moto.sagemaker import models

from localaws.execution import Execution
from localaws.hosting.containers import Container, HostingError, Reply, UnreachableError
from localaws.hosting.model_artifacts import Role, have_model
from localaws.hosting.output import Output, complain
from localaws.jobs.records import TransformJob
from localaws.jobs.runs import POLL_SECONDS, JobError, Jobs, Run, reasons
from localaws.jobs.transfers import encryption, objects, put_file
from localaws.monitoring.log_events import put_lines
from localaws.processes import Running

_GROUP = "/aws/sagemaker/TransformJobs"
_STARTUP_SECONDS = 1800.0
_MEBIBYTE = 1 << 20
_SHIP_SECONDS = 1.0
_STRATEGIES = {"MultiRecord": "MULTI_RECORD", "SingleRecord": "SINGLE_RECORD"}
_RETRY_SECONDS = 1.0
# The log has the cause.
_CLIENT_ERROR, _ALGORITHM_ERROR = (
    f"{kind}: See job logs for more information" for kind in ("ClientError", "AlgorithmError")
)


@dataclass(frozen=True)
class Settings:
    """How a job asks its containers.

    Attributes:
        concurrent: How many requests each gets at a time.
        payload: The largest body, in MiB.
        strategy: MULTI_RECORD or SINGLE_RECORD.
    """

    concurrent: int
    payload: int
    strategy: str

    @classmethod
    def of(cls, given: Mapping[str, Any], told: Mapping[str, Any]) -> "Settings":
        """What a job gives, else what its container asks for, else SageMaker's defaults.

        Args:
            given: The members of `CreateTransformJob`.
            told: The container's execution parameters.

        Raises:
            JobError: They are none.
        """
        strategy = _STRATEGIES.get(given.get("BatchStrategy", "")) or told.get("BatchStrategy")
        try:
            found = cls(
                given.get("MaxConcurrentTransforms")
                or int(told.get("MaxConcurrentTransforms") or 1),
                given.get("MaxPayloadInMB") or int(told.get("MaxPayloadInMB", 6)),
                strategy or "MULTI_RECORD",
            )
        except (TypeError, ValueError) as error:
            raise JobError(f"AlgorithmError: the execution parameters {told} are none") from error
        if found.strategy not in _STRATEGIES.values() or found.concurrent < 1:
            raise JobError(f"AlgorithmError: the execution parameters {told} are none")
        if not found.payload:
            raise JobError("AlgorithmError: localaws sends no chunked bodies: MaxPayloadInMB is 0")
        return found

    def __str__(self) -> str:
        return (
            f"MaxConcurrentTransforms={self.concurrent}, MaxPayloadInMB={self.payload},"
            f" BatchStrategy={self.strategy}"
        )

    def bodies(self, content: bytes, split: str) -> Iterator[bytes]:
        """The bodies of the requests for an object.

        Args:
            content: The object.
            split: The job's `SplitType`, "None" or "Line".

        Raises:
            RecordError: A record is too large.
        """
        if split == "None":
            yield self._sound(content)
            return
        batch = b""
        for record in io.BytesIO(content):
            if self.strategy == "SINGLE_RECORD":
                yield self._sound(record)
            elif batch and len(batch) + len(record) > self.payload * _MEBIBYTE:
                yield batch
                batch = self._sound(record)
            else:
                batch += self._sound(record)
        if batch:
            yield batch

    def _sound(self, record: bytes) -> bytes:
        if len(record) > self.payload * _MEBIBYTE:
            raise RecordError("Too much data for max payload size", is_clients=True)
        return record


class RecordError(Exception):
    """An object cannot be transformed; the message is the data log's."""

    def __init__(self, *lines: str, is_clients: bool) -> None:
        """Take the log's lines, and whether the model is not to blame."""
        super().__init__("\n".join(lines))
        self.lines = lines
        self.is_clients = is_clients


class TransformJobs(Jobs["_Run"]):
    """Runs the transform jobs that were created through SageMaker."""

    def create(self, request: Mapping[str, Any], model: models.Model) -> str:
        """Create a job and start it.

        Args:
            request: The members of `CreateTransformJob`.
            model: Its model.

        Returns:
            The job's ARN.

        Raises:
            ResourceInUseException: There is a job of that name.
        """
        job = TransformJob(request)
        with self.execution.changing():
            job.keep()
        self.begin(_Run(self.execution, job, model))
        return job.arn

    def records(self) -> list[TransformJob]:
        """The records of all transform jobs."""
        return list(TransformJob.all().values())


class _Run(Run[TransformJob]):
    """One job while it runs."""

    def __init__(self, execution: Execution, job: TransformJob, model: models.Model) -> None:
        super().__init__(execution, job, model.execution_role_arn)
        self._model = model
        self.failures: list[RecordError] = []

    def work(self) -> None:
        given = self.job.given
        output, resources = given["TransformOutput"], given["TransformResources"]
        source = given["TransformInput"]["DataSource"]["S3DataSource"]
        shutil.rmtree(self.folder, ignore_errors=True)
        self.require_keys(output.get("KmsKeyId"), resources.get("VolumeKmsKeyId"))
        self.await_instances()
        try:
            role, environment = have_model(
                self.execution, self._model, self.folder, _variables(given)
            )
        except HostingError as error:
            raise JobError(f"ClientError: {error}") from error
        with reasons("ClientError: "):
            found = objects(role.client("s3"), source)
        with ExitStack() as stack:
            instances = [
                stack.enter_context(Instance(self, role, environment))
                for _ in range(resources["InstanceCount"])
            ]
            answers = self._transform(instances, found)
        self.leave_if_asked()
        # A job that is stopped leaves nothing.
        if self.wish:
            self.end("Stopped")
            return
        prefix, options = output["S3OutputPath"].rstrip("/"), encryption(output)
        with reasons("ClientError: "):
            for (_, _, name), path in zip(found, answers, strict=True):
                if path:
                    put_file(role.client("s3"), path, f"{prefix}/{name}.out", options)
        if self.failures:
            clients = any(failure.is_clients for failure in self.failures)
            raise JobError(_CLIENT_ERROR if clients else _ALGORITHM_ERROR)
        self.end("Completed")

    def _transform(
        self, instances: list["Instance"], found: list[tuple[str, str, str]]
    ) -> list[Path | None]:
        """Have the instances transform objects, by turns.

        Returns:
            The file with the answers for each object; None for one that could not be transformed.
        """
        for instance in instances:
            instance.wait()
        if self.wish:
            return []
        self.change(self.job.begin)
        tasks: list[Future[Path | None]] = [
            instance.transform(bucket, key, self.folder / f"{number}.out")
            for number, (instance, (bucket, key, _)) in enumerate(
                zip(cycle(instances), found, strict=False)
            )
        ]
        ship_at = 0.0
        while not self.wish and not all(task.done() for task in tasks):
            if time.monotonic() >= ship_at:
                for instance in instances:
                    instance.output.ship()
                ship_at = time.monotonic() + _SHIP_SECONDS
            time.sleep(POLL_SECONDS)
        return [] if self.wish else [task.result() for task in tasks]


class Instance(Running):
    """An instance of a job: a container, and the requests that it gets."""

    def __init__(self, run: _Run, role: Role, environment: Mapping[str, str]) -> None:
        """Start the container.

        Args:
            run: The job.
            role: The model's role.
            environment: What its containers get.
        """
        given = run.job.given
        self._run = run
        self._s3, self._logs = role.client("s3"), role.client("logs")
        self._input: Mapping[str, Any] = given["TransformInput"]
        self._ends: bytes = {"Line": b"\n"}.get(given["TransformOutput"].get("AssembleWith"), b"")
        limits = given.get("ModelClientConfig", {})
        self._seconds: int = limits.get("InvocationsTimeoutInSeconds", 600)
        self._retries: int = limits.get("InvocationsMaxRetries", 3)
        headers = {
            "Content-Type": self._input.get("ContentType"),
            "Accept": given["TransformOutput"].get("Accept"),
        }
        self._headers = {name: value for name, value in headers.items() if value}
        identity = f"i-{uuid.uuid4().hex[:17]}"
        log = run.folder / f"{identity}.log"
        self._stream = f"{run.name}/{identity}-{int(time.time() * 1000)}"
        self._container = Container(["serve"], log, environment, run.folder)
        self.output = Output(self._logs, _GROUP, self._stream, log)
        self._settings = Settings(1, 6, "MULTI_RECORD")
        self._logging = threading.Lock()
        self._objects = self._requests = ThreadPoolExecutor(1)

    def wait(self) -> None:
        """Wait until the container answers, and ask it how it wants to be asked.

        Raises:
            JobError: It does not.
        """
        until = time.monotonic() + _STARTUP_SECONDS
        while not self._run.wish:
            try:
                self._container.wait(POLL_SECONDS)
            except HostingError as error:
                if self._container.has_ended or time.monotonic() > until:
                    raise JobError(_ALGORITHM_ERROR) from error
            else:
                break
        if self._run.wish:
            return
        told = self._container.connections.execution_parameters()
        self._settings = Settings.of(self._run.job.given, told)
        self._objects, self._requests = (
            ThreadPoolExecutor(self._settings.concurrent) for _ in range(2)
        )
        self._write(str(self._settings))

    def transform(self, bucket: str, key: str, path: Path) -> Future[Path | None]:
        """Have an object transformed when its turn comes.

        Args:
            bucket: The object's bucket.
            key: Its key.
            path: The file for the answers.

        Returns:
            The file; None if the object cannot be transformed, which the data log tells.
        """
        return self._objects.submit(self._transformed, bucket, key, path)

    def _transformed(self, bucket: str, key: str, path: Path) -> Path | None:
        if self._run.wish:
            return None
        try:
            bodies = self._settings.bodies(
                self._content(bucket, key), self._input.get("SplitType", "None")
            )
            answers = list(self._requests.map(self._answer, list(bodies)))
        except RecordError as error:
            if not self._run.wish:
                self._run.failures.append(error)
                self._write(*(f"{bucket}/{key}: {line}" for line in error.lines))
            return None
        path.write_bytes(b"".join(answer + self._ends for answer in answers))
        return path

    def _content(self, bucket: str, key: str) -> bytes:
        try:
            content: bytes = self._s3.get_object(Bucket=bucket, Key=key)["Body"].read()
            is_packed = self._input.get("CompressionType") == "Gzip"
            return gzip.decompress(content) if is_packed else content
        except (BotoCoreError, ClientError, EOFError, OSError, zlib.error) as error:
            raise RecordError(f"ClientError: {error}", is_clients=True) from error

    def _answer(self, body: bytes) -> bytes:
        for attempt in range(1 + self._retries):
            if attempt and not self._run.execution.sleep(_RETRY_SECONDS):
                break
            reply = self._ask(body)
            if reply.is_success:
                return reply.body
            # The same request would be wrong again.
            if 400 <= reply.status < 500 or self._run.wish:
                break
        if not reply.status:
            raise RecordError("Unable to get response from algorithm", is_clients=False)
        is_clients = reply.status < 500
        what = "ClientError" if is_clients else "Bad HTTP status received from algorithm"
        message = reply.body.decode(errors="replace")
        raise RecordError(f"{what}: {reply.status}", "", "Message:", message, is_clients=is_clients)

    def _ask(self, body: bytes) -> Reply:
        try:
            return self._container.connections.invoke(body, self._headers, self._seconds)
        except UnreachableError:
            return Reply(0, b"")

    def _write(self, *lines: str) -> None:
        """Write lines to the data log."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00")
        told = [f"{now}:[sagemaker logs]: {line}" for line in lines]
        with self._logging:
            try:
                put_lines(self._logs, _GROUP, f"{self._stream}/data-log", told)
            except (BotoCoreError, ClientError) as error:
                complain(_GROUP, error)

    def stop(self) -> None:
        """End the container, which ends the requests that it has; the others are not sent."""
        self._objects.shutdown(wait=False, cancel_futures=True)
        self._requests.shutdown(wait=False, cancel_futures=True)
        if self._run.wish:
            self._container.kill()
        else:
            self._container.stop()
        self._objects.shutdown()
        self._requests.shutdown()
        self.output.ship()


def _variables(given: Mapping[str, Any]) -> dict[str, str]:
    """The environment variables that a job gives its containers, beside their model's."""
    told = {
        "SAGEMAKER_BATCH_STRATEGY": _STRATEGIES.get(given.get("BatchStrategy", "")),
        "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": given.get("MaxConcurrentTransforms"),
        "SAGEMAKER_MAX_PAYLOAD_IN_MB": given.get("MaxPayloadInMB"),
    }
    return {
        **given.get("Environment", {}),
        "SAGEMAKER_BATCH": "true",
        **{name: str(value) for name, value in told.items() if value},
    }
