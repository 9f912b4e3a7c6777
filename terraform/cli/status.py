"""`make status`: one page on what runs, how it fares, and what it costs a month."""

import argparse
import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from terraform.cli import function, verify
from trainer.prices import hourly_usd, prices
from trainer.target import Target, load

_MONTH_HOURS = 730
# Of the last hour: name, metric and statistic.
_ENDPOINT_METRICS = (
    ("invocations", "Invocations", "Sum"),
    ("errors", "Invocation5XXErrors", "Sum"),
    ("latency_us_p99", "ModelLatency", "p99"),
)
_FUNCTION_METRICS = (
    ("invocations", "Invocations", "Sum"),
    ("errors", "Errors", "Sum"),
    ("duration_ms_p99", "Duration", "p99"),
)


def run(options: argparse.Namespace, _: list[str]) -> int:
    """Print the page."""
    found = status(load(options.env))
    if options.json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    else:
        Console().print(_page(found))
    return 0


def status(target: Target) -> dict[str, Any]:
    """All that the page says, as JSON types.

    Raises:
        KennelError: The foundation is missing.
    """
    endpoint, served = _endpoint(target), _function(target)
    return {
        "environment": target.name,
        "account": target.account,
        "region": target.region,
        "endpoint": endpoint,
        "function": served,
        "alarms": verify.alarms(target),
        "jobs": _jobs(target),
        "cost": _cost(endpoint, served),
    }


def _endpoint(target: Target) -> dict[str, Any] | None:
    described = verify.live(target)
    if not described:
        return None
    name, configuration = described["EndpointName"], described["EndpointConfigName"]
    settings = {found["VariantName"]: found for found in verify.variants(target, configuration)}
    return {
        "name": name,
        "status": described["EndpointStatus"],
        "configuration": configuration,
        "variants": [
            {
                "name": variant["VariantName"],
                "instances": variant.get("CurrentInstanceCount", 0),
                "desired": variant.get("DesiredInstanceCount", 0),
                "instance_type": settings[variant["VariantName"]]["InstanceType"],
                "archive_uri": verify.container(
                    target, settings[variant["VariantName"]]["ModelName"]
                )["ModelDataUrl"],
                "last_hour": _last_hour(
                    target,
                    "AWS/SageMaker",
                    {"EndpointName": name, "VariantName": variant["VariantName"]},
                    _ENDPOINT_METRICS,
                ),
            }
            for variant in described.get("ProductionVariants", [])
        ],
    }


def _function(target: Target) -> dict[str, Any] | None:
    client, name = target.client("lambda"), target.required_parameter("function_name")
    try:
        alias = client.get_alias(FunctionName=name, Name=function.ALIAS)
        settings = client.get_function_configuration(FunctionName=name, Qualifier=function.ALIAS)
    except client.exceptions.ResourceNotFoundException:
        return None
    provisioned = verify.provisioned(target, name)
    return {
        "name": name,
        "version": alias["FunctionVersion"],
        "memory_mb": settings["MemorySize"],
        "warm": provisioned.get("AvailableProvisionedConcurrentExecutions", 0),
        "warm_requested": provisioned.get("RequestedProvisionedConcurrentExecutions", 0),
        "last_hour": _last_hour(
            target,
            "AWS/Lambda",
            {"FunctionName": name, "Resource": f"{name}:{function.ALIAS}"},
            _FUNCTION_METRICS,
        ),
    }


def _last_hour(
    target: Target,
    namespace: str,
    dimensions: Mapping[str, str],
    metrics: tuple[tuple[str, str, str], ...],
) -> dict[str, float | None]:
    """Sums, and percentiles of the worst minute; None where there are no values."""
    now = datetime.now(UTC)
    queries = [
        {
            "Id": name,
            "MetricStat": {
                "Metric": {
                    "Namespace": namespace,
                    "MetricName": metric,
                    "Dimensions": [{"Name": key, "Value": of} for key, of in dimensions.items()],
                },
                "Period": 60,
                "Stat": statistic,
            },
        }
        for name, metric, statistic in metrics
    ]
    answer = target.client("cloudwatch").get_metric_data(
        MetricDataQueries=queries, StartTime=now - timedelta(hours=1), EndTime=now
    )
    values = {found["Id"]: found["Values"] for found in answer["MetricDataResults"]}
    return {
        name: (sum if statistic == "Sum" else max)(values[name]) if values.get(name) else None
        for name, _, statistic in metrics
    }


