"""The body of a request: read when it is wanted, outside of memory, and only if it may be as large.

Limits are AWS's where a service documents one for the whole request, else localaws' own, since moto
takes bodies into memory. A body for a bucket that is not there is not read at all.
"""

import re
import tempfile
from collections.abc import Callable, Mapping
from typing import IO, Any

from moto.s3.models import s3_backends
from werkzeug.wrappers import Response

from localaws.blobs import MAX_OBJECT_BYTES
from localaws.calls import Call, refusal
from localaws.execution import ACCOUNT
from localaws.turnstile import waiting

CONTINUE = "localaws.continue"
"""Where a request's environ has what tells its sender to go on, if that waits to be told."""

_S3_MAX_BYTES = 5 << 30
_MAX_BYTES = 32 << 20
_MEMORY_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 20

# Lambda: a zip of 50 MB in base64; invocations have a limit of their own in each of their types.
_LIMITS: Mapping[str, int] = {
    "lambda:CreateFunction": 69_905_067,
    "lambda:PublishLayerVersion": 69_905_067,
    "lambda:UpdateFunctionCode": 69_905_067,
}
# There the bucket is in the host's name, not in the path.
_VIRTUAL_HOST = re.compile(r".+\.localhost(:\d+)?$")
_INCOMPLETE = "You did not provide the number of bytes specified by the Content-Length HTTP header"
_TOO_LARGE = "Your proposed upload exceeds the maximum allowed size"


class RefusedError(Exception):
    """A body is not taken; `answer` says why."""

    def __init__(self, answer: Response) -> None:
        """Refuse it with an answer."""
        super().__init__(answer.status)
        self.answer = answer


class Incoming:
    """A request's body as `wsgi.input`: it is received as a whole when its first byte is read."""

    def __init__(self, environ: Mapping[str, Any], identify: Callable[[], Call]) -> None:
        """Take over from the environ's own `wsgi.input`.

        Args:
            environ: The request.
            identify: Says what is asked for, as far as the request's head tells.
        """
        self._identify = identify
        self._source: IO[bytes] = environ["wsgi.input"]
        self._go_on: Callable[[], None] = environ.get(CONTINUE, lambda: None)
        self._ends_itself = bool(environ.get("wsgi.input_terminated"))
        self._names_bucket = not _VIRTUAL_HOST.match(environ.get("HTTP_HOST", ""))
        self._received: IO[bytes] | None = None
        self.length = int(environ.get("CONTENT_LENGTH") or 0)

    def received(self) -> IO[bytes]:
        """The whole body, from its start.

        Raises:
            RefusedError: It is not taken, or not all of it came.
        """
        if self._received is None:
            self._refuse_if_larger(self.length)
            self._received = self._receive()
        self._received.seek(0)
        return self._received

    def read(self, size: int = -1) -> bytes:
        """The next bytes; see `received`."""
        return (self._received or self.received()).read(size)

    def readline(self, size: int = -1) -> bytes:
        """The next line; see `received`."""
        return (self._received or self.received()).readline(size)

    def _receive(self) -> IO[bytes]:
        file = tempfile.SpooledTemporaryFile(_MEMORY_BYTES)  # noqa: SIM115 (it is handed on)
        # Its sender may take its time.
        with waiting():
            if self.length or self._ends_itself:
                self._go_on()
            size = 0
            while self._ends_itself or size < self.length:
                left = _CHUNK_BYTES if self._ends_itself else self.length - size
                try:
                    chunk = self._source.read(min(_CHUNK_BYTES, left))
                except OSError:  # a chunk's header is none
                    raise self._incomplete() from None
                if not chunk:
                    break
                size += len(chunk)
                if self._ends_itself:
                    self._refuse_if_larger(size)
                self._write(file, chunk)
        if size < self.length:
            raise self._incomplete()
        self.length = size
        return file

    def _incomplete(self) -> RefusedError:
        return RefusedError(refusal(self._identify(), 400, "IncompleteBody", _INCOMPLETE))

    def _write(self, file: IO[bytes], chunk: bytes) -> None:
        try:
            file.write(chunk)
        except OSError as error:
            told = f"localaws has no room for the body: {error.strerror}; free some, then repeat"
            raise RefusedError(refusal(self._identify(), 500, "InternalError", told)) from error

    def _refuse_if_larger(self, size: int) -> None:
        if size <= _MEMORY_BYTES:
            return
        call = self._identify()
        if refused := _s3_refusal(call, size, self._names_bucket) or _refusal(call, size):
            raise RefusedError(refused)


def _refusal(call: Call, size: int) -> Response | None:
    limit = _LIMITS.get(str(call), _MAX_BYTES)
    if call.service == "s3" or size <= limit:
        return None
    message = f"Request must be smaller than {limit} bytes for the {call.operation} operation"
    return refusal(call, 413, "RequestEntityTooLargeException", message)


def _s3_refusal(call: Call, size: int, names_bucket: bool) -> Response | None:
    if call.service != "s3":
        return None
    buckets = s3_backends.bucket_accounts, s3_backends[ACCOUNT]["aws"].table_buckets
    bucket = call.resource.get("Bucket", "")
    if names_bucket and bucket and not any(bucket in found for found in buckets):
        return refusal(call, 404, "NoSuchBucket", "The specified bucket does not exist")
    if size > _S3_MAX_BYTES:
        return refusal(call, 400, "EntityTooLarge", _TOO_LARGE)
    if size > MAX_OBJECT_BYTES:
        return refusal(
            call,
            501,
            "NotImplemented",
            f"localaws takes objects, and parts of them, of at most {MAX_OBJECT_BYTES} bytes; "
            "S3 would take this one",
        )
    return None
