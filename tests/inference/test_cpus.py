import os
from pathlib import Path

import pytest

from inference.cpus import available_cpus, lacks_vnni

V2, V1 = "0::{}\n", "5:memory:{}\n4:cpu,cpuacct:{}\n"


@pytest.fixture(autouse=True)
def sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("max 100000", 16),
        ("400000 100000", 4),
        ("250000 100000", 2),
        ("50000 100000", 1),
        ("9900000 100000", 16),
    ],
)
def test_the_quota_of_version_2_counts(tmp_path: Path, quota: str, cores: int) -> None:
    files = {"proc/self/cgroup": V2.format("/"), "sys/fs/cgroup/cpu.max": f"{quota}\n"}
    assert available_cpus(machine(tmp_path, files)) == cores


def test_the_narrowest_group_counts(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": V2.format("/kubepods/pod/box"),
        "sys/fs/cgroup/kubepods/pod/box/cpu.max": "max 100000",
        "sys/fs/cgroup/kubepods/pod/cpu.max": "300000 100000",
        "sys/fs/cgroup/kubepods/cpu.max": "800000 100000",
    }
    assert available_cpus(machine(tmp_path, files)) == 3


@pytest.mark.parametrize("folder", ["cpu", "cpu/docker/abc"])
@pytest.mark.parametrize(("quota", "cores"), [("-1", 16), ("200000", 2)])
def test_the_quota_of_version_1_counts(tmp_path: Path, folder: str, quota: str, cores: int) -> None:
    files = {
        "proc/self/cgroup": V1.format("/docker/abc", "/docker/abc"),
        f"sys/fs/cgroup/{folder}/cpu.cfs_quota_us": f"{quota}\n",
        f"sys/fs/cgroup/{folder}/cpu.cfs_period_us": "100000\n",
    }
    assert available_cpus(machine(tmp_path, files)) == cores


@pytest.mark.parametrize("files", [{}, {"proc/self/cgroup": V2.format("/gone")}])
def test_without_groups_the_affinity_counts(tmp_path: Path, files: dict[str, str]) -> None:
    assert available_cpus(machine(tmp_path, files)) == 16


@pytest.mark.parametrize(
    ("flags", "lacks"),
    [
        ("fpu sse2 avx2", True),
        ("fpu sse2 avx2 avx_vnni", False),
        ("fpu sse2 avx512f avx512_vnni", False),
        ("fp asimd bf16", False),  # Arm
    ],
)
def test_vnni_is_read_from_the_processors_flags(tmp_path, flags, lacks):
    assert lacks_vnni(machine(tmp_path, {"proc/cpuinfo": f"flags\t\t: {flags}\n"})) is lacks


def test_without_procfs_nothing_is_known_to_lack(tmp_path):
    assert not lacks_vnni(tmp_path)
