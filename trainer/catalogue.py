"""What Kennel takes from AWS by name, until when AWS mends it, and the machines it knows.

The facts are in `catalogue.toml`, each with its source and the month of its last comparison.
"""

import functools
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from trainer.errors import KennelError, UsageError

CATALOGUE = Path(__file__).with_name("catalogue.toml")

TRAINING_TYPE = "ml.g5.xlarge"
"""What trains unless another type is asked for."""

# A "d" after the generation says so; families of accelerators have disks without one.
_LOCAL_DISKS = re.compile(
    r"(ml\.)?([a-z]+\d[a-z]*d[a-z]*|g[5-9][a-z]*|p[5-9][a-z]*|(dl|gr|trn)\d[a-z]*)[.-]"
)

ROLLING = "rolling"
"""AWS replaces the thing under the same name, and names no last day."""

Kind = Literal[
    "build_image",
    "inference_ami",
    "lambda_runtime",
    "machine_image",
    "notebook_platform",
    "training_image",
]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Entry:
    """One thing that AWS provides.

    Attributes:
        value: AWS's name for it.
        end_of_patch: Last day of security patches; None where AWS replaces it under its name.
        source: Address of AWS's page.
        checked: Month of the comparison, "YYYY-MM".
    """

    value: str
    end_of_patch: date | None
    source: str
    checked: str

    def days_left(self, today: date) -> int | None:
        """Days until the last patch, negative after it; None where it is replaced for ever."""
        return None if self.end_of_patch is None else (self.end_of_patch - today).days


@dataclass(frozen=True)
class Machine:
    """What an instance type consists of.

    Attributes:
        vcpus: Virtual processors.
        memory_gib: Memory in GiB.
        gpus: Graphics processors.
    """

    vcpus: int
    memory_gib: int
    gpus: int = 0


@dataclass(frozen=True)
class Catalogue:
    """All of it.

    Attributes:
        registries: Account of AWS's training images by region.
        entries: What AWS provides, by kind and name.
        machines: Machines by EC2's instance type.
    """

    registries: Mapping[str, str]
    entries: Mapping[tuple[Kind, str], Entry]
    machines: Mapping[str, Machine]

    def find(self, kind: Kind, value: str) -> Entry:
        """The entry by AWS's name for it.

        Raises:
            KennelError: It is not in the catalogue.
        """
        known = [entry for (its_kind, _), entry in self.entries.items() if its_kind == kind]
        for entry in known:
            if entry.value == value:
                return entry
        raise KennelError(
            f"{value} is not in trainer/{CATALOGUE.name}: choose one of its {kind}s "
            f"({', '.join(entry.value for entry in known)}), or add it with its end of patch"
        )


@functools.cache
def load(path: Path = CATALOGUE) -> Catalogue:
    """Read a catalogue.

    Raises:
        KennelError: It is not TOML, or something in it is wrong; the message names the entry.
    """
    try:
        return parse(tomllib.loads(path.read_text()))
    except tomllib.TOMLDecodeError as error:
        raise KennelError(f"{path} is not TOML: {error}; mend that line") from error
    except KennelError as error:
        raise KennelError(f"{path}: {error}") from error


def parse(content: Mapping[str, Any]) -> Catalogue:
    """Read what is in a catalogue; see `load`."""
    unknown = content.keys() - {*KINDS, "machine", "registry"}
    if unknown:
        raise KennelError(f"[{min(unknown)}] is no kind of entry; correct or remove it")
    return Catalogue(
        registries=_registries(_table(content, "registry")),
        entries={
            (kind, name): _entry(f"{kind}.{name}", name, _table(_table(content, kind), name))
            for kind in KINDS
            for name in _table(content, kind)
        },
        machines={name: _machine(name, told) for name, told in _table(content, "machine").items()},
    )


