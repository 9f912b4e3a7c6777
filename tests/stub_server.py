"""An HTTP server on loopback that gives prepared answers and keeps what it was asked."""

import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from email.message import Message

from localaws.loopback import LoopbackServer, Requests


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


class StubServer(LoopbackServer):
    """Gives `answers` in turn, then the last one for ever."""

    def __init__(self, answers: Iterable[StubAnswer] = (StubAnswer(),)) -> None:
        """Start serving on a free port."""
        self.answers = deque(answers)
        self.requests: list[StubRequest] = []
        stub = self

        class Handler(Requests):
            def do_POST(self) -> None:
                request = StubRequest(self.command, self.path, self.headers, self.body())
                stub.requests.append(request)
                answer = stub.answers.popleft() if len(stub.answers) > 1 else stub.answers[0]
                time.sleep(answer.delay)
                self.answer(answer.status, answer.body, answer.headers)

            do_GET = do_POST

        super().__init__(Handler)
        self.url = f"http://{self.address}"
