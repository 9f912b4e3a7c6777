"""HTTP connections whose headers are bounded in size and time, as uvicorn leaves them open."""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEADER_BYTES = 64 * 2**10
HEADER_SECONDS = 20.0


class BoundedProtocol(HttpToolsProtocol):
    """Closes a connection whose headers are endless or slow; bodies are bounded elsewhere."""

    _header_bytes = 0
    _is_in_headers = True
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect headers soon."""
        super().connection_made(transport)
        self._set_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadline."""
        self._cancel_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what arrives before the end of the headers."""
        if self._is_in_headers:
            self._header_bytes += len(data)
        super().data_received(data)
        if self._is_in_headers and self._header_bytes > MAX_HEADER_BYTES:
            self.transport.close()

    def on_message_begin(self) -> None:
        """Expect the rest of the headers soon."""
        super().on_message_begin()
        self._set_deadline()

    def on_headers_complete(self) -> None:
        """Stop counting."""
        self._is_in_headers, self._header_bytes = False, 0
        self._cancel_deadline()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Count again: what follows are the next request's headers."""
        super().on_message_complete()
        self._is_in_headers = True

    def _set_deadline(self) -> None:
        self._cancel_deadline()
        self._deadline = self.loop.call_later(HEADER_SECONDS, self.transport.close)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
