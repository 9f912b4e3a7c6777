import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from inference.batching import Classified, MicroBatcher

FOREVER = 3600.0
"""A delay that no test survives if it is waited for."""


class Model:
    """Gives each picture its own first value; ends only while `gate` is open."""

    def __init__(self) -> None:
        self.alone: list[bool] = []
        self.batches: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.is_running = threading.Event()

    def __call__(self, pixels: np.ndarray, is_alone: bool) -> np.ndarray:
        self.alone.append(is_alone)
        self.is_running.set()
        self.gate.wait()
        self.batches.append(len(pixels))
        if pixels.max() == 255:
            raise RuntimeError("the model failed")
        return pixels.reshape(len(pixels), -1)[:, :1].astype(np.float32)


def picture(value: int) -> np.ndarray:
    return np.full((2, 2, 3), value, np.uint8)


def run(
    model: Model,
    scenario: Callable[[MicroBatcher], Coroutine[Any, Any, None]],
    max_batch: int = 4,
    max_delay_s: float = FOREVER,
    threads: int = 1,
) -> None:
    async def main() -> None:
        batcher = MicroBatcher(model, max_batch, max_delay_s, threads)
        loop = asyncio.create_task(batcher.run())
        try:
            async with asyncio.timeout(120):
                await scenario(batcher)
        finally:
            model.gate.set()
            loop.cancel()
            await asyncio.wait([loop])

    asyncio.run(main())


async def classify(batcher: MicroBatcher, values: range) -> list[Classified]:
    return await asyncio.gather(*(batcher.classify(picture(value)) for value in values))


def test_a_lone_request_does_not_wait() -> None:
    model = Model()

    async def scenario(batcher: MicroBatcher) -> None:
        result = await batcher.classify(picture(7))
        assert result.probabilities == [7]
        assert result.batch == 1

    run(model, scenario)


def test_what_queues_up_while_the_model_runs_is_one_batch_up_to_the_limit() -> None:
    model = Model()
    model.gate.clear()

    async def scenario(batcher: MicroBatcher) -> None:
        first = asyncio.create_task(batcher.classify(picture(0)))
        await asyncio.to_thread(model.is_running.wait)
        others = asyncio.create_task(classify(batcher, range(1, 7)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        model.gate.set()
        results = [await first, *await others]
        assert [float(result.probabilities[0]) for result in results] == list(range(7))
        assert [result.batch for result in results] == [1, 4, 4, 4, 4, 2, 2]

    run(model, scenario)
    assert model.batches == [1, 4, 2]


def test_a_batch_waits_for_pictures_that_are_being_decoded() -> None:
    model = Model()

    async def scenario(batcher: MicroBatcher) -> None:
        with batcher.expected():
            first = asyncio.create_task(batcher.classify(picture(1)))
            for _ in range(10):
                await asyncio.sleep(0)
            assert not model.is_running.is_set()
        second = await batcher.classify(picture(2))
        assert (await first).batch == second.batch == 2

    run(model, scenario)


def test_a_batch_does_not_wait_for_a_picture_that_proves_undecodable() -> None:
    async def scenario(batcher: MicroBatcher) -> None:
        with suppress(ValueError), batcher.expected():
            first = asyncio.create_task(batcher.classify(picture(1)))
            await asyncio.sleep(0)
            raise ValueError("damaged")
        assert (await first).batch == 1

    run(Model(), scenario)


def test_a_batch_does_not_wait_longer_than_allowed() -> None:
    async def scenario(batcher: MicroBatcher) -> None:
        with batcher.expected():
            assert (await batcher.classify(picture(1))).batch == 1

    run(Model(), scenario, max_delay_s=0.001)


def test_a_full_batch_does_not_wait() -> None:
    async def scenario(batcher: MicroBatcher) -> None:
        with batcher.expected():
            assert [result.batch for result in await classify(batcher, range(4))] == [4] * 4

    run(Model(), scenario)


def test_a_failed_batch_fails_its_requests_and_no_others() -> None:
    async def scenario(batcher: MicroBatcher) -> None:
        with pytest.raises(RuntimeError, match="failed"):
            await batcher.classify(picture(255))
        assert (await batcher.classify(picture(3))).probabilities == [3]

    run(Model(), scenario)


def test_a_request_given_up_does_not_harm_its_batch() -> None:
    model = Model()
    model.gate.clear()

    async def scenario(batcher: MicroBatcher) -> None:
        first, second = (asyncio.create_task(batcher.classify(picture(v))) for v in (1, 2))
        await asyncio.to_thread(model.is_running.wait)
        first.cancel()
        model.gate.set()
        assert (await second).probabilities == [2]

    run(model, scenario)


def test_threads_run_batches_beside_each_other_and_a_lone_one_has_them_all() -> None:
    model = Model()
    model.gate.clear()

    async def scenario(batcher: MicroBatcher) -> None:
        first = asyncio.create_task(batcher.classify(picture(0)))
        await asyncio.to_thread(model.is_running.wait)
        others = asyncio.create_task(classify(batcher, range(1, 5)))
        while len(model.alone) < 2:
            await asyncio.sleep(0.001)
        assert model.alone == [True, False]
        model.gate.set()
        results = [await first, *await others]
        assert [float(result.probabilities[0]) for result in results] == list(range(5))
        assert [result.batch for result in results[:3]] == [1, 2, 2]

    run(model, scenario, threads=2)
