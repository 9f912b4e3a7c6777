"""What a site answers: an image, where to find it, or why there is none."""

import http.client
import re
from http import HTTPStatus
from typing import cast
from urllib.parse import quote

from lambda_src.compression import unpacked
from lambda_src.errors import RequestError
from lambda_src.images import MAX_BYTES, check_size, content_type_of

MAX_INTERIM_ANSWERS = 10
VISIBLE = "".join(map(chr, range(0x21, 0x7F)))
"""ASCII that may stand in a header or a URL as it is."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SHY = frozenset({401, 403, 429})
"""What sites answer to fetchers that they do not know."""
_FOLD = re.compile(r"\r?\n[ \t]+")


class FinalResponse(http.client.HTTPResponse):
    """The final answer: http.client itself skips interim ones of status 100, not 102 and 103."""

    def begin(self) -> None:
        """Read up to the body."""
        for _ in range(MAX_INTERIM_ANSWERS + 1):
            super().begin()
            if self.status == HTTPStatus.SWITCHING_PROTOCOLS or not 100 <= self.status < 200:
                return
            # Unset, or they would count as the final ones.
            self.headers = self.msg = cast(http.client.HTTPMessage, None)
        raise http.client.HTTPException("too many interim answers")


def body_or_location(response: http.client.HTTPResponse, has_contact: bool) -> bytes | str:
    """The body of an answer with status 200, or the URL, absolute or not, of a redirect.

    Args:
        response: Read up to its body.
        has_contact: Whether the request named somebody to turn to.

    Raises:
        RequestError: 400 for another answer; 413 for a body that is too large; 415 for one that
            is a web page or compressed in a way that is not read.
        http.client.HTTPException: The answer breaks off.
    """
    status = response.status
    if status in _REDIRECTS:
        location = _location(response)
        if location:
            return location
        raise _no_image(f"the URL redirects (status {status}) and does not say where to")
    if status != HTTPStatus.OK:
        advice = _ADVICE if status in _SHY and not has_contact else ""
        raise _no_image(f"the URL answers with status {status}{advice}")
    # A declared size only ever shortens the way to a refusal; what arrives is what counts.
    check_size(response.length or 0)
    body = response.read(MAX_BYTES + 1)
    if response.length and len(body) <= MAX_BYTES:
        raise _no_image("the URL's server broke off before the end of the image")
    # An image is one, whatever the headers say.
    if content_type_of(body):
        return body
    body = unpacked(body, ",".join(response.headers.get_all("Content-Encoding", [])))
    if not content_type_of(body) and response.headers.get_content_type() == "text/html":
        raise RequestError(
            415, "not_an_image", "the URL leads to a web page; send the address of the image itself"
        )
    return body


_ADVICE = (
    "; some sites refuse fetchers that name no contact, which the function's owner sets with"
    " `contact` in Terraform (KENNEL_CONTACT)"
)


def _location(response: http.client.HTTPResponse) -> str:
    """The Location header; spaces and bytes beyond ASCII are read as browsers do."""
    header = (response.headers.get("Location") or "").strip(" \t\r\n")
    sent = _FOLD.sub(" ", header).replace(" ", "%20").encode("latin-1")
    try:
        return sent.decode()
    except UnicodeDecodeError:
        return quote(sent, safe=VISIBLE)


def _no_image(why: str) -> RequestError:
    return RequestError(400, "unreachable_url", why)
