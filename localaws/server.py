"""AWS on loopback: moto's server with localaws' additions, its state kept between runs.

`python -m localaws.server up` starts it in the background, `down` stops it and keeps what it holds,
`reset` drops it, `status` says what runs; `run` serves in the foreground.
"""

import argparse
import fcntl
import gc
import http.client
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TextIO

import botocore.session

from localaws import shell
from localaws.errors import LocalAwsError
from localaws.files import replacing
from localaws.loopback import LOOPBACK
from localaws.processes import processor_seconds
from localaws.progress import Progress

PORT = 4588
STATE = Path("build/localaws")
STOP_SECONDS = 120.0

BACKLOG = 4096
"""How many clients may wait to be let in, if the kernel allows as many. Others would hang."""

_POLL_SECONDS = 0.05


_STARTS = " starts"
_NONSENSE = (AttributeError, LookupError, TypeError, ValueError)


class ServerError(LocalAwsError):
    """localaws cannot start or stop."""


@dataclass(frozen=True)
class Options:
    """How to serve.

    Attributes:
        port: Port on the loopback interface; 0 for a free one, None for PORT.
        calls: File to which each call is appended as a line of JSON.
        time_scale: How many times faster than on AWS the waits pass that AWS imposes.
        records_only: Keep records and execute nothing: jobs, endpoints, functions, instances.
        iam: "enforce": deny what the caller's policies do not allow; "off": allow everything.
        save: When the state is saved: "soon" after each answer, or at the "end".
        weather: What goes wrong now and then: "fair" nothing, "rough" or "storm".
        seed: The same one gives the same weather.
    """

    port: int | None = None
    calls: Path | None = None
    time_scale: float = 1.0
    records_only: bool = False
    iam: str = "off"
    save: str = "soon"
    weather: str = "fair"
    seed: int = 0

    @property
    def arguments(self) -> list[str]:
        """The same as flags of `python -m localaws.server`."""
        return [
            *(["--port", str(self.port)] if self.port is not None else []),
            *("--time-scale", str(self.time_scale), "--iam", self.iam, "--save", self.save),
            *("--weather", self.weather, "--seed", str(self.seed)),
            *(["--calls", str(self.calls)] if self.calls else []),
            *(["--records-only"] if self.records_only else []),
        ]


def run(folder: Path, options: Options) -> None:
    """Serve until SIGTERM or SIGINT, then save the state.

    Args:
        folder: Holds the state (state.zip, objects) and, while it is served, server.json.
        options: How to serve.

    Raises:
        ServerError: The port or the folder is in use.
        LocalAwsError: The state cannot be restored or saved.
    """
    shell.leave()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    folder.mkdir(parents=True, exist_ok=True)
    with (
        redirect_stderr(_Log(sys.stderr)),
        _sole_user(folder) as lock,
        _listener(PORT if options.port is None else options.port) as listener,
    ):
        _write_whole(lock, f"{os.getpid()}{_STARTS}")
        # What one that was killed left behind.
        _server_file(folder).unlink(missing_ok=True)
        for unfinished in folder.glob(".state.zip.*"):
            unfinished.unlink()
        # This takes its time; the other commands need none of it, nor does a refusal.
        with imports_that_stay():
            from localaws import blobs, changes
            from localaws.application import Application, configure
            from localaws.execution import Execution, Executions
            from localaws.state import restore
            from localaws.weather import Weather
            from localaws.web import serve

        configure()
        blobs.keep_in(folder / "objects")
        state_file = folder / "state.zip"
        if state_file.exists():
            restore(state_file)
        blobs.store().remove_all_unused()
        weather = Weather(options.weather, options.seed)
        application = Application(
            state_file, options.calls, enforce_iam=options.iam == "enforce", weather=weather
        )
        server = serve(listener, application)

        def execution_in(folder: Path) -> Execution:
            address = _endpoint(server.port)
            return Execution(address, folder, options.time_scale, application.changing, weather)

        execution = Executions((folder / "work").absolute(), execution_in)
        try:
            if not options.records_only:
                execution.start()
            with replacing(_server_file(folder)) as file:
                told = {"endpoint": _endpoint(server.port), **application.health()}
                file.write_text(json.dumps(told))
            _write_whole(lock, str(os.getpid()))
            if options.save == "soon":
                application.save_until(stop)
            stop.wait()
            execution.stop()
            # Also what was changed unseen.
            changes.touch(changes.EVERYTHING)
            application.save()
        finally:
            _server_file(folder).unlink(missing_ok=True)
            execution.stop()
            server.shutdown()


