import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from trainer import disk, download
from trainer.errors import KennelError, UsageError

BODY = b"".join(hashlib.sha256(bytes([n % 251, n // 251])).digest() for n in range(20_000))


@dataclass
class Server:
    """A real HTTP server and how it behaves; `requests` are the Range headers it has seen."""

    url: str = ""
    body: bytes = BODY
    headers: dict[str, str] = field(default_factory=lambda: {"ETag": '"v1"'})
    cuts: list[int] = field(
        default_factory=list
    )  # bytes sent before each break, then whole answers
    statuses: list[int] = field(default_factory=list)  # sent first, instead of the body
    ignores_range: bool = False
    claimed_total: int | None = None
    chunked: bool = False
    after_answer: Callable[["Server"], None] = lambda _: None
    requests: list[str | None] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    behaviour: Server

    def do_GET(self) -> None:
        server = self.behaviour
        asked = self.headers.get("Range")
        server.requests.append(asked)
        if server.statuses:
            self.send_error(server.statuses.pop(0))
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        current = self.headers.get("If-Range") in (None, *server.headers.values())
        partial = asked is not None and not server.ignores_range and current
        total = server.claimed_total or len(server.body)
        start = start if partial else 0
        self.send_response(206 if partial else 200)
        for name, value in server.headers.items():
            self.send_header(name, value)
        if partial:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        if server.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(total - start))
        self.end_headers()
        rest = server.body[start:]
        if server.cuts:
            rest = rest[: server.cuts.pop(0)]
            self.close_connection = True
        if server.chunked:
            self.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(rest), rest))
        else:
            self.wfile.write(rest)
            self.close_connection = True
        server.after_answer(server)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setattr(download, "PAUSE_S", 0)
    behaviour = Server()
    handler = type("Bound", (Handler,), {"behaviour": behaviour})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        behaviour.url = f"http://127.0.0.1:{http.server_port}/photos.zip"
        yield behaviour
        http.shutdown()
        thread.join()


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "photos.zip"


def assert_whole(file: Path, body: bytes = BODY) -> None:
    assert file.read_bytes() == body
    assert list(file.parent.iterdir()) == [file]


def test_a_file_is_fetched_whole(server, file):
    download.download(server.url, file)
    assert_whole(file)
    assert server.requests == [None]


def test_a_broken_download_goes_on_where_it_stopped(server, file):
    server.cuts = [100_000, 50_000, 0, 0, 1]
    download.download(server.url, file)
    assert_whole(file)
    resumed = [f"bytes={place}-" for place in (100_000, 150_000, 150_000, 150_000, 150_001)]
    assert server.requests == [None, *resumed]


def test_a_later_run_goes_on_where_an_earlier_one_gave_up(server, file):
    server.cuts = [100_000, *[0] * 9]
    with pytest.raises(KennelError, match="cannot download"):
        download.download(server.url, file)
    assert not file.exists()
    server.cuts = []
    server.requests = []
    download.download(server.url, file)
    assert_whole(file)
    assert server.requests == ["bytes=100000-"]


def test_a_whole_part_is_not_asked_for_again(server, file):
    server.cuts = [len(BODY) - 1, *[0] * 9]
    with pytest.raises(KennelError):
        download.download(server.url, file)
    with file.with_name("photos.zip.part").open("ab") as part:
        part.write(BODY[-1:])
    server.requests = []
    download.download(server.url, file)
    assert_whole(file)
    assert server.requests == []


@pytest.mark.parametrize(
    "headers", [{}, {"ETag": 'W/"weak"'}], ids=["no validator", "weak validator"]
)
def test_without_a_strong_validator_a_download_is_begun_again(server, file, headers):
    server.headers = headers
    server.cuts = [100_000]
    download.download(server.url, file)
    assert_whole(file)
    assert server.requests == [None, None]


def test_a_date_will_do_as_validator(server, file):
    server.headers = {"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}
    server.cuts = [100_000]
    download.download(server.url, file)
    assert_whole(file)
    assert server.requests == [None, "bytes=100000-"]


def test_a_server_that_ignores_ranges_sends_the_file_again(server, file):
    server.ignores_range = True
    server.cuts = [100_000]
    download.download(server.url, file)
    assert_whole(file)


def test_a_file_that_changes_between_tries_is_begun_again(server, file):
    newer = BODY[::-1]

    def change(server: Server) -> None:
        server.body, server.headers = newer, {"ETag": '"v2"'}

    server.cuts = [100_000]
    server.after_answer = change
    download.download(server.url, file)
    assert_whole(file, newer)


def test_a_range_of_another_version_is_not_joined_on(server, file):
    """The server heeds Range but not If-Range."""
    newer = BODY[::-1] + b"more"

    def change(server: Server) -> None:
        server.body, server.headers = newer, {"ETag": '"v2"', "X-Ignores-If-Range": '"v1"'}

    server.cuts = [100_000]
    server.after_answer = change
    download.download(server.url, file)
    assert_whole(file, newer)


def test_a_file_that_changes_for_ever_is_given_up(server, file):
    def change(server: Server) -> None:
        server.headers = {"ETag": f'"v{len(server.requests)}"'}

    server.cuts = [100_000] * 99
    server.after_answer = change
    with pytest.raises(KennelError, match="cannot download"):
        download.download(server.url, file)
    assert len(server.requests) < 10


def test_a_length_that_promises_too_much_is_found(server, file):
    server.claimed_total = len(BODY) + 10
    with pytest.raises(KennelError, match="cannot download"):
        download.download(server.url, file)
    assert not file.exists()


def test_a_part_longer_than_promised_is_begun_again(server, file):
    def lie(server: Server) -> None:
        server.chunked = True

    server.cuts = [100_000]
    server.claimed_total = len(BODY)
    server.body = BODY + b"more"
    server.after_answer = lie
    download.download(server.url, file)
    assert_whole(file, BODY + b"more")
    assert server.requests == [None, "bytes=100000-", None]


def test_an_endless_file_is_cut_off(server, file, monkeypatch):
    server.chunked = True
    monkeypatch.setattr(download, "MAX_BYTES", 100_000)
    with pytest.raises(KennelError, match="sends more than 100,000 bytes"):
        download.download(server.url, file)
    assert not file.with_name("photos.zip.part").exists()


def test_an_over_large_file_is_not_begun(server, file, monkeypatch):
    monkeypatch.setattr(download, "MAX_BYTES", 100_000)
    with pytest.raises(KennelError, match="has 640,000 bytes, more than 100,000"):
        download.download(server.url, file)


def test_a_file_of_unknown_length_is_fetched(server, file):
    server.chunked = True
    download.download(server.url, file)
    assert_whole(file)


def test_a_busy_server_is_asked_again(server, file):
    server.statuses = [503, 429, 500]
    download.download(server.url, file)
    assert_whole(file)


@pytest.mark.parametrize("status", [403, 404, 416])
def test_a_refusal_is_final(server, file, status):
    server.statuses = [status]
    with pytest.raises(KennelError, match=f"cannot download {server.url}: .* {status}"):
        download.download(server.url, file)
    assert len(server.requests) == 1


def test_a_full_disk_is_named_before_the_download(server, file, monkeypatch):
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 100}))
    with pytest.raises(KennelError, match="100 bytes free and 640,000 are needed"):
        download.download(server.url, file)


def test_nobody_there_is_said_in_one_line(server, file):
    with pytest.raises(KennelError, match=r"cannot download .*: \[Errno 111\]") as error:
        download.download("http://127.0.0.1:9/photos.zip", file)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/a.zip", "photos.zip", ""])
def test_only_http_is_spoken(file, url):
    with pytest.raises(UsageError, match="not an http or https address"):
        download.download(url, file)


@pytest.mark.parametrize("state", ["", "{", "[]", json.dumps({"url": 1})])
def test_a_damaged_note_on_the_part_starts_anew(server, file, state):
    file.with_name("photos.zip.part").write_bytes(b"old")
    file.with_name("photos.zip.part.json").write_text(state)
    download.download(server.url, file)
    assert_whole(file)
