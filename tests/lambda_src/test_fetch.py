import gzip
import itertools
import socket
import ssl
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Self

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from lambda_src import __version__
from lambda_src.errors import RequestError
from lambda_src.fetch import MAX_URL_LENGTH, Fetcher, parse_url, resolve_name
from lambda_src.images import MAX_BYTES, Image

PNG = b"\x89PNG\r\n\x1a\n a picture"
HOST = "pictures.example.com"
ADDRESS = "93.184.215.14"
SECONDS = 20.0
"""Far more than any of these fetches needs."""
SECRET = b"what only the inner network may see"

NAMES = {
    HOST: [ADDRESS],
    "xn--bcher-kva.example": [ADDRESS],
    "two.example.com": ["93.184.215.15", ADDRESS],
    "mixed.example.com": [ADDRESS, "10.0.0.1"],
    "metadata.example.com": ["169.254.169.254"],
    "inner.example.com": ["10.1.2.3"],
    "inner6.example.com": ["fd00::1"],
    "mapped.example.com": ["::ffff:127.0.0.1"],
    "nat64.example.com": ["64:ff9b::7f00:1"],
    "ipv4only.example.com": ["64:ff9b::5db8:d70e"],
    "xn--strae-oqa.example": [ADDRESS],
}

Answer = Callable[[socket.socket], None]


