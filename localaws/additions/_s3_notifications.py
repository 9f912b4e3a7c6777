"""S3's notifications: where they may go, what they say, and that they arrive.

Source: "Amazon S3 Event Notifications" in its user guide, with the message's structure and what
each destination's policy has to allow.
"""

import json
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote_plus
from uuid import uuid4

from flask import has_request_context, request
from moto.s3 import models, notifications
from moto.s3.exceptions import S3ClientError
from moto.s3.models import FakeBucket, FakeKey, S3Backend
from moto.s3.notifications import S3NotificationEvent
from moto.s3.responses import S3Response

from localaws import deliveries, regions, rules
from localaws.additions import Gap
from localaws.additions._moto import ACCOUNT, REGION, plain_client, refuses, wrap
from localaws.deliveries import DeliveryError, Sender, kind_of
from localaws.loopback import LOOPBACK
from localaws.operations import RefusedError

Json = dict[str, Any]

_HAPPEN = ("ObjectAcl", "ObjectCreated", "ObjectRemoved", "ObjectTagging")
_ACTIONS = {"lambda": "lambda:InvokeFunction", "sns": "sns:Publish", "sqs": "sqs:SendMessage"}
_END = "</NotificationConfiguration>"
_SKIP = "X-Amz-Skip-Destination-Validation"
_REASONS = {
    "Put": "PutObject",
    "Post": "POST Object",
    "Copy": "CopyObject",
    "CompleteMultipartUpload": "CompleteMultipartUpload",
}
_KINDS = {
    "ObjectCreated": "Object Created",
    "ObjectRemoved": "Object Deleted",
    "ObjectAcl": "Object ACL Updated",
    "ObjectTagging:Put": "Object Tags Added",
    "ObjectTagging:Delete": "Object Tags Deleted",
}


def _destinations(configuration: Any) -> Iterator[Any]:
    """The notifications of a bucket, of all kinds."""
    yield from configuration.cloud_function
    yield from configuration.queue
    yield from configuration.topic


def _set_configuration(original: Any, bucket: FakeBucket, given: Json | None) -> None:
    """Keep a configuration whose destinations exist and let the bucket in."""
    former = bucket.notification_configuration
    try:
        # moto makes the records of it, and would tell the destinations at once.
        original(bucket, given)
        if bucket.notification_configuration:
            _check(bucket, bucket.notification_configuration)
    except (RefusedError, S3ClientError):
        bucket.notification_configuration = former
        raise
    if bucket.notification_configuration:
        _send_test(bucket)


def _tell_configuration(original: Any, response: S3Response) -> Any:
    """Tell of EventBridge, too, which moto keeps and tells of, but not to whoever asks."""
    status, headers, body = original(response)
    configuration: Any = response.backend.get_bucket_notification_configuration(
        response.bucket_name
    )
    if configuration and configuration.event_bridge is not None:
        opened = body if _END in body else body.replace("/>", f">{_END}")
        body = opened.replace(_END, f"<EventBridgeConfiguration/>{_END}")
    return status, headers, body


def _check(bucket: FakeBucket, configuration: Any) -> None:
    found = list(_destinations(configuration))
    for notification in found:
        for event in notification.events:
            if event.split(":")[1] not in _HAPPEN:
                raise RefusedError(f"{event} never happens here")
    if has_request_context() and request.headers.get(_SKIP, "").lower() == "true":
        return
    for notification in found:
        kind = kind_of(notification.arn)
        try:
            if not kind or notification.arn.endswith(".fifo"):
                raise DeliveryError("InvalidArgument", "no destination")
            deliveries.require_allowed(_sender(bucket), _ACTIONS[kind], notification.arn)
        except DeliveryError as error:
            print(f"{bucket.name}: {error}", file=sys.stderr, flush=True)
            raise S3ClientError(
                "InvalidArgument", "Unable to validate the following destination configurations"
            ) from None


def _sender(bucket: FakeBucket) -> Sender:
    return Sender.service("s3.amazonaws.com", bucket.arn)


def _send_test(bucket: FakeBucket) -> None:
    test = {
        "Service": "Amazon S3",
        "Event": "s3:TestEvent",
        "Time": _now(),
        "Bucket": bucket.name,
        "RequestId": uuid4().hex[:16].upper(),
        "HostId": uuid4().hex,
    }
    configuration: Any = bucket.notification_configuration
    for arn in sorted({each.arn for each in [*configuration.queue, *configuration.topic]}):
        _deliver(bucket, arn, test)


def _send_event(account: str, event: S3NotificationEvent, bucket: FakeBucket, key: Any) -> None:
    """Tell the destinations of a bucket what became of an object."""
    configuration = bucket.notification_configuration
    part = {"ObjectAcl": "acl", "ObjectTagging": "tagging"}.get(event.value.split(":")[1])
    # What moto says of the parts of a new object, too: S3 tells of calls that change just them.
    is_part = part and has_request_context() and part not in request.args
    if not configuration or is_part:
        return
    name = event.value.removeprefix("s3:")
    told = _object(bucket, key, name)
    for notification in _destinations(configuration):
        if notification.matches(event.value, key.name):
            _deliver(bucket, notification.arn, _records(bucket, name, notification.id, told))
    if configuration.event_bridge is not None:
        rules.emit(_bridged(bucket, name, told, key.name))


