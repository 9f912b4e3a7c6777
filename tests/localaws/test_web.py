"""Many clients at once: all are let in, and who waits for something keeps nobody else waiting."""

import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from moto.sqs.models import Queue

from localaws import turnstile
from localaws.calls import Call
from localaws.incoming import Incoming
from localaws.turnstile import Turnstile
from tests.localaws.conftest import SECONDS, LocalAws, until
from tests.localaws.raw import signed

CLIENTS = 300
"""More than the queue of a listening socket holds by default, and than anybody has threads."""


@pytest.fixture
def own(tmp_path: Path) -> Iterator[LocalAws]:
    running = LocalAws(tmp_path, "--records-only")
    yield running
    running.stop()


def _connected(clients: list[socket.socket]) -> bool:
    for client in clients:
        try:
            client.getpeername()
        except OSError:
            return False
    return True


def test_all_who_come_at_once_are_let_in_and_answered(own: LocalAws, tmp_path: Path) -> None:
    own.client("s3").create_bucket(Bucket="crowd")
    url = f"{own.endpoint}/crowd/key"
    lines = [f"{name}: {value}" for name, value in signed("s3", "PUT", url, b"half").items()]
    head = "\r\n".join(["PUT /crowd/key HTTP/1.1", *lines, "Content-Length: 4", "", ""]).encode()
    pid = json.loads((tmp_path / "server.json").read_text())["pid"]
    with ExitStack() as opened:
        # Nobody is let in by a server that gets no turn: all have to find room before its door.
        os.kill(pid, signal.SIGSTOP)
        try:
            clients = [opened.enter_context(socket.socket()) for _ in range(CLIENTS)]
            for client in clients:
                client.setblocking(False)
                client.connect_ex(("127.0.0.1", int(own.port)))
            until(lambda: _connected(clients))
        finally:
            os.kill(pid, signal.SIGCONT)
        for client in clients:
            client.settimeout(SECONDS)
            client.sendall(head + b"ha")
        # All of them wait inside for the rest; one more is answered, and the state is saved.
        until((tmp_path / "state.zip").exists)
        kept = (tmp_path / "state.zip").stat().st_mtime_ns
        own.client("ssm").put_parameter(Name="/one/more", Value="v", Type="String")
        until(lambda: (tmp_path / "state.zip").stat().st_mtime_ns != kept)
        for client in clients:
            client.sendall(b"lf")
        answers = [client.recv(4096) for client in clients]
    assert [answer[:12] for answer in answers] == [b"HTTP/1.1 200"] * CLIENTS, answers[0]


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> Turnstile:
    """A door that is closed only when nobody is inside, however long that takes."""
    monkeypatch.setattr(turnstile, "_SETTLE_SECONDS", SECONDS)
    return Turnstile()


def test_who_sends_slowly_is_not_inside(door: Turnstile) -> None:
    asked, sent = threading.Event(), threading.Event()

    class Sender:
        def read(self, size: int) -> bytes:
            asked.set()
            sent.wait(SECONDS)
            return b"x" * size

    def receive() -> None:
        with door.inside():
            call = Call("s3", "PutObject", "rest-xml", "test", "us-east-1")
            environ = {"wsgi.input": Sender(), "CONTENT_LENGTH": "3"}
            Incoming(environ, lambda: call).read()

    receiver = threading.Thread(target=receive)
    receiver.start()
    assert asked.wait(SECONDS)
    with door.closed():
        sent.set()
        # It comes back in when the door is open again.
        assert receiver.is_alive()
    receiver.join(SECONDS)
    assert not receiver.is_alive()


def test_who_waits_for_a_message_is_not_inside(
    door: Turnstile, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting, come = threading.Event(), threading.Event()

    def wait(self: Queue, timeout: int) -> None:
        waiting.set()
        come.wait(SECONDS)

    monkeypatch.setattr(Queue, "wait_for_messages", wait)
    turnstile.wait_outside(Queue, "wait_for_messages")

    def poll() -> None:
        with door.inside():
            Queue.__new__(Queue).wait_for_messages(20)

    poller = threading.Thread(target=poll)
    poller.start()
    assert waiting.wait(SECONDS)
    with door.closed():
        come.set()
    poller.join(SECONDS)
    assert not poller.is_alive()
