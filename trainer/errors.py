"""Errors that a user can act on; command lines print them as one line."""

import io
import os
import signal
import sys
from collections.abc import Callable


class KennelError(Exception):
    """A run failed; the message says what, where and what to do next (exit code 1)."""


class UsageError(KennelError):
    """The user's input was wrong; the message names the culprit and the remedy (exit code 2)."""


def run_command(main: Callable[[], None]) -> None:
    """Run a command line's `main` and turn a `KennelError` into one line and an exit code.

    Raises:
        SystemExit: 1 for a failed run, 2 for wrong input, 130 after Ctrl-C, 141 where nobody reads
            on, as `head` does not.
    """
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal's encoding lacks is shown escaped and ends nothing.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        main()
    except KennelError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(2 if isinstance(error, UsageError) else 1) from None
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None
    except BrokenPipeError:
        raise SystemExit(128 + signal.SIGPIPE) from None
    finally:
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            drop_output()


def drop_output() -> None:
    """Write to nowhere from now on: who read the standard output has gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
