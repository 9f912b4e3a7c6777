"""A caller's URL, fetched without lending the caller this function's place in the network."""

import http.client
import re
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import cast
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from lambda_src import __version__
from lambda_src.addresses import is_public
from lambda_src.deadline import Deadline
from lambda_src.errors import RequestError
from lambda_src.images import MAX_BYTES, Image, image_from
from lambda_src.names import ascii_name
from lambda_src.response import VISIBLE, FinalResponse, body_or_location
from lambda_src.stream import DeadlineStream

MAX_REDIRECTS = 3
MAX_URL_LENGTH = 8192
"""What web servers commonly take in a request's first line. A presigned URL of S3 with a session
token has up to about 4,000 characters."""
MAX_RECEIVED_BYTES = 2 * MAX_BYTES
"""Of one answer: the largest image, with room for headers and for what frames its chunks."""

Resolve = Callable[[str], list[str]]
"""Host name to its addresses as text, at least one; OSError when there are none."""
Connect = Callable[[str, int, float], socket.socket]
"""Address, port and time-out in seconds to a connected TCP socket."""

_PORTS = {"https": 443, "http": 80}
_HOST_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_AROUND = "\ufeff" + "".join(map(chr, range(0x21)))
"""What browsers drop before and after a URL, and a file's byte order mark."""
_UNREADABLE = re.compile(r"[\x00- \x7f-\x9f\\\ud800-\udfff]")
_NUMBER = re.compile(r"\d+|0x[0-9a-f]*")


@dataclass(frozen=True)
class Target:
    """What one request goes to."""

    scheme: str
    host: str
    """ASCII, lower case, without brackets or a trailing dot."""
    resource: str
    """Path and query, percent-encoded."""

    @property
    def port(self) -> int:
        """The only port that the scheme may use here."""
        return _PORTS[self.scheme]

    @property
    def host_header(self) -> str:
        """The host as HTTP's Host header spells it."""
        return f"[{self.host}]" if ":" in self.host else self.host


