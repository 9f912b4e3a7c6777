"""Metrics, metric math and alarms: datapoints in, states and actions out."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from localaws.monitoring.alarms import Condition, decide, rule_holds
from localaws.monitoring.metric_math import Query, solve
from localaws.monitoring.metrics import Grid, MetricError, MetricKey, Metrics, statistic
from tests.localaws.conftest import LocalAws, until
from tests.localaws.roles import document

KEY = MetricKey("Probe", "Requests", (("Service", "kennel"),))
_VALUES = {"0": 0.0, "X": 2.0, "-": None}


def series(text: str) -> tuple[float | None, ...]:
    """Datapoints as CloudWatch's manual draws them: 0 is fine, X is breaching, - is missing."""
    return tuple(_VALUES[mark] for mark in text.replace(" ", ""))


def condition(periods: int, datapoints: int, missing: str = "missing") -> Condition:
    return Condition("GreaterThanThreshold", 1.0, periods, datapoints, missing)


# The first table of "Configuring how CloudWatch alarms treat missing data": 3 out of 3.
@pytest.mark.parametrize(
    ("values", "missing", "ignore", "breaching", "not_breaching"),
    [
        ("0 - X - X", "OK", "OK", "OK", "OK"),
        ("0 - - - -", "OK", "OK", "OK", "OK"),
        ("- - - - -", "INSUFFICIENT_DATA", "former", "ALARM", "OK"),
        ("0 X X - X", "ALARM", "ALARM", "ALARM", "ALARM"),
        ("- - X - -", "ALARM", "former", "ALARM", "OK"),
    ],
)
def test_missing_data_is_treated_as_the_manual_says(
    values: str, missing: str, ignore: str, breaching: str, not_breaching: str
) -> None:
    told = {
        treatment: decide(series(values), condition(3, 3, treatment), "former")
        for treatment in ("missing", "ignore", "breaching", "notBreaching")
    }
    assert list(told.values()) == [missing, ignore, breaching, not_breaching]


@pytest.mark.parametrize(
    ("values", "state"),
    [
        ("0 0 X 0 X", "ALARM"),
        ("X X 0 0 0", "OK"),
        ("- - X - X", "ALARM"),
        ("- - - X -", "ALARM"),
        ("- - - - X", "OK"),
    ],
)
def test_some_of_the_last_datapoints_are_enough(values: str, state: str) -> None:
    assert decide(series(values), condition(3, 2), "OK") == state


@given(
    values=st.lists(st.sampled_from([0.0, 2.0]), min_size=3, max_size=8),
    datapoints=st.integers(1, 3),
    missing=st.sampled_from(["missing", "ignore", "breaching", "notBreaching"]),
)
def test_complete_data_are_counted_whatever_is_said_of_missing_ones(
    values: list[float], datapoints: int, missing: str
) -> None:
    state = decide(tuple(values), condition(3, datapoints, missing), "INSUFFICIENT_DATA")
    assert state == ("ALARM" if values[-3:].count(2.0) >= datapoints else "OK")


@pytest.mark.parametrize(
    ("comparison", "breaching"),
    [
        ("GreaterThanThreshold", [False, False, True]),
        ("GreaterThanOrEqualToThreshold", [False, True, True]),
        ("LessThanThreshold", [True, False, False]),
        ("LessThanOrEqualToThreshold", [True, True, False]),
    ],
)
def test_values_are_compared_with_the_threshold(comparison: str, breaching: list[bool]) -> None:
    asked = Condition(comparison, 2.0)
    assert [asked.breaches(value) for value in (1.0, 2.0, 3.0)] == breaching


@pytest.mark.parametrize(
    ("rule", "holds"),
    [
        ('ALARM("a") OR ALARM("b-2")', True),
        ("ALARM(a) AND OK(b-2)", True),
        ('NOT ALARM("a") OR ALARM("b-2")', False),
        ('FALSE OR TRUE AND NOT (ALARM("a") AND OK("a"))', True),
        ('INSUFFICIENT_DATA("c d") AND NOT FALSE', True),
        ("ALARM(arn:aws:cloudwatch:us-east-1:123456789012:alarm:a)", True),
        ('ALARM("unknown") OR OK("unknown")', False),
    ],
)
def test_the_rule_of_a_composite_alarm(rule: str, holds: bool) -> None:
    states = {"a": "ALARM", "b-2": "OK", "c d": "INSUFFICIENT_DATA"}
    assert rule_holds(rule, states) is holds


@pytest.mark.parametrize("rule", ["", "ALARM(", "(TRUE", "TRUE FALSE", "a AND b", "NOT"])
def test_a_rule_that_is_none_is_refused(rule: str) -> None:
    with pytest.raises(MetricError, match="alarm rule"):
        rule_holds(rule, {})


