"""All additions: moto still needs them, and they say what for."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from botocore.session import Session

from localaws import operations

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def gaps() -> list[dict[str, Any]]:
    """The gaps, asked for in a process in which nothing is mended."""
    command = [sys.executable, "-m", "localaws.additions", "--json"]
    asked = subprocess.run(command, capture_output=True, text=True, check=True)
    found: list[dict[str, Any]] = json.loads(asked.stdout)
    return found


def test_no_addition_is_superfluous(gaps: list[dict[str, Any]]) -> None:
    closed = [f"{gap['service']} {gap['operation']}" for gap in gaps if gap["closed"]]
    assert not closed, f"moto {version('moto')} has these built in: take them out of the additions"


def test_each_gap_names_an_operation_of_aws(gaps: list[dict[str, Any]]) -> None:
    session = Session()
    for gap in gaps:
        operations = session.get_service_model(gap["service"]).operation_names
        named = gap["operation"].replace(",", " ").replace(".", " ").split()[0]
        assert named in operations, gap
        assert gap["effect"]


def test_the_list_of_operations_is_current() -> None:
    """What each operation is stands in the documentation, once."""
    command = [sys.executable, "-m", "localaws.additions", "--operations"]
    asked = subprocess.run(command, capture_output=True, text=True, check=True)
    kept = (ROOT / "docs/localaws-operations.md").read_text()
    assert kept == asked.stdout, f"write it anew: {' '.join(command[1:])}"
    session = Session()
    tables = (operations.EXECUTED, operations.RECORDED, operations.REFUSED)
    for table in tables:
        for service, names in table.items():
            assert set(names) <= set(session.get_service_model(service).operation_names)
    for service in operations.STRICT:
        named = [set(table.get(service, ())) for table in tables]
        assert not named[0] & named[1] | named[2] & (named[0] | named[1])


def test_what_asks_moto_sees_the_additions_too() -> None:
    """The questions of these modules are calls, so that each must be answered once it is mended."""
    ask = """
import sys
from localaws.additions import codebuild, ec2, iam, logs, s3, sqs, ssm, sts
modules = [codebuild, ec2, iam, logs, s3, sqs, ssm, sts]
for module in modules:
    module.install()
sys.exit(", ".join(g.operation for m in modules for g in m.GAPS if not g.closed()) or 0)
"""
    asked = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=False)
    assert asked.returncode == 0, asked.stderr
