"""The prices, the arithmetic over them, and the README's tables."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from terraform.cli import cost
from trainer.prices import prices

ROOT = Path(__file__).parents[2]
STACKS = ("foundation", "serving")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "terraform.cli.cost", *arguments]
    return subprocess.run(command, cwd=ROOT, text=True, capture_output=True)


def line(stack: str, name: str, requests: int = cost.REQUESTS) -> cost.Line:
    return next(row for row in cost.stack_lines(stack, requests) if row.price.name == name)


def test_every_price_is_used_but_those_of_other_machines() -> None:
    used = {row.price for stack in STACKS for row in cost.stack_lines(stack)}
    left = {price for price in prices().values() if price not in used}
    assert {price.unit for price in left} == {"hour"}


@pytest.mark.parametrize(
    ("stack", "name", "quantity", "usd"),
    [
        ("serving", "SageMaker endpoint, ml.m5.large", 730, 83.95),
        # 2 environments x 0.5 GB x 730 h x 3600 s = 2,628,000 GB-s at 0.0000033334.
        ("serving", "Lambda arm64 provisioned concurrency", 2_628_000, 8.7602),
        # 1,000,000 calls x 0.2 s x 0.5 GB = 100,000 GB-s at 0.0000077778.
        (
            "serving",
            "Lambda arm64 duration under provisioned concurrency",
            100_000,
            0.77778,
        ),
        ("foundation", "SageMaker training, ml.g5.xlarge, on demand", 4, 5.632),
        ("foundation", "SageMaker notebook storage", 5, 0.70),
    ],
)
def test_arithmetic(stack: str, name: str, quantity: float, usd: float) -> None:
    row = line(stack, name, requests=1_000_000)
    assert row.quantity == pytest.approx(quantity)
    assert row.usd == pytest.approx(usd, abs=1e-4)


def test_total_is_the_sum_and_grows_with_requests() -> None:
    few, many = (cost.total(cost.stack_lines("serving", n)) for n in (0, 10_000_000))
    # For each photo: 0.0001 GB in, a request, 0.1 GB-s, 2.5 kB of log in and kept, a trace.
    each = 0.0001 * 0.016 + 2e-7 + 0.1 * 7.7778e-6 + 2.5e-6 * 0.53 + 5e-6
    assert many - few == pytest.approx(10_000_000 * each)


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("endpoint", 'instance_type               = optional(string, "ml.m5.large")'),
        ("endpoint", "initial_instance_count      = optional(number, 1)"),
        ("inference_lambda", "executions = optional(number, 2)"),
        ("notebook", 'default     = "ml.t3.medium"'),
        ("ec2_trainer", 'default     = "g5.xlarge"'),
    ],
)
def test_modules_still_have_what_is_priced(module: str, text: str) -> None:
    assert text in (ROOT / "terraform/modules" / module / "variables.tf").read_text()


@pytest.mark.parametrize(
    ("module", "variable", "default"),
    [
        ("autoscaling", "max_capacity", cost._ENDPOINT_MAX_INSTANCES),
        ("inference_lambda", "memory_mb", cost._LAMBDA_GB * 1024),
        ("notebook", "volume_size_gb", cost._NOTEBOOK_GB),
        ("ec2_trainer", "volume_size_gb", cost._TRAINER_GB),
    ],
)
def test_modules_still_have_the_priced_numbers(module: str, variable: str, default: float) -> None:
    source = (ROOT / "terraform/modules" / module / "variables.tf").read_text()
    block = source.split(f'variable "{variable}" {{')[1].split("\n}")[0]
    assert re.search(r"default\s*= (\d+)", block)[1] == f"{default:g}"  # type: ignore[index]


@pytest.mark.parametrize("stack", STACKS)
def test_readme_shows_the_computed_table(stack: str) -> None:
    readme = (ROOT / "README.md").read_text()
    shown = re.search(rf"<!-- BEGIN_COST {stack} -->\n(.*?)<!-- END_COST -->", readme, re.DOTALL)
    assert shown, f"README.md lacks <!-- BEGIN_COST {stack} -->"
    assert shown[1] == cost.markdown(stack), (
        f"put there: python -m terraform.cli.cost {stack} --markdown"
    )


def test_markdown_is_a_table_whose_sum_is_its_rows() -> None:
    table = cost.markdown("serving").split("\n\n")[0].splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in table]
    assert {len(row) for row in cells} == {5}
    rows, last = cells[2:-1], cells[-1]
    assert float(last[3].strip("*")) == pytest.approx(sum(float(row[3]) for row in rows), abs=0.1)


def test_command_line() -> None:
    assert run("foundation", "--markdown").stdout == cost.markdown("foundation")
    answer = json.loads(run("serving", "--requests-per-month", "0", "--json").stdout)
    assert answer["usd"] == pytest.approx(sum(row["usd"] for row in answer["lines"]), abs=0.01)
    assert "83.95" in run("serving").stdout


@pytest.mark.parametrize(
    "arguments", [(), ("all",), ("serving", "--requests-per-month", "-1"), ("serving", "--yaml")]
)
def test_wrong_usage_ends_with_2(arguments: tuple[str, ...]) -> None:
    finished = run(*arguments)
    assert finished.returncode == 2
    assert "error: " in finished.stderr
