"""Values of CloudWatch's metrics: kept in memory, read as statistics by period."""

import re
import threading
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, NamedTuple

from localaws.errors import LocalAwsError

Series = tuple[float | None, ...]
"""One value for each period, oldest first; None where nothing was recorded."""

_PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d+)?|100)")
# Not in `Metrics`, which is saved with moto's records.
_changing = threading.Lock()


class MetricError(LocalAwsError):
    """A statistic or an expression that is not known here."""


class MetricKey(NamedTuple):
    """What tells one metric from all others; `dimensions` are sorted."""

    namespace: str
    name: str
    dimensions: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, metric: Mapping[str, Any], namespace: str = "") -> "MetricKey":
        """The key of a metric as CloudWatch's requests describe it."""
        dimensions = sorted((d["Name"], d["Value"]) for d in metric.get("Dimensions") or ())
        return cls(metric.get("Namespace", namespace), metric["MetricName"], tuple(dimensions))


class Sample(NamedTuple):
    """What was recorded at one time: `number` values that add up to `total`."""

    time: float
    total: float
    number: float
    minimum: float
    maximum: float
    unit: str


@dataclass(frozen=True)
class Grid:
    """`count` consecutive periods of `period` seconds each, the first from `start` (epoch)."""

    start: float
    period: float
    count: int

    @classmethod
    def over(cls, start: float, end: float, period: float) -> "Grid":
        """The periods from `start` to `end`; they begin at multiples of `period`."""
        first = start // period * period
        return cls(first, period, max(0, -int((first - end) // period)))

    @classmethod
    def until(cls, now: float, period: float, count: int) -> "Grid":
        """The last `count` periods that were over at `now`."""
        return cls(now // period * period - count * period, period, count)

    @property
    def times(self) -> list[float]:
        """When each period begins."""
        return [self.start + position * self.period for position in range(self.count)]


class Metrics:
    """All metrics of one account in one region. All methods may be called from several threads."""

    def __init__(self) -> None:
        """Make it, empty."""
        self._samples: dict[MetricKey, list[Sample]] = {}

    def put(self, namespace: str, data: Iterable[Mapping[str, Any]]) -> None:
        """Record data as PutMetricData takes them.

        Equal values of the same time are kept as one sample, so that a thousand requests that
        succeeded take no more room than one.
        """
        now = datetime.now(UTC)
        values: Counter[tuple[MetricKey, float, str, float]] = Counter()
        for datum in data:
            key = MetricKey.of(datum, namespace)
            time, unit = seconds(datum.get("Timestamp") or now), datum.get("Unit") or "None"
            if statistics := datum.get("StatisticValues"):
                numbers = ("Sum", "SampleCount", "Minimum", "Maximum")
                total, count, minimum, maximum = (float(statistics[name]) for name in numbers)
                self._add(key, Sample(time, total, count, minimum, maximum, unit))
            elif several := datum.get("Values"):
                counts = datum.get("Counts") or [1.0] * len(several)
                for value, count in zip(several, counts, strict=True):
                    values[key, time, unit, float(value)] += count
            else:
                values[key, time, unit, float(datum.get("Value", 0.0))] += 1
        for (key, time, unit, value), count in values.items():
            self._add(key, Sample(time, value * count, count, value, value, unit))

    def _add(self, key: MetricKey, sample: Sample) -> None:
        with _changing:
            insort(self._samples.setdefault(key, []), sample)

    def keys(self) -> list[MetricKey]:
        """The metrics for which something is kept."""
        return list(self._samples)

    def periods(self, key: MetricKey, grid: Grid, unit: str | None = None) -> list[list[Sample]]:
        """The samples of a metric by period; those with another unit than `unit` are left out."""
        with _changing:
            samples = self._samples.get(key, [])
            ends = [*grid.times, grid.start + grid.count * grid.period]
            bounds = [bisect_left(samples, (end,)) for end in ends]
            found = [samples[a:b] for a, b in pairwise(bounds)]
        if not unit:
            return found
        return [[sample for sample in period if sample.unit == unit] for period in found]

    def series(self, key: MetricKey, grid: Grid, name: str, unit: str | None = None) -> Series:
        """A statistic of a metric by period.

        Raises:
            MetricError: The statistic is not known.
        """
        return tuple(statistic(samples, name) for samples in self.periods(key, grid, unit))

    def forget(self, before: float) -> None:
        """Drop what is older than `before` (seconds of the epoch)."""
        with _changing:
            for key, samples in list(self._samples.items()):
                del samples[: bisect_left(samples, (before,))]
                if not samples:
                    del self._samples[key]


def metrics_of(backend: object) -> Metrics:
    """The metrics of one of moto's CloudWatch backends, with which they are saved."""
    found: Metrics = vars(backend).setdefault("metrics", Metrics())
    return found


def seconds(time: datetime) -> float:
    """Seconds of the epoch; a time without a zone is UTC."""
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


def statistic(samples: Sequence[Sample], name: str) -> float | None:
    """A statistic such as Sum or p99 of what was recorded; None if nothing was.

    Raises:
        MetricError: The statistic is not known.
    """
    if fraction := percentile(name):
        return _quantile(samples, fraction)
    if name not in _STATISTICS:
        known = ", ".join(_STATISTICS)
        raise MetricError(f"localaws does not know the statistic {name}; it has {known} and pNN")
    # A metric that is recorded with a count of 0 has no value.
    if not sum(sample.number for sample in samples):
        return None
    return float(_STATISTICS[name](samples))


def percentile(name: str) -> float | None:
    """The fraction that a statistic such as p99.9 means; None if it is no percentile."""
    found = _PERCENTILE.fullmatch(name)
    return float(found[1]) / 100 if found else None


_STATISTICS = {
    "Average": lambda samples: sum(s.total for s in samples) / sum(s.number for s in samples),
    "Maximum": lambda samples: max(s.maximum for s in samples),
    "Minimum": lambda samples: min(s.minimum for s in samples),
    "SampleCount": lambda samples: sum(s.number for s in samples),
    "Sum": lambda samples: sum(s.total for s in samples),
}


def _quantile(samples: Sequence[Sample], fraction: float) -> float | None:
    """The least value that `fraction` of all values do not exceed."""
    # As in CloudWatch, what was recorded as statistics alone has no percentiles.
    if not samples or any(sample.minimum != sample.maximum for sample in samples):
        return None
    left = fraction * sum(sample.number for sample in samples)
    for sample in sorted(samples, key=lambda sample: sample.maximum):
        left -= sample.number
        # The rest of a subtraction that should have come out even.
        if left <= 1e-9:
            return sample.maximum
    return samples[-1].maximum
