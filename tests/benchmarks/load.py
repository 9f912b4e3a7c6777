"""Sends photos to a server from a process of its own, and says how long the answers took.

`python -m tests.benchmarks.load URL FOLDER --clients 8` is a closed loop: each client sends its
next photo when it has the answer to the last. With `--rate 50` photos arrive at random (Poisson),
50 a second, whether or not the server keeps up; a photo's time then counts from its arrival, not
from when a connection was free for it, so that a stalled server cannot hide its queue.

It shares the processors with the server, so it does little: whole requests are kept ready in
memory, one thread sends them (uvloop), and httptools reads the answers. A request costs it about
0.15 ms of a processor; `cpu_seconds` says what it was.
"""

import argparse
import asyncio
import itertools
import json
import math
import random
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import httptools
import uvloop

MOST_CONNECTIONS = 256
PATIENCE_S = 60.0
"""How long answers are waited for once nothing more is sent."""
_BOUNDARY = "photo-boundary"


@dataclass(frozen=True)
class Report:
    """What came of a load.

    Attributes:
        rate: Photos asked for a second, None in a closed loop.
        clients: Clients of a closed loop, 0 in an open one.
        seconds: Time over which photos were sent.
        answers: Photos answered with status 200 within that time.
        throughput: The same a second.
        statuses: How often each status came; "lost" is an answer that never came.
        milliseconds: Times of the good answers by percentile; empty if there are none.
        cpu_seconds: What sending and reading took of a processor.
    """

    rate: float | None
    clients: int
    seconds: float
    answers: int
    throughput: float
    statuses: dict[str, int]
    milliseconds: dict[str, float]
    cpu_seconds: float


class Connection(asyncio.Protocol):
    """One connection, with one request on its way at a time."""

    def __init__(self) -> None:
        self._answer: asyncio.Future[int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        if self._answer and not self._answer.done():
            self._answer.set_result(self._parser.get_status_code())

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer and not self._answer.done():
            self._answer.set_exception(ConnectionResetError("the server closed the connection"))

    async def status(self, request: bytes) -> int:
        """Send a request; give its answer's status.

        Raises:
            ConnectionResetError: The server closed the connection.
        """
        self._answer = asyncio.get_running_loop().create_future()
        if self._transport.is_closing():
            raise ConnectionResetError("the server closed the connection")
        self._transport.write(request)
        return await self._answer


class Load:
    """A load on one server, and the times of its answers."""

    def __init__(self, url: str, requests: Sequence[bytes]) -> None:
        self._address = urlsplit(url)
        self._requests: Iterator[bytes] = itertools.cycle(requests)
        self._end = math.inf
        self.statuses: Counter[str] = Counter()
        self.times: list[float] = []
        self.answers = 0

    async def closed(self, clients: int, seconds: float) -> None:
        """Keep `clients` requests on their way."""
        connections = [await self._connection() for _ in range(clients)]
        self._end = time.perf_counter() + seconds

        async def client(connection: Connection) -> None:
            while (started := time.perf_counter()) < self._end:
                connection = await self._ask(connection, started)

        await asyncio.gather(*map(client, connections))

    async def open(self, rate: float, seconds: float, seed: int) -> None:
        """Send photos as they arrive, `rate` a second."""
        gaps = random.Random(seed)
        free = asyncio.Queue[Connection]()
        waiting: deque[float] = deque()
        tasks: set[asyncio.Task[None]] = set()
        opened = 0

        async def serve(connection: Connection | None, arrived: float) -> None:
            connection = await self._ask(connection or await self._connection(), arrived)
            while waiting:
                connection = await self._ask(connection, waiting.popleft())
            free.put_nowait(connection)

        arrival = time.perf_counter()
        self._end = arrival + seconds
        while arrival < self._end:
            await asyncio.sleep(arrival - time.perf_counter())
            if free.empty() and opened == MOST_CONNECTIONS:
                waiting.append(arrival)
            else:
                opened += free.empty()
                task = asyncio.create_task(
                    serve(None if free.empty() else free.get_nowait(), arrival)
                )
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            arrival += gaps.expovariate(rate)
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=PATIENCE_S)
            self.statuses["lost"] += len(late) + len(waiting)

    async def _ask(self, connection: Connection, started: float) -> Connection:
        """Send a photo; give the connection for the next one, a new one if this was closed."""
        try:
            status = await connection.status(next(self._requests))
        except ConnectionResetError:
            self.statuses["lost"] += 1
            return await self._connection()
        ended = time.perf_counter()
        self.statuses[str(status)] += 1
        if status == 200:
            self.times.append(ended - started)
            self.answers += ended <= self._end
        return connection

    async def _connection(self) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            Connection, self._address.hostname or "", self._address.port or 80
        )
        return connection


def requests(url: str, folder: Path, multipart: str | None) -> list[bytes]:
    """Give a whole request for each file, the body, or the field `multipart` of a form."""
    parts = urlsplit(url)
    kind, before, after = "image/jpeg", b"", b""
    if multipart:
        kind = f"multipart/form-data; boundary={_BOUNDARY}"
        before = (
            f"--{_BOUNDARY}\r\nContent-Disposition: form-data; "
            f'name="{multipart}"; filename="photo.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
        ).encode()
        after = f"\r\n--{_BOUNDARY}--\r\n".encode()
    bodies = [before + path.read_bytes() + after for path in sorted(folder.iterdir())]
    return [
        (
            f"POST {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode()
        + body
        for body in bodies
    ]


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Give the usual percentiles of times in milliseconds, each a time that was seen."""
    times = sorted(seconds)
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "most": 1.0}
    return {
        name: round(times[math.ceil(share * len(times)) - 1] * 1e3, 3)
        for name, share in shares.items()
        if times
    }


def main() -> None:
    """Load a server and print the report as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.load", description=__doc__)
    parser.add_argument("url")
    parser.add_argument("folder", type=Path, help="photos, sent in turn")
    parser.add_argument("--clients", type=int, default=0, help="of a closed loop")
    parser.add_argument("--rate", type=float, help="photos a second in an open loop")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0, help="of the arrivals")
    parser.add_argument("--multipart", metavar="FIELD", help="send forms with the photo as FIELD")
    options = parser.parse_args()
    if not (options.clients > 0) ^ bool(options.rate):
        parser.error("give --clients or --rate")
    load = Load(options.url, requests(options.url, options.folder, options.multipart))
    cpu = time.process_time()
    uvloop.run(
        load.open(options.rate, options.seconds, options.seed)
        if options.rate
        else load.closed(options.clients, options.seconds)
    )
    report = Report(
        rate=options.rate,
        clients=options.clients,
        seconds=options.seconds,
        answers=load.answers,
        throughput=load.answers / options.seconds,
        statuses=dict(load.statuses),
        milliseconds=percentiles(load.times),
        cpu_seconds=round(time.process_time() - cpu, 3),
    )
    print(json.dumps(asdict(report)))


if __name__ == "__main__":
    main()
