"""CloudWatch: composite alarms, alarms' history, statistics and metric math that are right."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from botocore import xform_name
from moto.cloudwatch import models, responses, urls
from moto.cloudwatch.exceptions import (
    InvalidParameterCombination,
    InvalidParameterValue,
    ValidationError,
)
from moto.core.responses import ActionResult

from localaws.additions import Gap
from localaws.additions import _cloudwatch_checks as checks
from localaws.additions._moto import (
    ACCOUNT,
    REGION,
    answer_with,
    before,
    page,
    plain_client,
    refuses,
)
from localaws.execution import running
from localaws.monitoring.alarms import COMPARISONS, Alarm, Alarms, rule_holds
from localaws.monitoring.metric_math import Query, period, solve
from localaws.monitoring.metrics import (
    Grid,
    MetricError,
    MetricKey,
    Metrics,
    metrics_of,
    seconds,
    statistic,
)

_SUPPRESSOR_MEMBERS = (
    "ActionsSuppressor",
    "ActionsSuppressorExtensionPeriod",
    "ActionsSuppressorWaitPeriod",
)
_LISTED_METRICS = 500
_S3 = "AWS/S3"
_ALARM: dict[str, Any] = {
    "AlarmName": "probe",
    "Namespace": "probe",
    "MetricName": "probe",
    "ComparisonOperator": "GreaterThanThreshold",
    "EvaluationPeriods": 1,
    "Period": 60,
    "Statistic": "Sum",
    "Threshold": 1.0,
}


class Answers(responses.CloudWatchResponse):
    """Moto's answers, mended."""

    def put_metric_alarm(self) -> ActionResult:
        """Put an alarm; one that is there already keeps its state and its history."""
        operator = self._get_param("ComparisonOperator")
        if self._get_param("ThresholdMetricId") or operator not in {*COMPARISONS, None}:
            raise ValidationError(
                "localaws does not evaluate anomaly detection; compare with a fixed Threshold"
            )
        checks.alarm(self.params)
        return self._put(super().put_metric_alarm)

    def put_composite_alarm(self) -> ActionResult:
        """Put an alarm over other alarms."""
        try:
            rule_holds(self._get_param("AlarmRule"), {})
        except MetricError as error:
            raise ValidationError(str(error)) from error
        checks.composite(self.cloudwatch_backend, self.params)
        answer = self._put(super().put_metric_alarm)
        alarm = self.cloudwatch_backend.alarms[self._get_param("AlarmName")]
        vars(alarm).update(
            {xform_name(member): self._get_param(member) for member in _SUPPRESSOR_MEMBERS}
        )
        return answer

    def _put(self, put: Any) -> ActionResult:
        name, backend = self._get_param("AlarmName"), self.cloudwatch_backend
        former = backend.alarms.get(name)
        answer: ActionResult = put()
        alarm = cast(Alarm, backend.alarms[name])
        if former:
            alarm.take_over(cast(Alarm, former))
        if alarms := running(Alarms):
            alarms.renewed(name)
        return answer

    def set_alarm_state(self) -> ActionResult:
        """Give an alarm a state, with all that follows from it."""
        alarm = self.cloudwatch_backend.alarms.get(self._get_param("AlarmName"))
        former = alarm.state_value if alarm else ""
        answer = super().set_alarm_state()
        if alarms := running(Alarms):
            alarms.set_by_hand(cast(Alarm, alarm), former)
        return answer

    def describe_alarms(self) -> ActionResult:
        """The alarms of the types that are asked for; metric alarms if nothing is said."""
        found = cast(dict[str, Any], super().describe_alarms().result)
        asked = self._get_param("AlarmTypes") or ["MetricAlarm"]
        return ActionResult({f"{kind}s": found[f"{kind}s"] for kind in asked})

    def describe_alarm_history(self) -> ActionResult:
        """What happened to alarms, the newest first unless it is asked otherwise."""
        name, kind = self._get_param("AlarmName"), self._get_param("HistoryItemType")
        start, end = self._get_param("StartDate"), self._get_param("EndDate")
        items = [
            item
            for alarm in self.cloudwatch_backend.alarms.values()
            for item in cast(Alarm, alarm).history
            if name in {None, alarm.name}
            and kind in {None, item["HistoryItemType"]}
            and (not start or seconds(item["Timestamp"]) >= seconds(start))
            and (not end or seconds(item["Timestamp"]) <= seconds(end))
        ]
        ascending = self._get_param("ScanBy") == "TimestampAscending"
        items.sort(key=lambda item: item["Timestamp"], reverse=not ascending)
        return ActionResult({"AlarmHistoryItems": items[: self._get_param("MaxRecords", 100)]})

    def delete_alarms(self) -> ActionResult:
        """Delete alarms and their tags."""
        backend = self.cloudwatch_backend
        checks.deletion(backend, self.params)
        for alarm in backend.get_alarms_by_alarm_names(self._get_param("AlarmNames", [])):
            backend.tagger.delete_all_tags_for_resource(alarm.alarm_arn)
        return super().delete_alarms()

    def get_metric_data(self) -> ActionResult:
        """Statistics and expressions by period; their times are the beginnings of the periods."""
        asked = self._get_param("MetricDataQueries", [])
        for number, query in enumerate(asked, 1):
            if "MetricStat" not in query and "Expression" not in query:
                # AWS, too, ends it with an empty line; moto's tests have it so.
                raise ValidationError(
                    f"The parameter MetricDataQueries.member.{number}.MetricStat is required.\n"
                )
        checks.ids(asked)
        start, end = self._span()
        if start == end:
            raise ValidationError("The parameter StartTime must not equal parameter EndTime.")
        if start > end:
            raise ValidationError("The parameter EndTime must be greater than StartTime.")
        queries = {query["Id"]: query for query in asked}
        descending = self._get_param("ScanBy") != "TimestampAscending"
        try:
            answered = [
                self._result(query, queries, descending)
                for query in queries.values()
                if query.get("ReturnData", True)
            ]
        except MetricError as error:
            raise ValidationError(str(error)) from error
        return ActionResult({"MetricDataResults": answered})

    def _result(
        self, asked: Mapping[str, Any], queries: Mapping[str, Any], descending: bool
    ) -> dict[str, Any]:
        known = {name: Query.of(query) for name, query in queries.items()}
        query = known[asked["Id"]]
        grid = self._grid(period(known, query.id))
        namespaces = {each.key.namespace for each in known.values() if each.key}
        values = solve(_metrics(self.cloudwatch_backend, namespaces), known, query.id, grid)
        present = [(t, v) for t, v in zip(grid.times, values, strict=True) if v is not None]
        if descending:
            present.reverse()
        return {
            "Id": query.id,
            "Label": asked.get("Label") or (query.key.name if query.key else query.id),
            "Timestamps": [time for time, _ in present],
            "Values": [value for _, value in present],
            "StatusCode": "Complete",
        }

    def get_metric_statistics(self) -> ActionResult:
        """Statistics of one metric by period."""
        names = self._get_param("Statistics", [])
        extended = self._get_param("ExtendedStatistics", [])
        if not names and not extended:
            raise InvalidParameterCombination(
                "Must specify either Statistics or ExtendedStatistics"
            )
        checks.statistics(self.params)
        asked = ("Namespace", "MetricName", "Dimensions")
        key = MetricKey.of({name: self._get_param(name) for name in asked})
        start, end = self._span()
        if start >= end:
            raise InvalidParameterValue(
                "The parameter StartTime must be less than the parameter EndTime."
            )
        grid = self._grid(float(self._get_param("Period")))
        metrics = _metrics(self.cloudwatch_backend, {key.namespace})
        points = []
        try:
            for time, samples in zip(
                grid.times, metrics.periods(key, grid, self._get_param("Unit")), strict=True
            ):
                if samples:
                    found = {name: statistic(samples, name) for name in names}
                    percentiles = {name: statistic(samples, name) for name in extended}
                    told = {"ExtendedStatistics": percentiles} if extended else {}
                    points.append({"Timestamp": time, "Unit": samples[-1].unit, **found, **told})
        except MetricError as error:
            raise InvalidParameterValue(str(error)) from error
        return ActionResult({"Label": key.name, "Datapoints": points})

    def list_metrics(self) -> ActionResult:
        """The metrics of which something was recorded lately."""
        wanted = self._get_param("Dimensions", [])
        backend = self.cloudwatch_backend
        found = [
            key
            for key in sorted({*metrics_of(backend).keys(), *_of_s3(backend).keys()})
            if self._get_param("Namespace") in {None, key.namespace}
            and self._get_param("MetricName") in {None, key.name}
            and all(_has(key, dimension) for dimension in wanted)
        ]
        listed, token = page(found, self._get_param("NextToken"), _LISTED_METRICS)
        metrics = [
            {
                "Namespace": key.namespace,
                "MetricName": key.name,
                "Dimensions": [{"Name": name, "Value": value} for name, value in key.dimensions],
            }
            for key in listed
        ]
        return ActionResult({"Metrics": metrics, **token})

    def _span(self) -> tuple[int, int]:
        """The times that are asked for, which CloudWatch takes by the second."""
        start, end = (int(seconds(self._get_param(name))) for name in ("StartTime", "EndTime"))
        return start, end

    def _grid(self, length: float) -> Grid:
        start, end = (seconds(self._get_param(name)) for name in ("StartTime", "EndTime"))
        return Grid.over(start, end, length)


