"""The signatures of requests, checked as AWS does: version 4, and version 2 of S3's presigned URLs.

botocore, which makes signatures, says what one has to be.
"""

import calendar
import hashlib
import hmac
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email.message import Message
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qs, urlsplit

from botocore.auth import EMPTY_SHA256_HASH, UNSIGNED_PAYLOAD, HmacV1QueryAuth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.compat import HTTPHeaders
from botocore.credentials import Credentials

MAX_SKEW_SECONDS = 15 * 60
MAX_EXPIRES_SECONDS = 7 * 24 * 3600

_HEADER = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<credential>[^,\s]+), *SignedHeaders=(?P<names>[^,\s]+),"
    r" *Signature=(?P<signature>[0-9a-f]{64})"
)
_CREDENTIAL = re.compile(
    r"(?P<key>[^/\s]+)/(?P<day>\d{8})/(?P<region>[^/\s]+)/(?P<service>[^/\s]+)/aws4_request"
)
_PARAMETERS = ("Credential", "Date", "Expires", "SignedHeaders", "Signature")
_UNSIGNED_BODIES = (UNSIGNED_PAYLOAD, "STREAMING-UNSIGNED-PAYLOAD-TRAILER")
_SIGNED_CHUNKS = (
    "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
    "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
)
_MISMATCH = (
    "The request signature we calculated does not match the signature you provided. "
    "Check your key and signing method."
)

Query = Mapping[str, Sequence[str]]


class AuthenticationError(Exception):
    """A request of which it is not known that its caller made it, as it is and now.

    Attributes:
        kind: "unsigned", "unsupported", "malformed", "unknown" (key), "expired" (session),
            "mismatch", "skewed" (clock), "denied" (a presigned URL or form), "form", "policy" or
            "size" (of a form), "content" or "incomplete".
    """

    def __init__(self, kind: str, message: str) -> None:
        """Say what is wrong with it."""
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Sent:
    """A request as it came.

    Attributes:
        method: Its method.
        target: What its first line names, as it was encoded.
        headers: Its headers.
        body: Reads its body, once or again.
    """

    method: str
    target: str
    headers: Message
    body: Callable[[], bytes]

    @property
    def url(self) -> str:
        """The same as a URL."""
        return f"http://{self.headers['Host']}{self.target}"


@dataclass(frozen=True)
class Signature:
    """What a request says of who signed it; nothing of it is known to be true.

    Attributes:
        value: The signature.
        access_key: Id of the key.
        token: The session's token; empty if there is none.
        region: From the credential scope.
        service: From the credential scope.
        timestamp: When it was signed, such as 20260101T000000Z; empty in version 2.
        names: The headers that are signed; empty in version 2.
        expires: Until when a presigned URL is good, in seconds since 1970; None for other requests.
    """

    value: str
    access_key: str
    token: str
    region: str = "us-east-1"
    service: str = "s3"
    timestamp: str = ""
    names: tuple[str, ...] = ()
    expires: int | None = None

    @property
    def header(self) -> str:
        """Enough of an `Authorization` header to tell key, region and service."""
        scope = f"{self.access_key}/{self.timestamp[:8]}/{self.region}/{self.service}/aws4_request"
        return f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=, Signature="


def find(sent: Sent) -> Signature | None:
    """Find a request's signature; None if it is not signed.

    Raises:
        AuthenticationError: It cannot be understood, or is of a kind that AWS does not take.
    """
    headers = sent.headers.get_all("Authorization", [])
    query = parse_qs(sent.target.partition("?")[2], keep_blank_values=True)
    presigned = [name for name in ("X-Amz-Algorithm", "AWSAccessKeyId") if name in query]
    if len(headers) + len(presigned) > 1:
        raise AuthenticationError("malformed", "Only one auth mechanism allowed")
    if headers:
        return _of_header(headers[0], sent.headers)
    if presigned == ["X-Amz-Algorithm"]:
        return _of_query(query)
    return _of_version_2(query) if presigned else None


def _of_header(header: str, headers: Message) -> Signature:
    found = _HEADER.fullmatch(header)
    if not found:
        algorithm = header.partition(" ")[0]
        if algorithm == "AWS4-HMAC-SHA256":
            raise AuthenticationError("malformed", "The authorization header is malformed")
        raise _unsupported(algorithm)
    return _version_4(
        found,
        token=headers.get("X-Amz-Security-Token", ""),
        timestamp=headers.get("X-Amz-Date", ""),
    )


def _of_query(query: Query) -> Signature:
    told = {name: _only(query, f"X-Amz-{name}") for name in _PARAMETERS}
    if (algorithm := _only(query, "X-Amz-Algorithm")) != "AWS4-HMAC-SHA256":
        raise _unsupported(algorithm)
    if not (_is_number(told["Expires"]) and 1 <= int(told["Expires"]) <= MAX_EXPIRES_SECONDS):
        raise AuthenticationError(
            "malformed", f"X-Amz-Expires must be between 1 and {MAX_EXPIRES_SECONDS} seconds"
        )
    given = {
        "credential": told["Credential"],
        "names": told["SignedHeaders"],
        "signature": told["Signature"],
    }
    token = query.get("X-Amz-Security-Token", [""])[0]
    return _version_4(given, token, told["Date"], int(told["Expires"]))


