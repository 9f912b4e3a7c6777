"""EventBridge: rules that match events, and rules and schedules that are due, reach their targets.

Targets are functions, queues and topics. What cannot be handed over goes to the target's queue for
dead letters at once: nothing here is away for a while, so that another try would help.

Source: "Amazon EventBridge User Guide" (event structure, input transformation, dead-letter queues)
and "EventBridge Scheduler User Guide" (context attributes, managing targets).
"""

import json
import re
import sys
import threading
import traceback
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from jsonpath_ng.ext.parser import parse
from moto.events.models import Rule, events_backends
from moto.scheduler.models import Schedule, scheduler_backends

from localaws import deliveries, regions
from localaws.deliveries import DeliveryError, Sender, kind_of
from localaws.execution import ACCOUNT, Execution, Service
from localaws.monitoring.schedules import ScheduleError, is_due

Json = dict[str, Any]
Period = tuple[datetime, datetime]

SCHEDULER = "scheduler.amazonaws.com"
EMITTED = ("aws.s3", "aws.events")
"""Sources of AWS's own events that come here, too."""

_TICK_SECONDS = 1.0
_VARIABLE = re.compile(r"<([\w.-]+)>")


def event_of(source: str, kind: str, resources: list[str], detail: Json) -> Json:
    """An event as AWS's services send them.

    Args:
        source: Such as "aws.s3".
        kind: Its detail-type.
        resources: ARNs of what it is about.
        detail: What happened.
    """
    return {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": kind,
        "source": source,
        "account": ACCOUNT,
        "time": _text(datetime.now(UTC)),
        "region": regions.current(),
        "resources": resources,
        "detail": detail,
    }


def emit(event: Json) -> None:
    """Send an event of AWS's own to the default bus."""
    for rule in list(
        events_backends[ACCOUNT][regions.current()].event_buses["default"].rules.values()
    ):
        match(rule, event)


def match(rule: Rule, event: Mapping[str, Any]) -> None:
    """Hand an event to the targets of a rule, if it matches."""
    # A rule with a schedule only has no pattern, and moto lets that match everything.
    if rule.state == "DISABLED" or not rule.event_pattern.dump():
        return
    told = {name: value for name, value in event.items() if name != "ingestion-time"}
    if not isinstance(told["time"], str):
        told["time"] = _text(datetime.fromtimestamp(float(told["time"]), UTC))
    if rule.event_pattern.matches_event(told):  # type: ignore[arg-type]
        _hand_over(rule, told)


def payload(rule: Rule, target: Json, event: Json) -> str:
    """What a target gets for an event: all of it, a part, or what it is made into.

    Raises:
        DeliveryError: It comes to no JSON.
    """
    if "Input" in target:
        return str(target["Input"])
    if path := target.get("InputPath"):
        return json.dumps(_at(path, event))
    if transformer := target.get("InputTransformer"):
        paths = transformer.get("InputPathsMap") or {}
        values = {name: _at(path, event) for name, path in paths.items()}
        values |= {
            "aws.events.rule-arn": rule.arn,
            "aws.events.rule-name": rule.name,
            "aws.events.event.ingestion-time": event["time"],
            "aws.events.event": {k: v for k, v in event.items() if k != "detail"},
            "aws.events.event.json": event,
        }
        return _filled(transformer["InputTemplate"], values)
    return json.dumps(event)


def _at(path: str, event: Json) -> Any:
    found = parse(path).find(event)
    return found[0].value if found else ""


def _filled(template: str, values: Mapping[str, Any]) -> str:
    """A template with its variables: as JSON, and within a string as text."""

    def value(found: re.Match[str]) -> str:
        if found[1] not in values:
            return found[0]
        told = values[found[1]]
        within = len(re.findall(r'(?<!\\)"', template[: found.start()])) % 2
        if within and isinstance(told, str):
            return json.dumps(told)[1:-1]
        # Text within a string: its quotes would end it.
        return json.dumps(json.dumps(told))[1:-1] if within else json.dumps(told)

    filled = _VARIABLE.sub(value, template)
    try:
        json.loads(filled)
    except ValueError as error:
        raise DeliveryError(
            "INVALID_JSON", f"the input template comes to no JSON: {error}"
        ) from error
    return filled


def _hand_over(rule: Rule, event: Json) -> None:
    sender = Sender.service("events.amazonaws.com", rule.arn)
    for target in list(rule.targets):
        try:
            _deliver(sender, target, payload(rule, target, event))
        except DeliveryError as error:
            _give_up(sender, "RULE_ARN", target, json.dumps(event), error)


def _deliver(sender: Sender, target: Json, text: str) -> None:
    arn = target["Arn"]
    kind = kind_of(arn)
    if kind == "lambda":
        deliveries.submit(sender, arn, text)
    elif kind == "sqs":
        group = (target.get("SqsParameters") or {}).get("MessageGroupId")
        deliveries.send(sender, arn, text, group_id=group)
    else:
        deliveries.publish(sender, arn, text)


