"""Every module's own tests, example and formatting, with the real provider."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "terraform"
MODULES = sorted(path.parent.name for path in ROOT.glob("modules/*/main.tf"))
TESTS = sorted(
    path.name
    for path in ROOT.glob("tests/*.tftest.hcl")
    if not path.name.endswith("_refused.tftest.hcl")  # which test_refusals.py reads
)
STACKS = sorted(path.parent.name for path in ROOT.glob("stacks/*/main.tf"))


class Folder:
    """A copy of the Terraform code in which Terraform runs."""

    def __init__(self, path: Path, binary: Path, environment: dict[str, str]) -> None:
        shutil.copytree(ROOT, path, ignore=shutil.ignore_patterns(".terraform*"))
        self.path = path
        self._binary = binary
        self._environment = environment

    def run(self, *arguments: str) -> str:
        """Give what Terraform prints; fail with all of it where it fails."""
        run = subprocess.run(
            [self._binary, *arguments, "-no-color"],
            cwd=self.path,
            env=self._environment,
            text=True,
            capture_output=True,
        )
        assert run.returncode == 0, run.stdout + run.stderr
        return run.stdout


@pytest.fixture(scope="session")
def modules(
    tmp_path_factory: pytest.TempPathFactory, terraform_binary: Path, attached: dict[str, str]
) -> Folder:
    """Give a folder in which all tests can run: one `init` serves all modules."""
    path = tmp_path_factory.mktemp("modules") / "terraform"
    folder = Folder(path, terraform_binary, attached)
    folder.run("init", "-input=false")
    return folder


@pytest.fixture(scope="session")
def examples(
    tmp_path_factory: pytest.TempPathFactory, terraform_binary: Path, attached: dict[str, str]
) -> Folder:
    """Give a root module that calls the example of every module."""
    path = tmp_path_factory.mktemp("examples") / "terraform"
    folder = Folder(path, terraform_binary, attached)
    shutil.rmtree(path / "tests")
    calls = [
        f'module "{name}" {{ source = "./modules/{name}/examples/basic" }}\n' for name in MODULES
    ]
    (path / "examples.tf").write_text("".join(calls))
    folder.run("init", "-input=false")
    return folder


def test_every_module_has_tests_and_an_example() -> None:
    assert len(MODULES) == 9
    for name in MODULES:
        assert any(test.split(".")[0].startswith(name) for test in TESTS), name
        assert (ROOT / "modules" / name / "examples/basic/main.tf").exists(), name


@pytest.mark.timeout(900)
def test_every_module(modules: Folder) -> None:
    """All files in one command, for each reads the whole code."""
    assert "0 failed" in modules.run("test", *(f"-filter=tests/{name}" for name in TESTS))


def test_a_variants_alarms_go_after_the_composite_alarm_that_names_them_has_changed() -> None:
    """CloudWatch deletes no alarm that a composite alarm depends on."""
    text = (ROOT / "modules/endpoint/alarms.tf").read_text()
    assert text.count('"aws_cloudwatch_metric_alarm"') == text.count("create_before_destroy = true")


def test_format(modules: Folder) -> None:
    modules.run("fmt", "-check", "-diff", "-recursive")


def test_every_example_plans_as_it_stands(examples: Folder) -> None:
    examples.run("plan", "-input=false", "-out=plan")
    plan = json.loads(examples.run("show", "-json", "plan"))
    made = {change["module_address"].split(".")[1] for change in plan["resource_changes"]}
    assert made == set(MODULES)


@pytest.mark.parametrize("stack", STACKS)
def test_stack_is_valid(modules: Folder, stack: str) -> None:
    folder = f"-chdir=stacks/{stack}"
    modules.run(folder, "init", "-input=false", "-backend=false")
    modules.run(folder, "validate")
    # Of its root module: what imports cannot be called by another.
    if (ROOT / "stacks" / stack / "tests").exists():
        assert "0 failed" in modules.run(folder, "test")


# What has another name, whenever it is made anew.
_NAMED_ANEW = {
    "module.endpoint.aws_sagemaker_endpoint_configuration.this",
    "module.endpoint.aws_sagemaker_model.this",
    # Removed, or changed, but never made anew.
    "module.endpoint.aws_cloudwatch_metric_alarm.errors",
    "module.endpoint.aws_cloudwatch_metric_alarm.latency",
}


@pytest.mark.parametrize("stack", STACKS)
def test_nothing_is_made_anew_under_a_name_that_is_still_taken(modules: Folder, stack: str) -> None:
    """`create_before_destroy` counts for all that a resource depends on, too."""
    folder = modules.path / "stacks" / stack
    (folder / "backend_override.tf").write_text('terraform {\n  backend "local" {}\n}\n')
    modules.run(f"-chdir={folder}", "init", "-input=false", "-reconfigure")
    edges: dict[str, set[str]] = {}
    for one, other in re.findall(
        r'"([^"]+)" -> "([^"]+)"', modules.run(f"-chdir={folder}", "graph")
    ):
        edges.setdefault(one, set()).add(other)
    early = set(_made_early())
    while added := {other for one in early for other in edges.get(one, ())} - early:
        early |= added
    assert {each for each in early if "data." not in each} <= _NAMED_ANEW


def _made_early() -> Iterator[str]:
    for path in ROOT.glob("modules/*/*.tf"):
        for kind, name, body in re.findall(
            r'^resource "(\w+)" "(\w+)" {$(.*?)^}$', path.read_text(), re.M | re.S
        ):
            if "create_before_destroy = true" in body:
                yield f"module.{path.parent.name}.{kind}.{name}"
