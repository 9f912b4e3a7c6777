"""Micro-batching: requests that arrive together are answered together.

Each thread of the model runs a batch of its own: they never wait for each other. While all are
busy, pictures queue up, and the next batch takes its share of them. Waiting for more pays only if
more are on their way, so a batch waits, at most `max_delay_s`, while other pictures are being
decoded and it is not full. A lone request never waits, and has the help of all threads.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np

from inference.predictor import Probabilities
from inference.preprocess import Pixels


@dataclass(frozen=True)
class Classified:
    """One picture's result.

    Attributes:
        probabilities: Probabilities [classes].
        inference_s: Seconds that the model took for the whole batch.
        batch: Pictures in the batch.
    """

    probabilities: Probabilities
    inference_s: float
    batch: int


class MicroBatcher:
    """Feeds the model's threads; all methods belong to the event loop's thread.

    Args:
        predict: Maps pixels [N, crop, crop, 3] to probabilities [N, classes]; told whether it is
            alone, and so may use all threads.
        max_batch: The most pictures in a batch.
        max_delay_s: The longest wait, in seconds, for pictures that are being decoded.
        threads: The most batches at a time.
    """

    def __init__(
        self,
        predict: Callable[[Pixels, bool], Probabilities],
        max_batch: int,
        max_delay_s: float,
        threads: int,
    ) -> None:
        self._predict = predict
        self._max_batch = max_batch
        self._max_delay_s = max_delay_s
        self._threads = threads
        self._waiting: deque[tuple[Pixels, asyncio.Future[Classified]]] = deque()
        self._expected = 0
        self._changed = asyncio.Event()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="inference")
        self._running: set[asyncio.Task[None]] = set()

    @contextmanager
    def expected(self) -> Iterator[None]:
        """Announce, for the time of the block, that a picture is being decoded."""
        self._expected += 1
        try:
            yield
        finally:
            self._expected -= 1
            self._changed.set()

    async def classify(self, pixels: Pixels) -> Classified:
        """Classify pixels [crop, crop, 3] as part of a batch."""
        result: asyncio.Future[Classified] = asyncio.get_running_loop().create_future()
        self._waiting.append((pixels, result))
        self._changed.set()
        return await result

    async def run(self) -> None:
        """Answer batches until cancelled."""
        with self._pool:
            while True:
                await self._collect()
                share = -(-len(self._waiting) // self._threads)
                size = min(share, self._max_batch)
                batch = [self._waiting.popleft() for _ in range(size)]
                is_alone = not (self._running or self._waiting or self._expected)
                task = asyncio.create_task(self._answer(batch, is_alone))
                self._running.add(task)
                task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._running.discard(task)
        self._changed.set()

    async def _collect(self) -> None:
        while not self._waiting or len(self._running) == self._threads:
            await self._next_change()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._max_delay_s):
                while self._expected and len(self._waiting) < self._max_batch:
                    await self._next_change()

    async def _next_change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _answer(
        self, batch: list[tuple[Pixels, asyncio.Future[Classified]]], is_alone: bool
    ) -> None:
        loop = asyncio.get_running_loop()
        started = time.perf_counter()
        try:
            pixels = np.stack([pixels for pixels, _ in batch])
            rows = await loop.run_in_executor(self._pool, self._predict, pixels, is_alone)
        except Exception as error:  # the requests of this batch fail, the next ones need not
            for _, result in batch:
                if not result.done():
                    result.set_exception(error)
            return
        seconds = time.perf_counter() - started
        for (_, result), row in zip(batch, rows, strict=True):
            if not result.done():
                result.set_result(Classified(row, seconds, len(batch)))
