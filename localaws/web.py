"""The HTTP server: a thread for each request."""

import socket
import threading
from typing import Any

from moto.moto_server.werkzeug_app import MotoRequestHandler
from werkzeug.serving import BaseWSGIServer, make_server

from localaws.application import Application
from localaws.iam import authentication
from localaws.incoming import CONTINUE

_POLL_SECONDS = 0.05
_SILENCE_SECONDS = 300.0


class _Handler(MotoRequestHandler):
    # Two small writes per answer would otherwise wait for each other's acknowledgement.
    disable_nagle_algorithm = True
    # Who sends or takes nothing for so long is gone.
    timeout = _SILENCE_SECONDS

    _expects: str | None = None

    def handle_expect_100(self) -> bool:
        """Tell nobody to go on before somebody wants the body."""
        self._expects = self.headers["Expect"]
        del self.headers["Expect"]
        return True

    def make_environ(self) -> dict[str, Any]:
        """Keep the headers as they came beside those that WSGI makes of them."""
        environ = {**super().make_environ(), authentication.HEADERS: self.headers}
        if self._expects:
            self.headers["Expect"] = self._expects
            environ[CONTINUE] = lambda: self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return environ

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Keep requests out of the log; `--calls` has them."""


def serve(listener: socket.socket, application: Application) -> BaseWSGIServer:
    """Serve `application` on a socket that listens, from a thread of its own, until `shutdown`."""
    host, port = listener.getsockname()
    server = make_server(
        host,
        port,
        application,
        threaded=True,
        request_handler=_Handler,
        fd=listener.fileno(),
    )
    threading.Thread(target=server.serve_forever, args=(_POLL_SECONDS,), daemon=True).start()
    return server
