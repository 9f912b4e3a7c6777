"""When the schedules of Application Auto Scaling are due: at(), rate() and cron().

Source: "Schedule recurring scaling actions using cron expressions" and the reference of
PutScheduledAction, Application Auto Scaling User Guide and API Reference.
"""

import calendar
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from localaws.errors import LocalAwsError

# What became due while nobody looked for longer, as in a machine's sleep, is left out.
_LOOK_BACK = timedelta(minutes=10)
_MINUTE = timedelta(minutes=1)
_FORM = re.compile(r"(at|rate|cron)\((.*)\)")
_RATE = re.compile(r"(\d+) (minute|hour|day)s?")
_NAMES = {
    **{name.upper(): number for number, name in enumerate(calendar.month_abbr) if name},
    **{day: n for n, day in enumerate(("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"), 1)},
}


class ScheduleError(LocalAwsError):
    """A schedule or its time zone is not understood."""


def is_due(
    schedule: str, timezone: str | None, created: datetime, period: tuple[datetime, datetime]
) -> bool:
    """Whether a schedule names a time after the period's beginning and up to its end.

    Args:
        schedule: Such as `cron(0 20 ? * MON-FRI *)`.
        timezone: A name such as Europe/Berlin in which its times are; UTC if None.
        created: When it was put; a rate counts from then.
        period: Two times with zones.

    Raises:
        ScheduleError: The schedule or the zone is not understood.
    """
    form = _FORM.fullmatch(schedule.strip())
    if not form:
        raise ScheduleError(f"{schedule!r} is neither at(...) nor rate(...) nor cron(...)")
    zone = _zone(timezone)
    since, until = (time.astimezone(zone) for time in period)
    kind, content = form.groups()
    if kind == "at":
        return since < _time(content).replace(tzinfo=zone) <= until
    if kind == "rate":
        interval = _interval(content)
        return (until - created) // interval > max(0, (since - created) // interval)
    minute = max(since, until - _LOOK_BACK).replace(second=0, microsecond=0) + _MINUTE
    matches = _cron(content)
    found = False
    while minute <= until:
        found = found or matches(minute)
        minute += _MINUTE
    return found


def _zone(name: str | None) -> ZoneInfo:
    try:
        return ZoneInfo(name or "UTC")
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ScheduleError(f"there is no time zone {name!r}") from error


def _time(content: str) -> datetime:
    try:
        return datetime.strptime(content, "%Y-%m-%dT%H:%M:%S")
    except ValueError as error:
        raise ScheduleError(f"at({content}): write at(yyyy-mm-ddThh:mm:ss)") from error


def _interval(content: str) -> timedelta:
    found = _RATE.fullmatch(content)
    if not found or not int(found[1]):
        raise ScheduleError(f"rate({content}): write rate(5 minutes), in minutes, hours or days")
    return timedelta(**{f"{found[2]}s": int(found[1])})


def _cron(content: str) -> Callable[[datetime], bool]:
    """A test whether a minute is due by the six fields of AWS's cron expressions."""
    fields = content.upper().split()
    if len(fields) != 6:
        raise ScheduleError(
            f"cron({content}): write minutes, hours, day of month, month, day of week and year"
        )
    limits = ((0, 59), (0, 23), (1, 31), (1, 12), (1, 7), (1970, 2199))
    minutes, hours, days, months, weekdays, years = (
        _values(field, *limit) for field, limit in zip(fields, limits, strict=True)
    )
    last_day = fields[2] == "L"

    def matches(time: datetime) -> bool:
        end = calendar.monthrange(time.year, time.month)[1]
        day = time.day == end if last_day else time.day in days
        return (
            time.minute in minutes
            and time.hour in hours
            and day
            and time.month in months
            # AWS counts from Sunday, which is 1.
            and time.isoweekday() % 7 + 1 in weekdays
            and time.year in years
        )

    return matches


def _values(field: str, least: int, most: int) -> frozenset[int]:
    everything = range(least, most + 1)
    if field in ("*", "?", "L"):
        return frozenset(everything)
    found: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        try:
            start = least if first == "*" else _number(first)
            end = _number(last) if last else most if step or first == "*" else start
            found.update(range(start, end + 1, int(step or 1)))
        except ValueError as error:
            raise ScheduleError(f"localaws does not understand {part!r} in cron") from error
    if not found or not found <= set(everything):
        raise ScheduleError(f"{field!r} in cron is not within {least} to {most}")
    return frozenset(found)


def _number(text: str) -> int:
    return _NAMES[text] if text in _NAMES else int(text)
