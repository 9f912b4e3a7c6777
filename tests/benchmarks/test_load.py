"""The load generator against a server that remembers what it was sent."""

import json
import subprocess
import sys
from collections.abc import Iterator
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest

from localaws.loopback import LoopbackServer, Requests

PHOTOS = (b"first photo", b"second\r\n\r\nphoto")


class Remembering(LoopbackServer):
    """Turns every third request away, and closes the connection after every fifth."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, bytes]] = []
        remembering = self

        class Handler(Requests):
            def do_POST(self) -> None:
                request = (self.path, self.headers["Content-Type"], self.body())
                remembering.requests.append(request)
                number = len(remembering.requests)
                headers = {"Connection": "close"} if number % 5 == 0 else {}
                self.answer(429 if number % 3 == 0 else 200, b"{}", headers)

        super().__init__(Handler)


@pytest.fixture
def server() -> Iterator[Remembering]:
    with Remembering() as server:
        yield server


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number, photo in enumerate(PHOTOS):
        (tmp_path / f"{number}.jpg").write_bytes(photo)
    return tmp_path


def load(server: Remembering, photos: Path, *flags: str) -> Any:
    url = f"http://{server.address}/invocations"
    command = [sys.executable, "-m", "tests.benchmarks.load", url, str(photos)]
    run = subprocess.run(
        [*command, "--seconds", "0.5", *flags], capture_output=True, text=True, check=True
    )
    return json.loads(run.stdout)


@pytest.mark.parametrize("loop", [("--clients", "3"), ("--rate", "200")], ids=["closed", "open"])
def test_every_request_is_whole_and_every_answer_is_counted(
    server: Remembering, photos: Path, loop: tuple[str, str]
) -> None:
    report = load(server, photos, *loop)
    sent, statuses = len(server.requests), report["statuses"]
    assert sent > 3
    assert {(path, kind) for path, kind, _ in server.requests} == {("/invocations", "image/jpeg")}
    assert {body for _, _, body in server.requests} == set(PHOTOS)
    assert statuses["429"] == sent // 3
    assert statuses["200"] == sent - sent // 3
    assert 0 < report["answers"] <= statuses["200"]
    assert report["throughput"] == report["answers"] / 0.5


def test_a_form_has_the_photo_in_its_field(server: Remembering, photos: Path) -> None:
    load(server, photos, "--clients", "1", "--multipart", "file")
    _, kind, body = server.requests[1]
    form = message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + body)
    _, part = form.walk()
    assert part.get_param("name", header="Content-Disposition") == "file"
    assert part.get_payload(decode=True) == PHOTOS[1]


def test_a_server_that_is_gone_is_an_error(server: Remembering, photos: Path) -> None:
    server.stop()
    with pytest.raises(subprocess.CalledProcessError):
        load(server, photos, "--clients", "1")
