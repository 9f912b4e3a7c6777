"""Lets requests in, and nobody while the state is saved."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_SETTLE_SECONDS = 5.0


class Turnstile:
    """Counts the requests inside and, while the state is saved, lets none in."""

    def __init__(self) -> None:
        """Nobody is inside."""
        self._changed = threading.Condition()
        self._inside = 0
        self._closed = False
        self._of_thread = threading.local()
        self.passed = 0
        """How many have come in so far."""

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Around a request."""
        # Who is inside already would wait for itself.
        if getattr(self._of_thread, "inside", False):
            yield
            return
        with self._changed:
            self._changed.wait_for(lambda: not self._closed)
            self._inside += 1
            self.passed += 1
        self._of_thread.inside = True
        try:
            yield
        finally:
            self._of_thread.inside = False
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Around what a request within `inside` waits for."""
        if not getattr(self._of_thread, "inside", False):
            yield
            return
        self._of_thread.inside = False
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._changed.wait_for(lambda: not self._closed)
                self._inside += 1
            self._of_thread.inside = True

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Around what nobody may be inside for."""
        with self._changed:
            self._changed.wait_for(lambda: not self._closed)
            self._closed = True
            # A request that waits for something, such as a message in a queue, changes nothing.
            self._changed.wait_for(lambda: not self._inside, _SETTLE_SECONDS)
        try:
            yield
        finally:
            with self._changed:
                self._closed = False
                self._changed.notify_all()
