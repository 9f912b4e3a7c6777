"""What IAM asks for each call: actions, the resources they are on, and what is told besides.

An operation's name is its action's name, but for those that the service authorization reference
lists otherwise. Some calls need rights to more than what they name: a role that is handed to a
service has to be passed, what is tagged as it is made has to be tagged.

Source: AWS's service authorization reference. Known condition keys of a service are those that
Kennel's policies use and those told beside them; all others are absent from a request.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from localaws import regions
from localaws.execution import ACCOUNT
from localaws.iam.policy import Request

Parameters = Mapping[str, Any]
Context = Mapping[str, str | Sequence[str]]


class UnknownCallError(LookupError):
    """Nobody has said here what IAM asks for a call."""


class Facts(Protocol):
    """What a call does not tell and the account knows."""

    def tags(self, resource_id: str) -> Mapping[str, str]:
        """Tags of something that EC2 has made, by its id."""

    def boundary(self, role: str) -> str | None:
        """ARN of the permissions boundary of a role, by its name."""

    def profile_role(self, profile: str) -> str | None:
        """ARN of the role in an instance profile, by the profile's name or ARN."""

    def launch_template(self, told: Parameters) -> tuple[str, Mapping[str, Any]]:
        """Id and data of the launch template that a request names by id or name, and version."""

    def has_role(self, name: str) -> bool:
        """Whether there is a role of that name."""

    def key(self, bucket: str, name: str | None = None) -> str | None:
        """ARN of the KMS key that a bucket, or an object in it, is encrypted with, if any is."""

    def volume_key(self, endpoint_config: str) -> str | None:
        """The KMS key that an endpoint configuration has volumes encrypted with, if any."""


@dataclass(frozen=True)
class _Ask:
    """One thing that IAM asks."""

    action: str
    resource: str
    context: Context = field(default_factory=dict)


def requests(service: str, operation: str, told: Parameters, facts: Facts) -> list[Request]:
    """Give all that IAM asks for a call; nothing if it needs no right.

    Args:
        service: The service's name in botocore, such as "sagemaker-runtime".
        operation: The operation's name in botocore.
        told: Its parameters, by botocore's names.
        facts: What the account knows.

    Raises:
        UnknownCallError: This file does not say what the call needs.
    """
    if f"{service}:{operation}" in _FREE:
        return []
    prefix = _PREFIXES.get(service, service)
    if prefix not in _SERVICES:
        raise UnknownCallError
    given = {name: value for name, value in told.items() if value not in (None, "", [], {})}
    try:
        asks = list(_SERVICES[prefix](operation, given, facts))
    # A parameter that the call should have had.
    except KeyError as error:
        raise UnknownCallError from error
    common = {
        "aws:RequestedRegion": regions.current(),
        # Loopback stands for TLS.
        "aws:SecureTransport": "true",
        "s3:TlsVersion": "1.3",
        "aws:ResourceAccount": ACCOUNT,
    }
    return [Request(ask.action, ask.resource, {**common, **ask.context}) for ask in asks]


_FREE = {"sts:GetCallerIdentity", "sts:GetSessionToken"}
_PREFIXES = {"sagemaker-runtime": "sagemaker", "s3control": "s3", "service-quotas": "servicequotas"}

_Asker = Callable[[str, Parameters, Facts], Iterable[_Ask]]


def _arn(service: str, resource: str, region: str | None = None, account: str = ACCOUNT) -> str:
    where = regions.current() if region is None else region
    return f"arn:aws:{service}:{where}:{account}:{resource}"


def _role_arn(name: str) -> str:
    return name if name.startswith("arn:") else _arn("iam", f"role/{name}", region="")


def _named(
    told: Parameters, kinds: Mapping[str, str], service: str, region: str | None = None
) -> list[str]:
    """Give the ARNs of what the first known parameter names; none if there is no such parameter.

    Args:
        told: The call's parameters.
        kinds: What stands before a name in an ARN, by parameter.
        service: The service in the ARN.
        region: The region in the ARN; that of the call if None.
    """
    key = next((key for key in kinds if key in told), None)
    if key is None:
        return []
    names = told[key] if isinstance(told[key], list) else [told[key]]
    return [
        name if name.startswith("arn:") else _arn(service, kinds[key] + name, region)
        for name in map(str, names)
    ]


def _or_all(resources: list[str], operation: str) -> list[str]:
    """Give the resources that are named; a list of everything names none."""
    if resources:
        return resources
    if operation.startswith("List"):
        return ["*"]
    raise KeyError(operation)


