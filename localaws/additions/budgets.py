"""Budgets: changes, the subscribers of notifications, and tags."""

import json
from typing import Any

from botocore import xform_name
from moto.budgets import models, responses, urls
from moto.budgets.exceptions import DuplicateRecordException, NotFoundException

from localaws.additions import Gap
from localaws.additions._moto import ACCOUNT, answer_with, plain_client


class Budget(models.Budget):
    """A budget that can be tagged."""

    def __init__(self, budget: dict[str, Any], notifications: list[dict[str, Any]]) -> None:
        super().__init__(budget, notifications)
        self.tags: dict[str, str] = {}


class Answers(responses.BudgetsResponse):
    """Moto's answers, mended."""

    def create_budget(self) -> str:
        """Create a budget with its tags."""
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
        self._subscribers().append(self._get_param("Subscriber"))
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
            raise NotFoundException(f"Unable to get budget: {name} - the budget doesn't exist.")
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


GAPS = [
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
