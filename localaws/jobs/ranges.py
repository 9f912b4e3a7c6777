"""What a tuning job chooses from: SageMaker's ranges of hyperparameters."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice, product
from typing import Any

from localaws.errors import LocalAwsError

# From here on, `Auto` means a logarithmic scale. AWS does not say how it chooses.
_WIDE = 100


class RangeError(LocalAwsError):
    """A range cannot be searched."""


@dataclass(frozen=True)
class Numbers:
    """Numbers from `low` to `high`, both included."""

    low: float
    high: float
    scale: str
    """On what they are evenly spread: `Linear`, `Logarithmic` or `ReverseLogarithmic`."""
    integer: bool


@dataclass(frozen=True)
class Choice:
    """One of a few values."""

    values: tuple[str, ...]


Space = Mapping[str, Numbers | Choice]
"""What each hyperparameter is chosen from."""


def read_space(ranges: Mapping[str, Any]) -> Space:
    """Read a request's `ParameterRanges`.

    Raises:
        RangeError: SageMaker would refuse them.
    """
    integers, continuous, categorical = (
        ranges.get(f"{kind}ParameterRanges", [])
        for kind in ("Integer", "Continuous", "Categorical")
    )
    found = [
        *((given["Name"], _numbers(given, integer=True)) for given in integers),
        *((given["Name"], _numbers(given, integer=False)) for given in continuous),
        *((given["Name"], _choice(given)) for given in categorical),
    ]
    space = dict(found)
    if not space:
        raise RangeError("At least one hyperparameter range must be given")
    if len(space) < len(found):
        raise RangeError("A hyperparameter has more than one range; each may have one")
    return space


def combinations(space: Space) -> float:
    """How many sets of values there are; infinity where a range is continuous."""
    return math.prod(_count(dimension) for dimension in space.values())


def combination(space: Space, number: int) -> dict[str, str]:
    """One of all sets of values, counted from 0; the ranges are categorical."""
    choices = [found.values for found in space.values() if isinstance(found, Choice)]
    return dict(zip(space, next(islice(product(*choices), number, None)), strict=True))


def _count(dimension: Numbers | Choice) -> float:
    if isinstance(dimension, Choice):
        return len(dimension.values)
    return dimension.high - dimension.low + 1 if dimension.integer else math.inf


def _choice(given: Mapping[str, Any]) -> Choice:
    values = tuple(given["Values"])
    if len(set(values)) < len(values):
        raise RangeError(f"The values of {given['Name']} must differ: {', '.join(values)}")
    return Choice(values)


def _numbers(given: Mapping[str, Any], *, integer: bool) -> Numbers:
    name = given["Name"]
    low, high = (_number(given, member, integer) for member in ("MinValue", "MaxValue"))
    if low >= high:
        raise RangeError(f"MinValue of {name} must be less than its MaxValue: {low:g}, {high:g}")
    scale = given.get("ScalingType", "Auto")
    if scale == "Auto":
        scale = "Logarithmic" if low > 0 and high / low >= _WIDE else "Linear"
    if scale == "Logarithmic" and low <= 0:
        raise RangeError(f"{name}: a logarithmic scale needs values greater than 0, not {low:g}")
    if scale == "ReverseLogarithmic" and (integer or low < 0 or high >= 1):
        raise RangeError(
            f"{name}: a reverse logarithmic scale needs continuous values within 0 <= x < 1"
        )
    return Numbers(low, high, scale, integer)


def _number(given: Mapping[str, Any], member: str, integer: bool) -> float:
    try:
        number = float(int(given[member]) if integer else given[member])
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        kind = "integer" if integer else "number"
        raise RangeError(f"{member} of {given['Name']} must be a finite {kind}: {given[member]}")
    return number
