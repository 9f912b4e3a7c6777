"""Calls that localaws has recorded, held against policies."""

from collections.abc import Iterable, Mapping
from typing import Any

from localaws.iam.actions import requests
from localaws.iam.policy import Document, evaluate

TRAINER = {"Name": "kennel-local-trainer"}
LAUNCHED = {
    "InstanceType": "g5.xlarge",
    "TagSpecifications": [
        {
            "ResourceType": kind,
            "Tags": [{"Key": key, "Value": value} for key, value in TRAINER.items()],
        }
        for kind in ("instance", "volume")
    ],
}


class Recorded:
    """What the records tell of the account: all that EC2 has made is the trainer's."""

    def tags(self, resource_id: str) -> Mapping[str, str]:
        return TRAINER

    def boundary(self, role: str) -> None:
        return None

    def profile_role(self, profile: str) -> None:
        return None

    def launch_template(self, told: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
        return str(told["LaunchTemplateId"]), LAUNCHED

    def has_role(self, name: str) -> bool:
        return False

    def key(self, bucket: str, name: str | None = None) -> None:
        return None

    def volume_key(self, endpoint_config: str) -> None:
        return None


def refused(calls: Iterable[Mapping[str, Any]], policies: Iterable[Document]) -> list[str]:
    """Give what the recorded calls ask for and these policies do not allow, each once."""
    documents = list(policies)
    found = {
        f"{call['service']}:{call['operation']}: {request.action} on {request.resource}"
        for call in calls
        for request in requests(call["service"], call["operation"], told(call), Recorded())
        if not evaluate(documents, request).allowed
    }
    return sorted(found)


def told(call: Mapping[str, Any]) -> Mapping[str, Any]:
    # The body of CreateFunction is too large to be recorded.
    missing = {"FunctionName": "kennel-local-classify"} if call["service"] == "lambda" else {}
    return {**missing, **call["parameters"]}


def without(documents: Iterable[Document], action: str) -> list[Document]:
    """Give policies in which no statement allows an action."""
    return [
        {**document, "Statement": [s for s in _statements(document, action) if s["Action"]]}
        for document in documents
    ]


def _statements(document: Document, action: str) -> list[dict[str, Any]]:
    def actions(statement: Mapping[str, Any]) -> list[str]:
        given = statement["Action"]
        return [given] if isinstance(given, str) else list(given)

    return [
        {**s, "Action": [one for one in actions(s) if one.lower() != action.lower()]}
        if s["Effect"] == "Allow"
        else s
        for s in document["Statement"]
    ]
