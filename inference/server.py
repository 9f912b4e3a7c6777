"""Command line and life cycle of the server: load, listen, warm up, serve, drain."""

import argparse
import math
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

import uvicorn

from inference.app import create_app
from inference.archive import ArchiveError, open_model
from inference.cpus import available_cpus
from inference.logs import configure_logs, log
from inference.memory import keep_small_blocks
from inference.predictor import Predictor
from inference.protocol import BoundedProtocol
from inference.service import Service

_BACKLOG = 2048
_KEEP_ALIVE_S = 75  # longer than a load balancer's usual 60, so that it closes first


class DrainingServer(uvicorn.Server):
    """A uvicorn server that answers all it has taken on before it ends.

    Args:
        config: uvicorn's configuration.
        service: What answers pictures; it starts and stops with the server.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then warm up: meanwhile `/ping` answers 503."""
        await super().startup(sockets)
        await self._service.start()
        for listening in sockets or ():
            log("ready", port=listening.getsockname()[1])

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; a stop that was asked for ends with exit code 0."""
        self._service.drain()

    async def on_tick(self, counter: int) -> bool:
        """End once the service is drained."""
        self.should_exit = self.should_exit or self._service.is_drained
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the port and the last connections, then the threads."""
        await super().shutdown(sockets)
        await self._service.stop()


def main(arguments: list[str] | None = None) -> None:
    """Run the server until SIGTERM or Ctrl-C.

    Raises:
        SystemExit: 2 for wrong arguments, 1 for an unusable model or port.
    """
    options = _parser().parse_args(arguments)
    # The first process of a container ignores SIGTERM unless it says otherwise.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    configure_logs()
    keep_small_blocks()
    try:
        predictor = Predictor(open_model(options.model), options.threads)
        listening = _listen(options.host, options.port)
    except (ArchiveError, OSError) as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        raise SystemExit(1) from None
    service = Service(predictor, options.max_batch, options.queue)
    config = uvicorn.Config(
        create_app(service, options.body_timeout_s, options.hosts),
        loop="uvloop",
        http=BoundedProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=2,
    )
    DrainingServer(config, service).run([listening])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise OSError(f"cannot listen on {host} port {port}: {error.strerror}") from error


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"error: {message}; see --help\n")
        raise SystemExit(2)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser("inference.server", description="Serve a model over HTTP.")
    # SageMaker starts every container with this word.
    parser.add_argument("command", nargs="?", choices=["serve"], help="may be left out")
    for flag, variable, kind, default, text in _options():
        parser.add_argument(
            flag,
            type=kind,
            # A default that is a string is converted, and so checked, like an argument.
            default=os.environ.get(variable, default),
            help=f"{text} (default {default}; or set {variable})",
        )
    return parser


def _options() -> Iterator[tuple[str, str, Callable[[str], object], str, str]]:
    """Give each option's flag, environment variable, type, default and help."""
    cpus = str(available_cpus())
    count = _number(int, 1, 65535)
    yield "--model", "SM_MODEL_DIR", Path, "/opt/ml/model", "a model's folder or model.tar.gz"
    yield "--host", "KENNEL_HOST", str, "0.0.0.0", "the address to listen on"  # noqa: S104
    yield "--hosts", "KENNEL_HOSTS", str, "", "names it may be asked by, with commas; empty: any"
    yield "--port", "SAGEMAKER_BIND_TO_PORT", _number(int, 0, 65535), "8080", "0 takes a free one"
    yield "--max-batch", "KENNEL_MAX_BATCH", count, "4", "the most pictures in a batch"
    yield "--queue", "KENNEL_QUEUE", count, "128", "the most requests admitted at a time"
    yield "--threads", "KENNEL_THREADS", count, cpus, "threads that decode and run the model"
    seconds = _number(float, 0.1, 3600)
    yield "--body-timeout-s", "KENNEL_BODY_TIMEOUT_S", seconds, "20", "a body's longest arrival"


def _number(
    kind: Callable[[str], int | float], low: float, high: float
) -> Callable[[str], int | float]:
    def parse(text: str) -> int | float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number of {low:g}..{high:g}")
        return value

    return parse


if __name__ == "__main__":
    main()