@dataclass
class Site:
    """A web site on loopback, over TLS (port 443 of its address) and without (port 80)."""

    tls: ssl.SSLContext
    pages: dict[str, Answer] = field(default_factory=dict)
    requests: list[bytes] = field(default_factory=list)
    dialled: list[tuple[str, int]] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    """Addresses that accept no connection."""

    def __post_init__(self) -> None:
        self._ended = threading.Event()
        self._ports = {443: self._listen(self.tls), 80: self._listen(None)}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def connect(self, address: str, port: int, seconds: float) -> socket.socket:
        """Stand in for the network: every address leads here."""
        self.dialled.append((address, port))
        if address in self.refused:
            raise ConnectionRefusedError
        return socket.create_connection(("127.0.0.1", self._ports[port]), timeout=seconds)

    def _listen(self, tls: ssl.SSLContext | None) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.settimeout(0.1)
        threading.Thread(target=self._accept, args=(listener, tls), daemon=True).start()
        port: int = listener.getsockname()[1]
        return port

    def _accept(self, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        with listener:
            while not self._ended.is_set():
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    continue
                threading.Thread(target=self._serve, args=(connection, tls), daemon=True).start()

    def _serve(self, connection: socket.socket, tls: ssl.SSLContext | None) -> None:
        connection.settimeout(SECONDS)
        try:
            if tls is not None:
                connection = tls.wrap_socket(connection, server_side=True)
            request = b""
            while b"\r\n\r\n" not in request:
                received = connection.recv(4096)
                if not received:
                    return
                request += received
            self.requests.append(request)
            self.pages[request.split(b" ")[1].decode()](connection)
        except OSError:
            return
        finally:
            connection.close()

    def drip(self, head: bytes, piece: bytes) -> Answer:
        """An answer that never ends and never stalls."""

        def answer(connection: socket.socket) -> None:
            connection.sendall(b"HTTP/1.1 200 OK\r\n" + head)
            while not self._ended.wait(0.05):
                connection.sendall(piece)

        return answer


def raw(answer: bytes) -> Answer:
    return lambda connection: connection.sendall(answer)


def page(body: bytes, status: str = "200 OK", **headers: str) -> Answer:
    fields = {"Content_Length": str(len(body)), "Content_Type": "image/png", **headers}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in fields.items() if value]
    return raw("\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode() + body)


def redirect(location: str) -> Answer:
    return page(b"", status="302 Found", Location=location)


def resolve(host: str) -> list[str]:
    """Names from the table; addresses, however they are spelled, by the system's resolver."""
    if host in NAMES:
        return NAMES[host]
    if host.replace(".", "").isdigit() or ":" in host:
        return resolve_name(host)
    raise socket.gaierror


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    names = ("two.example.com", "ipv4only.example.com")
    names += ("xn--bcher-kva.example", "xn--strae-oqa.example")
    authority.issue_cert(HOST, *names).configure_cert(tls)
    return tls


@pytest.fixture(scope="module")
def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    tls = ssl.create_default_context()
    authority.configure_trust(tls)
    return tls


@pytest.fixture
def site(server_tls: ssl.SSLContext) -> Iterator[Site]:
    with Site(server_tls) as site:
        site.pages["/dog.png"] = page(PNG)
        yield site


@pytest.fixture
def fetcher(site: Site, client_tls: ssl.SSLContext) -> Fetcher:
    return Fetcher(resolve=resolve, connect=site.connect, tls=client_tls)


def refusal(fetcher: Fetcher, url: str, seconds: float = SECONDS) -> RequestError:
    with pytest.raises(RequestError) as error:
        fetcher.fetch(url, seconds)
    return error.value


@contextmanager
def refusals(statuses: set[int]) -> Iterator[None]:
    """A block that may end in a refusal, with one of `statuses`, and in no other error."""
    try:
        yield
    except RequestError as error:
        if error.status not in statuses:
            raise


def test_an_image_comes_over_tls(fetcher: Fetcher, site: Site) -> None:
    assert fetcher.fetch(f"https://{HOST}/dog.png", SECONDS) == Image(PNG, "image/png")
    assert site.dialled == [(ADDRESS, 443)]
    assert f"Host: {HOST}\r\n".encode() in site.requests[0]
    assert b"Accept-Encoding: identity\r\n" in site.requests[0]


@pytest.mark.parametrize(
    ("url", "path"),
    [
        (f"https://{HOST}", "/"),
        (f"https://{HOST}:443/a%20b?c=d&e=%2F#never-sent", "/a%20b?c=d&e=%2F"),
        (f"https://{HOST.upper()}./", "/"),
        ("https://b\u00fccher.example/\u00e9", "/%C3%A9"),
        ("https://stra\u00dfe.example/", "/"),
        (f"https://{HOST}/at 10\u202fAM.png".replace(" ", "\u00a0"), "/at%C2%A010%E2%80%AFAM.png"),
        (f" https://{HOST}/a.png\r\n", "/a.png"),
        (f"\ufeffhttps://{HOST}/a.png\t", "/a.png"),
        (f"\n\x00https://{HOST}?q= ", "/?q="),
        (f"https://{HOST}/\U0001f468\u200d\U0001f469", "/%F0%9F%91%A8%E2%80%8D%F0%9F%91%A9"),
        (
            f"https://{HOST}/a?X-Amz-Security-Token={'t' * 4000}",
            f"/a?X-Amz-Security-Token={'t' * 4000}",
        ),
    ],
)
def test_the_request_is_what_the_url_says(
    fetcher: Fetcher, site: Site, url: str, path: str
) -> None:
    site.pages[path] = page(PNG)
    assert fetcher.fetch(url, SECONDS).body == PNG


@pytest.mark.parametrize(
    ("host", "asked"),
    [
        # As browsers ask, and not as Python's codec of 2003 does.
        ("stra\u00dfe.de", "xn--strae-oqa.de"),
        ("STRA\u1e9eE.de", "xn--strae-oqa.de"),
        ("xn--strae-oqa.de", "xn--strae-oqa.de"),
        ("\u03b2\u03cc\u03bb\u03bf\u03c2.com", "xn--nxasmm1c.com"),
        ("\u0392\u038c\u039b\u039f\u03a3.com", "xn--nxasmq6b.com"),
        ("B\u00fccher.Example.", "xn--bcher-kva.example"),
        ("\u65e5\u672c\u8a9e\u3002\uff2a\uff30", "xn--wgv71a119e.jp"),
        ("i\u2764\ufe0f.ws", "xn--i-7iq.ws"),
        ("\u0646\u0627\u0645\u0647\u200c\u0627\u06cc.com", "xn--mgba3gch31f060k.com"),
        ("\uff45xample.com", "example.com"),
        ("my_bucket.s3.example.com", "my_bucket.s3.example.com"),
    ],
)
def test_a_name_is_asked_for_as_browsers_do(host: str, asked: str) -> None:
    assert parse_url(f"https://{host}/").host == asked


def test_a_host_behind_a_gateway_to_ipv4(fetcher: Fetcher, site: Site) -> None:
    assert fetcher.fetch("https://ipv4only.example.com/dog.png", SECONDS).body == PNG
    assert site.dialled == [("64:ff9b::5db8:d70e", 443)]


def test_the_next_address_is_tried(fetcher: Fetcher, site: Site) -> None:
    site.refused.add("93.184.215.15")
    assert fetcher.fetch("https://two.example.com/dog.png", SECONDS).body == PNG
    assert site.dialled == [("93.184.215.15", 443), (ADDRESS, 443)]


def test_no_connection_at_all(fetcher: Fetcher, site: Site) -> None:
    site.refused.add(ADDRESS)
    assert refusal(fetcher, f"https://{HOST}/dog.png").error == "unreachable_url"


def test_plain_http_where_it_is_allowed(fetcher: Fetcher, site: Site) -> None:
    assert refusal(fetcher, f"http://{HOST}/dog.png").status == 403
    allowing = replace(fetcher, allow_http=True)
    assert allowing.fetch(f"http://{HOST}/dog.png", SECONDS).body == PNG
    assert site.dialled == [(ADDRESS, 80)]


FORBIDDEN_HOSTS = [
    # Private, local and reserved addresses
    *("127.0.0.1", "127.255.255.254", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.0.1"),
    *("100.64.0.1", "169.254.169.254", "169.254.170.2", "192.0.0.192", "100.100.100.200"),
    *("168.63.129.16", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1"),
    # IPv6, and IPv4 inside it
    *("[::1]", "[::]", "[fe80::1]", "[fc00::1]", "[fd00:ec2::254]", "[ff02::1]", "[2001:db8::1]"),
    *("[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::ffff:a9fe:a9fe]", "[::127.0.0.1]"),
    *("[0:0:0:0:0:ffff:10.0.0.1]", "[64:ff9b::7f00:1]", "[64:ff9b::169.254.169.254]"),
    *("[2002:7f00:1::]", "[2002:a9fe:a9fe::1]", "[2001:0:7f00:1::]", "[::ffff:0:127.0.0.1]"),
    *("[fe80::1%25eth0]", "[fe80::1%eth0]", "[2606:4700::1111%25lo]"),
    # IPv4 in the spellings that C libraries read
    *("2130706433", "017700000001", "0x7f000001", "127.1", "127.0.1", "0177.0.0.1", "0x7f.0.0.1"),
    *("0x7f.1", "00000127.0.0.1", "127.0.0.0x1", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376"),
    *("127.0.0.1.", "2130706433.", "0X7F.1", "1.1", "0"),
    *("[64:ff9b::a9fe:a9fe]", "[64:ff9b:1::a9fe:a9fe]", "[64:ff9b:1:a9fe:a9:fe00:808:808]"),
    *("[2606:4700::5efe:10.0.0.1]", "[::10.0.0.1]"),
    # Other characters that become digits and dots
    *("\uff11\uff12\uff17\uff0e\uff10\uff0e\uff10\uff0e\uff11", "\uff10x7f\uff61\uff11\uff61"),
    *("\uff11\uff12\uff17.0.0.1", "127\u30020\u30020\u30021", "\u2460\u2461\u2466.0.0.1"),
    # Names
    *(
        "localhost",
        "LOCALHOST",
        "localhost.",
        "a.localhost",
        "\u24db\u24de\u24d2alhost",
        "metadata",
    ),
    *("inner.example.com", "inner.example.com.", "INNER.example.com", "inner6.example.com"),
    *("metadata.example.com", "mapped.example.com", "nat64.example.com", "mixed.example.com"),
]
FORBIDDEN_URLS = [
    *(f"https://{host}/dog.png" for host in FORBIDDEN_HOSTS),
    f"https://user:password@{HOST}/dog.png",
    f"https://{HOST}@127.0.0.1/dog.png",
    f"https://127.0.0.1@{HOST}/dog.png",
    f"https://@{HOST}/dog.png",
    f"https://{HOST}:80/dog.png",
    f"https://{HOST}:22/dog.png",
    f"https://{HOST}:8080/dog.png",
]


@pytest.mark.parametrize("url", FORBIDDEN_URLS)
def test_a_forbidden_url_leads_nowhere(fetcher: Fetcher, site: Site, url: str) -> None:
    error = refusal(fetcher, url)
    assert (error.status, error.error) == (403, "forbidden_address")
    assert site.dialled == []


@pytest.mark.parametrize(
    "url",
    [
        f"http://{HOST}/dog.png",
        f"HTTP://{HOST}/dog.png",
        f"ftp://{HOST}/dog.png",
        f"gopher://{HOST}/dog.png",
        "file:///etc/passwd",
        "data:image/png;base64,iVBORw0KGgo=",
        f"//{HOST}/dog.png",
        f"{HOST}/dog.png",
        "s3://bucket/dog.png",
    ],
)
def test_that_only_https_is_taken_is_said(fetcher: Fetcher, site: Site, url: str) -> None:
    error = refusal(fetcher, url)
    assert (error.status, error.error) == (403, "https_only")
    assert error.message.startswith("only https URLs are fetched: ")
    assert site.dialled == []


def test_the_forbidden_urls_are_many() -> None:
    assert len(set(FORBIDDEN_URLS)) >= 55


@pytest.mark.parametrize(
    "url",
    [
        "",
        " \n",
        "https://",
        "https:///dog.png",
        f"https:{HOST}",
        f"https://{HOST}:port/",
        f"https://{HOST}:99999/",
        f"https://{HOST}/a b",
        f"https://{HOST}/\r\nX: y",
        f"https://{HOST}\t/",
        f"https://127.0.0.1\\@{HOST}/",
        f"https://{HOST}\x00/",
        "https://[::1/",
        "https://[127.0.0.1]/",
        "https://[v1.x]/",
        "https://a..example.com/",
        "https://%31%32%37.0.0.1.example/",
        "https://-bad-\u00ad.\u200b/",
        f"https://{'a' * 64}.example.com/",
        "https://" + "\u00fc" * 3000 + ".example.com/",
        "https://\u200d.example.com/",
        "https://\u00a0.example.com/",
        "https://a\u3000b.example.com/",
        "https://a\u2028.example.com/",
        f"https://{HOST}/\u0085",
        f"https://{HOST}/\ud800",
        "https://\u0301a.example.com/",
        "https://l\u0378.example.com/",
        "https://a\uff0fb.example.com/",
        "https://a\uff05b.example.com/",
        "https://good.example.com\uff20evil.example.com/",
        "https://\ud800.example.com/",
        f"https://{HOST}/{'a' * MAX_URL_LENGTH}",
    ],
)
def test_a_malformed_url_is_not_guessed_at(fetcher: Fetcher, site: Site, url: str) -> None:
    assert refusal(fetcher, url).error == "bad_url"
    assert site.dialled == []


@given(st.text(max_size=60), st.sampled_from(["", "https://", "https://[", f"https://{HOST}"]))
def test_any_text_is_a_target_or_refused(text: str, prefix: str) -> None:
    with refusals({400, 403}):
        target = parse_url(prefix + text)
        assert target.host.isascii()
        assert target.resource.isascii()
        assert target.resource.startswith("/")


def test_an_unknown_name(fetcher: Fetcher) -> None:
    assert refusal(fetcher, "https://nowhere.example.com/").error == "unreachable_url"


@pytest.mark.parametrize(
    ("rule", "host", "is_allowed"),
    [
        (HOST, HOST, True),
        (f"other.example, {HOST.upper()}", HOST, True),
        ("*.example.com", HOST, True),
        ("example.com", HOST, False),
        ("*.pictures.example.com", HOST, False),
        ("*.example", HOST, False),
        ("ictures.example.com", HOST, False),
    ],
)
def test_the_list_of_allowed_hosts(
    fetcher: Fetcher, rule: str, host: str, is_allowed: bool
) -> None:
    listed = Fetcher.from_environment({"KENNEL_ALLOWED_HOSTS": rule}).allowed_hosts
    limited = replace(fetcher, allowed_hosts=listed)
    if is_allowed:
        assert limited.fetch(f"https://{host}/dog.png", SECONDS).body == PNG
    else:
        assert refusal(limited, f"https://{host}/dog.png").status == 403


def test_an_allowed_host_must_still_be_public(fetcher: Fetcher) -> None:
    limited = replace(fetcher, allowed_hosts=("inner.example.com",))
    assert refusal(limited, "https://inner.example.com/dog.png").status == 403


def test_the_environment_decides_about_http() -> None:
    assert Fetcher.from_environment({"KENNEL_ALLOW_HTTP": "true"}).allow_http
    assert not Fetcher.from_environment({}).allow_http


def test_a_proxy_in_the_environment_is_not_used(
    fetcher: Fetcher, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://10.0.0.1:3128")
    assert fetcher.fetch(f"https://{HOST}/dog.png", SECONDS).body == PNG
    assert site.dialled == [(ADDRESS, 443)]


def test_up_to_three_redirects_are_followed(fetcher: Fetcher, site: Site) -> None:
    site.pages["/1"] = redirect(f"https://{HOST}/2")
    site.pages["/2"] = redirect("//two.example.com/3")
    site.pages["/3"] = redirect("dog.png")
    assert fetcher.fetch(f"https://{HOST}/1", SECONDS).body == PNG


@pytest.mark.parametrize("status", ["301 a", "302 b", "303 c", "307 d", "308 e"])
def test_every_kind_of_redirect_is_followed(fetcher: Fetcher, site: Site, status: str) -> None:
    site.pages["/"] = page(b"", status=status, Location="/dog.png")
    assert fetcher.fetch(f"https://{HOST}/", SECONDS).body == PNG


@pytest.mark.parametrize(
    ("location", "path"),
    [
        pytest.param(b"/a b  c.png", "/a%20b%20%20c.png", id="spaces"),
        pytest.param(b" /dog.png\t", "/dog.png", id="white space around"),
        pytest.param(b"\r\n /dog.png", "/dog.png", id="folded"),
        pytest.param(
            "/\u00fc/\u72ac.png?\u00e0".encode(), "/%C3%BC/%E7%8A%AC.png?%C3%A0", id="UTF-8"
        ),
        pytest.param(b"/\xfc.png", "/%FC.png", id="Latin-1"),
        pytest.param(b"/a%20b%2Fc?d=%26", "/a%20b%2Fc?d=%26", id="percent forms"),
        pytest.param(b'/a|b"c"{d}^`', "/a%7Cb%22c%22%7Bd%7D%5E%60", id="what URLs may not hold"),
        pytest.param(b"//two.example.com/x", "/x", id="another host"),
        pytest.param(b"../x", "/x", id="parent"),
        pytest.param(b"x", "/one/x", id="sibling"),
        pytest.param(b"?q=1", "/one/start?q=1", id="query"),
        pytest.param(b"/x#part", "/x", id="fragment"),
        pytest.param(f"HTTPS://{HOST.upper()}:443/x".encode(), "/x", id="upper case"),
        pytest.param("https://stra\u00dfe.example/x".encode(), "/x", id="a name in UTF-8"),
        pytest.param(f"https://{HOST}/x?t={'t' * 4000}".encode(), f"/x?t={'t' * 4000}", id="long"),
    ],
)
def test_a_redirect_is_read_as_browsers_do(
    fetcher: Fetcher, site: Site, location: bytes, path: str
) -> None:
    head = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nlocation:" + location
    site.pages["/one/start?first"] = raw(head + b"\r\n\r\n")
    site.pages[path] = page(PNG)
    assert fetcher.fetch(f"https://{HOST}/one/start?first", SECONDS).body == PNG


INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\nContent-Length: 5\r\n\r\n"


@pytest.mark.parametrize(
    "before",
    [
        INTERIM,
        INTERIM * 2,
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + INTERIM,
        INTERIM + b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 102 Processing\r\n\r\n",
    ],
)
def test_interim_answers_are_passed_over(fetcher: Fetcher, site: Site, before: bytes) -> None:
    image = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(PNG), PNG)
    site.pages["/image"] = raw(before + image)
    site.pages["/"] = raw(before + b"HTTP/1.1 302 Found\r\nLocation: /image\r\n\r\n")
    assert fetcher.fetch(f"https://{HOST}/", SECONDS).body == PNG


def test_interim_answers_do_not_go_on_for_ever(fetcher: Fetcher, site: Site) -> None:
    site.pages["/"] = raw(INTERIM * 1000)
    assert refusal(fetcher, f"https://{HOST}/").error == "unreachable_url"


@pytest.mark.parametrize(
    "location",
    [
        "https://127.0.0.1/",
        "https://[::ffff:169.254.169.254]/latest/meta-data/",
        "https://inner.example.com/",
        "https://localhost/",
        f"http://{HOST}/dog.png",
        f"https://{HOST}:8443/",
        "file:///etc/passwd",
        f"https://user@{HOST}/",
    ],
)
def test_a_redirect_is_checked_like_a_first_url(
    fetcher: Fetcher, site: Site, location: str
) -> None:
    site.pages["/"] = redirect(location)
    error = refusal(fetcher, f"https://{HOST}/")
    assert error.status == 403
    assert error.message.startswith("behind a redirect: ")
    assert site.dialled == [(ADDRESS, 443)]


@pytest.mark.parametrize("location", ["https://[::1", "https://host:port/", "https://a b/"])
def test_a_redirect_to_nonsense(fetcher: Fetcher, site: Site, location: str) -> None:
    site.pages["/"] = redirect(location)
    assert refusal(fetcher, f"https://{HOST}/").error == "bad_url"


def test_a_redirect_of_a_url_with_white_space_around(fetcher: Fetcher, site: Site) -> None:
    site.pages["/one/start"] = page(b"", status="302 Found", Location="x.png")
    site.pages["/one/x.png"] = page(PNG)
    assert fetcher.fetch(f"\ufeff https://{HOST}/one/start\n", SECONDS).body == PNG


def test_the_fourth_redirect_is_one_too_many(fetcher: Fetcher, site: Site) -> None:
    for hop in range(4):
        site.pages[f"/{hop}"] = redirect(f"/{hop + 1}")
    site.pages["/4"] = page(PNG)
    assert refusal(fetcher, f"https://{HOST}/0").error == "unreachable_url"
    assert len(site.requests) == 4


def test_a_loop_of_redirects_ends(fetcher: Fetcher, site: Site) -> None:
    site.pages["/"] = redirect("/")
    assert refusal(fetcher, f"https://{HOST}/").error == "unreachable_url"
    assert len(site.requests) == 4


def test_a_name_that_changes_its_address_after_the_check(fetcher: Fetcher, site: Site) -> None:
    answers = itertools.chain([[ADDRESS]], itertools.repeat(["127.0.0.1"]))
    rebound = replace(fetcher, resolve=lambda _host: next(answers))
    site.pages["/"] = redirect("/dog.png")
    assert refusal(rebound, f"https://{HOST}/").status == 403
    assert site.dialled == [(ADDRESS, 443)]


@pytest.mark.parametrize("host", ["wrong.example.com", "93.184.215.14"])
def test_a_certificate_for_another_name_ends_it(fetcher: Fetcher, site: Site, host: str) -> None:
    rebound = replace(fetcher, resolve=lambda _host: [ADDRESS])
    assert refusal(rebound, f"https://{host}/dog.png").error == "unreachable_url"
    assert site.requests == []


def test_a_certificate_of_an_unknown_authority_ends_it(fetcher: Fetcher, site: Site) -> None:
    strict = replace(fetcher, tls=ssl.create_default_context())
    assert refusal(strict, f"https://{HOST}/dog.png").error == "unreachable_url"
    assert site.requests == []


PADDED = PNG + bytes(MAX_BYTES)
TO_COME = str(len(PNG))


GZIPPED = gzip.compress(PNG, mtime=0)


def bare_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(body) + packer.flush()


@pytest.mark.parametrize(
    "encoding",
    [
        *("utf-8", "UTF-8", "aws-chunked", "none", "identity", "Identity", "binary", "", " , "),
        *("image/png", "identity, utf-8", "br, aws-chunked", "gzip", "br", "zstd"),
    ],
)
def test_an_image_is_one_whatever_encoding_it_is_said_to_have(
    fetcher: Fetcher, site: Site, encoding: str
) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding:{encoding}\r\nContent-Length: {TO_COME}\r\n\r\n"
    site.pages["/"] = raw(head.encode() + PNG)
    assert fetcher.fetch(f"https://{HOST}/", SECONDS).body == PNG


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", GZIPPED),
        ("GZIP", GZIPPED),
        ("x-gzip", GZIPPED + b"behind the end"),
        ("utf-8, gzip", GZIPPED),
        ("gzip", b"".join(gzip.compress(part, mtime=0) for part in (PNG[:9], b"", PNG[9:]))),
        ("deflate", zlib.compress(PNG)),
        ("deflate", bare_deflate(PNG)),
    ],
)
def test_an_image_that_is_compressed_all_the_same(
    fetcher: Fetcher, site: Site, encoding: str, body: bytes
) -> None:
    site.pages["/"] = page(body, Content_Encoding=encoding)
    assert fetcher.fetch(f"https://{HOST}/", SECONDS) == Image(PNG, "image/png")


@pytest.mark.parametrize(
    ("encoding", "body", "named"),
    [
        ("br", b"\x0b\x02\x80", "br"),
        ("zstd", b"\x28\xb5\x2f\xfd", "zstd"),
        ("gzip, gzip", gzip.compress(GZIPPED, mtime=0), "gzip, gzip"),
        ("gzip", GZIPPED[:-9], "gzip"),
        ("deflate", b"\x00 no compression", "deflate"),
        ("gzip", b"", "gzip"),
        ("gzip", GZIPPED + GZIPPED[:-9], "gzip"),
    ],
)
def test_what_does_not_unpack_is_refused_by_its_name(
    fetcher: Fetcher, site: Site, encoding: str, body: bytes, named: str
) -> None:
    site.pages["/"] = page(body, Content_Encoding=encoding)
    error = refusal(fetcher, f"https://{HOST}/")
    assert error.status == 415
    assert named in error.message
    assert "without Content-Encoding" in error.message


@pytest.mark.parametrize(
    "head",
    [
        "HTTP/1.0 200 OK",
        "HTTP/1.0 200",
        "HTTP/1.1 200 OK",
        f"HTTP/1.1 200 OK\r\ncontent-length:{TO_COME}",
        f"HTTP/1.1 200 OK\r\nContent-Length: {TO_COME}\r\nContent-Length: {TO_COME}",
        f"HTTP/1.1 200 OK\r\nContent-Length: {TO_COME}, {TO_COME}",
        "HTTP/1.1 200 OK\r\nX-Folded: one\r\n\ttwo",
        "HTTP/1.1 200 OK" + "\r\nContent-Security-Policy: " + "x" * 60_000,
        "HTTP/1.1 200 OK" + "\r\nSet-Cookie: a=1" * 90,
        *(
            f"HTTP/1.1 200 OK\r\nContent-Type: {name}"
            for name in ("", "image/jpg", "image/png; charset=utf-8", "binary/octet-stream")
        ),
        *(f"HTTP/1.1 200 OK\r\nContent-Type: {name}" for name in ("text/html", "no type", ";")),
    ],
)
def test_headers_that_servers_really_send(fetcher: Fetcher, site: Site, head: str) -> None:
    site.pages["/"] = raw(head.encode() + b"\r\n\r\n" + PNG)
    assert fetcher.fetch(f"https://{HOST}/", SECONDS) == Image(PNG, "image/png")


def test_chunks_count_more_than_a_size(fetcher: Fetcher, site: Site) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: Chunked\r\n\r\n"
    chunks = b"%x;name=value\r\n%s\r\n0\r\nTrailer: x\r\n\r\n" % (len(PNG), PNG)
    site.pages["/"] = raw(head + chunks)
    assert fetcher.fetch(f"https://{HOST}/", SECONDS).body == PNG


@pytest.mark.parametrize("size", [b"-1", b"-5"])
def test_a_chunk_of_a_negative_size_is_not_read_without_bound(
    fetcher: Fetcher, site: Site, size: bytes
) -> None:
    sent = 0

    def endless(connection: socket.socket) -> None:
        nonlocal sent
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + size)
        connection.sendall(b"\r\n" + PNG)
        while sent < 20 * MAX_BYTES:
            connection.sendall(bytes(65536))
            sent += 65536

    site.pages["/"] = endless
    assert refusal(fetcher, f"https://{HOST}/").error == "unreachable_url"
    assert sent < 10 * MAX_BYTES


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (page(b"", status="204 No Content", Content_Length=""), "status 204"),
        (page(b"", status="300 Choose", Location="/dog.png"), "status 300"),
        (page(b"", status="304 Not Modified", Content_Length=""), "status 304"),
        (page(b"", status="302 Found", Location=" "), "does not say where to"),
        (page(b"gone", status="410 Gone"), "status 410"),
        (page(b"<html>", Content_Type="text/html; charset=utf-8"), "a web page"),
        (page(b"", status="101 Switching Protocols"), "status 101"),
    ],
)
def test_a_refusal_says_what_came(fetcher: Fetcher, site: Site, answer: Answer, said: str) -> None:
    site.pages["/"] = answer
    assert said in refusal(fetcher, f"https://{HOST}/").message


