"""HTTP servers on the loopback interface, for the parts of AWS that are stood in for here."""

import json
import sys
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from localaws import gate, regions
from localaws.processes import Running

LOOPBACK = "127.0.0.1"

_POLL_SECONDS = 0.02


class Requests(BaseHTTPRequestHandler):
    """Reads and answers whole bodies over connections that stay open."""

    protocol_version = "HTTP/1.1"
    # Two small writes per answer would otherwise wait for each other's acknowledgement.
    disable_nagle_algorithm = True

    def parse_request(self) -> bool:
        """Read a request's head; false if it was answered already."""
        if not super().parse_request():
            return False
        if refused := self.refused():
            # Its body would be taken for the next request.
            self.close_connection = True
            status, why = refused
            self.answer_json(status, {"message": why}, {"Connection": "close"})
        return not refused

    def refused(self) -> tuple[int, str] | None:
        """Status and reason if a request is not taken, going by its head."""
        if "Transfer-Encoding" in self.headers:
            return 411, "a body needs a Content-Length here, not a Transfer-Encoding"
        why = gate.bad_length(self.headers)
        return (400, why) if why else None

    def body(self) -> bytes:
        """The request's whole body; it has to be read before an answer."""
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        """Send a whole answer."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def answer_json(
        self, status: int, content: object, headers: Mapping[str, str] | None = None
    ) -> None:
        """Send a whole answer in JSON."""
        self.answer(
            status,
            json.dumps(content).encode(),
            {"Content-Type": "application/json", **(headers or {})},
        )

    def log_message(self, format: str, *args: object) -> None:
        """Keep requests out of this process's standard error."""


class GuardedRequests(Requests):
    """Requests of programs on this machine; those of web pages are refused."""

    def refused(self) -> tuple[int, str] | None:
        """Status and reason if a request is not taken, going by its head."""
        why = gate.stranger(self.path, self.headers)
        return (403, why) if why else super().refused()


class _Server(ThreadingHTTPServer):
    # The default of 5 refuses connections when many clients come at once.
    request_queue_size = 4096

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._region = regions.current()

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        with regions.within(self._region):
            super().process_request_thread(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # Clients that time out or are killed leave half-open connections behind.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class LoopbackServer(Running):
    """An HTTP server on the loopback interface."""

    def __init__(self, requests: type[Requests], port: int = 0) -> None:
        """Start serving, one thread for each connection.

        Args:
            requests: Answers them.
            port: 0 for a free one.

        Raises:
            OSError: The port is in use.
        """
        self._server = _Server((LOOPBACK, port), requests)
        self.address = f"{LOOPBACK}:{self._server.server_port}"
        regions.Thread(
            target=self._server.serve_forever, args=(_POLL_SECONDS,), daemon=True
        ).start()

    def stop(self) -> None:
        """End it; connections that are open are left to their clients."""
        self._server.shutdown()
        self._server.server_close()
