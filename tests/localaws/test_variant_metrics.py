import time
from collections import defaultdict

import pytest

from localaws.execution import Metric
from localaws.hosting.variant_metrics import Meter

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
