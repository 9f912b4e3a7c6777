"""Form posts to S3: whoever knows a key signs a policy, by which others may upload.

Source: "Browser-Based Uploads Using POST" of S3's API reference.
"""

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from werkzeug.exceptions import HTTPException

from localaws.calls import Call
from localaws.iam.signature import (
    AuthenticationError,
    Signature,
    check_text,
    signature_of_form,
)

_NOT_IN_POLICIES = {"awsaccesskeyid", "file", "policy", "signature", "x-amz-signature"}
_SIGNED_BY = {"awsaccesskeyid", "x-amz-credential"}


@dataclass(frozen=True)
class Post:
    """A form that uploads an object.

    Attributes:
        call: What it asks for.
        fields: Its fields by their names in lower case, but for the file.
        size: Of the file, in bytes.
    """

    call: Call
    fields: Mapping[str, str]
    size: int

    @property
    def signature(self) -> Signature:
        """Who signed its policy; nothing of it is known to be true."""
        return signature_of_form(self.fields)

    def check(self, signature: Signature, secret: str) -> None:
        """Check that who knows the secret lets this be uploaded.

        Raises:
            AuthenticationError: They do not.
        """
        policy = self.fields.get("policy", "")
        check_text(policy, signature, secret)
        expires, conditions = _read_policy(policy)
        if datetime.now(UTC) > expires:
            raise _denied("Policy expired.")
        known = {**self.fields, "bucket": str(self.call.resource["Bucket"])}
        named = set()
        for condition in conditions:
            kind, name, value = _read_condition(condition)
            named.add(name)
            if kind == "content-length-range":
                if not int(name) <= self.size <= int(value):
                    raise AuthenticationError(
                        "size", f"The file has {self.size} bytes; allowed are {name} to {value}"
                    )
            elif name not in known or not (
                known[name].startswith(value) if kind == "starts-with" else known[name] == value
            ):
                raise _denied(f"Policy Condition failed: {json.dumps(condition)}")
        extra = sorted(
            name
            for name in self.fields.keys() - named - _NOT_IN_POLICIES
            if not name.startswith("x-ignore-")
        )
        if extra:
            raise _denied(f"Extra input fields: {', '.join(extra)}")


def find(call: Call, request: Any) -> Post | None:
    """Read the form of a request that is not signed otherwise; None if it is none.

    Args:
        call: What the request asks for.
        request: It, with its whole body.

    Raises:
        AuthenticationError: It cannot be understood.
    """
    try:
        form, files = request.form, request.files
        given = list(form.items(multi=True))
        uploads = list(files.items(multi=True))
    except (HTTPException, ValueError):
        raise AuthenticationError("form", "The form cannot be read") from None
    fields = {name.lower(): value for name, value in given}
    if not fields.keys() & _SIGNED_BY:
        return None
    if uploads and "file" not in fields and [name for name, _ in uploads] == ["file"]:
        size = len(uploads[0][1].read())
    elif not uploads and "file" in fields:
        size = len(fields["file"].encode())
    else:
        raise AuthenticationError("form", "POST requires exactly one file upload per request")
    if len(fields) < len(given) or "key" not in form:
        raise AuthenticationError("form", "Each field must be given once, and key must be")
    key = form["key"]
    if uploads:
        key = key.replace("${filename}", (uploads[0][1].filename or "").rpartition("/")[2])
    signer = signature_of_form(fields)
    posted = replace(
        call,
        operation="PutObject",
        access_key=signer.access_key,
        region=signer.region,
        resource={**call.resource, "Key": key},
    )
    return Post(posted, fields, size)


def _read_policy(policy: str) -> tuple[datetime, list[Any]]:
    try:
        told = json.loads(base64.b64decode(policy))
        expires = datetime.fromisoformat(told["expiration"])
        if not isinstance(told["conditions"], list) or not expires.tzinfo:
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise AuthenticationError(
            "policy", "Invalid Policy: it must be JSON with expiration and conditions, in base64"
        ) from None
    return expires, told["conditions"]


def _read_condition(condition: Any) -> tuple[str, str, str]:
    """Give the kind, the field's name or the least size, and the value or the largest size."""
    match condition:
        case {**fields} if len(fields) == 1 and isinstance(
            value := next(iter(fields.values())), str
        ):
            return "eq", str(next(iter(fields))).lower(), value
        case [str(kind), str(name), str(value)] if name.startswith("$"):
            if kind.lower() in ("eq", "starts-with"):
                return kind.lower(), name[1:].lower(), value
        case ["content-length-range", int(least) | str(least), int(most) | str(most)]:
            if re.fullmatch(r"\d{1,18}", str(least)) and re.fullmatch(r"\d{1,18}", str(most)):
                return "content-length-range", str(least), str(most)
    raise AuthenticationError(
        "policy", f"Invalid Policy: Invalid condition {json.dumps(condition)}"
    )


def _denied(why: str) -> AuthenticationError:
    return AuthenticationError("denied", f"Invalid according to Policy: {why}")
