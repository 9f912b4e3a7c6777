"""S3: bucket policies with their conditions, writes that only one of many wins, and no guesses."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from functools import wraps
from typing import Any
from unittest.mock import patch

from flask import has_request_context, request
from moto.core.responses import ActionResult
from moto.core.routing import get_service_router
from moto.iam.access_control import PermissionResult
from moto.s3.exceptions import CopyObjectMustChangeSomething, S3AccessDeniedError
from moto.s3.models import FakeBucket, FakeDeleteMarker, FakeKey, PublicAccessBlock, S3Backend
from moto.s3.responses import S3Response
from werkzeug.exceptions import HTTPException

from localaws.additions import Gap
from localaws.additions import _s3_checks as checks
from localaws.additions import _s3_notifications as notifications
from localaws.additions._moto import plain_client, refuses, wrap
from localaws.calls import CALL
from localaws.iam.policy import Outcome, Principal, Request, evaluate
from localaws.loopback import LOOPBACK

# moto takes these for what shares their path: DeleteBucketMetricsConfiguration for DeleteBucket.
MISTAKEN = frozenset(
    f"{verb}{thing}"
    for thing, verbs in {
        "BucketAbac": ("Get", "Put"),
        "BucketAnalyticsConfiguration": ("Delete", "Get", "Put"),
        "BucketAnalyticsConfigurations": ("List",),
        "BucketIntelligentTieringConfiguration": ("Delete", "Get", "Put"),
        "BucketIntelligentTieringConfigurations": ("List",),
        "BucketInventoryConfiguration": ("Delete",),
        "BucketMetadataConfiguration": ("Create", "Delete", "Get"),
        "BucketMetadataInventoryTableConfiguration": ("Update",),
        "BucketMetadataJournalTableConfiguration": ("Update",),
        "BucketMetadataTableConfiguration": ("Create", "Delete", "Get"),
        "BucketMetricsConfiguration": ("Delete", "Get", "Put"),
        "BucketMetricsConfigurations": ("List",),
        "BucketRequestPayment": ("Put",),
        "ObjectRetention": ("Get",),
        "ObjectTorrent": ("Get",),
        "Object": ("Rename",),
        "Session": ("Create",),
    }.items()
    for verb in verbs
)
# What S3's policies call the method by whose name moto asks for permission.
_ACTIONS = {"s3:HeadObject": "s3:GetObject", "s3:PostObject": "s3:PutObject"}
_CONDITION_HEADERS = {
    "s3:x-amz-acl": "x-amz-acl",
    "s3:x-amz-server-side-encryption": "x-amz-server-side-encryption",
    "s3:x-amz-server-side-encryption-aws-kms-key-id": "x-amz-server-side-encryption-aws-kms-key-id",
}
_conditional_writes = threading.RLock()
# What S3 encrypts with unless it is told otherwise, since January 2023.
_SSE_S3 = {"Rule": {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}}


_DENY_PLAIN_HTTP = {
    "Effect": "Deny",
    "Principal": "*",
    "Action": "s3:*",
    "Resource": ["arn:aws:s3:::probe", "arn:aws:s3:::probe/*"],
    "Condition": {"Bool": {"aws:SecureTransport": "false"}},
}
_ALLOW_LOGS = {
    "Effect": "Allow",
    "Principal": {"Service": "logging.s3.amazonaws.com"},
    "Action": "s3:PutObject",
    "Resource": "arn:aws:s3:::probe/*",
}


def _policy(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


def _counts_conditions() -> bool:
    with plain_client("s3") as s3:
        s3.create_bucket(Bucket="probe")
        s3.put_bucket_policy(Bucket="probe", Policy=_policy(_DENY_PLAIN_HTTP))
        return not refuses(lambda: s3.put_object(Bucket="probe", Key="key", Body=b""))


def _lets_one_win() -> bool:
    """Two conditional writes that both look before either writes: does only one succeed?"""
    met = threading.Barrier(2)
    look = S3Backend.get_object

    def look_together(*given: Any, **named: Any) -> Any:
        found = look(*given, **named)
        with suppress(threading.BrokenBarrierError):
            met.wait(0.5)
        return found

    with plain_client("s3") as s3, ThreadPoolExecutor(2) as threads:
        s3.create_bucket(Bucket="probe")
        s3.list_buckets()

        def write(_: int) -> bool:
            return refuses(
                lambda: s3.put_object(Bucket="probe", Key="lock", Body=b"", IfNoneMatch="*")
            )

        with patch.object(S3Backend, "get_object", look_together):
            return any(threads.map(write, range(2)))


def _deletes_no_bucket_by_mistake() -> bool:
    with plain_client("s3") as s3:
        s3.create_bucket(Bucket="probe")
        try:
            s3.delete_bucket_metrics_configuration(Bucket="probe", Id="probe")
        except Exception:  # whatever moto raises, it did not take it for another operation
            return True
        return not refuses(lambda: s3.head_bucket(Bucket="probe"))


def _logging(*statements: dict[str, Any]) -> dict[str, Any]:
    """Where a bucket logs to after it was told to log to one with this policy."""
    wanted = {
        "TargetBucket": "probe",
        "TargetPrefix": "log/",
        "TargetObjectKeyFormat": {"PartitionedPrefix": {"PartitionDateSource": "EventTime"}},
    }
    with plain_client("s3") as s3:
        s3.create_bucket(Bucket="probe")
        s3.put_bucket_policy(Bucket="probe", Policy=_policy(*statements))
        s3.put_bucket_logging(Bucket="probe", BucketLoggingStatus={"LoggingEnabled": wanted})
        found: dict[str, Any] = s3.get_bucket_logging(Bucket="probe")["LoggingEnabled"]
        return found


def _logs_to_a_bucket_that_denies_all() -> bool:
    try:
        return bool(_logging(_DENY_PLAIN_HTTP, _ALLOW_LOGS))
    except AttributeError:
        return False


def _keeps_key_format() -> bool:
    return "TargetObjectKeyFormat" in _logging(_ALLOW_LOGS)


def _tells_who_pays() -> bool:
    with plain_client("s3") as s3:
        s3.create_bucket(Bucket="probe")
        return "Payer" in s3.get_bucket_request_payment(Bucket="probe")


def _removes_delete_markers() -> bool:
    with plain_client("s3") as s3:
        s3.create_bucket(Bucket="probe")
        on, off = ({"Status": status} for status in ("Enabled", "Suspended"))
        s3.put_bucket_versioning(Bucket="probe", VersioningConfiguration=on)
        made = s3.put_object(Bucket="probe", Key="key")
        s3.delete_object(Bucket="probe", Key="key")
        s3.put_bucket_versioning(Bucket="probe", VersioningConfiguration=off)
        try:
            s3.delete_object(Bucket="probe", Key="key", VersionId=made["VersionId"])
        except AttributeError:
            return False
    return True


def _encrypts() -> bool:
    with plain_client("s3") as s3:
        s3.create_bucket(Bucket="probe")
        return not refuses(lambda: s3.get_bucket_encryption(Bucket="probe"))


def _tells_no_key_that_is_unused() -> bool:
    given = {"Bucket": "probe", "Key": "key", "ServerSideEncryption": "aws:kms"}
    with plain_client("s3") as s3:
        s3.create_bucket(Bucket="probe")
        return "BucketKeyEnabled" not in s3.put_object(**given, BucketKeyEnabled=False)


def _has_owners() -> bool:
    with plain_client("s3") as s3:
        s3.create_bucket(Bucket="probe")
        return not refuses(lambda: s3.get_bucket_ownership_controls(Bucket="probe"))


def _checks_names() -> bool:
    with plain_client("s3") as s3:
        return refuses(lambda: s3.create_bucket(Bucket="192.168.1.1"))


GAPS = [
    Gap(
        service="s3",
        operation="CreateBucket",
        effect="a new bucket takes ACLs and public policies, which AWS's have not since April 2023",
        closed=_has_owners,
    ),
    Gap(
        service="s3",
        operation="PutObject, UploadPart, PutBucketPolicy, PutBucketLifecycleConfiguration",
        effect="what AWS refuses is taken: names, digests, owners, limits, customers' keys",
        closed=_checks_names,
    ),
    Gap(
        service="s3",
        operation="PutBucketPolicy.Policy.Statement.Condition",
        effect="a bucket that denies plain HTTP denies everything",
        closed=_counts_conditions,
    ),
    Gap(
        service="s3",
        operation="PutObject.IfNoneMatch",
        effect="two Terraform runs can hold one state's lock",
        closed=_lets_one_win,
    ),
    Gap(
        service="s3",
        operation="DeleteBucketMetricsConfiguration and others that share a path",
        effect="are taken for another operation; this one deletes the bucket",
        closed=_deletes_no_bucket_by_mistake,
    ),
    Gap(
        service="s3",
        operation="PutBucketLogging",
        effect="an internal error where the target's policy has a statement for all principals",
        closed=_logs_to_a_bucket_that_denies_all,
    ),
    Gap(
        service="s3",
        operation="GetBucketLogging.TargetObjectKeyFormat",
        effect="a difference on each plan",
        closed=_keeps_key_format,
    ),
    Gap(
        service="s3",
        operation="GetBucketRequestPayment",
        effect="the bucket's objects are listed instead",
        closed=_tells_who_pays,
    ),
    Gap(
        service="s3",
        operation="DeleteObject.VersionId",
        effect="a bucket with a deleted object cannot be emptied once it keeps no versions",
        closed=_removes_delete_markers,
    ),
    Gap(
        service="s3",
        operation="GetBucketEncryption",
        effect="a bucket that was not told how to encrypt seems not to",
        closed=_encrypts,
    ),
    Gap(
        service="s3",
        operation="PutObject.BucketKeyEnabled",
        effect="tells of a bucket key that is not used",
        closed=_tells_no_key_that_is_unused,
    ),
    *notifications.GAPS,
]


def install() -> None:
    """Mend moto's S3."""
    notifications.install()
    setup_class = S3Response.setup_class
    key_response = S3Response._key_response
    bucket_response, bucket_response_get = (
        S3Response._bucket_response,
        S3Response._bucket_response_get,
    )
    bucket_logging = S3Response.get_bucket_logging
    create_bucket = S3Backend.create_bucket

    @wraps(setup_class)
    def setup_known(self: S3Response, given: Any, *more: Any) -> None:
        setup_class(self, given, *more)
        vars(self)["operation"] = ""
        known = given.environ.get(CALL)
        with suppress(HTTPException):
            name = known.operation if known else get_service_router("s3").match(given)[0].name
            if name in MISTAKEN:
                raise NotImplementedError(name)
            vars(self)["operation"] = name

    def bucket_response_checked(self: S3Response, given: Any, full_url: str) -> Any:
        checks.check(self, vars(self)["operation"])
        return bucket_response(self, given, full_url)

    def key_response_in_turn(self: S3Response, given: Any, full_url: str) -> Any:
        checks.check(self, vars(self)["operation"])
        conditional = "If-Match" in given.headers or "If-None-Match" in given.headers
        writes = given.method in {"DELETE", "POST", "PUT"}
        with _conditional_writes if conditional and writes else nullcontext():
            answer = key_response(self, given, full_url)
        denied = isinstance(answer, tuple) and answer[0] == 403 and not answer[2]
        return self.serialized(ActionResult(S3AccessDeniedError())) if denied else answer

    def bucket_response_get_payer(self: S3Response, name: str, query: dict[str, Any]) -> Any:
        if "requestPayment" in query:
            self.backend.get_bucket(name)
            return self.serialized(ActionResult({"Payer": "BucketOwner"}))
        return bucket_response_get(self, name, query)

    def get_bucket_logging(self: S3Response) -> Any:
        logging = self.backend.get_bucket_logging(self.bucket_name)
        if not logging.get("TargetObjectKeyFormat"):
            return bucket_logging(self)
        told = {name: logging[name] for name in ("TargetBucket", "TargetPrefix")}
        told["TargetObjectKeyFormat"] = {
            name: value or {} for name, value in logging["TargetObjectKeyFormat"].items()
        }
        return self.serialized(ActionResult({"LoggingEnabled": told}))

    def create_encrypted_bucket(self: S3Backend, *given: Any, **named: Any) -> FakeBucket:
        bucket = create_bucket(self, *given, **named)
        bucket.encryption = _SSE_S3
        bucket.public_access_block = PublicAccessBlock(True, True, True, True)
        owner: Any = "BucketOwnerEnforced"
        bucket.ownership_rule = owner
        return bucket

    def delete_bucket_encryption(self: S3Backend, bucket_name: str) -> None:
        bucket = self.get_bucket(bucket_name)
        bucket.encryption = _SSE_S3
        vars(bucket).pop("encryption_was_put", None)

    wrap(S3Backend, "put_bucket_encryption", _put_bucket_encryption)
    wrap(S3Backend, "copy_object", _copy_object)
    wrap(S3Backend, "put_object", _put_object)
    backend: Any = S3Backend
    backend.create_bucket = create_encrypted_bucket
    backend.delete_bucket_encryption = delete_bucket_encryption
    marker: Any = FakeDeleteMarker
    # It holds no file, as versions of objects do.
    marker.dispose = lambda self: None
    mended: Any = S3Response
    mended.setup_class = setup_known
    mended._bucket_response = bucket_response_checked
    mended._key_response = key_response_in_turn
    mended._bucket_response_get = bucket_response_get_payer
    mended.get_bucket_logging = get_bucket_logging
    bucket: Any = FakeBucket
    bucket.get_permission = _permission
    bucket._log_permissions_enabled_policy = _may_log


