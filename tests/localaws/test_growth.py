"""The wait for instances, against an endpoint whose time passes by looks."""

import math
from collections.abc import Callable

import pytest

from localaws.growth import MOST_CLIENTS, Growth, GrowthError, Seen, grow, shrink

GROWTH = Growth(least=1, most=3, target=25)


class Endpoint:
    """An endpoint with a target tracking policy: each look is a value of its metric.

    Args:
        share: The part of the clients that is in flight at any time.
        start_looks: How long an instance takes to start.
        instances: How many there are.
        acts: Whether the policy acts.
    """

    def __init__(
        self, share: float = 1.0, start_looks: int = 3, instances: int = 1, acts: bool = True
    ) -> None:
        self.clients = 0
        self.looks = 0
        self._share, self._start_looks, self._acts = share, start_looks, acts
        self._instances = self._wanted = instances
        self._ready_at = 0
        self._high = self._low = 0

    def add(self, clients: int) -> None:
        self.clients += clients

    def look(self) -> Seen:
        self.looks += 1
        if self._instances != self._wanted and self.looks >= self._ready_at:
            self._instances = self._wanted
        in_flight = self.clients * self._share
        each = in_flight / self._instances
        self._high = self._high + 1 if each > GROWTH.target else 0
        self._low = self._low + 1 if each < 0.9 * GROWTH.target else 0
        wanted = self._wanted
        if self._acts and self._instances == wanted:
            if self._high >= 3:
                wanted = math.ceil(self._instances * each / GROWTH.target)
            elif self._low >= 15:
                wanted -= 1
        if wanted != self._wanted:
            self._wanted = min(GROWTH.most, max(GROWTH.least, wanted))
            self._ready_at = self.looks + self._start_looks
            self._high = self._low = 0
        return Seen(self._instances, self._wanted, in_flight, float(self.looks))


def test_as_many_clients_as_keep_all_instances_busy_and_no_more_than_those() -> None:
    # All that are needed are more than two instances are to bear, and not too few for three.
    assert GROWTH.needed > 2 * 25
    assert 0.9 * 25 < GROWTH.needed / 3 < 25
    assert GROWTH.clients >= GROWTH.needed
    endpoint = Endpoint()
    grow(GROWTH, endpoint.look, endpoint.add)
    assert endpoint.look().instances == 3
    assert endpoint.clients == GROWTH.clients


def test_clients_are_added_until_enough_requests_are_in_flight() -> None:
    # Of the first clients no more requests are in flight than two instances are to bear.
    endpoint = Endpoint(share=0.66)
    assert GROWTH.clients * 0.66 < 2 * 25
    grow(GROWTH, endpoint.look, endpoint.add)
    assert endpoint.look().instances == 3
    assert GROWTH.clients < endpoint.clients <= MOST_CLIENTS


def test_fewer_than_are_wanted_may_do() -> None:
    endpoint = Endpoint(share=0.55)
    assert GROWTH.needed > MOST_CLIENTS * 0.55
    grow(GROWTH, endpoint.look, endpoint.add)
    assert endpoint.look().instances == 3


def test_instances_may_take_as_long_as_they_need() -> None:
    endpoint = Endpoint(start_looks=10_000)
    grow(GROWTH, endpoint.look, endpoint.add)
    assert endpoint.looks > 10_000


def test_it_shrinks_when_nobody_asks() -> None:
    endpoint = Endpoint(instances=3)
    shrink(GROWTH, endpoint.look)
    assert endpoint.look().instances == 1


def test_what_was_asked_may_be_answered_first() -> None:
    endpoint = Endpoint(instances=3)
    endpoint.clients = 75

    def look() -> Seen:
        if endpoint.looks == 5000:
            endpoint.clients = 0
        return endpoint.look()

    shrink(GROWTH, look)
    assert endpoint.looks > 5000


def fails(share: float = 1.0, acts: bool = True) -> Callable[[], None]:
    endpoint = Endpoint(share=share, acts=acts)
    return lambda: grow(GROWTH, endpoint.look, endpoint.add)


def test_a_policy_that_does_nothing_is_named_with_what_it_saw() -> None:
    with pytest.raises(GrowthError, match=r"has 1 instances, not 3, after 101 values.* 75 request"):
        fails(acts=False)()


def test_clients_that_are_in_vain_are_named() -> None:
    with pytest.raises(GrowthError, match=r"1\d\d clients keep \d+ requests in flight, and 71 are"):
        fails(share=0.3, acts=False)()


def test_instances_that_never_start_are_given_up() -> None:
    seen = [Seen(1, wanted, 80, value) for value in range(100) for wanted in (1, 3)]
    with pytest.raises(GrowthError, match="went back to 1, again and again"):
        grow(GROWTH, iter(seen).__next__, lambda _: None)


def test_a_metric_without_values_is_no_wait_for_ever() -> None:
    with pytest.raises(GrowthError, match=r"nothing has moved .* has 1 instances, not 3"):
        grow(GROWTH, lambda: Seen(1, 1, 0.0, 0.0), lambda _: None, stall_seconds=0.01)
