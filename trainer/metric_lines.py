"""The lines in which a training tells its figures, as `name=value`, and how they are read.

SageMaker reads them by these regular expressions, and the launcher by the same.
"""

import re

TOP1_TRAINED, TOP1_SERVED = "test_top1_trained", "test_top1_served"
"""What is told in the end: top-1 accuracy on the test photos, in PyTorch and as served."""

METRICS = (
    "epoch",
    "train_loss",
    "valid_loss",
    "valid_accuracy",
    "images_per_second",
    TOP1_TRAINED,
    TOP1_SERVED,
)
"""What `trainer.train` tells after each epoch, and in the end."""


def metric_regex(name: str) -> str:
    """The regular expression that finds a metric in a line; its group is the value."""
    return rf"(?:^|\s){name}=([0-9.eE+-]+)"


def read_metrics(line: str) -> dict[str, float]:
    """The metrics in a line of `trainer.train`; empty for any other line."""
    found = {}
    for name in METRICS:
        if match := re.search(metric_regex(name), line):
            try:
                found[name] = float(match[1])
            except ValueError:
                return {}
    return found
