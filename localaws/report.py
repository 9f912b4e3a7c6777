"""The report of a demonstration as one self-contained page."""

import base64
import mimetypes
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


def render(
    report: Mapping[str, Any],
    answers: Sequence[Answered],
    lone_ms: Sequence[float],
    pages: Mapping[str, Path],
) -> str:
    """Write the page.

    Args:
        report: The content of report.json.
        answers: Test photos and what the endpoint said of them.
        lone_ms: Answer times of a lone client, in milliseconds.
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
        curves=svg[svg.index("<svg") :],
        evaluation=pages["evaluation"].read_text(),
    )
