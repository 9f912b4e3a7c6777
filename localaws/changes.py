"""Which services may have changed since the state was saved.

A service is touched when its backend is asked for, which is how moto comes to all that it keeps.
Whatever an answer tells was read so; so what was answered is saved, whoever changed it.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

EVERYTHING = object
"""Instead of a service: all of them."""

_touched: set[type] = set()
_of_thread = threading.local()


def touch(service: type) -> None:
    """Note that a service may be changed now, or within the request that this thread answers.

    Args:
        service: The class of its backends.
    """
    _touched.add(service)
    within: set[type] | None = getattr(_of_thread, "touched", None)
    if within is not None:
        within.add(service)


@contextmanager
def noted_at_the_end() -> Iterator[None]:
    """Around a request: it may change what it touched until it ends."""
    within: set[type] = set()
    # What waits outside of its request may change something of its own meanwhile.
    outer, _of_thread.touched = getattr(_of_thread, "touched", None), within
    try:
        yield
    finally:
        _of_thread.touched = outer
        _touched.update(within)


def take() -> set[type]:
    """The services that were touched since this was asked last."""
    global _touched
    taken, _touched = _touched, set()
    return taken
