import json
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from inference.archive import Model
from inference.contract import MAX_BODY_BYTES

if TYPE_CHECKING:
    from conftest import Pictures, Server, StartServer

ROOT = Path(__file__).parents[2]
JPEG = {"Content-Type": "image/jpeg"}
SECONDS = 120


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("media_type", ["image/jpeg", "application/octet-stream", "Image/PNG; q=1"])
def test_the_answer_is_the_contracts(
    server: "Server", model: Model, picture: "Pictures", kind: str, media_type: str
) -> None:
    response = httpx.post(
        f"{server.url}/invocations",
        content=picture("lime", kind=kind),
        headers={"Content-Type": media_type},
    )
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json"
    answer = response.json()
    assert answer["model"] == {"name": model.name, "digest": model.digest}
    best = answer["predictions"][0]
    assert (best["label"], best["index"]) == ("Green", 1)
    assert sum(entry["probability"] for entry in answer["predictions"]) == pytest.approx(1)


def test_a_ping_is_empty(server: "Server") -> None:
    response = httpx.get(f"{server.url}/ping")
    assert (response.status_code, response.content) == (200, b"")


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status", "error"),
    [
        ("POST", "/invocations", JPEG, b"", 400, "bad_image"),
        ("POST", "/invocations", JPEG, b"\xff\xd8\xff\xe0", 400, "bad_image"),
        ("POST", "/invocations", JPEG, bytes(MAX_BODY_BYTES + 1), 413, "too_large"),
        ("POST", "/invocations", {"Content-Type": "text/plain"}, b"x", 415, "unsupported_type"),
        ("POST", "/invocations", {}, b"x", 415, "unsupported_type"),
        ("GET", "/invocations", {}, b"", 405, "method_not_allowed"),
        ("PUT", "/ping", {}, b"x", 405, "method_not_allowed"),
        ("GET", "/", {}, b"", 404, "not_found"),
        ("GET", "/ping/", {}, b"", 404, "not_found"),
        ("GET", "/%ff%00", {}, b"", 404, "not_found"),
    ],
)
def test_every_error_is_json(
    server: "Server",
    method: str,
    path: str,
    headers: dict[str, str],
    body: bytes,
    status: int,
    error: str,
) -> None:
    response = httpx.request(method, server.url + path, content=body, headers=headers)
    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/json"
    assert response.json().keys() == {"error", "message"}
    assert response.json()["error"] == error


def test_the_largest_body_allowed_is_read(server: "Server", picture: "Pictures") -> None:
    body = picture("blue").ljust(MAX_BODY_BYTES, b"\0")
    response = httpx.post(f"{server.url}/invocations", content=body, headers=JPEG)
    assert response.json()["predictions"][0]["label"] == "Blue"


def test_a_refused_body_does_not_cost_the_connection(server: "Server", picture: "Pictures") -> None:
    with httpx.Client(base_url=server.url) as client:
        streams = set()
        for body, status in ((bytes(MAX_BODY_BYTES + 1), 413), (picture(), 200)):
            response = client.post("/invocations", content=body, headers=JPEG)
            assert response.status_code == status
            streams.add(response.extensions["network_stream"].get_extra_info("client_addr"))
    assert len(streams) == 1


def test_a_request_is_one_line_of_json_in_the_log(server: "Server", picture: "Pictures") -> None:
    headers = JPEG | {"X-Amzn-SageMaker-Inference-Id": "the-request"}
    body = picture()
    httpx.post(f"{server.url}/invocations", content=body, headers=headers)
    (line,) = [entry for entry in server.lines() if entry.get("request_id") == "the-request"]
    assert (line["event"], line["level"], line["status"]) == ("request", "info", 200)
    assert (line["bytes"], line["batch"]) == (len(body), 1)
    parts = [line[name] for name in ("decode_ms", "queue_ms", "inference_ms")]
    assert min(parts) >= 0
    assert sum(parts) <= line["total_ms"] + 0.1
    assert line["time"].endswith("+00:00")


def test_metrics_count_what_was_answered(start_server: "StartServer", picture: "Pictures") -> None:
    server = start_server()
    for body in (picture(), picture(), b"no image"):
        httpx.post(f"{server.url}/invocations", content=body, headers=JPEG)
    metrics = httpx.get(f"{server.url}/metrics").text.splitlines()
    for line in (
        'kennel_requests_total{code="200",path="/invocations"} 2.0',
        'kennel_requests_total{code="400",path="/invocations"} 1.0',
        "kennel_invocation_seconds_count 3.0",
        "kennel_batch_size_count 2.0",
        "kennel_queue_depth 0.0",
    ):
        assert line in metrics


