import os
import re
import shutil
import struct
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from lambda_src import __version__
from lambda_src.build import ARCHITECTURES, LOCK, MAX_BYTES, build

ROOT = Path(__file__).parents[2]
ELF_MACHINES = {"x86_64": 62, "arm64": 183}
PIN = re.compile(r"^([a-z0-9-]+)==([^ ]+)", re.MULTILINE)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_two_builds_give_the_same_bytes(
    architecture: str, packages: dict[str, Path], tmp_path: Path
) -> None:
    first = packages[architecture].read_bytes()
    assert build(tmp_path, architecture).read_bytes() == first
    assert len(first) < MAX_BYTES


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_native_code_is_for_the_architecture(architecture: str, packages: dict[str, Path]) -> None:
    with zipfile.ZipFile(packages[architecture]) as archive:
        native = [name for name in archive.namelist() if name.endswith(".so")]
        heads = [archive.read(name)[:20] for name in native]
    assert native
    assert {struct.unpack_from("<H", head, 18)[0] for head in heads} == {ELF_MACHINES[architecture]}
    assert all("cpython-313" in name for name in native)


def test_the_zip_holds_code_and_licences_only(package: Path) -> None:
    with zipfile.ZipFile(package) as archive:
        members = archive.infolist()
    names = [member.filename for member in members]
    assert "lambda_src/handler.py" in names
    assert "lambda_src/build.py" not in names
    assert names == sorted(names)
    assert {member.date_time for member in members} == {(1980, 1, 1, 0, 0, 0)}
    assert not [name for name in names if name.endswith(".pyc") or "/tests/" in name]
    metadata = [Path(name).name for name in names if ".dist-info/" in name]
    assert set(metadata) <= {"LICENSE", "LICENSE.md", "NOTICE"}
    top_level = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
    carried = {"aws_lambda_powertools", "aws_xray_sdk", "idna", "typing_extensions.py", "wrapt"}
    assert top_level == {"lambda_src", *carried}


@pytest.fixture
def built(package: Path, tmp_path: Path) -> Path:
    """A zip of this test's own."""
    return Path(shutil.copy2(package, tmp_path))


def test_a_zip_that_is_up_to_date_is_left_alone(built: Path) -> None:
    before = built.stat()
    after = build(built.parent, "x86_64").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert list(built.parent.iterdir()) == [built]


def flipped(whole: bytes) -> bytes:
    middle = len(whole) // 2
    return whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(flipped, id="a byte flipped"),
        pytest.param(lambda whole: whole[: len(whole) // 2], id="cut"),
        pytest.param(lambda _whole: b"", id="empty"),
    ],
)
def test_a_damaged_zip_is_built_again(built: Path, damage: Callable[[bytes], bytes]) -> None:
    whole = built.read_bytes()
    built.write_bytes(damage(whole))
    assert build(built.parent, "x86_64").read_bytes() == whole


def test_other_inputs_give_another_zip(built: Path) -> None:
    before = built.read_bytes()
    assert build(built.parent, "x86_64", python="3.12").read_bytes() != before


def test_offline_it_says_so_in_one_line_and_keeps_the_last_zip(tmp_path: Path) -> None:
    output = tmp_path / "output"
    output.mkdir()
    last = output / "kennel-lambda-x86_64.zip"
    last.write_bytes(b"of an earlier version")
    command = [sys.executable, "-m", "lambda_src.build", "--output", str(output)]
    offline = {
        "UV_OFFLINE": "1",
        "UV_CACHE_DIR": str(tmp_path / "empty"),
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": "",
    }
    finished = subprocess.run(
        [*command, "--architecture", "x86_64"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, **offline},
    )
    assert finished.returncode == 1
    assert finished.stderr.startswith("error: cannot install the packages of requirements.lock")
    assert finished.stderr.count("\n") == 1
    assert list(output.iterdir()) == [last]
    assert last.read_bytes() == b"of an earlier version"


def test_the_version_that_sites_are_told_is_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == __version__


def test_the_lock_agrees_with_the_environments() -> None:
    environment = set(PIN.findall((ROOT / "requirements.lock").read_text()))
    pins = set(PIN.findall(LOCK.read_text()))
    assert pins
    assert pins <= environment
