"""Bytes that came as text: base64, in the spellings that can be read in one way only."""

import base64
import re
from urllib.parse import unquote, unquote_to_bytes

from lambda_src.errors import RequestError
from lambda_src.images import check_size, content_type_of

_LEADING = "\ufeff \t\r\n"
"""What a file or a program may put before the text: a byte order mark, white space."""
_NOT_BASE64 = re.compile(r"[^A-Za-z0-9+/]")


def is_data_uri(text: str) -> bool:
    """Whether `text` is a `data:` URI, which holds what it leads to."""
    return text.lstrip(_LEADING)[:5].lower() == "data:"


def decoded(text: str) -> bytes:
    """The bytes that `text` stands for.

    Args:
        text: base64, or a data URI with it or with an image in percent-encoding. Line breaks, the
            alphabet for URLs and missing padding are fine.

    Raises:
        RequestError: 400 for other text, 413 for an image that is too large.
    """
    text = text.lstrip(_LEADING)
    if is_data_uri(text):
        head, comma, text = text.partition("#")[0].partition(",")
        if not comma or "base64" not in head.lower().replace(" ", "").split(";")[1:]:
            image = unquote_to_bytes(text.encode(errors="replace"))
            if content_type_of(image):
                return image
            raise _refusal("the data URI has no ;base64, in it: data:image/jpeg;base64,...")
        text = unquote(text)
    digits = _joined(text).replace("-", "+").replace("_", "/").rstrip("=")
    check_size(len(digits) * 3 // 4)
    try:
        return base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
    except ValueError:
        raise _refusal(_fault_in(digits)) from None


def _fault_in(digits: str) -> str:
    """Why `digits`, which end before the padding, are no base64."""
    stray = _NOT_BASE64.search(digits)
    if not stray:
        return "the base64 is cut short: its length is wrong"
    remedy = '; a URL goes into "url"' if digits.startswith("http") else ""
    return f"the text is not base64: its character {stray.start() + 1} is {stray.group()!r}{remedy}"


def _joined(text: str) -> str:
    """`text` without its white space.

    Line breaks and what indents a line mean nothing. Another space may do so, too, or be a plus
    sign that the decoder of a form took: it is dropped only where a plus sign does not fit.
    """
    joined = "".join(text.split())
    spaces = sum(line.lstrip().count(" ") for line in text.splitlines()) if " " in text else 0
    if spaces and (len(joined) % 4 or (spaces % 4 == 0 and not _is_even(text.split()))):
        raise _refusal('the base64 holds spaces; if they were plus signs, send those as "+" or %2B')
    return joined


def _is_even(lines: list[str]) -> bool:
    """Whether all lines are of one length, but for the last, which may be shorter."""
    return len({len(line) for line in lines[:-1]}) <= 1 and len(lines[-1]) <= len(lines[0])


def _refusal(why: str) -> RequestError:
    return RequestError(400, "bad_request", why)
