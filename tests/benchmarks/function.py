"""The Lambda function beside a handler written the tutorial way.

`python -m tests.benchmarks.function` writes `build/bench/function.json` in about two minutes. Both
run from their zips under AWS's runtime interface emulator and client, before an endpoint that
answers at once. So does a function that does nothing: what it takes, and the endpoint's answer to a
plain client, are taken off where the time that a handler adds is asked for.

On AWS nothing is ever written beside a function's code, so each new process compiles what it
imports from there; so it is here. "tutorial, compiled" has its modules compiled beforehand, as some
deployment tools do.
"""

import argparse
import base64
import compileall
import http.client
import io
import json
import platform
import re
import socket
import statistics
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
from PIL import Image, ImageOps

from lambda_src.build import build
from localaws.processes import ManagedProcess
from tests.benchmarks.harness import (
    CLASSIC,
    HANDLER,
    ROOT,
    Figure,
    absolute,
    compare,
    in_turn,
    record,
)
from tests.contract.parts import free_ports

TUTORIAL = ROOT / "tests/benchmarks/peers/tutorial_handler.py"
EMPTY = "def handler(event, context):\n    return {}\n"
ARCHITECTURE = {"x86_64": "x86_64", "aarch64": "arm64"}[platform.machine()]
ENDPOINT = "kennel"
PHOTO_SIZE = (500, 375)
START_SECONDS = 60.0


@dataclass(frozen=True)
class Function:
    """An unpacked zip, and the handler in it as Lambda's configuration names it."""

    code: Path
    handler: str


@dataclass(frozen=True)
class Start:
    """A cold start.

    Attributes:
        init_ms: From the process's start until it asks for an event, by the emulator's own clock.
        first_ms: From the first event, which starts the process, to its answer.
        peak_mib: The most memory that the process has held by then.
    """

    init_ms: float
    first_ms: float
    peak_mib: float


class Client:
    """Sends the same body again and again over one connection."""

    def __init__(self, port: int, path: str, body: bytes) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_SECONDS)
        self._path = path
        self._body = body

    def ask(self) -> tuple[float, bytes]:
        """Give the milliseconds until the answer is there, and the answer."""
        started = time.perf_counter()
        self._connection.request("POST", self._path, self._body)
        answer = self._connection.getresponse().read()
        return (time.perf_counter() - started) * 1000, answer

    def median_ms(self, calls: int) -> float:
        """Give the median of several answers."""
        return statistics.median(self.ask()[0] for _ in range(calls))


@dataclass(frozen=True)
class Bench:
    """Where functions run, and what they are asked.

    Attributes:
        folder: Takes the logs.
        endpoint_port: Of the endpoint that they ask.
        photo: The JPEG file that they are asked about.
    """

    folder: Path
    endpoint_port: int
    photo: bytes

    @contextmanager
    def emulated(self, function: Function) -> Iterator[tuple[Client, Path, int]]:
        """Run a function in the block; give its client, its log and the emulator's process id."""
        (emulator,) = CLASSIC.glob(
            f"lib/python*/site-packages/samcli/local/rapid/aws-lambda-rie-{ARCHITECTURE}"
        )
        log, (port, runtime_port) = self.folder / f"{function.code.name}.log", free_ports(2)
        log.unlink(missing_ok=True)
        command = [str(emulator), "--runtime-interface-emulator-address", f"127.0.0.1:{port}"]
        command += ["--runtime-api-address", f"127.0.0.1:{runtime_port}"]
        command += [sys.executable, "-m", "awslambdaric", function.handler]
        environment = {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.endpoint_port}",
            "AWS_LAMBDA_FUNCTION_NAME": "kennel-classify",
            "AWS_LAMBDA_FUNCTION_TIMEOUT": "60",
            "AWS_REGION": "us-east-1",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_SESSION_TOKEN": "test",
            "ENDPOINT_NAME": ENDPOINT,
            "LAMBDA_TASK_ROOT": str(function.code),
            "PATH": "/usr/bin:/bin",
            "POWERTOOLS_TRACE_DISABLED": "true",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        event = json.dumps({"image": base64.b64encode(self.photo).decode()}).encode()
        client = Client(port, "/2015-03-31/functions/function/invocations", event)
        with ManagedProcess(command, log, environment, function.code) as process:
            until_served(port, process, log)
            yield client, log, process.pid

    def start(self, function: Function) -> Start:
        """Start a function's process and have it answer once."""
        with self.emulated(function) as (client, log, emulator):
            first_ms, answer = client.ask()
            said = log.read_text()
            if b"errorMessage" in answer:
                raise RuntimeError(f"{function.handler}: {answer.decode()}\n{said}")
            (process,) = psutil.Process(emulator).children()
            status = Path(f"/proc/{process.pid}/status").read_text()
        return Start(
            float(re.findall(r"INIT REPORT\(durationMs: ([\d.]+)\)", said)[0]),
            first_ms,
            int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1024,
        )

    def warm(
        self, functions: Mapping[str, Function], rounds: int, calls: int
    ) -> dict[str, list[float]]:
        """Give the median answer times, in milliseconds, of each round of calls.

        Functions take turns in each round, and so does the endpoint without a function.
        """
        with ExitStack() as running:
            clients = {
                label: running.enter_context(self.emulated(function))[0]
                for label, function in functions.items()
            }
            path = f"/endpoints/{ENDPOINT}/invocations"
            clients["endpoint"] = Client(self.endpoint_port, path, self.photo)
            for client in clients.values():
                client.median_ms(calls)
            return in_turn(
                {label: partial(client.median_ms, calls) for label, client in clients.items()},
                rounds,
            )


