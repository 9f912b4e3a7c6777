"""Measures what a call of localaws costs, beside plain moto's server.

`python -m tests.benchmarks.calls` writes `build/bench/calls.json`, in about two minutes. What
counts is the processor time of the server, saving included: less of it than of the time that
passes depends on who else uses the machine.
What localaws does more than moto is asked of each call: the signature, the protocol's types, the
model's bounds, the region, what becomes of the operation; and it keeps what it answered.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import psutil
from botocore.config import Config

from localaws.processes import ManagedProcess, processor_seconds
from localaws.progress import Progress
from tests.benchmarks.harness import ROOT, Entry, compare, in_turn, record

BUCKET, BODY = "kennel-calls", bytes(range(256)) * 80
PEER = "moto's server"
# How much more than moto's a call may cost: it is checked, and saved.
TARGET = ">= 0.5"


@dataclass(frozen=True)
class Server:
    """A server of AWS's interfaces: its process and where it answers."""

    pid: int
    endpoint: str

    def client(self, service: str) -> Any:
        """A client of it, whose connection stays open."""
        return boto3.client(
            service,
            region_name="us-east-1",
            endpoint_url=self.endpoint,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(retries={"max_attempts": 0}),
        )

    def cpu_ms(self) -> float:
        """The processor time that it has used."""
        used = psutil.Process(self.pid).cpu_times()
        return 1000 * float(used.user + used.system)


Call = Callable[[Any, int], object]
CALLS: Mapping[str, tuple[str, Call]] = {
    "SSM PutParameter": (
        "ssm",
        lambda ssm, n: ssm.put_parameter(Name=f"/calls/{n}", Value="v", Type="String"),
    ),
    "SSM GetParameter": ("ssm", lambda ssm, n: ssm.get_parameter(Name="/calls")),
    f"S3 PutObject of {len(BODY) // 1000} kB": (
        "s3",
        lambda s3, n: s3.put_object(Bucket=BUCKET, Key=f"{n}", Body=BODY + n.to_bytes(4)),
    ),
    f"S3 GetObject of {len(BODY) // 1000} kB": (
        "s3",
        lambda s3, n: s3.get_object(Bucket=BUCKET, Key="calls")["Body"].read(),
    ),
    "SQS GetQueueUrl": ("sqs", lambda sqs, n: sqs.get_queue_url(QueueName="calls")),
    "STS GetCallerIdentity": ("sts", lambda sts, n: sts.get_caller_identity()),
    "SageMaker ListModels": ("sagemaker", lambda sagemaker, n: sagemaker.list_models()),
}


@contextmanager
def localaws(folder: Path) -> Iterator[Server]:
    """A localaws that keeps records only: what runs would be measured, too."""
    command = [sys.executable, "-m", "localaws.server", "run", "--port", "0", "--records-only"]
    told = folder / "localaws" / "server.json"
    with ManagedProcess([*command, "--state", str(told.parent)], folder / "log") as process:
        until(process, folder / "log", told.exists)
        yield prepared(Server(process.pid, json.loads(told.read_text())["endpoint"]))


@contextmanager
def moto(folder: Path) -> Iterator[Server]:
    """Plain moto's server."""
    log = folder / "moto.log"
    command = [str(Path(sys.executable).parent / "moto_server"), "-H", "127.0.0.1", "-p", "0"]
    with ManagedProcess(command, log, folder=ROOT) as process:

        def ports() -> list[int]:
            found = psutil.Process(process.pid).net_connections("tcp")
            return [each.laddr.port for each in found if each.status == psutil.CONN_LISTEN]

        until(process, log, ports)
        yield prepared(Server(process.pid, f"http://127.0.0.1:{ports()[0]}"))


def until(process: ManagedProcess, log: Path, holds: Callable[[], object]) -> None:
    """Wait for a server.

    Raises:
        RuntimeError: It did not start.
    """
    progress = Progress()
    while not holds():
        if process.exit_code is not None or progress.stalled(processor_seconds(process.pid)):
            raise RuntimeError(f"a server did not start: {log.read_text()[-4000:]}")
        time.sleep(0.05)


def prepared(server: Server) -> Server:
    """Make what the calls name."""
    server.client("ssm").put_parameter(Name="/calls", Value="v", Type="String")
    server.client("s3").create_bucket(Bucket=BUCKET)
    server.client("s3").put_object(Bucket=BUCKET, Key="calls", Body=BODY)
    server.client("sqs").create_queue(QueueName="calls")
    return server


class Measured:
    """Calls of one kind that one server answers."""

    def __init__(self, server: Server, service: str, call: Call, calls: int) -> None:
        self._server, self._call, self._calls = server, call, calls
        self._client = server.client(service)
        self._made = 0
        for _ in range(10):  # what is loaded once
            self._once()

    def _once(self) -> None:
        self._made += 1
        self._call(self._client, self._made)

    def run(self) -> float:
        """Make all calls, one after the other; give the processor time of one, in ms."""
        before = self._server.cpu_ms()
        for _ in range(self._calls):
            self._once()
        return (self._server.cpu_ms() - before) / self._calls


def measure(ours: Server, peer: Server, calls: int, runs: int) -> list[Entry]:
    """Measure all kinds of calls of both servers."""
    entries = []
    for what, (service, call) in CALLS.items():
        kinds = {
            name: Measured(server, service, call, calls)
            for name, server in (("ours", ours), ("peer", peer))
        }
        found = in_turn({name: kind.run for name, kind in kinds.items()}, runs)
        entry = compare(
            f"processor time of {what}", "ms", found["ours"], found["peer"], PEER, TARGET, "less"
        )
        print(
            f"{what}: {entry.ours.median:.2f} ms, {PEER} {entry.ratio:.2f} times that", flush=True
        )
        entries.append(entry)
    return entries


def main() -> None:
    """Run all of it once."""
    parser = argparse.ArgumentParser(prog="tests.benchmarks.calls", description=main.__doc__)
    parser.add_argument("--calls", type=int, default=500, help="of each kind (default: 500)")
    parser.add_argument("--runs", type=int, default=3, help="of each kind (default: 3)")
    parser.add_argument("--quick", action="store_true", help="prove the code, not the figures")
    options = parser.parse_args()
    if options.quick:
        options.calls, options.runs = 20, 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with localaws(folder) as ours, moto(folder) as peer:
            entries = measure(ours, peer, options.calls, options.runs)
    command = " ".join(["python -m tests.benchmarks.calls", *sys.argv[1:]])
    record("calls", command, entries, quick=options.quick)


if __name__ == "__main__":
    main()