def _tagging(told: Parameters) -> dict[str, str | Sequence[str]]:
    """Condition keys for the tags that a call gives."""
    given = told.get("Tags", told.get("tags", told.get("ResourceTags", {})))
    if isinstance(given, Mapping):
        tags = {str(key): str(value) for key, value in given.items()}
    else:
        tags = {
            str(tag.get("Key", tag.get("key"))): str(tag.get("Value", tag.get("value", "")))
            for tag in given
            if isinstance(tag, Mapping)
        }
    return _tag_context(tags)


def _tag_context(tags: Mapping[str, str]) -> dict[str, str | Sequence[str]]:
    context: dict[str, str | Sequence[str]] = {
        f"aws:RequestTag/{key}": value for key, value in tags.items()
    }
    return {**context, "aws:TagKeys": list(tags)} if tags else context


def _pass_role(role: str, service: str) -> _Ask:
    return _Ask("iam:PassRole", _role_arn(role), {"iam:PassedToService": service})


# --- S3

_S3_ACTIONS = {
    "AbortMultipartUpload": "AbortMultipartUpload",
    "CompleteMultipartUpload": "PutObject",
    "CopyObject": "PutObject",
    "CreateMultipartUpload": "PutObject",
    "DeleteBucketCors": "PutBucketCORS",
    "DeleteBucketEncryption": "PutEncryptionConfiguration",
    "DeleteBucketLifecycle": "PutLifecycleConfiguration",
    "DeleteBucketOwnershipControls": "PutBucketOwnershipControls",
    "DeleteBucketTagging": "PutBucketTagging",
    "DeletePublicAccessBlock": "PutBucketPublicAccessBlock",
    "GetBucketAccelerateConfiguration": "GetAccelerateConfiguration",
    "GetBucketCors": "GetBucketCORS",
    "GetBucketEncryption": "GetEncryptionConfiguration",
    "GetBucketLifecycleConfiguration": "GetLifecycleConfiguration",
    "GetBucketReplication": "GetReplicationConfiguration",
    "GetObjectLockConfiguration": "GetBucketObjectLockConfiguration",
    "GetPublicAccessBlock": "GetBucketPublicAccessBlock",
    "HeadBucket": "ListBucket",
    "HeadObject": "GetObject",
    "ListBuckets": "ListAllMyBuckets",
    "ListMultipartUploads": "ListBucketMultipartUploads",
    "ListObjectVersions": "ListBucketVersions",
    "ListObjects": "ListBucket",
    "ListObjectsV2": "ListBucket",
    "ListParts": "ListMultipartUploadParts",
    "PutBucketCors": "PutBucketCORS",
    "PutBucketEncryption": "PutEncryptionConfiguration",
    "PutBucketLifecycleConfiguration": "PutLifecycleConfiguration",
    "PutPublicAccessBlock": "PutBucketPublicAccessBlock",
    "UploadPart": "PutObject",
    "UploadPartCopy": "PutObject",
}
_S3_OF_VERSIONS = ("GetObject", "DeleteObject", "GetObjectTagging", "PutObjectTagging")
_S3_CONTEXT = {
    "Delimiter": "s3:delimiter",
    "MaxKeys": "s3:max-keys",
    "SSECustomerAlgorithm": "s3:x-amz-server-side-encryption-customer-algorithm",
    "SSEKMSKeyId": "s3:x-amz-server-side-encryption-aws-kms-key-id",
    "ServerSideEncryption": "s3:x-amz-server-side-encryption",
    "VersionId": "s3:versionid",
}


# What S3 does with a KMS key in the caller's name (user guide, "Using server-side encryption with
# AWS KMS keys"): the parts of an upload are decrypted when they are put together.
_S3_KEYS = {
    "CompleteMultipartUpload": ("Decrypt",),
    "CopyObject": ("GenerateDataKey",),
    "CreateMultipartUpload": ("GenerateDataKey",),
    "PutObject": ("GenerateDataKey",),
    "UploadPart": ("Decrypt", "GenerateDataKey"),
    "UploadPartCopy": ("Decrypt", "GenerateDataKey"),
}