@pytest.mark.parametrize("status", [403, 429])
def test_who_is_refused_learns_of_the_contact(fetcher: Fetcher, site: Site, status: int) -> None:
    site.pages["/"] = page(b"who are you?", status=f"{status} No")
    assert "KENNEL_CONTACT" in refusal(fetcher, f"https://{HOST}/").message
    assert f"User-Agent: kennel/{__version__}\r\n".encode() in site.requests[0]
    known = replace(fetcher, contact="https://example.org/bot")
    assert refusal(known, f"https://{HOST}/").message == f"the URL answers with status {status}"
    agent = f"User-Agent: kennel/{__version__} (+https://example.org/bot)\r\n"
    assert agent.encode() in site.requests[1]


@pytest.mark.parametrize(
    ("set_to", "contact"),
    [
        ("ops@example.org", "ops@example.org"),
        (" https://example.org/\u00fc ", "https://example.org/%C3%BC"),
        ("a\r\nX-Injected: b", "a%0D%0AX-Injected:%20b"),
        ("", ""),
    ],
)
def test_the_environment_names_the_contact(set_to: str, contact: str) -> None:
    assert Fetcher.from_environment({"KENNEL_CONTACT": set_to}).contact == contact


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        pytest.param(page(PADDED), 413, id="too large"),
        pytest.param(page(PNG, Content_Length=str(MAX_BYTES + 1)), 413, id="says too large"),
        pytest.param(page(PNG, Content_Length="1000"), 400, id="says more than it sends"),
        pytest.param(page(PADDED, Content_Length="-1"), 413, id="negative size"),
        pytest.param(page(PADDED, Content_Length="many"), 413, id="size in words"),
        pytest.param(page(PADDED, Content_Length=""), 413, id="no size"),
        pytest.param(
            page(b"7\r\n\x89PNG\r\n\x1a\r\n", Content_Length="", Transfer_Encoding="chunked"),
            400,
            id="half of its chunks",
        ),
        pytest.param(page(b""), 400, id="empty"),
        pytest.param(
            page(gzip.compress(PADDED), Content_Encoding="gzip"), 413, id="compressed bomb"
        ),
        pytest.param(page(gzip.compress(PADDED)), 415, id="compressed bomb in disguise"),
        pytest.param(
            page(b"<html>" + SECRET, Content_Type="image/png"), 415, id="HTML called an image"
        ),
        pytest.param(page(b"GIF89a" + SECRET), 415, id="another image type"),
        pytest.param(page(SECRET, status="404 Not Found"), 400, id="not found"),
        pytest.param(page(SECRET, status="500 Oops"), 400, id="server error"),
        pytest.param(page(PNG, status="206 Partial Content"), 400, id="a part"),
        pytest.param(page(PNG, status="302 Found"), 400, id="redirect to nowhere"),
        pytest.param(raw(b"SSH-2.0-OpenSSH_9.9\r\n" + SECRET), 400, id="not HTTP"),
        pytest.param(raw(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200), 400, id="many headers"),
        pytest.param(raw(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000), 400, id="a long header"),
        pytest.param(raw(b""), 400, id="nothing"),
    ],
)
def test_a_bad_answer_is_refused_without_an_echo(
    fetcher: Fetcher, site: Site, answer: Answer, status: int
) -> None:
    site.pages["/"] = answer
    error = refusal(fetcher, f"https://{HOST}/")
    assert error.status == status
    assert SECRET.decode() not in error.message
    assert ADDRESS not in error.message


