"""Evaluates CloudWatch alarms: datapoints in, states and actions out."""

import json
import operator
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from queue import Empty, SimpleQueue
from typing import Any, cast

from botocore.exceptions import BotoCoreError, ClientError
from moto.cloudwatch import models
from moto.cloudwatch.models import cloudwatch_backends
from moto.core.utils import utcnow

from localaws import regions
from localaws.execution import ACCOUNT, Execution, Service, running
from localaws.monitoring.metric_math import Queries, Query, period, solve
from localaws.monitoring.metrics import (
    Grid,
    MetricError,
    MetricKey,
    Series,
    metrics_of,
    percentile,
    seconds,
)

RETENTION_SECONDS = 3600.0
"""How long metrics are kept at least, however fast time passes."""

_TICK_SECONDS = 10.0
_MINUTE_SECONDS = 60.0
# More often than this would take the processor from those who are measured.
_LEAST_WAIT_SECONDS = 0.2
# CloudWatch looks farther back than it evaluates, for data that is late or sparse.
_EXTRA_PERIODS = 2
_HISTORY_ITEMS = 500
_COMPARISONS: dict[str, tuple[Callable[[float, float], bool], str]] = {
    "GreaterThanOrEqualToThreshold": (operator.ge, "greater than or equal to"),
    "GreaterThanThreshold": (operator.gt, "greater than"),
    "LessThanOrEqualToThreshold": (operator.le, "less than or equal to"),
    "LessThanThreshold": (operator.lt, "less than"),
}
COMPARISONS = frozenset(_COMPARISONS)
"""The comparisons that are evaluated here; the others are those of anomaly detection."""


@dataclass(frozen=True)
class Condition:
    """When an alarm goes off: at least `datapoints` of the last `periods` values are breaching."""

    comparison: str
    threshold: float
    periods: int = 1
    datapoints: int = 1
    missing: str = "missing"

    def breaches(self, value: float) -> bool:
        """Whether a value is on the wrong side of the threshold."""
        return _COMPARISONS[self.comparison][0](value, self.threshold)


def decide(values: Series, condition: Condition, former: str) -> str:
    """The state that an alarm takes.

    The rules are those of "Configuring how CloudWatch alarms treat missing data" and "Avoiding
    premature transitions to alarm state" in the Amazon CloudWatch User Guide.

    Args:
        values: The datapoints of all periods that are looked at, oldest first: those of the
            condition's and some before, which count where newer ones are missing.
        condition: When it goes off.
        former: The state it is in.
    """
    present = [condition.breaches(value) for value in values if value is not None]
    breaching = sum(present[-condition.periods :])
    lacking = max(0, condition.periods - len(present))
    if condition.missing == "breaching":
        breaching += lacking
    elif lacking and condition.missing == "missing":
        if not present:
            return "INSUFFICIENT_DATA"
        if _lasts(values[-condition.periods :], condition):
            return "ALARM"
    elif lacking and condition.missing == "ignore":
        might_alarm = breaching < condition.datapoints <= breaching + lacking
        if not present or might_alarm:
            return former
    return "ALARM" if breaching >= condition.datapoints else "OK"


def _lasts(values: Series, condition: Condition) -> bool:
    """Whether all that is known since long enough is breaching."""
    known = [
        (len(values) - position, condition.breaches(value))
        for position, value in enumerate(values)
        if value is not None
    ]
    first = next((n for n, (_, breaching) in enumerate(known) if breaching), len(known))
    return (
        first < len(known)
        and known[first][0] >= condition.datapoints
        and all(breaching for _, breaching in known[first:])
    )


_TOKEN = re.compile(
    r"\s*(?:(ALARM|OK|INSUFFICIENT_DATA)\s*\(\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s()]+))\s*\)"
    r"|(AND|OR|NOT|TRUE|FALSE)\b|([()]))"
)


def rule_holds(rule: str, states: Mapping[str, str]) -> bool:
    """Whether the rule of a composite alarm is true.

    Args:
        rule: Such as `ALARM("a") AND NOT (OK("b") OR FALSE)`.
        states: States by the alarms' names; an alarm that is not there is in none.

    Raises:
        MetricError: The rule is not understood.
    """
    return _Rule(rule, states).value()


