"""What IAM asks for each call that localaws has recorded: an action, a resource, a context.

An operation's name is its action's name, but for a few that the service authorization reference
lists otherwise.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from localaws.policy import Document, Request, evaluate

ACCOUNT = "123456789012"
REGION = "us-east-1"
TRAINER = "kennel-local-trainer"

Call = Mapping[str, Any]
Parameters = Mapping[str, Any]

# Operations whose action is named otherwise; none for those that need no right.
ACTIONS = {
    "sts:GetCallerIdentity": None,
    "lambda:Invoke": "lambda:InvokeFunction",
    "s3:DeleteBucketEncryption": "s3:PutEncryptionConfiguration",
    "s3:DeleteBucketLifecycle": "s3:PutLifecycleConfiguration",
    "s3:DeleteBucketOwnershipControls": "s3:PutBucketOwnershipControls",
    "s3:DeleteObjects": "s3:DeleteObject",
    "s3:DeletePublicAccessBlock": "s3:PutBucketPublicAccessBlock",
    "s3:GetBucketAccelerateConfiguration": "s3:GetAccelerateConfiguration",
    "s3:GetBucketEncryption": "s3:GetEncryptionConfiguration",
    "s3:GetBucketLifecycleConfiguration": "s3:GetLifecycleConfiguration",
    "s3:GetBucketReplication": "s3:GetReplicationConfiguration",
    "s3:GetObjectLockConfiguration": "s3:GetBucketObjectLockConfiguration",
    "s3:GetPublicAccessBlock": "s3:GetBucketPublicAccessBlock",
    "s3:HeadBucket": "s3:ListBucket",
    "s3:HeadObject": "s3:GetObject",
    "s3:ListObjectVersions": "s3:ListBucketVersions",
    "s3:ListObjects": "s3:ListBucket",
    "s3:ListObjectsV2": "s3:ListBucket",
    "s3:PutBucketEncryption": "s3:PutEncryptionConfiguration",
    "s3:PutBucketLifecycleConfiguration": "s3:PutLifecycleConfiguration",
    "s3:PutPublicAccessBlock": "s3:PutBucketPublicAccessBlock",
}

# Operations that IAM knows without resources, or with all of them.
EVERYWHERE = {
    "cloudwatch:DescribeAlarms",
    "cloudwatch:PutCompositeAlarm",
    "sns:GetSubscriptionAttributes",
    "sns:Unsubscribe",
    "ssm:DescribeParameters",
}


def refused(calls: Iterable[Call], policies: Iterable[Document]) -> list[str]:
    """Give the recorded calls that these policies do not allow, each once."""
    documents = list(policies)
    found = {
        f"{request.action} on {request.resource}"
        for call in calls
        if (request := to_request(call)) and not evaluate(documents, request).allowed
    }
    return sorted(found)


def to_request(call: Call) -> Request | None:
    """Give what IAM asks for a recorded call; None if the call needs no right."""
    service, told = call["service"], call["parameters"]
    name = f"{service}:{call['operation']}"
    if service == "budgets" and "Tag" not in name:
        reads = call["operation"].startswith("Describe")
        action: str | None = "budgets:ViewBudget" if reads else "budgets:ModifyBudget"
    else:
        action = ACTIONS.get(name, name)
    if action is None:
        return None
    if name == "s3:DeleteObjects":
        # Its objects are named in its body, which is not recorded.
        told = {**told, "Key": "one"}
    context = {"aws:RequestedRegion": REGION, "aws:SecureTransport": "true"}
    if service == "ec2":
        # What exists is named by an id in the record; it has had its tag since it was made.
        context |= {f"aws:{kind}Tag/Name": TRAINER for kind in ("Request", "Resource")}
    if "ServiceNamespace" in told:
        context["application-autoscaling:service-namespace"] = told["ServiceNamespace"]
    describes = service in ("ec2", "application-autoscaling") and "Describe" in name
    resource = "*" if describes or name in EVERYWHERE else RESOURCES[service](told)
    return Request(action, resource, context)


def _arn(service: str, resource: str, region: str = REGION) -> str:
    return f"arn:aws:{service}:{region}:{ACCOUNT}:{resource}"


def _named(told: Parameters, kinds: Mapping[str, str]) -> str:
    """Give the resource that the first known parameter names: its ARN, or `kind` with a name."""
    key = next((key for key in kinds if key in told), None)
    assert key, f"no resource is named by {sorted(told)}"
    value = str(told[key][0] if isinstance(told[key], list) else told[key])
    value = value.removeprefix("https://")
    return value if value.startswith("arn:") else kinds[key] + value


def _by_name(
    service: str, kinds: Mapping[str, str], region: str = REGION
) -> Callable[[Parameters], str]:
    def resource(told: Parameters) -> str:
        named = _named(told, kinds)
        return named if named.startswith("arn:") else _arn(service, named, region)

    return resource


def _object(told: Parameters) -> str:
    return f"arn:aws:s3:::{told['Bucket']}" + (f"/{told['Key']}" if "Key" in told else "")


def _parameter(told: Parameters) -> str:
    name = told.get("Name") or told.get("Path") or told.get("ResourceId") or told["Names"][0]
    account = "" if name.startswith("/aws/") else ACCOUNT
    return f"arn:aws:ssm:{REGION}:{account}:parameter{name.rstrip('/')}"


def _alarm(told: Parameters) -> str:
    if "DashboardName" in told or "DashboardNames" in told:
        name = told.get("DashboardName") or told["DashboardNames"][0]
        return _arn("cloudwatch", f"dashboard/{name}", region="")
    alarms = {"AlarmName": "alarm:", "AlarmNames": "alarm:", "ResourceARN": ""}
    return _by_name("cloudwatch", alarms)(told)


def _ec2(told: Parameters) -> str:
    is_group = told.keys() & {"GroupId", "GroupName", "GroupIds", "SecurityGroupRuleIds"}
    return _arn("ec2", "security-group/one" if is_group else "launch-template/one")


RESOURCES: dict[str, Callable[[Parameters], str]] = {
    "application-autoscaling": lambda told: _arn("application-autoscaling", "scalable-target/1"),
    "budgets": lambda told: _arn("budgets", "budget/kennel-local", region=""),
    "cloudwatch": _alarm,
    "codebuild": _by_name(
        "codebuild", {"name": "project/", "names": "project/", "projectName": "project/"}
    ),
    "ec2": _ec2,
    "ecr": _by_name(
        "ecr",
        {"repositoryName": "repository/", "repositoryNames": "repository/", "resourceArn": ""},
    ),
    "iam": _by_name(
        "iam",
        {
            "InstanceProfileName": "instance-profile/",
            "RoleName": "role/",
            "PolicyArn": "",
            "PolicyName": "policy/",
            "OpenIDConnectProviderArn": "",
            "Url": "oidc-provider/",
        },
        region="",
    ),
    # The body of CreateFunction is too large to be recorded.
    "lambda": lambda told: _arn(
        "lambda", f"function:{told.get('FunctionName', 'kennel-local-classify')}"
    ),
    "logs": _by_name(
        "logs",
        {
            "logGroupName": "log-group:",
            "logGroupNamePrefix": "log-group:",
            "resourceArn": "",
        },
    ),
    "s3": _object,
    "sagemaker": _by_name(
        "sagemaker",
        {
            "EndpointName": "endpoint/",
            "EndpointConfigName": "endpoint-config/",
            "ModelName": "model/",
            "NotebookInstanceName": "notebook-instance/",
            "NotebookInstanceLifecycleConfigName": "notebook-instance-lifecycle-config/",
            "ResourceArn": "",
        },
    ),
    "sns": _by_name("sns", {"TopicArn": "", "ResourceARN": "", "ResourceArn": "", "Name": ""}),
    "sqs": lambda told: _arn("sqs", told.get("QueueName") or told["QueueUrl"].rpartition("/")[2]),
    "ssm": _parameter,
}
