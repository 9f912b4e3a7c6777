"""Runs EC2 instances: their user data, as a process."""

import shlex
import shutil
import threading
import time
import traceback
from base64 import b64decode
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moto.ec2.models import EC2Backend, ec2_backends
from moto.ec2.models.instances import Instance, InstanceState, StateReason

from localaws import changes, regions
from localaws.execution import ACCOUNT, Execution, RoleError, Service
from localaws.processes import ManagedProcess

STOP_SECONDS = 120.0
"""What a script gets between SIGTERM and SIGKILL as its instance ends."""

CONSOLE_BYTES = 64 * 1024
"""How much of its console's end EC2 keeps."""

_BOOT_SECONDS = 5.0
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


@dataclass(frozen=True)
class _End:
    """How an instance ends.

    Attributes:
        terminates: Whether it is terminated; stopped otherwise.
        reason: Code and message, as EC2 words them.
    """

    terminates: bool
    reason: StateReason


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

    def launch(self, instance: Instance) -> None:
        """Run an instance that EC2 has just made: its user data, once."""
        _set(instance, *_PENDING)
        self._machines[instance.id] = _Machine(self.execution, instance)
        self.execution.save_soon()

    def end(self, instance: Instance, *, terminates: bool) -> bool:
        """Begin to end an instance at its user's wish; false if it does not run here."""
        machine = self._machines.get(instance.id)
        return machine is not None and machine.end(_end(terminates, *_USER))

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
        self.execution.save_soon()

    def stop(self) -> None:
        """Kill all scripts."""
        for machine in list(self._machines.values()):
            machine.kill()


def _all_instances() -> list[Instance]:
    return list(ec2_backends[ACCOUNT][regions.current()].all_instances())


class _Machine:
    """One instance: a folder, a process and a thread that looks after it.

    It is started once: what was stopped and is started again runs nothing, as cloud-init does.
    """

    def __init__(self, execution: Execution, instance: Instance) -> None:
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

    def kill(self) -> None:
        with self._lock:
            self._killed.set()
        self._wished.set()
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
            if self._shuts_itself_down():
                behaviour = self._instance.instance_initiated_shutdown_behavior
                with self._execution.changing():
                    self.end(_end(behaviour == "terminate", *_ITSELF))
        if self._process:
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
        self._execution.save_soon()

    def _start(self) -> None:
        for name in ("bin", "home", "tmp", "work"):
            (self._folder / name).mkdir(parents=True)
        environment = self._environment()
        with self._execution.changing(), self._lock:
            if self._wish:
                return
            _set(self._instance, *_RUNNING)
        self._execution.save_soon()
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
                    [*interpreter, str(path)], self._log, environment, self._folder
                )
            except OSError as error:
                self._print(f"error: user data cannot be run: {error}")

    def _print(self, line: str) -> None:
        with self._log.open("a") as log:
            print(line, file=log)

    def _environment(self) -> dict[str, str]:
        shutdown = self._folder / "bin" / "shutdown"
        shutdown.write_text(_SHUTDOWN.format(file=shlex.quote(str(self._shutdown_file))))
        shutdown.chmod(0o700)
        environment = self._execution.environment(self._credentials())
        return {
            **environment,
            "PATH": f"{shutdown.parent}:{environment['PATH']}",
            # Where the trainer's script works instead of a place that only root can write to.
            "KENNEL_WORK": str(self._folder / "work"),
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