def _put_bucket_encryption(
    original: Any, backend: S3Backend, bucket_name: str, *given: Any, **named: Any
) -> None:
    original(backend, bucket_name, *given, **named)
    vars(backend.get_bucket(bucket_name)).update(encryption_was_put=True)


def _put_object(original: Any, backend: S3Backend, *given: Any, **named: Any) -> FakeKey:
    """Tell of a bucket key only where there is one."""
    made: FakeKey = original(backend, *given, **named)
    if str(made.bucket_key_enabled).lower() != "true":
        made.bucket_key_enabled = None
    return made


def _copy_object(
    original: Any, backend: S3Backend, source: FakeKey, bucket_name: str, name: str, **given: Any
) -> None:
    """Refuse a copy in place that changes nothing, as moto does in a bucket without encryption."""
    bucket = backend.get_bucket(bucket_name)
    in_place = (source.bucket_name, source.name) == (bucket_name, name)
    encrypted = source.encryption not in (None, "AES256") or "encryption_was_put" in vars(bucket)
    changes = ("storage", "encryption", "website_redirect_location")
    changed = given.get("mdirective") == "REPLACE" or any(given.get(each) for each in changes)
    restores = bucket.is_versioned and given.get("provided_version_id")
    if in_place and not (encrypted or changed or restores):
        raise CopyObjectMustChangeSomething
    original(backend, source, bucket_name, name, **given)


