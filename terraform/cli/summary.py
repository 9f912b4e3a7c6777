"""What a plan comes to: how many resources of which type, and US dollars a month.

Only what costs while nobody uses it can be told from a plan; the rest follows use.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from trainer.names import counted
from trainer.prices import hourly_usd, prices
from trainer.target import Target

MONTH_HOURS = 730
PRICES_REGION = "us-east-1"
"""The region of `trainer/prices.toml`."""

# What a plan does to a resource, before and after it is applied.
_ACTIONS = {
    ("create",): ("to add", "added"),
    ("update",): ("to change", "changed"),
    ("delete",): ("to destroy", "destroyed"),
    ("create", "delete"): ("to replace", "replaced"),
    ("delete", "create"): ("to replace", "replaced"),
}
_IN_SHORT = ("No changes.", "Plan:", "Changes to Outputs:", "Planning failed.")
# The comment before each resource; what follows in brackets is a reason.
_NAMED = re.compile(r"  # (\S.* (?:will|must) be .*)")
_SHORT_PERIOD_S = 60


@dataclass(frozen=True)
class _Line:
    """What a thing costs a month, at least and at most; None where the price is not known."""

    what: str
    low: float | None
    high: float | None


def lines(
    name: str, target: Target, plan: Mapping[str, Any], *, applied: bool = False
) -> Iterator[str]:
    """The lines after a plan, or after it was applied.

    Args:
        name: The stack's.
        target: The environment.
        plan: As `terraform show -json` writes it.
        applied: Whether it was applied.
    """
    done = "applied to" if applied else "plan of"
    yield f"{done} {name} ({target.name}): {_changes(plan, applied)}"
    resources = list(_resources(plan.get("planned_values", {}).get("root_module", {})))
    monthly, hourly = list(_monthly(resources)), list(_hourly(resources))
    if not monthly and not hourly:
        return
    low, high = sum(line.low or 0 for line in monthly), sum(line.high or 0 for line in monthly)
    parts = [f"{_range(low, high)} USD a month as it stands"]
    if monthly:
        each = (f"{line.what} {_range(line.low, line.high)}" for line in monthly)
        parts[0] += f" ({', '.join(each)})"
    if hourly:
        parts.append(f"an hour while it runs: {', '.join(hourly)}")
    parts += ["not counted: jobs, requests, logs, stored data, traffic", price_note(target.region)]
    yield f"cost: {'; '.join(parts)}"


def in_short(plan: str) -> list[str]:
    """A plan's warnings, and the line that says what it comes to.

    Args:
        plan: As `terraform plan` prints it.
    """
    told = plan.splitlines()
    warnings = [line for line in told if line.startswith("Warning:")]
    return warnings + [line for line in told if line.startswith(_IN_SHORT)][:1]


def named(plan: str) -> list[str]:
    """Each resource that a plan changes, with what becomes of it.

    Args:
        plan: As `terraform plan` prints it.
    """
    return [found[1] for line in plan.splitlines() if (found := _NAMED.fullmatch(line))]


def deletes(plan: str, types: Collection[str]) -> bool:
    """Whether a plan destroys or replaces a resource of these types.

    Args:
        plan: As `terraform plan` prints it.
        types: Terraform's names, such as `aws_s3_bucket`.
    """
    wanted = re.compile(rf"\b({'|'.join(types)})\..* (destroyed|replaced)")
    return any(map(wanted.search, named(plan)))


def deleted(plan: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The changes of a plan that destroy or replace something."""
    return [each for each in plan["resource_changes"] if "delete" in each["change"]["actions"]]


def name(change: Mapping[str, Any]) -> str:
    """Name of what a change deletes."""
    before = change["change"]["before"]
    return str(before.get("bucket") or before.get("name"))


def has_changes(plan: Mapping[str, Any]) -> bool:
    """Whether a plan has anything to do."""
    return any(tuple(each["change"]["actions"]) in _ACTIONS for each in plan["resource_changes"])


def price_note(region: str) -> str:
    """Where and when the prices hold."""
    oldest = min(price.checked for price in prices().values())
    other = "" if region == PRICES_REGION else f", those of {region} differ"
    return f"list prices of {PRICES_REGION}{other}, {oldest}"


def _changes(plan: Mapping[str, Any], applied: bool) -> str:
    kinds: dict[str, Counter[str]] = {}
    for change in plan["resource_changes"]:
        action = _ACTIONS.get(tuple(change["change"]["actions"]))
        if action:
            kinds.setdefault(action[applied], Counter())[change["type"].removeprefix("aws_")] += 1
    told = [
        f"{types.total()} {action} ({', '.join(f'{n} {kind}' for kind, n in types.most_common())})"
        for action, types in kinds.items()
    ]
    return ", ".join(told) or "nothing to do"


