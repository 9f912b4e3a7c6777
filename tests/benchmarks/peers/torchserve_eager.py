"""The incumbent: a handler for SageMaker's PyTorch image, whose toolkit runs TorchServe.

Source: the SageMaker Python SDK's guide "Use PyTorch", on `model_fn`, `input_fn`, `predict_fn`.
"""

import json
from pathlib import Path
from typing import Any

from serving_eager import Eager, load  # type: ignore[import-not-found]


def model_fn(model_dir: str) -> Eager:
    return load(Path(model_dir))


def input_fn(body: bytes, content_type: str) -> bytes:
    if content_type != "image/jpeg":
        raise ValueError(f"{content_type} is not image/jpeg")
    return body


def predict_fn(body: bytes, model: Eager) -> dict[str, Any]:
    answer: dict[str, Any] = model.classify(body)
    return answer


def output_fn(prediction: dict[str, Any], accept: str) -> str:
    return json.dumps(prediction)
