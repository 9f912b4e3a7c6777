"""What AWS asks for, from the dated list prices in `prices.toml`."""

import functools
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from trainer.errors import KennelError

PRICES = Path(__file__).with_name("prices.toml")

Kind = Literal["ec2", "hosting", "notebook", "training"]
"""What a machine is for: SageMaker asks more than EC2."""


@dataclass(frozen=True)
class Price:
    """What AWS asks for one unit.

    Args:
        name: What is bought.
        unit: What `usd` is for, such as "hour".
        usd: US dollars for one unit.
        source: Address of AWS's page.
        checked: Month of the comparison, "YYYY-MM".
    """

    name: str
    unit: str
    usd: float
    source: str
    checked: str


@functools.cache
def prices(path: Path = PRICES) -> dict[str, Price]:
    """Read the prices by key; an hour of a machine is under its `key`.

    Raises:
        KennelError: The file is not TOML, or an entry lacks something or is out of range; the
            message names the entry.
    """
    try:
        content = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise KennelError(f"{path.name} is not TOML: {error}; mend that line") from error
    hours = content.pop("hourly", {})
    entries = {**content, **{name: entry for kind in hours for name, entry in _hours(hours, kind)}}
    return {name: _price(path, name, entry) for name, entry in entries.items()}


def hourly_usd(instance_type: str, kind: Kind) -> float | None:
    """List price of an hour of a machine in USD; None where it is not known.

    Args:
        instance_type: Such as "ml.g5.xlarge", or "g5.xlarge" for EC2.
        kind: What it is for.
    """
    price = prices().get(key(instance_type, kind))
    return price.usd if price else None


def key(instance_type: str, kind: str) -> str:
    """Where `prices` has an hour of a machine."""
    return f"{kind}_{re.sub(r'[.-]', '_', instance_type)}"


def _hours(hours: Mapping[str, Any], kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The entries of a kind's table, one for each type of machine."""
    table = hours[kind]
    try:
        shared = {name: told for name, told in table.items() if name != "usd"}
        for machine, usd in table["usd"].items():
            name = shared["name"].replace("{}", machine)
            yield key(machine, kind), {**shared, "name": name, "unit": "hour", "usd": usd}
    except (AttributeError, KeyError) as error:
        raise KennelError(
            f"[hourly.{kind}] of {PRICES.name} needs name, source, checked and the table usd"
        ) from error


def _price(path: Path, name: str, entry: Any) -> Price:
    try:
        price = Price(**entry)
    except TypeError as error:
        raise KennelError(
            f"[{name}] of {path.name} needs name, unit, usd, source and checked, no more: {error}"
        ) from error
    if not (isinstance(price.usd, float) and price.usd > 0):
        raise KennelError(f"usd of [{name}] in {path.name} is a number above 0; correct it")
    if not re.fullmatch(r"20\d\d-(0[1-9]|1[0-2])", str(price.checked)):
        raise KennelError(f"checked of [{name}] in {path.name} is a month, YYYY-MM; correct it")
    if urlsplit(str(price.source)).netloc != "aws.amazon.com":
        raise KennelError(f"source of [{name}] in {path.name} is a page of AWS; correct it")
    return price
