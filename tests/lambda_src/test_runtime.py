"""The function's way to SageMaker: AWS's own library signs and addresses as it does."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import botocore.session
import pytest
import trustme

from lambda_src.deadline import Deadline
from lambda_src.images import Image
from lambda_src.runtime import Runtime, ServiceError
from tests.stub_server import StubAnswer, StubServer

IMAGE = Image(b"\x89PNG\r\n\x1a\n a picture", "image/png")
KEYS = {
    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_SECRET_ACCESS_KEY": "secret",
}
SECONDS = 20.0


def runtime_of(**environment: str) -> Runtime:
    return Runtime.from_environment({**KEYS, **environment}, ssl.create_default_context())


def runtime_at(url: str, **environment: str) -> Runtime:
    return runtime_of(AWS_ENDPOINT_URL=url, **environment)


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1", "us-gov-west-1", "cn-north-1"])
def test_the_address_is_the_sdks(region: str, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[tuple[str, int]] = []

    def connect(address: tuple[str, int], timeout: float) -> socket.socket:
        called.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(ConnectionRefusedError):
        runtime_of(AWS_DEFAULT_REGION=region).invoke("dogs", IMAGE, Deadline.after(SECONDS))
    sdk = botocore.session.get_session().create_client("sagemaker-runtime", region_name=region)
    assert [f"https://{host}" for host, _ in called] == [sdk.meta.endpoint_url]
    assert called[0][1] == 443


def test_a_request_is_signed_by_the_role_that_it_runs_under() -> None:
    with StubServer() as service:
        runtime = runtime_at(service.url, AWS_SESSION_TOKEN="a token")
        assert runtime.invoke("dogs", IMAGE, Deadline.after(SECONDS)) == b'{"predictions": []}'
    headers = service.requests[0].headers
    assert headers["X-Amz-Security-Token"] == "a token"
    assert headers["Authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")
    assert headers["Host"] == service.url.removeprefix("http://")


def test_an_error_has_the_services_name_for_it_and_its_words() -> None:
    kind = {"x-amzn-ErrorType": "com.amazon.coral#AccessDeniedException:http://example.com/"}
    answer = StubAnswer(403, b'{"Message": "not authorized to perform"}', kind)
    with StubServer([answer]) as service, pytest.raises(ServiceError) as error:
        runtime_at(service.url).invoke("dogs", IMAGE, Deadline.after(SECONDS))
    assert (error.value.status, error.value.kind) == (403, "AccessDeniedException")
    assert "not authorized to perform" in str(error.value)


class Service:
    """Answers on as many connections as are made; may close each after one answer, unannounced."""

    def __init__(self, closes: bool = False, tls: ssl.SSLContext | None = None) -> None:
        self.connections = 0
        self._closes = closes
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.url = f"https://localhost:{port}" if tls else f"http://localhost:{port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        # A thread that waits in accept() is not woken by close().
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connected, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=[connected], daemon=True).start()

    def _serve(self, connected: socket.socket) -> None:
        with suppress(OSError):
            if self._tls:
                connected = self._tls.wrap_socket(connected, server_side=True)
            with connected, connected.makefile("rb") as stream:
                while stream.readline():
                    size = 0
                    while (line := stream.readline().strip().lower()) != b"":
                        name, _, value = line.partition(b":")
                        size = int(value) if name == b"content-length" else size
                    stream.read(size)
                    connected.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                    if self._closes:
                        return


@pytest.mark.parametrize(("closes", "connections"), [(False, 1), (True, 3)])
def test_a_connection_is_kept_until_the_service_has_closed_it(
    closes: bool, connections: int
) -> None:
    service = Service(closes)
    runtime = runtime_at(service.url)
    for _ in range(3):
        assert runtime.invoke("dogs", IMAGE, Deadline.after(SECONDS)) == b"{}"
    service.stop()
    assert service.connections == connections


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def secured(authority: trustme.CA) -> Iterator[Service]:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(tls)
    service = Service(tls=tls)
    yield service
    service.stop()


def test_https_is_spoken_with_who_has_a_certificate(
    secured: Service, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        runtime_at(secured.url).invoke("dogs", IMAGE, Deadline.after(SECONDS))
    trusted = tmp_path / "authorities.pem"
    authority.cert_pem.write_to_path(str(trusted))
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    runtime = runtime_at(secured.url)
    for _ in range(2):
        assert runtime.invoke("dogs", IMAGE, Deadline.after(SECONDS)) == b"{}"
    assert secured.connections == 2
