"""One moment by which everything has to be over."""

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Deadline:
    """A moment on the monotonic clock, in seconds."""

    ends_at: float

    @classmethod
    def after(cls, seconds: float) -> "Deadline":
        """The moment `seconds` from now."""
        return cls(time.monotonic() + seconds)

    def left(self, at_most: float = math.inf) -> float:
        """Seconds that one wait may take: what is left, capped at `at_most`.

        Raises:
            TimeoutError: Nothing is left.
        """
        left = self.ends_at - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return min(left, at_most)

    def run(self, call: Callable[[], T]) -> T:
        """The result of `call`, which is abandoned at the deadline.

        For calls that take no time-out of their own or cut single waits only. An abandoned call
        ends in its own time on a daemon thread; its result is dropped.

        Raises:
            TimeoutError: The call was not over in time.
        """
        future: Future[T] = Future()

        def work() -> None:
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)

        left = self.left()
        threading.Thread(target=work, daemon=True).start()
        return future.result(timeout=left)