def _version_4(
    given: Any, token: str, timestamp: str, expires_seconds: int | None = None
) -> Signature:
    credential = _CREDENTIAL.fullmatch(given["credential"])
    if not credential or credential["day"] != timestamp[:8]:
        raise AuthenticationError(
            "malformed", "The credential must be KEY/DAY/REGION/SERVICE/aws4_request, of X-Amz-Date"
        )
    expires = None if expires_seconds is None else int(_moment(timestamp)) + expires_seconds
    if expires is not None and credential["service"] != "s3":
        raise AuthenticationError("unsupported", "localaws takes presigned URLs of S3 only")
    return Signature(
        value=given["signature"],
        access_key=credential["key"],
        token=token,
        region=credential["region"],
        service=credential["service"],
        timestamp=timestamp,
        names=tuple(given["names"].split(";")),
        expires=expires,
    )


def signature_of_form(fields: Mapping[str, str]) -> Signature:
    """Find the signature of a form's policy.

    Args:
        fields: The form's, by their names in lower case.

    Raises:
        AuthenticationError: It cannot be understood.
    """
    if "x-amz-credential" not in fields:
        return Signature(
            value=fields.get("signature", ""),
            access_key=fields["awsaccesskeyid"],
            token=fields.get("x-amz-security-token", ""),
        )
    if (algorithm := fields.get("x-amz-algorithm", "")) != "AWS4-HMAC-SHA256":
        raise _unsupported(algorithm)
    given = {
        "credential": fields["x-amz-credential"],
        "names": "",
        "signature": fields.get("x-amz-signature", ""),
    }
    token, moment = fields.get("x-amz-security-token", ""), fields.get("x-amz-date", "")
    return _version_4(given, token, moment)


def check_text(text: str, signature: Signature, secret: str) -> None:
    """Check that who knows a secret key signed a text, such as a policy.

    Raises:
        AuthenticationError: They did not.
    """
    credentials = Credentials(signature.access_key, secret)
    if signature.timestamp:
        expected = _Version4(credentials, signature, "").signed(text)
    else:
        expected = str(HmacV1QueryAuth(credentials).sign_string(text))
    _compare(signature, expected)


def _of_version_2(query: Query) -> Signature:
    expires = _only(query, "Expires")
    if not _is_number(expires):
        raise AuthenticationError(
            "denied", f"Invalid date (should be seconds since 1970): {expires}"
        )
    return Signature(
        value=_only(query, "Signature"),
        access_key=_only(query, "AWSAccessKeyId"),
        token=query.get("x-amz-security-token", [""])[0],
        expires=int(expires),
    )


def _is_number(text: str) -> bool:
    return bool(re.fullmatch(r"[0-9]{1,18}", text))


def _only(query: Query, name: str) -> str:
    values = query.get(name, [])
    if len(values) != 1:
        raise AuthenticationError("malformed", f"A presigned URL must have one parameter {name}")
    return values[0]


def _unsupported(algorithm: str) -> AuthenticationError:
    return AuthenticationError(
        "unsupported",
        f"The authorization mechanism you have provided ({algorithm[:40]}) is not supported. "
        "Please use AWS4-HMAC-SHA256.",
    )


@lru_cache(64)  # Those of a second have one.
def _moment(timestamp: str) -> float:
    try:
        return calendar.timegm(time.strptime(timestamp, "%Y%m%dT%H%M%SZ"))
    except ValueError:
        raise AuthenticationError(
            "malformed", f"X-Amz-Date must be such as 20260101T000000Z, not {timestamp!r}"
        ) from None


def check(sent: Sent, signature: Signature, secret: str) -> None:
    """Check that who knows a secret key signed a request, as it is and of late.

    Args:
        sent: The request.
        signature: What `find` found in it.
        secret: The access key's secret.

    Raises:
        AuthenticationError: They did not.
    """
    _check_time(signature)
    credentials = Credentials(signature.access_key, secret)
    if not signature.timestamp:
        _compare(signature, _Version2(credentials, signature.expires).made(sent))
        return
    unsigned = {name.lower() for name in sent.headers if name.lower().startswith("x-amz-")} - set(
        signature.names
    )
    if "host" not in signature.names or unsigned:
        missing = ", ".join(sorted(unsigned)) or "host"
        raise AuthenticationError("mismatch", f"There are headers that are not signed: {missing}")
    declared: str = sent.headers.get("X-Amz-Content-SHA256", "")
    signer = _Version4(credentials, signature, declared or _payload(sent, signature))
    _compare(signature, signer.made(sent))
    if declared in _SIGNED_CHUNKS:
        signer.check_chunks(sent.body())
    elif declared and not (declared in _UNSIGNED_BODIES and signature.service == "s3"):
        _check_body(declared, sent.body())