def _jobs(target: Target) -> list[dict[str, str]]:
    """Training, tuning and EC2 runs that are in progress."""
    client, prefix = target.client("sagemaker"), f"{target.prefix}-"
    found = [
        {"name": job["TrainingJobName"], "kind": "training", "since": _time(job["CreationTime"])}
        for page in client.get_paginator("list_training_jobs").paginate(
            NameContains=prefix, StatusEquals="InProgress"
        )
        for job in page["TrainingJobSummaries"]
    ]
    found += [
        {
            "name": job["HyperParameterTuningJobName"],
            "kind": "tuning",
            "since": _time(job["CreationTime"]),
        }
        for page in client.get_paginator("list_hyper_parameter_tuning_jobs").paginate(
            NameContains=prefix, StatusEquals="InProgress"
        )
        for job in page["HyperParameterTuningJobSummaries"]
    ]
    filters = [
        {"Name": "tag:Name", "Values": [f"{target.prefix}-trainer"]},
        {"Name": "instance-state-name", "Values": ["pending", "running"]},
    ]
    pages = target.client("ec2").get_paginator("describe_instances").paginate(Filters=filters)
    found += [
        {"name": instance["InstanceId"], "kind": "ec2", "since": _time(instance["LaunchTime"])}
        for page in pages
        for reservation in page["Reservations"]
        for instance in reservation["Instances"]
    ]
    return [job for job in found if job["kind"] == "ec2" or job["name"].startswith(prefix)]


def _cost(endpoint: dict[str, Any] | None, served: dict[str, Any] | None) -> dict[str, Any]:
    """What instances and warm environments cost if they run all month, in USD."""
    lines: list[dict[str, Any]] = []
    for variant in endpoint["variants"] if endpoint else ():
        price = hourly_usd(variant["instance_type"], "hosting")
        hours = variant["instances"] * _MONTH_HOURS
        lines.append(
            {
                "what": f"{variant['instances']} x {variant['instance_type']}",
                "usd": None if price is None else round(hours * price, 2),
            }
        )
    if served and served["warm_requested"]:
        warm = served["warm_requested"] * served["memory_mb"] / 1024 * _MONTH_HOURS * 3600
        lines.append(
            {
                "what": f"{served['warm_requested']} warm environments of the function",
                "usd": round(warm * prices()["lambda_provisioned"].usd, 2),
            }
        )
    return {"usd_a_month": round(sum(line["usd"] or 0 for line in lines), 2), "lines": lines}


def _page(found: Mapping[str, Any]) -> Table:
    page = Table(
        title=f"{found['environment']}: account {found['account']}, {found['region']}",
        box=SIMPLE,
        show_header=False,
    )
    page.add_column(style="bold")
    page.add_column(overflow="fold")
    for heading, text in (
        ("endpoint", _endpoint_text(found["endpoint"])),
        ("function", _function_text(found["function"])),
        ("alarms", _alarms_text(found["alarms"])),
        ("jobs", _jobs_text(found["jobs"])),
        ("cost", _cost_text(found["cost"])),
    ):
        page.add_row(heading, escape(text))
    return page


def _endpoint_text(endpoint: Mapping[str, Any] | None) -> str:
    if endpoint is None:
        return "none; `make deploy` makes it"
    lines = [f"{endpoint['name']} {endpoint['status']}, configuration {endpoint['configuration']}"]
    for variant in endpoint["variants"]:
        hour = variant["last_hour"]
        latency = hour["latency_us_p99"]
        lines += [
            f"{variant['name']}: {variant['instances']} of {variant['desired']} "
            f"{variant['instance_type']}, {variant['archive_uri']}",
            f"last hour: {_count(hour['invocations'])} requests, {_count(hour['errors'])} errors, "
            f"p99 {_milliseconds(latency / 1000 if latency is not None else None)}",
        ]
    return "\n".join(lines)


def _function_text(served: Mapping[str, Any] | None) -> str:
    if served is None:
        return "none; `make deploy` makes it"
    hour = served["last_hour"]
    return (
        f"{served['name']} version {served['version']}, {served['warm']} of "
        f"{served['warm_requested']} environments warm\n"
        f"last hour: {_count(hour['invocations'])} calls, {_count(hour['errors'])} errors, "
        f"p99 {_milliseconds(hour['duration_ms_p99'])}"
    )


def _alarms_text(states: Mapping[str, str]) -> str:
    loud = sorted(name for name, state in states.items() if state == "ALARM")
    return f"ALARM: {', '.join(loud)}" if loud else f"{len(states)}, none is on"


def _jobs_text(jobs: list[dict[str, str]]) -> str:
    lines = [f"{job['kind']} {job['name']} since {job['since']}" for job in jobs]
    return "\n".join(lines) or "none in progress"


def _cost_text(found: Mapping[str, Any]) -> str:
    lines = [
        f"{line['what']}: {'price unknown' if line['usd'] is None else line['usd']}"
        for line in found["lines"]
    ]
    return "\n".join([f"{found['usd_a_month']:.2f} USD a month for what runs now", *lines])


def _count(value: float | None) -> str:
    return f"{value or 0:.0f}"


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} ms"


def _time(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds")
