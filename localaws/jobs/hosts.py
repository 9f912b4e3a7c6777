"""The hosts of a job: each a folder laid out as a container's /opt/ml, and a process."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from localaws import pythons
from localaws.errors import LocalAwsError
from localaws.jobs import script_mode
from localaws.loopback import LOOPBACK
from localaws.processes import ManagedProcess, Running

CONTAINER = "/opt/ml"
"""Where a container has what a host's folder holds."""

_IN_CONTAINER = re.compile(rf"{CONTAINER}(?![\w-])")
_DRIVERS = "sm_drivers"
_ENVIRONMENT = "python"
_INTERFACE = "lo"
# Found while there is room: Python looks for it by writing files.
_TEMPORARY = tempfile.gettempdir()


class HostError(LocalAwsError):
    """A host cannot start."""


@dataclass(frozen=True)
class Cluster:
    """The hosts of a job.

    Attributes:
        instances: Group and instance type of each.
        port: Where the first one lets torchrun's processes meet.
    """

    instances: tuple[tuple[str, str], ...]
    port: int

    @classmethod
    def of(cls, resources: Mapping[str, Any]) -> "Cluster":
        """The hosts that a `ResourceConfig` asks for."""
        groups = resources.get("InstanceGroups") or [
            {
                "InstanceGroupName": "homogeneousCluster",
                "InstanceType": resources.get("InstanceType", "ml.m5.large"),
                "InstanceCount": resources.get("InstanceCount", 1),
            }
        ]
        instances = tuple(
            (group["InstanceGroupName"], group["InstanceType"])
            for group in groups
            for _ in range(group["InstanceCount"])
        )
        # Jobs that run at once share what are machines of their own on AWS.
        with socket.create_server((LOOPBACK, 0)) as free:
            return cls(instances, free.getsockname()[1])

    @property
    def addresses(self) -> list[str]:
        """The hosts' names: AWS's own, algo-1 and so on, lead nowhere here."""
        return [f"127.0.0.{number}" for number, _ in enumerate(self.instances, 1)]

    def resource_config(self, host: int) -> dict[str, Any]:
        """The content of resourceconfig.json."""
        hosts = self.addresses
        group, kind = self.instances[host]
        members: dict[tuple[str, str], list[str]] = {}
        for instance, address in zip(self.instances, hosts, strict=True):
            members.setdefault(instance, []).append(address)
        return {
            "current_host": hosts[host],
            "current_instance_type": kind,
            "current_group_name": group,
            "hosts": hosts,
            "instance_groups": [
                {"instance_group_name": name, "instance_type": instance_type, "hosts": addresses}
                for (name, instance_type), addresses in members.items()
            ],
            "network_interface_name": _INTERFACE,
        }


class Host(Running):
    """One host; its process is what is a container's main process on AWS."""

    folders: ClassVar[Sequence[str]]
    """What a container of the kind finds in its /opt/ml."""

    def __init__(self, folder: Path, cluster: Cluster, position: int) -> None:
        """Lay out the folder; nothing runs yet.

        Args:
            folder: For the host; made.
            cluster: All hosts.
            position: Which of them this one is, from 0.
        """
        for name in self.folders:
            (folder / name).mkdir(parents=True)
        self.address = cluster.addresses[position]
        self.folder = folder
        self.cluster = cluster
        self.position = position
        self._process: ManagedProcess | None = None
        self._log = folder / "log"
        self._read = 0
        # What an image has, and what the job installs: each host's own, as a container's.
        pythons.lay_over(folder / _ENVIRONMENT)
        # A short path, for sockets lie there: a container's /tmp, which ends with it.
        self._temporary = Path(tempfile.mkdtemp(prefix="localaws-", dir=_TEMPORARY))
        self._ml = folder
        if _is_odd(folder):
            # SageMaker's scripts do not quote their paths, nor those of programs that they find.
            self._ml = self._temporary / "ml"
            self._ml.symlink_to(folder, target_is_directory=True)

    def path(self, text: str) -> str:
        """A text in which a container's paths are this host's."""
        return _IN_CONTAINER.sub(str(self._ml), text)

    def launch(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        given: Mapping[str, str],
    ) -> None:
        """Start the process.

        Args:
            command: Program and arguments; the paths in them are this machine's.
            environment: What the process gets, in the host's own Python environment.
            given: What the request gives; a container's paths in it become this host's.

        Raises:
            HostError: It cannot be started.
        """
        try:
            self._process = ManagedProcess(
                command,
                self._log,
                {
                    **pythons.inside(Path(self.path(CONTAINER)) / _ENVIRONMENT, environment),
                    "PYTHONUNBUFFERED": "1",
                    "TMPDIR": str(self._temporary),
                    **{name: self.path(value) for name, value in given.items()},
                },
                self.folder,
            )
        except OSError as error:
            raise HostError(f"CannotStartContainerError. {error}") from error

    @property
    def exit_code(self) -> int | None:
        """Exit status as a container's (137: SIGKILL), or None while the process runs."""
        code = self._process.exit_code if self._process else None
        return 128 - code if code and code < 0 else code

    def terminate(self) -> bool:
        """Send SIGTERM as to a container; false if nobody hears it.

        The first process of a container gets a signal only if it handles it, and its children get
        none (Linux, pid_namespaces(7)): bash and Python do not, `exec torchrun` does.
        """
        if not self._process or self.exit_code is not None:
            return False
        heard = _handles(self._process.pid, signal.SIGTERM)
        if heard:
            os.kill(self._process.pid, signal.SIGTERM)
        return heard

    def kill(self) -> None:
        """End the process and all that it started, at once."""
        if self._process:
            self._process.kill()

    def stop(self) -> None:
        """The same; the folder is left to whoever gave it, and temporary files are removed."""
        self.kill()
        shutil.rmtree(self._temporary, ignore_errors=True)

    def lines(self, *, final: bool) -> Iterator[str]:
        """What the process has written since the last call: whole lines, and the rest if final."""
        if not self._log.exists():
            return
        with self._log.open("rb") as log:
            log.seek(self._read)
            for line in log:
                if not (line.endswith(b"\n") or final):
                    break
                self._read += len(line)
                yield line.decode(errors="replace").rstrip("\r\n")