class _Rule:
    """Reads a rule from left to right: OR of ANDs of NOTs."""

    def __init__(self, rule: str, states: Mapping[str, str]) -> None:
        self._rule, self._states = rule, states
        self._position = 0
        self._word = ""
        self._advance()

    def value(self) -> bool:
        found = self._either()
        if self._word != "":
            self._fail()
        return found

    def _advance(self) -> None:
        if not self._rule[self._position :].strip():
            self._word = ""
            return
        found = _TOKEN.match(self._rule, self._position)
        if not found:
            self._fail()
            return
        self._position = found.end()
        state, *names, word, bracket = found.groups()
        if state:
            name = next(name for name in names if name is not None).rpartition(":alarm:")[2]
            word = str(self._states.get(name) == state).upper()
        self._word = word or bracket

    def _fail(self) -> None:
        raise MetricError(f"localaws does not understand the alarm rule {self._rule!r}")

    def _took(self, token: str) -> bool:
        if self._word != token:
            return False
        self._advance()
        return True

    def _either(self) -> bool:
        found = self._both()
        while self._took("OR"):
            found = self._both() or found
        return found

    def _both(self) -> bool:
        found = self._one()
        while self._took("AND"):
            found = self._one() and found
        return found

    def _one(self) -> bool:
        if self._took("NOT"):
            return not self._one()
        if self._took("("):
            found = self._either()
            if not self._took(")"):
                self._fail()
            return found
        if self._word not in ("TRUE", "FALSE"):
            self._fail()
        found = self._word == "TRUE"
        self._advance()
        return found


class Alarm(models.Alarm):
    """moto's record of an alarm, with its history and the time of its last transition."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        if running(Alarms):
            self.state_value = "INSUFFICIENT_DATA"
        self.state_transitioned_timestamp = self.state_updated_timestamp
        self.note("ConfigurationUpdate", f'Alarm "{self.name}" created', {"type": "Create"})

    def update_state(self, reason: str, reason_data: str, state_value: str) -> None:
        """Take a state, which may be the one it is in."""
        former = {"stateValue": self.state_value, "stateReason": self.state_reason}
        self.state_reason, self.state_reason_data = reason, reason_data or "{}"
        self.state_updated_timestamp = utcnow()
        if state_value == self.state_value:
            return
        self.state_value = state_value
        self.state_transitioned_timestamp = self.state_updated_timestamp
        self.note(
            "StateUpdate",
            f"Alarm updated from {former['stateValue']} to {state_value}",
            {"oldState": former, "newState": {"stateValue": state_value, "stateReason": reason}},
        )

    def note(self, kind: str, summary: str, data: Mapping[str, Any]) -> None:
        """Add an item to the history, as DescribeAlarmHistory answers it."""
        self.history.append(
            {
                "AlarmName": self.name,
                "AlarmType": "MetricAlarm" if self.rule is None else "CompositeAlarm",
                "HistoryItemType": kind,
                "HistorySummary": summary,
                "HistoryData": json.dumps({"version": "1.0", **data}),
                "Timestamp": utcnow(),
            }
        )
        del self.history[:-_HISTORY_ITEMS]

    def take_over(self, former: "Alarm") -> None:
        """Be the new configuration of an alarm that was there before: its state stays."""
        for name in (
            "state_value",
            "state_reason",
            "state_reason_data",
            "state_updated_timestamp",
            "state_transitioned_timestamp",
            "history",
        ):
            setattr(self, name, getattr(former, name))
        self.note("ConfigurationUpdate", f'Alarm "{self.name}" updated', {"type": "Update"})


@dataclass(frozen=True)
class Evaluation:
    """What came of evaluating an alarm."""

    state: str
    reason: str
    latest: tuple[float, float] | None = None
    """The newest datapoint: when its period began (seconds of the epoch), and its value."""
    data: str = "{}"


class Watcher(Service):
    """A service that looks around every ten seconds of AWS's time, from a thread of its own."""

    def __init__(self, execution: Execution) -> None:
        """Make it; nothing runs yet."""
        super().__init__(execution)
        self._called = threading.Event()
        self._ended = threading.Event()
        self._thread = regions.Thread(target=self._watch, daemon=True)

    def resume(self) -> None:
        """Begin to look around."""
        self._thread.start()

    def stop(self) -> None:
        """End it. Safe to repeat."""
        self._ended.set()
        self._called.set()
        if self._thread.is_alive():
            self._thread.join()

    def look(self) -> None:
        """Look around soon: something has changed."""
        self._called.set()

    def turn(self, now: float) -> None:
        """Look around once, at `now` (seconds of the epoch)."""
        raise NotImplementedError

    def _watch(self) -> None:
        wait = max(self.execution.seconds(_TICK_SECONDS), _LEAST_WAIT_SECONDS)
        while not self._ended.is_set():
            try:
                self.turn(time.time())
            # Whatever a record holds that nobody thought of must not end all evaluation.
            except Exception:
                traceback.print_exc()
            self._called.wait(wait)
            self._called.clear()


