"""CloudWatch: composite alarms, and alarms that leave no tags behind."""

from typing import Any, cast

from botocore import xform_name
from moto.cloudwatch import responses, urls
from moto.core.responses import ActionResult

from localaws.additions import Gap
from localaws.additions._moto import answer_with, plain_client

_SUPPRESSOR_MEMBERS = (
    "ActionsSuppressor",
    "ActionsSuppressorExtensionPeriod",
    "ActionsSuppressorWaitPeriod",
)
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

    def put_composite_alarm(self) -> ActionResult:
        """Put an alarm over other alarms."""
        answer = self.put_metric_alarm()
        alarm = self.cloudwatch_backend.alarms[self._get_param("AlarmName")]
        vars(alarm).update(
            {xform_name(member): self._get_param(member) for member in _SUPPRESSOR_MEMBERS}
        )
        return answer

    def describe_alarms(self) -> ActionResult:
        """The alarms of the types that are asked for; metric alarms if nothing is said."""
        found = cast(dict[str, Any], super().describe_alarms().result)
        asked = self._get_param("AlarmTypes") or ["MetricAlarm"]
        return ActionResult({f"{kind}s": found[f"{kind}s"] for kind in asked})

    def delete_alarms(self) -> ActionResult:
        """Delete alarms and their tags."""
        backend = self.cloudwatch_backend
        for alarm in backend.get_alarms_by_alarm_names(self._get_param("AlarmNames", [])):
            backend.tagger.delete_all_tags_for_resource(alarm.alarm_arn)
        return super().delete_alarms()


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


GAPS = [
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
]


def install() -> None:
    """Put the additions in moto's place."""
    answer_with(urls, Answers)
