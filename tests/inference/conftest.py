import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from inference.archive import Model, open_model
from tests.archives import make_archive, write_manifest

ROOT = Path(__file__).parents[2]
START_SECONDS = 120
STOP_SECONDS = 120

Pictures = Callable[..., bytes]
Change = Callable[..., None]
StartServer = Callable[..., "Server"]


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the path of an archive that names red, green and blue; not to be changed."""
    return make_archive(tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="session")
def model(archive: Path) -> Model:
    """Give the opened model of `archive`."""
    return open_model(archive.parent / "model")


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """Give a model's folder that a test may spoil; its archive lies beside it."""
    return make_archive(tmp_path).parent / "model"


@pytest.fixture
def rewrite() -> Change:
    """Give `write_manifest`."""
    return write_manifest


@pytest.fixture(scope="session")
def picture() -> Pictures:
    """Give the bytes of an image file of one colour."""

    def draw(
        colour: str = "red", size: tuple[int, int] = (64, 48), kind: str = "JPEG", **options: Any
    ) -> bytes:
        file = io.BytesIO()
        Image.new("RGB", size, colour).save(file, kind, **options)
        return file.getvalue()

    return draw


@dataclass(frozen=True)
class Server:
    """A running server process."""

    process: subprocess.Popen[bytes]
    log: Path
    port: int

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def lines(self) -> list[dict[str, Any]]:
        """Give its log so far."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def stop(self) -> int:
        """End it as SageMaker does and give its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)


@pytest.fixture(scope="session")
def start_server(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """Start real servers on free ports, by arguments and by environment; the end stops them."""
    servers: list[Server] = []

    def start(*arguments: str, **environment: str) -> Server:
        folder = tmp_path_factory.mktemp("server")
        log = folder / "log"
        command = [sys.executable, "-m", "inference.server", "serve", "--host", "127.0.0.1"]
        command += ["--port", "0", "--model", str(archive), *arguments]
        with log.open("wb") as file:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | {"TMPDIR": str(folder)} | environment,
                stdout=file,
                stderr=file,
            )
        server = Server(process, log, _ready_port(process, log))
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.process.kill()
        server.process.wait()


def _ready_port(process: subprocess.Popen[bytes], log: Path) -> int:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        for line in log.read_text().splitlines():
            if '"ready"' in line:
                return int(json.loads(line)["port"])
        time.sleep(0.05)
    process.kill()
    raise AssertionError(f"the server did not start: {log.read_text()}")


@pytest.fixture(scope="session")
def server(start_server: StartServer) -> Server:
    """Give a server with default settings, shared by all tests that leave it running."""
    return start_server()
