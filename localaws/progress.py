"""Waits that last as long as something moves: how long that is depends on the machine."""

import time
from collections.abc import Callable, Hashable

STALL_SECONDS = 900.0
"""How long nothing may move before something is taken for stuck."""


class Progress:
    """Tells whether what is waited for still moves."""

    def __init__(
        self, seconds: float = STALL_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin to wait.

        Args:
            seconds: How long nothing may move.
            clock: Gives the time in seconds.
        """
        self.seconds = seconds
        self._clock = clock
        self._seen: tuple[Hashable, ...] = ()
        self._moved_at = clock()

    def stalled(self, *seen: Hashable) -> bool:
        """Whether all that is seen has been the same for that long."""
        now = self._clock()
        if seen != self._seen:
            self._seen, self._moved_at = seen, now
        return now - self._moved_at > self.seconds
