"""The report of a demonstration as one self-contained page."""

import base64
import mimetypes
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

PICTURES = 12
BARS = 40


@dataclass(frozen=True)
class Answered:
    """A test photo and the endpoint's first prediction for it."""

    photo: Path
    label: str
    probability: float

    @property
    def expected(self) -> str:
        """The photo's label: its class folder, without a leading "NNN."."""
        return re.sub(r"^\d+\.(?=.)", "", self.photo.parent.name)

    @property
    def picture(self) -> str:
        """The photo's file in a `data:` address."""
        kind = mimetypes.guess_type(self.photo.name)[0]
        return f"data:{kind};base64,{base64.b64encode(self.photo.read_bytes()).decode()}"


@dataclass(frozen=True)
class Histogram:
    """Counts of equally wide bars from `low` to `high`; what is larger is in the last one."""

    low: float
    high: float
    counts: tuple[int, ...]


def histogram(times_ms: Sequence[float]) -> Histogram:
    """Count times in `BARS` bars up to the 99th percentile: a straggler would flatten the rest."""
    low, high = min(times_ms), statistics.quantiles(times_ms, n=100)[98]
    width = max(high - low, 1e-9) / BARS
    counts = [0] * BARS
    for time_ms in times_ms:
        counts[min(BARS - 1, int((time_ms - low) / width))] += 1
    return Histogram(low, high, tuple(counts))


@dataclass
class ScalingTrace:
    """How many instances an endpoint had, and how many clients, over time.

    Attributes:
        seconds: When it was looked at.
        instances: Its instances then.
        clients: Who asked then.
    """

    seconds: list[float] = field(default_factory=list)
    instances: list[int] = field(default_factory=list)
    clients: list[int] = field(default_factory=list)

    def add(self, seconds: float, instances: int, clients: int) -> None:
        """Add a look at it."""
        self.seconds.append(seconds)
        self.instances.append(instances)
        self.clients.append(clients)

    @property
    def peak(self) -> int:
        """The most instances."""
        return max(self.instances)

    def path(self, values: Sequence[float], width: float, height: float) -> str:
        """A step line as the path of an SVG, scaled to a width and a height.

        Args:
            values: `instances` or `clients`.
            width: Of the whole time.
            height: Of the greatest value.
        """
        scale_x, scale_y = width / (self.seconds[-1] or 1), height / (max(values) or 1)
        points = [
            (seconds * scale_x, height - value * scale_y)
            for seconds, value in zip(self.seconds, values, strict=True)
        ]
        first, *rest = points
        return f"M{first[0]:.1f},{first[1]:.1f}" + "".join(f"H{x:.1f}V{y:.1f}" for x, y in rest)


def render(
    report: Mapping[str, Any],
    answers: Sequence[Answered],
    lone_ms: Sequence[float],
    trace: ScalingTrace,
    time_scale: float,
    pages: Mapping[str, Path],
) -> str:
    """Write the page.

    Args:
        report: The content of report.json.
        answers: Test photos and what the endpoint said of them.
        lone_ms: Answer times of a lone client, in milliseconds.
        trace: The endpoint's instances under load.
        time_scale: How many times faster than on AWS it was.
        pages: `curves`, an SVG, and `evaluation`, a page; both become part of this one.
    """
    environment = Environment(
        loader=PackageLoader("localaws"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    svg = pages["curves"].read_text()
    return environment.get_template("report.html.j2").render(
        report=report,
        answers=answers[:PICTURES],
        histogram=histogram(lone_ms),
        trace=trace,
        time_scale=time_scale,
        curves=svg[svg.index("<svg") :],
        evaluation=pages["evaluation"].read_text(),
    )
