"""Requests as they are on the wire: signed or not, with whatever headers a sender gives them."""

import http.client
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.message import Message
from typing import Any
from urllib.parse import urlsplit

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

SECONDS = 120


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    headers: Message

    @property
    def text(self) -> str:
        return self.body.decode(errors="replace")


def signed(
    service: str,
    method: str,
    url: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    *,
    key: str = "test",
    secret: str = "test",
    region: str = "us-east-1",
) -> dict[str, str]:
    """The headers of a request that is signed as SDKs sign it."""
    request = AWSRequest(method, url, dict(headers or {}), body)
    request.headers["Host"] = urlsplit(url).netloc
    signer = S3SigV4Auth if service == "s3" else SigV4Auth
    signer(Credentials(key, secret), service, region).add_auth(request)
    return dict(request.headers.items())


def send(
    endpoint: str,
    method: str,
    target: str,
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    body: bytes = b"",
) -> Answer:
    """Send exactly these headers, and the body's length where there is a body.

    Args:
        endpoint: Where to connect to, as a URL.
        method: The method.
        target: What the request line names.
        headers: The headers; Host is added where they have none.
        body: The body.
    """
    given = list(headers.items() if isinstance(headers, Mapping) else headers)
    address = urlsplit(endpoint)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=SECONDS)
    try:
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        if not any(name.lower() == "host" for name, _ in given):
            given.insert(0, ("Host", address.netloc))
        if body:
            given.append(("Content-Length", str(len(body))))
        for name, value in given:
            connection.putheader(name, value)
        connection.endheaders(body or None)
        response: Any = connection.getresponse()
        return Answer(response.status, response.read(), response.headers)
    finally:
        connection.close()
