import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest

from inference.batching import Classified, MicroBatcher


class Parts:
    """A decoder and a model that note what they are asked, and work while their gates are open.

    A picture's body is its value; 254 cannot be decoded, and a batch with 255 fails.
    """

    def __init__(self) -> None:
        self.decoded: list[int] = []
        self.batches: list[list[int]] = []
        self.alone: list[bool] = []
        self.may_decode, self.may_predict = threading.Event(), threading.Event()
        self.quick: set[int] = set()  # decoded whether or not the gate is open
        self.open()

    def open(self) -> None:
        self.may_decode.set()
        self.may_predict.set()

    def decode(self, body: bytes) -> np.ndarray:
        self.decoded.append(body[0])
        if body[0] not in self.quick:
            self.may_decode.wait()
        if body[0] == 254:
            raise ValueError("damaged")
        return np.full((2, 2, 3), body[0], np.uint8)

    def predict(self, pixels: np.ndarray, is_alone: bool) -> np.ndarray:
        values = pixels[:, 0, 0, 0]
        self.batches.append(values.tolist())
        self.alone.append(is_alone)
        self.may_predict.wait()
        if 255 in values:
            raise RuntimeError("the model failed")
        return values[:, None].astype(np.float32)


Scenario = Callable[[MicroBatcher], Coroutine[Any, Any, None]]


def run(parts: Parts, scenario: Scenario, max_batch: int = 4, threads: int = 1) -> None:
    async def main() -> None:
        batcher = MicroBatcher(parts.decode, parts.predict, max_batch, threads)
        try:
            async with asyncio.timeout(120):
                await scenario(batcher)
        finally:
            parts.open()
            await asyncio.to_thread(batcher.close)

    asyncio.run(main())


def start(batcher: MicroBatcher, *values: int) -> list[asyncio.Task[Classified]]:
    return [asyncio.create_task(batcher.classify(bytes([value]))) for value in values]


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def test_a_lone_picture_is_answered_at_once_with_all_cores() -> None:
    parts = Parts()

    async def scenario(batcher: MicroBatcher) -> None:
        result = await batcher.classify(b"\7")
        assert result.probabilities == [7]
        assert result.batch == 1

    run(parts, scenario, threads=2)
    assert parts.alone == [True]


def test_what_waits_is_answered_in_order_and_in_batches_while_it_is_much() -> None:
    parts = Parts()
    parts.may_predict.clear()

    async def scenario(batcher: MicroBatcher) -> None:
        first = start(batcher, 0)
        await until(lambda: parts.batches)
        others = start(batcher, *range(1, 10))
        await asyncio.sleep(0)
        parts.open()
        results = [await task for task in first + others]
        assert [float(result.probabilities[0]) for result in results] == list(range(10))
        assert [result.batch for result in results] == [1, 4, 4, 4, 4, 4, 4, 4, 4, 1]

    run(parts, scenario)
    assert parts.batches == [[0], [1, 2, 3, 4], [5, 6, 7, 8], [9]]
    # The last one has all cores again; before it, others were still to come.
    assert parts.alone == [True, False, False, True]


def test_threads_share_what_waits_and_little_of_it_is_no_batch() -> None:
    parts = Parts()
    parts.may_predict.clear()

    async def scenario(batcher: MicroBatcher) -> None:
        first = start(batcher, 0, 1)
        await until(lambda: len(parts.batches) == 2)
        others = start(batcher, *range(2, 9))
        await asyncio.sleep(0)
        parts.open()
        await asyncio.gather(*first, *others)

    run(parts, scenario, threads=2)
    assert sorted(value for batch in parts.batches for value in batch) == list(range(9))
    # Of the seven that wait each thread has three, then two, then one.
    assert sorted(len(batch) for batch in parts.batches) == [1, 1, 1, 1, 1, 1, 1, 2]


def test_a_picture_does_not_wait_for_one_that_another_thread_decodes() -> None:
    parts = Parts()
    parts.may_decode.clear()

    async def scenario(batcher: MicroBatcher) -> None:
        stuck = start(batcher, 1)
        await until(lambda: parts.decoded)
        parts.quick.add(2)
        (free,) = start(batcher, 2)
        assert (await free).probabilities == [2]
        assert not stuck[0].done()
        parts.open()
        await stuck[0]

    run(parts, scenario, threads=2)
    assert parts.alone[0] is False


async def held_up(batcher: MicroBatcher, parts: Parts, *values: int) -> list[asyncio.Task[Any]]:
    """Let a first picture hold up the only thread while `values` arrive, which so are a batch."""
    parts.may_decode.clear()
    first = start(batcher, 0)
    await until(lambda: parts.decoded)
    tasks = start(batcher, *values)
    await asyncio.sleep(0)
    parts.may_decode.set()
    await first[0]
    return tasks


def test_a_picture_that_cannot_be_decoded_fails_alone() -> None:
    parts = Parts()

    async def scenario(batcher: MicroBatcher) -> None:
        bad, good, _ = await held_up(batcher, parts, 254, 1, 2)
        with pytest.raises(ValueError, match="damaged"):
            await bad
        assert (await good).probabilities == [1]

    run(parts, scenario)
    assert parts.batches == [[0], [1], [2]]


def test_a_failed_batch_fails_its_requests_and_no_others() -> None:
    parts = Parts()

    async def scenario(batcher: MicroBatcher) -> None:
        *failed, last = await held_up(batcher, parts, 255, 1, 3)
        for task in failed:
            with pytest.raises(RuntimeError, match="failed"):
                await task
        assert (await last).probabilities == [3]

    run(parts, scenario)
    assert parts.batches == [[0], [255, 1], [3]]


def test_a_request_given_up_does_not_harm_its_batch() -> None:
    parts = Parts()
    parts.may_predict.clear()

    async def scenario(batcher: MicroBatcher) -> None:
        first = start(batcher, 0)
        await until(lambda: parts.batches)
        given_up, second, third = start(batcher, 1, 2, 3)
        await asyncio.sleep(0)
        given_up.cancel()
        parts.open()
        assert (await second).probabilities == [2]
        await asyncio.gather(*first, third)

    run(parts, scenario)
    assert parts.batches == [[0], [1, 2], [3]]


def test_closing_answers_what_has_arrived() -> None:
    parts = Parts()
    parts.may_decode.clear()

    async def scenario(batcher: MicroBatcher) -> None:
        tasks = start(batcher, 1, 2)
        await until(lambda: parts.decoded)
        closing = asyncio.create_task(asyncio.to_thread(batcher.close))
        parts.open()
        assert [float((await task).probabilities[0]) for task in tasks] == [1, 2]
        await closing

    run(parts, scenario)
