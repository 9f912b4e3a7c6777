"""The four functions that the classic SageMaker PyTorch container calls."""

import json
from pathlib import Path
from typing import Any

from inference.archive import open_model
from inference.contract import answer, check_content_type
from inference.predictor import Predictor
from inference.preprocess import load_image

JSON = "application/json"


def model_fn(model_dir: str) -> Predictor:
    """Load the model from its folder.

    Raises:
        ArchiveError: The folder does not hold a sound model.
    """
    return Predictor(open_model(Path(model_dir)))


def input_fn(request_body: bytes, content_type: str | None) -> bytes:
    """Accept an image file.

    Raises:
        ValueError: The content type is not one of an image.
    """
    check_content_type(content_type)
    return bytes(request_body)


def predict_fn(data: bytes, model: Predictor) -> dict[str, Any]:
    """Classify an image file.

    Raises:
        ValueError: The bytes are no usable image.
    """
    pixels = load_image(data, model.model.preprocess)
    return answer(model.model, model.probabilities(pixels[None])[0])


def output_fn(prediction: dict[str, Any], accept: str = JSON) -> tuple[str, str]:
    """Write the answer as JSON.

    Returns:
        The body and its content type.

    Raises:
        ValueError: The client accepts no JSON.
    """
    accepted = {part.partition(";")[0].strip() for part in accept.lower().split(",")}
    if accepted.isdisjoint({JSON, "application/*", "*/*"}):
        raise ValueError(f"the answer is {JSON}, which Accept must allow")
    return json.dumps(prediction), JSON
