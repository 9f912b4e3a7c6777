"""Runs processing jobs as processes: SageMaker's life of a job, from its inputs to its outputs.

Scripts of processing jobs name their folders below /opt/ml/processing themselves. So a host's
process has a view of the files of its own, in which its folder is /opt/ml (a mount namespace, which
Linux gives to every user). Where there is none, only the paths that the request names are the
host's.

Sources: SageMaker's developer guide, "Build your own processing container"; API reference,
`CreateProcessingJob`.
"""

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from localaws import network
from localaws.execution import Execution
from localaws.hosting.containers import HostingError
from localaws.hosting.model_artifacts import Role, require_image
from localaws.jobs.hosts import CONTAINER, Cluster, Host, HostError
from localaws.jobs.records import ProcessingJob
from localaws.jobs.runs import RUN_SECONDS, SERVICE, Follower, JobError, Jobs, Run, reasons
from localaws.jobs.transfers import Mirror, fetch_channel, put_file

PLACE = f"{CONTAINER}/processing/"
"""Where inputs and outputs are."""

_GROUP = "/aws/sagemaker/ProcessingJobs"
_MESSAGE_BYTES = 1024
# Gets a folder, an empty one, a file of hosts' names and a command: the folder becomes /opt/ml.
# Where that is missing, as on most machines, /opt becomes a new folder with all of the old one.
_VIEW = f"""
set -e
if [ ! -d {CONTAINER} ]; then
  mount -t tmpfs tmpfs "$2"
  for each in /opt/* /opt/.[!.]*; do
    new="$2/${{each##*/}}"
    if [ -L "$each" ]; then cp -P "$each" "$new"
    elif [ -d "$each" ]; then mkdir "$new"; mount --rbind "$each" "$new"
    elif [ -e "$each" ]; then : > "$new"; mount --bind "$each" "$new"
    fi
  done
  mkdir "$2/ml"
  mount --rbind "$2" /opt
fi
mount --rbind "$1" {CONTAINER}
mount --bind "$3" /etc/hosts
shift 3
exec "$@"
"""
_UNSHARED = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", _VIEW, "sh")


