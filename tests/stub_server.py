"""An HTTP server on loopback that gives prepared answers and keeps what it was asked."""

import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self


@dataclass(frozen=True)
class StubAnswer:
    """One answer; it is given after `delay` seconds."""

    status: int = 200
    body: bytes = b'{"predictions": []}'
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})
    delay: float = 0.0


@dataclass(frozen=True)
class StubRequest:
    """One request as it came."""

    method: str
    path: str
    headers: Message
    body: bytes


class StubServer:
    """Gives `answers` in turn, then the last one for ever."""

    def __init__(self, answers: Iterable[StubAnswer] = (StubAnswer(),)) -> None:
        """Start serving on a free port."""
        self.answers = deque(answers)
        self.requests: list[StubRequest] = []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                stub.requests.append(StubRequest(self.command, self.path, self.headers, body))
                answer = stub.answers.popleft() if len(stub.answers) > 1 else stub.answers[0]
                time.sleep(answer.delay)
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body)))
                # A client that gave up has closed its connection by now.
                with suppress(ConnectionError):
                    self.end_headers()
                    self.wfile.write(answer.body)

            do_GET = do_POST

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
