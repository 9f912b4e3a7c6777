"""SageMaker's runtime: the one call of AWS that the function makes.

AWS's SDK signs it. It is sent from here, for the SDK's client knows no deadline for a whole answer,
and to make one takes most of a cold start.
"""

import http.client
import json
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from typing import cast
from urllib.parse import quote, urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import EnvProvider

from lambda_src.deadline import Deadline
from lambda_src.images import Image
from lambda_src.stream import DeadlineStream

CONNECT_SECONDS = 2.0
READ_SECONDS = 60.0
"""SageMaker's own limit for an answer; the deadline of a call is usually sooner."""

_ADDRESSES = ("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", "AWS_ENDPOINT_URL")
_DOMAINS = {"cn": "amazonaws.com.cn", "eusc": "amazonaws.eu"}
"""First word of a region's name to its domain, where that is not amazonaws.com."""


class ServiceError(Exception):
    """The runtime answers with an error.

    Attributes:
        status: HTTP status.
        kind: The error's name, such as "ModelError"; empty if the answer has none.
        original_status: Status of the model's container behind a ModelError, else 0.
        original_message: What the container said; empty if it said nothing.
    """

    def __init__(self, status: int, kind: str, content: Mapping[str, object]) -> None:
        message = content.get("Message", content.get("message", ""))
        super().__init__(f"status {status}, {kind}: {message}")
        self.status = status
        self.kind = kind
        original = content.get("OriginalStatusCode")
        self.original_status = original if isinstance(original, int) else 0
        said = content.get("OriginalMessage")
        self.original_message = said if isinstance(said, str) else ""


class Runtime:
    """The service in one region, asked over one connection that is kept: one call at a time."""

    def __init__(self, url: str, signer: SigV4Auth, tls: ssl.SSLContext) -> None:
        """Ask nothing yet."""
        address = urlsplit(url)
        self._host = address.hostname or ""
        self._port = address.port or (443 if address.scheme == "https" else 80)
        self._url = url.rstrip("/")
        self._tls = tls if address.scheme == "https" else None
        self._signer = signer
        self._kept: socket.socket | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], tls: ssl.SSLContext) -> "Runtime":
        """The service that AWS's SDKs would ask: by AWS_ENDPOINT_URL or else by the region.

        Args:
            environment: As Lambda sets it.
            tls: For https; loading the authorities' certificates takes 15 ms, so it is shared.
        """
        region = environment["AWS_DEFAULT_REGION"]
        domain = _DOMAINS.get(region.partition("-")[0], "amazonaws.com")
        named = (environment[name] for name in _ADDRESSES if environment.get(name))
        url = next(named, f"https://runtime.sagemaker.{region}.{domain}")
        # Those that Lambda sets last as long as the process.
        credentials = EnvProvider(environment).load()
        return cls(url, SigV4Auth(credentials, "sagemaker", region), tls)

    def invoke(self, endpoint: str, image: Image, deadline: Deadline) -> bytes:
        """What an endpoint answers to an image.

        Raises:
            ServiceError: The service or the endpoint refuses or fails.
            TimeoutError: There is no answer by the deadline.
            OSError: The service cannot be reached.
            http.client.HTTPException: What answers does not speak HTTP.
        """
        kept, self._kept = self._kept, None
        if kept:
            # The service closes what is not used for a while, unseen by a function that is frozen.
            with suppress(ConnectionError, ssl.SSLError):
                return self._asked(kept, endpoint, image, deadline)
        return self._asked(self._connected(deadline), endpoint, image, deadline)

    def _connected(self, deadline: Deadline) -> socket.socket:
        seconds = deadline.left(CONNECT_SECONDS)
        # Looking a name up has no time-out of its own.
        connected = deadline.run(
            lambda: socket.create_connection((self._host, self._port), timeout=seconds)
        )
        # Head and body are sent one after the other.
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not self._tls:
            return connected
        connected.settimeout(deadline.left(CONNECT_SECONDS))
        return self._tls.wrap_socket(connected, server_hostname=self._host)

    def _asked(
        self, connected: socket.socket, endpoint: str, image: Image, deadline: Deadline
    ) -> bytes:
        connection = http.client.HTTPConnection(self._host, self._port)
        connection.sock = cast(socket.socket, DeadlineStream(connected, deadline, READ_SECONDS))
        try:
            connection.request("POST", *self._signed(endpoint, image))
            response = connection.getresponse()
            body = response.read()
        except BaseException:
            connected.close()
            raise
        if response.will_close:
            connected.close()
        else:
            self._kept = connected
        if response.status != http.client.OK:
            raise _error(response, body)
        return body

    def _signed(self, endpoint: str, image: Image) -> tuple[str, bytes, dict[str, str]]:
        """Path, body and headers of a request."""
        url = urlsplit(f"{self._url}/endpoints/{quote(endpoint, safe='')}/invocations")
        headers = {
            "Accept": "application/json",
            "Content-Type": image.content_type,
            "Host": url.netloc,
            "User-Agent": "kennel",
        }
        request = AWSRequest("POST", url.geturl(), headers=headers, data=image.body)
        self._signer.add_auth(request)
        return url.path, image.body, dict(request.headers.items())


def _error(response: http.client.HTTPResponse, body: bytes) -> ServiceError:
    try:
        content = json.loads(body)
    except ValueError:
        content = None
    # The name may have its namespace before it and an address of its documentation behind it.
    kind = response.headers.get("x-amzn-ErrorType", "").partition(":")[0].rpartition("#")[2]
    return ServiceError(response.status, kind, content if isinstance(content, dict) else {})
