"""Ray Serve in the layout of AWS's Ray image: a head node, its HTTP proxy, replicas behind it.

AWS's own adapter in front of the proxy is left out: it would cost one hop more. Source: Ray Serve's
guide, "Serve ML models" with PyTorch.
"""

import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import ray
from ray import serve
from serving_eager import load  # type: ignore[import-not-found]
from starlette.requests import Request


class Classifier:
    def __init__(self, folder: str) -> None:
        self.model = load(Path(folder))

    async def __call__(self, request: Request) -> dict[str, Any]:
        answer: dict[str, Any] = self.model.classify(await request.body())
        return answer


def main() -> None:
    folder, port, workers, threads = sys.argv[1], *map(int, sys.argv[2:])
    # Sockets lie here, and the path of a socket has 107 characters at most.
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as scratch:
        ray.init(num_cpus=workers * threads, include_dashboard=False, _temp_dir=scratch)
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        # Ray gives a replica as many threads as it has processors.
        replicas = {"num_replicas": workers, "ray_actor_options": {"num_cpus": threads}}
        serve.run(serve.deployment(Classifier, **replicas).bind(folder))
        signal.sigwait({signal.SIGTERM})
        ray.shutdown()


if __name__ == "__main__":
    main()