def parse_url(url: str) -> Target:
    """What `url` points at, if its spelling is one that every parser reads alike.

    Raises:
        RequestError: 400 for a malformed URL; 403 for a well-formed one that leads where a caller
            may not go: another scheme than http(s) (`https_only`), credentials, another port, a
            local name, a disguised address (`forbidden_address`).
    """
    url = url.strip(_AROUND)
    if not url:
        raise _malformed("it is empty")
    if len(url) > MAX_URL_LENGTH:
        raise _malformed(f"it is longer than {MAX_URL_LENGTH} characters")
    if _UNREADABLE.search(url):
        raise _malformed(
            "it holds a space, a backslash or a control character; write a space as %20"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
        address = parts.hostname or ""
    except ValueError:
        raise _malformed("it does not parse") from None
    if parts.scheme == "s3":
        raise _not_https("for an object of S3 send a presigned one")
    if parts.scheme not in _PORTS:
        raise _not_https()
    if "@" in parts.netloc:
        raise _forbidden("a URL with credentials is not fetched")
    if port not in (None, _PORTS[parts.scheme]):
        raise _forbidden("only the standard port is fetched from")
    if parts.netloc.startswith("["):
        host = _ipv6_literal(address)
    else:
        # As it was sent: `hostname` is in lower case, where a capital sigma can become another one.
        host = _host_name(parts.netloc.partition(":")[0])
    return Target(parts.scheme, host, _resource(parts))


def _ipv6_literal(host: str) -> str:
    if "%" in host:
        raise _forbidden("an address with a zone is not fetched from")
    try:
        return str(IPv6Address(host))
    except ValueError:
        raise _malformed("its host is not an IPv6 address") from None


def _host_name(host: str) -> str:
    try:
        name = ascii_name(host)
    except ValueError:
        raise _malformed("its host is not a valid name") from None
    last = name.rpartition(".")[2]
    if _NUMBER.fullmatch(last):
        # C libraries read 127.1, 0x7f.1, 017700000001 and 2130706433 all as 127.0.0.1.
        return _ipv4_literal(name)
    if not _HOST_NAME.fullmatch(name):
        raise _malformed("its host is not a valid name")
    if last == "localhost" or "." not in name:
        raise _forbidden("a local name is not fetched from")
    return name


def _ipv4_literal(host: str) -> str:
    try:
        return str(IPv4Address(host))
    except ValueError:
        raise _forbidden("an IPv4 address is only read in its usual spelling") from None


def _resource(parts: SplitResult) -> str:
    query = f"?{parts.query}" if parts.query else ""
    return quote(f"{parts.path or '/'}{query}", safe="/?%:@!$&'()*+,;=~[]")


def _malformed(why: str) -> RequestError:
    return RequestError(400, "bad_url", f"the URL cannot be read: {why}")


def _forbidden(why: str) -> RequestError:
    return RequestError(403, "forbidden_address", why)


def _not_https(what: str = "such as https://example.com/dog.jpg") -> RequestError:
    return RequestError(403, "https_only", f"only https URLs are fetched: {what}")


def _unreachable(why: str) -> RequestError:
    return RequestError(400, "unreachable_url", why)


@contextmanager
def _unreachable_if_broken(why: str) -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise
    except (OSError, ValueError, http.client.HTTPException):
        raise _unreachable(why) from None


def resolve_name(host: str) -> list[str]:
    """All addresses of `host` (a name, or an address as text) by the system's resolver."""
    # An address stays what it is. A trailing dot keeps a name out of the resolver's search domains.
    absolute = host if is_address(host) else f"{host}."
    found = socket.getaddrinfo(absolute, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def is_address(host: str) -> bool:
    """Whether a target's host is an address and not a name."""
    return ":" in host or host.rpartition(".")[2].isdigit()


def connect_tcp(address: str, port: int, seconds: float) -> socket.socket:
    """A TCP connection to `address`, made within `seconds`."""
    return socket.create_connection((address, port), timeout=seconds)


@dataclass(frozen=True)
class Fetcher:
    """Fetches images from public addresses only.

    Every name is resolved here, each of its addresses has to be public, and the connection goes to
    an address that was checked, so that a second answer of the name server changes nothing. Proxies
    named in the environment are not used.
    """

    allowed_hosts: tuple[str, ...] = ()
    """Hosts to fetch from, exact or `*.example.com` (its subdomains); none means all public."""
    allow_http: bool = False
    connect_seconds: float = 2.0
    read_seconds: float = 3.0
    resolve: Resolve = resolve_name
    connect: Connect = connect_tcp
    tls: ssl.SSLContext = field(default_factory=ssl.create_default_context)
    contact: str = ""
    """Where the sites that are fetched from can turn to, a web or mail address; none if empty."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Fetcher":
        """A fetcher as the environment asks.

        Args:
            environment: KENNEL_ALLOWED_HOSTS (with commas), KENNEL_ALLOW_HTTP (`true`) and
                KENNEL_CONTACT.
        """
        hosts = environment.get("KENNEL_ALLOWED_HOSTS", "").lower().split(",")
        return cls(
            allowed_hosts=tuple(host.strip() for host in hosts if host.strip()),
            allow_http=environment.get("KENNEL_ALLOW_HTTP", "").lower() == "true",
            contact=quote(environment.get("KENNEL_CONTACT", "").strip(), safe=VISIBLE),
        )

    def fetch(self, url: str, seconds: float) -> Image:
        """The image behind `url`, at most `MAX_REDIRECTS` redirects away.

        Args:
            url: What the caller sent.
            seconds: Time for everything: names, connections, redirects, body.

        Raises:
            RequestError: 400 for a URL that is malformed, that nothing answers or that answers with
                something else than 200; 403 for one that leads to a forbidden address; 413 and 415
                as `image_from`; 504 out of time.
        """
        deadline = Deadline.after(seconds)
        try:
            answer = self._get(parse_url(url), deadline)
            for _ in range(MAX_REDIRECTS):
                if isinstance(answer, str):
                    with _behind_a_redirect():
                        url = _redirected(url, answer)
                        answer = self._get(parse_url(url), deadline)
            if isinstance(answer, bytes):
                return image_from(answer)
        except TimeoutError:
            raise RequestError(504, "fetch_timeout", "the URL did not answer in time") from None
        raise _unreachable(f"the URL redirects more than {MAX_REDIRECTS} times")

    def _get(self, target: Target, deadline: Deadline) -> bytes | str:
        """The body behind `target`, or the location that it redirects to."""
        self._check(target)
        connected = self._open(target, self._addresses(target.host, deadline), deadline)
        with connected:
            connection = http.client.HTTPConnection(target.host, target.port)
            connection.response_class = FinalResponse
            stream = DeadlineStream(connected, deadline, self.read_seconds, MAX_RECEIVED_BYTES)
            connection.sock = cast(socket.socket, stream)
            with _unreachable_if_broken("the URL's server broke off or did not speak HTTP"):
                connection.request("GET", target.resource, headers=self._headers(target))
                return body_or_location(connection.getresponse(), bool(self.contact))

    def _check(self, target: Target) -> None:
        if target.scheme == "http" and not self.allow_http:
            raise _not_https()
        if self.allowed_hosts and not any(
            _matches(target.host, rule) for rule in self.allowed_hosts
        ):
            raise _forbidden("the URL's host is not on the list of allowed hosts")

    def _addresses(self, host: str, deadline: Deadline) -> list[str]:
        with _unreachable_if_broken("the URL's host has no address"):
            addresses = deadline.run(lambda: self.resolve(host))
        if not all(is_public(address) for address in addresses):
            raise _forbidden("the URL's host is not on the public internet")
        return addresses

    def _open(self, target: Target, addresses: list[str], deadline: Deadline) -> socket.socket:
        for address in addresses:
            try:
                raw = self.connect(address, target.port, deadline.left(self.connect_seconds))
            except OSError:
                continue
            return self._secured(raw, target.host, deadline) if target.scheme == "https" else raw
        deadline.left()
        raise _unreachable("the URL's server accepts no connection")

    def _secured(self, raw: socket.socket, host: str, deadline: Deadline) -> socket.socket:
        try:
            with _unreachable_if_broken("the URL's server has no valid certificate for its name"):
                raw.settimeout(deadline.left(self.read_seconds))
                return self.tls.wrap_socket(raw, server_hostname=host)
        except BaseException:
            raw.close()
            raise

    def _headers(self, target: Target) -> dict[str, str]:
        agent = f"kennel/{__version__}"
        return {
            "Host": target.host_header,
            "Accept": "image/jpeg, image/png, image/webp",
            "Accept-Encoding": "identity",
            "Connection": "close",
            "User-Agent": f"{agent} (+{self.contact})" if self.contact else agent,
        }


@contextmanager
def _behind_a_redirect() -> Iterator[None]:
    """Refusals inside say that they are not about the URL that the caller sent."""
    try:
        yield
    except RequestError as error:
        raise RequestError(
            error.status, error.error, f"behind a redirect: {error.message}"
        ) from None


def _matches(host: str, rule: str) -> bool:
    return host.endswith(rule[1:]) if rule.startswith("*.") else host == rule


def _redirected(url: str, location: str) -> str:
    try:
        return urljoin(url.strip(_AROUND), location)
    except ValueError:
        raise _malformed("it redirects to one that does not parse") from None
