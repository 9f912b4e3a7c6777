import asyncio
import io
import json
import random
import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest
from PIL import Image
from uvicorn import Config
from uvicorn.server import ServerState

from inference import protocol
from inference.protocol import BoundedProtocol

if TYPE_CHECKING:
    from conftest import Pictures, Server, StartServer

JPEG = {"Content-Type": "image/jpeg"}
HEAD = b"POST /invocations HTTP/1.1\r\nHost: kennel\r\nContent-Type: image/jpeg\r\n"
MIB = 2**20
SECONDS = 120
BODIES = 300
MOST_MEMORY = 600 * MIB
"""The server, and one picture of 50 megapixels before and after its conversion."""
MOST_KEPT = 150 * MIB
"""More than before the first picture: what may remain after the last."""


def bomb(mode: str, side: int) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (side, side)).save(file, "PNG")
    return file.getvalue()


def animation() -> bytes:
    file = io.BytesIO()
    frames = [Image.effect_noise((640, 480), 50 + step) for step in range(8)]
    frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:])
    return file.getvalue()


def mutated(body: bytes, chance: random.Random) -> bytes:
    """Spoil a sound file in one of the ways that files are spoiled."""
    content = bytearray(body)
    for _ in range(chance.randint(1, 20)):
        place = chance.randrange(len(content))
        match chance.randrange(5):
            case 0:
                content[place] ^= 1 << chance.randrange(8)
            case 1:
                content[place : place + 4] = chance.randbytes(4)
            case 2:
                content = content[: place + 1]
            case 3:
                content[place:place] = chance.randbytes(chance.randint(1, 64))
            case 4:
                content[:place] = b"\xff" * min(place, 30)
    return bytes(content)


def bodies(picture: "Pictures") -> Iterator[bytes]:
    yield from (b"", b"\0", b"\0" * MIB, b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP")
    yield from (bomb("RGBA", 7000), bomb("L", 7070), bomb("1", 20_000), animation())
    chance = random.Random(0)
    seeds = [picture("red", (300, 200), kind) for kind in ("JPEG", "PNG", "WEBP")]
    seeds.append(picture("red", (300, 200), progressive=True))
    for number in range(BODIES - 10):
        if number % 10 == 0:
            yield chance.randbytes(chance.randint(1, 5000))
        else:
            yield mutated(seeds[number % len(seeds)], chance)


def test_no_body_breaks_the_server(start_server: "StartServer", picture: "Pictures") -> None:
    server = start_server()
    process = psutil.Process(server.process.pid)
    peak = start = process.memory_info().rss

    with (
        httpx.Client(base_url=server.url, timeout=SECONDS) as client,
        ThreadPoolExecutor(8) as pool,
    ):

        def post(body: bytes) -> int:
            response = client.post("/invocations", content=body, headers=JPEG)
            assert response.status_code == 200 or response.json().keys() == {"error", "message"}
            return response.status_code

        answers = [pool.submit(post, body) for body in bodies(picture)]
        while not all(answer.done() for answer in answers):
            peak = max(peak, process.memory_info().rss)
            time.sleep(0.01)
        statuses = Counter(answer.result() for answer in answers)
        assert sum(statuses.values()) == BODIES
        assert statuses.keys() <= {200, 400, 413}
        assert statuses[400] > BODIES / 4
        assert client.post("/invocations", content=picture(), headers=JPEG).status_code == 200
    assert server.process.poll() is None
    assert peak < MOST_MEMORY
    assert process.memory_info().rss < start + MOST_KEPT
    assert all("traceback" not in line for line in server.lines())


def test_beyond_the_queue_every_request_is_answered_with_429(
    start_server: "StartServer", picture: "Pictures"
) -> None:
    server = start_server("--queue", "16")
    body = picture(size=(3000, 2000), kind="PNG")  # slow to decode, so that requests pile up

    async def clients() -> tuple[list[httpx.Response], list[int]]:
        pings: list[int] = []
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=server.url, timeout=SECONDS, limits=limits) as client:

            async def ping_for_ever() -> None:
                while True:
                    pings.append((await client.get("/ping")).status_code)
                    await asyncio.sleep(0.02)

            async def ask() -> list[httpx.Response]:
                return [
                    await client.post("/invocations", content=body, headers=JPEG) for _ in range(2)
                ]

            pinging = asyncio.create_task(ping_for_ever())
            answers = await asyncio.gather(*(ask() for _ in range(64)))
            pinging.cancel()
        return [response for each in answers for response in each], pings

    responses, pings = asyncio.run(clients())
    statuses = Counter(response.status_code for response in responses)
    assert sum(statuses.values()) == 128
    assert statuses.keys() == {200, 429}
    assert set(pings) == {200}
    for response in responses:
        if response.status_code == 429:
            assert response.headers["Retry-After"] == "1"
            assert response.json()["error"] == "queue_full"
    assert "kennel_queue_depth 0.0" in httpx.get(f"{server.url}/metrics").text