def _s3(operation: str, told: Parameters, facts: Facts) -> Iterator[_Ask]:
    name = _S3_ACTIONS.get(operation, operation)
    if operation == "ListBuckets":
        yield _Ask(f"s3:{name}", "*")
        return
    if "ResourceArn" in told:
        yield _Ask(f"s3:{name}", told["ResourceArn"], _tagging(told))
        return
    bucket = f"arn:aws:s3:::{told['Bucket']}"
    context = {key: str(told[name]) for name, key in _S3_CONTEXT.items() if name in told}
    if operation == "DeleteObjects":
        for entry in told.get("Delete", {}).get("Objects", [{"Key": "*"}]):
            yield _Ask(_s3_action("DeleteObject", entry), f"{bucket}/{entry['Key']}", context)
        return
    resource = f"{bucket}/{told['Key']}" if "Key" in told else bucket
    if name in ("ListBucket", "ListBucketVersions"):
        context |= {"s3:prefix": str(told["Prefix"])} if "Prefix" in told else {}
    yield _Ask(_s3_action(name, told), resource, context)
    yield from _s3_keys(operation, told, facts)
    if "CopySource" in told:
        copied = _copied(told["CopySource"])
        yield copied
        source, _, key = copied.resource.removeprefix("arn:aws:s3:::").partition("/")
        if encrypted := facts.key(source, key):
            yield _Ask("kms:Decrypt", _key_arn(encrypted), _via("s3"))
    if "Tagging" in told and "Key" in told and name == "PutObject":
        yield _Ask("s3:PutObjectTagging", resource, context)
    if told.get("ACL", "private") != "private":
        yield _Ask("s3:PutObjectAcl" if "Key" in told else "s3:PutBucketAcl", resource)
    if operation == "CreateBucket" and "ObjectOwnership" in told:
        yield _Ask("s3:PutBucketOwnershipControls", resource)


def _s3_keys(operation: str, told: Parameters, facts: Facts) -> Iterator[_Ask]:
    actions = _S3_KEYS.get(operation, ())
    if operation == "GetObject":
        key, actions = facts.key(told["Bucket"], told["Key"]), ("Decrypt",)
    elif actions:
        given = told.get("ServerSideEncryption") or told.get("SSECustomerAlgorithm")
        key = told.get("SSEKMSKeyId") if given else facts.key(told["Bucket"])
    else:
        return
    for action in actions if key else ():
        yield _Ask(f"kms:{action}", _key_arn(str(key)), _via("s3"))


def _key_arn(key: str) -> str:
    return key if key.startswith("arn:") else _arn("kms", f"key/{key}")


def _via(service: str) -> Context:
    """What KMS is told if a service uses a key in its caller's name."""
    return {"kms:ViaService": f"{service}.{regions.current()}.amazonaws.com"}


def lent_key(key: str, service: str) -> list[Request]:
    """What is asked of who lets a service encrypt a volume with a key.

    Args:
        key: The key's ARN or id.
        service: The service's name, such as "ec2".
    """
    uses = _VOLUME_USES if service == "ec2" else []
    lent = {**_via(service), "kms:GrantIsForAWSResource": "true"}
    return [
        *(Request(f"kms:{use}", _key_arn(key), {**_via(service)}) for use in uses),
        Request("kms:CreateGrant", _key_arn(key), lent),
    ]


# EC2's user guide, "Requirements for Amazon EBS encryption", permissions for users.
_VOLUME_USES = [
    "Decrypt",
    "DescribeKey",
    "GenerateDataKeyWithoutPlaintext",
    "ReEncryptFrom",
    "ReEncryptTo",
]


def _s3_action(name: str, told: Parameters) -> str:
    return f"s3:{name}Version" if name in _S3_OF_VERSIONS and "VersionId" in told else f"s3:{name}"


def _copied(source: Any) -> _Ask:
    if isinstance(source, str):
        path, _, version = source.removeprefix("/").partition("?versionId=")
        source = {"Path": path, **({"VersionId": version} if version else {})}
    path = source.get("Path") or f"{source['Bucket']}/{source['Key']}"
    return _Ask(_s3_action("GetObject", source), f"arn:aws:s3:::{path}")


# --- SageMaker

_SAGEMAKER = {
    "EndpointName": "endpoint/",
    "EndpointConfigName": "endpoint-config/",
    "HyperParameterTuningJobName": "hyper-parameter-tuning-job/",
    "ModelPackageArn": "",
    "ModelPackageName": "model-package/",
    "ModelPackageGroupName": "model-package-group/",
    # Before the model that a transform job names.
    "TransformJobName": "transform-job/",
    "ModelName": "model/",
    "NotebookInstanceName": "notebook-instance/",
    "NotebookInstanceLifecycleConfigName": "notebook-instance-lifecycle-config/",
    "ProcessingJobName": "processing-job/",
    "ResourceArn": "",
    "TrainingJobArn": "",
    "TrainingJobName": "training-job/",
}


# Lists whose filter is the name of something, which no document calls the resource of the list.
_SAGEMAKER_LISTS = {"ListModelPackages"}


