import time
from collections import defaultdict
from datetime import datetime
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import pytest

from localaws.execution import Metric
from localaws.hosting.endpoints import Endpoints
from localaws.hosting.variant_metrics import Meter, missed_periods

DIMENSIONS = {"EndpointName": "kennel", "VariantName": "main"}


def by_name(metrics: list[Metric]) -> dict[str, list[tuple[float, int]]]:
    found = defaultdict(list)
    for metric in metrics:
        assert metric.dimensions == DIMENSIONS
        found[metric.name].append((metric.value, metric.count))
    return found


def test_requests_as_sagemaker_counts_them() -> None:
    meter = Meter()
    for status in (200, 200, 404, 500, 0):
        meter.add(status, 0.0123456, 0.001)
    assert by_name(meter.read(2, DIMENSIONS)) == {
        "ConcurrentRequestsPerModel": [(0, 1)],
        "Invocations": [(1, 5)],
        "InvocationsPerInstance": [(0.5, 5)],
        "Invocation4XXErrors": [(1, 1), (0, 4)],
        "Invocation5XXErrors": [(1, 2), (0, 3)],
        "InvocationModelErrors": [(1, 3), (0, 2)],
        "ModelLatency": [(12300, 5)],
        "OverheadLatency": [(1000, 5)],
    }


def test_an_idle_variant_has_zeros_and_no_latency() -> None:
    meter = Meter()
    meter.add(200, 1, 1)
    meter.read(1, DIMENSIONS)
    idle = by_name(meter.read(0, DIMENSIONS))
    assert {name.removeprefix("Invocation") for name in idle} == {
        *("ConcurrentRequestsPerModel", "4XXErrors", "5XXErrors", "ModelErrors"),
        *("s", "sPerInstance"),
    }
    assert all(values == [(0, 1)] for values in idle.values())


def test_concurrency_is_the_mean_over_time_for_each_instance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    meter = Meter()
    meter.change(1)
    now = 2.0
    meter.change(3)
    now = 4.0
    assert by_name(meter.read(2, DIMENSIONS))["ConcurrentRequestsPerModel"] == [(1.25, 1)]
    now = 5.0
    assert by_name(meter.read(2, DIMENSIONS))["ConcurrentRequestsPerModel"] == [(2.0, 1)]


def test_a_period_between_two_values_is_missed() -> None:
    def missed(last: float, now: float, length: float = 10.0) -> list[float]:
        return [began.timestamp() for began in missed_periods(last, now, length)]

    assert missed(1009.9, 1010.1) == []
    assert missed(1009.9, 1029.0) == [1010.0]
    assert missed(1009.9, 1040.0) == [1010.0, 1020.0, 1030.0]
    assert missed(1003.2, 1004.6, 0.5) == [1003.5, 1004.0]
    # A clock that was set back, and a computer that slept for a night.
    assert missed(1040.0, 1000.0) == []
    assert len(missed(1000.0, 40_000.0, 0.5)) == 60


def test_a_value_that_comes_late_is_there_for_each_period() -> None:
    published: list[tuple[str, float | None]] = []

    def publish(_: str, metrics: list[Metric], time: datetime | None = None) -> None:
        published.extend((m.name, time.timestamp() if time else None) for m in metrics)

    service = Endpoints(cast(Any, SimpleNamespace(seconds=lambda s: s / 20, publish=publish)))
    meter = Meter()
    variant = SimpleNamespace(request_metrics=lambda: meter.read(1, DIMENSIONS))
    fleet = SimpleNamespace(all=[variant])
    service._hosted["kennel"] = cast(Any, SimpleNamespace(traffic=[(fleet, 1.0)]))
    service._requests_published = time.time() - 10
    service._publish_requests()
    means = [at for name, at in published if name == "ConcurrentRequestsPerModel"]
    assert means.count(None) == 1
    late = [at for at in means if at is not None]
    # An alarm looks at periods of half a second, and finds a value in each of them.
    assert len(late) in (19, 20)
    assert {b - a for a, b in pairwise(late)} == {0.5}
    # What counts requests is told once.
    assert [name for name, _ in published].count("Invocations") == 1
