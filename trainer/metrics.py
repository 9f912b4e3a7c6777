"""Figures of a classifier on one split: functions of probabilities [N, classes] and targets [N]."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from inference.predictor import Probabilities
from trainer.predictions import Targets, accuracy, hits

BINS = 15
CONFIDENCE_LEVEL = 0.95
RESAMPLES = 10_000
# Bootstrap resamples are drawn in batches of about this many numbers, to bound the memory.
_BATCH_NUMBERS = 2**22


class ClassScores(TypedDict):
    """One class: `support` images have it as their true class."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


class Confusion(TypedDict):
    """`count` images of class `true`, the share `share` of them, were taken for `predicted`."""

    true: str
    predicted: str
    count: int
    share: float


class Summary(TypedDict):
    """The content of `evaluation.json`; shares lie in 0..1, `nll` is in nats."""

    split: str
    images: int
    top1: float
    top5: float
    ece: float
    nll: float
    top1_interval: list[float]
    classes: list[ClassScores]
    confusion: list[list[int]]
    top_confusions: list[Confusion]


@dataclass(frozen=True)
class Reliability:
    """How often predictions of each confidence are right, in equal bins of confidence from 0 to 1.

    Attributes:
        counts: Images in each bin [bins].
        confidence: Mean top-1 probability of each bin's images [bins], 0 for an empty bin.
        accuracy: Share of each bin's images whose top-1 is right [bins], 0 for an empty bin.
    """

    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @property
    def error(self) -> float:
        """The expected calibration error: the mean gap between confidence and accuracy."""
        gaps = np.abs(self.confidence - self.accuracy)
        return float((gaps * self.counts).sum() / self.counts.sum())


def negative_log_likelihood(probabilities: Probabilities, targets: Targets) -> NDArray[np.float64]:
    """Give each image's negative log probability of its class [N], in nats.

    A probability that underflowed to 0 counts as the smallest that float32 holds.
    """
    of_target = probabilities[np.arange(len(targets)), targets].astype(np.float64)
    return -np.log(np.maximum(of_target, np.finfo(np.float32).tiny))


def reliability(probabilities: Probabilities, targets: Targets, bins: int = BINS) -> Reliability:
    """Sort images into bins ((m-1)/bins, m/bins] of their top-1 probability.

    Source: Guo et al., On calibration of modern neural networks (2017).
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    place = np.digitize(confidence, np.linspace(0, 1, bins + 1)[1:-1], right=True)
    counts = np.bincount(place, minlength=bins)
    images = np.maximum(counts, 1)
    return Reliability(
        counts,
        np.bincount(place, confidence, bins) / images,
        np.bincount(place, hits(probabilities, targets), bins) / images,
    )


def share_interval(outcomes: NDArray[np.bool_]) -> tuple[float, float]:
    """Give the 95 % bootstrap interval (percentiles, fixed seed) of the share of true outcomes.

    Where all outcomes are alike, every resample is, too, and would give an interval of no width:
    there the exact binomial interval (Clopper and Pearson) is given.
    """
    from scipy import stats  # a second to import, and only needed here

    count, images = int(outcomes.sum()), len(outcomes)
    if count in (0, images):
        exact = stats.binomtest(count, images).proportion_ci(CONFIDENCE_LEVEL, "exact")
        return float(exact.low), float(exact.high)
    interval = stats.bootstrap(
        (outcomes.astype(np.float64),),
        np.mean,
        n_resamples=RESAMPLES,
        batch=max(1, _BATCH_NUMBERS // images),
        confidence_level=CONFIDENCE_LEVEL,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def top_confusions(
    confusion: NDArray[np.int64], labels: Sequence[str], limit: int = 10
) -> list[Confusion]:
    """Name the largest entries off the diagonal of a confusion matrix, whose rows are true."""
    errors = confusion - np.diag(np.diag(confusion))
    order = np.argsort(-errors, axis=None, kind="stable")[:limit]
    pairs = zip(*np.unravel_index(order, errors.shape), strict=True)
    return [
        Confusion(
            true=labels[true],
            predicted=labels[predicted],
            count=int(errors[true, predicted]),
            share=float(errors[true, predicted] / confusion[true].sum()),
        )
        for true, predicted in pairs
        if errors[true, predicted]
    ]


def summarize(
    split: str, probabilities: Probabilities, targets: Targets, labels: Sequence[str]
) -> Summary:
    """Give all figures of a split."""
    # As long to import.
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    predicted, indices = probabilities.argmax(axis=1), np.arange(len(labels))
    confusion = confusion_matrix(targets, predicted, labels=indices)
    scores = precision_recall_fscore_support(targets, predicted, labels=indices, zero_division=0)
    return Summary(
        split=split,
        images=len(targets),
        top1=accuracy(probabilities, targets),
        top5=accuracy(probabilities, targets, k=5),
        ece=reliability(probabilities, targets).error,
        nll=float(negative_log_likelihood(probabilities, targets).mean()),
        top1_interval=list(share_interval(hits(probabilities, targets))),
        classes=[
            ClassScores(
                label=label,
                precision=float(precision),
                recall=float(recall),
                f1=float(f1),
                support=int(support),
            )
            for label, precision, recall, f1, support in zip(labels, *scores, strict=True)
        ],
        confusion=confusion.tolist(),
        top_confusions=top_confusions(confusion, labels),
    )