def _sagemaker(operation: str, told: Parameters, facts: Facts) -> Iterator[_Ask]:
    if operation in _SAGEMAKER_LISTS:
        yield _Ask(f"sagemaker:{operation}", "*")
        return
    resources = _named(told, _SAGEMAKER, "sagemaker")
    if operation in ("CreateEndpoint", "UpdateEndpoint"):
        resources += _named(told, {"EndpointConfigName": "endpoint-config/"}, "sagemaker")
    elif operation == "CreateModelPackage" and "ModelPackageGroupName" in told:
        # Its version is not known before it is made.
        resources = [f"{_arn('sagemaker', 'model-package/')}{told['ModelPackageGroupName']}/*"]
    resources = _or_all(resources, operation)
    context = _tagging(told)
    for resource in resources:
        yield _Ask(f"sagemaker:{operation}", resource, context)
    if operation.startswith("Create") and "Tags" in told:
        yield _Ask("sagemaker:AddTags", resources[0], context)
    if operation.startswith(("Create", "Update")):
        parts = [
            told,
            told.get("TrainingJobDefinition", {}),
            *told.get("TrainingJobDefinitions", []),
        ]
        roles = {part.get(key) for part in parts for key in ("ExecutionRoleArn", "RoleArn")}
        for role in sorted(roles - {None}):
            yield _pass_role(role, "sagemaker.amazonaws.com")
    # A training job's volumes are encrypted with the job's role's rights instead.
    lent = told.get("KmsKeyId") if operation == "CreateNotebookInstance" else None
    if operation in ("CreateEndpoint", "UpdateEndpoint"):
        lent = facts.volume_key(told["EndpointConfigName"])
    if lent:
        for request in lent_key(str(lent), "sagemaker"):
            yield _Ask(request.action, request.resource, request.context)


# --- Lambda


def _lambda(operation: str, told: Parameters, _: Facts) -> Iterator[_Ask]:
    if operation == "GetAccountSettings" or operation in ("ListFunctions", "ListLayers"):
        yield _Ask(f"lambda:{operation}", "*")
        return
    action = {"Invoke": "InvokeFunction", "InvokeWithResponseStream": "InvokeFunction"}
    name = str(told.get("FunctionName") or told["Resource"])
    # Names come bare, with a qualifier, as a part of an ARN or as an ARN.
    path = name.partition(":function:")[2] or name
    if "Qualifier" in told and ":" not in path:
        path += f":{told['Qualifier']}"
    context = _tagging(told)
    if "FunctionUrlAuthType" in told:
        context["lambda:FunctionUrlAuthType"] = str(told["FunctionUrlAuthType"])
    if "Principal" in told:
        context["lambda:Principal"] = str(told["Principal"])
    resource = _arn("lambda", f"function:{path}")
    yield _Ask(f"lambda:{action.get(operation, operation)}", resource, context)
    if operation == "CreateFunction" and "Tags" in told:
        yield _Ask("lambda:TagResource", resource, context)
    if "Role" in told:
        yield _pass_role(told["Role"], "lambda.amazonaws.com")


# --- IAM and STS

_IAM = {
    "InstanceProfileName": "instance-profile/",
    "RoleName": "role/",
    "UserName": "user/",
    "GroupName": "group/",
    "PolicySourceArn": "",
    "PolicyArn": "",
    "PolicyName": "policy/",
    "OpenIDConnectProviderArn": "",
    "Url": "oidc-provider/",
}


_IAM_TAGGED = {
    "CreateInstanceProfile": "TagInstanceProfile",
    "CreateOpenIDConnectProvider": "TagOpenIDConnectProvider",
    "CreatePolicy": "TagPolicy",
    "CreateRole": "TagRole",
    "CreateUser": "TagUser",
}


def _iam(operation: str, told: Parameters, facts: Facts) -> Iterator[_Ask]:
    context = _tagging(told)
    if operation == "CreateServiceLinkedRole":
        yield _service_linked(told["AWSServiceName"], "*")
        return
    if "Url" in told:
        told = {**told, "Url": told["Url"].removeprefix("https://")}
    boundary = told.get("PermissionsBoundary") or facts.boundary(told.get("RoleName", ""))
    if boundary:
        context["iam:PermissionsBoundary"] = boundary
    if "PolicyArn" in told:
        context["iam:PolicyARN"] = told["PolicyArn"]
    (resource,) = _or_all(_named(told, _IAM, "iam", region=""), operation)
    yield _Ask(f"iam:{operation}", resource, context)
    if operation in _IAM_TAGGED and "Tags" in told:
        yield _Ask(f"iam:{_IAM_TAGGED[operation]}", resource, context)
    if operation == "AddRoleToInstanceProfile":
        yield _pass_role(told["RoleName"], "ec2.amazonaws.com")


def _service_linked(service: str, name: str) -> _Ask:
    return _Ask(
        "iam:CreateServiceLinkedRole",
        _role_arn(f"aws-service-role/{service}/{name}"),
        {"iam:AWSServiceName": service},
    )


