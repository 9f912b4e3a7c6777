"""The metrics of a variant's requests.

Source: "Amazon SageMaker AI metrics in Amazon CloudWatch" of the SageMaker developer guide.
"""

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from localaws.execution import Metric

CONCURRENCY = "ConcurrentRequestsPerModel"
"""The mean number of requests under way on an instance since the last value."""

_MOST_MISSED = 60
"""No alarm looks farther back; a computer may have slept for a night."""

Values = Counter[float]
"""How often each value came."""

_IS_ERROR: Mapping[str, Callable[[int], bool]] = {
    "Invocation4XXErrors": lambda status: 400 <= status < 500,
    # SageMaker answers for a container that did not.
    "Invocation5XXErrors": lambda status: status == 0 or status >= 500,
    "InvocationModelErrors": lambda status: not 200 <= status < 300,
}


class Meter:
    """Counts requests. All methods may be called from several threads."""

    def __init__(self) -> None:
        """Begin to count."""
        self._lock = threading.Lock()
        self._outstanding = 0
        self._began = self._changed = time.monotonic()
        self._reset()

    def _reset(self) -> None:
        self._statuses: Counter[int] = Counter()
        self._latencies: dict[str, Values] = {
            "ModelLatency": Counter(),
            "OverheadLatency": Counter(),
        }
        self._request_seconds = 0.0
        self._began = self._changed

    def change(self, requests: int) -> None:
        """So many requests more, or fewer, are under way."""
        with self._lock:
            self._integrate()
            self._outstanding += requests

    def add(self, status: int, model_seconds: float, overhead_seconds: float) -> None:
        """A request was answered; status 0 if not by the container."""
        with self._lock:
            self._statuses[status] += 1
            self._latencies["ModelLatency"][_microseconds(model_seconds)] += 1
            self._latencies["OverheadLatency"][_microseconds(overhead_seconds)] += 1

    def read(self, instances: int, dimensions: Mapping[str, str]) -> list[Metric]:
        """The metrics since the last call.

        Args:
            instances: How many serve.
            dimensions: The metrics' dimensions.
        """
        with self._lock:
            self._integrate()
            statuses, latencies = self._statuses, self._latencies
            seconds, request_seconds = self._changed - self._began, self._request_seconds
            self._reset()
        concurrent = request_seconds / seconds / max(1, instances) if seconds else 0.0
        counts: dict[str, Values] = {
            "Invocations": Counter({1.0: statuses.total()}),
            "InvocationsPerInstance": Counter({1 / max(1, instances): statuses.total()}),
        }
        for name, is_error in _IS_ERROR.items():
            errors = sum(count for status, count in statuses.items() if is_error(status))
            counts[name] = Counter({1.0: errors, 0.0: statuses.total() - errors})
        if not statuses:
            # What scales in has to see that there is nothing to do.
            counts = {name: Counter({0.0: 1}) for name in counts}
        return [
            Metric(CONCURRENCY, concurrent, dimensions, "Count"),
            *(
                Metric(name, value, dimensions, unit, count)
                for unit, values_of in (("None", counts), ("Microseconds", latencies))
                for name, values in values_of.items()
                for value, count in values.items()
                if count
            ),
        ]

    def _integrate(self) -> None:
        now = time.monotonic()
        self._request_seconds += self._outstanding * (now - self._changed)
        self._changed = now


def missed_periods(last: float, now: float, length: float) -> list[datetime]:
    """When the periods began that lie between those of two values.

    Args:
        last: When the value before was published, in seconds of the epoch.
        now: When this one is.
        length: Of a period, in seconds.
    """
    present = math.floor(now / length)
    first = max(math.floor(last / length) + 1, present - _MOST_MISSED)
    return [datetime.fromtimestamp(period * length, UTC) for period in range(first, present)]


def _microseconds(seconds: float) -> float:
    # Three digits tell as much, and let equal values be kept as one.
    return float(f"{seconds * 1e6:.3g}")
