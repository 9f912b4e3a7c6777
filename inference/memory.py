"""How the C library keeps memory for a server that decodes pictures of all sizes."""

import ctypes
from contextlib import suppress

# glibc's malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

_LARGE_BYTES = 2**20
_KEPT_BYTES = 2**24


def keep_small_blocks() -> None:
    """Return large blocks to the system at once, and keep small ones.

    By itself the C library keeps freed blocks once it has seen large ones, in every thread: a
    server would stay as big as its largest pictures. With a fixed limit it returns those. The rest
    it would return too, after every picture, and fetch again: 360 page faults for a usual photo,
    which take as long as its decoding.
    """
    with suppress(AttributeError):  # only glibc has the call
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
