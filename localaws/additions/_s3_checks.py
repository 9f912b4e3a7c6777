"""What S3 asks of buckets, objects and their settings before it takes them.

Source: "Bucket naming rules", "Controlling ownership of objects", "Blocking public access",
"Default SSE-C setting for new buckets", "Managing the lifecycle of objects" and "Multipart upload
limits" of S3's user guide, and "Error responses" of its API reference.
"""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from xml.etree import ElementTree

from moto.core.utils import get_service_model
from moto.iam.models import iam_backends
from moto.s3.exceptions import (
    InvalidArgumentError,
    InvalidBucketName,
    InvalidLocationConstraintException,
    InvalidPartOrder,
    MalformedXML,
    MissingBucket,
    NoSuchUpload,
    S3AccessDeniedError,
    S3ClientError,
)
from moto.s3.models import FakeBucket
from moto.s3.responses import S3Response
from moto.s3.utils import compute_checksum

from localaws.additions._moto import ACCOUNT
from localaws.additions.iam import unknown_principal
from localaws.iam.policy import PolicyError, parse

_NAME = re.compile(r"(?!.*\.\.)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_ADDRESS = re.compile(r"\d{1,3}(\.\d{1,3}){3}")
_TAKEN_STARTS = ("xn--", "sthree-", "amzn-s3-demo-")
_TAKEN_ENDS = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")
_MOST_KEY_BYTES = 1024
_MOST_METADATA_BYTES = 2048
_MOST_POLICY_BYTES = 20 * 1024
_MOST_DELETED = 1000
_MOST_PARTS = 10_000
_MOST_RULES = 1000
_OWNER_CONTROLS = "bucket-owner-full-control"
_METADATA = "x-amz-meta-"
_CUSTOMERS_KEY = "x-amz-server-side-encryption-customer-algorithm"
_CHECKSUMS = ("CRC32", "SHA1", "SHA256")
_WRITES = {"CopyObject", "CreateMultipartUpload", "PutObject"}
# What limits whom a policy lets in; see "The meaning of public".
_LIMITS = re.compile(
    r"aws:(PrincipalOrg(ID|Paths)|Source(Account|Arn|Ip|Owner|Vpc|Vpce)|PrincipalArn|userid)"
    r"|s3:(DataAccessPointA(ccount|rn)|x-amz-server-side-encryption-aws-kms-key-id)",
    re.IGNORECASE,
)
# Actions on objects; all others are on the bucket.
_OF_OBJECTS = re.compile(
    r"s3:(AbortMultipartUpload|BypassGovernanceRetention|ListMultipartUploadParts|RestoreObject"
    r"|ObjectOwnerOverrideToBucketOwner|(Get|Put|Delete|Replicate|Update|Initiate)\w*Object\w*"
    r"|Replicate(Delete|Tags))"
)
_OF_BUCKETS = re.compile(r"s3:(Get|Put)BucketObjectLockConfiguration")


class DigestError(S3ClientError):
    """The content is not that of which the digest was sent."""

    code = "BadDigest"


def check(response: S3Response, operation: str) -> None:
    """Refuse a request as S3 does.

    Args:
        response: The request.
        operation: Its operation, as botocore names it.
    """
    headers = response.headers
    for name in ("x-amz-expected-bucket-owner", "x-amz-source-expected-bucket-owner"):
        if headers.get(name, ACCOUNT) != ACCOUNT:
            raise S3AccessDeniedError
    if operation in _OF_OPERATIONS:
        _OF_OPERATIONS[operation](response)
    if operation in _WRITES:
        _check_written(response)
    if operation in {"PutObject", "UploadPart"}:
        _check_digest(response)


def _bucket(response: S3Response) -> FakeBucket | None:
    """The request's bucket; None where moto will say that there is none."""
    try:
        return response.backend.get_bucket(response.bucket_name)
    except MissingBucket:
        return None


def _check_new(response: S3Response) -> None:
    name, headers = response.bucket_name, response.headers
    taken = name.startswith(_TAKEN_STARTS) or name.endswith(_TAKEN_ENDS)
    if taken or not _NAME.fullmatch(name) or _ADDRESS.fullmatch(name):
        raise InvalidBucketName
    place = _text(_root(response), "LocationConstraint") if response.body else ""
    known = get_service_model("s3").shape_for("BucketLocationConstraint").enum
    # Of other regions' endpoints moto has the words, which are about the endpoint.
    if place and place not in known and response.region == "us-east-1":
        raise InvalidLocationConstraintException
    acl = headers.get("x-amz-acl", "private")
    if acl == "private":
        return
    if acl.startswith(("public", "authenticated")):
        raise S3ClientError(
            "InvalidBucketAclWithBlockPublicAccessError",
            "Bucket cannot have public ACLs set with BlockPublicAccess enabled",
        )
    if headers.get("x-amz-object-ownership", "BucketOwnerEnforced") == "BucketOwnerEnforced":
        raise S3ClientError(
            "InvalidBucketAclWithObjectOwnership",
            "Bucket cannot have ACLs set with ObjectOwnership's BucketOwnerEnforced setting",
        )


def _check_acl(response: S3Response) -> None:
    bucket = _bucket(response)
    asked = response.headers.get("x-amz-acl", "grants")
    # moto says that it is a mapping, and keeps the text.
    rule: Any = bucket.ownership_rule if bucket else None
    if rule == "BucketOwnerEnforced" and asked != _OWNER_CONTROLS:
        raise S3ClientError("AccessControlListNotSupported", "The bucket does not allow ACLs")


def _check_written(response: S3Response) -> None:
    headers, bucket = response.headers, _bucket(response)
    names = [name.lower() for name in headers.keys()]  # noqa: SIM118 (werkzeug's gives pairs)
    if any(name == "x-amz-acl" or name.startswith("x-amz-grant-") for name in names):
        _check_acl(response)
    if bucket and _CUSTOMERS_KEY in names and not _takes_customers_keys(bucket):
        raise S3AccessDeniedError
    if len(response.parse_key_name().encode()) > _MOST_KEY_BYTES:
        raise S3ClientError("KeyTooLongError", "Your key is too long")
    size = sum(
        len(name) - len(_METADATA) + len(headers[name].encode())
        for name in names
        if name.startswith(_METADATA)
    )
    if size > _MOST_METADATA_BYTES:
        raise S3ClientError(
            "MetadataTooLarge", "Your metadata headers exceed the maximum allowed metadata size"
        )


def _takes_customers_keys(bucket: FakeBucket) -> bool:
    """Whether somebody has said so: new buckets do not, since April 2026."""
    blocked = ((bucket.encryption or {}).get("Rule") or {}).get("BlockedEncryptionTypes") or {}
    return "NONE" in json.dumps(blocked)


def _check_digest(response: S3Response) -> None:
    body, headers = response.body or b"", response.headers
    if not isinstance(body, bytes):
        return
    if told := headers.get("Content-MD5"):
        try:
            digest = base64.b64decode(told, validate=True)
        except (binascii.Error, ValueError):
            digest = b""
        if len(digest) != hashlib.md5(usedforsecurity=False).digest_size:
            raise S3ClientError("InvalidDigest", "The Content-MD5 you specified was invalid.")
        if digest != hashlib.md5(body, usedforsecurity=False).digest():
            raise DigestError("The Content-MD5 you specified did not match what we received.")
    for algorithm in _CHECKSUMS:
        told = headers.get(f"x-amz-checksum-{algorithm.lower()}")
        if told and told.encode() != compute_checksum(body, algorithm):
            raise DigestError(
                f"The {algorithm} you specified did not match the calculated checksum."
            )


def _check_deletions(response: S3Response) -> None:
    count = len(re.findall(rb"<(?:\w+:)?Object>", response.body or b""))
    if not 0 < count <= _MOST_DELETED:
        raise MalformedXML


def _check_upload(response: S3Response) -> None:
    bucket, upload = _bucket(response), response.querystring["uploadId"][0]
    number = response.querystring.get("partNumber", ["1"])[0]
    if not number.isdecimal() or not 1 <= int(number) <= _MOST_PARTS:
        why = f"Part number must be an integer between 1 and {_MOST_PARTS}, inclusive"
        raise InvalidArgumentError(why, "partNumber", number)
    if bucket is None:
        return
    found = bucket.multiparts.get(upload)
    if found is None or found.key_name != response.parse_key_name():
        raise NoSuchUpload(upload_id=upload)


def _check_completion(response: S3Response) -> None:
    bucket, upload = _bucket(response), response.querystring["uploadId"][0]
    made: Any = bucket.keys.get(response.parse_key_name()) if bucket else None
    if getattr(getattr(made, "multipart", None), "id", None) == upload:
        # What was completed may be so again: the answer may have been lost.
        return
    _check_upload(response)
    numbers = [int(n) for n in re.findall(rb"<PartNumber>\s*(\d+)\s*<", response.body or b"")]
    if numbers != sorted(set(numbers)):
        raise InvalidPartOrder


def _check_listing(response: S3Response) -> None:
    if response.querystring.get("max-keys", ["0"])[0].startswith("-"):
        raise S3ClientError(
            "InvalidArgument", "Argument maxKeys must be an integer between 0 and 2147483647"
        )


# --- Policies


def _malformed(why: str) -> S3ClientError:
    return S3ClientError("MalformedPolicy", why)


def _check_policy(response: S3Response) -> None:
    text = response.body.decode()
    if len(text) > _MOST_POLICY_BYTES:
        raise S3ClientError("PolicyTooLarge", "Policy exceeds the maximum allowed document size.")
    bucket = _bucket(response)
    if bucket is None:
        return
    try:
        statements = parse(text, names_principal=True).statements
    except PolicyError as error:
        raise _malformed(f"Policy has invalid syntax: {error}") from error
    if unknown_principal(iam_backends[ACCOUNT]["aws"], text):
        raise _malformed("Invalid principal in policy")
    for statement in statements:
        _check_statement(bucket, statement.body)
    blocks = bucket.public_access_block
    if blocks and blocks.block_public_policy and any(_is_public(each.body) for each in statements):
        raise S3ClientError(
            "AccessDenied",
            "User is not authorized to perform: s3:PutBucketPolicy on resource: "
            f'"{bucket.arn}" because public policies are prevented by the BlockPublicPolicy '
            "setting in S3 Block Public Access.",
        )


def _check_statement(bucket: FakeBucket, statement: Mapping[str, Any]) -> None:
    resources = _listed(statement.get("Resource", statement.get("NotResource")))
    if not resources:
        raise _malformed("Missing required field Resource")
    for resource in resources:
        if resource != bucket.arn and not str(resource).startswith(f"{bucket.arn}/"):
            raise _malformed("Policy has invalid resource")
    for action in _listed(statement.get("Action")):
        if action != "*" and not re.fullmatch(r"s3:[\w*?]+", str(action), re.IGNORECASE):
            raise _malformed("Policy has invalid action")
        if "*" in action or "?" in action:
            continue
        of_object = bool(_OF_OBJECTS.fullmatch(action)) and not _OF_BUCKETS.fullmatch(action)
        if all((resource != bucket.arn) != of_object for resource in resources):
            raise _malformed("Action does not apply to any resource(s) in statement")


def _is_public(statement: Mapping[str, Any]) -> bool:
    """Whether a statement lets everybody in; a condition on who or from where limits it."""
    principal = statement.get("Principal")
    names = principal.values() if isinstance(principal, Mapping) else [principal]
    everybody = any("*" in _listed(name) for name in names)
    conditions = statement.get("Condition", {}).values()
    limited = any(_LIMITS.fullmatch(key) for keys in conditions for key in keys)
    return statement["Effect"] == "Allow" and everybody and not limited


def _listed(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


# --- Lifecycle and encryption


def _check_lifecycle(response: S3Response) -> None:
    rules = list(_children(_root(response), "Rule"))
    if len(rules) > _MOST_RULES:
        raise MalformedXML
    ids = [rule_id for rule in rules if (rule_id := _text(rule, "ID"))]
    if len(ids) > len(set(ids)):
        raise _invalid("Rule ID must be unique. Found same ID for more than one rule")
    for rule in rules:
        _check_rule(rule)


def _check_rule(rule: ElementTree.Element) -> None:
    if len(_text(rule, "ID")) > 255:
        raise _invalid("ID length should not exceed allowed limit of 255")
    actions = {
        "AbortIncompleteMultipartUpload": "DaysAfterInitiation",
        "Expiration": "Days",
        "NoncurrentVersionExpiration": "NoncurrentDays",
        "NoncurrentVersionTransition": "NoncurrentDays",
        "Transition": "Days",
    }
    found = [action for name in actions for action in _children(rule, name)]
    if not found:
        raise S3ClientError("InvalidRequest", "At least one action needs to be specified in a rule")
    has_tags = any(each.tag.endswith("}Tag") or each.tag == "Tag" for each in rule.iter())
    for action in found:
        name = action.tag.rpartition("}")[2]
        days = _text(action, actions[name])
        # A transition may be due at once.
        least = 0 if name == "Transition" else 1
        if days and int(days) < least:
            raise _invalid(f"'{actions[name]}' for {name} action must be a positive integer")
        if days and int(days) < 30 and _text(action, "StorageClass").endswith("_IA"):
            raise _invalid(
                f"'{actions[name]}' in {name} action must be greater than or equal to 30 for "
                f"storageClass '{_text(action, 'StorageClass')}'"
            )
        if has_tags and name == "AbortIncompleteMultipartUpload":
            raise S3ClientError("InvalidRequest", f"{name} cannot be specified with Tags.")


def _invalid(why: str) -> S3ClientError:
    return S3ClientError("InvalidArgument", why)


def _root(response: S3Response) -> ElementTree.Element:
    # bodies.py has seen that it can be read.
    return ElementTree.fromstring(response.body)  # noqa: S314


def _children(element: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    return (child for child in element if child.tag.rpartition("}")[2] == name)


def _text(element: ElementTree.Element, name: str) -> str:
    return next((child.text or "" for child in _children(element, name)), "")


def _check_encryption(response: S3Response) -> None:
    for rule in _children(_root(response), "Rule"):
        for default in _children(rule, "ApplyServerSideEncryptionByDefault"):
            if _text(default, "SSEAlgorithm") == "AES256" and _text(default, "KMSMasterKeyID"):
                raise _invalid(
                    "a KMSMasterKeyID is not applicable if the default sse algorithm is not "
                    "aws:kms or aws:kms:dsse"
                )


_OF_OPERATIONS: Mapping[str, Callable[[S3Response], None]] = {
    "AbortMultipartUpload": _check_upload,
    "CompleteMultipartUpload": _check_completion,
    "CreateBucket": _check_new,
    "DeleteObjects": _check_deletions,
    "ListObjects": _check_listing,
    "ListObjectsV2": _check_listing,
    "ListObjectVersions": _check_listing,
    "ListParts": _check_upload,
    "PutBucketAcl": _check_acl,
    "PutBucketEncryption": _check_encryption,
    "PutBucketLifecycleConfiguration": _check_lifecycle,
    "PutBucketPolicy": _check_policy,
    "PutObjectAcl": _check_acl,
    "UploadPart": _check_upload,
}
