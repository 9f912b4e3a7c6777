"""What CloudWatch asks of alarms, dashboards and queries before it takes them.

Source: PutMetricAlarm, PutCompositeAlarm, DeleteAlarms, GetMetricStatistics and PutMetricData of
CloudWatch's API reference, and "Dashboard body structure and syntax" there. The words about a
composite alarm's parts are those that people report (aws-cloudformation-user-guide#911).
"""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from moto.cloudwatch.exceptions import (
    DashboardInvalidInputError,
    InvalidParameterCombination,
    InvalidParameterValue,
    ValidationError,
)
from moto.cloudwatch.models import CloudWatchBackend

from localaws import regions
from localaws.monitoring.metrics import seconds

Told = Mapping[str, Any]

_SHORT_PERIODS = (10, 20, 30)
_DAY_SECONDS = 24 * 3600
_MOST_DATAPOINTS = 1440
_MOST_IN_AN_ALARM = 10
_MOST_METRICS = 1000
_MOST_WIDGETS = 500
_ID = re.compile(r"[a-z][a-zA-Z0-9_]*")
_STATISTIC = re.compile(r"p(\d{1,2}(\.\d{1,10})?|100)|(tm|wm|tc|ts|TM|WM|TC|TS|PR|IQM).*")
_PART = re.compile(r'\b(?:ALARM|OK|INSUFFICIENT_DATA)\s*\(\s*(?:"([^"]+)"|([^\s")]+))\s*\)')
_REQUIRED = {
    "alarm": ("alarms",),
    "custom": ("endpoint",),
    "explorer": (),
    "log": ("query",),
    "metric": ("region",),
    "text": ("markdown",),
}
_TREATMENTS = ("breaching", "notBreaching", "ignore", "missing")


def alarm(told: Told) -> None:
    """Refuse a metric alarm that CloudWatch would not take."""
    queries = told.get("Metrics") or []
    if (told.get("TreatMissingData") or "missing") not in _TREATMENTS:
        raise ValidationError(f"Option {told['TreatMissingData']} is not supported.")
    count = told["EvaluationPeriods"]
    if (told.get("DatapointsToAlarm") or 1) > count:
        raise ValidationError(
            "Invalid combination of parameters: DatapointsToAlarm must be less than or equal to "
            "EvaluationPeriods"
        )
    if told.get("Threshold") is None:
        raise ValidationError("The parameter Threshold must be present for static threshold")
    if queries:
        _queries(queries)
    elif (told.get("Statistic") is None) == (told.get("ExtendedStatistic") is None):
        raise ValidationError("Exactly one of Statistic and ExtendedStatistic must be specified.")
    elif not _STATISTIC.fullmatch(told.get("ExtendedStatistic") or "p99"):
        raise ValidationError(
            f"The value {told['ExtendedStatistic']} for parameter ExtendedStatistic is not "
            "supported."
        )
    for period in _periods(told):
        if period not in _SHORT_PERIODS and (period < 1 or period % 60):
            raise ValidationError("Period must be 10, 20, 30 or a multiple of 60")
        most = _DAY_SECONDS * (7 if period >= 3600 else 1)
        if period * count > most:
            raise ValidationError(
                "Metrics cannot be checked across more than "
                f"{'seven days' if most > _DAY_SECONDS else 'a day'} "
                "(EvaluationPeriods * Period must be <= "
                f"{most})"
            )
    _actions(told)


def _periods(told: Told) -> Iterator[int]:
    for query in told.get("Metrics") or [told]:
        period = query.get("MetricStat", query).get("Period")
        if period is not None:
            yield period


def _queries(queries: list[Told]) -> None:
    """The queries of an alarm: one of them is watched."""
    ids(queries)
    if len([query for query in queries if "MetricStat" in query]) > _MOST_IN_AN_ALARM:
        raise ValidationError(f"An alarm can have at most {_MOST_IN_AN_ALARM} metrics.")
    if sum(query.get("ReturnData", True) for query in queries) != 1:
        raise ValidationError(
            "Exactly two elements of the metrics list should return data."
            if any("ANOMALY_DETECTION" in query.get("Expression", "") for query in queries)
            else "Exactly one element of the metrics list should return data."
        )
    for query in queries:
        if "SEARCH(" in query.get("Expression", ""):
            raise ValidationError("SEARCH is not supported on Metric Alarms.")


def ids(queries: list[Told]) -> None:
    """Refuse queries whose ids are none, or not their own."""
    names = [query["Id"] for query in queries]
    for name in names:
        if not _ID.fullmatch(name):
            raise ValidationError(
                f"The value {name} for parameter Id is not matching the expected pattern "
                "^[a-z][a-zA-Z0-9_]*$."
            )
    if len(names) > len(set(names)):
        raise ValidationError("The values for parameter Id in MetricDataQueries are not unique.")


def _actions(told: Told) -> None:
    for kind in ("OKActions", "AlarmActions", "InsufficientDataActions"):
        for action in told.get(kind) or []:
            parts = action.split(":")
            if len(parts) < 6 or parts[0] != "arn":
                raise ValidationError(f"Invalid arn syntax: {action}")
            if parts[2] == "sns" and parts[3] != regions.current():
                raise ValidationError(
                    f"Invalid region {parts[3]} specified. Only {regions.current()} is supported."
                )


