"""Runs EC2 instances: their user data, as a process, and the units that it asks systemd for.

An instance ends in systemd's order. Units of its own are asked to end first, while there is a
network. The user data's script is asked when the network is gone: on AWS it belongs to
cloud-final.service, which has KillMode=process (canonical/cloud-init issue 5275). Here the network
is gone when AWS takes no more calls under the instance's role.
"""

import os
import shlex
import shutil
import signal
import threading
import time
import traceback
from base64 import b64decode
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moto.ec2.models import EC2Backend, ec2_backends
from moto.ec2.models.instances import Instance, InstanceState, StateReason
from moto.sts.models import sts_backends

from localaws import changes, pythons, regions
from localaws.execution import ACCOUNT, Execution, RoleError, Service
from localaws.metadata import Metadata
from localaws.processes import ManagedProcess

STOP_SECONDS = 120.0
"""What a script gets between SIGTERM and SIGKILL as its instance ends."""

CONSOLE_BYTES = 64 * 1024
"""How much of its console's end EC2 keeps."""

_BOOT_SECONDS = 5.0
# What AWS gives a spot instance between its notice and its end.
_NOTICE_SECONDS = 120.0
# systemd's default, DefaultTimeoutStopSec.
_UNIT_SECONDS = 90
_POLL_SECONDS = 0.1
_PENDING = (0, "pending")
_RUNNING = (16, "running")
_SHUTTING_DOWN = (32, "shutting-down")
_STOPPING = (64, "stopping")
_FINAL = ("terminated", "stopped")

# First on the script's path. Leaves the moment at which the instance is to end in a file, which
# the instance's thread looks at.
_SHUTDOWN = """#!/bin/bash
# shutdown [-h|-P|-H] now|+MINUTES, shutdown -c
set -euo pipefail
file={file}
when=+1
for word; do
  case $word in
    -c) rm -f "$file"; exit ;;
    -r) echo 'error: instances here cannot reboot; use shutdown -h' >&2; exit 1 ;;
    -*) ;;
    *) when=$word; break ;;
  esac
done
[[ $when == now ]] && when=+0
if ! [[ $when =~ ^\\+?[0-9]+$ ]]; then
  echo "error: shutdown at $when: give now or +MINUTES" >&2
  exit 1
fi
echo $(($(date +%s) + 60 * ${{when#+}})) > "$file.next"
mv "$file.next" "$file"
"""
# Beside it. Leaves a unit's words in a file, which the instance's thread starts.
_SYSTEMD_RUN = """#!/bin/bash
# systemd-run [--unit=NAME] [--property=NAME=VALUE] [--setenv=NAME=VALUE] ... COMMAND ...
set -euo pipefail
for word; do
  case $word in
    --unit=* | --property=* | --setenv=* | --no-block | --collect | --description=*) ;;
    -*) echo "error: systemd-run here does not know $word" >&2; exit 1 ;;
    *) break ;;
  esac
done
file=$(mktemp {folder}/.XXXXXXXX)
printf '%s\\0' "$@" > "$file"
mv "$file" {folder}/"${{file##*/.}}"
"""


@dataclass(frozen=True)
class _End:
    """How an instance ends.

    Attributes:
        terminates: Whether it is terminated; stopped otherwise.
        reason: Code and message, as EC2 words them.
    """

    terminates: bool
    reason: StateReason


_SPOT = "Server.SpotInstanceTermination", "Spot instance termination"
_USER = "Client.UserInitiatedShutdown", "User initiated shutdown"
_ITSELF = "Client.InstanceInitiatedShutdown", "Instance initiated shutdown"
_FAILED = "Server.InternalError", "Internal error on launch; see localaws' log"
_LOST = "Server.InternalError", "localaws ended while the instance was running"


def _end(terminates: bool, code: str, message: str) -> _End:
    return _End(terminates, StateReason(f"{code}: {message}", code))


class Instances(Service):
    """Runs the instances that were launched through EC2."""

    def __init__(self, execution: Execution) -> None:
        """Make the service; nothing runs yet."""
        super().__init__(execution)
        self._machines: dict[str, _Machine] = {}
        self._metadata = Metadata(self._taken_at)

    def launch(self, instance: Instance) -> None:
        """Run an instance that EC2 has just made: its user data, once."""
        _set(instance, *_PENDING)
        self._machines[instance.id] = _Machine(
            self.execution, instance, self._metadata.address(instance.id)
        )

    def end(self, instance: Instance, *, terminates: bool) -> bool:
        """Begin to end an instance at its user's wish; false if it does not run here."""
        machine = self._machines.get(instance.id)
        return machine is not None and machine.end(_end(terminates, *_USER))

    def interrupt(self, name: str) -> bool:
        """Take a spot instance away, two minutes after it is told; false if there is none."""
        machine = self._machines.get(name)
        return machine is not None and machine.interrupt()

    def _taken_at(self, name: str) -> float | None:
        machine = self._machines.get(name)
        return machine.taken_at if machine else None

    def console(self, instance: Instance) -> bytes:
        """The end of what an instance has printed so far."""
        machine = self._machines.get(instance.id)
        kept: bytes = getattr(instance, "console", b"")
        return machine.console() if machine else kept

    def resume(self) -> None:
        """Terminate what was running: its script cannot go on."""
        lost = _end(True, *_LOST)
        with self.execution.changing():
            for instance in _all_instances():
                if instance.state not in _FINAL:
                    _finish(instance, lost)

    def stop(self) -> None:
        """Kill all scripts."""
        self._metadata.stop()
        for machine in list(self._machines.values()):
            machine.kill()


