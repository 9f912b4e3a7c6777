"""torchrun for people: the same flags, and one line in place of a traceback when a run ends early.

    python -m trainer.torchrun --standalone --nproc-per-node 2 -m trainer.train --data DIR

The exit status is that of the process that failed first. What several processes would say alike is
said once: of the first one on each machine.
"""

import logging
import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from torch.distributed import run as torchrun
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from inference.cpus import available_cpus
from trainer.errors import LOST_TOUCH, UsageError, run_command

_STANDARD_ERROR = "2"


def main(arguments: list[str] | None = None) -> None:
    """Start the processes and wait for them.

    Raises:
        UsageError: No number of processes.
        SystemExit: A process failed, or this one was told to stop.
    """
    options = torchrun.parse_args(sys.argv[1:] if arguments is None else arguments)
    count = _processes(options.nproc_per_node)
    # torchrun would give each a single core, and say so in a banner.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, available_cpus() // count)))
    # It logs how it ends the other processes, and what it raises here as well.
    logging.disable(logging.ERROR)
    # A step may take longer than the half minute after which it kills.
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "100")
    with tempfile.TemporaryDirectory(prefix="kennel-torchrun-") as logs:
        if options.log_dir is None:
            options.log_dir = logs  # torchrun would make a folder that it never removes
            others = [f"{rank}:{_STANDARD_ERROR}" for rank in range(1, count)]
            options.redirects = ",".join(others) or options.redirects
        try:
            torchrun.run(options)
        except ChildFailedError as error:
            raise SystemExit(_report(error.failures, Path(logs))) from None
        except SignalException as error:  # which it has passed on
            raise SystemExit(130 if error.sigval == signal.SIGINT else 1) from None


def _processes(text: str) -> int:
    try:
        count = int(torchrun.determine_local_world_size(text))
    except ValueError:
        count = 0
    if count < 1:
        raise UsageError(
            f"--nproc-per-node takes a number of processes, 1 or more, not {text!r}; "
            "`make train` takes it from INSTANCES"
        )
    return count


def _report(failures: Mapping[int, ProcessFailure], logs: Path) -> int:
    """Say what the process that failed first said, if it was not heard, and give its status.

    It is not one that only lost touch with another.
    """
    first = min(failures.values(), key=lambda one: (one.exitcode == LOST_TOUCH, one.timestamp))
    if first.exitcode == LOST_TOUCH:  # the other one is still about to end, or on another machine
        _pass_on(logs, "*")
        return 1
    if first.exitcode < 0:
        name = signal.Signals(-first.exitcode).name
        hint = "; was the memory too small?" if name == "SIGKILL" else ""
        sys.stderr.write(f"error: process {first.local_rank} was ended by {name}{hint}\n")
        return 128 - first.exitcode
    if first.local_rank:
        _pass_on(logs, str(first.local_rank))
    return first.exitcode


def _pass_on(logs: Path, rank: str) -> None:
    """Print the error of a process whose standard error went to a file; all of it if it is none."""
    for log in logs.rglob(f"{rank}/stderr.log"):
        said = log.read_text(errors="replace").splitlines(keepends=True)
        errors = [line for line in said if line.startswith("error: ")]
        sys.stderr.writelines(errors[-1:] or said)


if __name__ == "__main__":
    run_command(main)
