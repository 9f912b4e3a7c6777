"""Progress of long work: a bar on a terminal, a plain line now and then in a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def progress(
    title: str, total: int | None, unit: str, done: int = 0
) -> Iterator[Callable[[int], object]]:
    """Give a function that counts work done, and show the count on standard error.

    Args:
        title: What is being done.
        total: How many units there are, or None when that is not known.
        unit: What is counted: "B" for bytes, else a word such as "photos".
        done: Units done before, by an earlier run.
    """
    if not sys.stderr.isatty():
        yield _log_lines(title, total, unit, done)
        return
    is_bytes = unit == "B"
    with tqdm(
        desc=title,
        total=total,
        initial=done,
        unit=unit if is_bytes else f" {unit}",
        unit_scale=is_bytes,
    ) as bar:
        yield bar.update


def _log_lines(title: str, total: int | None, unit: str, done: int) -> Callable[[int], None]:
    last_line = time.monotonic()
    goal = "" if total is None else f" of {total:,}"

    def count(units: int) -> None:
        nonlocal done, last_line
        done += units
        if time.monotonic() - last_line >= SECONDS_BETWEEN_LINES:
            last_line = time.monotonic()
            sys.stderr.write(f"{title}: {done:,}{goal} {unit}\n")

    return count