def _resources(module: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Type and values of all that will be there."""
    for resource in module.get("resources", []):
        if resource.get("mode") == "managed":
            yield resource["type"], resource["values"]
    for child in module.get("child_modules", []):
        yield from _resources(child)


def _monthly(resources: list[tuple[str, Mapping[str, Any]]]) -> Iterator[_Line]:
    def of(kind: str) -> list[Mapping[str, Any]]:
        return [values for found, values in resources if found == kind]

    scaled = {
        target.get("resource_id"): (target["min_capacity"], target["max_capacity"])
        for target in of("aws_appautoscaling_target")
        if {"min_capacity", "max_capacity"} <= target.keys()
    }
    for endpoint in of("aws_sagemaker_endpoint"):
        live = endpoint.get("endpoint_config_name")
        # The configuration of the model before is there, too.
        for configuration in of("aws_sagemaker_endpoint_configuration"):
            if configuration.get("name") == live:
                for variant in configuration["production_variants"]:
                    yield _variant(endpoint.get("name"), variant, scaled)
    memory = {
        values.get("function_name"): values["memory_size"] for values in of("aws_lambda_function")
    }
    # Two resources may hold the same environments: the one that stays when it is destroyed says
    # how many.
    warm = sorted(of("aws_lambda_provisioned_concurrency_config"), key=_is_kept)
    numbers = {
        (each.get("function_name"), each.get("qualifier")): each[
            "provisioned_concurrent_executions"
        ]
        for each in warm
    }
    for (name, qualifier), number in numbers.items():
        least, most = scaled.get(f"function:{name}:{qualifier}", (number, number))
        each = warm_usd(memory.get(name, 0))
        what = f"{_span(least, most)} warm environments of the function"
        yield _Line(what, least * each, most * each)
    for notebook in of("aws_sagemaker_notebook_instance"):
        size, usd = notebook["volume_size"], prices()["notebook_storage"].usd
        yield _Line(f"{size} GB of the notebook", size * usd, size * usd)
    alarms = [_alarm_usd(values) for values in of("aws_cloudwatch_metric_alarm")]
    alarms += [prices()["alarm_composite"].usd] * len(of("aws_cloudwatch_composite_alarm"))
    if alarms:
        yield _Line(counted(len(alarms), "alarm"), sum(alarms), sum(alarms))
    boards = len(of("aws_cloudwatch_dashboard"))
    if boards:
        usd = boards * prices()["dashboard"].usd
        yield _Line(counted(boards, "dashboard"), usd, usd)


def _is_kept(warm: Mapping[str, Any]) -> bool:
    return bool(warm.get("skip_destroy"))


def warm_usd(memory_mb: float) -> float:
    """What a warm environment of the function costs a month."""
    return memory_mb / 1024 * MONTH_HOURS * 3600 * prices()["lambda_provisioned"].usd


def _variant(
    endpoint: str | None, variant: Mapping[str, Any], scaled: Mapping[Any, tuple[int, int]]
) -> _Line:
    machine, number = variant["instance_type"], variant["initial_instance_count"]
    place = f"endpoint/{endpoint}/variant/{variant['variant_name']}"
    least, most = scaled.get(place, (number, number))
    hour = hourly_usd(machine, "hosting")
    low, high = (None if hour is None else n * hour * MONTH_HOURS for n in (least, most))
    return _Line(f"{_span(least, most)} x {machine}", low, high)


def _alarm_usd(alarm: Mapping[str, Any]) -> float:
    queries = [each for each in alarm.get("metric_query") or [] if each.get("metric")]
    periods = [metric["period"] for each in queries for metric in each["metric"]]
    periods = periods or [alarm.get("period") or _SHORT_PERIOD_S]
    return sum(
        prices()["alarm_metric_high_resolution" if p < _SHORT_PERIOD_S else "alarm_metric"].usd
        for p in periods
    )


def _hourly(resources: list[tuple[str, Mapping[str, Any]]]) -> Iterator[str]:
    for kind, values in resources:
        machine = values.get("instance_type")
        if kind == "aws_sagemaker_notebook_instance":
            yield f"notebook {machine} {usd_text(hourly_usd(str(machine), 'notebook'))}"
        elif kind == "aws_launch_template" and machine:
            yield f"EC2 trainer {machine} {usd_text(hourly_usd(machine, 'ec2'))}"


def _span(least: int, most: int) -> str:
    return str(least) if least == most else f"{least} to {most}"


def _range(low: float | None, high: float | None) -> str:
    return usd_text(low) if low == high else f"{usd_text(low)} to {usd_text(high)}"


def usd_text(usd: float | None) -> str:
    """An amount of US dollars, if it is known."""
    return "price unknown" if usd is None else f"{usd:.2f}"
