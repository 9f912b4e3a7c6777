"""Learning curves as a picture."""

import io
from collections.abc import Mapping, Sequence

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter


def learning_curves_svg(history: Sequence[Mapping[str, float]]) -> str:
    """Draw loss and accuracy over the epochs as SVG; the same history gives the same text.

    Args:
        history: Rows with epoch, train_loss, valid_loss (nats) and valid_accuracy (0..1).
    """
    epochs = [row["epoch"] for row in history]
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, label in (("train_loss", "train"), ("valid_loss", "valid")):
        left.plot(epochs, [row[name] for row in history], marker="o", markersize=3, label=label)
    left.set(title="Cross-entropy", xlabel="epoch")
    left.legend(frameon=False)
    right.plot(
        epochs, [row["valid_accuracy"] for row in history], marker="o", markersize=3, color="C1"
    )
    right.set(title="Accuracy on valid", xlabel="epoch")
    right.yaxis.set_major_formatter(PercentFormatter(1.0))
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    text = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "kennel", "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()
