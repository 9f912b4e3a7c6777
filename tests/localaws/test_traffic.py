"""Clients in processes of their own, against an endpoint that answers when it is told to."""

import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from localaws.loopback import LoopbackServer, Requests
from localaws.traffic import CLIENTS_A_PROCESS, Account, Load, TrafficError
from tests.localaws.conftest import until

ANSWER = {"predictions": [], "model": {"name": "m", "digest": "abc"}}


class SlowEndpoint(LoopbackServer):
    """Keeps all requests until `release`; those that wait are in flight."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.bodies: set[bytes] = set()
        lock, self._released = threading.Lock(), threading.Event()
        slow = self

        class Handler(Requests):
            def do_POST(self) -> None:
                body = self.body()
                with lock:
                    slow.in_flight += 1
                    slow.bodies.add(body)
                slow._released.wait()
                with lock:
                    slow.in_flight -= 1
                self.answer_json(200, ANSWER)

        super().__init__(Handler)
        self.account = Account(f"http://{self.address}", "test", "us-east-1")

    def release(self) -> None:
        self._released.set()

    def stop(self) -> None:
        self.release()
        super().stop()


@pytest.fixture
def slow() -> Iterator[SlowEndpoint]:
    with SlowEndpoint() as endpoint:
        yield endpoint


@pytest.fixture
def load(slow: SlowEndpoint, tmp_path: Path) -> Iterator[Load]:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(3):
        (photos / f"{number}.png").write_bytes(b"photo %d" % number)
    with Load(slow.account, "dogs", photos, tmp_path / "load.log") as load:
        yield load


def processes() -> list[psutil.Process]:
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "localaws.traffic" in " ".join(child.cmdline())]


def test_each_client_keeps_a_request_in_flight(slow: SlowEndpoint, load: Load) -> None:
    clients = CLIENTS_A_PROCESS + 10
    load.add(clients)
    assert load.clients == clients
    assert len(processes()) == 2
    until(lambda: slow.in_flight, lambda held: held == clients)
    assert load.answers == 0
    assert slow.bodies == {b"photo 0", b"photo 1", b"photo 2"}
    slow.release()
    until(lambda: load.answers, lambda answers: answers > clients)
    until(lambda: load.has_begun)
    load.stop()
    assert processes() == []
    assert load.clients == 0
    assert load.answers > clients


def test_a_process_that_ends_by_itself_is_named_with_its_reason(
    slow: SlowEndpoint, tmp_path: Path
) -> None:
    with Load(slow.account, "dogs", tmp_path / "nowhere", tmp_path / "load.log") as load:
        load.add(1)

        def ended() -> str:
            try:
                return str(load.answers)
            except TrafficError as error:
                return str(error)

        said = until(ended, lambda said: said != "0")
    assert "nowhere" in said
    assert str(tmp_path / "load.1.log") in said
