"""What moto lacks or gets wrong for Kennel, one module for each AWS service.

Each module says what it mends in `GAPS` and mends it in `install`, by changing moto's own classes.
`python -m localaws.additions` lists the gaps and whether the installed moto still has them.
"""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType


@dataclass(frozen=True)
class Gap:
    """One thing that moto lacks or gets wrong, and how to see that it no longer does."""

    service: str
    """The service's name in botocore."""
    operation: str
    """The operation, or operation and field, as botocore names it: `CreateModel.VpcConfig`."""
    effect: str
    """What happens without the addition."""
    closed: Callable[[], bool]
    """True where the installed moto needs no addition; asked before `install`."""
    moto: str = "5.2.5"
    """The last release of moto that was seen to have the gap."""


def modules() -> list[ModuleType]:
    """The additions, one module for each service."""
    return [
        importlib.import_module(f"{__name__}.{found.name}")
        for found in pkgutil.iter_modules(__path__)
        if not found.name.startswith("_")
    ]


def gaps() -> list[Gap]:
    """All gaps that the additions close."""
    return [gap for module in modules() for gap in module.GAPS]


def install() -> None:
    """Close all gaps, once in a process and before a server is made."""
    for module in modules():
        module.install()
