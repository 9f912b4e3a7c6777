"""Bodies that a server compresses though it was asked not to."""

import zlib

from lambda_src.errors import RequestError
from lambda_src.images import MAX_BYTES, check_size

_READ = frozenset({"gzip", "x-gzip", "deflate"})
_UNREAD = frozenset({"br", "compress", "dcb", "dcz", "x-compress", "zstd"})
_GZIP = b"\x1f\x8b"
_MAX_PARTS = 256
"""Parallel compressors write gzip in parts of 64 KiB of content or more."""
_FORMATS = (zlib.MAX_WBITS | 32, -zlib.MAX_WBITS)
"""For zlib: gzip or zlib by the head, else what some servers call deflate and has none."""


def unpacked(body: bytes, encodings: str) -> bytes:
    """`body` without the one compression that `encodings` names.

    Args:
        body: What came.
        encodings: The Content-Encoding header. Other names in it, such as `utf-8` or `aws-chunked`,
            are mistakes of whoever stored the file and say nothing about its bytes.

    Raises:
        RequestError: 413 if it is too large once unpacked (no more than that is unpacked); 415 for
            a compression that is not read, for several, and for what does not unpack.
    """
    named = compressions(encodings)
    if not named:
        return body
    if len(named) > 1 or named[0] not in _READ:
        raise _refusal(f"is compressed ({', '.join(named[:2])}), which is not read")
    check_size(len(body))
    for wbits in _FORMATS:
        try:
            return _unpacked(body, wbits)
        except (zlib.error, EOFError):
            continue
    raise _refusal(f"says that it is {named[0]} and does not unpack")


def compressions(encodings: str) -> list[str]:
    """The names of compressions in a Content-Encoding header."""
    named = (name.strip() for name in encodings.lower().split(","))
    return [name for name in named if name in _READ | _UNREAD]


def _unpacked(body: bytes, wbits: int) -> bytes:
    image = b""
    for _ in range(_MAX_PARTS):
        unpacker = zlib.decompressobj(wbits)
        image += unpacker.decompress(body, MAX_BYTES + 1 - len(image))
        check_size(len(image))
        if not unpacker.eof:
            raise EOFError
        body = unpacker.unused_data
        if not body.startswith(_GZIP):
            return image
    raise EOFError


def _refusal(why: str) -> RequestError:
    return RequestError(
        415, "not_an_image", f"the URL's answer {why}; serve the image without Content-Encoding"
    )
