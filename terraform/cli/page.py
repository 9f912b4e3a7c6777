"""Tables on standard output."""

from rich.console import Console

from trainer.errors import drop_output


class Page(Console):
    """A console that goes on when nobody reads any more, so that the exit code stays true."""

    def on_broken_pipe(self) -> None:
        """Print nothing from now on."""
        self.quiet = True
        drop_output()