def until_served(port: int, process: ManagedProcess, log: Path) -> None:
    """Wait until a process listens on a port."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            if process.exit_code is not None or time.monotonic() > deadline:
                raise RuntimeError(f"nothing serves on port {port}: {log.read_text()}") from None
            time.sleep(0.01)


@contextmanager
def endpoint(log: Path) -> Iterator[int]:
    """Give the port of an endpoint that answers at once."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "tests.benchmarks.stand_in", str(port)]
    with ManagedProcess(command, log, folder=ROOT) as process:
        until_served(port, process, log)
        yield port


def photo_of(folder: Path) -> bytes:
    """Give a photo of a data folder as a JPEG file of 500 x 375 pixels."""
    photos = sorted(file for file in folder.glob("test/*/*") if file.is_file())
    if not photos:
        sys.exit(f"error: {folder} has no photos in test/CLASS/; name a data folder with --photos")
    body = io.BytesIO()
    with Image.open(photos[0]) as image:
        ImageOps.fit(image.convert("RGB"), PHOTO_SIZE).save(body, format="JPEG", quality=90)
    return body.getvalue()


def tutorial_zip(path: Path) -> Path:
    """Pack the tutorial's handler with all that it brings along."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in sorted(HANDLER.rglob("*")):
            if file.name != "ready" and "__pycache__" not in file.parts:
                packed.write(file, file.relative_to(HANDLER))
        packed.write(TUTORIAL, TUTORIAL.name)
    return path


def unpacked(ours: Path, tutorial: Path, scratch: Path) -> dict[str, Function]:
    """Give the functions to measure."""
    handlers = {
        "ours": (ours, "lambda_src.handler.handler"),
        "tutorial": (tutorial, "tutorial_handler.handler"),
        "tutorial, compiled": (tutorial, "tutorial_handler.handler"),
    }
    functions = {
        label: Function(scratch / label, handler) for label, (_, handler) in handlers.items()
    }
    for label, (packed, _) in handlers.items():
        with zipfile.ZipFile(packed) as archive:
            archive.extractall(scratch / label)
    compileall.compile_dir(functions["tutorial, compiled"].code, quiet=1)
    empty = Function(scratch / "empty", "empty.handler")
    empty.code.mkdir()
    (empty.code / "empty.py").write_text(EMPTY)
    return {**functions, "empty": empty}


def added_ms(label: str, warm: Mapping[str, Sequence[float]]) -> list[float]:
    """Give what a handler adds to the endpoint's answer, by round."""
    return [
        whole - nothing - answer
        for whole, nothing, answer in zip(warm[label], warm["empty"], warm["endpoint"], strict=True)
    ]


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(prog="tests.benchmarks.function", description=main.__doc__)
    parser.add_argument("--photos", type=Path, default=Path("../shared/dogs"), help="data folder")
    parser.add_argument("--starts", type=int, default=10, help="cold starts of each function")
    parser.add_argument("--rounds", type=int, default=20, help="rounds of warm calls")
    parser.add_argument("--calls", type=int, default=50, help="calls of each function in a round")
    parser.add_argument("--quick", action="store_true", help="prove the code, not the figures")
    options = parser.parse_args()
    if options.quick:
        options.starts, options.rounds, options.calls = 2, 2, 10
    photo = photo_of(options.photos)
    with tempfile.TemporaryDirectory() as name, endpoint(Path(name) / "endpoint.log") as port:
        scratch = Path(name)
        ours = build(ROOT / "build/lambda", ARCHITECTURE)
        tutorial = tutorial_zip(scratch / "tutorial.zip")
        sizes = {"ours": ours.stat().st_size / 1e6, "tutorial": tutorial.stat().st_size / 1e6}
        functions = unpacked(ours, tutorial, scratch)
        bench = Bench(scratch, port, photo)
        starts = in_turn(
            {label: partial(bench.start, one) for label, one in functions.items()}, options.starts
        )
        warm = bench.warm(functions, options.rounds, options.calls)
    init = {label: [start.init_ms for start in row] for label, row in starts.items()}
    added = {label: added_ms(label, warm) for label in ("ours", "tutorial")}
    compiled = statistics.median(init["tutorial, compiled"])
    record(
        "function",
        " ".join(["python -m tests.benchmarks.function", *sys.argv[1:]]),
        [
            compare(
                "Lambda function, init",
                "ms",
                init["ours"],
                init["tutorial"],
                "tutorial handler",
                ">= 2",
                "less",
                f"with its modules compiled the tutorial's takes {compiled:.0f} ms",
            ),
            absolute(
                "Lambda function, time added to the endpoint's answer, p50",
                "ms",
                added["ours"],
                "< 3",
                f"the tutorial's adds {statistics.median(added['tutorial']):.1f} ms",
            ),
            absolute(
                "Lambda function, zip",
                "MB",
                [sizes["ours"]],
                "< 3",
                f"the tutorial's is {sizes['tutorial']:.1f} MB",
            ),
        ],
        quick=options.quick,
        starts={
            label: {
                "init_ms": vars(Figure.of(init[label])),
                "first_answer_ms": vars(Figure.of([start.first_ms for start in row])),
                "peak_mib": vars(Figure.of([start.peak_mib for start in row])),
            }
            for label, row in starts.items()
        },
        warm_ms={label: vars(Figure.of(row)) for label, row in warm.items()},
        added_ms={label: vars(Figure.of(row)) for label, row in added.items()},
        zip_mb=sizes,
        photo_bytes=len(photo),
    )


if __name__ == "__main__":
    main()
