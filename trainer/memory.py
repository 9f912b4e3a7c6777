"""How the C library keeps memory for a process that computes."""

import ctypes
from contextlib import suppress

# glibc's malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

_BYTES = 2**30


def keep_large_blocks() -> None:
    """Keep freed blocks of up to 1 GiB for the next operation.

    By itself the C library returns the result of each of a network's operations to the system and
    fetches it again, page by page: 40 % of the processor time of EfficientNet-Lite0's features.
    """
    with suppress(AttributeError):  # only glibc has the call
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _BYTES)
