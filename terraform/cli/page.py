"""Tables on standard output."""

import sys

from rich.console import Console

from trainer.errors import drop_output

_UNBOUNDED = 10_000


class Page(Console):
    """A console that goes on when nobody reads any more, so that the exit code stays true.

    A line is as long as it is where it goes to a file or another program, which no width bounds.
    """

    def __init__(self) -> None:
        """Find out where the lines go."""
        super().__init__(width=None if sys.stdout.isatty() else _UNBOUNDED)

    def on_broken_pipe(self) -> None:
        """Print nothing from now on."""
        self.quiet = True
        drop_output()
