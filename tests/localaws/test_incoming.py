"""Bodies are received only where somebody wants them, and as large as AWS and this machine bear."""

import http.client
import socket
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest
from botocore.exceptions import ClientError
from moto.s3.models import FakeMultipart
from moto.s3.utils import CaseInsensitiveDict

from localaws import blobs
from localaws.calls import Call
from localaws.incoming import Incoming, RefusedError
from tests.localaws.conftest import SECONDS, LocalAws
from tests.localaws.raw import signed


def head_only(aws: LocalAws, service: str, method: str, target: str, **headers: Any) -> Any:
    """The answer to a request of which nothing but the head is sent; its status and its text."""
    url = f"{aws.endpoint}{target}"
    given = {name.replace("_", "-"): str(value) for name, value in headers.items()}
    unsigned = {"x-amz-content-sha256": "UNSIGNED-PAYLOAD", **given}
    length = unsigned.pop("Content-Length")
    sent = signed(service, method, url, headers=unsigned) | {"Content-Length": length}
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items())]
    with socket.create_connection(("127.0.0.1", int(aws.port)), SECONDS) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer.status, answer.read().decode()


@pytest.mark.parametrize("target", ["/nowhere/key", "/nowhere/key?partNumber=1&uploadId=u"])
def test_a_body_for_no_bucket_is_not_awaited(aws: LocalAws, target: str) -> None:
    status, text = head_only(aws, "s3", "PUT", target, Content_Length=600_000_000)
    assert status == 404
    assert "<Code>NoSuchBucket</Code>" in text


def test_who_waits_to_be_told_is_not_told_to_go_on(aws: LocalAws) -> None:
    status, _ = head_only(
        aws, "s3", "PUT", "/nowhere/key", Content_Length=600_000_000, Expect="100-continue"
    )
    assert status == 404


@pytest.fixture
def bucket(aws: LocalAws) -> Iterator[str]:
    aws.client("s3").create_bucket(Bucket="incoming")
    yield "incoming"
    aws.client("s3").delete_bucket(Bucket="incoming")


@pytest.mark.parametrize(
    ("length", "status", "code", "told"),
    [
        (6 << 30, 400, "EntityTooLarge", "exceeds the maximum allowed size"),
        (blobs.MAX_OBJECT_BYTES + 1, 501, "NotImplemented", str(blobs.MAX_OBJECT_BYTES)),
    ],
)
def test_objects_have_a_limit(
    aws: LocalAws, bucket: str, length: int, status: int, code: str, told: str
) -> None:
    for target in (f"/{bucket}/key", f"/{bucket}/key?partNumber=1&uploadId=u"):
        found, text = head_only(aws, "s3", "PUT", target, Content_Length=length)
        assert found == status
        assert f"<Code>{code}</Code>" in text
        assert told in text


@pytest.mark.parametrize(
    ("service", "target", "operation", "length"),
    [
        ("lambda", "/2015-03-31/functions", "CreateFunction", 69_905_068),
        ("sagemaker", "/", "CreateModel", 40_000_000),
        ("monitoring", "/", "PutMetricData", 40_000_000),
    ],
)
def test_calls_have_a_limit(
    aws: LocalAws, service: str, target: str, operation: str, length: int
) -> None:
    headers = {"Content_Type": "application/json", "Content_Length": length}
    if target == "/":
        headers["X-Amz-Target"] = f"Any.{operation}"
    status, text = head_only(aws, service, "POST", target, **headers)
    assert status == 413
    assert "RequestEntityTooLargeException" in text
    assert operation in text


def test_an_upload_in_parts_has_the_limit_too(monkeypatch: pytest.MonkeyPatch) -> None:
    blobs.install()
    monkeypatch.setattr(blobs, "MAX_OBJECT_BYTES", 100)
    upload = FakeMultipart("key", CaseInsensitiveDict(), "1", "us-east-1")
    upload.set_part(1, b"x" * 60)
    with pytest.raises(blobs.TooLargeError, match="at most 100 bytes"):
        upload.set_part(2, b"x" * 60)
    upload.set_part(1, b"x" * 100)


class _Sender:
    """Sends what it has, and says when it was asked for it."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def read(self, size: int) -> bytes:
        told, self.content = self.content[:size], self.content[size:]
        return told


def _incoming(content: bytes, **environ: Any) -> Incoming:
    environ["wsgi.input"] = _Sender(content)
    return Incoming(environ, lambda: Call("ssm", "PutParameter", "json", "test", "us-east-1"))


def test_a_body_that_ends_early_is_refused() -> None:
    with pytest.raises(RefusedError) as raised:
        _incoming(b"half", CONTENT_LENGTH="8").read()
    assert b"IncompleteBody" in raised.value.answer.get_data()


def test_a_body_without_a_length_has_the_limit_too() -> None:
    with pytest.raises(RefusedError) as raised, patch("localaws.incoming._MAX_BYTES", 2 << 20):
        _incoming(b"x" * (3 << 20), **{"wsgi.input_terminated": True}).read()
    assert raised.value.answer.status_code == 413


def test_a_body_comes_whole_and_again() -> None:
    body = _incoming(b"line\nrest", CONTENT_LENGTH="9")
    assert body.readline() == b"line\n"
    assert body.read() == b"rest"
    assert body.received().read() == b"line\nrest"


@pytest.mark.parametrize("header", ["zz", "-4", ""])
def test_a_chunk_that_is_none_is_refused(aws: LocalAws, bucket: str, header: str) -> None:
    target = f"/{bucket}/chunked"
    headers = signed(
        "s3", "PUT", f"{aws.endpoint}{target}", headers={"x-amz-content-sha256": "UNSIGNED-PAYLOAD"}
    )
    lines = [f"PUT {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    lines += ["Transfer-Encoding: chunked", "", header, "body", "0", "", ""]
    with socket.create_connection(("127.0.0.1", int(aws.port)), SECONDS) as connection:
        connection.sendall("\r\n".join(lines).encode("latin-1"))
        with connection.makefile("rb") as answer:
            assert answer.readline().split()[1] == b"400"
    with pytest.raises(ClientError, match="404"):
        aws.client("s3").head_object(Bucket=bucket, Key="chunked")


def test_a_lost_connection_has_no_effect(aws: LocalAws, bucket: str) -> None:
    target = f"/{bucket}/half"
    headers = signed(
        "s3", "PUT", f"{aws.endpoint}{target}", headers={"x-amz-content-sha256": "UNSIGNED-PAYLOAD"}
    )
    lines = [f"PUT {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    head = "\r\n".join([*lines, "Content-Length: 100", "", ""]).encode("latin-1")
    with socket.create_connection(("127.0.0.1", int(aws.port)), SECONDS) as connection:
        connection.sendall(head + b"half of it")
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as answer:
            assert b"IncompleteBody" in answer.read()
    with pytest.raises(ClientError, match="404"):
        aws.client("s3").head_object(Bucket=bucket, Key="half")
