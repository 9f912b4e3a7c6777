"""How many processors this process may really use."""

import os
from collections.abc import Iterator
from pathlib import Path


def available_cpus(root: Path = Path("/")) -> int:
    """Count the cores left by the scheduler's affinity mask and the container's CPU quota.

    A part of a core does not count: a thread more than the quota allows is stopped amid a batch.

    Args:
        root: Where `proc` and `sys` are mounted.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, int(min([cores or 1, *_quotas(root)])))


def lacks_vnni(root: Path = Path("/")) -> bool:
    """Tell whether this is an x86 processor without exact sums of 8-bit products.

    Args:
        root: Where `proc` is mounted.
    """
    try:
        words = (root / "proc/cpuinfo").read_text().split()
    except OSError:
        return False
    return "sse2" in words and not {"avx512_vnni", "avx_vnni"} & set(words)


def _quotas(root: Path) -> Iterator[float]:
    """Give the quota, in cores, of every control group above this process (versions 1 and 2)."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # no Linux
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            mount, names = root / "sys/fs/cgroup", ["cpu.max"]
        elif "cpu" in controllers.split(","):
            mount, names = root / "sys/fs/cgroup/cpu", ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
        else:
            continue
        # Within a container the group's path may be the host's: the mount itself counts then.
        own = Path(group.strip("/"))
        for folder in (own, *own.parents):
            yield from _quota([mount / folder / name for name in names])


def _quota(files: list[Path]) -> Iterator[float]:
    try:
        quota, period = " ".join(file.read_text() for file in files).split()
        if int(quota) > 0:
            yield int(quota) / int(period)
    except (OSError, ValueError):  # no such group, or `max`: no limit
        return
