"""What Lambda refuses of a request to make or change a function, a version or an alias.

Sources: developer guide, "Lambda quotas", "Using Lambda environment variables" (4 KB, reserved
keys), "Lambda function aliases" (weights); API reference, `RevisionId`, `CodeSha256`. The words are
those that people have met: https://github.com/serverless/serverless/issues/6931 (X-Ray),
https://github.com/aws/serverless-application-model/issues/217 (dead letters), and LocalStack's
tests, which compare with AWS.
"""

import base64
import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

from moto.awslambda.exceptions import InvalidParameterValueException, LambdaClientError
from moto.s3.models import s3_backends

from localaws import regions
from localaws.execution import ACCOUNT
from localaws.iam import authorization
from localaws.iam.policy import Request

Json = Mapping[str, Any]

_ENVIRONMENT_BYTES = 4096
_RESERVED = frozenset(
    {
        "AWS_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "AWS_DEFAULT_REGION",
        "AWS_EXECUTION_ENV",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
        "AWS_LAMBDA_FUNCTION_NAME",
        "AWS_LAMBDA_FUNCTION_VERSION",
        "AWS_LAMBDA_INITIALIZATION_TYPE",
        "AWS_LAMBDA_LOG_GROUP_NAME",
        "AWS_LAMBDA_LOG_STREAM_NAME",
        "AWS_LAMBDA_RUNTIME_API",
        "AWS_REGION",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "LAMBDA_RUNTIME_DIR",
        "LAMBDA_TASK_ROOT",
        "_HANDLER",
        "_X_AMZN_TRACE_ID",
    }
)
_UNZIPPED_BYTES = 262_144_000
_SENDS = {
    "events": ("events:PutEvents", "PutEvents on EventBridge"),
    "lambda": ("lambda:InvokeFunction", "InvokeFunction on Lambda"),
    "s3": ("s3:PutObject", "PutObject on S3"),
    "sns": ("sns:Publish", "Publish on SNS"),
    "sqs": ("sqs:SendMessage", "SendMessage on SQS"),
}
_INTERFACES = ("CreateNetworkInterface", "DeleteNetworkInterface", "DescribeNetworkInterfaces")


class PreconditionFailedException(LambdaClientError):
    """It was changed since the caller looked."""

    code = 412

    def __init__(self) -> None:
        super().__init__(
            "PreconditionFailedException",
            "The Revision Id provided does not match the latest Revision Id. Call the"
            " GetFunction/GetAlias API to retrieve the latest Revision Id",
        )


def refuse_new(given: Json) -> None:
    """Refuse a function that Lambda would not make.

    Raises:
        InvalidParameterValueException: It would not.
    """
    if given.get("PackageType", "Zip") == "Zip":
        if not (given.get("Runtime") and given.get("Handler")):
            raise InvalidParameterValueException(
                "Runtime and Handler are mandatory parameters for functions created with"
                " deployment packages."
            )
        refuse_code(given.get("Code") or {})
    refuse_environment(given)


def refuse_code(code: Json) -> None:
    """Refuse a zip that is none, is too large or is not there.

    Args:
        code: A `FunctionCode`, or the members of `UpdateFunctionCode`.

    Raises:
        InvalidParameterValueException: It is so.
    """
    if code.get("ImageUri"):
        return
    content: bytes | None = None
    if code.get("ZipFile") is not None:
        content = _decoded(code["ZipFile"])
    elif code.get("S3Bucket"):
        bucket = s3_backends[ACCOUNT]["aws"].buckets.get(code["S3Bucket"])
        key = bucket.keys.get(str(code.get("S3Key"))) if bucket else None
        if not (bucket and key):
            # S3 ends the one with a full stop, and not the other.
            missing = (
                ("Key", "key does not exist.") if bucket else ("Bucket", "bucket does not exist")
            )
            raise InvalidParameterValueException(
                f"Error occurred while GetObject. S3 Error Code: NoSuch{missing[0]}. S3 Error"
                f" Message: The specified {missing[1]}"
            )
        if bucket.region_name != regions.current():
            raise InvalidParameterValueException(
                "Error occurred while GetObject. S3 Error Code: PermanentRedirect. S3 Error"
                f" Message: The bucket is in this region: {bucket.region_name}. Please use this"
                " region to retry the request"
            )
        content = key.value
    if content is None:
        return
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            size = sum(member.file_size for member in archive.infolist())
    except zipfile.BadZipFile as error:
        raise InvalidParameterValueException(
            "Could not unzip uploaded file. Please check your file, then try to upload again."
        ) from error
    if size > _UNZIPPED_BYTES:
        raise InvalidParameterValueException(
            f"Unzipped size must be smaller than {_UNZIPPED_BYTES} bytes"
        )