def _sts(operation: str, told: Parameters, _: Facts) -> Iterator[_Ask]:
    if operation in ("DecodeAuthorizationMessage", "GetAccessKeyInfo"):
        yield _Ask(f"sts:{operation}", "*")
        return
    context = _tagging(told)
    if "ExternalId" in told:
        context["sts:ExternalId"] = str(told["ExternalId"])
    context["sts:RoleSessionName"] = str(told.get("RoleSessionName", ""))
    yield _Ask(f"sts:{operation}", told["RoleArn"], context)
    if "Tags" in told:
        yield _Ask("sts:TagSession", told["RoleArn"], context)


# --- EC2

_EC2_KINDS = {
    "ami": "image",
    "eni": "network-interface",
    "i": "instance",
    "lt": "launch-template",
    "rtb": "route-table",
    "sg": "security-group",
    "sgr": "security-group-rule",
    "sir": "spot-instances-request",
    "subnet": "subnet",
    "vol": "volume",
    "vpc": "vpc",
}
# Parameters that name what is changed; what is made has no id yet.
_EC2_NAMES = {
    "InstanceId",
    "InstanceIds",
    "LaunchTemplateId",
    "GroupId",
    "Resources",
}
_EC2_MADE = {
    "AuthorizeSecurityGroupEgress": "security-group-rule",
    "AuthorizeSecurityGroupIngress": "security-group-rule",
    "CreateLaunchTemplate": "launch-template",
    "CreateSecurityGroup": "security-group",
}


def _ec2_arn(name: str) -> str:
    if name.startswith("arn:"):
        return name
    kind = _EC2_KINDS[name.partition("-")[0]]
    return _arn("ec2", f"{kind}/{name}", account="" if kind == "image" else ACCOUNT)


def _ec2_resource(name: str, facts: Facts) -> tuple[str, Context]:
    """ARN of what an id names, and its tags as condition keys."""
    return _ec2_arn(name), {
        f"aws:ResourceTag/{key}": value for key, value in facts.tags(name).items()
    }


def _ec2(operation: str, told: Parameters, facts: Facts) -> Iterator[_Ask]:
    action = f"ec2:{operation}"
    if operation.startswith("Describe"):
        yield _Ask(action, "*")
        return
    if operation == "RunInstances":
        yield from _run_instances(told, facts)
        return
    made = _EC2_MADE.get(operation)
    names = [name for key in _EC2_NAMES & set(told) for name in _listed(told[key])]
    if "LaunchTemplateName" in told and not made:
        names.append(facts.launch_template(told)[0])
    if operation == "CreateSecurityGroup":
        names.append(told["VpcId"])
    if not names and not made:
        raise KeyError(operation)
    given = _tagging(told) if operation == "CreateTags" else {}
    for name in names:
        resource, tags = _ec2_resource(name, facts)
        yield _Ask(action, resource, {**tags, **given})
    if made:
        own_tags = _specified_tags(told).get(made, {})
        yield _Ask(action, _arn("ec2", f"{made}/*"), _tag_context(own_tags))
        yield from _tagged_at_creation(operation, {made: own_tags})


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _specified_tags(told: Parameters) -> dict[str, dict[str, str]]:
    """The tags that a call gives to what it makes, by kind of resource."""
    return {
        specification["ResourceType"]: {
            tag["Key"]: tag.get("Value", "") for tag in specification.get("Tags", [])
        }
        for specification in told.get("TagSpecifications", [])
    }


def _tagged_at_creation(operation: str, tags: Mapping[str, Mapping[str, str]]) -> Iterator[_Ask]:
    for kind, given in tags.items():
        if given:
            context = {"ec2:CreateAction": operation, **_tag_context(given)}
            yield _Ask("ec2:CreateTags", _arn("ec2", f"{kind}/*"), context)


def _run_instances(told: Parameters, facts: Facts) -> Iterator[_Ask]:
    """Launching needs the right to all that an instance consists of."""
    data: Mapping[str, Any] = {}
    from_template: dict[str, str | Sequence[str]] = {}
    if "LaunchTemplate" in told:
        template, data = facts.launch_template(told["LaunchTemplate"])
        arn, tags = _ec2_resource(template, facts)
        from_template["ec2:LaunchTemplate"] = arn
        yield _Ask("ec2:RunInstances", arn, tags)
    launched = {**data, **told}
    kinds = ["instance", "network-interface", "volume"]
    market = launched.get("InstanceMarketOptions", {}).get("MarketType")
    kinds += ["spot-instances-request"] if market == "spot" else []
    resources = {_arn("ec2", f"{kind}/*"): kind for kind in kinds}
    for key in ("ImageId", "SubnetId", "SecurityGroupIds"):
        resources |= {_ec2_arn(name): "" for name in _listed(launched.get(key, []))}
    if "KeyName" in launched:
        resources[_arn("ec2", f"key-pair/{launched['KeyName']}")] = ""
    tags_by_kind = {**_specified_tags(data), **_specified_tags(told)}
    for resource, kind in resources.items():
        context = {**from_template, **_tag_context(tags_by_kind.get(kind, {}))}
        if kind == "instance" and "InstanceType" in launched:
            context["ec2:InstanceType"] = launched["InstanceType"]
        yield _Ask("ec2:RunInstances", resource, context)
    yield from _tagged_at_creation("RunInstances", tags_by_kind)
    profile = launched.get("IamInstanceProfile", {})
    if name := profile.get("Arn") or profile.get("Name"):
        role = facts.profile_role(name)
        # A profile that is not there or empty is EC2's to refuse.
        if role:
            yield _pass_role(role, "ec2.amazonaws.com")


