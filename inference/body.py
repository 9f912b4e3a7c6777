"""A request's body, read within bounds of size and time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.types import Receive, Scope

from inference.refusal import RefusedError

# Most clients read an error only after they have sent all they had, so that much is read and
# forgotten; a client that never ends is cut off.
_DISCARD_BYTES = 32 * 2**20
_DISCARD_SECONDS = 2.0


class RequestBody:
    """The body of one request.

    Args:
        scope: The request's ASGI scope.
        receive: Its ASGI source of messages.
    """

    def __init__(self, scope: Scope, receive: Receive) -> None:
        headers = Headers(scope=scope)
        self._receive = receive
        self._length = int(headers.get("content-length", 0))
        self._ended = self._length == 0 and "transfer-encoding" not in headers
        # A client that asks before it sends must not be told to go on only to be refused.
        self._is_worth_reading = "expect" not in headers

    async def read(self, limit: int, seconds: float) -> bytes:
        """Read it whole.

        Args:
            limit: The most bytes, whatever the headers say.
            seconds: The most time.

        Raises:
            RefusedError: 413 for a longer body, 408 for a slower one, 499 if the client went away.
        """
        if self._length > limit:
            raise _too_large(limit)
        self._is_worth_reading = True
        try:
            async with asyncio.timeout(seconds):
                return b"".join([chunk async for chunk in self._chunks(limit)])
        except TimeoutError:
            self._is_worth_reading = False
            raise RefusedError(
                408, "body_timeout", f"the body did not arrive within {seconds:g} seconds"
            ) from None

    async def discard(self) -> bool:
        """Read and forget the rest; tell whether the end was reached."""
        if self._is_worth_reading:
            with suppress(TimeoutError, RefusedError):
                async with asyncio.timeout(_DISCARD_SECONDS):
                    async for _ in self._chunks(_DISCARD_BYTES):
                        pass
        return self._ended

    async def _chunks(self, limit: int) -> AsyncIterator[bytes]:
        total = 0
        while not self._ended:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                # nginx's status; nobody is left to read it, but it is logged and counted.
                raise RefusedError(499, "client_gone", "the client left before its body was sent")
            self._ended = not message.get("more_body", False)
            total += len(message["body"])
            if total > limit:
                raise _too_large(limit)
            yield message["body"]


def _too_large(limit: int) -> RefusedError:
    return RefusedError(413, "too_large", f"the body must not exceed {limit} bytes")