def _metrics(backend: models.CloudWatchBackend, namespaces: set[str]) -> Metrics:
    return _of_s3(backend) if namespaces == {_S3} else metrics_of(backend)


def _of_s3(backend: models.CloudWatchBackend) -> Metrics:
    """The sizes of buckets, which moto counts when they are asked for."""
    metrics = Metrics()
    for datum in backend.aws_metric_data:
        dimensions = [{"Name": d.name, "Value": d.value} for d in datum.dimensions]
        told = {"MetricName": datum.name, "Dimensions": dimensions, "Timestamp": datum.timestamp}
        value = cast(models.MetricDatum, datum).value
        metrics.put(datum.namespace, [{**told, "Value": value, "Unit": datum.unit}])
    return metrics


def _has(key: MetricKey, dimension: Mapping[str, str]) -> bool:
    return any(
        dimension["Name"] == name and dimension.get("Value") in {None, value}
        for name, value in key.dimensions
    )


def _put_metric_data(
    backend: models.CloudWatchBackend, namespace: str, metric_data: list[dict[str, Any]]
) -> None:
    """Take the place of moto's list, which only grows and has a model for each value."""
    for number, datum in enumerate(metric_data, 1):
        backend._validate_parameters_put_metric_data(datum, number)
    metrics_of(backend).put(namespace, metric_data)


