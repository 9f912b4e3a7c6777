"""EventBridge: patterns that are understood, and targets that get what matches."""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from jsonpath_ng.exceptions import JSONPathError
from jsonpath_ng.ext.parser import parse
from moto.core.exceptions import JsonRESTError
from moto.events import urls
from moto.events.exceptions import InvalidEventPatternException, ValidationException
from moto.events.models import EventPattern, EventPatternParser, EventsBackend, Rule
from moto.events.responses import EventsHandler

from localaws import rules
from localaws.additions import Gap
from localaws.additions._moto import answer_with, plain_client, refuses, wrap
from localaws.deliveries import kind_of
from localaws.operations import RefusedError

Json = dict[str, Any]

_FILTERS = (
    "anything-but",
    "cidr",
    "equals-ignore-case",
    "exists",
    "numeric",
    "prefix",
    "suffix",
    "wildcard",
)
_TARGET_MEMBERS = {
    "Arn",
    "DeadLetterConfig",
    "Id",
    "Input",
    "InputPath",
    "InputTransformer",
    "RetryPolicy",
    "RoleArn",
    "SqsParameters",
}
_MOST_TARGETS = 5
_SCHEDULED = "rate(1 hour)"


class Answers(EventsHandler):
    """Moto's answers, and one that it lacks."""

    def test_event_pattern(self) -> str:  # type: ignore[override]
        """Say whether an event matches a pattern."""
        try:
            event = json.loads(self._get_param("Event"))
        except ValueError:
            raise ValidationException("Parameter Event is not valid.") from None
        needed = {"id", "account", "source", "time", "region", "resources", "detail-type"}
        if not isinstance(event, dict) or needed - set(event):
            raise ValidationException("Parameter Event is not valid.")
        pattern = EventPattern.load(self._get_param("EventPattern"))
        return json.dumps({"Result": pattern.matches_event(event)})  # type: ignore[arg-type]


def _put_rule(original: Any, backend: EventsBackend, *given: Any, **named: Any) -> Rule:
    """Keep a rule that may match something, or be due."""
    if pattern := named.get("event_pattern"):
        parsed = EventPatternParser(pattern).parse()
        for source in _sources(parsed):
            if source.startswith("aws") and not source.startswith(rules.EMITTED):
                raise RefusedError(f"no event of {source} comes here")
    expression = named.get("scheduled_expression")
    # at() is the scheduler's only.
    if expression and (expression.startswith("at(") or rules.refuse_schedule(expression, None)):
        raise ValidationException("Parameter ScheduleExpression is not valid.")
    rule: Rule = original(backend, *given, **named)
    vars(rule).update(created=datetime.now(UTC))
    return rule


def _sources(pattern: Mapping[str, Any]) -> Iterable[str]:
    """The sources, or the beginnings of sources, that a pattern names."""
    for alternative in pattern.get("$or", ()):
        yield from _sources(alternative)
    for source in pattern.get("source", ()):
        named = source.get("prefix", "") if isinstance(source, dict) else source
        yield named if isinstance(named, str) else ""


def _put_targets(
    original: Any,
    backend: EventsBackend,
    name: str,
    event_bus_arn: str | None,
    targets: list[Json],
) -> None:
    """Keep targets that can be reached."""
    for target in targets:
        if not kind_of(target["Arn"]) or (unknown := set(target) - _TARGET_MEMBERS):
            what = target["Arn"] if not kind_of(target["Arn"]) else ", ".join(sorted(unknown))
            raise RefusedError(
                f"nothing is handed to {what}; functions, queues and topics of this account and"
                " region are known"
            )
        inputs = [
            member for member in ("Input", "InputPath", "InputTransformer") if member in target
        ]
        if len(inputs) > 1:
            raise ValidationException(
                "Only one of Input, InputPath, or InputTransformer must be provided for target"
                f" {target['Id']}."
            )
        _check_input(target)
    # What is wrong with a target is told before that there is no such rule, by moto.
    bus = backend.describe_event_bus(backend._normalize_event_bus_arn(event_bus_arn))
    rule = bus.rules.get(name)
    if rule and len({target["Id"] for target in [*rule.targets, *targets]}) > _MOST_TARGETS:
        raise LimitExceededError
    original(backend, name, event_bus_arn, targets)


def _check_input(target: Json) -> None:
    if "Input" in target:
        try:
            json.loads(target["Input"])
        except ValueError:
            raise ValidationException(f"JSON text of {target['Id']} is not valid.") from None
    paths = (target.get("InputTransformer") or {}).get("InputPathsMap") or {}
    for path in [*paths.values(), *([target["InputPath"]] if "InputPath" in target else [])]:
        try:
            parse(path)
        except JSONPathError:
            raise ValidationException(
                f"Invalid JSONPath {path} in target {target['Id']}."
            ) from None


