"""The weather: for each call and each start, what goes wrong, the same for the same seed.

What happens depends on the seed, the caller, the operation, what it names and how often that was
asked before: neither on the time nor on the order in which threads come.
"""

import hashlib
import json
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate
from typing import Any, NoReturn

from werkzeug.test import run_wsgi_app

from localaws.calls import Call
from localaws.weather import words
from localaws.weather.climates import CLIMATES
from localaws.weather.late import Late
from localaws.weather.words import Words

SERVICE_AGENT = "localaws-service"
"""What the services of AWS name themselves in their calls: they have their own ways to repeat."""

Answer = tuple[Iterable[bytes], str, Any]
"""Body, status line and headers."""

_CHANGES_ENDPOINTS = frozenset(
    {"DeleteEndpoint", "UpdateEndpoint", "UpdateEndpointWeightsAndCapacities"}
)
_NAMES = re.compile(r"(?i)(name|names|arn|bucket|key|id|ids|prefix)$")
# Times and random ids in names would make each run another one.
_CHANCE = re.compile(r"[0-9a-f]{8,}|\d{6,}")
_RESET = struct.pack("ii", 1, 0)


class _Trouble(StrEnum):
    """What happens to a call."""

    THROTTLED = "throttled"
    FAILED = "failed"
    CUT = "cut"
    LOST = "lost"


@dataclass(frozen=True)
class Start:
    """How instances start.

    Attributes:
        seconds: How long it takes, in AWS's time.
        message: What is said meanwhile; empty for the usual.
        fault: Why they do not start; empty if they do.
    """

    seconds: float = 0.0
    message: str = ""
    fault: str = ""


