"""The endpoint as an application of Ray Serve, for AWS's Ray image.

The image unpacks the archive into /opt/ml/model and runs what SM_RAYSERVE_APP names, here
`inference.ray_app:app`. Its own adapter makes `/ping` and `/invocations` of it. This package lies
in the archive's folder `code`, which PYTHONPATH names.
"""

import asyncio
import os

from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from inference import handler
from inference.contract import ContentTypeError
from inference.preprocess import ImageError
from inference.refusal import refused_input


class Classifier:
    """A replica with its model."""

    def __init__(self) -> None:
        self._model = handler.model_fn(os.environ.get("SM_MODEL_DIR", "/opt/ml/model"))

    async def __call__(self, request: Request) -> Response:
        """Classify the image file in the request's body."""
        try:
            data = handler.input_fn(await request.body(), request.headers.get("content-type"))
            prediction = await asyncio.to_thread(handler.predict_fn, data, self._model)
        except (ContentTypeError, ImageError) as error:
            return refused_input(error).response()
        body, content_type = handler.output_fn(prediction)
        return Response(body, media_type=content_type)


app = serve.deployment(Classifier).bind()
