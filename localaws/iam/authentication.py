"""Who makes a call: nobody is answered whose signature is not that of a key of the account."""

import io
from email.message import Message
from typing import Any

from werkzeug.wrappers import Request, Response

from localaws import regions
from localaws.calls import Call, refusal
from localaws.iam.authorization import Caller, caller_of, has_old_codes
from localaws.iam.post_policy import Post
from localaws.iam.post_policy import find as find_post
from localaws.iam.signature import AuthenticationError, Sent, check, find

HEADERS = "localaws.headers"
"""Where the request's headers are in its environ, as they came."""

# How credentials are got. IAM asks the role's trust policy about whoever calls it.
_UNSIGNED = "sts:AssumeRoleWithWebIdentity"

# Kind of error: the code and status of S3, of EC2, of services that answer in XML, and of those
# that answer in JSON, whose status is 400, or 403 where they speak REST.
_AUTH_FAILURE = "AuthFailure", 401
_MISMATCH = (
    ("SignatureDoesNotMatch", 403),
    _AUTH_FAILURE,
    ("SignatureDoesNotMatch", 403),
    "InvalidSignatureException",
)
_INCOMPLETE = _AUTH_FAILURE, ("IncompleteSignature", 400), "IncompleteSignatureException"
_CODES: dict[str, tuple[tuple[str, int], tuple[str, int], tuple[str, int], str]] = {
    "unsigned": (
        ("AccessDenied", 403),
        _AUTH_FAILURE,
        ("MissingAuthenticationToken", 403),
        "MissingAuthenticationTokenException",
    ),
    "unknown": (
        ("InvalidAccessKeyId", 403),
        _AUTH_FAILURE,
        ("InvalidClientTokenId", 403),
        "UnrecognizedClientException",
    ),
    "expired": (
        ("ExpiredToken", 400),
        ("RequestExpired", 400),
        ("ExpiredToken", 403),
        "ExpiredTokenException",
    ),
    "skewed": (("RequestTimeTooSkewed", 403), ("RequestExpired", 400), *_MISMATCH[2:]),
    "denied": (("AccessDenied", 403), *_MISMATCH[1:]),
    "mismatch": _MISMATCH,
    "content": (("XAmzContentSHA256Mismatch", 400), *_MISMATCH[1:]),
    "form": (("InvalidArgument", 400), *_MISMATCH[1:]),
    "policy": (("InvalidPolicyDocument", 400), *_MISMATCH[1:]),
    "size": (("EntityTooLarge", 400), *_MISMATCH[1:]),
    "incomplete": (("IncompleteBody", 400), *_INCOMPLETE),
    "malformed": (("AuthorizationHeaderMalformed", 400), *_INCOMPLETE),
    "unsupported": (("InvalidRequest", 400), *_INCOMPLETE),
}
_S3_TEXTS = {
    "unknown": "The AWS Access Key Id you provided does not exist in our records.",
    "expired": "The provided token has expired.",
}
_EC2_TEXT = "AWS was not able to validate the provided access credentials"


def posted(call: Call, environ: dict[str, Any]) -> Post | None:
    """Read a form that uploads an object to S3 by a policy; None if the request is no such form.

    Raises:
        AuthenticationError: It cannot be understood.
    """
    content: str = environ.get("CONTENT_TYPE", "")
    if str(call) != "s3:PostObject" or not content.startswith("multipart/form-data"):
        return None
    if call.access_key or "HTTP_AUTHORIZATION" in environ:
        return None
    return find_post(call, Request({**environ, "wsgi.input": io.BytesIO(_body(environ))}))


def authenticate(call: Call, environ: dict[str, Any], post: Post | None = None) -> Caller:
    """Tell who makes a call, whose request may have to be read for that.

    Args:
        call: What is asked for.
        post: The form that is posted, if one is.
        environ: The request. Its body is there again for who comes next, and if it was signed in
            its URL, it is made to name its key and service in a header, by which moto finds them.

    Raises:
        AuthenticationError: It is not known that who seems to call does.
    """
    headers: Message = environ[HEADERS]
    sent = Sent(environ["REQUEST_METHOD"], environ["RAW_URI"], headers, lambda: _body(environ))
    signature = post.signature if post else find(sent)
    if not signature:
        if str(call) != _UNSIGNED:
            raise AuthenticationError("unsigned", "Access Denied: the request is not signed")
        _name(environ, "AWS4-HMAC-SHA256 Credential=//us-east-1/sts/aws4_request, ")
        return Caller()
    if signature.access_key != call.access_key:
        raise AuthenticationError("malformed", "The request names two access keys")
    caller = caller_of(signature.access_key, signature.token)
    if post:
        post.check(signature, caller.secret)
    else:
        check(sent, signature, caller.secret)
    _name(environ, signature.header)
    return caller


def region_of(call: Call) -> str:
    """Tell the region that a signed call is for.

    Raises:
        AuthenticationError: AWS has no such region, or not this service in it.
    """
    # Old signatures name none.
    region = call.region or regions.DEFAULT
    if regions.exists(region, call.service):
        return region
    if call.service == "s3":
        raise AuthenticationError(
            "malformed",
            f"The authorization header is malformed; the region '{region}' is wrong; expecting "
            f"'{regions.DEFAULT}'",
        )
    raise AuthenticationError(
        "mismatch", f"Credential should be scoped to a valid region, not '{region}'."
    )


def _name(environ: dict[str, Any], header: str) -> None:
    environ.setdefault("HTTP_AUTHORIZATION", header)


def _body(environ: dict[str, Any]) -> bytes:
    """The whole body of a request, which moto holds in memory too."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    if environ.get("wsgi.input_terminated"):
        body: bytes = environ["wsgi.input"].read()
    else:
        body = environ["wsgi.input"].read(length)
        if len(body) < length:
            raise AuthenticationError("incomplete", "The body ended before its Content-Length")
    environ["wsgi.input"] = io.BytesIO(body)
    environ["wsgi.input_terminated"] = True
    environ["CONTENT_LENGTH"] = str(len(body))
    return body


def refuse(call: Call, error: AuthenticationError) -> Response:
    """Answer for the service in its own words."""
    s3, ec2, xml, json_code = _CODES[error.kind]
    if call.service == "s3" and call.protocol == "rest-xml":
        return refusal(call, s3[1], s3[0], _S3_TEXTS.get(error.kind, str(error)))
    if call.protocol == "ec2":
        return refusal(call, ec2[1], ec2[0], _EC2_TEXT)
    if has_old_codes(call):
        return refusal(call, xml[1], xml[0], str(error))
    return refusal(call, 403 if call.protocol == "rest-json" else 400, json_code, str(error))
