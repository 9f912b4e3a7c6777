"""Keeps web pages out. A browser lets any page send requests to this machine's loopback interface.

A page of another site betrays itself by headers that only browsers send and no page can leave out.
One whose name was made to lead here (DNS rebinding) is taken for localaws' own page by the browser,
and sends its own name as the host. Browsers older than Sec-Fetch-Site (2023) may send a GET without
any of these; it still needs a signature, and no GET that a page can sign changes anything.
"""

import re
from email.message import Message

# Names below localhost lead nowhere else (RFC 6761); S3's clients put the bucket there.
_LOOPBACK = re.compile(r"(([\w-]+\.)*localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?", re.ASCII | re.I)
_PAGE = re.compile(r"[a-z]+://[^/?#]+")
_LENGTH = re.compile(r"[0-9]{1,15}")
_SHOWN = 100


def stranger(target: str, headers: Message) -> str:
    """Say why a request is refused that a web page may have made; empty if none did.

    Args:
        target: What the request line names.
        headers: The request's headers.
    """
    if why := foreign_host(target, headers):
        return why
    if page := page_of(headers):
        return (
            f"localaws answers no web pages, and this request is made by one ({page[:_SHOWN]}); "
            "use the AWS CLI, an SDK or curl"
        )
    return ""


def bad_length(headers: Message) -> str:
    """Say why it is not known where a request's body ends; empty if it is."""
    lengths = set(headers.get_all("Content-Length", []))
    if len(lengths) > 1 or not all(_LENGTH.fullmatch(length) for length in lengths):
        return f"Content-Length must be one number, not {', '.join(sorted(lengths))[:_SHOWN]!r}"
    return ""


def foreign_host(target: str, headers: Message) -> str:
    """Say why the host that a request is for is not this machine; empty if it is."""
    hosts = headers.get_all("Host", [])
    # A request line may have a host of its own.
    if target.startswith("/") and len(hosts) == 1 and _LOOPBACK.fullmatch(hosts[0]):
        return ""
    named = ", ".join(hosts) if target.startswith("/") else target
    return (
        f"localaws answers to 127.0.0.1 and localhost only, not to {named[:_SHOWN]!r}: "
        "give its own address as the endpoint"
    )


def page_of(headers: Message) -> str:
    """Tell the origin of the web page that made a request.

    Returns:
        "null" where the page does not say; empty if no page did: programs, and what a person types
        into a browser.
    """
    if (origins := headers.get_all("Origin")) is not None:
        return ", ".join(origins) or "null"
    if (referer := headers["Referer"]) is not None:
        page = _PAGE.match(referer)
        return page[0] if page else "null"
    sites = headers.get_all("Sec-Fetch-Site", ["none"])
    if sites == ["same-origin"]:
        return own_origin(headers)
    return "" if sites == ["none"] else "null"


def own_origin(headers: Message) -> str:
    """Give the origin of the pages of the host that a request is for."""
    return f"http://{headers.get('Host', '')}"