@dataclass(frozen=True)
class _Transition:
    alarm: Alarm
    former: str


class Alarms(Watcher):
    """Gives every alarm its state, and does what it says for that state.

    A period of 60 s lasts 60 s divided by the time scale. As on AWS, an alarm with shorter periods
    is evaluated every 10 s and every other one each minute, and a state that SetAlarmState gave
    lasts until then. The suppressor of a composite alarm is kept and has no effect.
    """

    def __init__(self, execution: Execution) -> None:
        """Make it; nothing runs yet."""
        super().__init__(execution)
        self._due: dict[str, float] = {}
        self._evaluations: dict[str, Evaluation] = {}
        self._complaints: set[str] = set()
        self._transitions: SimpleQueue[_Transition] = SimpleQueue()

    def latest(self, name: str) -> tuple[float, float] | None:
        """The newest datapoint of a metric alarm at its last evaluation: its time and its value.

        The time is that at which the datapoint's period began, in seconds of the epoch.
        """
        found = self._evaluations.get(name)
        return found.latest if found else None

    def renewed(self, name: str) -> None:
        """An alarm was put: evaluate it soon."""
        self._due.pop(name, None)
        self.look()

    def set_by_hand(self, alarm: Alarm, former: str) -> None:
        """SetAlarmState gave an alarm its state: act, and let it be for one interval."""
        self._due[alarm.name] = time.time() + self._interval(alarm)
        if alarm.state_value != former:
            self._transitions.put(_Transition(alarm, former))
        self.look()

    def turn(self, now: float) -> None:
        """Evaluate the alarms that are due, then act."""
        backend = cloudwatch_backends[ACCOUNT][regions.current()]
        with self.execution.changing():
            alarms = [cast(Alarm, alarm) for alarm in list(backend.alarms.values())]
            for alarm in alarms:
                if alarm.rule is None and self._due.get(alarm.name, 0.0) <= now:
                    self._due[alarm.name] = now + self._interval(alarm)
                    self._enter(alarm, self._evaluated(alarm, now))
            self._evaluate_composites([a for a in alarms if a.rule is not None], alarms, now)
            longest = max((self._window_seconds(alarm) for alarm in alarms), default=0.0)
            metrics_of(backend).forget(now - max(RETENTION_SECONDS, longest))
        for known in (self._due, self._evaluations):
            for name in set(known) - set(backend.alarms):
                known.pop(name, None)
        self._act()

    def _interval(self, alarm: Alarm) -> float:
        on_aws = _TICK_SECONDS if _period(alarm) < _MINUTE_SECONDS else _MINUTE_SECONDS
        return self.execution.seconds(on_aws)

    def _window_seconds(self, alarm: Alarm) -> float:
        if alarm.rule is not None:
            return 0.0
        periods = alarm.evaluation_periods + 2 * _EXTRA_PERIODS
        return self.execution.seconds(_period(alarm) * periods)

    def _evaluated(self, alarm: Alarm, now: float) -> Evaluation:
        try:
            found = self._evaluation(alarm, now)
        except MetricError as error:
            complaint = f"alarm {alarm.name} cannot be evaluated: {error}"
            if complaint not in self._complaints:
                self._complaints.add(complaint)
                print(complaint, file=sys.stderr, flush=True)
            found = Evaluation("INSUFFICIENT_DATA", f"Insufficient Data: {error}")
        self._evaluations[alarm.name] = found
        return found

    def _evaluation(self, alarm: Alarm, now: float) -> Evaluation:
        metrics = metrics_of(cloudwatch_backends[ACCOUNT][regions.current()])
        queries, wanted = queries_of(alarm)
        condition = _condition(alarm)
        length = self.execution.seconds(period(queries, wanted))
        grid = Grid.until(now, length, condition.periods + _EXTRA_PERIODS)
        values = solve(metrics, queries, wanted, grid)
        state = decide(values, condition, alarm.state_value)
        if self._has_too_few_samples(alarm, queries[wanted], grid):
            state = alarm.state_value
        present = [(t, v) for t, v in zip(grid.times, values, strict=True) if v is not None]
        looked_at = [value for _, value in present[-condition.periods :]]
        return Evaluation(
            state,
            _reason(looked_at, condition, state),
            present[-1] if present else None,
            _reason_data(alarm, looked_at, grid, now),
        )

    def _has_too_few_samples(self, alarm: Alarm, query: Query, grid: Grid) -> bool:
        """Whether a percentile's last datapoint says too little to change a state.

        How many samples are enough is CloudWatch's own rule ("Percentile-based CloudWatch alarms
        and low data samples"); a period that is N times shorter has N times fewer.
        """
        fraction = percentile(query.statistic)
        if alarm.evaluate_low_sample_count_percentile != "ignore" or not query.key:
            return False
        if not fraction or fraction == 1:
            return False
        enough = 10 / min(fraction, 1 - fraction) / self.execution.time_scale
        metrics = metrics_of(cloudwatch_backends[ACCOUNT][regions.current()])
        counts = [
            sum(sample.number for sample in samples)
            for samples in metrics.periods(query.key, grid, query.unit)
        ]
        return 0 < next((count for count in reversed(counts) if count), 0.0) < enough

    def _evaluate_composites(
        self, composites: Sequence[Alarm], alarms: Sequence[Alarm], now: float
    ) -> None:
        # One may stand on others: at most as many rounds as there are.
        for _ in composites:
            changed = False
            for alarm in composites:
                if self._due.get(alarm.name, 0.0) > now:
                    continue
                states = {other.name: other.state_value for other in alarms}
                changed = self._enter(alarm, self._composed(alarm, states)) or changed
            if not changed:
                break

    def _composed(self, alarm: Alarm, states: Mapping[str, str]) -> Evaluation:
        try:
            holds = rule_holds(alarm.rule or "", states)
        except MetricError as error:
            return Evaluation("INSUFFICIENT_DATA", str(error))
        return Evaluation(
            "ALARM" if holds else "OK", f"The rule {alarm.rule} is {str(holds).lower()}."
        )

    def _enter(self, alarm: Alarm, found: Evaluation) -> bool:
        """Give an alarm its state; whether it is another one."""
        former = alarm.state_value
        if found.state != former or alarm.state_reason.startswith("Unchecked"):
            alarm.update_state(found.reason, found.data, found.state)
        if found.state == former:
            return False
        self._transitions.put(_Transition(alarm, former))
        return True

    def _act(self) -> None:
        for transition in _drained(self._transitions):
            alarm = transition.alarm
            if not alarm.actions_enabled:
                continue
            for action in _actions(alarm):
                # Scaling policies watch their alarms; all other kinds are kept only.
                if action.startswith("arn:aws:sns:"):
                    self._notify(action, transition)

    def _notify(self, topic: str, transition: _Transition) -> None:
        alarm = transition.alarm
        try:
            self._sns.publish(
                TopicArn=topic,
                Subject=f'{alarm.state_value}: "{alarm.name}" in {regions.current()}'[:100],
                Message=json.dumps(_message(transition)),
            )
            summary = f"Successfully executed action {topic}"
        except (BotoCoreError, ClientError) as error:
            summary = f"Failed to execute action {topic}. Received error: {error}"
            print(f"alarm {alarm.name}: {summary}", file=sys.stderr, flush=True)
        with self.execution.changing():
            alarm.note("Action", summary, {"notificationResource": topic})

    @cached_property
    def _sns(self) -> Any:
        return self.execution.client("sns")


