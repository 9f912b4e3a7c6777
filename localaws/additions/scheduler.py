"""EventBridge Scheduler: schedules that can be due, for targets that get something."""

from typing import Any

from moto.scheduler.exceptions import ValidationException
from moto.scheduler.models import EventBridgeSchedulerBackend, Schedule

from localaws import rules
from localaws.additions import Gap
from localaws.additions._moto import ROLE, plain_client, refuses, wrap
from localaws.deliveries import kind_of
from localaws.execution import RoleError, require_trust
from localaws.operations import RefusedError

_TARGET_MEMBERS = {"Arn", "DeadLetterConfig", "Input", "RetryPolicy", "RoleArn", "SqsParameters"}


def _checked(original: Any, backend: EventBridgeSchedulerBackend, **given: Any) -> Schedule:
    """Keep a schedule that can run."""
    target, expression = given["target"], given["schedule_expression"]
    if rules.refuse_schedule(expression, given["schedule_expression_timezone"]):
        raise ValidationException(f"Invalid Schedule Expression {expression}.")
    unknown = ", ".join(sorted(set(target) - _TARGET_MEMBERS))
    if unknown or not kind_of(target["Arn"]):
        raise RefusedError(
            f"nothing is handed to {unknown or target['Arn']}; functions, queues and topics of this"
            " account and region are known"
        )
    try:
        require_trust(target["RoleArn"], rules.SCHEDULER)
    except RoleError:
        raise ValidationException(
            "The execution role you provide must allow AWS EventBridge Scheduler to assume the"
            " role."
        ) from None
    schedule: Schedule = original(backend, **given)
    return schedule


def _refuses_schedule() -> bool:
    with plain_client("scheduler") as scheduler:
        return refuses(
            lambda: scheduler.create_schedule(
                Name="probe",
                ScheduleExpression="probe",
                FlexibleTimeWindow={"Mode": "OFF"},
                Target={"Arn": "arn:aws:sqs:us-east-1:123456789012:probe", "RoleArn": ROLE},
            )
        )


GAPS = [
    Gap(
        "scheduler",
        "CreateSchedule",
        "any text is a schedule, for any target and role, and none runs",
        _refuses_schedule,
    )
]


def install() -> None:
    """Check schedules before they are kept."""
    wrap(EventBridgeSchedulerBackend, "create_schedule", _checked)
    wrap(EventBridgeSchedulerBackend, "update_schedule", _checked)