@contextmanager
def imports_that_stay() -> Iterator[None]:
    """Around imports that take long: a third less without what is done again and again.

    Garbage is looked for neither while they go on nor later in what they made, and botocore's
    models of AWS's services are read once in this process, not in each session.
    """
    botocore.session.create_loader = cache(botocore.session.create_loader)
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


class _Log(io.TextIOBase):
    """A log whose disk may be full: what finds no room is lost, and its writer goes on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


@contextmanager
def _sole_user(folder: Path) -> Iterator[TextIO]:
    with (folder / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            user = lock.read().removesuffix(_STARTS) or "unknown"
            raise ServerError(
                f"another localaws (process {user}) uses {folder}; stop it "
                "(`make local-down`, or `kill` if it does not answer) or give another --state"
            ) from error
        _write_whole(lock, str(os.getpid()))
        yield lock


def _write_whole(file: TextIO, text: str) -> None:
    file.truncate(0)
    file.write(text)
    file.flush()


def _wait_for_start(folder: Path) -> None:
    """Wait for a server that another command has started, until it answers or is gone."""
    progress = Progress()
    with suppress(OSError, ValueError):
        while (told := (folder / "lock").read_text()).endswith(_STARTS) and _is_locked(folder):
            if progress.stalled(processor_seconds(int(told.removesuffix(_STARTS)))):
                return
            time.sleep(_POLL_SECONDS)


def _listener(port: int) -> socket.socket:
    try:
        return socket.create_server((LOOPBACK, port), backlog=BACKLOG)
    except OSError as error:
        raise ServerError(
            f"port {port} of {LOOPBACK} cannot be had ({error.strerror}); "
            "stop what holds it or give another --port (LOCALAWS_PORT=... of make)"
        ) from error


def _endpoint(port: int) -> str:
    return f"http://{LOOPBACK}:{port}"


def _server_file(folder: Path) -> Path:
    return folder / "server.json"


@dataclass(frozen=True)
class Server:
    """A localaws that answers."""

    endpoint: str
    pid: int

    @classmethod
    def of(cls, folder: Path) -> "Server | None":
        """The server that uses `folder`, if it answers."""
        own = str(folder.resolve())
        try:
            told = json.loads(_server_file(folder).read_text())
            server = cls(told["endpoint"], told["pid"])
            alive = server.ask("GET", "health")
            answer = alive["pid"], alive.get("state", own)
        # Both may be anything: the file may be damaged, and its port another server's by now.
        except (*_NONSENSE, OSError, http.client.HTTPException):
            return None
        # The file of a killed server may name a port that another one has got since, and a copied
        # folder has the file of a server that is up for the folder it was copied from.
        return server if answer == (server.pid, own) else None

    def ask(self, method: str, page: str) -> dict[str, Any]:
        """One of localaws' own pages.

        Raises:
            OSError: It did not answer, or answered with an error.
        """
        address = urllib.parse.urlsplit(self.endpoint).netloc
        request = urllib.request.Request(f"http://{address}/_localaws/{page}", method=method)
        # The proxy that the environment may name has no way to this machine's loopback.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=STOP_SECONDS) as answer:
            content: dict[str, Any] = json.load(answer)
        return content


def up(folder: Path, options: Options) -> str:
    """Start a server in the background unless there is one; say where it answers.

    Raises:
        ServerError: It did not start; the message is its own.
    """
    _wait_for_start(folder)
    if server := Server.of(folder):
        if options.port not in (None, 0, urllib.parse.urlsplit(server.endpoint).port):
            raise ServerError(
                f"localaws is up at {server.endpoint}; `make local-down` stops it, "
                "then another port can be had"
            )
        return f"localaws is already up at {server.endpoint}"
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "server.log"
    command = [sys.executable, "-m", "localaws.server", "run", "--state", str(folder)]
    command += options.arguments
    # Who is told to end leaves nothing behind that nobody knows of. An exception in the midst of
    # `Popen` would: the server runs by then, and nothing has its number.
    signals: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: signals.append(number))
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    # A start is slow where others use the machine, too.
    progress = Progress()
    while process.poll() is None and not progress.stalled(processor_seconds(process.pid)):
        if signals:
            process.kill()
            # It holds the folder until it is gone: who starts it again at once is not to meet it.
            process.wait()
            by = "Ctrl-C" if signals[0] == signal.SIGINT else signal.Signals(signals[0]).name
            sys.stderr.write(f"error: stopped by {by}; localaws was not started\n")
            sys.exit(128 + signals[0])
        if server := Server.of(folder):
            return f"localaws is up at {server.endpoint}"
        time.sleep(_POLL_SECONDS)
    if process.poll() is None:
        process.kill()
        raise ServerError(f"localaws does nothing and does not answer; see {log}")
    last = log.read_text().strip().rpartition("\n")[2]
    raise ServerError(last.removeprefix("error: ") or f"localaws ended at once; see {log}")


def down(folder: Path) -> str:
    """Stop the server; its state is on disk when this returns.

    Raises:
        ServerError: The state cannot be saved (the server goes on), or it does not end.
    """
    _wait_for_start(folder)
    server = Server.of(folder)
    if not server:
        _forget(folder, "server.json")
        return "localaws is not up"
    try:
        server.ask("POST", "save")
    except urllib.error.HTTPError as error:
        told = json.load(error)["error"]
        raise ServerError(
            f"{told}; localaws goes on, `make local-reset` stops it as it is"
        ) from error
    _end(folder, server, signal.SIGTERM)
    return f"localaws is down; its state is in {folder / 'state.zip'}"


def reset(folder: Path) -> str:
    """Stop the server if there is one and delete its state."""
    _wait_for_start(folder)
    if server := Server.of(folder):
        # It saves nothing on the way out, which is the point.
        _end(folder, server, signal.SIGKILL)
    _forget(folder, "server.json", "state.zip", "objects", "work")
    return "localaws is down and its state is deleted"


def _forget(folder: Path, *names: str) -> None:
    """Remove what nobody uses; who uses it and does not answer is named."""
    if not folder.is_dir():
        return
    with _sole_user(folder):
        for name in names:
            if (folder / name).is_dir():
                shutil.rmtree(folder / name, ignore_errors=True)
            else:
                (folder / name).unlink(missing_ok=True)


def _end(folder: Path, server: Server, number: signal.Signals) -> None:
    os.kill(server.pid, number)
    deadline = time.monotonic() + STOP_SECONDS
    while _is_locked(folder):
        if time.monotonic() > deadline:
            raise ServerError(
                f"localaws (process {server.pid}) does not end; see {folder}/server.log"
            )
        time.sleep(_POLL_SECONDS)


def _is_locked(folder: Path) -> bool:
    try:
        with _sole_user(folder):
            return False
    except ServerError:
        return True


def status(folder: Path) -> str:
    """Say what runs and what it holds."""
    server = Server.of(folder)
    if not server:
        kept = folder / "state.zip"
        return "localaws is not up" + (f"; its state is in {kept}" if kept.exists() else "")
    held = {service: len(names) for service, names in server.ask("GET", "inventory").items()}
    return (
        f"localaws is up at {server.endpoint} (process {server.pid}) and holds {held or 'nothing'}"
    )


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m localaws.server", description=__doc__)
    parser.add_argument(
        "command", nargs="?", default="run", choices=("run", "up", "down", "reset", "status")
    )
    parser.add_argument("--port", type=int, help=f"0: a free one; default {PORT}")
    parser.add_argument("--state", type=Path, default=STATE, help=f"folder; default {STATE}")
    parser.add_argument("--calls", type=Path, help="file that gets a line of JSON for each call")
    parser.add_argument(
        "--time-scale",
        type=float,
        default=float(os.environ.get("LOCALAWS_TIME_SCALE", "1")),
        help="how many times faster AWS's own waits pass; default LOCALAWS_TIME_SCALE or 1",
    )
    parser.add_argument(
        "--records-only",
        action="store_true",
        help="execute nothing: no job, endpoint, function or instance",
    )
    parser.add_argument(
        "--iam",
        choices=("off", "enforce"),
        default=os.environ.get("LOCALAWS_IAM") or "off",
        help="enforce: deny what the caller's policies do not allow; default LOCALAWS_IAM or off",
    )
    parser.add_argument(
        "--save",
        choices=("soon", "end"),
        default=os.environ.get("LOCALAWS_SAVE") or "soon",
        help="save the state within a second of each answer, so that a kill loses no more, or"
        " at the end; default LOCALAWS_SAVE or soon",
    )
    parser.add_argument(
        "--weather",
        choices=("fair", "rough", "storm"),
        default=os.environ.get("LOCALAWS_WEATHER") or "fair",
        help="what goes wrong now and then, as on AWS (docs/weather.md); default LOCALAWS_WEATHER"
        " or fair",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=os.environ.get("LOCALAWS_SEED") or "0",
        help="the same one gives the same weather; default LOCALAWS_SEED or 0",
    )
    given = vars(parser.parse_args(arguments))
    command, folder = given.pop("command"), given.pop("state")
    options = Options(**given)
    try:
        if command == "run":
            run(folder, options)
        elif command == "up":
            print(up(folder, options))
        else:
            print({"down": down, "reset": reset, "status": status}[command](folder))
    except (LocalAwsError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        after = "localaws was not started" if command == "up" else "the same command goes on"
        sys.stderr.write(f"error: stopped by Ctrl-C; {after}\n")
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
