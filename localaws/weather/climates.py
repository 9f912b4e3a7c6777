"""How often what goes wrong, in each weather; docs/weather.md has the sources."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Climate:
    """Shares are 0 to 1, of the calls or starts that it may happen to.

    Attributes:
        throttled: Calls with which a row of refusals begins, since there were too many.
        failing: Calls that are safe to repeat with which a row of 5xx begins.
        cut: Calls that never arrive, since the connection is reset before.
        lost: Calls that are done and whose answer never arrives.
        loses_deeds: Whether answers are lost to calls that are not safe to repeat, too.
        row: How often in a row a call fails at most; then it gets through.
        runtime_row: The same of a request to an endpoint.
        looks: How often something new is asked for in vain at most, until all of AWS knows it.
        maintained: Looks at an endpoint in service with which a row of `SystemUpdating` begins.
        start_seconds: How long instances take to start, least and most, in AWS's time.
        without_capacity: Starts of jobs and releases for which there are no instances.
        failing_starts: Those that fail within AWS.
        full_zones: Requests for an EC2 instance for which the zone has none.
        interrupted: Attempts of spot jobs that lose their instances.
    """

    throttled: float = 0.0
    failing: float = 0.0
    cut: float = 0.0
    lost: float = 0.0
    loses_deeds: bool = False
    row: int = 0
    runtime_row: int = 0
    looks: int = 0
    maintained: float = 0.0
    start_seconds: tuple[float, float] = (0.0, 0.0)
    without_capacity: float = 0.0
    failing_starts: float = 0.0
    full_zones: float = 0.0
    interrupted: float = 0.0


CLIMATES: Mapping[str, Climate] = {
    "fair": Climate(),
    "rough": Climate(
        throttled=0.03,
        failing=0.01,
        cut=0.01,
        lost=0.01,
        row=2,
        runtime_row=1,
        looks=2,
        maintained=0.05,
        start_seconds=(60.0, 240.0),
        full_zones=0.2,
        interrupted=0.25,
    ),
    "storm": Climate(
        throttled=0.06,
        failing=0.03,
        cut=0.03,
        lost=0.05,
        loses_deeds=True,
        row=6,
        runtime_row=2,
        looks=5,
        maintained=0.15,
        start_seconds=(60.0, 600.0),
        without_capacity=0.15,
        failing_starts=0.1,
        full_zones=0.5,
        interrupted=0.5,
    ),
}