def _put_events(original: Any, backend: EventsBackend, events: list[Json]) -> list[Json]:
    """Take what nobody but AWS may send for what it is: an error of that entry."""
    refused = {n: why for n, event in enumerate(events) if (why := _refused(event))}
    taken = iter(original(backend, [e for n, e in enumerate(events) if n not in refused]))
    return [refused[n] if n in refused else next(taken) for n in range(len(events))]


def _refused(event: Json) -> Json | None:
    if event.get("Source", "").startswith("aws."):
        return {
            "ErrorCode": "NotAuthorizedForSourceException",
            "ErrorMessage": "Not authorized for the source.",
        }
    try:
        is_object = isinstance(json.loads(event.get("Detail") or "{}"), dict)
    except ValueError:
        is_object = False
    return (
        None
        if is_object
        else {
            "ErrorCode": "MalformedDetail",
            "ErrorMessage": "Detail is malformed.",
        }
    )


def _validate(original: Any, parser: EventPatternParser, pattern: Any) -> None:
    """Refuse what is no pattern, and filters that moto would let everything pass."""
    if not isinstance(pattern, dict):
        raise InvalidEventPatternException(reason="Filter is not an object")
    original(parser, pattern)
    for name, value in pattern.items():
        for filtered in value if isinstance(value, list) else ():
            if name == "$or":
                _validate(original, parser, filtered)
            elif isinstance(filtered, dict):
                unknown = next((key for key in filtered if key not in _FILTERS), None)
                if unknown or len(filtered) != 1:
                    raise InvalidEventPatternException(
                        reason=f"Unrecognized match type {unknown or ', '.join(filtered)}"
                    )


def _send_to_targets(
    original: Any, rule: Rule, original_event: Json, transform_input: bool = True
) -> None:
    rules.match(rule, original_event)


class LimitExceededError(JsonRESTError):
    """A rule has all the targets that it may have."""

    code = 400

    def __init__(self) -> None:
        """Say so in EventBridge's words."""
        super().__init__(
            "LimitExceededException",
            "The requested resource exceeds the maximum number allowed.",
        )


def _tests_pattern() -> bool:
    with plain_client("events") as events:
        event = dict.fromkeys(("id", "account", "time", "region", "detail-type"), "probe")
        text = json.dumps({**event, "source": "probe", "resources": []})
        answer = events.test_event_pattern(EventPattern='{"source": ["probe"]}', Event=text)
        return bool(answer.get("Result"))


def _refuses_pattern() -> bool:
    pattern = '{"source": [{"probe": "probe"}]}'
    with plain_client("events") as events:
        return refuses(lambda: events.put_rule(Name="probe", EventPattern=pattern))


def _keeps_aws_source() -> bool:
    entry = {"Source": "aws.probe", "DetailType": "probe", "Detail": "{}"}
    with plain_client("events") as events:
        return bool(events.put_events(Entries=[entry])["FailedEntryCount"])


def _refuses_schedule() -> bool:
    with plain_client("events") as events:
        return refuses(lambda: events.put_rule(Name="probe", ScheduleExpression="cron(probe)"))


def _refuses_two_inputs() -> bool:
    target = {
        "Id": "probe",
        "Arn": "arn:aws:sqs:us-east-1:123456789012:probe",
        "Input": "{}",
        "InputPath": "$",
    }
    with plain_client("events") as events:
        events.put_rule(Name="probe", ScheduleExpression=_SCHEDULED)
        return refuses(lambda: events.put_targets(Rule="probe", Targets=[target]))


GAPS = [
    Gap("events", "TestEventPattern", "no answer", _tests_pattern),
    Gap("events", "PutRule.EventPattern", "unknown filters match everything", _refuses_pattern),
    Gap("events", "PutRule.ScheduleExpression", "any text between brackets", _refuses_schedule),
    Gap(
        "events",
        "PutTargets.Input",
        "several are taken; functions and topics get nothing, rules that are off match",
        _refuses_two_inputs,
    ),
    Gap("events", "PutEvents.Source", "anybody sends events of AWS's own", _keeps_aws_source),
]


def install() -> None:
    """Put the additions in moto's place."""
    wrap(EventPatternParser, "_validate_event_pattern", _validate)
    wrap(EventsBackend, "put_rule", _put_rule)
    wrap(EventsBackend, "put_targets", _put_targets)
    wrap(EventsBackend, "put_events", _put_events)
    wrap(Rule, "send_to_targets", _send_to_targets)
    answer_with(urls, Answers)
