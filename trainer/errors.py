"""Errors that a user can act on; command lines print them as one line."""

import argparse
import errno
import io
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn


class KennelError(Exception):
    """A run failed; the message says what, where and what to do next (exit code 1)."""


class UsageError(KennelError):
    """The user's input was wrong; the message names the culprit and the remedy (exit code 2)."""


class ArgumentParser(argparse.ArgumentParser):
    """One that says what is wrong in one line, as all commands do."""

    def error(self, message: str) -> NoReturn:
        """Say it.

        Raises:
            UsageError: Always.
        """
        raise UsageError(f"{message}; `{self.prog} --help` lists the flags")


LOST_TOUCH = 3
"""Exit code of a process whose run ended since another one had; `trainer.torchrun` gives that
one's in its place."""


class LostTouchError(KennelError):
    """Another process of the run has ended; what that one said is why."""


class Interrupted(KennelError):
    """Ctrl-C; the message says what is kept and how to go on (exit code 130)."""


_FOR_THE_USER = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT),
    *(errno.EISDIR, errno.ENOTDIR),
)
"""What only the user can mend: rights, room on a disk, and what lies in a file's place."""


def run_command(main: Callable[[], None]) -> None:
    """Run a command line's `main` and turn a `KennelError` into one line and an exit code.

    Raises:
        SystemExit: 1 for a failed run, 2 for wrong input, 130 after Ctrl-C, 141 where nobody reads
            on, as `head` does not.
    """
    # A shell's `>&-` leaves none; the next file that is opened would get all that is printed.
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115, PTH123
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115, PTH123
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal's encoding lacks is shown escaped and ends nothing.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        main()
        _flush()
    except KennelError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(_exit_code(error)) from None
    except KeyboardInterrupt:
        sys.stderr.write("error: stopped by Ctrl-C; the same command goes on with what is done\n")
        raise SystemExit(128 + signal.SIGINT) from None
    except BrokenPipeError:
        raise SystemExit(128 + signal.SIGPIPE) from None
    except OSError as error:
        if error.errno not in _FOR_THE_USER:
            raise
        where = "" if error.filename is None else f"{error.filename}: "
        sys.stderr.write(f"error: {where}{error.strerror}\n")
        raise SystemExit(1) from None
    finally:
        with suppress(OSError):
            _flush()


def _flush() -> None:
    """Let out what was printed; a reader that has seen enough by then is no error.

    Raises:
        OSError: There is no room for it.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        drop_output()
    except OSError:
        drop_output()
        raise


def drop_output() -> None:
    """Write to nowhere from now on: who read the standard output has gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _exit_code(error: KennelError) -> int:
    if isinstance(error, Interrupted):
        return 128 + signal.SIGINT
    if isinstance(error, LostTouchError):
        return LOST_TOUCH
    return 2 if isinstance(error, UsageError) else 1
