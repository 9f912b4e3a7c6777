"""What the stacks cost a month at the modules' defaults, from `trainer/prices.toml`.

`python -m terraform.cli.cost STACK` prints a table; `--markdown` prints the one in the README.
"""

import argparse
import json
import sys
from dataclasses import dataclass

from rich.box import SIMPLE
from rich.table import Table

from terraform.cli.page import Page
from trainer.errors import run_command
from trainer.prices import Price, prices

REQUESTS = 100_000
"""Images classified a month, unless the caller says otherwise."""

_HOURS = 730
_MONTH_S = _HOURS * 3600

# Defaults of the modules; a test compares them with the modules' sources.
_ENDPOINT_INSTANCES = 1
_ENDPOINT_MAX_INSTANCES = 4
_LAMBDA_GB = 512 / 1024
_PROVISIONED = 2
_NOTEBOOK_GB = 5
_TRAINER_GB = 45

# Assumptions, each said in the table.
_RUNS = 4
_RUN_H = 1
_STORED_GB = 20
_WRITES = 20_000
_IMAGES_GB = 2
_BUILDS = 4
_BUILD_MINUTES = 5
_NOTEBOOK_H = 20
_JOB_LOGS_GB = 1
_PHOTO_GB = 100e3 / 1e9
_CALL_S = 0.2
_LOG_LINES_GB = 2.5e3 / 1e9


@dataclass(frozen=True)
class Line:
    """One row of the table: so many units, and why so many."""

    price: Price
    quantity: float
    assumption: str

    @property
    def usd(self) -> float:
        """US dollars a month."""
        return self.quantity * self.price.usd


def foundation(price: dict[str, Price]) -> list[Line]:
    """The lines of the stack that holds data, trains and builds."""
    hours = _RUNS * _RUN_H
    runs = f"{_RUNS} runs of {_RUN_H} hour"
    return [
        Line(price["s3_storage"], _STORED_GB, "data, archives and their old versions"),
        Line(price["s3_put"], _WRITES, "uploads and checkpoints"),
        Line(price["ecr_storage"], _IMAGES_GB, "the last 10 serving images, layers shared"),
        Line(price["build_minute"], _BUILDS * _BUILD_MINUTES, f"{_BUILDS} builds"),
        Line(price["notebook_ml_t3_medium"], _NOTEBOOK_H, "stops by itself when idle"),
        Line(price["notebook_storage"], _NOTEBOOK_GB, "kept while the notebook is stopped"),
        Line(price["training_ml_g5_xlarge"], hours, runs),
        Line(price["ec2_g5_xlarge"], 0, "in place of training jobs; spot costs less"),
        Line(price["ipv4"], 0, "while an EC2 run lasts"),
        Line(price["ebs_gp3"], 0, f"{_TRAINER_GB} GB while an EC2 run lasts"),
        Line(price["logs_in"], _JOB_LOGS_GB, "jobs, notebook and builds"),
        Line(price["logs_kept"], _JOB_LOGS_GB, "30 days"),
        Line(price["sns_email"], 10, "messages of the budget"),
        Line(price["kms_key"], 0, "none unless kms_key_arn is set"),
    ]


def serving(price: dict[str, Price], requests: int = REQUESTS) -> list[Line]:
    """The lines of the stack that serves, for so many requests a month."""
    compute = requests * _CALL_S * _LAMBDA_GB
    warm = _PROVISIONED * _LAMBDA_GB * _MONTH_S
    return [
        Line(price["hosting_ml_m5_large"], _ENDPOINT_INSTANCES * _HOURS, "1 instance all month"),
        Line(price["hosting_data"], requests * _PHOTO_GB, "100 kB a photo"),
        Line(price["lambda_request"], requests, "all photos come through the function"),
        Line(price["lambda_gb_second_provisioned"], compute, "0.2 s a call at 512 MB"),
        Line(price["lambda_gb_second"], 0, "calls beyond the warm environments"),
        Line(price["lambda_provisioned"], warm, f"{_PROVISIONED} x 512 MB all month"),
        Line(price["dashboard"], 1, ""),
        Line(price["alarm_metric"], 12, "10 of the service's, 2 that roll a release back"),
        Line(price["alarm_metric_high_resolution"], 2, "autoscaling's, on concurrency"),
        Line(price["alarm_composite"], 1, ""),
        Line(price["custom_metric"], 7, "the function's"),
        Line(price["logs_in"], requests * _LOG_LINES_GB, "2.5 kB a call"),
        Line(price["logs_kept"], requests * _LOG_LINES_GB, "30 days"),
        Line(price["xray_trace"], requests, "every call, at most; Lambda samples"),
        Line(price["sqs_request"], 1000, "failed asynchronous calls"),
        Line(price["sns_email"], 20, "alarms"),
    ]


