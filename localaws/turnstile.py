"""Lets requests in, and nobody while the state is taken to be saved."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from localaws import changes

_SETTLE_SECONDS = 1.0

_of_thread = threading.local()


class Turnstile:
    """Counts the requests inside and, while the state is taken, lets none in."""

    def __init__(self) -> None:
        """Nobody is inside."""
        self._changed = threading.Condition()
        self._inside = 0
        self._closed = False

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Around a request."""
        # Who is inside already would wait for itself.
        if getattr(_of_thread, "turnstile", None):
            yield
            return
        self._enter()
        try:
            with changes.noted_at_the_end():
                yield
        finally:
            self._leave()

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Around what nobody may be inside for."""
        with self._changed:
            self._changed.wait_for(lambda: not self._closed)
            self._closed = True
            # What takes longer is not answered yet, and noted again when it is.
            self._changed.wait_for(lambda: not self._inside, _SETTLE_SECONDS)
        try:
            yield
        finally:
            with self._changed:
                self._closed = False
                self._changed.notify_all()

    def _enter(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._closed)
            self._inside += 1
        _of_thread.turnstile = self

    def _leave(self) -> None:
        _of_thread.turnstile = None
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()


@contextmanager
def waiting() -> Iterator[None]:
    """Around what a request waits for without changing anything."""
    turnstile: Turnstile | None = getattr(_of_thread, "turnstile", None)
    if not turnstile:
        yield
        return
    turnstile._leave()
    try:
        yield
    finally:
        turnstile._enter()


def wait_outside(kind: Any, name: str) -> None:
    """Let a method of moto's that only waits do so outside.

    Args:
        kind: Its class, changed in place.
        name: Its name.
    """
    wait = getattr(kind, name)

    @wraps(wait)
    def outside(*given: Any, **named: Any) -> Any:
        with waiting():
            return wait(*given, **named)

    setattr(kind, name, outside)
