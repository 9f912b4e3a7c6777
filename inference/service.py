"""One model in service: admission, decoding, batching and the way to an orderly end."""

import asyncio
import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from PIL import Image

from inference.batching import MicroBatcher
from inference.contract import answer
from inference.predictor import Predictor
from inference.preprocess import load_image
from inference.refusal import RefusedError

# A load balancer must have the time to see that /ping fails before the port closes.
_DRAIN_AT_LEAST_S = 0.5
# SageMaker kills a container 30 seconds after SIGTERM.
_DRAIN_AT_MOST_S = 25.0


@dataclass(frozen=True)
class Answer:
    """An answered request: the body, and for the log where its time went (milliseconds)."""

    body: dict[str, Any]
    batch: int
    decode_ms: float
    queue_ms: float
    inference_ms: float


class Service:
    """Answers pictures; all methods belong to the event loop's thread.

    Args:
        predictor: The model.
        max_batch: The most pictures in a batch.
        queue: The most requests admitted and not yet answered.
    """

    def __init__(self, predictor: Predictor, max_batch: int, queue: int) -> None:
        self._model = predictor.model
        self._queue = queue
        self._batcher = MicroBatcher(
            lambda body: load_image(body, self._model.preprocess),
            predictor.probabilities,
            max_batch,
            predictor.threads,
        )
        self._is_warm = False
        self._drain_started: float | None = None
        self.in_flight = 0

    @property
    def is_ready(self) -> bool:
        """Whether new requests are welcome."""
        return self._is_warm and self._drain_started is None

    @property
    def is_draining(self) -> bool:
        """Whether `drain` was called."""
        return self._drain_started is not None

    @property
    def is_drained(self) -> bool:
        """Whether the server may close its port."""
        if self._drain_started is None:
            return False
        waited = time.monotonic() - self._drain_started
        return waited > (_DRAIN_AT_MOST_S if self.in_flight else _DRAIN_AT_LEAST_S)

    async def start(self) -> None:
        """Answer one picture, and so be ready."""
        await self.answer(_warm_up_picture(self._model.preprocess.resize))
        self._is_warm = True

    def drain(self) -> None:
        """Turn new requests away from now on; those admitted are still answered."""
        self._drain_started = self._drain_started or time.monotonic()

    async def stop(self) -> None:
        """End the threads."""
        await asyncio.to_thread(self._batcher.close)

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Count a request as in flight for the time of the block.

        Raises:
            RefusedError: 503 before the model is warm and while draining, 429 if the queue is full.
        """
        if not self.is_ready:
            state = "shutting down" if self.is_draining else "loading its model"
            raise RefusedError(503, "unavailable", f"this server is {state}; ask another one")
        if self.in_flight >= self._queue:
            message = f"{self._queue} requests are waiting already; try again in a second"
            raise RefusedError(429, "queue_full", message, {"Retry-After": "1"})
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1

    async def answer(self, body: bytes) -> Answer:
        """Classify an image file.

        Raises:
            ImageError: The bytes are no usable image.
        """
        started = time.perf_counter()
        result = await self._batcher.classify(body)
        queue_s = time.perf_counter() - started - result.decode_s - result.inference_s
        return Answer(
            body=answer(self._model, result.probabilities),
            batch=result.batch,
            decode_ms=_milliseconds(result.decode_s),
            queue_ms=_milliseconds(queue_s),
            inference_ms=_milliseconds(result.inference_s),
        )


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1e3, 2)


def _warm_up_picture(side: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side)).save(file, "JPEG")
    return file.getvalue()