def _deliver(bucket: FakeBucket, arn: str, message: Json) -> None:
    try:
        kind = kind_of(arn)
        if kind == "lambda":
            deliveries.submit(_sender(bucket), arn, message)
        elif kind == "sqs":
            deliveries.send(_sender(bucket), arn, json.dumps(message))
        else:
            deliveries.publish(_sender(bucket), arn, json.dumps(message), "Amazon S3 Notification")
    except DeliveryError as error:
        print(f"{bucket.name}: a notification is lost: {error}", file=sys.stderr, flush=True)


def _object(bucket: FakeBucket, key: Any, name: str) -> Json:
    """What is told of an object; of one that is removed neither its size nor its tag."""
    told: Json = {"key": quote_plus(key.name, safe="/"), "sequencer": f"{time.time_ns():016X}"}
    if isinstance(key, FakeKey) and not name.startswith("ObjectRemoved"):
        told |= {"size": key.size, "eTag": key.etag.strip('"')}
    if bucket.is_versioned and key.version_id:
        told["versionId"] = key.version_id
    return told


def _records(bucket: FakeBucket, name: str, configuration: str, told: Json) -> Json:
    record = {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": regions.current(),
        "eventTime": _now(),
        "eventName": name,
        "userIdentity": {"principalId": f"AWS:{ACCOUNT}"},
        "requestParameters": {"sourceIPAddress": LOOPBACK},
        "responseElements": {
            "x-amz-request-id": uuid4().hex[:16].upper(),
            "x-amz-id-2": uuid4().hex,
        },
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": configuration,
            "bucket": {
                "name": bucket.name,
                "ownerIdentity": {"principalId": ACCOUNT},
                "arn": bucket.arn,
            },
            "object": told,
        },
    }
    return {"Records": [record]}


def _bridged(bucket: FakeBucket, name: str, told: Json, key: str) -> Json:
    """The same as an event of EventBridge, which spells some names otherwise."""
    kind, _, action = name.partition(":")
    about = {"eTag": "etag", "versionId": "version-id"}
    detail: Json = {
        "version": "0",
        "bucket": {"name": bucket.name},
        "object": {about.get(k, k): v for k, v in {**told, "key": key}.items()},
        "request-id": uuid4().hex[:16].upper(),
        "requester": ACCOUNT,
        "source-ip-address": LOOPBACK,
    }
    if kind == "ObjectCreated":
        detail["reason"] = _REASONS[action]
    elif kind == "ObjectRemoved":
        lasting = action == "Delete"
        detail["reason"] = "DeleteObject"
        detail["deletion-type"] = "Permanently Deleted" if lasting else "Delete Marker Created"
    title = _KINDS.get(name) or _KINDS[kind]
    return rules.event_of("aws.s3", title, [bucket.arn], detail)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _set_delete_marker(original: Any, backend: S3Backend, bucket_name: str, key: str) -> Any:
    """Tell of a marker, which moto does not."""
    marker = original(backend, bucket_name, key)
    event = S3NotificationEvent.OBJECT_REMOVED_DELETE_MARKER_CREATED_EVENT
    _send_event(ACCOUNT, event, backend.get_bucket(bucket_name), marker)
    return marker


def _delete_object(
    original: Any,
    backend: S3Backend,
    bucket_name: str,
    key_name: str,
    version_id: str | None = None,
    bypass: bool = False,
) -> Any:
    """Tell of each version that is removed; moto tells of the last one."""
    bucket = backend.get_bucket(bucket_name)
    versions = bucket.keys.getlist(key_name, [])
    removed = [key for key in versions if str(key.version_id) == version_id]
    answer = original(backend, bucket_name, key_name, version_id, bypass)
    if bucket.is_versioned and removed and len(versions) > 1:
        _send_event(ACCOUNT, S3NotificationEvent.OBJECT_REMOVED_DELETE_EVENT, bucket, removed[0])
    return answer


def _checks_destination() -> bool:
    with plain_client("s3") as s3:
        s3.create_bucket(Bucket="probe")
        arn = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:probe"
        configuration = {"LambdaFunctionArn": arn, "Events": ["s3:ObjectCreated:*"]}
        return refuses(
            lambda: s3.put_bucket_notification_configuration(
                Bucket="probe",
                NotificationConfiguration={"LambdaFunctionConfigurations": [configuration]},
            )
        )


def _tells_of_event_bridge() -> bool:
    with plain_client("s3") as s3:
        s3.create_bucket(Bucket="probe")
        s3.put_bucket_notification_configuration(
            Bucket="probe", NotificationConfiguration={"EventBridgeConfiguration": {}}
        )
        told = s3.get_bucket_notification_configuration(Bucket="probe")
        return "EventBridgeConfiguration" in told


GAPS = [
    Gap(
        "s3",
        "PutBucketNotificationConfiguration",
        "destinations that are not there or let nobody in are taken, and functions get nothing",
        _checks_destination,
    ),
    Gap(
        "s3",
        "GetBucketNotificationConfiguration.EventBridgeConfiguration",
        "nobody sees that EventBridge is told: a difference on each plan",
        _tells_of_event_bridge,
    ),
]


def install() -> None:
    """Put the notifications in moto's place."""
    wrap(FakeBucket, "set_notification_configuration", _set_configuration)
    wrap(S3Response, "get_bucket_notification", _tell_configuration)
    wrap(S3Backend, "_set_delete_marker", _set_delete_marker)
    wrap(S3Backend, "delete_object", _delete_object)
    notifications.send_event = _send_event  # type: ignore[assignment]
    # `_set_configuration` sends it, once the destinations are known to be there.
    notifications.send_test_event = lambda account_id, bucket: None
    # An event that AWS has no such form of.
    module: Any = models
    module.events_send_notification = lambda **_: None