# --- Scaling, metrics, logs

_SCALED = {
    "sagemaker": "AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint",
    "lambda": "AWSServiceRoleForApplicationAutoScaling_LambdaConcurrency",
}


def _scaling(operation: str, told: Parameters, facts: Facts) -> Iterator[_Ask]:
    action = f"application-autoscaling:{operation}"
    namespace = told.get("ServiceNamespace")
    if operation.startswith("Describe"):
        yield _Ask(action, "*")
        return
    context = _tagging(told)
    if namespace:
        context["application-autoscaling:service-namespace"] = namespace
    # Targets have ids that nobody tells beforehand.
    resource = told.get("ResourceARN") or _arn("application-autoscaling", "scalable-target/*")
    yield _Ask(action, resource, context)
    if operation == "RegisterScalableTarget" and namespace in _SCALED:
        name = _SCALED[namespace]
        if "RoleARN" in told and "/aws-service-role/" not in told["RoleARN"]:
            yield _pass_role(told["RoleARN"], "application-autoscaling.amazonaws.com")
        elif not facts.has_role(name):
            yield _service_linked(f"{namespace}.application-autoscaling.amazonaws.com", name)
    # Target tracking makes and deletes its alarms with the caller's rights.
    alarms = _arn("cloudwatch", f"alarm:TargetTracking-{told.get('ResourceId')}-*")
    if operation == "PutScalingPolicy" and told.get("PolicyType") == "TargetTrackingScaling":
        yield _Ask("cloudwatch:PutMetricAlarm", alarms)
    elif operation == "DeleteScalingPolicy":
        yield _Ask("cloudwatch:DeleteAlarms", alarms)


_CLOUDWATCH = {
    "AlarmName": "alarm:",
    "AlarmNames": "alarm:",
    "ResourceARN": "",
}
_DASHBOARDS = {"DashboardName": "dashboard/", "DashboardNames": "dashboard/"}


def _cloudwatch(operation: str, told: Parameters, facts: Facts) -> Iterator[_Ask]:
    action = f"cloudwatch:{operation}"
    if operation == "PutMetricData":
        yield _Ask(action, "*", {"cloudwatch:namespace": told["Namespace"]})
    # Composite alarms are answered for only to who may see, or make, all alarms.
    elif operation == "PutCompositeAlarm" or "CompositeAlarm" in told.get("AlarmTypes", []):
        yield _Ask(action, "*", _tagging(told))
    elif dashboards := _named(told, _DASHBOARDS, "cloudwatch", region=""):
        yield from (_Ask(action, dashboard) for dashboard in dashboards)
    elif alarms := _named(told, _CLOUDWATCH, "cloudwatch"):
        yield from (_Ask(action, alarm, _tagging(told)) for alarm in alarms)
    elif operation in ("DescribeAlarms", "DescribeAlarmHistory"):
        yield _Ask(action, _arn("cloudwatch", "alarm:*"))
    elif operation.startswith(("GetMetric", "List", "DescribeAlarmsForMetric")):
        yield _Ask(action, "*")
    else:
        raise KeyError(operation)
    if operation in ("PutCompositeAlarm", "PutMetricAlarm") and "Tags" in told:
        alarm = _arn("cloudwatch", f"alarm:{told['AlarmName']}")
        yield _Ask("cloudwatch:TagResource", alarm, _tagging(told))


# These are on a group's streams, which the group's ARN ends with where none is named.
_OF_STREAMS = re.compile(r"\w+Log(Stream|Event)s?$")