_FREE = {
    "foundation": "IAM roles, the launch template, SSM parameters (standard), the budget",
    "serving": "the function's versions and alias, scaling policies, SSM parameters (standard)",
}


def stack_lines(stack: str, requests: int = REQUESTS) -> list[Line]:
    """The lines of "foundation" or "serving"; `requests` count for the latter only."""
    known = prices()
    return foundation(known) if stack == "foundation" else serving(known, requests)


def total(lines: list[Line]) -> float:
    """US dollars a month."""
    return sum(line.usd for line in lines)


def markdown(stack: str, requests: int = REQUESTS) -> str:
    """The table of a stack in Markdown, ending in a line break."""
    lines = stack_lines(stack, requests)
    rows = [("Resource", "Quantity a month", "USD each", "USD a month", "Assumption")]
    rows += [("---", "---:", "---:", "---:", "---")]
    rows += [_cells(line) for line in lines]
    rows += [("**Sum**", "", "", f"**{total(lines):.2f}**", "")]
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    return f"{table}\n{_remarks(stack, lines)}\n"


def _cells(line: Line) -> tuple[str, str, str, str, str]:
    return (
        line.price.name,
        f"{line.quantity:,.10g} {line.price.unit}{_plural(line)}",
        f"{line.price.usd:.10f}".rstrip("0").rstrip("."),
        f"{line.usd:.2f}",
        line.assumption,
    )


def _plural(line: Line) -> str:
    return "" if line.quantity == 1 or line.price.unit == "GB" else "s"


def _remarks(stack: str, lines: list[Line]) -> str:
    oldest = min(line.price.checked for line in lines)
    remarks = [
        "AWS's list prices in us-east-1 without free tiers and taxes, last checked in "
        f"{oldest}; sources in trainer/prices.toml.",
        f"Free: {_FREE[stack]}.",
    ]
    if stack == "serving":
        more = (_ENDPOINT_MAX_INSTANCES - _ENDPOINT_INSTANCES) * lines[0].usd
        remarks.append(
            f"With all {_ENDPOINT_MAX_INSTANCES} instances all month the endpoint costs "
            f"{more:.2f} USD more."
        )
    return " ".join(remarks)


def _table(stack: str, lines: list[Line]) -> Table:
    table = Table(title=f"{stack}: USD a month", box=SIMPLE, caption=_remarks(stack, lines))
    for heading in ("Resource", "Quantity", "USD each", "USD a month", "Assumption"):
        right = heading in {"Quantity", "USD each", "USD a month"}
        table.add_column(heading, justify="right" if right else "left")
    for line in lines:
        table.add_row(*_cells(line))
    table.add_section()
    table.add_row("Sum", "", "", f"{total(lines):.2f}", "")
    return table


def _json(stack: str, lines: list[Line]) -> str:
    rows = [
        {
            "resource": line.price.name,
            "quantity": line.quantity,
            "unit": line.price.unit,
            "usd_each": line.price.usd,
            "usd": round(line.usd, 4),
            "assumption": line.assumption,
            "source": line.price.source,
            "checked": line.price.checked,
        }
        for line in lines
    ]
    return (
        json.dumps({"stack": stack, "usd": round(total(lines), 2), "lines": rows}, indent=2) + "\n"
    )


def _requests(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of requests")
    return int(text)


def main() -> None:
    """Print the costs that the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m terraform.cli.cost", description=main.__doc__)
    parser.add_argument("stack", choices=_FREE)
    parser.add_argument(
        "--requests-per-month",
        type=_requests,
        default=REQUESTS,
        metavar="N",
        help=f"photos classified by the serving stack (default {REQUESTS})",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="for machines")
    form.add_argument("--markdown", action="store_true", help="for the README")
    options = parser.parse_args()
    if options.markdown:
        sys.stdout.write(markdown(options.stack, options.requests_per_month))
        return
    lines = stack_lines(options.stack, options.requests_per_month)
    if options.json:
        sys.stdout.write(_json(options.stack, lines))
    else:
        Page().print(_table(options.stack, lines))


if __name__ == "__main__":
    run_command(main)
