"""A thread for each core, which decodes pictures and runs the model on those that are decoded.

More threads would take each other's turns on the cores, and fewer would leave one idle. A thread
that is free decodes first, so that pictures that arrived together are answered together, which is
less work: the next batch begins once nothing is left to decode, or when it would be full. Then it
takes its share of what the free threads have before them. Nobody ever waits while there is
something to do, and a lone picture has the help of all threads.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from inference.predictor import Probabilities
from inference.preprocess import Pixels


@dataclass(frozen=True)
class Classified:
    """One picture's result.

    Attributes:
        probabilities: Probabilities [classes].
        decode_s: Seconds that its decoding took.
        inference_s: Seconds that the model took for the whole batch.
        batch: Pictures in the batch.
    """

    probabilities: Probabilities
    decode_s: float
    inference_s: float
    batch: int


class _Picture:
    """A picture on its way: a body first, then pixels [crop, crop, 3]."""

    def __init__(self, body: bytes) -> None:
        self.loop = asyncio.get_running_loop()
        self.result: asyncio.Future[Classified] = self.loop.create_future()
        self.body = body
        self.pixels: Pixels
        self.decode_s = 0.0

    def answer(self, outcome: Classified | Exception) -> None:
        """Set the result; on the event loop."""
        if self.result.done():  # given up
            return
        if isinstance(outcome, Exception):
            self.result.set_exception(outcome)
        else:
            self.result.set_result(outcome)


class MicroBatcher:
    """Decodes and classifies pictures in threads of its own, which run until `close`.

    Args:
        decode: Maps a body to pixels [crop, crop, 3].
        predict: Maps pixels [N, crop, crop, 3] to probabilities [N, classes]; told whether it is
            alone, and so may use all cores.
        max_batch: The most pictures in a batch.
        threads: The most pictures or batches worked on at a time.
    """

    def __init__(
        self,
        decode: Callable[[bytes], Pixels],
        predict: Callable[[Pixels, bool], Probabilities],
        max_batch: int,
        threads: int,
    ) -> None:
        self._decode = decode
        self._predict = predict
        self._max_batch = max_batch
        self._changed = threading.Condition()
        self._arrived: deque[_Picture] = deque()
        self._decoded: deque[_Picture] = deque()
        self._decoding = 0
        self._predicting = 0
        self._is_closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"worker-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    async def classify(self, body: bytes) -> Classified:
        """Decode and classify a picture.

        Raises:
            Exception: What `decode` raised for this picture, or `predict` for its batch.
        """
        picture = _Picture(body)
        with self._changed:
            self._arrived.append(picture)
            self._changed.notify()
        return await picture.result

    def close(self) -> None:
        """End the threads once nothing is left to do."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._arrived and not self._decoded:
                    if self._is_closed:
                        return
                    self._changed.wait()
                task = self._next()
            task()

    def _next(self) -> Callable[[], None]:
        """Take a picture to decode, or a batch to classify."""
        if self._arrived and len(self._decoded) < self._max_batch:
            self._decoding += 1
            return partial(self._decode_one, self._arrived.popleft())
        free = len(self._threads) - self._predicting
        share = -(-(len(self._decoded) + self._decoding) // free)
        size = min(self._max_batch, len(self._decoded), share)
        batch = [self._decoded.popleft() for _ in range(size)]
        is_alone = not (self._predicting or self._decoding or self._arrived or self._decoded)
        self._predicting += 1
        return partial(self._answer, batch, is_alone)

    def _decode_one(self, picture: _Picture) -> None:
        started = time.perf_counter()
        error: Exception | None = None
        try:
            picture.pixels = self._decode(picture.body)
        except Exception as reason:
            error = reason
        picture.decode_s = time.perf_counter() - started
        with self._changed:
            self._decoding -= 1
            if error is None:
                self._decoded.append(picture)
        if error is not None:
            _deliver([picture], [error])

    def _answer(self, batch: Sequence[_Picture], is_alone: bool) -> None:
        started = time.perf_counter()
        outcomes: Sequence[Classified | Exception]
        try:
            rows = self._predict(np.stack([picture.pixels for picture in batch]), is_alone)
        except Exception as error:  # the requests of this batch fail, the next ones need not
            outcomes = [error] * len(batch)
        else:
            seconds = time.perf_counter() - started
            outcomes = [
                Classified(row, picture.decode_s, seconds, len(batch))
                for picture, row in zip(batch, rows, strict=True)
            ]
        with self._changed:
            self._predicting -= 1
        _deliver(batch, outcomes)


def _deliver(batch: Sequence[_Picture], outcomes: Sequence[Classified | Exception]) -> None:
    """Hand results over to the event loop, in one step."""

    def answer() -> None:
        for picture, outcome in zip(batch, outcomes, strict=True):
            picture.answer(outcome)

    batch[0].loop.call_soon_threadsafe(answer)