def _composite_is_known() -> bool:
    return hasattr(responses.CloudWatchResponse, "put_composite_alarm")


def _types_are_kept_apart() -> bool:
    with plain_client("cloudwatch") as client:
        client.put_metric_alarm(**_ALARM)
        return not client.describe_alarms(AlarmTypes=["CompositeAlarm"]).get("MetricAlarms")


def _tags_are_deleted() -> bool:
    with plain_client("cloudwatch") as client:
        client.put_metric_alarm(**_ALARM, Tags=[{"Key": "a", "Value": "b"}])
        (alarm,) = client.describe_alarms()["MetricAlarms"]
        client.delete_alarms(AlarmNames=["probe"])
        client.put_metric_alarm(**_ALARM)
        return not client.list_tags_for_resource(ResourceARN=alarm["AlarmArn"])["Tags"]


def _state_is_kept() -> bool:
    with plain_client("cloudwatch") as client:
        client.put_metric_alarm(**_ALARM)
        client.set_alarm_state(AlarmName="probe", StateValue="ALARM", StateReason="probe")
        client.put_metric_alarm(**_ALARM)
        return bool(client.describe_alarms()["MetricAlarms"][0]["StateValue"] == "ALARM")


def _history_is_known() -> bool:
    return hasattr(responses.CloudWatchResponse, "describe_alarm_history")


_METRIC: dict[str, Any] = {"Namespace": "probe", "MetricName": "probe"}
_DIMENSIONS = [{"Name": "a", "Value": "b"}, {"Name": "c", "Value": "d"}]


def _recorded(client: Any, *more: Mapping[str, Any]) -> Any:
    """The answer to queries for a metric of which 1 and 3 were recorded, and to more."""
    now = datetime.now(UTC)
    datum = {"MetricName": "probe", "Dimensions": _DIMENSIONS, "Values": [1, 3], "Timestamp": now}
    client.put_metric_data(Namespace="probe", MetricData=[datum])
    metric = {**_METRIC, "Dimensions": _DIMENSIONS}
    stat = {"Metric": metric, "Period": 60, "Stat": "p90"}
    queries = [{"Id": "m", "MetricStat": stat}, *more]
    minutes = timedelta(minutes=2)
    answer = client.get_metric_data(
        MetricDataQueries=queries, StartTime=now - minutes, EndTime=now + minutes
    )
    return answer["MetricDataResults"]