class TrainingHost(Host):
    """A host of a training job."""

    folders = ("input/config", "input/data", "model", "output/data", "checkpoints", "code")

    @property
    def failure(self) -> str:
        """What the program says of its failure."""
        told = self.folder / "output/failure"
        return told.read_text(errors="replace") if told.is_file() else ""

    def channel(self, name: str) -> Path:
        """The folder of a channel."""
        return self.folder / "input/data" / name

    def start(self, request: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        """Start what the request says; the channels are there.

        Args:
            request: The members of `CreateTrainingJob`.
            environment: What the process gets beside what the request gives.

        Raises:
            HostError: The request names nothing that can be started without an image.
        """
        given = {name: self.path(v) for name, v in request.get("HyperParameters", {}).items()}
        channels = {
            channel["ChannelName"]: {
                "TrainingInputMode": channel.get("InputMode", "File"),
                "S3DistributionType": channel["DataSource"]["S3DataSource"].get(
                    "S3DataDistributionType", "FullyReplicated"
                ),
                "RecordWrapperType": channel.get("RecordWrapperType", "None"),
                **({"ContentType": channel["ContentType"]} if "ContentType" in channel else {}),
            }
            for channel in request.get("InputDataConfig", [])
        }
        for name, content in (
            ("hyperparameters", given),
            ("inputdataconfig", channels),
            ("resourceconfig", self.cluster.resource_config(self.position)),
        ):
            (self.folder / f"input/config/{name}.json").write_text(json.dumps(content))
        self._move_drivers()
        self.launch(
            self._command(request, given),
            {
                **environment,
                "GLOO_SOCKET_IFNAME": _INTERFACE,
                "NCCL_SOCKET_IFNAME": _INTERFACE,
                # torchrun's own way to be given a flag.
                "PET_MASTER_PORT": str(self.cluster.port),
                # The training toolkit's name for where /opt/ml is.
                "SAGEMAKER_BASE_DIR": self.path(CONTAINER),
            },
            request.get("Environment", {}),
        )

    def _command(self, request: Mapping[str, Any], given: Mapping[str, str]) -> list[str]:
        algorithm = request["AlgorithmSpecification"]
        if entry := algorithm.get("ContainerEntrypoint"):
            arguments = algorithm.get("ContainerArguments", [])
            return [self.path(part) for part in (*entry, *arguments)]
        if "sagemaker_program" in given:
            # The first process of AWS's images is a shell, which starts the training toolkit.
            toolkit = [sys.executable, script_mode.__file__, self.path(CONTAINER)]
            return ["bash", "-c", '"$0" "$@"; exit $?', *toolkit]
        raise HostError(
            "localaws runs no images: name the program by ContainerEntrypoint or by the"
            " hyperparameter sagemaker_program"
        )

    def _move_drivers(self) -> None:
        """Let the scripts of SageMaker's SDK find this host in the place of a container."""
        for path in self.channel(_DRIVERS).rglob("*"):
            if path.suffix in (".json", ".py", ".sh"):
                text = self.path(path.read_text())
                text = text.replace('"algo-1"', f'"{self.cluster.addresses[0]}"')
                text = text.replace(
                    f"SM_MASTER_PORT = {script_mode.MASTER_PORT}",
                    f"SM_MASTER_PORT = {self.cluster.port}",
                )
                path.write_text(text)


def _is_odd(path: Path) -> bool:
    """Whether a shell would read a path as something else."""
    return shlex.quote(str(path)) != str(path)


def _handles(process: int, number: signal.Signals) -> bool:
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return True  # No Linux: nothing tells, and most programs want to hear it.
    caught = re.search(r"^SigCgt:\s*(\w+)$", status, re.MULTILINE)
    return bool(caught and int(caught[1], 16) >> (number - 1) & 1)
