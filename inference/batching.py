"""A thread for each core, which decodes pictures and runs the model on them in their order.

More threads would take each other's turns on the cores, and fewer would leave one idle. A batch is
a few percent less work than its pictures one by one, but the first of them waits for the last, so
that there are batches only while every thread has several pictures waiting. Nobody ever waits while
a thread is free, and a lone picture has the help of all.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
    """A picture on its way."""

    def __init__(self, body: bytes) -> None:
        self.loop = asyncio.get_running_loop()
        self.result: asyncio.Future[Classified] = self.loop.create_future()
        self.body = body

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
        threads: The most batches worked on at a time.
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
        self._busy = 0
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
                while not self._arrived:
                    if self._is_closed:
                        return
                    self._changed.wait()
                size = len(self._arrived) // len(self._threads) - 1
                size = max(1, min(size, self._max_batch))
                pictures = [self._arrived.popleft() for _ in range(size)]
                self._busy += 1
            self._classify(pictures)
            with self._changed:
                self._busy -= 1

    def _classify(self, pictures: Sequence[_Picture]) -> None:
        decoded: list[tuple[_Picture, Pixels, float]] = []
        for picture in pictures:
            started = time.perf_counter()
            try:
                pixels = self._decode(picture.body)
            except Exception as error:
                _deliver([picture], [error])
            else:
                decoded.append((picture, pixels, time.perf_counter() - started))
        if decoded:
            self._predict_batch(*zip(*decoded, strict=True))

    def _predict_batch(
        self, pictures: Sequence[_Picture], pixels: Sequence[Pixels], decode_s: Sequence[float]
    ) -> None:
        with self._changed:
            is_alone = self._busy == 1 and not self._arrived
        started = time.perf_counter()
        outcomes: Sequence[Classified | Exception]
        try:
            rows = self._predict(np.stack(pixels), is_alone)
        except Exception as error:  # the requests of this batch fail, the next ones need not
            outcomes = [error] * len(pictures)
        else:
            seconds = time.perf_counter() - started
            outcomes = [
                Classified(row, own_s, seconds, len(pictures))
                for row, own_s in zip(rows, decode_s, strict=True)
            ]
        _deliver(pictures, outcomes)


def _deliver(batch: Sequence[_Picture], outcomes: Sequence[Classified | Exception]) -> None:
    """Hand results over to the event loop, in one step."""

    def answer() -> None:
        for picture, outcome in zip(batch, outcomes, strict=True):
            picture.answer(outcome)

    batch[0].loop.call_soon_threadsafe(answer)
