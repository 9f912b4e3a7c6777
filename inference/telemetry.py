"""What Prometheus may know of a server."""

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

PATHS = ("/ping", "/invocations", "/metrics")
_SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_PICTURES = (1, 2, 4, 8, 16, 32, 64)


class Telemetry:
    """The metrics of one server.

    Args:
        queue_depth: Gives the requests admitted and not yet answered.
    """

    def __init__(self, queue_depth: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "kennel_requests", "Requests answered.", ["path", "code"], registry=self._registry
        )
        self._seconds = Histogram(
            "kennel_invocation_seconds",
            "Time from a request's headers to its answer.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._batch = Histogram(
            "kennel_batch_size",
            "Pictures in the batch that a request was part of.",
            buckets=_PICTURES,
            registry=self._registry,
        )
        Gauge(
            "kennel_queue_depth",
            "Requests admitted and not yet answered.",
            registry=self._registry,
        ).set_function(queue_depth)

    def count(self, path: str, code: int, seconds: float, batch: int | None) -> None:
        """Count one request; `batch` is set if it reached the model."""
        # Any path can be asked for: only known ones may become a time series.
        self._requests.labels(path if path in PATHS else "other", str(code)).inc()
        if path == "/invocations":
            self._seconds.observe(seconds)
        if batch is not None:
            self._batch.observe(batch)

    def render(self) -> bytes:
        """Give the metrics in Prometheus's text format."""
        return generate_latest(self._registry)