def _percentiles_are_known() -> bool:
    with plain_client("cloudwatch") as client:
        try:
            return bool(_recorded(client)[0]["Values"] == [3.0])
        # moto puts None where the model has a number.
        except (AttributeError, TypeError, ValueError):
            return False


def _math_is_known() -> bool:
    with plain_client("cloudwatch") as client:
        try:
            return bool(_recorded(client, {"Id": "e", "Expression": "2 * m"})[1]["Values"])
        except (AttributeError, TypeError, ValueError):
            return False


def _statistics_are_of_one_metric() -> bool:
    with plain_client("cloudwatch") as client:
        now = datetime.now(UTC)
        datum = {"MetricName": "probe", "Dimensions": _DIMENSIONS, "Value": 1.0}
        client.put_metric_data(Namespace="probe", MetricData=[datum])
        answer = client.get_metric_statistics(
            **_METRIC,
            Dimensions=_DIMENSIONS[:1],
            Period=60,
            Statistics=["Sum"],
            StartTime=now - timedelta(minutes=2),
            EndTime=now + timedelta(minutes=2),
        )
        return not answer["Datapoints"]


def _values_are_no_resources() -> bool:
    with plain_client("cloudwatch") as client:
        client.put_metric_data(
            Namespace="probe", MetricData=[{"MetricName": "probe", "Value": 1.0}]
        )
        return not models.cloudwatch_backends[ACCOUNT][REGION].metric_data


def _metrics_are_listed_once() -> bool:
    with plain_client("cloudwatch") as client:
        datum = {"MetricName": "probe", "Dimensions": _DIMENSIONS, "Value": 1.0}
        for _ in range(2):
            client.put_metric_data(Namespace="probe", MetricData=[datum])
        return len(client.list_metrics(Namespace="probe")["Metrics"]) == 1


def _checks_alarms() -> bool:
    with plain_client("cloudwatch") as client:
        return refuses(lambda: client.put_metric_alarm(**{**_ALARM, "Period": 45}))


GAPS = [
    Gap(
        "cloudwatch",
        "PutMetricAlarm, PutDashboard, GetMetricStatistics, PutMetricData",
        "what AWS refuses is taken: periods, limits, dashboards without what they need",
        _checks_alarms,
    ),
    Gap(
        "cloudwatch",
        "PutCompositeAlarm",
        "an alarm over other alarms cannot be made",
        _composite_is_known,
    ),
    Gap(
        "cloudwatch",
        "DescribeAlarms.AlarmTypes",
        "ignored: alarms of the other type are answered too",
        _types_are_kept_apart,
    ),
    Gap(
        "cloudwatch",
        "DeleteAlarms",
        "the tags stay: another alarm of that name has them",
        _tags_are_deleted,
    ),
    Gap(
        "cloudwatch",
        "PutMetricAlarm.StateValue",
        "an alarm that is changed is OK again",
        _state_is_kept,
    ),
    Gap(
        "cloudwatch",
        "DescribeAlarmHistory",
        "nothing tells what set an alarm off, and when",
        _history_is_known,
    ),
    Gap(
        "cloudwatch",
        "GetMetricData.MetricStat.Stat",
        "percentiles have no values",
        _percentiles_are_known,
    ),
    Gap(
        "cloudwatch",
        "GetMetricData.Expression",
        "metric math other than the id of a query has no values",
        _math_is_known,
    ),
    Gap(
        "cloudwatch",
        "GetMetricStatistics.Dimensions",
        "the values of all metrics that have these dimensions among others are mixed",
        _statistics_are_of_one_metric,
    ),
    Gap(
        "cloudwatch",
        "PutMetricData",
        "each value is kept for good, as a resource of its own",
        _values_are_no_resources,
    ),
    Gap(
        "cloudwatch",
        "ListMetrics",
        "a metric with two dimensions is listed once for each of its values",
        _metrics_are_listed_once,
    ),
]


def install() -> None:
    """Put the additions in moto's place."""
    models.Alarm = Alarm  # type: ignore[misc]
    models.CloudWatchBackend.put_metric_data = _put_metric_data  # type: ignore[assignment]
    before(Answers, "put_dashboard", lambda _, told: checks.dashboard(told))
    before(Answers, "put_metric_data", lambda _, told: checks.values(told))
    answer_with(urls, Answers)
