"""What SageMaker looks for in S3, under the role that it is given, before it takes a request.

Its words are of public issues:
https://github.com/aws/amazon-sagemaker-examples/issues/2264 (a model's data is not there),
https://github.com/philschmid/llm-sagemaker-sample/issues/2 (its role may not have it),
https://github.com/aws/amazon-sagemaker-examples/issues/2267 (a channel has no objects).
"""

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import ClientError
from moto.s3.models import s3_backends
from moto.sagemaker.exceptions import ValidationError

from localaws.execution import ACCOUNT, Execution, RoleError

_SERVICE = "sagemaker.amazonaws.com"


def require_model_data(
    execution: Execution, role: str | None, containers: Iterable[Mapping[str, Any]]
) -> None:
    """Look whether a role can be assumed, and has the data of a model.

    The data of several models below one prefix are not looked at.

    Raises:
        ValidationError: It cannot, or has not.
    """
    if not role:
        return
    uris = [
        uri
        for container in containers
        if (uri := container.get("ModelDataUrl")) and not uri.endswith("/")
        if container.get("Mode") != "MultiModel"
    ]
    try:
        credentials = execution.credentials(role, _SERVICE, "SageMaker")
    except RoleError as error:
        said = _no_access(execution, role, uris[0]) if uris else not_assumed(role, error)
        raise ValidationError(said) from error
    s3 = execution.client("s3", credentials)
    for uri in uris:
        place = urlsplit(uri)
        try:
            with execution.waiting():
                s3.head_object(Bucket=place.netloc, Key=place.path.lstrip("/"))
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            said = (
                f"Could not find model data at {uri}."
                if status == 404
                else _no_access(execution, role, uri)
            )
            raise ValidationError(said) from error
        if _is_elsewhere(execution, place.netloc):
            raise ValidationError(_no_access(execution, role, uri))


def require_channels(
    execution: Execution, role: str, channels: Iterable[Mapping[str, Any]]
) -> None:
    """Look whether each channel of a job that is a prefix has an object that its role may list.

    Raises:
        RoleError: SageMaker cannot act under the role.
        ValidationError: There is none, or it may not.
    """
    s3 = execution.client("s3", execution.credentials(role, _SERVICE, "SageMaker"))
    for channel in channels:
        source = channel.get("DataSource", {}).get("S3DataSource", {})
        if source.get("S3DataType") != "S3Prefix":
            continue
        place, said = urlsplit(source["S3Uri"]), ""
        found: list[Any] = []
        try:
            with execution.waiting():
                found = s3.list_objects_v2(
                    Bucket=place.netloc, Prefix=place.path.lstrip("/"), MaxKeys=1
                ).get("Contents", [])
        except ClientError as error:
            said = f" Error message from S3: {error.response['Error']['Message']}"
        if not found or _is_elsewhere(execution, place.netloc):
            raise ValidationError(
                f'No S3 objects found under S3 URL "{source["S3Uri"]}" given in input data source.'
                f" Please ensure that the bucket exists in the selected region"
                f" ({execution.region}), that objects exist under that S3 prefix, and that the role"
                f' "{role}" has "s3:ListBucket" permissions on bucket "{place.netloc}".{said}'
            )


def not_assumed(role: str, error: RoleError) -> str:
    """What SageMaker says of a role that it cannot act under."""
    return (
        f"Could not assume role {role}. Please ensure that the role exists and allows principal"
        f" '{_SERVICE}' to assume the role. ({error})"
    )


def _is_elsewhere(execution: Execution, bucket: str) -> bool:
    """Whether a bucket that is there is in another region: SageMaker takes none of those."""
    found = s3_backends[ACCOUNT]["aws"].buckets.get(bucket)
    return found is not None and found.region_name != execution.region


def _no_access(execution: Execution, role: str, uri: str) -> str:
    return (
        f'Could not access model data at {uri}. Please ensure that the role "{role}" exists and'
        ' that its trust relationship policy allows the action "sts:AssumeRole" for the service'
        f' principal "{_SERVICE}". Also ensure that the role has "s3:GetObject" permissions and'
        f" that the object is located in {execution.region}."
    )