def _permission(bucket: FakeBucket, action: str, resource: str) -> PermissionResult:
    if bucket.policy is None:
        return PermissionResult.NEUTRAL
    asked = Request(
        action=_ACTIONS.get(action, action),
        resource=resource,
        context=_context(bucket.account_id),
        principal=Principal(f"arn:{bucket.partition}:iam::{bucket.account_id}:root"),
    )
    outcome = evaluate([], asked, resource_policies=[json.loads(bucket.policy)]).outcome
    return {
        Outcome.ALLOWED: PermissionResult.PERMITTED,
        Outcome.EXPLICIT_DENY: PermissionResult.DENIED,
        Outcome.IMPLICIT_DENY: PermissionResult.NEUTRAL,
    }[outcome]


def _may_log(source: FakeBucket, target_bucket: FakeBucket, target_prefix: str | None) -> bool:
    if target_bucket.policy is None:
        return False
    context = {
        **_context(target_bucket.account_id),
        "aws:SourceAccount": source.account_id,
        "aws:SourceArn": f"arn:{source.partition}:s3:::{source.name}",
    }
    target = f"arn:{target_bucket.partition}:s3:::{target_bucket.name}/{target_prefix or ''}"
    asked = Request(
        action="s3:PutObject",
        resource=f"{target}log",
        context=context,
        principal=Principal("logging.s3.amazonaws.com", "Service"),
    )
    return evaluate([], asked, resource_policies=[json.loads(target_bucket.policy)]).allowed


def _context(account: str) -> dict[str, str]:
    # The loopback interface stands in for AWS's TLS, which nobody could listen in on either.
    context = {
        "aws:PrincipalAccount": account,
        "aws:SecureTransport": "true",
        "aws:SourceIp": LOOPBACK,
        "s3:TlsVersion": "1.3",
    }
    headers: Any = request.headers if has_request_context() else {}
    given = {key: headers.get(header) for key, header in _CONDITION_HEADERS.items()}
    return context | {key: value for key, value in given.items() if value}
