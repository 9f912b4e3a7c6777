"""Budgets: changes, the subscribers of notifications, and tags."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from botocore import xform_name
from moto.budgets import models, responses, urls
from moto.budgets.exceptions import DuplicateRecordException, NotFoundException
from moto.core.exceptions import JsonRESTError
from moto.sns.models import sns_backends

from localaws.additions import Gap
from localaws.additions._moto import ACCOUNT, answer_with, plain_client, refuses
from localaws.iam.policy import PolicyError, Principal, Request, evaluate


class Budget(models.Budget):
    """A budget that can be tagged."""

    def __init__(self, budget: dict[str, Any], notifications: list[dict[str, Any]]) -> None:
        super().__init__(budget, notifications)
        self.tags: dict[str, str] = {}


class Answers(responses.BudgetsResponse):
    """Moto's answers, mended."""

    def create_budget(self) -> str:
        """Create a budget with its tags."""
        if self._get_param("AccountId") != ACCOUNT:
            raise JsonRESTError("AccessDeniedException", "The account is not the caller's.")
        for each in self._get_param("NotificationsWithSubscribers") or []:
            _check_subscribers(each["Subscribers"])
        answer = super().create_budget()
        budget = self._budget(self._get_param("Budget")["BudgetName"])
        budget.tags = {tag["Key"]: tag["Value"] for tag in self._get_param("ResourceTags") or []}
        return answer

    def update_budget(self) -> str:
        """Change a budget; its notifications stay."""
        new = self._get_param("NewBudget")
        budget = self._budget(new["BudgetName"])
        kept = {"TimePeriod": budget.budget["TimePeriod"]}
        # A new budget checks what is given, and fills in what is not.
        budget.budget = Budget({**kept, **new}, []).budget
        return "{}"

    def describe_notifications_for_budget(self) -> str:
        """The notifications of a budget that exists."""
        self._budget()
        return super().describe_notifications_for_budget()

    def create_notification(self) -> str:
        """Add a notification that the budget does not have."""
        given = self._get_param("Notification")
        if any(_same(found.details, given) for found in self._budget().notifications):
            raise DuplicateRecordException("notification", self._get_param("BudgetName"))
        _check_subscribers(self._get_param("Subscribers"))
        return super().create_notification()

    def update_notification(self) -> str:
        """Change a notification; its subscribers stay."""
        self._notification("OldNotification").details = self._get_param("NewNotification")
        return "{}"

    def delete_notification(self) -> str:
        """Delete a notification that the budget has."""
        self._budget().notifications.remove(self._notification())
        return "{}"

    def describe_subscribers_for_notification(self) -> str:
        """Who is told of a notification."""
        return json.dumps({"Subscribers": self._subscribers()})

    def create_subscriber(self) -> str:
        """Add somebody to be told."""
        given = self._get_param("Subscriber")
        _check_subscribers([*self._subscribers(), given])
        self._subscribers().append(given)
        return "{}"

    def update_subscriber(self) -> str:
        """Put one to be told in the place of another."""
        subscribers = self._subscribers()
        position = _position(subscribers, self._get_param("OldSubscriber"))
        subscribers[position] = self._get_param("NewSubscriber")
        return "{}"

    def delete_subscriber(self) -> str:
        """Remove one to be told; without any the notification goes too, as on AWS."""
        subscribers = self._subscribers()
        del subscribers[_position(subscribers, self._get_param("Subscriber"))]
        if not subscribers:
            self._budget().notifications.remove(self._notification())
        return "{}"

    def list_tags_for_resource(self) -> str:
        """The tags of a budget."""
        tags = self._tagged().tags
        return json.dumps(
            {"ResourceTags": [{"Key": key, "Value": value} for key, value in tags.items()]}
        )

    def tag_resource(self) -> str:
        """Add tags to a budget."""
        given = self._get_param("ResourceTags")
        self._tagged().tags.update({tag["Key"]: tag["Value"] for tag in given})
        return "{}"

    def untag_resource(self) -> str:
        """Remove tags of a budget."""
        tags = self._tagged().tags
        for key in self._get_param("ResourceTagKeys"):
            tags.pop(key, None)
        return "{}"

    def _budget(self, name: str | None = None) -> Any:
        name = name or self._get_param("BudgetName")
        found = self.backend.budgets[self._get_param("AccountId")].get(name)
        if found is None:
            what = _OF_NOTIFICATIONS.get(self._get_action(), f"get budget: {name}")
            raise NotFoundException(f"Unable to {what} - the budget doesn't exist.")
        return found

    def _notification(self, parameter: str = "Notification") -> models.Notification:
        wanted = self._get_param(parameter)
        for found in self._budget().notifications:
            if _same(found.details, wanted):
                return found  # type: ignore[no-any-return]
        raise NotFoundException("Unable to get notification - the notification doesn't exist.")

    def _subscribers(self) -> list[dict[str, str]]:
        # Moto says that it is a mapping, and stores the request's list.
        subscribers: Any = self._notification().subscribers
        return subscribers  # type: ignore[no-any-return]

    def _tagged(self) -> Budget:
        arn = self._get_param("ResourceARN")
        account, name = arn.split(":", 5)[4], arn.partition("budget/")[2]
        found = self.backend.budgets[account].get(name)
        if not isinstance(found, Budget):
            raise NotFoundException(f"Unable to find resource: {arn}")
        return found


# CreateBudget of the API reference.
_MOST_SUBSCRIBERS = {"EMAIL": 10, "SNS": 1}
_ADDRESSES = {"EMAIL": r"[^@\s]+@[^@\s]+\.[^@\s]+", "SNS": r"arn:aws[\w-]*:sns:[\w-]+:\d{12}:.+"}