def test_a_folder_serves_as_its_archive_does(
    start_server: "StartServer", model: Model, picture: "Pictures"
) -> None:
    server = start_server(SM_MODEL_DIR="/nowhere", KENNEL_MAX_BATCH="1")
    other = start_server("--model", str(model.folder))
    answers = [
        httpx.post(f"{address.url}/invocations", content=picture(), headers=JPEG).json()
        for address in (server, other)
    ]
    assert answers[0] == answers[1]


def failed_start(*arguments: str, **environment: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "inference.server", *arguments]
    result = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, timeout=120
    )
    assert result.stdout == b""
    (line,) = result.stderr.decode().splitlines()
    assert line.startswith("error: ")
    return result.returncode, line


@pytest.mark.parametrize(
    ("arguments", "environment", "culprit"),
    [
        (["--queue", "0"], {}, "--queue"),
        (["--max-batch", "many"], {}, "--max-batch"),
        (["--body-timeout-s", "nan"], {}, "--body-timeout-s"),
        ([], {"KENNEL_THREADS": "-1"}, "--threads"),
        ([], {"SAGEMAKER_BIND_TO_PORT": "70000"}, "--port"),
        (["train"], {}, "serve"),
        (["--unknown"], {}, "--unknown"),
    ],
)
def test_wrong_usage_ends_with_code_2(
    arguments: list[str], environment: dict[str, str], culprit: str
) -> None:
    code, line = failed_start(*arguments, **environment)
    assert code == 2
    assert culprit in line


def test_a_damaged_archive_ends_with_code_1(archive: Path, tmp_path: Path) -> None:
    content = archive.read_bytes()
    damaged = tmp_path / "damaged.tar.gz"
    damaged.write_bytes(content[:200] + content[199:])
    code, line = failed_start("--model", str(damaged))
    assert code == 1
    assert str(damaged) in line


def test_a_missing_model_ends_with_code_1() -> None:
    code, line = failed_start(SM_MODEL_DIR="/nowhere")
    assert code == 1
    assert "/nowhere" in line


def test_a_taken_port_ends_with_code_1(server: "Server", archive: Path) -> None:
    arguments = ["--model", str(archive), "--host", "127.0.0.1", "--port", str(server.port)]
    code, line = failed_start(*arguments)
    assert code == 1
    assert str(server.port) in line


def test_a_body_half_sent_at_sigterm_is_still_answered(
    start_server: "StartServer", picture: "Pictures"
) -> None:
    server, body = start_server(), picture("red")
    head = f"POST /invocations HTTP/1.1\r\nHost: kennel\r\nContent-Length: {len(body)}\r\n"
    with socket.create_connection(("127.0.0.1", server.port), SECONDS) as slow:
        slow.sendall(head.encode() + b"Content-Type: image/jpeg\r\n\r\n" + body[:10])
        while "kennel_queue_depth 1.0" not in httpx.get(f"{server.url}/metrics").text:
            pass
        server.process.terminate()
        while (response := httpx.get(f"{server.url}/ping")).status_code == 200:
            pass
        assert response.status_code == 503
        response = httpx.post(f"{server.url}/invocations", content=body, headers=JPEG)
        assert response.status_code == 503
        assert response.headers["Connection"] == "close"
        slow.sendall(body[10:])
        answer = b""
        while received := slow.recv(65536):
            answer += received
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["predictions"][0]["label"] == "Red"
    assert server.process.wait(SECONDS) == 0


def test_under_load_every_request_taken_before_sigterm_is_answered(
    start_server: "StartServer", picture: "Pictures"
) -> None:
    server, body = start_server(), picture()
    enough = threading.Semaphore(0)

    def ask_until_refused() -> list[int]:
        statuses: list[int] = []
        with httpx.Client(base_url=server.url, timeout=SECONDS) as client:
            while not statuses or statuses[-1] == 200:
                try:
                    response = client.post("/invocations", content=body, headers=JPEG)
                except httpx.ConnectError:  # the port is closed: the request was not taken
                    break
                statuses.append(response.status_code)
                enough.release()
        return statuses

    with ThreadPoolExecutor(16) as clients:
        runs = [clients.submit(ask_until_refused) for _ in range(16)]
        for _ in range(100):
            enough.acquire()
        assert server.stop() == 0
    for run in runs:
        *answered, last = run.result()
        assert set(answered) <= {200}
        assert last in (200, 503)


@pytest.mark.parametrize("signal", ["terminate", "interrupt"])
def test_an_idle_server_stops_with_code_0(start_server: "StartServer", signal: str) -> None:
    server = start_server()
    if signal == "interrupt":
        server.process.send_signal(2)
        assert server.process.wait(SECONDS) == 0
    else:
        assert server.stop() == 0
    assert all("traceback" not in line for line in server.lines())