def _check_body(declared: str, body: bytes) -> None:
    if declared.lower() != hashlib.sha256(body).hexdigest():
        raise AuthenticationError(
            "content", "The provided 'x-amz-content-sha256' header does not match what was computed"
        )


def _check_time(signature: Signature) -> None:
    now = time.time()
    if signature.expires is not None and now > signature.expires:
        raise AuthenticationError("denied", "Request has expired")
    if signature.timestamp:
        late = now - _moment(signature.timestamp)
        if late < -MAX_SKEW_SECONDS or (signature.expires is None and late > MAX_SKEW_SECONDS):
            raise AuthenticationError(
                "skewed",
                "The difference between the request time and the current time is too large: "
                f"signed at {signature.timestamp}, {abs(late):.0f} s "
                f"{'ago' if late > 0 else 'from now'}, at most {MAX_SKEW_SECONDS} s",
            )


def _payload(sent: Sent, signature: Signature) -> str:
    """What stands for the body in a signature of version 4 where no header says it."""
    if signature.service != "s3":
        return hashlib.sha256(sent.body()).hexdigest()
    if signature.expires is None:
        raise AuthenticationError(
            "unsupported", "Missing required header for this request: x-amz-content-sha256"
        )
    return str(UNSIGNED_PAYLOAD)


def _compare(signature: Signature, expected: str) -> None:
    if not hmac.compare_digest(signature.value.encode(), expected.encode()):
        raise AuthenticationError("mismatch", _MISMATCH)


class _Version4(SigV4Auth):  # type: ignore[misc]
    """Makes the signature of a request again."""

    def __init__(self, credentials: Credentials, signature: Signature, payload: str) -> None:
        super().__init__(credentials, signature.service, signature.region)
        self._signature = signature
        self._payload = payload
        self._request = AWSRequest()
        self._request.context["timestamp"] = signature.timestamp

    def made(self, sent: Sent) -> str:
        request = self._request
        request.method, request.url = sent.method, _without_signature(sent.url)
        for name in self._signature.names:
            for value in sent.headers.get_all(name, []):
                # They came as bytes, which were taken for Latin-1.
                request.headers[name] = value.encode("latin-1").decode("utf-8", "replace")
        text = self.string_to_sign(request, self.canonical_request(request))
        return str(self.signature(text, request))

    def signed(self, text: str) -> str:
        """Give the signature of a text."""
        return str(self.signature(text, self._request))

    def check_chunks(self, body: bytes) -> None:
        """Check the signature of each chunk; the trailer after them tells nothing that is used.

        Source: "Signature calculations for the Authorization header: Transferring payload in
        multiple chunks" of S3's API reference.
        """
        view, position, size = memoryview(body), 0, -1
        previous = self._signature.value
        kind = "AWS4-HMAC-SHA256-PAYLOAD", self._signature.timestamp
        try:
            while size:
                end = body.index(b"\r\n", position)
                length, _, signed = body[position:end].partition(b";chunk-signature=")
                size = int(length, 16)
                data = hashlib.sha256(view[end + 2 : end + 2 + size]).hexdigest()
                scope = self.credential_scope(self._request)
                text = "\n".join((*kind, scope, previous, EMPTY_SHA256_HASH, data))
                previous = self.signature(text, self._request)
                if not hmac.compare_digest(signed, previous.encode()):
                    raise AuthenticationError("mismatch", _MISMATCH)
                position = end + 2 + size + 2
        except ValueError:
            raise AuthenticationError("content", "The body is not in signed chunks") from None

    def headers_to_sign(self, request: AWSRequest) -> HTTPHeaders:
        return request.headers

    def payload(self, request: AWSRequest) -> str:
        return self._payload

    def _normalize_url_path(self, path: str) -> str:
        return path if self._service_name == "s3" else str(super()._normalize_url_path(path))


class _Version2(HmacV1QueryAuth):  # type: ignore[misc]
    """Makes the signature of a presigned URL again."""

    def made(self, sent: Sent) -> str:
        split = urlsplit(sent.url)
        query = parse_qs(split.query, keep_blank_values=True)
        headers = HTTPHeaders()
        for name in {*map(str.lower, sent.headers), *query}:
            if name.startswith("x-amz-"):
                headers[name] = ",".join(sent.headers.get_all(name) or query.get(name, []))
        # botocore writes them into the URL too, where S3 does not look.
        for name in ("content-md5", "content-type"):
            if values := sent.headers.get_all(name):
                headers[name] = ",".join(values)
        bucket = re.sub(r"\.?localhost$", "", split.hostname or "")
        in_host = bucket != split.hostname and bucket
        path = f"/{bucket}{split.path}" if in_host else None
        return str(self.get_signature(sent.method, split, headers, auth_path=path))

    def _get_date(self) -> str:
        return str(self._expires)


def _without_signature(url: str) -> str:
    start, _, query = url.partition("?")
    kept = [part for part in query.split("&") if not part.startswith("X-Amz-Signature=")]
    return f"{start}?{'&'.join(kept)}"
