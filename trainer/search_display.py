"""What a search shows: one live line on a terminal, and a line for each trial that has ended."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from tqdm import tqdm

from trainer.progress import SECONDS_BETWEEN_LINES, SECONDS_BETWEEN_LOOKS


@dataclass(frozen=True)
class Running:
    """A trial goes on; `text` says how far it is."""

    number: int
    text: str


@dataclass(frozen=True)
class Ended:
    """A trial has ended.

    Attributes:
        number: Its number.
        line: What came of it, for people and programs.
        counts: Whether it is one of the trials that were asked for; one that failed is not.
        loss: Its validation loss, if it is complete.
    """

    number: int
    line: str
    counts: bool
    loss: float | None


News = Running | Ended
Tell = Callable[[News], None]


def nobody(_: News) -> None:
    """Show nothing."""


@dataclass
class Display:
    """How a search stands.

    Attributes:
        total: Trials that are asked for.
        done: Those that have ended.
        best: The lowest loss so far, if there is one.
    """

    total: int
    done: int
    best: float | None
    _running: dict[int, str] = field(default_factory=dict)
    _bar: "tqdm[Any] | None" = None
    _last: float = field(default_factory=time.monotonic)

    def tell(self, news: News) -> None:
        """Show what a trial does, now and then, or what came of it, at once."""
        if isinstance(news, Running):
            self._running[news.number] = news.text
            seconds = SECONDS_BETWEEN_LINES if self._bar is None else SECONDS_BETWEEN_LOOKS
            if time.monotonic() - self._last >= seconds:
                self._show()
            return
        self._running.pop(news.number, None)
        self.done += news.counts
        if news.loss is not None:
            self.best = min(news.loss, news.loss if self.best is None else self.best)
        if self._bar is not None:
            self._bar.n = self.done
            self._bar.set_description_str(self.text, refresh=False)
        tqdm.write(news.line, file=sys.stdout)  # draws the bar anew below it
        sys.stdout.flush()

    @property
    def text(self) -> str:
        """The state in one line: "trial 3 of 8: epoch 5 of 20, lowest loss 0.27"."""
        places = [str(self.done + 1 + place) for place in range(len(self._running))]
        if not places:
            text = f"{self.done} of {self.total} trials done"
        else:
            word = "trial" if len(places) == 1 else "trials"
            text = (
                f"{word} {', '.join(places)} of {self.total}: {'; '.join(self._running.values())}"
            )
        return text if self.best is None else f"{text}, lowest loss {self.best:.4g}"

    def _show(self) -> None:
        self._last = time.monotonic()
        if self._bar is None:
            sys.stderr.write(f"{self.text}\n")
        else:
            self._bar.set_description_str(self.text)


@contextmanager
def shown(total: int, done: int, best: float | None) -> Iterator[Display]:
    """Show a search while it goes on."""
    display = Display(total, done, best)
    if not sys.stderr.isatty():
        yield display
        return
    form = "[{elapsed}] |{bar:10}| {desc}"  # a narrow terminal cuts the end
    bar: tqdm[Any] = tqdm(total=total, initial=done, bar_format=form, leave=False)
    with bar:
        display._bar = bar
        yield display


def pass_on(sources: Sequence["Connection"], tell: Tell) -> None:
    """Tell what other processes send, until each has ended."""
    left = list(sources)
    while left:
        for source in wait(left):
            assert isinstance(source, Connection)  # noqa: S101 (tells the type)
            try:
                tell(source.recv())
            except EOFError:
                left.remove(source)