def recorded(**values: list[float | None]) -> tuple[Metrics, dict[str, Query], Grid]:
    """Metrics of these names with one value a minute, and a query for each."""
    metrics, queries = Metrics(), {}
    for name, numbers in values.items():
        queries[name] = Query(name, MetricKey("Probe", name, ()), "Sum", 60.0)
        for minute, number in enumerate(numbers):
            at = datetime.fromtimestamp(60 * minute + 5, UTC)
            if number is not None:
                metrics.put("Probe", [{"MetricName": name, "Value": number, "Timestamp": at}])
    return metrics, queries, Grid(0.0, 60.0, max(map(len, values.values())))


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("errors", (1.0, None, 3.0)),
        ("FILL(errors, 0)", (1.0, 0.0, 3.0)),
        ("FILL(errors, REPEAT)", (1.0, 1.0, 3.0)),
        ("100 * (FILL(errors, 0) + FILL(none, 0)) / calls", (25.0, 0.0, None)),
        ('MAX(METRICS("s")) / 1000', (0.004, 0.002, 0.003)),
        ("SUM([calls, errors])", (5.0, 2.0, 3.0)),
        ("AVG(calls)", (2.0, 2.0, 2.0)),
        ("IF(calls > 1 AND errors >= 1, errors ^ 2, -1)", (1.0, None, -1.0)),
        ("-MIN(METRICS()) + PERIOD(calls)", (59.0, 58.0, 60.0)),
        ("CEIL(calls / 3) + FLOOR(0.9) + ABS(-1)", (3.0, 2.0, 1.0)),
    ],
)
def test_metric_math(expression: str, expected: tuple[float | None, ...]) -> None:
    metrics, queries, grid = recorded(calls=[4, 2, 0], errors=[1, None, 3], none=[None])
    queries["wanted"] = Query("wanted", expression=expression)
    assert solve(metrics, queries, "wanted", grid) == pytest.approx(expected)


@pytest.mark.parametrize(
    "expression",
    [
        "ANOMALY_DETECTION_BAND(calls)",
        "calls +",
        "unknown",
        "wanted + 1",
        "calls.real",
        "METRICS()",
    ],
)
def test_what_is_not_understood_is_said(expression: str) -> None:
    metrics, queries, grid = recorded(calls=[1], errors=[1])
    queries["wanted"] = Query("wanted", expression=expression)
    with pytest.raises(MetricError):
        solve(metrics, queries, "wanted", grid)


def test_statistics_are_of_all_values_of_a_period() -> None:
    metrics, at = Metrics(), datetime.fromtimestamp(70, UTC)
    data = {"MetricName": KEY.name, "Dimensions": [{"Name": "Service", "Value": "kennel"}]}
    values = {"Values": [1.0, 2.0, 10.0], "Counts": [90, 9, 1]}
    metrics.put(KEY.namespace, [{**data, **values, "Timestamp": at}])
    (none, samples) = metrics.periods(KEY, Grid(0.0, 60.0, 2))
    assert not none
    assert statistic(none, "Sum") is None
    told = {name: statistic(samples, name) for name in ("Sum", "Average", "SampleCount", "Maximum")}
    assert told == {"Sum": 118.0, "Average": 1.18, "SampleCount": 100.0, "Maximum": 10.0}
    assert [statistic(samples, name) for name in ("p50", "p90", "p99", "p99.9")] == [1, 1, 2, 10]
    with pytest.raises(MetricError, match="tm90"):
        statistic(samples, "tm90")


def test_a_thousand_equal_values_take_the_room_of_one_and_old_ones_go() -> None:
    metrics = Metrics()
    for at in (100, 200):
        time_ = datetime.fromtimestamp(at, UTC)
        data = [{"MetricName": "Ok", "Value": 1.0, "Timestamp": time_}] * 1000
        metrics.put("Probe", data)
    (samples,) = metrics.periods(key := MetricKey("Probe", "Ok", ()), Grid(0.0, 300.0, 1))
    assert [(sample.time, sample.number) for sample in samples] == [(100, 1000), (200, 1000)]
    metrics.forget(150)
    assert metrics.series(key, Grid(0.0, 300.0, 1), "Sum") == (1000.0,)
    metrics.forget(250)
    assert metrics.keys() == []


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    """One in which a minute takes a second."""
    running = LocalAws(tmp_path_factory.mktemp("alarms"), "--time-scale", "60")
    yield running
    running.stop()


def record(client: Any, value: float, **dimensions: str) -> None:
    told = [{"Name": name, "Value": text} for name, text in dimensions.items()]
    datum = {"MetricName": "Failures", "Dimensions": told, "Value": value}
    client.put_metric_data(Namespace="Probe", MetricData=[datum])