def queries_of(alarm: models.Alarm) -> tuple[Queries, str]:
    """What a metric alarm watches: its queries, and the id of the one that has its values."""
    if not alarm.metric_data_queries:
        name = alarm.extended_statistic or alarm.statistic
        key = MetricKey(alarm.namespace, alarm.metric_name, _dimensions(alarm.dimensions))
        return {"m1": Query("m1", key, name, float(alarm.period), alarm.unit)}, "m1"
    queries = {}
    returned = []
    for query in alarm.metric_data_queries:
        own = float(query.period) if query.period else None
        if stat := query.metric_stat:
            metric = stat.metric
            key = MetricKey(metric.namespace, metric.metric_name, _dimensions(metric.dimensions))
            length = float(stat.period) if stat.period else own
            queries[query.id] = Query(query.id, key, stat.stat, length, stat.unit)
        else:
            queries[query.id] = Query(query.id, period=own, expression=query.expression)
        # Data are returned unless it is said otherwise.
        if cast(Any, query.return_data) is not False:
            returned.append(query.id)
    if len(returned) != 1:
        raise MetricError(f"{len(returned)} queries of the alarm return data instead of one")
    return queries, returned[0]


def _dimensions(found: Iterable[models.Dimension]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((str(d.name), str(d.value)) for d in found))


