"""The main process of a SageMaker training container: `python -m trainer.entry`.

It starts what the SageMaker SDK's torchrun driver would start, and does three things more. It
passes SIGTERM on, so that a run which is stopped, or loses its spot machine, saves its state: the
SDK's own processes are a shell, which as a container's first process hears no signal, and a driver
that passes none on. It says why a run failed, where SageMaker reads the job's failure reason. And
it leaves out what torchrun says of a stop that was asked for: a trace for each process.
"""

import importlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from threading import Event
from types import FrameType
from typing import IO, Any

_REASON_CHARACTERS = 1024  # SageMaker cuts the rest
# As Python's logging writes it for torch, and as a process of torchrun is labelled.
_TORCHRUN = re.compile(r"(\[\w+:?\d*\]:)?[IWE]\d{4} [\d:.]+ .*torch/distributed/")
_TRACE = "Traceback (most recent call last):"


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
    stopping = Event()

    def pass_on(signal_number: int, frame: FrameType | None) -> None:
        stopping.set()
        process.send_signal(signal_number)

    signal.signal(signal.SIGTERM, pass_on)
    assert process.stdout is not None  # noqa: S101 (tells the type)
    said = _pass_output_on(process.stdout, stopping)
    status = process.wait()
    if status:
        failure.write_text(said or f"{command[0]} ended with exit status {status}")
    # A status below 0 is a signal's.
    return status if status >= 0 else 128 - status


def _pass_output_on(output: IO[bytes], stopping: Event) -> str:
    """Copy all lines, but torchrun's of a stop; give the last one that says what went wrong."""
    last = error = ""
    in_trace = False
    for line in output:
        if stopping.is_set():
            shown = line.decode(errors="replace")
            # A trace goes on as long as its lines are indented; the error itself ends it.
            was_in_trace, in_trace = in_trace, _TRACE in shown or (in_trace and shown[:1].isspace())
            if was_in_trace or in_trace or _TORCHRUN.match(shown):
                continue
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