class Weather:
    """What goes wrong. All of its methods may be called from several threads."""

    def __init__(self, kind: str = "fair", seed: int = 0) -> None:
        """Begin anew.

        Args:
            kind: "fair": nothing goes wrong; "rough": what SDKs and Terraform bear; or "storm".
            seed: The same one gives the same weather.
        """
        self._lock = threading.Lock()
        self.change(kind, seed)

    def change(self, kind: str, seed: int) -> None:
        """Let it be another weather from now on, as if it began.

        Raises:
            KeyError: There is no such weather.
        """
        climate = CLIMATES[kind]
        with self._lock:
            self.kind, self.seed, self._climate = kind, seed, climate
            self._late = Late(self._looks)
            self._counts: Counter[tuple[str, ...]] = Counter()
            self._rows: dict[tuple[str, ...], tuple[_Trouble, int]] = {}
            self._maintained: dict[str, int] = {}
            self._happened: Counter[str] = Counter()
            self._next: dict[str, _Trouble] = {}

    def expect(self, trouble: str, call: str) -> None:
        """Let a trouble meet the next call of an operation, whatever the weather.

        Args:
            trouble: "throttled", "failed", "cut" or "lost".
            call: Such as "s3:DeleteBucket".

        Raises:
            ValueError: There is no such trouble.
        """
        with self._lock:
            self._next[call] = _Trouble(trouble)

    @property
    def is_fair(self) -> bool:
        """Whether nothing goes wrong."""
        return self.kind == "fair" and not self._next

    def told(self) -> dict[str, object]:
        """The weather, and how often what has happened."""
        with self._lock:
            happened = dict(sorted(self._happened.items()))
        return {"weather": self.kind, "seed": self.seed, "happened": happened}

    def around(
        self,
        environ: dict[str, Any],
        call: Call,
        caller: str,
        told: Mapping[str, Any],
        answer: Callable[[], Answer],
    ) -> Answer:
        """The answer to a call, or what becomes of it.

        Args:
            environ: The request.
            call: What it asks for.
            caller: Who asks.
            told: The call's parameters.
            answer: Does what is asked, and gives the answer.

        Raises:
            ConnectionResetError: The connection is cut before the call has arrived.
        """
        if self.is_fair:
            return answer()
        is_users = SERVICE_AGENT not in environ.get("HTTP_USER_AGENT", "")
        trouble = self._trouble(call, caller, told) if is_users else None
        if trouble is _Trouble.CUT:
            _cut(environ)
        said = self._refusal(call, told, trouble) if is_users else None
        if said:
            return run_wsgi_app(said.answer(call), environ)
        chunks, status, headers = answer()
        if not status.startswith("2"):
            return chunks, status, headers
        is_object = call.operation == "GetObject"
        body = b"" if is_object else b"".join(chunks)
        if not is_object:
            chunks = [body]
            self._late.note(call, told, body, is_users=is_users)
        if trouble is _Trouble.LOST:
            # An object breaks off half way; other answers are too short to arrive in parts.
            return _broken(environ, chunks, sends_half=is_object), status, headers
        if is_object or not is_users:
            return chunks, status, headers
        shown = self._shown(call, told, body)
        if shown is not body:
            headers = [(n, value) for n, value in headers if n.lower() != "content-length"]
            headers.append(("Content-Length", str(len(shown))))
        return [shown], status, headers

    def start(self, kind: str, name: str) -> Start:
        """How the instances of a "training-job", another job or an "endpoint" start this time."""
        if self.is_fair:
            return Start()
        climate, key = self._climate, ("start", kind, _masked(name))
        number = self._count(key)
        least, most = climate.start_seconds
        seconds = least + (most - least) * self._draw("seconds", *key, number)
        chance, is_job = self._draw("fault", *key, number), kind.endswith("-job")
        if chance < climate.without_capacity:
            self._happens("no capacity", kind)
            return Start(seconds, fault=words.NO_CAPACITY if is_job else words.NO_HOSTING_CAPACITY)
        if chance < climate.without_capacity + climate.failing_starts:
            self._happens("start failed", kind)
            return Start(seconds, fault=words.INTERNAL if is_job else words.HOSTING_INTERNAL)
        # It is told of those that take long.
        is_slow = seconds > (least + most) / 2
        return Start(seconds, words.LACKING_CAPACITY if is_slow else "")

    def lacks_capacity(self, zone: str, instance_type: str) -> bool:
        """Whether a zone has no EC2 instance of a type this time."""
        return self._happens_now("zone without capacity", "full_zones", zone, instance_type)

    def interrupts(self, job: str) -> bool:
        """Whether a spot job that has just saved its state loses its instances now."""
        return self._happens_now("spot interruption", "interrupted", _masked(job))

    def _happens_now(self, what: str, share: str, *names: str) -> bool:
        if self.is_fair:
            return False
        number = self._count((what, *names))
        # Twice in a row is rare enough to be left out: who repeats it gets on.
        if self._draw(what, *names, number) >= getattr(self._climate, share) or number % 2 == 0:
            return False
        self._happens(what, names[0])
        return True

    def _trouble(self, call: Call, caller: str, told: Mapping[str, Any]) -> _Trouble | None:
        """What happens to a call; a row of failures goes on until it is over."""
        key = (caller, str(call), _names(told))
        climate = self._climate
        with self._lock:
            if expected := self._next.pop(str(call), None):
                self._happened[expected] += 1
                return expected
            self._counts[key] += 1
            number = self._counts[key]
            if key in self._rows:
                trouble, left = self._rows.pop(key)
                if not left:
                    return None  # The one after a row gets through.
                self._rows[key] = trouble, left - 1
                self._happened[trouble] += 1
                return trouble
            safe = words.is_safe(call, told)
            shares = {
                _Trouble.THROTTLED: climate.throttled,
                _Trouble.FAILED: climate.failing if safe else 0.0,
                _Trouble.CUT: climate.cut,
                _Trouble.LOST: climate.lost if safe or climate.loses_deeds else 0.0,
            }
            chance = self._draw("call", *key, number)
            limits = zip(shares, accumulate(shares.values()), strict=True)
            found = next((trouble for trouble, limit in limits if chance < limit), None)
            if found is None:
                return None
            longest = climate.runtime_row if call.service == "sagemaker-runtime" else climate.row
            # Connections are cut one at a time, services are down for a while.
            is_row = found in (_Trouble.THROTTLED, _Trouble.FAILED)
            row = int(self._draw("row", *key, number) * longest) if is_row else 0
            self._rows[key] = found, row
            self._happened[found] += 1
            return found

    def _refusal(
        self, call: Call, told: Mapping[str, Any], trouble: _Trouble | None
    ) -> Words | None:
        if trouble is _Trouble.THROTTLED:
            names = _names(told)
            return words.throttled(call, self._draw("conflicts", str(call), names) < 0.5)
        if trouble is _Trouble.FAILED:
            return words.failed(call)
        if said := self._late.refusal(call, told):
            self._happens("not known yet", said.code)
            return said
        if call.service == "sagemaker" and call.operation in _CHANGES_ENDPOINTS:
            name = str(told.get("EndpointName"))
            with self._lock:
                left = self._maintained.get(name, 0)
                if left:
                    self._maintained[name] = left - 1
            if left:
                return Words(
                    400,
                    "ValidationException",
                    f'Cannot update in-progress endpoint "{name}".',
                )
        return None

    def _shown(self, call: Call, told: Mapping[str, Any], body: bytes) -> bytes:
        """An answer as somebody sees it to whom not all is known yet."""
        if call.service == "sagemaker" and call.operation == "DescribeEndpoint":
            return self._maintain(str(told.get("EndpointName")), body)
        return self._late.listed(call, body)

    def _maintain(self, name: str, body: bytes) -> bytes:
        """What is described of an endpoint that may be under maintenance."""
        described = json.loads(body)
        if described.get("EndpointStatus") != "InService":
            return body
        number = self._count(("maintenance", name))
        with self._lock:
            left = self._maintained.get(name)
            if not left:
                # The one after a row sees it in service again.
                began = left is None and (
                    self._draw("maintenance", name, number) < self._climate.maintained
                )
                if not began:
                    self._maintained.pop(name, None)
                    return body
                left = 1 + int(self._draw("looks", name, number) * self._climate.looks)
            self._maintained[name] = left - 1
            self._happened["SystemUpdating"] += 1
        return json.dumps({**described, "EndpointStatus": "SystemUpdating"}).encode()

    def _looks(self, *names: str) -> int:
        return int(self._draw("looks", *map(_masked, names)) * (self._climate.looks + 1))

    def _count(self, key: tuple[str, ...]) -> int:
        with self._lock:
            self._counts[key] += 1
            return self._counts[key]

    def _happens(self, what: str, of: str) -> None:
        with self._lock:
            self._happened[f"{what}: {of}"] += 1

    def _draw(self, *what: object) -> float:
        """A number from 0 to below 1, the same for the same seed."""
        stated = json.dumps([self.kind, self.seed, *map(str, what)])
        return int.from_bytes(hashlib.sha256(stated.encode()).digest()[:6], "big") / 2**48


def _masked(name: str) -> str:
    return _CHANCE.sub("#", name)


def _names(told: Mapping[str, Any]) -> str:
    """What a call names."""
    return _masked(
        " ".join(
            f"{name}={value}"
            for name, value in sorted(told.items())
            if isinstance(value, str | list) and _NAMES.search(name) and "Token" not in name
        )
    )


def _cut(environ: dict[str, Any]) -> NoReturn:
    """Reset the connection that a request came by."""
    connection: socket.socket = environ["werkzeug.socket"]
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    connection.shutdown(socket.SHUT_RDWR)
    raise ConnectionResetError


def _broken(environ: dict[str, Any], chunks: Iterable[bytes], sends_half: bool) -> Iterator[bytes]:
    """An answer that does not arrive, or half of it."""
    body = b"".join(chunks)
    if sends_half and len(body) > 1:
        yield body[: len(body) // 2]
    _cut(environ)
