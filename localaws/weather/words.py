"""What AWS's services say when something goes wrong on their side, each in its own way."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from werkzeug.wrappers import Response

from localaws.calls import Call, refusal


@dataclass(frozen=True)
class Words:
    """An error of a service."""

    status: int
    code: str
    message: str

    def answer(self, call: Call) -> Response:
        """The error in the form that a call's protocol has for it."""
        return refusal(call, self.status, self.code, self.message)


_RATE = "Rate exceeded"
_UNKNOWN = "The request processing has failed because of an unknown error, exception or failure."
_TOO_MANY = Words(400, "ThrottlingException", _RATE)
_QUERY_TOO_MANY = Words(400, "Throttling", _RATE)
_REST_TOO_MANY = Words(429, "TooManyRequestsException", _RATE)
_THROTTLED: Mapping[str, Words] = {
    "cloudwatch": _QUERY_TOO_MANY,
    "ec2": Words(503, "RequestLimitExceeded", "Request limit exceeded."),
    "iam": _QUERY_TOO_MANY,
    "lambda": _REST_TOO_MANY,
    "s3": Words(503, "SlowDown", "Please reduce your request rate."),
    "service-quotas": _REST_TOO_MANY,
    "sns": _QUERY_TOO_MANY,
    "sqs": Words(403, "RequestThrottled", "The request was denied due to request throttling."),
    "sts": _QUERY_TOO_MANY,
}
_FAILED: Mapping[str, Words] = {
    "application-autoscaling": Words(500, "InternalServiceException", _UNKNOWN),
    "cloudwatch": Words(500, "InternalServiceError", _UNKNOWN),
    "ec2": Words(500, "InternalError", "An internal error has occurred"),
    "ecr": Words(500, "ServerException", "These errors are usually caused by a server-side issue."),
    "iam": Words(500, "ServiceFailure", _UNKNOWN),
    "lambda": Words(
        500, "ServiceException", "An error occurred and the request cannot be processed."
    ),
    "logs": Words(503, "ServiceUnavailableException", "The service cannot complete the request."),
    "s3": Words(500, "InternalError", "We encountered an internal error. Please try again."),
    "ssm": Words(500, "InternalServerError", "An error occurred on the server side."),
}
CONFLICT = Words(
    409,
    "OperationAborted",
    "A conflicting conditional operation is currently in progress against this resource."
    " Please try again.",
)
"""S3's, of a bucket that is being made, configured or deleted."""

NO_BUCKET = Words(404, "NoSuchBucket", "The specified bucket does not exist")
NO_STREAM = Words(400, "ResourceNotFoundException", "The specified log stream does not exist.")
NO_GROUP = Words(400, "ResourceNotFoundException", "The specified log group does not exist.")
NO_CAPACITY = (
    "CapacityError: Unable to provision requested ML compute capacity. Please retry using a"
    " different ML instance type."
)
"""Why a training job failed."""
NO_HOSTING_CAPACITY = (
    "Unable to provision requested ML compute capacity due to InsufficientInstanceCapacity error."
    " Please retry using a different ML instance type or after some time."
)
"""Why an endpoint did."""
LACKING_CAPACITY = "Insufficient capacity error from EC2 while launching instances, retrying!"
"""What a training job says while it goes on trying."""
INTERNAL = "InternalServerError: We encountered an internal error. Please try again."
HOSTING_INTERNAL = (
    "Request to service failed. If failure persists after retry, contact customer support."
)

_BUCKETS_SETTINGS = re.compile(r"(Put|Delete)(Bucket|PublicAccessBlock)|CreateBucket")
# What is read, and what is written over and over.
_SAFE = re.compile(
    "(Assume|BatchCheck|BatchGet|Describe|Filter|Get|Head|Invoke|List|Put|Query|Register|Search|Tag"
    "|Untag|UploadPart)"
)
_NOT_TWICE = frozenset({"PutImage", "PutLogEvents", "PutMetricData", "UploadPartCopy"})


def throttled(call: Call, conflicts: bool) -> Words:
    """How a service says that there are too many calls.

    Args:
        call: The call.
        conflicts: Where the service has another word for it, take that.
    """
    if conflicts and call.service == "s3" and _BUCKETS_SETTINGS.match(call.operation):
        return CONFLICT
    return _THROTTLED.get(call.service, _TOO_MANY)


def failed(call: Call) -> Words:
    """How a service says that it failed."""
    return _FAILED.get(call.service, Words(500, "InternalFailure", _UNKNOWN))


def is_safe(call: Call, told: Mapping[str, object]) -> bool:
    """Whether a call that is done twice does no more than once, and is not refused either."""
    if not _SAFE.match(call.operation) or call.operation in _NOT_TWICE:
        return (call.service, call.operation) in {("s3", "DeleteObject"), ("s3", "DeleteObjects")}
    if call.operation == "PutParameter":
        return bool(told.get("Overwrite"))
    return not ({"IfMatch", "IfNoneMatch"} & told.keys() and call.operation.startswith("Put"))
