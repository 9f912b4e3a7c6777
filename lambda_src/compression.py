"""Bodies that a server compresses though it was asked not to."""

import zlib

from lambda_src.errors import RequestError
from lambda_src.images import MAX_BYTES, check_size

_READ = frozenset({"gzip", "x-gzip", "deflate"})
_UNREAD = frozenset({"br", "compress", "dcb", "dcz", "x-compress", "zstd"})
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
    named = [name.strip() for name in encodings.lower().split(",")]
    compressions = [name for name in named if name in _READ | _UNREAD]
    if not compressions:
        return body
    if len(compressions) > 1 or compressions[0] not in _READ:
        raise _refusal(f"is compressed ({', '.join(compressions[:2])}), which is not read")
    check_size(len(body))
    for wbits in _FORMATS:
        unpacker = zlib.decompressobj(wbits)
        try:
            image = unpacker.decompress(body, MAX_BYTES + 1)
        except zlib.error:
            continue
        check_size(len(image))
        if unpacker.eof:
            return image
    raise _refusal(f"says that it is {compressions[0]} and does not unpack")


def _refusal(why: str) -> RequestError:
    return RequestError(
        415, "not_an_image", f"the URL's answer {why}; serve the image without Content-Encoding"
    )
