"""What goes over the wire, for the server and for the handler alike."""

from typing import Any

from inference.archive import Model
from inference.predictor import Probabilities, top_k

MAX_BODY_BYTES = 6 * 2**20  # SageMaker's own limit for a real-time endpoint
CONTENT_TYPES = ("application/octet-stream", "application/x-image")


class ContentTypeError(ValueError):
    """The body is not declared as an image."""


def check_content_type(content_type: str | None) -> None:
    """Accept `image/*`, `application/octet-stream` and SageMaker's `application/x-image`.

    Args:
        content_type: The header's value; parameters after a semicolon are ignored.

    Raises:
        ContentTypeError: It is missing or another one.
    """
    media_type = (content_type or "").partition(";")[0].strip().lower()
    if not media_type.startswith("image/") and media_type not in CONTENT_TYPES:
        raise ContentTypeError(
            f"Content-Type must be image/* or {' or '.join(CONTENT_TYPES)}, "
            "the body a JPEG, PNG or WebP file"
        )


def answer(model: Model, probabilities: Probabilities) -> dict[str, Any]:
    """Give the answer of `/invocations`.

    Args:
        model: The model that answered.
        probabilities: One image's probabilities [classes].
    """
    return {
        "predictions": top_k(probabilities, model.labels),
        "model": {"name": model.name, "digest": model.digest},
    }
