"""The main process of a SageMaker training container: `python -m trainer.entry`.

It starts what the SageMaker SDK's torchrun driver would start, and does two things more. It passes
SIGTERM on, so that a run which is stopped, or loses its spot machine, saves its state: the SDK's
own processes are a shell, which as a container's first process hears no signal, and a driver that
passes none on. And it says why a run failed, where SageMaker reads the job's failure reason.
"""

import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import IO, Any

_REASON_CHARACTERS = 1024  # SageMaker cuts the rest


def main() -> int:
    """Run the job on this host; gives its exit status."""
    return run(_torchrun_command(), Path(os.environ["SM_OUTPUT_DIR"]) / "failure")


def run(command: list[str], failure: Path) -> int:
    """Run a command, pass its output and SIGTERM on, and write the reason if it fails.

    Args:
        command: Program and arguments.
        failure: Where SageMaker looks for the reason.
    """
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def pass_on(signal_number: int, frame: FrameType | None) -> None:
        process.send_signal(signal_number)

    signal.signal(signal.SIGTERM, pass_on)
    assert process.stdout is not None  # noqa: S101 (tells the type)
    said = _pass_output_on(process.stdout)
    status = process.wait()
    if status:
        failure.write_text(said or f"{command[0]} ended with exit status {status}")
    # A status below 0 is a signal's.
    return status if status >= 0 else 128 - status


def _pass_output_on(output: IO[bytes]) -> str:
    """Copy all lines; give the last one that says what went wrong."""
    last = error = ""
    for line in output:
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
        text = line.decode(errors="replace").strip()
        last = text or last
        if text.startswith("error: "):
            error = text.removeprefix("error: ")
    return (error or last)[:_REASON_CHARACTERS]


def _torchrun_command() -> list[str]:
    """What `Torchrun` of the SDK would run, by its own driver, which lies in the container."""
    sys.path.insert(0, os.environ["SM_DISTRIBUTED_DRIVER_DIR"])
    driver: Any = importlib.import_module("torchrun_driver")
    driver.setup_env()
    command: list[str] = driver.create_commands()
    return command


if __name__ == "__main__":
    raise SystemExit(main())