def states(client: Any, *names: str) -> list[str]:
    found = client.describe_alarms(
        AlarmNames=list(names), AlarmTypes=["MetricAlarm", "CompositeAlarm"]
    )
    alarms = [*found["MetricAlarms"], *found["CompositeAlarms"]]
    return [alarm["StateValue"] for name in names for alarm in alarms if alarm["AlarmName"] == name]


FAILURES: dict[str, Any] = {
    "AlarmName": "failures",
    "Namespace": "Probe",
    "MetricName": "Failures",
    "Statistic": "Maximum",
    "Period": 60,
    "EvaluationPeriods": 1,
    "Threshold": 1.0,
    "ComparisonOperator": "GreaterThanThreshold",
    "TreatMissingData": "notBreaching",
}


def test_an_alarm_goes_off_tells_its_topic_and_calms_down(fast: LocalAws) -> None:
    cloudwatch, sns, sqs = (fast.client(name) for name in ("cloudwatch", "sns", "sqs"))
    topic = sns.create_topic(Name="alarms")["TopicArn"]
    policy = document({"Effect": "Allow", "Principal": "*", "Action": "sqs:*", "Resource": "*"})
    queue = sqs.create_queue(QueueName="alarms", Attributes={"Policy": policy})["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]
    raw = {"RawMessageDelivery": "true"}
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn["QueueArn"], Attributes=raw)
    actions = {"AlarmActions": [topic], "OKActions": [topic]}
    cloudwatch.put_metric_alarm(**FAILURES, **actions)
    cloudwatch.put_composite_alarm(AlarmName="unwell", AlarmRule='ALARM("failures")')

    both = ("failures", "unwell")
    until(lambda: states(cloudwatch, *both), lambda found: found == ["OK", "OK"])
    record(cloudwatch, 5.0)
    until(lambda: states(cloudwatch, *both), lambda found: found == ["ALARM", "ALARM"])
    until(lambda: states(cloudwatch, *both), lambda found: found == ["OK", "OK"])

    told: list[dict[str, Any]] = []

    def receive() -> list[dict[str, Any]]:
        for message in sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=1).get("Messages", []):
            told.append(json.loads(message["Body"]))
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        return told

    # The first is the one with which the alarm leaves INSUFFICIENT_DATA.
    until(receive, lambda found: len(found) >= 3)
    transitions = {(message["OldStateValue"], message["NewStateValue"]) for message in told}
    assert transitions == {("INSUFFICIENT_DATA", "OK"), ("OK", "ALARM"), ("ALARM", "OK")}
    assert {message["Trigger"]["MetricName"] for message in told} == {"Failures"}

    history = cloudwatch.describe_alarm_history(AlarmName="failures", ScanBy="TimestampAscending")
    kinds = [item["HistoryItemType"] for item in history["AlarmHistoryItems"]]
    assert kinds[:1] == ["ConfigurationUpdate"]
    assert (kinds.count("StateUpdate"), kinds.count("Action")) == (3, 3)


def test_a_state_that_is_set_by_hand_lasts_until_the_next_evaluation(fast: LocalAws) -> None:
    cloudwatch = fast.client("cloudwatch")
    cloudwatch.put_metric_alarm(**{**FAILURES, "AlarmName": "by hand"})
    until(lambda: states(cloudwatch, "by hand"), lambda found: found == ["OK"])
    cloudwatch.set_alarm_state(AlarmName="by hand", StateValue="ALARM", StateReason="a drill")
    (found,) = cloudwatch.describe_alarms(AlarmNames=["by hand"])["MetricAlarms"]
    assert (found["StateValue"], found["StateReason"]) == ("ALARM", "a drill")
    until(lambda: states(cloudwatch, "by hand"), lambda found: found == ["OK"])


def test_an_alarm_that_cannot_be_evaluated_has_insufficient_data(fast: LocalAws) -> None:
    cloudwatch = fast.client("cloudwatch")
    common = {"EvaluationPeriods": 1, "ComparisonOperator": "LessThanThreshold", "Threshold": 1.0}
    metric = {"Namespace": "Probe", "MetricName": "Failures"}
    for name, expression in (("odd", "RUNNING_SUM(m)"), ("even", "m * 0 + 5")):
        cloudwatch.put_metric_alarm(
            AlarmName=name,
            TreatMissingData="notBreaching",
            **common,
            Metrics=[
                {"Id": "e", "Expression": expression, "ReturnData": True},
                {
                    "Id": "m",
                    "MetricStat": {"Metric": metric, "Period": 60, "Stat": "Sum"},
                    "ReturnData": False,
                },
            ],
        )
    until(
        lambda: states(cloudwatch, "even", "odd"),
        lambda found: found == ["OK", "INSUFFICIENT_DATA"],
    )

    def reason() -> bool:
        (odd,) = cloudwatch.describe_alarms(AlarmNames=["odd"])["MetricAlarms"]
        return "RUNNING_SUM" in odd["StateReason"]

    until(reason)


