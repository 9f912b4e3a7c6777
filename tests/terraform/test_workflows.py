"""The workflows: what they may do, and that all they run is pinned."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
EACH = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


def load(path: Path) -> dict[Any, Any]:
    return yaml.safe_load(path.read_text())


def triggers(path: Path) -> dict[str, Any]:
    return load(path)[True]  # YAML 1.1 reads the key `on` so


def jobs(path: Path) -> list[dict[str, Any]]:
    return list(load(path)["jobs"].values())


def test_there_is_one_for_each_purpose() -> None:
    assert [path.stem for path in WORKFLOWS] == ["apply", "plan", "test"]


@EACH
def test_every_action_is_pinned_to_a_commit_with_its_version(path: Path) -> None:
    used = re.findall(r"uses: (.*)", path.read_text())
    assert used
    for action in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action


def test_an_action_is_the_same_everywhere() -> None:
    used = {use for path in WORKFLOWS for use in re.findall(r"uses: (.*)", path.read_text())}
    assert len(used) == len({use.split("@")[0] for use in used})


@EACH
def test_it_may_read_and_no_more_but_for_aws(path: Path) -> None:
    assert load(path)["permissions"] == {"contents": "read"}
    for job in jobs(path):
        own = job.get("permissions", {})
        assert own in ({}, {"contents": "read", "id-token": "write"})
        assert job["timeout-minutes"]
        checkouts = [step for step in job["steps"] if "actions/checkout" in step.get("uses", "")]
        assert [step["with"] for step in checkouts] == [{"persist-credentials": False}]
    assert load(path)["concurrency"]["group"]
    assert "secrets." not in path.read_text()
    # What others may write, such as a title, reaches no shell.
    for job in jobs(path):
        assert not any("${{" in step.get("run", "") for step in job["steps"])


def test_tests_run_on_every_push_and_pull_request() -> None:
    path = ROOT / ".github/workflows/test.yml"
    assert set(triggers(path)) == {"push", "pull_request"}
    commands = [step["run"] for job in jobs(path) for step in job["steps"] if "run" in step]
    assert commands == [".ci/run", "make test-moto JOBS=4"]
    assert not any("permissions" in job for job in jobs(path))
    run = (ROOT / ".ci/run").read_text().splitlines()
    made = [line.removeprefix("make ") for line in run if line.startswith("make ")]
    assert made == ["lint", "test", "demo", "test-contract"]


@pytest.mark.parametrize("name", ["apply", "plan"])
def test_no_provider_is_taken_that_nobody_has_reviewed(name: str) -> None:
    (job,) = jobs(ROOT / f".github/workflows/{name}.yml")
    runs = [step["run"] for step in job["steps"] if "run" in step]
    checked = runs.index(".venv/bin/python -m terraform.cli lock --env prod --check")
    uses = [at for at, run in enumerate(runs) if "make apply" in run or "terraform.cli plan" in run]
    assert checked < min(uses)


def test_a_fork_plans_nothing() -> None:
    path = ROOT / ".github/workflows/plan.yml"
    assert set(triggers(path)) == {"pull_request"}
    (job,) = jobs(path)
    assert "head.repo.full_name == github.repository" in job["if"]
    assert set(job["strategy"]["matrix"]["stack"]) == {"foundation", "serving"}
    assert "environment" not in job


def test_what_is_applied_is_main_in_its_turn_and_never_broken_off() -> None:
    path = ROOT / ".github/workflows/apply.yml"
    assert triggers(path)["push"]["branches"] == ["main"]
    assert set(triggers(path)) == {"push", "workflow_dispatch"}
    assert load(path)["concurrency"]["cancel-in-progress"] is False
    (job,) = jobs(path)
    assert job["environment"] == "prod"
    assert "github.ref == 'refs/heads/main'" in job["if"]
    applied = [step["run"] for step in job["steps"] if "make apply" in step.get("run", "")]
    assert [re.search(r"STACK=(\w+)", run)[1] for run in applied] == ["foundation", "serving"]


def test_plan_and_apply_see_the_same_changes() -> None:
    paths = [
        set(triggers(ROOT / f".github/workflows/{name}.yml")[event]["paths"])
        - {f".github/workflows/{name}.yml"}
        for name, event in (("plan", "pull_request"), ("apply", "push"))
    ]
    assert paths[0] == paths[1]
    for glob in paths[0]:
        assert (ROOT / glob.removesuffix("/**")).exists(), glob


@pytest.mark.parametrize(("name", "event"), [("plan", "pull_request"), ("apply", "push")])
def test_whatever_the_commands_are_made_of_is_seen(name: str, event: str) -> None:
    """The packages that they import, what `make` does, and what its environment is made of."""
    sources = [path.read_text() for path in (ROOT / "terraform/cli").glob("*.py")]
    imported = {
        package
        for text in sources
        for package in re.findall(r"^\s*(?:from|import) (\w+)", text, re.MULTILINE)
        if (ROOT / package).is_dir()
    }
    assert {"terraform", "trainer"} <= imported
    made_of = {f"{package}/**" for package in imported}
    watched = set(triggers(ROOT / f".github/workflows/{name}.yml")[event]["paths"])
    assert made_of | {"Makefile", "pyproject.toml", "requirements.lock"} <= watched