class ProcessingHost(Host):
    """A host of a processing job."""

    folders = ("config", "output", "processing")

    def __init__(self, folder: Path, cluster: Cluster, position: int) -> None:
        """See `Host`."""
        super().__init__(folder, cluster, position)
        self._view = folder.with_name(f"{folder.name}.view")
        self.names = cluster.addresses
        if has_views():
            self.names = [f"algo-{number}" for number, _ in enumerate(cluster.addresses, 1)]
            known = "".join(
                f"{address}\t{name}\n"
                for address, name in zip(cluster.addresses, self.names, strict=True)
            )
            (self._view / "opt").mkdir(parents=True)
            (self._view / "hosts").write_text(Path("/etc/hosts").read_text() + known)

    def path(self, text: str) -> str:
        """A text in which a container's paths are those that the process is to use."""
        return text if has_views() else super().path(text)

    def place(self, local_path: str) -> Path:
        """Where this machine has what the container has at a path below /opt/ml/processing."""
        return self.folder / Path(local_path).relative_to(CONTAINER)

    def start(self, config: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        """Start what a job says; the inputs are there.

        Args:
            config: The content of processingjobconfig.json.
            environment: What the process gets beside what the job gives.

        Raises:
            HostError: The job names nothing that can be started without an image.
        """
        program = config["AppSpecification"]
        entry, arguments = program.get("ContainerEntrypoint"), program.get("ContainerArguments")
        if not entry:
            raise HostError(
                "localaws runs no images: name the program by AppSpecification.ContainerEntrypoint"
            )
        resources = {"current_host": self.names[self.position], "hosts": self.names}
        for name, content in (("processingjobconfig", config), ("resourceconfig", resources)):
            (self.folder / f"config/{name}.json").write_text(json.dumps(content))
        command = [self.path(part) for part in (*entry, *(arguments or []))]
        if has_views():
            places = [self.folder, self._view / "opt", self._view / "hosts"]
            command = [*_UNSHARED, *map(str, places), *command]
        elif _may_make(CONTAINER):
            # A script would find the machine's own folders, and its results would be lost there.
            raise HostError(
                f"localaws cannot give the job a {CONTAINER} of its own: this machine allows no"
                " mount namespaces (unshare --user --mount)"
            )
        self.launch(command, environment, config["Environment"])

    @property
    def message(self) -> bytes:
        """What the program left to be told."""
        told = self.folder / "output/message"
        return told.read_bytes() if told.is_file() else b""


@cache
def has_views() -> bool:
    """Whether this machine lets a process have a /opt/ml of its own."""
    with tempfile.TemporaryDirectory(prefix="localaws-") as made, suppress(OSError):
        folder = Path(made)
        (folder / "opt").mkdir()
        (folder / "hosts").touch()
        places = [str(folder / name) for name in (".", "opt", "hosts")]
        tried = subprocess.run([*_UNSHARED, *places, "true"], capture_output=True, check=False)
        return tried.returncode == 0
    return False


def _may_make(path: str) -> bool:
    """Whether this process may write a folder that may not be there."""
    there = next(each for each in (Path(path), *Path(path).parents) if each.exists())
    return os.access(there, os.W_OK)


class ProcessingJobs(Jobs["_Run"]):
    """Runs the processing jobs that were created through SageMaker."""

    def create(self, request: Mapping[str, Any]) -> str:
        """Create a job and start it.

        Args:
            request: The members of `CreateProcessingJob`.

        Returns:
            The job's ARN.

        Raises:
            RoleError: SageMaker cannot act under the job's role.
            ResourceInUseException: There is a job of that name.
        """
        job = ProcessingJob(request)
        self.execution.credentials(job.given["RoleArn"], SERVICE, "SageMaker")
        with self.execution.changing():
            job.keep()
        self.begin(_Run(self.execution, job))
        return job.arn

    def records(self) -> list[ProcessingJob]:
        """The records of all processing jobs."""
        return list(ProcessingJob.all().values())


class _Run(Run[ProcessingJob]):
    """One job while it runs."""

    def __init__(self, execution: Execution, job: ProcessingJob) -> None:
        super().__init__(execution, job, job.given["RoleArn"])
        self._resources: Mapping[str, Any] = job.given["ProcessingResources"]["ClusterConfig"]
        self._inputs = [
            given["S3Input"]
            for given in job.given.get("ProcessingInputs", [])
            if not given.get("AppManaged")
        ]
        config = job.given.get("ProcessingOutputConfig", {})
        self._outputs = [
            given["S3Output"] for given in config.get("Outputs", []) if not given.get("AppManaged")
        ]
        key = config.get("KmsKeyId")
        self._key = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key} if key else {}

    def work(self) -> None:
        network_config = self.job.given.get("NetworkConfig", {})
        cluster = Cluster.of(self._resources)
        hosts: list[ProcessingHost] = []
        interfaces: network.Interfaces | None = None
        shutil.rmtree(self.folder, ignore_errors=True)
        try:
            self.require_keys(self._key.get("SSEKMSKeyId"), self._resources.get("VolumeKmsKeyId"))
            if vpc := network_config.get("VpcConfig"):
                interfaces = self.attach(vpc, len(cluster.instances))
            self._require_image()
            self.await_instances()
            self.change(self.job.begin)
            with reasons("ClientError: Failed to download data. "):
                for number in range(len(cluster.instances)):
                    folder = self.folder / f"algo-{number + 1}"
                    hosts.append(ProcessingHost(folder, cluster, number))
                self._download(hosts)
            ending = self.ending(0.0)
            if ending is None:
                is_isolated = network_config.get("EnableNetworkIsolation", False)
                # An isolated container reaches nothing, so that it gets no credentials either.
                ending = self._process(hosts, {} if is_isolated else self.credentials())
            if ending is None:
                with reasons("ClientError: Failed to upload output. "):
                    self._upload(hosts)
        finally:
            for host in hosts:
                host.stop()
            if interfaces:
                interfaces.remove()
        self.end("Stopped" if ending else "Completed")

    def _require_image(self) -> None:
        try:
            role = Role(self.execution, self.role_arn)
            require_image(self.job.given["AppSpecification"]["ImageUri"], role)
        except HostingError as error:
            raise JobError(f"ClientError: {error}") from error

    def _download(self, hosts: Sequence[ProcessingHost]) -> None:
        s3 = self.client("s3")
        for host in hosts:
            for source in self._inputs:
                self.leave_if_asked()
                folder = host.place(source["LocalPath"])
                folder.mkdir(parents=True, exist_ok=True)
                fetch_channel(s3, source, folder, host.position, len(hosts))
            for output in self._outputs:
                host.place(output["LocalPath"]).mkdir(parents=True, exist_ok=True)

    def _process(
        self, hosts: Sequence[ProcessingHost], credentials: Mapping[str, str]
    ) -> str | None:
        """Start the hosts and wait for them; tell how they end if they were made to."""
        environment = self.execution.environment(credentials)
        mirrors = [
            Mirror(host.place(output["LocalPath"]), output["S3Uri"], self._key)
            for host in hosts
            for output in self._outputs
            if output["S3UploadMode"] == "Continuous"
        ]
        follower = Follower(
            self, _GROUP, hosts, {"ClientError: Failed to upload output. ": mirrors}
        )
        config = self._config()
        try:
            with reasons("AlgorithmError: "):
                for host in hosts:
                    host.start(config, environment)
            ending = self.wait(hosts, follower, time.monotonic())
            has_failed = any(host.exit_code for host in hosts)
        finally:
            for host in hosts:
                host.kill()
            follower.observe(final=True)
        self.leave_if_asked()
        self._tell(hosts)
        if ending is None and has_failed:
            raise JobError("AlgorithmError: See job logs for more information")
        return ending

    def _tell(self, hosts: Sequence[ProcessingHost]) -> None:
        """Keep what the hosts left to be told."""
        try:
            told = "".join(host.message.decode() for host in hosts)
        except UnicodeDecodeError as error:
            raise JobError(
                "ClientError: The exit message in /opt/ml/output/message is not UTF-8 encoded"
            ) from error
        with self.execution.changing():
            # A character that is cut in two is left out.
            self.job.exit_message = told.encode()[:_MESSAGE_BYTES].decode(errors="ignore") or None

    def _config(self) -> dict[str, Any]:
        """The content of processingjobconfig.json."""
        given = self.job.given
        absent: dict[str, Any] = {"ContainerEntrypoint": None, "ContainerArguments": None}
        described = self.job.describe()
        return {
            "ProcessingJobArn": self.job.arn,
            "ProcessingJobName": self.name,
            "AppSpecification": {**absent, **given["AppSpecification"]},
            "Environment": given.get("Environment", {}),
            "ProcessingInputs": [
                {
                    **each,
                    "S3Input": {
                        "S3DataDistributionType": "FullyReplicated",
                        "S3InputMode": "File",
                        "S3CompressionType": "None",
                        "S3DownloadMode": "StartOfJob",
                        **each["S3Input"],
                    },
                }
                for each in given.get("ProcessingInputs", [])
            ],
            "ProcessingOutputConfig": {
                "Outputs": [],
                "KmsKeyId": None,
                **given.get("ProcessingOutputConfig", {}),
            },
            "ProcessingResources": {
                "ClusterConfig": {"InstanceCount": 1, "VolumeKmsKeyId": None, **self._resources}
            },
            "RoleArn": self.role_arn,
            "StoppingCondition": described["StoppingCondition"],
        }

    def ending(self, seconds: float) -> str | None:
        """See `Run`; what runs too long is stopped."""
        limits = self.job.given.get("StoppingCondition", {})
        if seconds >= limits.get("MaxRuntimeInSeconds", RUN_SECONDS):
            return "MaxRuntimeExceeded"
        return super().ending(seconds)

    def _upload(self, hosts: Sequence[ProcessingHost]) -> None:
        s3 = self.client("s3")
        for output in self._outputs:
            uri = output["S3Uri"].rstrip("/")
            for host in hosts if output["S3UploadMode"] == "EndOfJob" else ():
                folder = host.place(output["LocalPath"])
                # Links are not followed, says the guide.
                for path in sorted(folder.rglob("*")):
                    if path.is_file() and not path.is_symlink():
                        put_file(s3, path, f"{uri}/{path.relative_to(folder)}", self._key)
