"""How benchmarks time things and write down what they found.

A comparison runs its contenders in turn, A B A B, so that a machine whose speed drifts is as kind
to both. What is quoted is the median; the least and the most say how far to trust it.
"""

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, TypeVar

from trainer.files import write_json_atomic

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "build/bench"
CLASSIC = ROOT / "build/contract/sagemaker"
"""Environment of SageMaker's PyTorch image, TorchServe in it; `make bench` makes it."""
PEERS = RESULTS / "peers"
"""Environment of the other peers, from `.ci/bench/peers.lock`; `make bench` makes it."""
HANDLER = RESULTS / "handler"
"""What a handler written the tutorial way brings along: boto3, requests and Pillow."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Figure:
    """A figure measured several times.

    Attributes:
        median: What to quote.
        least: The smallest value.
        most: The largest value.
        runs: How many values there are.
    """

    median: float
    least: float
    most: float
    runs: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Figure":
        """Sum up values of one thing."""
        return cls(statistics.median(values), min(values), max(values), len(values))


@dataclass(frozen=True)
class Entry:
    """One line of the table: what was measured of ours and of a peer, and whether that will do.

    Attributes:
        what: What is measured, such as "serving throughput, 8 clients, ResNet-50".
        unit: Of both figures.
        ours: Ours.
        peer: The peer's; None where the target is a figure of its own.
        peer_name: Who that is.
        ratio: How many times better ours is, and more is better; without a peer ours itself.
        target: What is wanted of the ratio, such as ">= 5" or "< 2".
        holds: Whether it is so.
        note: What the reader must know, such as that the peer's time is of fewer epochs.
    """

    what: str
    unit: str
    ours: Figure
    peer: Figure | None
    peer_name: str
    ratio: float
    target: str
    holds: bool
    note: str


def compare(
    what: str,
    unit: str,
    ours: Sequence[float],
    peer: Sequence[float],
    peer_name: str,
    target: str,
    better: Literal["less", "more"],
    note: str = "",
) -> Entry:
    """Set ours beside a peer's.

    Args:
        what: What is measured.
        unit: Its unit.
        ours: Our values.
        peer: The peer's.
        peer_name: Who that is.
        target: What the ratio must be: "<", "<=", ">" or ">=" and a number.
        better: Which values are the good ones.
        note: What the reader must know.

    Raises:
        RuntimeError: One of them is nothing, as on a machine that is too busy.
    """
    mine, other = Figure.of(ours), Figure.of(peer)
    if not (mine.median and other.median):
        who = "Kennel" if other.median else peer_name
        raise RuntimeError(f"{what}: {who} got nothing done in time; measure on a quiet machine")
    ratio = other.median / mine.median if better == "less" else mine.median / other.median
    return Entry(what, unit, mine, other, peer_name, ratio, target, _holds(ratio, target), note)


def absolute(what: str, unit: str, ours: Sequence[float], target: str, note: str = "") -> Entry:
    """A figure that is wanted to be in a range by itself."""
    mine = Figure.of(ours)
    holds = _holds(mine.median, target)
    return Entry(what, unit, mine, None, "", mine.median, target, holds, note)


def _holds(value: float, target: str) -> bool:
    relation, number = target.split()
    wanted = float(number)
    return {
        "<": value < wanted,
        "<=": value <= wanted,
        ">": value > wanted,
        ">=": value >= wanted,
    }[relation]


def in_turn(contenders: Mapping[str, Callable[[], Result]], runs: int) -> dict[str, list[Result]]:
    """Run each contender `runs` times, in turn; give their results."""
    results: dict[str, list[Result]] = {name: [] for name in contenders}
    for _ in range(runs):
        for name, run in contenders.items():
            results[name].append(run())
    return results


@dataclass(frozen=True)
class Run:
    """A process that has ended.

    Attributes:
        seconds: From its start to its end.
        cpu_seconds: Of all processors, its children's included.
        peak_mib: The most that it, or one of its children, has held at once.
        output: What it printed to its standard output.
    """

    seconds: float
    cpu_seconds: float
    peak_mib: float
    output: str


def timed(
    command: Sequence[str | Path],
    environment: Mapping[str, str] | None = None,
    folder: Path = ROOT,
) -> Run:
    """Run a command to its end.

    Raises:
        RuntimeError: It failed; the message has what it said.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = RESULTS / "log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w+b") as errors:
        started = time.perf_counter()
        process = subprocess.Popen(
            list(map(str, command)),
            cwd=folder,
            env=_environment() | (environment or {}),
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        assert process.stdout
        output = process.stdout.read().decode()
        # Popen's own wait does not tell what the process took.
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            said = errors.read().decode(errors="replace")[-4000:]
            raise RuntimeError(f"{' '.join(map(str, command))}: exit {process.returncode}\n{said}")
    return Run(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, output)


def _environment() -> dict[str, str]:
    """Give what a user's shell has: with this variable, every start would compile all it loads."""
    return {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


def record(name: str, command: str, entries: Sequence[Entry], **details: Any) -> Path:
    """Write a benchmark's result to `build/bench/<name>.json`.

    Args:
        name: The benchmark.
        command: What makes it again.
        entries: The lines of the table.
        details: What else is known: raw values, curves, versions.

    Returns:
        The file.
    """
    path = RESULTS / f"{name}.json"
    write_json_atomic(
        path,
        {
            "command": command,
            "entries": [asdict(entry) for entry in entries],
            "machine": machine(),
            **details,
        },
    )
    for entry in entries:
        mark = "holds" if entry.holds else "MISSED"
        print(f"{mark:6}  {entry.what}: {entry.ratio:.3g} (target {entry.target})")
    print(path)
    return path


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    cpus = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    packages = ("torch", "torchvision", "onnxruntime", "pillow", "numpy")
    return {
        "processor": cpus[0] if cpus else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
    }