def _period(alarm: Alarm) -> float:
    """Seconds of a period on AWS; a minute for a composite alarm or one that has none."""
    if alarm.rule is not None:
        return _MINUTE_SECONDS
    try:
        return period(*queries_of(alarm))
    except MetricError:
        return _MINUTE_SECONDS


def _condition(alarm: Alarm) -> Condition:
    return Condition(
        alarm.comparison_operator,
        float(alarm.threshold),
        int(alarm.evaluation_periods),
        int(alarm.datapoints_to_alarm or alarm.evaluation_periods),
        alarm.treat_missing_data or "missing",
    )


def _reason(values: Sequence[float], condition: Condition, state: str) -> str:
    """Why an alarm is in its state, as AWS words it."""
    if state == "INSUFFICIENT_DATA":
        return f"Insufficient Data: {condition.periods} datapoints were unknown."
    if not values:
        return (
            f"Threshold Crossed: no datapoints were received for {condition.periods} periods and"
            f" {condition.periods} missing datapoints were treated as [{condition.missing}]."
        )
    breaching = sum(condition.breaches(value) for value in values)
    counted = breaching if state == "ALARM" else len(values) - breaching
    verb = "was" if state == "ALARM" else "was not"
    return (
        f"Threshold Crossed: {counted} out of the last {len(values)} datapoints"
        f" [{', '.join(f'{value:g}' for value in values)}] {verb}"
        f" {_COMPARISONS[condition.comparison][1]} the threshold ({condition.threshold:g})"
        f" (minimum {condition.datapoints} for the transition to ALARM)."
    )


def _reason_data(alarm: Alarm, values: Sequence[float], grid: Grid, now: float) -> str:
    return json.dumps(
        {
            "version": "1.0",
            "queryDate": _told(now),
            "startDate": _told(grid.start),
            "statistic": alarm.extended_statistic or alarm.statistic,
            "period": int(_period(alarm)),
            "recentDatapoints": list(values),
            "threshold": float(alarm.threshold),
        }
    )


def _told(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "+0000"


def _actions(alarm: Alarm) -> list[str]:
    by_state: dict[str, list[str]] = {
        "ALARM": alarm.alarm_actions,
        "OK": alarm.ok_actions,
        "INSUFFICIENT_DATA": alarm.insufficient_data_actions,
    }
    return by_state[alarm.state_value] or []


def _message(transition: _Transition) -> dict[str, Any]:
    """What a topic is told, in CloudWatch's form."""
    alarm = transition.alarm
    told = {
        "AlarmName": alarm.name,
        "AlarmDescription": alarm.description,
        "AWSAccountId": ACCOUNT,
        "NewStateValue": alarm.state_value,
        "NewStateReason": alarm.state_reason,
        "StateChangeTime": _told(seconds(alarm.state_transitioned_timestamp)),
        "Region": regions.current(),
        "AlarmArn": alarm.alarm_arn,
        "OldStateValue": transition.former,
        "OKActions": alarm.ok_actions,
        "AlarmActions": alarm.alarm_actions,
        "InsufficientDataActions": alarm.insufficient_data_actions,
    }
    if alarm.rule is not None:
        return {**told, "AlarmRule": alarm.rule}
    trigger = {
        "MetricName": alarm.metric_name,
        "Namespace": alarm.namespace,
        "Period": int(_period(alarm)),
        "EvaluationPeriods": alarm.evaluation_periods,
        "ComparisonOperator": alarm.comparison_operator,
        "Threshold": alarm.threshold,
        "TreatMissingData": alarm.treat_missing_data or "missing",
    }
    return {**told, "Trigger": trigger}


def _drained(queue: SimpleQueue[_Transition]) -> Iterator[_Transition]:
    while True:
        try:
            yield queue.get_nowait()
        except Empty:
            return
