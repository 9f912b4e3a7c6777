"""Measures what grows: training with the number of photos, the server's memory with time.

`python -m tests.benchmarks.growth` writes `build/bench/growth.json`, in about 15 minutes on 2
cores, 5 of them the server's; `--minutes 60` loads it for an hour. Training is of a head on
EfficientNet-Lite0, from photos never seen before to the model, at 112 pixels so that 16 times the
photos take minutes. The photos are copied with a few bytes appended, which readers of JPEG ignore:
no cache takes one for another. Memory is what the process has for itself; pages of the caches'
files, which the system takes back whenever it needs room, are not counted.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import psutil

from localaws.processes import ManagedProcess
from tests.benchmarks.harness import ROOT, absolute, in_turn, record, timed
from trainer.dataset import scan

TIMES = (1, 4, 16)
NETWORK = ["--backbone", "efficientnet_lite0", "--image-size", "112"]
TRAINING = ["--epochs", "5", "--patience", "0"]
FOLDERS = ("model", "output", "checkpoint", "cache")
CLIENTS = 8
START_SECONDS = 60


@dataclass(frozen=True)
class Trained:
    """A training: its seconds, and the most memory that the process had for itself."""

    seconds: float
    peak_mib: float


def copies(photos: Path, folder: Path, times: int, every: int) -> Path:
    """Make a data folder of `times` copies of each `every`-th photo."""
    files = scan(photos, ("train", "valid")).files
    for file in (file for split in files.values() for file in split[::every]):
        body = (photos / file).read_bytes()
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        for number in range(times):
            copy = folder / file
            copy.with_stem(f"{copy.stem}-{number}").write_bytes(body + number.to_bytes(4))
    return folder


def train(data: Path) -> Trained:
    """Train on a data folder from nothing.

    Raises:
        RuntimeError: It failed; the message has what it said.
    """
    with tempfile.TemporaryDirectory(dir=data.parent) as name:
        log = Path(name) / "log"
        started = time.perf_counter()
        with ManagedProcess(training(data, Path(name)), log, folder=ROOT) as process:
            peak = 0.0
            while process.exit_code is None:
                peak = max(peak, own_mib(process.pid))
                time.sleep(0.02)
            seconds = time.perf_counter() - started
        if process.exit_code:
            raise RuntimeError(f"training on {data} failed: {log.read_text()[-4000:]}")
    return Trained(seconds, peak)


def training(data: Path, folder: Path) -> list[str]:
    """Give the command that trains on `data`, with all that it writes in `folder`."""
    command = [sys.executable, "-m", "trainer.train", "--data", str(data), *NETWORK, *TRAINING]
    return command + [f"--{kind}-dir={folder / kind}" for kind in FOLDERS]


def own_mib(pid: int) -> float:
    """Give the memory that a process has for itself, in MiB; 0 if it has ended."""
    try:
        memory = psutil.Process(pid).memory_info()
    except psutil.NoSuchProcess:
        return 0.0
    return float(memory.rss - memory.shared) / 2**20


def from_line(photos: Sequence[int], seconds: Sequence[float]) -> float:
    """Give the largest deviation, in percent, of seconds from a line over the photos.

    The line is the one with the least squares of relative deviations.
    """
    slope, constant = np.polyfit(photos, seconds, 1, w=1 / np.array(seconds))
    line = constant + slope * np.array(photos)
    return float(100 * np.abs(np.array(seconds) / line - 1).max())


def archive_of(photos: Path, scratch: Path) -> Path:
    """Train and package a model of the photos."""
    archive = scratch / "model.tar.gz"
    package = [sys.executable, "-m", "trainer.package", "--data", str(photos)]
    package += [f"--model={scratch / 'model'}", f"--cache-dir={scratch / 'cache'}"]
    for command in (training(photos, scratch), [*package, f"--output={archive}"]):
        timed(command)
    return archive


def served(photos: Path, scratch: Path, seconds: float) -> list[tuple[float, float]]:
    """Load a server with the photos; give its memory, in MiB, second by second.

    Raises:
        RuntimeError: The server does not start, or fails a request.
    """
    server = [sys.executable, "-m", "inference.server", "--host", "127.0.0.1", "--port", "0"]
    server += ["--model", str(archive_of(photos, scratch))]
    bodies = scratch / "bodies"
    bodies.mkdir()
    for number, photo in enumerate(sorted(photos.glob("valid/*/*"))[:64]):
        (bodies / f"{number}.jpg").symlink_to(photo.absolute())
    log, answers = scratch / "server.log", scratch / "load.log"
    with ManagedProcess(server, log, folder=ROOT) as process:
        url = f"http://127.0.0.1:{ready_port(process, log)}/invocations"
        load = [sys.executable, "-m", "tests.benchmarks.load", url, str(bodies)]
        load += ["--clients", str(CLIENTS), "--seconds", str(seconds)]
        samples = []
        with ManagedProcess(load, answers, folder=ROOT) as clients:
            started = time.monotonic()
            while clients.exit_code is None:
                samples.append((time.monotonic() - started, own_mib(process.pid)))
                time.sleep(1)
    if clients.exit_code or json.loads(answers.read_text())["statuses"].keys() != {"200"}:
        raise RuntimeError(f"not every request was answered: {answers.read_text()[-4000:]}")
    return samples


def ready_port(process: ManagedProcess, log: Path) -> int:
    """Wait for the server's line that says that it is ready, and give the port in it."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.exit_code is None:
        for line in log.read_text().splitlines():
            if '"ready"' in line:
                return int(json.loads(line)["port"])
        time.sleep(0.05)
    raise RuntimeError(f"the server did not start: {log.read_text()}")