def _all_instances() -> list[Instance]:
    return list(ec2_backends[ACCOUNT][regions.current()].all_instances())


class _Machine:
    """One instance: a folder, a process and a thread that looks after it.

    It is started once: what was stopped and is started again runs nothing, as cloud-init does.
    """

    def __init__(self, execution: Execution, instance: Instance, metadata: str) -> None:
        self._metadata = metadata
        self.taken_at: float | None = None
        """When AWS takes it away, by the clock; None unless it does."""
        self._units: list[_Unit] = []
        self._access_key = ""
        self._variables: dict[str, str] = {}
        self._execution = execution
        self._instance = instance
        self._folder = execution.folder / "instances" / instance.id
        self._log = self._folder / "console.log"
        self._wish: _End | None = None
        self._wished = threading.Event()
        self._killed = threading.Event()
        self._lock = threading.Lock()
        self._has_ended = False
        self._process: ManagedProcess | None = None
        regions.Thread(target=self._run, daemon=True).start()

    def console(self) -> bytes:
        with suppress(FileNotFoundError), self._log.open("rb") as log:
            log.seek(max(0, self._log.stat().st_size - CONSOLE_BYTES))
            return log.read()
        kept: bytes = getattr(self._instance, "console", b"")
        return kept

    def end(self, wish: _End) -> bool:
        """Wish it to end; false if it has. Called within a request."""
        with self._lock:
            if self._has_ended:
                return False
            # A stop that has begun goes on as a termination.
            self._wish = wish
            _set(self._instance, *(_SHUTTING_DOWN if wish.terminates else _STOPPING))
        self._wished.set()
        return True

    def interrupt(self) -> bool:
        """Tell it that AWS takes it away; false if it is no spot instance, or ends."""
        is_spot = self._instance.lifecycle == "spot"
        with self._lock:
            if self._wish or self._has_ended or self.taken_at or not is_spot:
                return False
            self.taken_at = time.time() + self._execution.seconds(_NOTICE_SECONDS)
        return True

    def kill(self) -> None:
        with self._lock:
            self._killed.set()
        self._wished.set()
        for unit in self._units:
            unit.process.kill()
        if self._process:
            self._process.kill()

    def _run(self) -> None:
        if not self._wished.wait(self._execution.seconds(_BOOT_SECONDS)):
            try:
                self._start()
            # Whatever it is, nobody waits for the instance for ever.
            except Exception:
                traceback.print_exc()
                with self._execution.changing():
                    self.end(_end(True, *_FAILED))
        while not self._wished.wait(_POLL_SECONDS):
            self._start_units()
            if self.taken_at and time.time() >= self.taken_at:
                with self._execution.changing():
                    self.end(_end(True, *_SPOT))
            elif self._shuts_itself_down():
                behaviour = self._instance.instance_initiated_shutdown_behavior
                with self._execution.changing():
                    self.end(_end(behaviour == "terminate", *_ITSELF))
        _stop_units(self._units)
        if self._process:
            self._lose_network()
            self._process.stop(STOP_SECONDS)
        if self._killed.is_set():
            return
        with self._execution.changing():
            with self._lock:
                self._has_ended = True
                wish = self._wish
            record: Any = self._instance
            record.console = self.console()
            if wish:
                _finish(self._instance, wish)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self) -> None:
        for name in ("bin", "home", "tmp", "units", "work"):
            (self._folder / name).mkdir(parents=True)
        self._variables = self._environment()
        with self._execution.changing(), self._lock:
            if self._wish:
                return
            _set(self._instance, *_RUNNING)
        script = b64decode(str(self._instance.user_data or ""))
        if not script:
            return
        if not script.startswith(b"#!"):
            self._print("error: user data is run only if it is a script, with #! first")
            return
        path = self._folder / "user_data"
        path.write_bytes(script)
        # By its interpreter: a file that was just written may still be open in a process that
        # another thread is starting, and such a file cannot be executed.
        interpreter = script.splitlines()[0].removeprefix(b"#!").decode(errors="replace").split()
        with self._lock:
            if self._killed.is_set():
                return
            try:
                self._process = ManagedProcess(
                    [*interpreter, str(path)], self._log, self._variables, self._folder
                )
            except OSError as error:
                self._print(f"error: user data cannot be run: {error}")

    def _start_units(self) -> None:
        """Start what the user data asked systemd for."""
        for file in sorted((self._folder / "units").glob("[!.]*")):
            words = file.read_text().split("\0")[:-1]
            file.unlink()
            with self._lock:
                if self._killed.is_set() or self._wish:
                    return
                try:
                    self._units.append(_Unit.start(words, self._log, self._variables, self._folder))
                except OSError as error:
                    self._print(f"error: the unit cannot be started: {error}")

    def _lose_network(self) -> None:
        """Let AWS refuse what is called under its role from now on."""
        sessions = sts_backends[ACCOUNT]["aws"].assumed_roles
        with self._execution.changing():
            for session in list(sessions):
                if session.access_key_id == self._access_key:
                    sessions.remove(session)

    def _print(self, line: str) -> None:
        with self._log.open("a") as log:
            print(line, file=log)

    def _environment(self) -> dict[str, str]:
        shutdown = self._folder / "bin" / "shutdown"
        shutdown.write_text(_SHUTDOWN.format(file=shlex.quote(str(self._shutdown_file))))
        shutdown.chmod(0o700)
        systemd_run = shutdown.with_name("systemd-run")
        folder = shlex.quote(str(self._folder / "units"))
        systemd_run.write_text(_SYSTEMD_RUN.format(folder=folder))
        systemd_run.chmod(0o700)
        credentials = self._credentials()
        self._access_key = credentials.get("AWS_ACCESS_KEY_ID", "")
        python = self._folder / "python"
        pythons.lay_over(python)
        environment = pythons.inside(python, self._execution.environment(credentials))
        return {
            **environment,
            "PATH": f"{shutdown.parent}:{environment['PATH']}",
            # Where the trainer's script works instead of a place that only root can write to.
            "KENNEL_WORK": str(self._folder / "work"),
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": self._metadata,
            "HOME": str(self._folder / "home"),
            "TMPDIR": str(self._folder / "tmp"),
        }

    def _credentials(self) -> dict[str, str]:
        """Those of the role in its profile; without a profile, or a good one, it has none."""
        associations = self._instance.ec2_backend.iam_instance_profile_associations
        association = associations.get(self._instance.id)
        try:
            if association is not None:
                (role,) = association.iam_instance_profile.roles
                return self._execution.credentials(role.arn, "ec2.amazonaws.com", self._instance.id)
        except ValueError:
            self._print("warning: no credentials: there is no role in the instance profile")
        except RoleError as error:
            self._print(f"warning: no credentials: {error}")
        return {}

    @property
    def _shutdown_file(self) -> Path:
        return self._folder / "shutdown"

    def _shuts_itself_down(self) -> bool:
        try:
            return time.time() >= int(self._shutdown_file.read_text())
        except FileNotFoundError:
            return False