def training_image(region: str, gpu: bool) -> str:
    """Address of AWS's PyTorch image for training, in a region's own registry.

    Raises:
        UsageError: The catalogue knows no registry in that region.
    """
    catalogue = load()
    if region not in catalogue.registries:
        raise UsageError(
            f"trainer/{CATALOGUE.name} knows no registry of training images in {region}: choose "
            "another region, or add the account that the registry's source names"
        )
    # China's services have a domain of their own.
    domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    image = catalogue.entries["training_image", "gpu" if gpu else "cpu"].value
    return f"{catalogue.registries[region]}.dkr.ecr.{region}.{domain}/{image}"


def machine(instance_type: str) -> Machine:
    """What an instance type of EC2, or of SageMaker ("ml."), consists of.

    Raises:
        KennelError: It is not in the catalogue.
    """
    name = instance_type.removeprefix("ml.")
    found = load().machines.get(name)
    if found is None:
        raise KennelError(
            f"{instance_type} is not in trainer/{CATALOGUE.name}: add {name} with its vcpus, "
            f"memory and gpus, which `aws ec2 describe-instance-types --instance-types {name}` "
            "tells"
        )
    return found


def has_gpu(instance_type: str) -> bool:
    """Whether an instance type has NVIDIA GPUs, by the letter of its family."""
    return re.match(r"(ml\.)?[gp]\d", instance_type) is not None


def has_local_disks(instance_type: str) -> bool:
    """Whether an instance type has disks of its own, by the name of its family.

    Its hardware encrypts them, and SageMaker refuses a key of one's own for its volume
    (EC2's user guide, "Instance store volumes"; `ResourceConfig.VolumeKmsKeyId`).
    """
    return _LOCAL_DISKS.match(instance_type) is not None


def _table(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    table = content.get(name, {})
    if not isinstance(table, dict):
        raise KennelError(f"{name} is a table; correct it")
    return table


def _registries(told: Mapping[str, Any]) -> dict[str, str]:
    _check_dated("registry", told)
    exceptions = _table(told, "exceptions")
    regions = told.get("regions")
    if not isinstance(regions, list) or not all(isinstance(name, str) for name in regions):
        raise KennelError("regions of [registry] is a list of regions; correct it")
    accounts = {**dict.fromkeys(regions, told.get("account")), **exceptions}
    for region, account in accounts.items():
        if not re.fullmatch(r"\d{12}", str(account)):
            raise KennelError(f"the account of {region} in [registry] is 12 digits; correct it")
    return {region: str(account) for region, account in accounts.items()}


def _entry(where: str, name: str, told: Mapping[str, Any]) -> Entry:
    unknown = told.keys() - {"value", "end_of_patch", "source", "checked"}
    if unknown:
        raise KennelError(f"{min(unknown)} of [{where}] means nothing; correct or remove it")
    _check_dated(where, told)
    end, value = told.get("end_of_patch"), told.get("value", name)
    # A datetime is a date, too.
    if end != ROLLING and (not isinstance(end, date) or isinstance(end, datetime)):
        raise KennelError(f'end_of_patch of [{where}] is a date or "{ROLLING}"; correct it')
    if not isinstance(value, str) or not value:
        raise KennelError(f"value of [{where}] is AWS's name; correct it")
    last = None if end == ROLLING else end
    return Entry(value, last, told["source"], told["checked"])


def _check_dated(where: str, told: Mapping[str, Any]) -> None:
    if not re.fullmatch(r"20\d\d-(0[1-9]|1[0-2])", str(told.get("checked"))):
        raise KennelError(f"checked of [{where}] is a month, YYYY-MM; correct it")
    host = urlsplit(str(told.get("source"))).netloc
    if host not in {"aws.amazon.com", "aws.github.io", "docs.aws.amazon.com"}:
        raise KennelError(f"source of [{where}] is a page of AWS; correct it")


def _machine(name: str, told: Any) -> Machine:
    try:
        found = Machine(**told)
    except TypeError as error:
        raise KennelError(
            f"{name} of [machine] needs vcpus and memory_gib, and may have gpus: {error}"
        ) from error
    numbers = (found.vcpus, found.memory_gib, found.gpus + 1)
    if not all(type(number) is int and number > 0 for number in numbers):
        raise KennelError(f"{name} of [machine] has whole numbers, above 0; correct them")
    return found