def _give_up(sender: Sender, name: str, target: Json, event: str, error: DeliveryError) -> None:
    print(f"{sender.source}: {error}", file=sys.stderr, flush=True)
    letters = (target.get("DeadLetterConfig") or {}).get("Arn")
    if not letters:
        return
    codes = {"AccessDenied": "NO_PERMISSIONS", "ResourceNotFound": "NO_RESOURCE"}
    told = {
        name: sender.source,
        "TARGET_ARN": target["Arn"],
        "ERROR_CODE": codes.get(error.code, error.code),
        "ERROR_MESSAGE": str(error),
        "RETRY_ATTEMPTS": "0",
    }
    attributes = {k: {"DataType": "String", "StringValue": v} for k, v in told.items()}
    try:
        deliveries.send(sender, letters, event, message_attributes=attributes)
    except DeliveryError as lost:
        print(f"{sender.source}: an event is lost: {lost}", file=sys.stderr, flush=True)


def _text(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


class Rules(Service):
    """Runs what is due by EventBridge's rules and by its scheduler; both keep to the clock."""

    def __init__(self, execution: Execution) -> None:
        """Make the service; nothing runs yet."""
        super().__init__(execution)
        self._ended = threading.Event()
        self._looked = datetime.now(UTC)

    def resume(self) -> None:
        """Begin to look at the clock."""
        regions.Thread(target=self._watch, daemon=True).start()

    def stop(self) -> None:
        """Look at the clock no more."""
        self._ended.set()

    def run(self, period: Period) -> None:
        """Run all that is due in a period: after its beginning and up to its end."""
        for bus in list(events_backends[ACCOUNT][regions.current()].event_buses.values()):
            for rule in list(bus.rules.values()):
                if rule.scheduled_expression and rule.state != "DISABLED":
                    created = getattr(rule, "created", period[0])
                    if is_due(rule.scheduled_expression, None, created, period):
                        event = event_of("aws.events", "Scheduled Event", [rule.arn], {})
                        with self.execution.changing():
                            _hand_over(rule, event)
        for group in list(scheduler_backends[ACCOUNT][regions.current()].schedule_groups.values()):
            for schedule in list(group.schedules.values()):
                if _is_due(schedule, period):
                    self._run_schedule(schedule)
                    if _is_over(schedule, period[1]):
                        with self.execution.changing():
                            group.schedules.pop(schedule.name, None)

    def _watch(self) -> None:
        while not self._ended.wait(_TICK_SECONDS):
            since, self._looked = self._looked, datetime.now(UTC)
            try:
                self.run((since, self._looked))
            # Requests change the records meanwhile; the next look finds them whole.
            except Exception:
                traceback.print_exc()

    def _run_schedule(self, schedule: Schedule) -> None:
        target, execution_id = schedule.target, str(uuid.uuid4())
        told = {
            "aws.scheduler.schedule-arn": schedule.arn,
            "aws.scheduler.scheduled-time": _text(self._looked),
            "aws.scheduler.execution-id": execution_id,
            "aws.scheduler.attempt-number": "1",
        }
        event = event_of("aws.scheduler", "Scheduled Event", [schedule.arn], {})
        text = _VARIABLE.sub(lambda found: told.get(found[1], found[0]), target.get("Input") or "")
        text = text or json.dumps({**event, "detail": "{}"})
        with self.execution.changing():
            try:
                sender = Sender.role(target["RoleArn"], SCHEDULER, schedule.arn)
            except DeliveryError as error:
                print(f"{schedule.arn}: {error}", file=sys.stderr, flush=True)
                return
            try:
                _deliver(sender, target, text)
            except DeliveryError as error:
                _give_up(sender, "SCHEDULE_ARN", target, text, error)


def _is_due(schedule: Schedule, period: Period) -> bool:
    if schedule.state == "DISABLED":
        return False
    first, last = (_moment(time) for time in (schedule.start_date, schedule.end_date))
    if (first and period[1] < first) or (last and period[1] > last):
        return False
    created = first or datetime.fromtimestamp(schedule.creation_date, UTC)
    zone = schedule.schedule_expression_timezone
    return is_due(schedule.schedule_expression, zone, created, period)


def _is_over(schedule: Schedule, now: datetime) -> bool:
    """Whether a schedule goes, now that it was due."""
    return schedule.action_after_completion == "DELETE" and schedule.schedule_expression.startswith(
        "at("
    )


def _moment(time: Any) -> datetime | None:
    return datetime.fromtimestamp(float(time), UTC) if time else None


def refuse_schedule(expression: str, timezone: str | None) -> str | None:
    """Why a schedule can never be due; None if it can."""
    now = datetime.now(UTC)
    try:
        is_due(expression, timezone, now, (now, now))
    except ScheduleError as error:
        return str(error)
    return None
