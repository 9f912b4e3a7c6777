"""The notebook's idle stop: the very script, a Jupyter that answers over TLS, a fake `aws`."""

import ast
import json
import os
import shlex
import ssl
import string
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.scripts import PYTHON

FILES = Path(__file__).parents[2] / "terraform" / "modules" / "notebook" / "files"
SCRIPT = FILES / "idle_stop.py"
STOPPED = [
    "sagemaker stop-notebook-instance --notebook-instance-name kennel-dev --region eu-west-1"
]
MINUTE = 60
HOUR = 3600


@dataclass
class Jupyter:
    """What Jupyter says; a list that is None is answered with 404."""

    kernels: Any = field(default_factory=list)
    terminals: Any = field(default_factory=list)
    url: str = ""


@dataclass(frozen=True)
class Notebook:
    """A notebook instance: its Jupyter, and the folder that it keeps things in."""

    jupyter: Jupyter
    folder: Path

    @property
    def memory(self) -> Path:
        return self.folder / "memory"

    @property
    def environment(self) -> dict[str, str]:
        return {"PATH": f"{self.folder}{os.pathsep}{os.environ['PATH']}"}

    def look(
        self, *more: str, idle_since: float = 0, up: float = HOUR
    ) -> subprocess.CompletedProcess[str]:
        """Run the script once; work was last seen `idle_since` seconds ago, if that is not 0."""
        if idle_since:
            self.memory.touch()
            os.utime(self.memory, (time.time() - idle_since,) * 2)
        options = ["--name", "kennel-dev", "--region", "eu-west-1", "--jupyter", self.jupyter.url]
        options += ["--idle-minutes", "60", "--max-hours", "10", "--memory", str(self.memory)]
        options += ["--started", str(time.time() - up)]
        return subprocess.run(
            [sys.executable, SCRIPT, *options, *more],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def stops(self) -> list[str]:
        """The arguments of each call of `aws`."""
        calls = self.folder / "calls"
        return calls.read_text().splitlines() if calls.exists() else []


def executable(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def jupyter() -> Iterator[Jupyter]:
    said = Jupyter()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = {"/api/kernels": said.kernels, "/api/terminals": said.terminals}[self.path]
            body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(404 if answer is None else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    said.url = f"https://127.0.0.1:{server.server_port}"
    yield said
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def notebook(jupyter: Jupyter, tmp_path: Path) -> Notebook:
    executable(tmp_path / "aws", f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n')
    executable(tmp_path / "python3", f'#!/bin/sh\nexec {PYTHON} "$@"\n')
    return Notebook(jupyter, tmp_path)


def ago(seconds: float) -> str:
    """A time as Jupyter writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S.123456Z", time.gmtime(time.time() - seconds))


def kernel(state: str, last_activity: float, connections: int = 0) -> dict[str, Any]:
    return {
        "id": "8d5c1f9e-6b1b-4a53-9a57-8f6b1f1a2b3c",
        "name": "conda_python3",
        "execution_state": state,
        "last_activity": ago(last_activity),
        "connections": connections,
    }


def terminal(last_activity: float) -> dict[str, Any]:
    return {"name": "1", "last_activity": ago(last_activity)}


@pytest.mark.parametrize(
    ("kernels", "terminals"),
    [
        pytest.param([kernel("busy", 5 * HOUR)], [], id="busy for hours without output"),
        pytest.param([kernel("idle", 9 * HOUR), kernel("busy", HOUR)], [], id="one of two is busy"),
        pytest.param([kernel("idle", 10 * MINUTE)], [], id="a cell ended"),
        pytest.param([], [terminal(10 * MINUTE)], id="a terminal printed"),
        pytest.param([kernel("starting", 0), kernel("busy", 0)], [], id="busy beside starting"),
    ],
)
def test_work_keeps_it_running(notebook: Notebook, kernels: Any, terminals: Any) -> None:
    notebook.jupyter.kernels, notebook.jupyter.terminals = kernels, terminals
    looked = notebook.look(idle_since=3 * HOUR)
    assert (looked.returncode, looked.stdout, looked.stderr) == (0, "", "")
    assert notebook.stops == []


@pytest.mark.parametrize(
    ("kernels", "terminals"),
    [
        pytest.param([], [], id="nothing runs"),
        pytest.param([kernel("idle", 61 * MINUTE)], [], id="an idle kernel"),
        pytest.param([kernel("idle", 61 * MINUTE, connections=2)], [], id="open in a browser"),
        pytest.param([kernel("starting", 0, connections=1)], [], id="hangs in starting"),
        pytest.param([kernel("restarting", 0), kernel("dead", 0)], [], id="crashes for ever"),
        pytest.param([], [terminal(61 * MINUTE)], id="a silent terminal"),
    ],
)
def test_idleness_stops_it(notebook: Notebook, kernels: Any, terminals: Any) -> None:
    notebook.jupyter.kernels, notebook.jupyter.terminals = kernels, terminals
    looked = notebook.look(idle_since=2 * HOUR)
    assert looked.returncode == 0
    assert "idle_stop: stopping kennel-dev: idle for " in looked.stdout
    assert notebook.stops == STOPPED


def test_it_runs_on_until_the_limit(notebook: Notebook) -> None:
    notebook.look(idle_since=59 * MINUTE)
    assert notebook.stops == []
    notebook.look(idle_since=60 * MINUTE)
    assert notebook.stops == STOPPED


def test_work_is_remembered_when_its_kernel_is_shut_down(notebook: Notebook) -> None:
    notebook.jupyter.kernels = [kernel("busy", 0)]
    notebook.look(idle_since=2 * HOUR)
    notebook.jupyter.kernels = []
    notebook.look()
    assert notebook.stops == []


def test_older_work_does_not_shorten_the_memory(notebook: Notebook) -> None:
    notebook.jupyter.kernels = [kernel("idle", 5 * HOUR)]
    notebook.look(idle_since=30 * MINUTE)
    notebook.look()
    assert notebook.stops == []


def test_time_to_come_counts_as_now(notebook: Notebook) -> None:
    notebook.jupyter.kernels = [kernel("idle", -50 * HOUR)]
    notebook.look(idle_since=2 * HOUR)
    assert notebook.memory.stat().st_mtime <= time.time()


def test_the_daily_limit_stops_work_too(notebook: Notebook) -> None:
    notebook.jupyter.kernels = [kernel("busy", 0)]
    looked = notebook.look(idle_since=MINUTE, up=10.01 * HOUR)
    assert "stopping kennel-dev: up for 10.0 hours, the limit is 10" in looked.stdout
    assert notebook.stops == STOPPED


def test_the_daily_limit_holds_without_jupyter_and_memory(notebook: Notebook) -> None:
    looked = notebook.look("--jupyter", "https://127.0.0.1:1", up=11 * HOUR)
    assert looked.returncode == 0
    assert notebook.stops == STOPPED


def test_a_jupyter_that_is_down_shows_no_work(notebook: Notebook) -> None:
    looked = notebook.look("--jupyter", "https://127.0.0.1:1", idle_since=30 * MINUTE)
    assert "https://127.0.0.1:1/api/kernels does not say what runs: " in looked.stdout
    assert notebook.stops == []
    notebook.look("--jupyter", "https://127.0.0.1:1", idle_since=61 * MINUTE)
    assert notebook.stops == STOPPED


def test_work_counts_where_terminals_are_switched_off(notebook: Notebook) -> None:
    notebook.jupyter.kernels, notebook.jupyter.terminals = [kernel("busy", 0)], None
    looked = notebook.look(idle_since=2 * HOUR)
    assert "/api/terminals does not say what runs: " in looked.stdout
    assert notebook.stops == []


@pytest.mark.parametrize(
    "answer",
    [
        b"<html>sign in</html>",
        {"message": "Forbidden"},
        ["kernel"],
        [{"execution_state": "idle"}],
        [{"execution_state": "idle", "last_activity": None}],
        [{"execution_state": "idle", "last_activity": "yesterday"}],
        None,
        7,
    ],
)
def test_an_answer_that_says_nothing_shows_no_work(notebook: Notebook, answer: Any) -> None:
    notebook.jupyter.kernels = answer
    looked = notebook.look(idle_since=2 * HOUR)
    assert (looked.returncode, looked.stderr) == (0, "")
    assert "/api/kernels does not say what runs: " in looked.stdout
    assert notebook.stops == STOPPED


def test_a_stop_that_is_refused_fails_with_the_remedy(notebook: Notebook) -> None:
    executable(notebook.folder / "aws", "#!/bin/sh\necho AccessDenied >&2\nexit 254\n")
    looked = notebook.look(idle_since=2 * HOUR)
    assert looked.returncode == 1
    assert "the notebook's role needs sagemaker:StopNotebookInstance" in looked.stdout
    assert "Traceback" not in looked.stderr


def test_the_notebook_platforms_python_can_run_it() -> None:
    tree = ast.parse(SCRIPT.read_text(), feature_version=(3, 7))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported <= sys.stdlib_module_names


def test_on_start_installs_a_timer_that_stops_the_notebook(notebook: Notebook) -> None:
    """Runs the script as SageMaker does, with the machine's folders moved into a private one."""
    machine = notebook.folder / "machine"
    for folder in ("opt", "etc/systemd/system", "run", "var/log"):
        (machine / folder).mkdir(parents=True)
    rendered = string.Template((FILES / "on_start.sh.tftpl").read_text()).safe_substitute(
        name="kennel-dev",
        region="eu-west-1",
        idle_minutes=0,
        max_hours=10,
        script=SCRIPT.read_text().strip(),
    )
    for folder in ("/opt/", "/etc/", "/run/", "/var/"):
        rendered = rendered.replace(f" {folder}", f" {machine}{folder}")
    on_start = notebook.folder / "on_start.sh"
    executable(on_start, rendered)
    executable(
        notebook.folder / "systemctl",
        f'#!/bin/sh\necho "$@" >> {notebook.folder}/systemctl.calls\n',
    )
    subprocess.run([on_start], env=notebook.environment, check=True)

    assert (notebook.folder / "systemctl.calls").read_text().splitlines() == [
        "daemon-reload",
        "start kennel-idle-stop.timer",
    ]
    units = machine / "etc" / "systemd" / "system"
    assert "OnCalendar=minutely" in (units / "kennel-idle-stop.timer").read_text().splitlines()
    service = (units / "kennel-idle-stop.service").read_text().splitlines()
    command = next(line for line in service if line.startswith("ExecStart="))
    command = command.removeprefix("ExecStart=").replace(
        " --memory", f" --jupyter {notebook.jupyter.url} --memory"
    )
    subprocess.run(shlex.split(command), env=notebook.environment, check=True)
    assert (
        "stopping kennel-dev: idle for 0 minutes" in (machine / "var/log/jupyter.log").read_text()
    )
    assert notebook.stops == STOPPED
