"""Tables on standard output."""

import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console
from rich.text import Text

from trainer.errors import drop_output

_UNBOUNDED = 10_000
_NARROWEST, _BELOW = 40, 4


class Page(Console):
    """A console that goes on when nobody reads any more, so that the exit code stays true.

    A line is as long as it is where it goes to a file or another program, which no width bounds.
    """

    def __init__(self) -> None:
        """Find out where the lines go."""
        super().__init__(width=None if sys.stdout.isatty() else _UNBOUNDED)

    def rows(
        self, title: str, rows: Iterable[Sequence[str]], styles: Mapping[str, str] | None = None
    ) -> None:
        """Print rows: short cells in columns, beside them a text that is wrapped at its words.

        Where little room is left beside them, it stands below. A word that is too long for a line,
        such as an address, stays whole.

        Args:
            title: A line above.
            rows: The cells of each; the last one is the text, which may have several lines.
            styles: How short cells look, by their content.
        """
        listed = list(rows)
        columns = zip(*(row[:-1] for row in listed), strict=True)
        widths = [max(map(len, column)) for column in columns]
        indent = sum(width + 2 for width in widths)
        is_below = self.width - indent < _NARROWEST
        indent = _BELOW if is_below else indent
        self.out(f"{title}\n", style="bold", highlight=False)
        for *cells, text in listed:
            head = Text()
            for cell, width in zip(cells, widths, strict=True):
                head.append(cell.ljust(width), (styles or {}).get(cell)).append("  ")
            if is_below:
                self.print(head, highlight=False, soft_wrap=True)
                head = Text(" " * indent)
            for line in _wrapped(text, self.width - indent):
                self.print(head.append(line), highlight=False, soft_wrap=True)
                head = Text(" " * indent)

    def told(self, found: str, remedy: str) -> str:
        """What was found and what to do, if anything need be done: in a log on one line."""
        beside = "  " if self.width == _UNBOUNDED else "\nto do: "
        return f"{found}{beside}{remedy}" if remedy else found

    def on_broken_pipe(self) -> None:
        """Print nothing from now on."""
        self.quiet = True
        drop_output()


def _wrapped(text: str, width: int) -> list[str]:
    return [
        piece
        for line in text.splitlines()
        for piece in textwrap.wrap(
            line, max(width, 1), break_long_words=False, break_on_hyphens=False
        )
    ] or [""]