def _logs(operation: str, told: Parameters, _: Facts) -> Iterator[_Ask]:
    action = f"logs:{operation}"
    if operation == "DescribeLogGroups":
        yield _Ask(action, _arn("logs", "log-group::log-stream:"))
        return
    if "resourceArn" in told:
        yield _Ask(action, told["resourceArn"], _tagging(told))
        return
    group = str(told.get("logGroupName") or told["logGroupIdentifier"])
    resource = _arn("logs", f"log-group:{group.rpartition('log-group:')[2].removesuffix(':*')}")
    if _OF_STREAMS.match(operation):
        resource += f":log-stream:{told.get('logStreamName', '')}"
    yield _Ask(action, resource, _tagging(told))
    if operation == "CreateLogGroup" and "tags" in told:
        yield _Ask("logs:TagResource", resource, _tagging(told))


# --- Others


def _ssm(operation: str, told: Parameters, _: Facts) -> Iterator[_Ask]:
    action = f"ssm:{operation}"
    if operation == "DescribeParameters":
        yield _Ask(action, "*")
        return
    names = told.get("Names") or [told.get("Name") or told.get("Path") or told["ResourceId"]]
    for name in names:
        if name.startswith("arn:"):
            yield _Ask(action, name, _tagging(told))
            continue
        # A version or label follows a colon.
        path = "/" + name.partition(":")[0].strip("/")
        account = "" if path.startswith("/aws/") else ACCOUNT
        yield _Ask(action, _arn("ssm", f"parameter{path}", account=account), _tagging(told))
    if operation == "PutParameter" and "Tags" in told:
        yield _Ask("ssm:AddTagsToResource", _arn("ssm", f"parameter{path}"), _tagging(told))


def _ecr(operation: str, told: Parameters, _: Facts) -> Iterator[_Ask]:
    action = f"ecr:{operation}"
    if operation in ("GetAuthorizationToken", "DescribeRegistry"):
        yield _Ask(action, "*")
        return
    # Those of AWS's own images belong to another account.
    account = str(told.get("registryId", ACCOUNT))
    names = told.get("repositoryNames") or [told.get("repositoryName")]
    for name in names:
        resource = told.get("resourceArn") or f"repository/{name or '*'}"
        arn = resource if resource.startswith("arn:") else _arn("ecr", resource, account=account)
        yield _Ask(action, arn, _tagging(told))
        if operation == "CreateRepository" and "tags" in told:
            yield _Ask("ecr:TagResource", arn, _tagging(told))


def _codebuild(operation: str, told: Parameters, _: Facts) -> Iterator[_Ask]:
    kinds = {"name": "project/", "names": "project/", "projectName": "project/"}
    builds = [
        str(build).partition(":")[0] for build in told.get("ids", _listed(told.get("id", [])))
    ]
    resources = _named({**told, "names": builds} if builds else told, kinds, "codebuild")
    if not resources and operation.startswith("List"):
        resources = ["*"]
    if not resources:
        raise KeyError(operation)
    for resource in dict.fromkeys(resources):
        yield _Ask(f"codebuild:{operation}", resource, _tagging(told))
    if "serviceRole" in told:
        yield _pass_role(told["serviceRole"], "codebuild.amazonaws.com")


def _ce(operation: str, told: Parameters, _: Facts) -> Iterator[_Ask]:
    yield _Ask(f"ce:{operation}", "*", _tagging(told))


def _budgets(operation: str, told: Parameters, _: Facts) -> Iterator[_Ask]:
    name = told.get("BudgetName") or told.get("Budget", {}).get("BudgetName", "*")
    resource = told.get("ResourceARN") or _arn("budgets", f"budget/{name}", region="")
    if "Tag" in operation:
        action = operation
    else:
        action = "ViewBudget" if operation.startswith("Describe") else "ModifyBudget"
    yield _Ask(f"budgets:{action}", resource, _tagging(told))
    if operation == "CreateBudget" and "ResourceTags" in told:
        yield _Ask("budgets:TagResource", resource, _tagging(told))


def _sqs(operation: str, told: Parameters, _: Facts) -> Iterator[_Ask]:
    if operation == "ListQueues":
        yield _Ask("sqs:ListQueues", "*")
        return
    name = told.get("QueueName") or told["QueueUrl"].rpartition("/")[2]
    yield _Ask(f"sqs:{operation.removesuffix('Batch')}", _arn("sqs", name), _tagging(told))
    if operation == "CreateQueue" and "tags" in told:
        yield _Ask("sqs:TagQueue", _arn("sqs", name), _tagging(told))


_OF_SUBSCRIPTIONS = ("GetSubscriptionAttributes", "SetSubscriptionAttributes", "Unsubscribe")


def _sns(operation: str, told: Parameters, _: Facts) -> Iterator[_Ask]:
    # Subscriptions are no resources.
    if operation in _OF_SUBSCRIPTIONS:
        yield _Ask(f"sns:{operation}", "*")
        return
    kinds = {"TopicArn": "", "TargetArn": "", "ResourceArn": "", "Name": ""}
    (resource,) = _or_all(_named(told, kinds, "sns"), operation)
    yield _Ask(f"sns:{operation}", resource, _tagging(told))
    if operation == "CreateTopic" and "Tags" in told:
        yield _Ask("sns:TagResource", resource, _tagging(told))