def _parts(rule: str) -> list[str]:
    """The alarms that a rule names, by name or ARN."""
    return [(quoted or bare).rpartition(":alarm:")[2] for quoted, bare in _PART.findall(rule)]


def composite(backend: CloudWatchBackend, told: Told) -> None:
    """Refuse an alarm over alarms that are not there, or over itself."""
    name, named = told["AlarmName"], _parts(told["AlarmRule"])
    if name in named:
        raise ValidationError("AlarmRule must not be self-referencing")
    if unknown := [part for part in dict.fromkeys(named) if part not in backend.alarms]:
        raise ValidationError(
            f"Could not save the composite alarm as alarms [{', '.join(unknown)}] in the alarm "
            "rule do not exist"
        )
    _actions(told)


def deletion(backend: CloudWatchBackend, told: Told) -> None:
    """Refuse to delete what a composite alarm depends on; then nothing is deleted."""
    names = told["AlarmNames"]
    found: list[Any] = [backend.alarms[name] for name in names if name in backend.alarms]
    if sum(bool(each.rule) for each in found) > 1:
        raise ValidationError("You can't delete more than one composite alarm in an operation.")
    others: list[Any] = list(backend.alarms.values())
    for other in others:
        needed = set(_parts(other.rule or "")) & set(names)
        if needed and other.name not in names:
            raise ValidationError(
                f"Cannot delete {min(needed)} as there are composite alarm(s) depending on it."
            )


def dashboard(told: Told) -> None:
    """Refuse a dashboard that CloudWatch could not show."""
    if not re.fullmatch(r"[\w-]{1,255}", told["DashboardName"], re.ASCII):
        raise DashboardInvalidInputError(
            "The value for field DashboardName contains invalid characters. It can only contain "
            "alphanumerics, dash (-) and underscore (_)."
        )
    try:
        body = json.loads(told["DashboardBody"])
    # moto has the words for it.
    except ValueError:
        return
    if problems := list(_problems(body)):
        text = json.dumps([{"DataPath": path, "Message": why} for path, why in problems])
        raise DashboardInvalidInputError(
            f"The dashboard body is invalid, there are {len(problems)} validation errors: {text}"
        )


def _problems(body: Any) -> Iterator[tuple[str, str]]:
    widgets = body.get("widgets", []) if isinstance(body, dict) else None
    if not isinstance(widgets, list):
        yield "", "Should be an object with widgets"
        return
    if len(widgets) > _MOST_WIDGETS:
        yield "/widgets", f"Should NOT have more than {_MOST_WIDGETS} items"
    bounds = {"height": (1, 1000), "width": (1, 24), "x": (0, 23), "y": (0, float("inf"))}
    for number, widget in enumerate(widgets):
        path = f"/widgets/{number}"
        if widget.get("type") not in _REQUIRED:
            yield f"{path}/type", f"Should be one of {', '.join(_REQUIRED)}"
            continue
        for name, (least, most) in bounds.items():
            value = widget.get(name, least)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                yield f"{path}/{name}", f"Should be an integer from {least} to {most}"
        properties = widget.get("properties")
        if not isinstance(properties, dict):
            yield path, "Should have required property 'properties'"
            continue
        for name in _REQUIRED[widget["type"]]:
            if name not in properties:
                yield f"{path}/properties", f"Should have required property '{name}'"
        if widget["type"] == "metric":
            shows = {"annotations", "metrics"} & set(properties)
            if not shows:
                yield f"{path}/properties", "Should have required property 'metrics'"


def statistics(told: Told) -> None:
    """Refuse a query for more values than are given at once."""
    period = told["Period"]
    if period not in (1, 5, *_SHORT_PERIODS) and (period < 1 or period % 60):
        raise InvalidParameterValue(
            "The parameter Period must be 1, 5, 10, 20, 30 or a multiple of 60."
        )
    count = int((seconds(told["EndTime"]) - seconds(told["StartTime"])) / period)
    if count > _MOST_DATAPOINTS:
        raise InvalidParameterCombination(
            f"You have requested up to {count:,} datapoints, which exceeds the limit of "
            f"{_MOST_DATAPOINTS:,}. You may reduce the datapoints requested by increasing Period, "
            "or decreasing the time range."
        )


def values(told: Told) -> None:
    """Refuse values that CloudWatch would not keep."""
    data = told.get("MetricData") or []
    if len(data) > _MOST_METRICS:
        raise ValidationError(
            f"The collection MetricData must not have a size greater than {_MOST_METRICS}."
        )
    now = datetime.now(UTC)
    first, last = (now - timedelta(weeks=2)).timestamp(), (now + timedelta(hours=2)).timestamp()
    for number, datum in enumerate(data, 1):
        place = f"The parameter MetricData.member.{number}"
        if not {"Value", "Values", "StatisticValues"} & {
            k for k, v in datum.items() if v is not None
        }:
            raise InvalidParameterValue(
                f"At least one of the parameters must be specified: {place[14:]}.Value"
            )
        if len(datum.get("Values") or []) > 150:
            raise InvalidParameterValue(f"{place}.Values must not have a size greater than 150.")
        time = datum.get("Timestamp")
        if time is None:
            continue
        if seconds(time) < first:
            raise InvalidParameterValue(
                f"{place}.Timestamp must specify a time within the past two weeks."
            )
        if seconds(time) > last:
            raise InvalidParameterValue(
                f"{place}.Timestamp must specify a time no more than two hours in the future."
            )
