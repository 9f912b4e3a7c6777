"""Times a data set's way to a bucket and back: photo by photo, and in shards of several sizes.

`python -m tests.benchmarks.upload FOLDER [--photos 8351] [--photo-bytes 132000]` writes
`build/bench/upload.json`. FOLDER is a data folder of JPEG files; they are repeated and filled up to
the number and mean size asked for, those of the dog set by default. The bucket is localaws's, on
this machine: there is no network, so what is timed is the work that each request and file costs.
"""

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import boto3
import psutil

from localaws.processes import ManagedProcess
from trainer import target as targets
from trainer import upload
from trainer.dataset import SPLITS, load, scan
from trainer.files import write_json_atomic

ROOT = Path(__file__).parents[2]
RESULT = ROOT / "build/bench/upload.json"
BUCKET = "kennel-local-benchmark"
SHARD_MIB = (8, 32, 64, 128)
THREADS = 16  # photo by photo; shards go four at a time


def main() -> None:
    """Run all of it once."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path, help="data folder of JPEG files")
    parser.add_argument("--photos", type=int, default=8351)
    parser.add_argument("--photo-bytes", type=int, default=132_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, bucket(Path(name) / "localaws") as server:
        scratch = Path(name)
        data = like_the_dogs(options.folder, scratch / "data", options.photos, options.photo_bytes)
        load(data, scratch / "cache", 256, "bilinear", report=data / "dataset_report.json")
        rows = [photo_by_photo(data, scratch, server)]
        rows += [in_shards(data, scratch, server, mib) for mib in SHARD_MIB]
    write_json_atomic(
        RESULT,
        {
            "photos": options.photos,
            "bytes": options.photos * options.photo_bytes,
            "runs": rows,
            "cores": os.cpu_count(),
            "load_before": os.getloadavg()[0],
            "python": platform.python_version(),
            "boto3": boto3.__version__,
        },
    )
    print(RESULT)


def like_the_dogs(folder: Path, data: Path, photos: int, photo_bytes: int) -> Path:
    """Make a data folder of many photos of that size; JPEG readers ignore what is added."""
    files = [file for split in SPLITS for file in scan(folder).files[split]]
    for number, file in zip(range(photos), cycle(files), strict=False):
        split, name, photo = file.split("/", 2)
        copy = data / split / name / f"{number}-{Path(photo).name}"
        copy.parent.mkdir(parents=True, exist_ok=True)
        body = (folder / file).read_bytes()[:photo_bytes]
        copy.write_bytes(body + number.to_bytes(4) * ((photo_bytes - len(body)) // 4))
    return data


@dataclass(frozen=True)
class Server:
    """A localaws: its process, and the log of what is asked of it."""

    process: psutil.Process
    calls: Path

    def requests(self) -> int:
        return len(self.calls.read_bytes().splitlines())

    def cpu_seconds(self) -> float:
        spent = self.process.cpu_times()
        return float(spent.user + spent.system)


@contextmanager
def bucket(state: Path) -> Iterator[Server]:
    """Give a localaws that has a bucket, and point boto3 to it."""
    state.mkdir()
    calls = state / "calls"
    server = [sys.executable, "-m", "localaws.server", "run", "--port", "0", "--records-only"]
    server += ["--state", str(state), "--calls", str(calls)]
    with ManagedProcess(server, state / "log") as process:
        while not (state / "server.json").exists():
            time.sleep(0.1)
        endpoint = json.loads((state / "server.json").read_text())["endpoint"]
        os.environ["LOCALAWS_PORT"] = endpoint.rpartition(":")[2]
        target = targets.load("local")
        target.client("s3").create_bucket(Bucket=BUCKET)
        target.client("ssm").put_parameter(Name="/kennel/local/bucket", Value=BUCKET, Type="String")
        yield Server(psutil.Process(process.pid), calls)


def measured(server: Server, step: str, work: Callable[[], Any]) -> dict[str, float]:
    """Give the seconds, processor seconds on both sides and requests that a step of work takes."""
    requests, processor = server.requests(), server.cpu_seconds() + time.process_time()
    started = time.perf_counter()
    work()
    return {
        f"{step}_s": round(time.perf_counter() - started, 2),
        f"{step}_cpu_s": round(server.cpu_seconds() + time.process_time() - processor, 2),
        f"{step}_requests": server.requests() - requests,
    }


def photo_by_photo(data: Path, scratch: Path, server: Server) -> dict[str, Any]:
    s3 = targets.load("local").client("s3")
    files = [file for split in SPLITS for file in scan(data).files[split]]

    def put(file: str) -> None:
        s3.put_object(Bucket=BUCKET, Key=f"data/single/{file}", Body=(data / file).read_bytes())

    def get(file: str) -> None:
        copy = scratch / "single" / file
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(s3.get_object(Bucket=BUCKET, Key=f"data/single/{file}")["Body"].read())

    def all_of(work: Callable[[str], None]) -> None:
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(work, files))

    row = {"way": "photo by photo", "objects": len(files)}
    row |= measured(server, "upload", lambda: all_of(put))
    row |= measured(server, "download", lambda: all_of(get))
    shutil.rmtree(scratch / "single")
    return told(row)


def in_shards(data: Path, scratch: Path, server: Server, mib: int) -> dict[str, Any]:
    target, name = targets.load("local"), f"shards-{mib}"
    folder = scratch / name
    row: dict[str, Any] = {"way": f"shards of at most {mib} MiB"}
    for step in ("upload", "unchanged"):
        row |= measured(
            server, step, lambda: upload.upload(target, data, name, shard_bytes=mib * 1024**2)
        )
    row |= measured(server, "download", lambda: upload.download(target, name, folder))
    shutil.rmtree(folder)
    sizes = [shard.bytes for shard in upload.require_manifest(target, name).shards]
    row |= {"objects": len(sizes) + 1, "smallest_bytes": min(sizes), "largest_bytes": max(sizes)}
    return told(row)


def told(row: dict[str, Any]) -> dict[str, Any]:
    print(row, flush=True)
    return row


if __name__ == "__main__":
    main()