def _bus(name: object) -> str:
    return str(name or "default").rpartition("event-bus/")[2]


_OF_RULES = re.compile(r"(Put|Delete|Describe|Enable|Disable)Rule|(Put|Remove)Targets|ListTargets")
_OF_BUSES = re.compile(r"(Create|Delete|Describe|Update)EventBus|(Put|Remove)Permission")


def _events(operation: str, told: Parameters, _: Facts) -> Iterator[_Ask]:
    action, context = f"events:{operation}", _tagging(told)
    if "ResourceARN" in told:
        yield _Ask(action, told["ResourceARN"], context)
    elif operation == "PutEvents":
        for entry in told["Entries"]:
            told_by = {"events:source": "Source", "events:detail-type": "DetailType"}
            event = {key: str(entry[name]) for key, name in told_by.items() if name in entry}
            yield _Ask(
                action, _arn("events", f"event-bus/{_bus(entry.get('EventBusName'))}"), event
            )
    elif _OF_RULES.match(operation):
        bus = _bus(told.get("EventBusName"))
        within = "" if bus == "default" else f"{bus}/"
        rule = _arn("events", f"rule/{within}{told.get('Name') or told['Rule']}")
        targets = told.get("Targets", [])
        arns = [str(target["Arn"]) for target in targets]
        yield _Ask(action, rule, {**context, **({"events:TargetArn": arns} if arns else {})})
        if operation == "PutRule" and "Tags" in told:
            yield _Ask("events:TagResource", rule, context)
        for role in sorted({each["RoleArn"] for each in (told, *targets) if each.get("RoleArn")}):
            yield _pass_role(role, "events.amazonaws.com")
    elif _OF_BUSES.match(operation):
        bus = _bus(told.get("Name") or told.get("EventBusName"))
        yield _Ask(action, _arn("events", f"event-bus/{bus}"), context)
    elif operation.startswith(("List", "TestEventPattern")):
        yield _Ask(action, "*")
    else:
        raise KeyError(operation)


def _scheduler(operation: str, told: Parameters, _: Facts) -> Iterator[_Ask]:
    action, context = f"scheduler:{operation}", _tagging(told)
    if "ResourceArn" in told:
        yield _Ask(action, told["ResourceArn"], context)
    elif operation in ("ListSchedules", "ListScheduleGroups"):
        yield _Ask(action, "*")
    elif operation.endswith("Group"):
        yield _Ask(action, _arn("scheduler", f"schedule-group/{told['Name']}"), context)
    else:
        name = f"{told.get('GroupName', 'default')}/{told['Name']}"
        yield _Ask(action, _arn("scheduler", f"schedule/{name}"), context)
        if "Target" in told:
            yield _pass_role(told["Target"]["RoleArn"], "scheduler.amazonaws.com")


def _kms(operation: str, told: Parameters, _: Facts) -> Iterator[_Ask]:
    if operation == "CreateKey":
        yield _Ask("kms:CreateKey", "*", _tagging(told))
        return
    (key,) = _or_all(_named(told, {"KeyId": "key/"}, "kms"), operation)
    context = _tagging(told)
    if str(told.get("GranteePrincipal", "")).endswith(".amazonaws.com"):
        context["kms:GrantIsForAWSResource"] = "true"
    yield _Ask(f"kms:{operation}", key, context)


def _quotas(operation: str, told: Parameters, _: Facts) -> Iterator[_Ask]:
    if "QuotaCode" in told:
        resource = _arn("servicequotas", f"{told['ServiceCode']}/{told['QuotaCode']}")
        yield _Ask(f"servicequotas:{operation}", resource)
    else:
        yield _Ask(f"servicequotas:{operation}", "*")


_SERVICES: dict[str, _Asker] = {
    "application-autoscaling": _scaling,
    "budgets": _budgets,
    "ce": _ce,
    "cloudwatch": _cloudwatch,
    "codebuild": _codebuild,
    "ec2": _ec2,
    "ecr": _ecr,
    "events": _events,
    "iam": _iam,
    "kms": _kms,
    "lambda": _lambda,
    "logs": _logs,
    "s3": _s3,
    "sagemaker": _sagemaker,
    "scheduler": _scheduler,
    "servicequotas": _quotas,
    "sns": _sns,
    "sqs": _sqs,
    "ssm": _ssm,
    "sts": _sts,
    "xray": lambda operation, told, facts: [_Ask(f"xray:{operation}", "*")],
}