def read_all(connection: socket.socket) -> bytes:
    answer = b""
    try:
        while received := connection.recv(65536):
            answer += received
    except ConnectionResetError:  # what was in flight when the server hung up
        pass
    return answer


def assert_nothing_waits(server: "Server") -> None:
    assert "kennel_queue_depth 0.0" in httpx.get(f"{server.url}/metrics").text


@pytest.mark.parametrize("framing", [b"Content-Length: 1000", b"Transfer-Encoding: chunked"])
def test_a_slow_body_is_cut_off(start_server: "StartServer", framing: bytes) -> None:
    server = start_server("--body-timeout-s", "0.5")
    with socket.create_connection(("127.0.0.1", server.port), SECONDS) as connection:
        connection.sendall(HEAD + framing + b"\r\n\r\n" + b"1\r\nx\r\n")
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"] == "body_timeout"
    assert_nothing_waits(server)


def send_until_cut_off(connection: socket.socket, block: bytes, most: int) -> None:
    sent = 0
    while sent < most:
        try:
            connection.sendall(block)
        except (ConnectionResetError, BrokenPipeError):
            return
        sent += len(block)
    pytest.fail(f"the server took more than {most} bytes")


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 1000000000000", b"Transfer-Encoding: chunked"]
)
@pytest.mark.parametrize("media_type", [b"image/jpeg", b"text/plain"])
def test_an_endless_body_is_cut_off(server: "Server", framing: bytes, media_type: bytes) -> None:
    block = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    process = psutil.Process(server.process.pid)
    before = process.memory_info().rss
    with socket.create_connection(("127.0.0.1", server.port), SECONDS) as connection:
        connection.sendall(HEAD.replace(b"image/jpeg", media_type) + framing + b"\r\n\r\n")
        send_until_cut_off(connection, block, 100 * MIB)
    assert process.memory_info().rss - before < 50 * MIB
    assert_nothing_waits(server)


def test_a_client_that_asks_first_is_refused_before_it_sends(server: "Server") -> None:
    with socket.create_connection(("127.0.0.1", server.port), SECONDS) as connection:
        connection.sendall(HEAD + b"Content-Length: 7000000\r\nExpect: 100-continue\r\n\r\n")
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_a_client_that_leaves_gives_its_place_back(server: "Server") -> None:
    with socket.create_connection(("127.0.0.1", server.port), SECONDS) as connection:
        connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\nxxx")
        while "kennel_queue_depth 1.0" not in httpx.get(f"{server.url}/metrics").text:
            pass
    while "kennel_queue_depth 0.0" not in httpx.get(f"{server.url}/metrics").text:
        pass
    assert any(line.get("status") == 499 for line in server.lines())


@pytest.mark.parametrize("block", [b"x: y\r\n", b"x"])
def test_endless_headers_are_cut_off(server: "Server", block: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), SECONDS) as connection:
        connection.sendall(b"GET /ping HTTP/1.1\r\nx: ")
        send_until_cut_off(connection, block * 10_000, 10 * MIB)


def test_large_headers_and_a_body_in_one_packet_are_welcome(
    server: "Server", picture: "Pictures"
) -> None:
    body = picture("red").ljust(200_000, b"\0")
    request = HEAD + b"Connection: close\r\nContent-Length: 200000\r\n\r\n" + body
    with socket.create_connection(("127.0.0.1", server.port), SECONDS) as connection:
        connection.sendall(request)
        assert read_all(connection).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("sent", [b"", b"GET /ping HTTP/1.1\r\nHost:"])
def test_slow_headers_are_cut_off(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEADER_SECONDS", 0.1)

    async def main() -> bytes:
        config = Config(lambda scope, receive, send: None, log_config=None)
        listening = await asyncio.get_running_loop().create_server(
            lambda: BoundedProtocol(config, ServerState(), {}), "127.0.0.1", 0
        )
        async with listening, asyncio.timeout(SECONDS):
            reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
            writer.write(sent)
            answer = await reader.read()
            writer.close()
            return answer

    assert asyncio.run(main()) == b""
