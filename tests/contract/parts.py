"""The parts from the package index: their environments, and their processes with what they say."""

import os
import re
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from localaws.processes import ManagedProcess

ROOT = Path(__file__).parents[2]

_LINKS = tempfile.TemporaryDirectory(prefix="contract-")


def _plain(folder: Path) -> Path:
    """Give a folder a name that needs no quotes: SageMaker's toolkit puts none around its paths."""
    if not re.search(r"[^\w./-]", str(folder), re.ASCII):
        return folder
    link = Path(_LINKS.name, folder.name)
    link.symlink_to(folder)
    return link


BUILT = Path(os.environ.get("KENNEL_CONTRACT", ROOT / "build" / "contract")).absolute()
ENVIRONMENTS = _plain(BUILT)
"""Holds `sagemaker` and `ray`, which `make test-contract` makes from the locks."""

SECONDS = 600
"""How long a test waits for what must happen."""


def variables(part: str, home: Path, **more: object) -> dict[str, str]:
    """A process's environment as in a container: the part's programs, and nothing of this one's."""
    programs = ENVIRONMENTS / part / "bin"
    assert programs.is_dir(), f"{programs} is missing: run make test-contract"
    own = {"PATH": f"{programs}:/usr/bin:/bin", "HOME": home, "TMPDIR": home, "LANG": "C.UTF-8"}
    return {name: str(value) for name, value in (own | more).items()}


@contextmanager
def running(
    command: Sequence[str], log: Path, environment: Mapping[str, str], folder: Path
) -> Iterator[ManagedProcess]:
    """Run a command within the block; what fails there is told with the end of the log."""
    with ManagedProcess(command, log, environment, folder) as process:
        try:
            yield process
        except BaseException as error:
            error.add_note(f"{log} ends:\n{log.read_text(errors='replace')[-6000:]}")
            raise


def until(holds: Callable[[], bool], process: ManagedProcess) -> None:
    """Wait for what must happen while a process runs."""
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert process.exit_code is None, f"it ended with exit status {process.exit_code}"
        assert time.monotonic() < deadline, f"not within {SECONDS} seconds"
        time.sleep(0.1)


def exit_code(process: ManagedProcess) -> int:
    """Wait for a process's end."""
    deadline = time.monotonic() + SECONDS
    while process.exit_code is None:
        assert time.monotonic() < deadline, f"it has not ended within {SECONDS} seconds"
        time.sleep(0.1)
    return process.exit_code


def post(url: str, body: bytes, content_type: str = "image/png") -> httpx.Response:
    """Send a body as SageMaker does; status 503 where nothing listens."""
    headers = {"Content-Type": content_type, "Accept": "application/json"}
    try:
        return httpx.post(url, content=body, headers=headers, timeout=60, trust_env=False)
    except httpx.TransportError:
        return httpx.Response(503)


def free_ports(count: int) -> list[int]:
    """As many ports that nothing listens on, for programs that cannot choose one and tell it."""
    with ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [listening.getsockname()[1] for listening in sockets]


def require_port(port: int, program: str) -> None:
    """Fail at once, and say why, where a port is taken that a program does not let us choose."""
    try:
        socket.create_server(("", port)).close()
    except OSError as error:
        pytest.fail(
            f"port {port} cannot be had ({error}), which {program} always takes: end what listens"
            " there, such as another run of these tests"
        )