_OF_NOTIFICATIONS = {
    "CreateNotification": "create notification",
    "DeleteNotification": "delete notification",
}


def _check_subscribers(subscribers: Iterable[Mapping[str, str]]) -> None:
    """Those of one notification: how many, and that a topic lets Budgets in.

    The words about the number are those that people report (archimedes#1712).
    """
    given = list(subscribers)
    for kind, most in _MOST_SUBSCRIBERS.items():
        addresses = [each["Address"] for each in given if each["SubscriptionType"] == kind]
        if len(addresses) > most:
            raise JsonRESTError(
                "CreationLimitExceededException",
                f"one notification can only have {most} subscribers with type of {kind}",
            )
        for address in addresses:
            if not re.fullmatch(_ADDRESSES[kind], address):
                raise JsonRESTError("InvalidParameterException", f"Invalid address: {address}")
            if kind == "SNS" and not _lets_in(address):
                raise JsonRESTError(
                    "InvalidParameterException",
                    f"Budgets may not publish to {address}: the topic is not there, or its policy "
                    "does not allow it",
                )


def _lets_in(topic: str) -> bool:
    """Whether a topic is there and its policy lets Budgets publish."""
    region = topic.split(":")[3]
    found = sns_backends[ACCOUNT][region].topics.get(topic)
    if found is None:
        return False
    context = {
        "aws:SecureTransport": "true",
        "aws:SourceAccount": ACCOUNT,
        "aws:SourceArn": f"arn:aws:budgets::{ACCOUNT}:budget/any",
    }
    asked = Request("sns:Publish", topic, context, Principal("budgets.amazonaws.com", "Service"))
    try:
        policies = [json.loads(found.policy)] if found.policy else []
        return evaluate([], asked, resource_policies=policies).allowed
    except (PolicyError, ValueError):
        return False


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether both mean the same notification; a percentage is meant unless it is said."""

    def identity(details: dict[str, Any]) -> tuple[Any, ...]:
        names = ("NotificationType", "ComparisonOperator", "Threshold")
        return *(details[name] for name in names), details.get("ThresholdType", "PERCENTAGE")

    return identity(one) == identity(other)


def _position(subscribers: list[dict[str, str]], wanted: dict[str, str]) -> int:
    if wanted not in subscribers:
        raise NotFoundException("Unable to get subscriber - the subscriber doesn't exist.")
    return subscribers.index(wanted)


_BUDGET = {
    "BudgetName": "probe",
    "BudgetType": "COST",
    "TimeUnit": "MONTHLY",
    "BudgetLimit": {"Amount": "1", "Unit": "USD"},
}
_NOTIFICATION = {
    "NotificationType": "ACTUAL",
    "ComparisonOperator": "GREATER_THAN",
    "Threshold": 80.0,
}
_SUBSCRIBER = {"SubscriptionType": "EMAIL", "Address": "probe@example.com"}


def _finds_notification_by_meaning() -> bool:
    with plain_client("budgets") as client:
        of_budget = {"AccountId": ACCOUNT, "BudgetName": "probe"}
        client.create_budget(
            AccountId=ACCOUNT,
            Budget=_BUDGET,
            NotificationsWithSubscribers=[
                {"Notification": _NOTIFICATION, "Subscribers": [_SUBSCRIBER]}
            ],
        )
        same = {**_NOTIFICATION, "ThresholdType": "PERCENTAGE"}
        client.delete_notification(**of_budget, Notification=same)
        return not client.describe_notifications_for_budget(**of_budget)["Notifications"]


def _refuses_unknown_budget() -> bool:
    with plain_client("budgets") as client:
        try:
            client.describe_notifications_for_budget(AccountId=ACCOUNT, BudgetName="unknown")
        except client.exceptions.NotFoundException:
            return True
        except KeyError:
            return False
    return False


def _missing(operation: str, effect: str) -> Gap:
    def answered() -> bool:
        return hasattr(responses.BudgetsResponse, xform_name(operation))

    return Gap("budgets", operation, effect, answered)


def _counts_subscribers() -> bool:
    with plain_client("budgets") as client:
        many = [{"SubscriptionType": "EMAIL", "Address": f"a{n}@example.com"} for n in range(11)]
        given = [{"Notification": _NOTIFICATION, "Subscribers": many}]
        return refuses(
            lambda: client.create_budget(
                AccountId=ACCOUNT, Budget=_BUDGET, NotificationsWithSubscribers=given
            )
        )


GAPS = [
    Gap(
        "budgets",
        "CreateBudget.NotificationsWithSubscribers",
        "more subscribers than AWS takes, and topics that do not let Budgets in",
        _counts_subscribers,
    ),
    _missing("UpdateBudget", "a budget cannot be changed"),
    _missing("UpdateNotification", "a notification cannot be changed"),
    _missing("DescribeSubscribersForNotification", "Terraform cannot read a budget"),
    _missing("CreateSubscriber", "a subscriber cannot be added"),
    _missing("UpdateSubscriber", "a subscriber cannot be changed"),
    _missing("DeleteSubscriber", "a subscriber cannot be removed"),
    _missing("ListTagsForResource", "Terraform cannot read a budget: budgets have no tags"),
    Gap(
        "budgets",
        "DeleteNotification",
        "a notification whose default is written out is not found, and no error says so",
        _finds_notification_by_meaning,
    ),
    Gap(
        "budgets",
        "DescribeNotificationsForBudget",
        "an unknown budget is an internal error, which the SDKs ask again and again",
        _refuses_unknown_budget,
    ),
]


def install() -> None:
    """Put the additions in moto's place."""
    models.Budget = Budget  # type: ignore[misc]
    answer_with(urls, Answers)
