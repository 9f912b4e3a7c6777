"""One process at a time in a folder."""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_log = logging.getLogger(__name__)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make `folder` and hold it alone among processes, until the block or the process ends.

    The block may remove the folder.
    """
    descriptor = _take(folder)
    try:
        yield
    finally:
        os.close(descriptor)


def _take(folder: Path) -> int:
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.warning("waiting for another process to finish in %s", folder)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        # The folder may have been removed, or made again, between opening and locking it.
        if folder.exists() and os.path.samestat(os.fstat(descriptor), folder.stat()):
            return descriptor
        os.close(descriptor)
