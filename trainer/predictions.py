"""A model's probabilities for the photos of a split, and how many of them are right."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from inference.predictor import Probabilities
from inference.preprocess import Pixels, Preprocess, center_crop
from trainer.dataset import Split
from trainer.errors import UsageError
from trainer.names import nfc, some
from trainer.progress import progress

BATCH = 16

Targets = NDArray[np.int64]
Answer = Callable[[Pixels], Probabilities]
"""Pixels [N, crop, crop, 3] to probabilities [N, classes]."""


def require_same_classes(of_model: Sequence[str], of_data: Sequence[str]) -> None:
    """Check that a model and a data folder speak of the same classes (names of class folders).

    Raises:
        UsageError: They do not; the message names the difference.
    """
    of_model, of_data = [nfc(name) for name in of_model], [nfc(name) for name in of_data]
    differences = {
        "the data lacks": sorted(set(of_model) - set(of_data)),
        "the model does not know": sorted(set(of_data) - set(of_model)),
    }
    parts = [f"{what} {some(names)}" for what, names in differences.items() if names]
    if parts:
        raise UsageError(
            f"model and data have different classes: {' and '.join(parts)}; "
            "give the data that the model was trained on"
        )
    if of_model != of_data:  # of a model whose names were sorted in another Unicode form
        raise UsageError("model and data have their classes in another order: train the model anew")


def classify(split: Split, preprocess: Preprocess, answer: Answer, title: str) -> Probabilities:
    """Give the probabilities [N, classes] of a split's photos, in the order of the split."""
    rows = []
    with progress(title, len(split.targets), "images") as advance:
        for start in range(0, len(split.targets), BATCH):
            places = range(start, min(start + BATCH, len(split.targets)))
            crops = [center_crop(split.images[place], preprocess.crop) for place in places]
            rows.append(answer(np.stack(crops)))
            advance(len(places))
    return np.concatenate(rows)


def hits(probabilities: Probabilities, targets: Targets, k: int = 1) -> NDArray[np.bool_]:
    """Tell of each image [N] whether its class is among the `k` most probable; ties go by index."""
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return np.asarray((best == targets[:, None]).any(axis=1))


def accuracy(probabilities: Probabilities, targets: Targets, k: int = 1) -> float:
    """Give the share of images whose class is among the `k` most probable."""
    return float(hits(probabilities, targets, k).mean())