def test_a_changed_alarm_keeps_its_state(aws: LocalAws) -> None:
    cloudwatch = aws.client("cloudwatch")
    cloudwatch.put_metric_alarm(**FAILURES)
    cloudwatch.set_alarm_state(AlarmName="failures", StateValue="ALARM", StateReason="a drill")
    cloudwatch.put_metric_alarm(**{**FAILURES, "Threshold": 3.0})
    assert states(cloudwatch, "failures") == ["ALARM"]
    cloudwatch.delete_alarms(AlarmNames=["failures"])


@pytest.mark.parametrize(
    "changes",
    [
        {"ComparisonOperator": "GreaterThanUpperThreshold"},
        {"ThresholdMetricId": "band"},
    ],
)
def test_anomaly_detection_is_refused(aws: LocalAws, changes: dict[str, Any]) -> None:
    with pytest.raises(ClientError, match="anomaly"):
        aws.client("cloudwatch").put_metric_alarm(**{**FAILURES, **changes})


def test_metric_data_are_answered_by_period(aws: LocalAws) -> None:
    cloudwatch = aws.client("cloudwatch")
    minute = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=10)
    dimensions = [{"Name": "A", "Value": "a"}, {"Name": "B", "Value": "b"}]
    for at, values in ((0, [1, 2, 3, 10]), (10, [5]), (60, [7])):
        datum = {"MetricName": "Latency", "Dimensions": dimensions, "Values": values}
        told = [{**datum, "Timestamp": minute + timedelta(seconds=at), "Unit": "Milliseconds"}]
        cloudwatch.put_metric_data(Namespace="Answers", MetricData=told)
    # Another metric of that name, of fewer dimensions.
    other = {"MetricName": "Latency", "Dimensions": dimensions[:1], "Value": 99.0}
    cloudwatch.put_metric_data(Namespace="Answers", MetricData=[{**other, "Timestamp": minute}])

    metric = {"Namespace": "Answers", "MetricName": "Latency", "Dimensions": dimensions}
    window = {"StartTime": minute, "EndTime": minute + timedelta(minutes=5)}

    def query(name: str, stat: str, period: int = 60, **more: Any) -> dict[str, Any]:
        return {
            "Id": name,
            "MetricStat": {"Metric": metric, "Stat": stat, "Period": period},
            **more,
        }

    asked = [
        query("total", "Sum"),
        query("p99", "p99", Label="slow"),
        query("fine", "Average", 10),
        query("hidden", "SampleCount", ReturnData=False),
        {"Id": "mean", "Expression": "total / hidden"},
    ]
    answer = cloudwatch.get_metric_data(
        MetricDataQueries=asked, ScanBy="TimestampAscending", **window
    )
    found = {result["Id"]: result for result in answer["MetricDataResults"]}
    assert found.keys() == {"total", "p99", "fine", "mean"}
    assert found["total"]["Values"] == [21.0, 7.0]
    assert found["total"]["Timestamps"] == [minute, minute + timedelta(minutes=1)]
    assert (found["p99"]["Label"], found["p99"]["Values"]) == ("slow", [10.0, 7.0])
    assert found["fine"]["Values"] == [4.0, 5.0, 7.0]
    assert found["mean"]["Values"] == [pytest.approx(4.2), 7.0]

    asked = {"Statistics": ["Sum", "Maximum"], "ExtendedStatistics": ["p50"]}
    points = cloudwatch.get_metric_statistics(**metric, **window, **asked, Period=60)["Datapoints"]
    assert [(p["Sum"], p["Maximum"], p["ExtendedStatistics"]["p50"]) for p in points] == [
        (21.0, 10.0, 3.0),
        (7.0, 7.0, 7.0),
    ]
    assert {p["Unit"] for p in points} == {"Milliseconds"}
    listed = cloudwatch.list_metrics(Namespace="Answers", Dimensions=[{"Name": "A"}])["Metrics"]
    assert sorted(len(metric["Dimensions"]) for metric in listed) == [1, 2]
    search = {"Id": "s", "Expression": "SEARCH('x', 'Sum')", "Period": 60}
    with pytest.raises(ClientError, match="SEARCH"):
        cloudwatch.get_metric_data(MetricDataQueries=[search], **window)
    assert "cloudwatch" not in aws.inventory()
