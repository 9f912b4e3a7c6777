"""What is new, and what not all of AWS knows yet: roles, buckets, instances, logs, lists."""

import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from localaws.calls import Call
from localaws.weather import words
from localaws.weather.words import Words

# Whatever nobody asks for is known by then.
_KNOWN_AFTER_SECONDS = 60.0
_INSTANCE = re.compile(rb"<instanceId>(i-[0-9a-f]+)</instanceId>")


def _sagemakers(arn: str) -> Words:
    return Words(
        400,
        "ValidationException",
        f"Could not assume role {arn}. Please ensure that the role exists and allows principal"
        " 'sagemaker.amazonaws.com' to assume the role.",
    )


def _lambdas(_: str) -> Words:
    return Words(
        400,
        "InvalidParameterValueException",
        "The role defined for the function cannot be assumed by Lambda.",
    )


def _codebuilds(arn: str) -> Words:
    return Words(
        400,
        "InvalidInputException",
        f"CodeBuild is not authorized to perform: sts:AssumeRole on {arn}",
    )


_ROLES: Mapping[tuple[str, str], tuple[tuple[str, ...], Callable[[str], Words]]] = {
    ("codebuild", "CreateProject"): (("serviceRole",), _codebuilds),
    ("lambda", "CreateFunction"): (("Role",), _lambdas),
    ("lambda", "UpdateFunctionConfiguration"): (("Role",), _lambdas),
    ("sagemaker", "CreateHyperParameterTuningJob"): (
        ("TrainingJobDefinition", "RoleArn"),
        _sagemakers,
    ),
    ("sagemaker", "CreateModel"): (("ExecutionRoleArn",), _sagemakers),
    ("sagemaker", "CreateNotebookInstance"): (("RoleArn",), _sagemakers),
    ("sagemaker", "CreateProcessingJob"): (("RoleArn",), _sagemakers),
    ("sagemaker", "CreateTrainingJob"): (("RoleArn",), _sagemakers),
}
"""Who acts under a role: where the call names it, and what it is told of one that is not known."""

_LISTS: Mapping[tuple[str, str], tuple[str, str, str]] = {
    ("logs", "DescribeLogStreams"): ("logStreams", "logStreamName", "CreateLogStream"),
    ("sagemaker", "ListEndpointConfigs"): (
        "EndpointConfigs",
        "EndpointConfigName",
        "CreateEndpointConfig",
    ),
    ("sagemaker", "ListEndpoints"): ("Endpoints", "EndpointName", "CreateEndpoint"),
    ("sagemaker", "ListModelPackageGroups"): (
        "ModelPackageGroupSummaryList",
        "ModelPackageGroupName",
        "CreateModelPackageGroup",
    ),
    ("sagemaker", "ListModelPackages"): (
        "ModelPackageSummaryList",
        "ModelPackageArn",
        "CreateModelPackage",
    ),
    ("sagemaker", "ListModels"): ("Models", "ModelName", "CreateModel"),
    ("sagemaker", "ListTrainingJobs"): (
        "TrainingJobSummaries",
        "TrainingJobName",
        "CreateTrainingJob",
    ),
}
"""Lists that lag: their member, what names an entry, and the call that makes one."""

_MADE = {(service, made): name for (service, _), (_, name, made) in _LISTS.items()}
_OF_THE_BUCKET = frozenset({"CreateBucket", "DeleteBucket"})