def test_a_size_smaller_than_the_body_cuts_it(fetcher: Fetcher, site: Site) -> None:
    site.pages["/"] = page(PNG + SECRET, Content_Length=str(len(PNG)))
    assert fetcher.fetch(f"https://{HOST}/", SECONDS).body == PNG


def test_an_endless_body_is_cut_off(fetcher: Fetcher, site: Site) -> None:
    def endless(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + PNG)
        while True:
            connection.sendall(bytes(65536))

    site.pages["/"] = endless
    assert refusal(fetcher, f"https://{HOST}/").status == 413


def test_an_endless_chunked_body_is_cut_off(fetcher: Fetcher, site: Site) -> None:
    def endless(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            connection.sendall(b"10000\r\n" + bytes(65536) + b"\r\n")

    site.pages["/"] = endless
    assert refusal(fetcher, f"https://{HOST}/").status == 413


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        pytest.param(b"", b"X", id="header bytes"),
        pytest.param(b"", b"X: y\r\n", id="headers"),
        pytest.param(b"\r\n" + PNG, b"x", id="body"),
        pytest.param(b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", id="chunks"),
    ],
)
def test_dripping_bytes_do_not_stretch_the_deadline(
    fetcher: Fetcher, site: Site, head: bytes, piece: bytes
) -> None:
    site.pages["/"] = site.drip(head, piece)
    assert refusal(fetcher, f"https://{HOST}/", seconds=0.5).status == 504


