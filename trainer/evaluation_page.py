"""The evaluation as one self-contained page: no script, no font, no picture from elsewhere."""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from inference.predictor import Probabilities
from inference.preprocess import Pixels, center_crop
from trainer.dataset import Split
from trainer.metrics import Summary, reliability
from trainer.pages import render_page

MISTAKES = 24
THUMBNAIL = 144
# With more classes than this, a label a row would no longer be legible.
MAX_LABELLED = 40
# With more, a cell is too small to point at, and the names of each would make the page heavy.
MAX_TITLED = 200


@dataclass(frozen=True)
class Mistake:
    """A wrong prediction: `confidence` in class `predicted`, and what was left for class `true`."""

    picture: str
    file: str
    true: str
    predicted: str
    confidence: float
    of_true: float


def worst_mistakes(
    split: Split, probabilities: Probabilities, crop: int, labels: Sequence[str]
) -> list[Mistake]:
    """Give the wrong predictions that the model was surest of, at most `MISTAKES`."""
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != split.targets)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:MISTAKES]
    return [
        Mistake(
            picture=data_uri(center_crop(split.images[place], crop)),
            file=split.paths[place],
            true=labels[split.targets[place]],
            predicted=labels[predicted[place]],
            confidence=float(confidence[place]),
            of_true=float(probabilities[place, split.targets[place]]),
        )
        for place in worst
    ]


def data_uri(pixels: Pixels) -> str:
    """Give a picture [S, S, 3] as a small JPEG file in a `data:` address."""
    buffer = io.BytesIO()
    thumbnail = Image.fromarray(pixels).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    thumbnail.save(buffer, "JPEG", quality=82, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def render(
    title: str,
    subtitle: str,
    summary: Summary,
    split: Split,
    probabilities: Probabilities,
    crop: int,
    labels: Sequence[str],
) -> str:
    """Write the page.

    Args:
        title: The model's name.
        subtitle: What it was evaluated on, and how.
        summary: The figures.
        split: The images, for the mistakes' thumbnails.
        probabilities: Of the images [N, classes].
        crop: Side in pixels of what the model sees of an image.
        labels: Class names in index order.
    """
    return render_page(
        "evaluation.html.j2",
        title=title,
        subtitle=subtitle,
        summary=summary,
        longest=max(map(len, labels)),
        labelled=len(labels) <= MAX_LABELLED,
        titled=len(labels) <= MAX_TITLED,
        cells=[] if len(labels) <= MAX_LABELLED else _cells(summary),
        bins=_bins(probabilities, split),
        mistakes=worst_mistakes(split, probabilities, crop, labels),
        mistake_count=int((probabilities.argmax(axis=1) != split.targets).sum()),
        weakest_first=sorted(summary["classes"], key=lambda scores: scores["f1"]),
    )


def _bins(probabilities: Probabilities, split: Split) -> list[dict[str, Any]]:
    found = reliability(probabilities, split.targets)
    rows = zip(found.counts, found.confidence, found.accuracy, strict=True)
    return [
        {"count": int(count), "confidence": float(confidence), "accuracy": float(accuracy)}
        for count, confidence, accuracy in rows
    ]


def _cells(summary: Summary) -> list[tuple[str, float, list[dict[str, int]]]]:
    """Group a large matrix's cells by colour and shade, in five steps of the share of the row."""
    groups: dict[tuple[str, float], list[dict[str, int]]] = {}
    confusion = np.array(summary["confusion"])
    for true, predicted in np.argwhere(confusion).tolist():
        count = int(confusion[true, predicted])
        share = count / summary["classes"][true]["support"]
        kind = ("good" if true == predicted else "bad", 0.2 + 0.2 * math.ceil(4 * share))
        mark = {"true": true, "predicted": predicted, "count": count}
        groups.setdefault(kind, []).append(mark)
    return [(kind, round(shade, 1), marks) for (kind, shade), marks in sorted(groups.items())]