def tenth(samples: Sequence[tuple[float, float]], number: int) -> float:
    """Give the median memory of one tenth of the samples, counted from 0."""
    size = max(1, len(samples) // 10)
    start = number * len(samples) // 10
    return median(mib for _, mib in samples[start : start + size])


def main() -> None:
    """Run all of it once."""
    parser = argparse.ArgumentParser(prog="tests.benchmarks.growth", description=main.__doc__)
    parser.add_argument("--photos", type=Path, default=Path("../shared/dogs"), help="data folder")
    parser.add_argument("--runs", type=int, default=2, help="of each size (default: 2)")
    parser.add_argument("--minutes", type=float, default=5.0, help="of load (default: 5)")
    parser.add_argument("--quick", action="store_true", help="prove the code, not the figures")
    options = parser.parse_args()
    if not (options.photos / "train").is_dir():
        sys.exit(f"error: {options.photos} is no data folder; name one with --photos")
    if options.quick:
        options.runs, options.minutes = 1, 0.2
    every = 20 if options.quick else 1
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        folders = [copies(options.photos, scratch / str(n), n, every) for n in TIMES]
        counts = [sum(1 for _ in folder.glob("*/*/*")) for folder in folders]
        runs = in_turn({str(folder): partial(train, folder) for folder in folders}, options.runs)
        sizes = [
            Trained(median(run.seconds for run in each), median(run.peak_mib for run in each))
            for each in runs.values()
        ]
        samples = served(folders[0], scratch / "served", 60 * options.minutes)
    seconds = [size.seconds for size in sizes]
    times, used = np.array(samples[len(samples) // 2 :]).T
    slope = float(np.polyfit(times, used, 1)[0])
    what = f"{TIMES[-1]} times the photos"
    entries = [
        absolute(
            f"training on 1, 4 and {what}: seconds off a straight line",
            "%",
            [from_line(counts, seconds)],
            "< 15",
            note=f"{counts[0]:,} photos {seconds[0]:.0f} s, {counts[-1]:,} {seconds[-1]:.0f} s",
        ),
        absolute(
            f"training on {what}: memory over that of one time",
            "x",
            [sizes[-1].peak_mib / sizes[0].peak_mib],
            "<= 1.15",
            note=f"{sizes[0].peak_mib:.0f} and {sizes[-1].peak_mib:.0f} MiB",
        ),
        absolute(
            f"server under load for {options.minutes:g} minutes: "
            "memory in the last tenth over the second",
            "x",
            [tenth(samples, 9) / tenth(samples, 1)],
            "< 1.05",
            note=f"{slope * 3600:.1f} MiB an hour over the second half, {CLIENTS} clients",
        ),
    ]
    record(
        "growth",
        " ".join(["python -m tests.benchmarks.growth", *sys.argv[1:]]),
        entries,
        quick=options.quick,
        sizes=[
            {"photos": count, **asdict(size)} for count, size in zip(counts, sizes, strict=True)
        ],
        server=samples,
    )


if __name__ == "__main__":
    main()
