"""`make status`: one page on what runs, how it fares, and what it costs a month."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import ClientError

from terraform.cli import function, settling, verify
from terraform.cli.page import Page
from terraform.cli.summary import MONTH_HOURS, price_note, usd_text, warm_usd
from trainer.make_command import make_command
from trainer.prices import Kind, hourly_usd
from trainer.target import Target, load

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


_NOTEBOOK_FREE = {"Deleting", "Failed", "Stopped"}


def run(options: argparse.Namespace, _: list[str]) -> int:
    """Print the page."""
    found = status(load(options.env))
    if options.json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    else:
        title = f"{found['environment']}: account {found['account']}, {found['region']}"
        Page().rows(title, _rows(found))
    return 0


def status(target: Target) -> dict[str, Any]:
    """All that the page says, as JSON types.

    Raises:
        KennelError: The foundation is missing.
    """
    endpoint, served, notebook = _endpoint(target), _function(target), _notebook(target)
    jobs = _jobs(target)
    return {
        "environment": target.name,
        "account": target.account,
        "region": target.region,
        "endpoint": endpoint,
        "function": served,
        "notebook": notebook,
        "alarms": verify.alarms(target),
        "jobs": jobs,
        "cost": _cost(target, endpoint, served, notebook, jobs),
    }


def _endpoint(target: Target) -> dict[str, Any] | None:
    described = settling.live(target)
    if not described:
        return None
    try:
        variants = _variants(target, described)
    except ClientError as error:
        if error.response["Error"]["Code"] != "ValidationException":
            raise
        variants = []  # what it ran is gone already, as while it is deleted
    return {
        "name": described["EndpointName"],
        "status": described["EndpointStatus"],
        "configuration": described["EndpointConfigName"],
        "variants": variants,
    }


def _variants(target: Target, described: Mapping[str, Any]) -> list[dict[str, Any]]:
    name, configuration = described["EndpointName"], described["EndpointConfigName"]
    settings = {found["VariantName"]: found for found in verify.variants(target, configuration)}
    return [
        {
            "name": variant["VariantName"],
            "instances": variant.get("CurrentInstanceCount", 0),
            "desired": variant.get("DesiredInstanceCount", 0),
            "instance_type": settings[variant["VariantName"]]["InstanceType"],
            "archive_uri": verify.container(target, settings[variant["VariantName"]]["ModelName"])[
                "ModelDataUrl"
            ],
            "last_hour": _last_hour(
                target,
                "AWS/SageMaker",
                {"EndpointName": name, "VariantName": variant["VariantName"]},
                _ENDPOINT_METRICS,
            ),
        }
        for variant in described.get("ProductionVariants", [])
    ]


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


def _notebook(target: Target) -> dict[str, Any] | None:
    client = target.client("sagemaker")
    try:
        described = client.describe_notebook_instance(NotebookInstanceName=target.prefix)
    except ClientError as error:
        if error.response["Error"]["Code"] not in {"ValidationException", "ResourceNotFound"}:
            raise
        return None
    return {
        "name": described["NotebookInstanceName"],
        "status": described["NotebookInstanceStatus"],
        "instance_type": described["InstanceType"],
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


def _jobs(target: Target) -> list[dict[str, Any]]:
    """Jobs of SageMaker and EC2 runs that are in progress, and the machines that they run on.

    A tuning job has no machine of its own: its trials are training jobs.
    """
    client, prefix = target.client("sagemaker"), f"{target.prefix}-"
    found = []
    for kind, listing, summaries, name in (
        ("training", "list_training_jobs", "TrainingJobSummaries", "TrainingJobName"),
        ("processing", "list_processing_jobs", "ProcessingJobSummaries", "ProcessingJobName"),
        (
            "tuning",
            "list_hyper_parameter_tuning_jobs",
            "HyperParameterTuningJobSummaries",
            "HyperParameterTuningJobName",
        ),
    ):
        pages = client.get_paginator(listing).paginate(
            NameContains=prefix, StatusEquals="InProgress"
        )
        found += [
            {"name": job[name], "kind": kind, "since": _time(job["CreationTime"])}
            for page in pages
            for job in page[summaries]
            if job[name].startswith(prefix)
        ]
    for job in found:
        job["machines"] = _machines(client, job["kind"], job["name"])
    filters = [
        {"Name": "tag:Name", "Values": [f"{target.prefix}-trainer"]},
        {"Name": "instance-state-name", "Values": ["pending", "running"]},
    ]
    pages = target.client("ec2").get_paginator("describe_instances").paginate(Filters=filters)
    return found + [
        {
            "name": instance["InstanceId"],
            "kind": "ec2",
            "since": _time(instance["LaunchTime"]),
            "machines": [_machine(instance["InstanceType"], 1, "ec2")],
        }
        for page in pages
        for reservation in page["Reservations"]
        for instance in reservation["Instances"]
    ]


def _machines(client: Any, kind: str, name: str) -> list[dict[str, Any]]:
    """The machines of a job of SageMaker; processing costs what training does."""
    if kind == "training":
        resources = client.describe_training_job(TrainingJobName=name)["ResourceConfig"]
        groups = resources.get("InstanceGroups") or [resources]
    elif kind == "processing":
        described = client.describe_processing_job(ProcessingJobName=name)
        groups = [described["ProcessingResources"]["ClusterConfig"]]
    else:
        groups = []
    return [_machine(group["InstanceType"], group["InstanceCount"], "training") for group in groups]


def _machine(instance_type: str, number: int, kind: Kind) -> dict[str, Any]:
    price = hourly_usd(instance_type, kind)
    return {
        "what": f"{number} x {instance_type}",
        "usd_an_hour": None if price is None else round(number * price, 4),
    }


def _cost(
    target: Target,
    endpoint: Mapping[str, Any] | None,
    served: Mapping[str, Any] | None,
    notebook: Mapping[str, Any] | None,
    jobs: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """What runs now costs in USD: a month for all but jobs, which end, an hour for all of it."""
    running = [
        _machine(variant["instance_type"], variant["instances"], "hosting")
        for variant in (endpoint["variants"] if endpoint else ())
    ]
    if served and served["warm_requested"]:
        number = served["warm_requested"]
        usd = number * warm_usd(served["memory_mb"]) / MONTH_HOURS
        what = f"{number} warm environments of the function"
        running.append({"what": what, "usd_an_hour": usd})
    if notebook and notebook["status"] not in _NOTEBOOK_FREE:
        machine = _machine(notebook["instance_type"], 1, "notebook")
        running.append(machine | {"what": f"notebook, {machine['what']}"})
    lines = [
        {"what": line["what"], "usd": _rounded(line["usd_an_hour"], MONTH_HOURS)}
        for line in running
    ]
    hourly = running + [
        machine | {"what": f"{job['kind']} {job['name']}, {machine['what']}"}
        for job in jobs
        for machine in job["machines"]
    ]
    return {
        "usd_a_month": round(sum(line["usd"] or 0 for line in lines), 2),
        "lines": lines,
        "usd_an_hour": round(sum(line["usd_an_hour"] or 0 for line in hourly), 4),
        "hourly": hourly,
        "prices": price_note(target.region),
    }


def _rounded(usd: float | None, times: float) -> float | None:
    return None if usd is None else round(usd * times, 2)


def _rows(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    environment = found["environment"]
    return [
        ("endpoint", _endpoint_text(found["endpoint"], environment)),
        ("function", _function_text(found["function"], environment)),
        ("notebook", _notebook_text(found["notebook"])),
        ("alarms", _alarms_text(found["alarms"])),
        ("jobs", _jobs_text(found["jobs"])),
        ("cost", _cost_text(found["cost"])),
    ]


def _endpoint_text(endpoint: Mapping[str, Any] | None, environment: str) -> str:
    if endpoint is None:
        return f"none; `{make_command('deploy', environment)}` makes it"
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


def _function_text(served: Mapping[str, Any] | None, environment: str) -> str:
    if served is None:
        return f"none; `{make_command('deploy', environment)}` makes it"
    hour = served["last_hour"]
    return (
        f"{served['name']} version {served['version']}, {served['warm']} of "
        f"{served['warm_requested']} environments warm\n"
        f"last hour: {_count(hour['invocations'])} calls, {_count(hour['errors'])} errors, "
        f"p99 {_milliseconds(hour['duration_ms_p99'])}"
    )


def _notebook_text(notebook: Mapping[str, Any] | None) -> str:
    if notebook is None:
        return "none"
    return f"{notebook['name']} {notebook['status']}, {notebook['instance_type']}"


def _alarms_text(states: Mapping[str, str]) -> str:
    loud = sorted(name for name, state in states.items() if state == "ALARM")
    return f"ALARM: {', '.join(loud)}" if loud else f"{len(states)}, none is on"


def _jobs_text(jobs: list[dict[str, Any]]) -> str:
    lines = []
    for job in jobs:
        machines = ", ".join(machine["what"] for machine in job["machines"])
        on = f" on {machines}" if machines else ""
        lines.append(f"{job['kind']} {job['name']}{on} since {job['since']}")
    return "\n".join(lines) or "none in progress"


def _cost_text(found: Mapping[str, Any]) -> str:
    monthly = [f"{line['what']}: {usd_text(line['usd'])}" for line in found["lines"]]
    jobs = [
        f"{line['what']}: {usd_text(line['usd_an_hour'])} an hour"
        for line in found["hourly"][len(monthly) :]
    ]
    return "\n".join(
        [
            f"{found['usd_an_hour']:.2f} USD an hour for what runs now; "
            f"{found['usd_a_month']:.2f} USD a month if all but the jobs keeps running",
            *monthly,
            *jobs,
            f"not counted: requests, logs, stored data, traffic; {found['prices']}",
        ]
    )


def _count(value: float | None) -> str:
    return f"{value or 0:.0f}"


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} ms"


def _time(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds")