def test_a_server_that_stalls_is_cut_off_by_the_read_time_out(fetcher: Fetcher, site: Site) -> None:
    def stall(connection: socket.socket) -> None:
        connection.recv(1)

    site.pages["/"] = stall
    impatient = replace(fetcher, read_seconds=0.2)
    assert refusal(impatient, f"https://{HOST}/").status == 504


def test_a_server_that_stalls_in_the_tls_handshake(fetcher: Fetcher) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        stalling = replace(
            fetcher,
            connect=lambda *_: socket.create_connection(silent.getsockname()),
        )
        assert refusal(stalling, f"https://{HOST}/", seconds=0.3).status == 504


def test_a_name_server_that_stalls_is_not_waited_for(fetcher: Fetcher) -> None:
    refused, finished = threading.Event(), threading.Event()

    def stall(_host: str) -> list[str]:
        refused.wait(SECONDS)
        finished.set()
        return [ADDRESS]

    assert refusal(replace(fetcher, resolve=stall), f"https://{HOST}/", seconds=0.2).status == 504
    assert not finished.is_set()
    refused.set()


def test_no_time_at_all(fetcher: Fetcher, site: Site) -> None:
    assert refusal(fetcher, f"https://{HOST}/dog.png", seconds=0.0).status == 504
    assert site.dialled == []


@given(
    st.sampled_from(
        [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked"]
    ),
    st.binary(max_size=300),
)
def test_any_bytes_are_an_image_or_refused(
    client_tls: ssl.SSLContext, head: bytes, tail: bytes
) -> None:
    def connect(*_: object) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            theirs.sendall(head + tail)
        return ours

    fetcher = Fetcher(allow_http=True, resolve=resolve, connect=connect, tls=client_tls)
    with refusals({400, 415}):
        assert fetcher.fetch(f"http://{HOST}/", SECONDS).body in tail