def refuse_environment(given: Json) -> None:
    """Refuse environment variables that are Lambda's own, or too many.

    Raises:
        InvalidParameterValueException: They are.
    """
    variables = (given.get("Environment") or {}).get("Variables") or {}
    said = "Lambda was unable to configure your environment variables because the environment"
    if reserved := sorted(_RESERVED & variables.keys()):
        raise InvalidParameterValueException(
            f"{said} variables you have provided contains reserved keys that are currently not"
            f" supported for modification. Reserved keys used in this request:"
            f" {', '.join(reserved)}"
        )
    if len(text := json.dumps(variables, separators=(",", ":"))) > _ENVIRONMENT_BYTES:
        raise InvalidParameterValueException(
            f"{said} variables you have provided exceeded the 4KB limit. String measured: {text}"
        )


def refuse_rights(given: Json, role: str) -> None:
    """Refuse a function whose role may not do what the function is to do by itself.

    Args:
        given: The members of the request.
        role: The function's role, which is there.

    Raises:
        InvalidParameterValueException: It may not.
    """
    if (given.get("TracingConfig") or {}).get("Mode") == "Active":
        _require(role, "xray:PutTraceSegments", "*", "PutTraceSegments on XRAY")
    if target := (given.get("DeadLetterConfig") or {}).get("TargetArn"):
        refuse_destination(target, role)
    if (given.get("VpcConfig") or {}).get("SubnetIds"):
        for name in _INTERFACES:
            _require(role, f"ec2:{name}", "*", f"{name} on EC2")


def refuse_destination(arn: str, role: str) -> None:
    """Refuse a destination that a function's role may send nothing to.

    Raises:
        InvalidParameterValueException: It may not.
    """
    if sends := _SENDS.get(arn.split(":")[2]):
        _require(role, sends[0], arn, sends[1])


def refuse_weights(alias: Json, known: set[str], former: str = "") -> None:
    """Refuse an alias that routes to what it cannot.

    Args:
        alias: The members of the request.
        known: The function's versions.
        former: The version that the alias has so far.

    Raises:
        InvalidParameterValueException: It cannot.
    """
    weights = (alias.get("RoutingConfig") or {}).get("AdditionalVersionWeights") or {}
    if not weights:
        return
    version = alias.get("FunctionVersion") or former
    if len(weights) > 1:
        raise InvalidParameterValueException(
            "Number of items in AdditionalVersionWeights cannot be greater than 1"
        )
    (other,) = weights
    if version == "$LATEST":
        raise InvalidParameterValueException(
            "$LATEST is not supported for an alias pointing to more than 1 version"
        )
    if other == version:
        raise InvalidParameterValueException(
            f"Invalid function version {other}. Function version {other} is already included in"
            " routing configuration."
        )
    if other not in known:
        raise InvalidParameterValueException(f"Function version {other} does not exist.")


def refuse_revision(given: Any, known: str) -> None:
    """Refuse what was meant for another revision.

    Raises:
        PreconditionFailedException: It was.
    """
    if given and given != known:
        raise PreconditionFailedException


def _decoded(text: str | bytes) -> bytes:
    """A zip as a request brings it; what is no base64 is no zip either."""
    try:
        return text if isinstance(text, bytes) else base64.b64decode(text)
    except ValueError:
        return b""


def _require(role: str, action: str, resource: str, said: str) -> None:
    request = Request(action, resource, {"aws:RequestedRegion": regions.current()})
    if not authorization.role_allows(role, request):
        raise InvalidParameterValueException(
            f"The provided execution role does not have permissions to call {said}"
        )