@dataclass(frozen=True)
class _Unit:
    """A transient unit of systemd's.

    Attributes:
        process: Its main process.
        seconds: How long it has to end, TimeoutStopSec.
        tells_all: Whether all of its processes are told to end, and not the main one alone.
    """

    process: ManagedProcess
    seconds: float
    tells_all: bool

    @classmethod
    def start(
        cls, words: list[str], log: Path, environment: Mapping[str, str], folder: Path
    ) -> "_Unit":
        """Start what `systemd-run` was told.

        Raises:
            OSError: There is no such program.
        """
        given: dict[str, str] = {}
        properties = {"KillMode": "control-group", "TimeoutStopSec": str(_UNIT_SECONDS)}
        while words and words[0].startswith("-"):
            name, _, value = words[0].partition("=")
            if name in ("--setenv", "--property"):
                key, _, text = value.partition("=")
                (given if name == "--setenv" else properties)[key] = text
            words = words[1:]
        process = ManagedProcess(words, log, {**environment, **given}, folder)
        seconds = min(float(properties["TimeoutStopSec"]), STOP_SECONDS)
        return cls(process, seconds, properties["KillMode"] == "control-group")

    def tell(self) -> None:
        """Send SIGTERM."""
        with suppress(ProcessLookupError):
            if self.process.exit_code is None:
                if self.tells_all:
                    # Who waits for the group's end ignores it.
                    os.killpg(os.getpgid(self.process.pid), signal.SIGTERM)
                else:
                    os.kill(self.process.pid, signal.SIGTERM)


def _stop_units(units: list[_Unit]) -> None:
    """End all at a time, each in its own."""
    for unit in units:
        unit.tell()
    started = time.monotonic()
    for unit in units:
        while unit.process.exit_code is None and time.monotonic() - started < unit.seconds:
            time.sleep(_POLL_SECONDS)
        unit.process.kill()


def _set(instance: Instance, code: int, name: str) -> None:
    instance._state = InstanceState(name, code)
    changes.touch(EC2Backend)


def _finish(instance: Instance, end: _End) -> None:
    """Let moto do what belongs to the end of an instance that runs no more, and say why it did."""
    changes.touch(EC2Backend)
    if end.terminates:
        instance.terminate()
    else:
        instance.stop()
    instance.state_reason = end.reason
