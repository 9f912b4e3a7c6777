"""CloudWatch on localaws."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.localaws.conftest import LocalAws

ALARM: dict[str, Any] = {
    "Namespace": "AWS/SageMaker",
    "MetricName": "Invocation5XXErrors",
    "ComparisonOperator": "GreaterThanThreshold",
    "EvaluationPeriods": 1,
    "Period": 60,
    "Statistic": "Sum",
    "Threshold": 1.0,
}


@pytest.fixture
def cloudwatch(aws: LocalAws) -> Any:
    client = aws.client("cloudwatch")
    yield client
    found = client.describe_alarms(AlarmTypes=["MetricAlarm", "CompositeAlarm"])
    alarms = [*found["MetricAlarms"], *found["CompositeAlarms"]]
    client.delete_alarms(AlarmNames=[alarm["AlarmName"] for alarm in alarms])


def test_a_composite_alarm_is_described_as_it_was_put(cloudwatch: Any) -> None:
    cloudwatch.put_metric_alarm(AlarmName="errors", **ALARM)
    composite = {
        "AlarmName": "unhealthy",
        "AlarmDescription": "the service is unhealthy",
        "AlarmRule": 'ALARM("errors")',
        "AlarmActions": ["arn:aws:sns:us-east-1:123456789012:alarms"],
        "OKActions": ["arn:aws:sns:us-east-1:123456789012:alarms"],
        "ActionsSuppressor": "errors",
        "ActionsSuppressorWaitPeriod": 120,
        "ActionsSuppressorExtensionPeriod": 60,
    }
    cloudwatch.put_composite_alarm(**composite)
    found = cloudwatch.describe_alarms(AlarmNames=["unhealthy"], AlarmTypes=["CompositeAlarm"])
    (described,) = found["CompositeAlarms"]
    assert composite.items() <= described.items()
    assert described["ActionsEnabled"] is True


def test_a_composite_alarm_can_be_changed(cloudwatch: Any) -> None:
    for rule in ("TRUE", "FALSE"):
        cloudwatch.put_composite_alarm(AlarmName="unhealthy", AlarmRule=rule)
    (found,) = cloudwatch.describe_alarms(AlarmTypes=["CompositeAlarm"])["CompositeAlarms"]
    assert found["AlarmRule"] == "FALSE"


@pytest.mark.parametrize(
    ("types", "metric", "composite"),
    [
        (None, 1, 0),
        (["MetricAlarm"], 1, 0),
        (["CompositeAlarm"], 0, 1),
        (["MetricAlarm", "CompositeAlarm"], 1, 1),
    ],
)
def test_only_the_types_that_are_asked_for_are_described(
    cloudwatch: Any, types: list[str] | None, metric: int, composite: int
) -> None:
    cloudwatch.put_metric_alarm(AlarmName="errors", **ALARM)
    cloudwatch.put_composite_alarm(AlarmName="unhealthy", AlarmRule="TRUE")
    found = cloudwatch.describe_alarms(**({"AlarmTypes": types} if types else {}))
    counts = [len(found.get(kind, [])) for kind in ("MetricAlarms", "CompositeAlarms")]
    assert counts == [metric, composite]


@pytest.mark.parametrize("query", ["math", "percentile"])
def test_metric_alarms_are_described_as_they_were_put(cloudwatch: Any, query: str) -> None:
    metric = {
        "Namespace": "AWS/SageMaker",
        "MetricName": "Invocations",
        "Dimensions": [{"Name": "EndpointName", "Value": "kennel"}],
    }
    common = {
        "AlarmName": "alarm",
        "ComparisonOperator": "GreaterThanThreshold",
        "EvaluationPeriods": 3,
        "DatapointsToAlarm": 2,
        "Threshold": 5.0,
        "TreatMissingData": "notBreaching",
    }
    own: dict[str, Any] = {
        "math": {
            "Metrics": [
                {"Id": "rate", "Expression": "100 * calls", "Label": "%", "ReturnData": True},
                {
                    "Id": "calls",
                    "MetricStat": {"Metric": metric, "Period": 60, "Stat": "Sum"},
                    "ReturnData": False,
                },
            ]
        },
        "percentile": {**metric, "Period": 10, "ExtendedStatistic": "p99"},
    }[query]
    cloudwatch.put_metric_alarm(**common, **own)
    (described,) = cloudwatch.describe_alarms(AlarmNames=["alarm"])["MetricAlarms"]
    assert {**common, **own}.items() <= described.items()


def test_an_alarm_leaves_no_tags_behind(cloudwatch: Any) -> None:
    for tags in ([{"Key": "owner", "Value": "me"}], []):
        cloudwatch.put_metric_alarm(AlarmName="errors", **ALARM, Tags=tags)
        (alarm,) = cloudwatch.describe_alarms()["MetricAlarms"]
        assert cloudwatch.list_tags_for_resource(ResourceARN=alarm["AlarmArn"])["Tags"] == tags
        cloudwatch.delete_alarms(AlarmNames=["errors"])


def test_alarms_are_there_after_a_restart_and_gone_after_their_end(
    aws: LocalAws, cloudwatch: Any
) -> None:
    cloudwatch.put_metric_alarm(AlarmName="errors", **ALARM)
    cloudwatch.put_composite_alarm(AlarmName="unhealthy", AlarmRule='ALARM("errors")')
    asked = {"AlarmTypes": ["MetricAlarm", "CompositeAlarm"]}
    before = cloudwatch.describe_alarms(**asked)
    aws.restart()
    found = cloudwatch.describe_alarms(**asked)
    for kind in ("MetricAlarms", "CompositeAlarms"):
        assert found[kind] == before[kind]
    cloudwatch.delete_alarms(AlarmNames=["errors", "unhealthy"])
    assert "cloudwatch" not in aws.inventory()


@pytest.mark.parametrize("later_ms", [-1000, 0, 900])
def test_statistics_of_less_than_a_second_are_refused(cloudwatch: Any, later_ms: int) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    times = {"StartTime": start, "EndTime": start + timedelta(milliseconds=later_ms)}
    metric = {"Namespace": "AWS/SageMaker", "MetricName": "Invocations"}
    with pytest.raises(ClientError, match="StartTime must be less than") as refused:
        cloudwatch.get_metric_statistics(**metric, **times, Period=60, Statistics=["Sum"])
    assert refused.value.response["Error"]["Code"] == "InvalidParameterValue"
    query = {"Id": "m", "MetricStat": {"Metric": metric, "Period": 60, "Stat": "Sum"}}
    with pytest.raises(ClientError, match=r"must (not equal|be greater)") as refused:
        cloudwatch.get_metric_data(MetricDataQueries=[query], **times)
    assert refused.value.response["Error"]["Code"] == "ValidationError"


def test_a_query_without_a_metric_is_refused(cloudwatch: Any) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    with pytest.raises(ClientError, match=r"MetricDataQueries\.member\.2\.MetricStat is required"):
        cloudwatch.get_metric_data(
            MetricDataQueries=[{"Id": "a", "Expression": "1", "Period": 60}, {"Id": "b"}],
            StartTime=now,
            EndTime=now + timedelta(minutes=1),
        )


def test_a_page_that_there_is_not(cloudwatch: Any) -> None:
    with pytest.raises(ClientError, match="Request parameter NextToken is invalid"):
        cloudwatch.list_metrics(NextToken="85b1dc09")
