"""Requests to an endpoint through SageMaker's runtime: one by one, or from many clients."""

import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from threading import Event, Lock, Thread
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError


@dataclass
class Tally:
    """What clients were answered.

    Attributes:
        answers: How many answers each model gave, by its digest.
        failures: What the failed requests were told.
        seconds: From the first request to the last answer.
    """

    answers: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def requests(self) -> int:
        """All requests."""
        return self.answers.total() + len(self.failures)


@dataclass(frozen=True)
class Endpoint:
    """An endpoint by name, asked through a boto3 client of "sagemaker-runtime"."""

    runtime: Any
    name: str

    def ask(self, photo: bytes) -> dict[str, Any]:
        """What it says of a photo.

        Raises:
            ClientError: It gave no answer.
        """
        answer = self.runtime.invoke_endpoint(
            EndpointName=self.name, Body=photo, ContentType="application/octet-stream"
        )
        content: dict[str, Any] = json.loads(answer["Body"].read())
        return content

    def ask_alone(self, photos: Sequence[bytes], requests: int) -> list[float]:
        """Ask for photos one after the other; give the times in milliseconds."""
        times = []
        for photo, _ in zip(cycle(photos), range(requests), strict=False):
            started = time.perf_counter()
            self.ask(photo)
            times.append((time.perf_counter() - started) * 1000)
        return times

    @contextmanager
    def clients(self, photos: Sequence[bytes], count: int) -> Iterator[Tally]:
        """Until the block ends, let clients ask as fast as they get answers.

        The tally grows meanwhile; its `seconds` are set at the end.
        """
        tally, lock, end = Tally(), Lock(), Event()

        def client(first: int) -> None:
            for photo in cycle([*photos[first:], *photos[:first]]):
                if end.is_set():
                    return
                try:
                    digest = self.ask(photo)["model"]["digest"]
                except (ClientError, BotoCoreError) as error:
                    with lock:
                        tally.failures.append(str(error))
                else:
                    with lock:
                        tally.answers[digest] += 1

        started = time.monotonic()
        threads = [Thread(target=client, args=(n % len(photos),)) for n in range(count)]
        for thread in threads:
            thread.start()
        try:
            yield tally
        finally:
            end.set()
            for thread in threads:
                thread.join()
            tally.seconds = time.monotonic() - started
