"""A picture whose answer is known, so that a deployment can be asked about it.

No photo is needed: the picture is generated, and what the archive itself answers on this machine
is what the deployed service has to answer.
"""

import base64
import io
import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from terraform.cli import model
from terraform.cli.function import Answer
from terraform.cli.model import Archive
from trainer.errors import KennelError
from trainer.patience import read_object
from trainer.target import Target

if TYPE_CHECKING:
    from inference.archive import Model

TOLERANCE = 0.1
"""How far the probability may be off: processors differ in how they round, above all in int8."""

_CANDIDATES = 32
_SIZE = (256, 192)


@dataclass(frozen=True)
class Smoke:
    """A picture and its answer.

    Attributes:
        image: A PNG file in base64, as the function's event takes it.
        label: Name of the most probable class.
        probability: Its probability.
    """

    image: str
    label: str
    probability: float

    def fault(self, answer: Answer) -> str | None:
        """What is wrong with an answer that has predictions; None if nothing is."""
        best = answer.body["predictions"][0]
        is_near = math.isclose(best["probability"], self.probability, abs_tol=TOLERANCE)
        if best["label"] == self.label and is_near:
            return None
        return (
            f"answers {best['label']} ({best['probability']:.3f}), the archive itself "
            f"{self.label} ({self.probability:.3f})"
        )


def of(archive: Archive, target: Target) -> Smoke:
    """The picture of a model in the bucket, made from its archive where nobody has made it.

    Raises:
        KennelError: The archive answers nothing.
    """
    client = target.client("s3")
    try:
        stored = read_object(client, archive.bucket, _key(archive))
        return Smoke(**json.loads(stored.content))
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchKey":
            raise
    made = make(model.opened(model.fetch(archive, target), archive.uri))
    store(made, archive, target)
    return made


def store(smoke: Smoke, archive: Archive, target: Target) -> None:
    """Keep a picture beside its archive."""
    body = json.dumps(asdict(smoke)).encode()
    target.client("s3").put_object(
        Bucket=archive.bucket, Key=_key(archive), Body=body, ContentType="application/json"
    )


def make(opened: "Model") -> Smoke:
    """Choose the generated picture that a model is surest of.

    Raises:
        KennelError: Its network cannot be run.
    """
    # The serving half need not be installed where no archive is looked at.
    import numpy as np

    from inference.predictor import Predictor
    from inference.preprocess import load_image

    pictures = _pictures()
    pixels = np.stack([load_image(picture, opened.preprocess) for picture in pictures])
    try:
        probabilities = Predictor(opened).probabilities(pixels)
    # ONNX Runtime raises classes of its own, without a common base.
    except Exception as error:
        said = " ".join(str(error).split())
        raise KennelError(
            f"the model {opened.digest[:12]} answers nothing on this machine: {said}"
        ) from error
    ordered = np.sort(probabilities, axis=1)
    second = ordered[:, -2] if len(opened.labels) > 1 else 0
    clearest = int(np.argmax(ordered[:, -1] - second))
    best = int(np.argmax(probabilities[clearest]))
    return Smoke(
        image=base64.b64encode(pictures[clearest]).decode(),
        label=opened.labels[best],
        probability=float(probabilities[clearest, best]),
    )


def _pictures() -> list[bytes]:
    """Smooth fields of colour, from a single one to a busy one; the same pixels each time."""
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(0)

    def picture(cells: int) -> bytes:
        coarse: Any = generator.integers(0, 256, (cells, cells, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(coarse).resize(_SIZE, Image.Resampling.BICUBIC).save(file, "PNG")
        return file.getvalue()

    return [picture(1 + index % 8) for index in range(_CANDIDATES)]


def _key(archive: Archive) -> str:
    return archive.key.replace("model.tar.gz", "smoke.json")
