"""What `*_refused.tftest.hcl` say that the modules refuse, tried in seconds instead of minutes.

`terraform test` starts the provider twice for every run. Here all runs are calls of one root
module, and of the modules only the variables are there: one plan, without a provider, tells every
value that was refused and the rule that did it.
"""

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hcl2
import pytest

ROOT = Path(__file__).parents[2] / "terraform"
FILES = sorted(path.name for path in ROOT.glob("tests/*_refused.tftest.hcl"))
LITERAL = hcl2.SerializationOptions(strip_string_quotes=True, explicit_blocks=False)


@dataclass(frozen=True)
class Refusal:
    """One run.

    Attributes:
        file: The file's name.
        name: The run's.
        module: The module's source.
        inputs: The module's arguments.
        variables: Those that must be refused.
    """

    file: str
    name: str
    module: str
    inputs: dict[str, Any]
    variables: frozenset[str]

    @property
    def key(self) -> str:
        """Its name among the runs of all files."""
        return f"{self.file.split('.')[0]}-{self.name}"

    @property
    def call(self) -> str:
        """The call of the module.

        Its arguments come from a variable of the root, whose value only a plan knows: the
        validation before a plan would stop at what it can tell without one.
        """
        arguments = [f"  {name} = var.calls.{self.key}.{name}\n" for name in self.inputs]
        return f'module "{self.key}" {{\n  source = "{self.module}"\n{"".join(arguments)}}}\n'


@dataclass(frozen=True)
class Found:
    """What the plan said.

    Attributes:
        variables: The variables that were refused, by the refusal's key.
        rules: File and line of every rule that refused one.
    """

    variables: dict[str, set[str]]
    rules: set[tuple[str, int]]


def read(file: str) -> list[Refusal]:
    """Give the runs of a file."""
    text = (ROOT / "tests" / file).read_text()
    assert "${" not in text, "only literals can be told by a variable"
    content = hcl2.loads(text, serialization_options=LITERAL)
    (shared,) = content["variables"]
    return [
        Refusal(
            file,
            name,
            run["module"][0]["source"],
            shared | run["variables"][0],
            frozenset(re.findall(r"var\.(\w+)", " ".join(run["expect_failures"]))),
        )
        for block in content["run"]
        for name, run in block.items()
    ]


def plan(folder: Path, refusals: list[Refusal], binary: Path) -> Found:
    """Plan all of it in a folder."""
    for path in ROOT.glob("modules/*/variables.tf"):
        copy = folder / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True)
        shutil.copy(path, copy)
    calls = {refusal.key: refusal.inputs for refusal in refusals}
    (folder / "calls.auto.tfvars.json").write_text(json.dumps({"calls": calls}))
    root = 'variable "calls" { type = any }\n' + "".join(refusal.call for refusal in refusals)
    (folder / "main.tf").write_text(root)
    _terraform(folder, binary, "init").check_returncode()
    found = Found({key: set() for key in calls}, set())
    for message in map(json.loads, _terraform(folder, binary, "plan", "-json").stdout.splitlines()):
        if message["type"] == "diagnostic":
            diagnostic = message["diagnostic"]
            rule = re.search(r"rule at (\S+):(\d+),", diagnostic["detail"])
            given = re.search(r"var\.calls\.([\w-]+)\.(\w+)", diagnostic["snippet"]["code"])
            assert rule, diagnostic
            assert given, diagnostic
            found.variables[given[1]].add(given[2])
            found.rules.add((rule[1], int(rule[2])))
    return found


def _terraform(folder: Path, binary: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [binary, *arguments, "-input=false"],
        cwd=folder,
        env={**os.environ, "CHECKPOINT_DISABLE": "1"},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def refusals() -> dict[str, list[Refusal]]:
    return {file: read(file) for file in FILES}


@pytest.fixture(scope="module")
def found(
    tmp_path_factory: pytest.TempPathFactory,
    terraform_binary: Path,
    refusals: dict[str, list[Refusal]],
) -> Found:
    all_of_them = [refusal for file in refusals.values() for refusal in file]
    return plan(tmp_path_factory.mktemp("refusals"), all_of_them, terraform_binary)


@pytest.mark.parametrize("file", FILES)
def test_just_these_variables_are_refused(
    refusals: dict[str, list[Refusal]], found: Found, file: str
) -> None:
    expected = {refusal.key: refusal.variables for refusal in refusals[file]}
    assert {key: found.variables[key] for key in expected} == expected


def test_every_rule_refuses_something(found: Found) -> None:
    rules = {
        (str(path.relative_to(ROOT)), number)
        for path in ROOT.glob("modules/*/*.tf")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if line.strip() == "validation {"
    }
    assert len(rules) > 100
    assert found.rules == rules