class Late:
    """What was made lately, and how often it is still to be asked for in vain."""

    def __init__(self, looks: Callable[..., int]) -> None:
        """Know of nothing new.

        Args:
            looks: How often something is asked for in vain, by its kind and name.
        """
        self._looks = looks
        self._lock = threading.Lock()
        self._new: dict[tuple[str, str], float] = {}
        self._asked: dict[tuple[str, ...], int] = {}

    def note(self, call: Call, told: Mapping[str, Any], answer: bytes, *, is_users: bool) -> None:
        """See what a call that succeeded has made.

        Args:
            call: The call.
            told: Its parameters.
            answer: The answer's body.
            is_users: Whether no service of AWS made it.
        """
        made = (call.service, call.operation)
        if made == ("iam", "CreateRole"):
            self._add("role", _name_in_xml(answer, "Arn"))
        elif made == ("s3", "CreateBucket"):
            self._add("bucket", told.get("Bucket"))
        elif made == ("s3", "DeleteBucket"):
            self._add("gone", told.get("Bucket"))
        elif made == ("ec2", "RunInstances"):
            for name in _INSTANCE.findall(answer):
                self._add("instance", name.decode())
        elif made == ("logs", "CreateLogGroup") and not is_users:
            self._add("group", told.get("logGroupName"))
        elif made in _MADE:
            name = _MADE[made]
            self._add(name, told.get(name) or _json(answer).get(name))

    def refusal(self, call: Call, told: Mapping[str, Any]) -> Words | None:
        """What a call is told of something that is not known yet; None if it names nothing new."""
        if not self._new:
            return None
        asked = (call.service, call.operation)
        if asked in _ROLES:
            path, say = _ROLES[asked]
            role = _at(told, path)
            return say(role) if self._is_new("role", role, call.service) else None
        if call.service == "s3" and (bucket := told.get("Bucket")):
            if call.operation == "CreateBucket":
                return words.CONFLICT if self._is_new("gone", bucket) else None
            is_others = call.operation not in _OF_THE_BUCKET
            return words.NO_BUCKET if is_others and self._is_new("bucket", bucket) else None
        if call.service == "ec2":
            for name in told.get("InstanceIds") or ():
                if self._is_new("instance", name):
                    return Words(
                        400,
                        "InvalidInstanceID.NotFound",
                        f"The instance ID '{name}' does not exist",
                    )
        if call.service == "logs":
            if self._is_new("group", told.get("logGroupName")):
                return words.NO_GROUP
            if call.operation == "GetLogEvents" and self._is_new(
                "logStreamName", told.get("logStreamName")
            ):
                return words.NO_STREAM
        return None

    def listed(self, call: Call, answer: bytes) -> bytes:
        """A list without what it does not have yet."""
        lagging = _LISTS.get((call.service, call.operation))
        if not lagging or not self._new:
            return answer
        member, name, _ = lagging
        content = _json(answer)
        entries = content.get(member)
        if not isinstance(entries, list):
            return answer
        known = [entry for entry in entries if not self._is_new(name, entry.get(name), "list")]
        return answer if known == entries else json.dumps({**content, member: known}).encode()

    def _add(self, kind: str, name: object) -> None:
        if not isinstance(name, str):
            return
        with self._lock:
            self._new[kind, name] = time.monotonic() + _KNOWN_AFTER_SECONDS
            for asked in [asked for asked in self._asked if asked[:2] == (kind, name)]:
                del self._asked[asked]

    def _is_new(self, kind: str, name: object, by: str = "") -> bool:
        """Whether something is still to be asked for in vain by a service; counts the asking."""
        if not isinstance(name, str):
            return False
        with self._lock:
            known_at = self._new.get((kind, name), 0.0)
            if time.monotonic() > known_at:
                self._new.pop((kind, name), None)
                return False
            asked = self._asked[kind, name, by] = self._asked.get((kind, name, by), 0) + 1
        return asked <= self._looks(kind, name, by)


def _at(told: Mapping[str, Any], path: tuple[str, ...]) -> str:
    found: Any = told
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, str) else ""


def _json(answer: bytes) -> dict[str, Any]:
    try:
        content = json.loads(answer)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _name_in_xml(answer: bytes, element: str) -> str | None:
    found = re.search(rf"<{element}>([^<]+)</{element}>".encode(), answer)
    return found[1].decode() if found else None
