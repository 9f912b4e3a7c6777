"""An endpoint that is to grow under load and to shrink without, and what is waited for.

Time is counted in values of the metric that the scaling policy reads: one that has had enough of
them and does nothing is at fault, however fast or slow the machine is.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from localaws.progress import STALL_SECONDS, Progress

MORE_CLIENTS = 8
MOST_CLIENTS = 120
"""An inference server takes 128 requests at a time."""
LOOKS = 5
"""So many looks in a row, of a fifth of a second each, can be seen in a picture."""

# Values until what was changed shows, and until a policy must have acted: the alarm for fewer
# instances takes 15 of them, and as many for the next.
_SETTLED_VALUES = 4
_MOST_VALUES = 100
_MOST_FALLS = 3
# The part of the target below which there are too many instances.
_LOW = 0.9


class GrowthError(Exception):
    """The endpoint does not get as many instances as it should; the message says why."""


@dataclass(frozen=True)
class Growth:
    """How an endpoint scales.

    Attributes:
        least: The fewest instances.
        most: The most.
        target: Requests in flight that each is to have.
    """

    least: int
    most: int
    target: float

    @property
    def needed(self) -> float:
        """Requests in flight that need the most instances, and for which they are not too many."""
        return self.target * self.most * (1 + _LOW) / 2

    @property
    def clients(self) -> int:
        """So many clients to begin with: all but a few wait for the endpoint at any time."""
        return math.ceil(self.needed * 1.05)


@dataclass(frozen=True)
class Seen:
    """A look at an endpoint.

    Attributes:
        instances: Those in service.
        wanted: Those that the policy wants.
        in_flight: Requests in flight on all of them, by the newest value of the policy's metric.
        value: Which value that is: its time.
    """

    instances: int
    wanted: int
    in_flight: float
    value: float


def grow(
    growth: Growth,
    look: Callable[[], Seen],
    add: Callable[[int], None],
    stall_seconds: float = STALL_SECONDS,
) -> None:
    """Wait until the endpoint has its most instances; add clients until they are needed.

    It may have fewer soon after: looks come seldom on a busy machine, and instances go.

    Args:
        growth: How it scales.
        look: Waits a while and looks.
        add: Adds clients.
        stall_seconds: How long nothing may be seen to move.

    Raises:
        GrowthError: Nothing comes of it.
    """
    clients = growth.clients
    add(clients)
    watch = _Watch(growth.most, 1, stall_seconds)
    while not watch.is_there(seen := look()):
        if seen.in_flight >= growth.needed:
            watch.require_deed(seen, f"{seen.in_flight:.0f} requests in flight")
        elif clients + MORE_CLIENTS > MOST_CLIENTS:
            # A few less than are needed may do.
            if watch.values > _MOST_VALUES:
                raise GrowthError(
                    f"{clients} clients keep {seen.in_flight:.0f} requests in flight, and "
                    f"{growth.needed:.0f} are needed for {growth.most} instances"
                )
        elif watch.values >= _SETTLED_VALUES:
            add(MORE_CLIENTS)
            clients += MORE_CLIENTS
            watch.values = 0


def shrink(growth: Growth, look: Callable[[], Seen], stall_seconds: float = STALL_SECONDS) -> None:
    """Wait until the endpoint has its fewest instances, now that nobody asks.

    Args:
        growth: How it scales.
        look: Waits a while and looks.
        stall_seconds: How long nothing may be seen to move.

    Raises:
        GrowthError: Nothing comes of it.
    """
    watch = _Watch(growth.least, LOOKS, stall_seconds)
    while not watch.is_there(seen := look()):
        if seen.in_flight >= growth.target * _LOW * seen.instances:
            watch.values = 0  # what was asked is still being answered
        watch.require_deed(seen, f"{seen.in_flight:.0f} requests in flight")


class _Watch:
    """Counts the metric's values since the endpoint was last seen to change."""

    def __init__(self, instances: int, looks: int, stall_seconds: float) -> None:
        self.values = 0
        self._instances, self._looks = instances, looks
        self._there = 0
        self._falls = 0
        self._last: Seen | None = None
        self._progress = Progress(stall_seconds)

    def is_there(self, seen: Seen) -> bool:
        """Take a look into account; whether it has had the instances for enough looks."""
        last, self._last = self._last, seen
        if self._progress.stalled(seen.instances, seen.wanted, seen.value):
            raise GrowthError(
                f"nothing has moved for {self._progress.seconds / 60:.0f} minutes: the endpoint "
                f"has {seen.instances} instances, not {self._instances}"
            )
        self._there = self._there + 1 if seen.instances == self._instances else 0
        if last is None:
            return self._there >= self._looks
        if seen.instances != seen.wanted or seen.wanted != last.wanted:
            self.values = 0
        elif seen.value != last.value:
            self.values += 1
        # More are wanted than before, or fewer: an instance that does not start is given up.
        if abs(seen.wanted - self._instances) > abs(last.wanted - self._instances):
            self._falls += 1
            if self._falls > _MOST_FALLS:
                raise GrowthError(
                    f"the endpoint was to have {self._instances} instances and went back to "
                    f"{seen.wanted}, again and again"
                )
        return self._there >= self._looks

    def require_deed(self, seen: Seen, told: str) -> None:
        """Fail if the policy has had values enough to act on.

        Raises:
            GrowthError: It has.
        """
        if self.values > _MOST_VALUES and seen.instances != self._instances:
            raise GrowthError(
                f"the endpoint has {seen.instances} instances, not {self._instances}, after "
                f"{self.values} values of the policy's metric; the last one: {told}"
            )
