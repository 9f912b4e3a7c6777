"""The ranges of a hyperparameter search, once, for Optuna and for SageMaker's tuner."""

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; `log`: even over the orders of magnitude."""

    low: float
    high: float
    log: bool = False
    integer: bool = False


@dataclass(frozen=True)
class Choice:
    """One of a few values."""

    values: tuple[int | str, ...]


SHARED: dict[str, Range | Choice] = {
    "head_learning_rate": Range(1e-4, 1e-1, log=True),
    "batch_size": Choice((16, 32, 64, 128)),
    "weight_decay": Range(1e-5, 1e-1, log=True),
    "label_smoothing": Range(0.0, 0.2),
    "dropout": Range(0.0, 0.5),
}
# An epoch costs milliseconds on cached features and minutes on pixels.
HEAD_ONLY: dict[str, Range | Choice] = {"epochs": Range(10, 40, integer=True)}
FINE_TUNING: dict[str, Range | Choice] = {
    "backbone_learning_rate": Range(1e-5, 1e-3, log=True),
    "epochs": Range(3, 12, integer=True),
}


def search_space(unfreeze: str, fixed: Collection[str] = ()) -> dict[str, Range | Choice]:
    """Give the range of each field of `TrainConfig` that is searched for.

    Args:
        unfreeze: What is trained beside the head.
        fixed: Fields whose value has been chosen.
    """
    whole = SHARED | (HEAD_ONLY if unfreeze == "none" else FINE_TUNING)
    return {name: values for name, values in whole.items() if name not in fixed}
