"""A hyperparameter search as one self-contained page, whoever searched: Optuna or SageMaker."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from trainer.config import TrainConfig
from trainer.importance import importances
from trainer.pages import figure, percent, render_page
from trainer.search_space import Choice, Range

STATES = ("complete", "pruned", "failed")
# With fewer, chance decides more than the hyperparameters.
TELLING_TRIALS = 30
# Losses whose largest is so many times the smallest are drawn on a logarithmic scale.
_WIDE = 10.0
_AXIS_HEIGHT = 260.0

UNFROZEN = {
    "none": "a new head on the frozen network's features",
    "last": "a new head and the network's last part",
    "all": "the whole network",
}
"""What is trained, for people, by the value of `--unfreeze`."""


@dataclass(frozen=True)
class Trial:
    """A trial that has ended.

    Attributes:
        number: Its number, from 0.
        state: One of `STATES`.
        values: What it tried, by name.
        loss: Its last validation loss in nats.
        accuracy: Its last accuracy on `valid`, 0 to 1.
        epochs: How many it ran.
        seconds: How long it took.
        name: The job that ran it, if it had one of its own.
    """

    number: int
    state: str
    values: Mapping[str, Any]
    loss: float | None = None
    accuracy: float | None = None
    epochs: int | None = None
    seconds: float | None = None
    name: str = ""

    @property
    def has_loss(self) -> bool:
        """Whether there is a loss that can be drawn."""
        return self.loss is not None and math.isfinite(self.loss)


@dataclass(frozen=True)
class Axis:
    """One scale of a chart: a value's `place` on it is 0 at the bottom and 1 at the top."""

    name: str
    space: Range | Choice

    def place(self, value: Any) -> float:
        """Where a value lies."""
        if isinstance(self.space, Choice):
            last = len(self.space.values) - 1
            return self.space.values.index(value) / last if last else 0.5
        low, high, at = self.space.low, self.space.high, float(value)
        if self.space.log:
            low, high, at = math.log(low), math.log(high), math.log(at)
        return (at - low) / (high - low) if high > low else 0.5

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Places and texts of the marks."""
        if isinstance(self.space, Choice):
            return [(self.place(value), figure(value)) for value in self.space.values]
        low, high = self.space.low, self.space.high
        if low == high:
            return [(0.5, figure(low))]
        middle = math.sqrt(low * high) if self.space.log else (low + high) / 2
        return [(self.place(value), f"{value:.3g}") for value in (low, middle, high)]


@dataclass(frozen=True)
class Line:
    """A trial in the parallel coordinates: a path, and how good it is from 0 (worst) to 1."""

    trial: Trial
    path: str
    merit: float
    is_best: bool


@dataclass(frozen=True)
class Point:
    """A trial in the history: x and y from 0 to 1; y is None where there is no loss."""

    trial: Trial
    x: float
    y: float | None


def render(
    title: str,
    subtitle: str,
    space: Mapping[str, Range | Choice],
    trials: Sequence[Trial],
    winner: Trial,
    best: TrainConfig,
) -> str:
    """Write the page.

    Args:
        title: What was searched for, for people.
        subtitle: How.
        space: What was searched.
        trials: All that have ended, in the order of their start.
        winner: The one of them that was chosen; it has a loss.
        best: Its configuration.
    """
    complete = [trial for trial in trials if trial.state == "complete" and trial.has_loss]
    covered = {name: covering(name, values, trials) for name, values in space.items()}
    losses = loss_axis(trials)
    default = TrainConfig()
    return render_page(
        "search.html.j2",
        title=title,
        subtitle=subtitle,
        winner=winner,
        complete=len(complete),
        counts=Counter(trial.state for trial in trials),
        states=STATES,
        trials=trials,
        seconds=sum(trial.seconds or 0.0 for trial in trials),
        columns=columns(trials),
        names=list(space),
        rows=[
            (name, getattr(best, name), getattr(default, name), described(space[name]))
            for name in space
        ],
        fixed=[
            (name, value)
            for name, value in best.to_json().items()
            if name not in space and value != getattr(default, name)
        ],
        axes=[*(Axis(*item) for item in covered.items()), losses],
        lines=lines(trials, covered, losses, winner),
        height=_AXIS_HEIGHT,
        points=points(trials, losses),
        record=record(trials, losses),
        loss_ticks=losses.ticks,
        importances=importances(covered, [(trial.values, trial.loss or 0.0) for trial in complete]),
        telling=TELLING_TRIALS,
    )


def covering(name: str, space: Range | Choice, trials: Iterable[Trial]) -> Range | Choice:
    """Widen a range to the values that were tried, some of them by an earlier version."""
    tried = [trial.values[name] for trial in trials if name in trial.values]
    if isinstance(space, Choice):
        return Choice(tuple(dict.fromkeys((*space.values, *tried))))
    return (
        replace(space, low=min(space.low, *tried), high=max(space.high, *tried)) if tried else space
    )


def described(space: Range | Choice) -> str:
    """Say what was searched: "0.0001 to 0.1, logarithmic"."""
    if isinstance(space, Choice):
        return ", ".join(map(str, space.values))
    return f"{space.low:g} to {space.high:g}{', logarithmic' if space.log else ''}"


def loss_axis(trials: Iterable[Trial]) -> Axis:
    """The scale of the losses, logarithmic where they differ by orders of magnitude."""
    found = [trial.loss for trial in trials if trial.has_loss and trial.loss is not None]
    low, high = min(found), max(found)
    return Axis("validation loss", Range(low, high, log=low > 0 and high / low > _WIDE))


def lines(
    trials: Sequence[Trial], space: Mapping[str, Range | Choice], losses: Axis, winner: Trial
) -> list[Line]:
    """Each trial's way through the axes, the best one last: it is drawn above the others.

    A trial without a loss ends at the last hyperparameter.
    """
    found = []
    for trial in trials:
        places = [Axis(*item).place(trial.values[item[0]]) for item in space.items()]
        merit = 0.0
        if trial.has_loss:
            places.append(losses.place(trial.loss))
            merit = 1 - places[-1]
        # Coordinates: an axis a unit in x; y in pixels, downwards.
        steps = (f"{x},{_AXIS_HEIGHT * (1 - y):.1f}" for x, y in enumerate(places))
        found.append(Line(trial, " ".join(steps), merit, trial is winner))
    return sorted(
        found, key=lambda line: (line.is_best, line.trial.state == "complete", line.merit)
    )


def points(trials: Sequence[Trial], losses: Axis) -> list[Point]:
    """Each trial in the order of their start, and its loss."""
    last = max(1, len(trials) - 1)
    return [
        Point(trial, place / last, losses.place(trial.loss) if trial.has_loss else None)
        for place, trial in enumerate(trials)
    ]


def record(trials: Sequence[Trial], losses: Axis) -> list[tuple[float, float]]:
    """The lowest loss of the complete trials so far, as corners of a line of steps, 0 to 1."""
    corners: list[tuple[float, float]] = []
    for point in points(trials, losses):
        if point.trial.state != "complete" or point.y is None:
            continue
        if corners and point.y >= corners[-1][1]:
            continue
        if corners:
            corners.append((point.x, corners[-1][1]))
        corners.append((point.x, point.y))
    return [*corners, (1.0, corners[-1][1])] if corners else []


def columns(trials: Sequence[Trial]) -> list[tuple[str, list[tuple[str, Any]]]]:
    """The table beside the hyperparameters: titles, and each trial's text and sorting value."""

    def texts(attribute: str, write: Any) -> list[tuple[str, Any]]:
        values = [getattr(trial, attribute) for trial in trials]
        return [("", "") if value is None else (write(value), value) for value in values]

    candidates = {
        "Validation loss": texts("loss", lambda loss: f"{loss:.4f}"),
        "Accuracy": texts("accuracy", percent),
        "Epochs": texts("epochs", str),
        "Seconds": texts("seconds", lambda seconds: f"{seconds:,.1f}"),
    }
    return [(title, cells) for title, cells in candidates.items() if any(text for text, _ in cells)]
