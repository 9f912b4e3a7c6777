"""The report of a demonstration as one self-contained page."""

import base64
import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image, ImageOps

PICTURES = 12
BARS = 40
SHOWN_PIXELS = 320
"""Longer side of the photos on the page."""
TOP = 5
"""Of the five best answers of as many classes, or fewer, one is always right."""

_TICKS = 8
_TICK_SECONDS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200)


@dataclass(frozen=True)
class Answered:
    """A test photo and the endpoint's first prediction for it.

    Attributes:
        photo: The file.
        expected: Its label.
        label: The prediction.
        probability: The prediction's.
    """

    photo: Path
    expected: str
    label: str
    probability: float

    @property
    def picture(self) -> str:
        """The photo, no larger than it is shown, in a `data:` address."""
        file = io.BytesIO()
        with Image.open(self.photo) as photo:
            shown = ImageOps.exif_transpose(photo).convert("RGB")
            shown.thumbnail((SHOWN_PIXELS, SHOWN_PIXELS))
            shown.save(file, "WEBP", quality=85, lossless=max(shown.size) <= 64)
        return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


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


def ticks(seconds: float) -> list[int]:
    """Round times for an axis of so many seconds, from 0 on."""
    step = next((step for step in _TICK_SECONDS if seconds / step <= _TICKS), _TICK_SECONDS[-1])
    return list(range(0, int(seconds) + 1, step))


def clock(seconds: float) -> str:
    """Seconds as minutes and seconds, "2:05"."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def render(
    report: Mapping[str, Any],
    answers: Sequence[Answered],
    lone_ms: Sequence[float],
    trace: ScalingTrace | None,
    time_scale: float,
    pages: Mapping[str, Path],
) -> str:
    """Write the page; what a demonstration that failed has not come to is left out.

    Args:
        report: The content of report.json.
        answers: Test photos and what the endpoint said of them.
        lone_ms: Answer times of a lone client, in milliseconds.
        trace: The endpoint's instances under load.
        time_scale: How many times faster than on AWS it was.
        pages: `curves`, an SVG, and `evaluation`, a page, as far as there are files; both become
            part of this one.
    """
    environment = Environment(
        loader=PackageLoader("localaws"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["clock"] = clock
    parts = {name: path.read_text() for name, path in pages.items() if path.exists()}
    svg = parts.get("curves", "")
    return environment.get_template("report.html.j2").render(
        report=report,
        answers=answers[:PICTURES],
        histogram=histogram(lone_ms) if len(lone_ms) > 1 else None,
        trace=trace if trace and trace.seconds else None,
        time_scale=time_scale,
        ticks=ticks(report["seconds_total"]),
        top=TOP,
        curves=svg[svg.find("<svg") :] if "<svg" in svg else "",
        evaluation=parts.get("evaluation", ""),
    )
