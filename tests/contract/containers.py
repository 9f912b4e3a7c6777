"""The image that was built, run as SageMaker runs it, by whatever can run containers here.

buildah builds images and runs none: there, Linux's own parts of a container are put together, with
what the image says of its user, its command and its environment.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from localaws.processes import ManagedProcess
from tests.contract.parts import exit_code, running

_MODEL = "/opt/ml/model"
_NAME = f"kennel-contract-{os.getpid()}"

# In namespaces of its own: the image's files and the model, which cannot be written, a /tmp and a
# network that leads nowhere; then the image's command by the image's user.
_START = f"""
import fcntl, json, os, socket, struct, subprocess, sys
root, model, image = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
place = root + {_MODEL!r}
os.makedirs(place, exist_ok=True)
for mount in (
    ["--make-rprivate", "/"],
    ["--bind", root, root],
    ["-o", "remount,bind,ro", root],
    ["--bind", model, place],
    ["-o", "remount,bind,ro", place],
    ["-t", "tmpfs", "tmp", root + "/tmp"],
    ["-t", "proc", "proc", root + "/proc"],
):
    subprocess.run(["mount", *mount], check=True)
with socket.socket() as any_socket:  # SIOCSIFFLAGS with IFF_UP | IFF_RUNNING
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 0x41))
os.chroot(root)
os.chdir(image["WorkingDir"])
user, _, group = image["User"].partition(":")
os.setgroups([])
os.setgid(int(group))
os.setuid(int(user))
command = [*image["Entrypoint"], "serve"]
os.execvpe(command[0], command, dict(each.split("=", 1) for each in image["Env"]))
"""


@dataclass(frozen=True)
class Container:
    """A container that runs.

    Attributes:
        process: What stands for it outside.
        inside: Command in front of one that is to run in it, by its user.
        terminate: Sends its first process SIGTERM, and SIGKILL later than SageMaker does.
    """

    process: ManagedProcess
    inside: Sequence[str]
    terminate: Callable[[], object]

    def python(self, program: str, given: str = "") -> Any:
        """Run a program in it; give the JSON that it prints, None where it fails."""
        command = [*self.inside, "python", "-c", program]
        ended = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
        return json.loads(ended.stdout) if ended.returncode == 0 else None

    def end(self) -> int:
        """Ask it to end; give its exit status."""
        self.terminate()
        return exit_code(self.process)


@contextmanager
def started(
    engine: str, image: str, config: Mapping[str, Any], model: Path, log: Path
) -> Iterator[Container]:
    """Run an image with a model.

    Args:
        engine: The program that built it.
        image: The image's address.
        config: What it says of how it is run.
        model: Folder with the model.
        log: File for the container's output.
    """
    start = _chroot if engine == "buildah" else _run
    with start(engine, image, config, model, log) as container:
        yield container


@contextmanager
def _run(
    engine: str, image: str, _: Mapping[str, Any], model: Path, log: Path
) -> Iterator[Container]:
    command = [engine, "run", "--rm", "--name", _NAME, "--network", "none", "--read-only"]
    command += ["--tmpfs", "/tmp", "--volume", f"{model}:{_MODEL}:ro", image, "serve"]
    with running(command, log, os.environ, log.parent) as process:
        yield Container(
            process,
            inside=[engine, "exec", "--interactive", _NAME],
            terminate=lambda: subprocess.run([engine, "stop", "-t", "60", _NAME], check=True),
        )


@contextmanager
def _chroot(
    engine: str, image: str, config: Mapping[str, Any], model: Path, log: Path
) -> Iterator[Container]:
    def said(*command: str) -> str:
        told = subprocess.run([engine, *command], capture_output=True, text=True, check=True)
        return told.stdout.strip()

    name = said("from", image)
    root = said("mount", name)
    command = ["unshare", "--mount", "--net", "--ipc", "--uts", "--pid", "--fork", "--kill-child"]
    command += [sys.executable, "-I", "-c", _START, root, str(model), json.dumps(config)]
    user, _, group = config["User"].partition(":")
    try:
        with running(command, log, os.environ, log.parent) as process:
            first = _child(process)
            yield Container(
                process,
                inside=[
                    *("nsenter", "--target", str(first.pid), "--all", "--root", "--wd"),
                    *("--setuid", user, "--setgid", group, "env", "-i", *config["Env"]),
                ],
                terminate=first.terminate,
            )
    finally:
        said("umount", name)
        said("rm", name)


def _child(process: ManagedProcess) -> psutil.Process:
    """The one process that another starts."""
    while process.exit_code is None:
        if children := psutil.Process(process.pid).children():
            return children[0]
        time.sleep(0.05)
    raise AssertionError("no container was started")
