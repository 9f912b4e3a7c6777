"""Progress of long work: a bar on a terminal, a plain line now and then in a log."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Event, Thread

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 10.0
SECONDS_BETWEEN_LOOKS = 0.2
"""How often a terminal is drawn anew."""

_told: ContextVar[Callable[[str], None] | None] = ContextVar("told", default=None)


@contextmanager
def told_to(show: Callable[[str], None]) -> Iterator[None]:
    """Give the progress of what is done inside to a function as text, and draw nothing of it."""
    token = _told.set(show)
    try:
        yield
    finally:
        _told.reset(token)


@contextmanager
def progress(
    title: str,
    total: int | None,
    unit: str,
    done: int = 0,
    *,
    leave: bool = True,
    shown: bool = True,
) -> Iterator[Callable[[int], object]]:
    """Give a function that counts work done, and show the count on standard error.

    Args:
        title: What is being done.
        total: How many units there are, or None when that is not known.
        unit: What is counted: "B" for bytes, else a word such as "photos".
        done: Units done before, by an earlier run.
        leave: Whether the bar stays on the terminal when the work is done.
        shown: Whether to show anything; of processes that do the same, one should.
    """
    if not shown:
        yield lambda units: None
    elif show := _told.get():
        yield _texts(show, SECONDS_BETWEEN_LOOKS, title, total, unit, done)
    elif not sys.stderr.isatty():
        yield _texts(_log, SECONDS_BETWEEN_LINES, title, total, unit, done)
    else:
        is_bytes = unit == "B"
        with tqdm(
            desc=title,
            total=total,
            initial=done,
            unit=unit if is_bytes else f" {unit}",
            unit_scale=is_bytes,
            leave=leave,
        ) as bar:
            yield bar.update


@contextmanager
def working(title: str) -> Iterator[None]:
    """Show for how long something goes on that cannot be counted."""
    if show := _told.get():
        show(title)
        yield
        return
    ended = Event()
    watch = _clock if sys.stderr.isatty() else _clock_lines
    thread = Thread(target=watch, args=(title, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def say_result(words: Iterable[str], line: str) -> None:
    """Print what came of a command: words on a terminal, else a line that programs can parse."""
    print(*(words if sys.stdout.isatty() else (line,)), sep="\n", flush=True)


def _clock(title: str, ended: Event) -> None:
    with tqdm(desc=title, bar_format="{desc} [{elapsed}]") as bar:
        while not ended.wait(SECONDS_BETWEEN_LOOKS):
            bar.refresh()


def _clock_lines(title: str, ended: Event) -> None:
    started = time.monotonic()
    while not ended.wait(SECONDS_BETWEEN_LINES):
        _log(f"{title}: {time.monotonic() - started:.0f} s")


def _log(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _texts(
    show: Callable[[str], None], seconds: float, title: str, total: int | None, unit: str, done: int
) -> Callable[[int], None]:
    """Give a function that counts, and shows the count as text every few seconds."""
    last_shown = time.monotonic()
    goal = "" if total is None else f" of {total:,}"

    def count(units: int) -> None:
        nonlocal done, last_shown
        done += units
        if time.monotonic() - last_shown >= seconds:
            last_shown = time.monotonic()
            show(f"{title}: {done:,}{goal} {unit}")

    return count
