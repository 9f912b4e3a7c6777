"""What the C library does with memory that is freed."""

import ctypes
from contextlib import suppress

# glibc's malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


def keep_small_blocks() -> None:
    """Return large blocks to the system at once, and keep small ones.

    By itself the C library keeps freed blocks once it has seen large ones, in every thread: a
    server would stay as big as its largest pictures. With a fixed limit it returns those. The rest
    it would return too, after every picture, and fetch again: 360 page faults for a usual photo,
    which take as long as its decoding.
    """
    _keep(blocks_below=2**20, at_most=2**24)


def keep_large_blocks() -> None:
    """Keep freed blocks of up to 1 GiB for the next operation, in a process that trains.

    By itself the C library returns the result of each of a network's operations to the system and
    fetches it again, page by page: 40 % of the processor time of EfficientNet-Lite0's features.
    """
    _keep(blocks_below=2**30, at_most=2**30)


def _keep(blocks_below: int, at_most: int) -> None:
    with suppress(AttributeError):  # only glibc has the call
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, blocks_below)
        libc.mallopt(_M_TRIM_THRESHOLD, at_most)
