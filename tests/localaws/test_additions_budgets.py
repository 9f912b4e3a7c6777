"""Budgets on localaws."""

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.localaws.conftest import LocalAws

ACCOUNT = "123456789012"
ARN = f"arn:aws:budgets::{ACCOUNT}:budget/kennel"
OF_BUDGET = {"AccountId": ACCOUNT, "BudgetName": "kennel"}
BUDGET = {
    "BudgetName": "kennel",
    "BudgetType": "COST",
    "TimeUnit": "MONTHLY",
    "BudgetLimit": {"Amount": "100.0", "Unit": "USD"},
    "CostFilters": {"TagKeyValue": ["user:project$kennel"]},
}
SPENT = {
    "NotificationType": "ACTUAL",
    "ComparisonOperator": "GREATER_THAN",
    "Threshold": 80.0,
    "ThresholdType": "PERCENTAGE",
}
FORECAST = {**SPENT, "NotificationType": "FORECASTED", "Threshold": 100.0}
ANN = {"SubscriptionType": "EMAIL", "Address": "ann@example.com"}
BOB = {"SubscriptionType": "EMAIL", "Address": "bob@example.com"}


@pytest.fixture
def budgets(aws: LocalAws) -> Iterator[Any]:
    """A client, and a budget with one notification that is told to Ann."""
    client = aws.client("budgets")
    client.create_budget(
        AccountId=ACCOUNT,
        Budget=BUDGET,
        NotificationsWithSubscribers=[{"Notification": SPENT, "Subscribers": [ANN]}],
        ResourceTags=[{"Key": "owner", "Value": "me"}],
    )
    yield client
    client.delete_budget(**OF_BUDGET)


def notifications(client: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.describe_notifications_for_budget(**OF_BUDGET)[
        "Notifications"
    ]
    return found


def subscribers(client: Any, notification: dict[str, Any]) -> list[dict[str, str]]:
    found: list[dict[str, str]] = client.describe_subscribers_for_notification(
        **OF_BUDGET, Notification=notification
    )["Subscribers"]
    return found


def code(error: pytest.ExceptionInfo[ClientError]) -> str:
    found: str = error.value.response["Error"]["Code"]
    return found


def test_a_change_keeps_the_period_and_the_notifications(budgets: Any) -> None:
    before = budgets.describe_budget(**OF_BUDGET)["Budget"]
    limit = {"Amount": "50.0", "Unit": "USD"}
    budgets.update_budget(AccountId=ACCOUNT, NewBudget={**BUDGET, "BudgetLimit": limit})
    after = budgets.describe_budget(**OF_BUDGET)["Budget"]
    assert after["BudgetLimit"] == limit
    assert after["TimePeriod"] == before["TimePeriod"]
    assert after["CostFilters"] == before["CostFilters"]
    assert notifications(budgets) == [SPENT]


def test_a_change_without_a_limit_is_refused_and_changes_nothing(budgets: Any) -> None:
    without = {name: value for name, value in BUDGET.items() if name != "BudgetLimit"}
    with pytest.raises(ClientError, match="Budget Limit"):
        budgets.update_budget(AccountId=ACCOUNT, NewBudget=without)
    assert budgets.describe_budget(**OF_BUDGET)["Budget"]["BudgetLimit"] == BUDGET["BudgetLimit"]


def test_notifications_are_made_changed_and_deleted(budgets: Any) -> None:
    budgets.create_notification(**OF_BUDGET, Notification=FORECAST, Subscribers=[ANN, BOB])
    sooner = {**SPENT, "Threshold": 70.0}
    budgets.update_notification(**OF_BUDGET, OldNotification=SPENT, NewNotification=sooner)
    assert notifications(budgets) == [sooner, FORECAST]
    assert subscribers(budgets, sooner) == [ANN]
    assert subscribers(budgets, FORECAST) == [ANN, BOB]
    budgets.delete_notification(**OF_BUDGET, Notification=sooner)
    assert notifications(budgets) == [FORECAST]


def test_a_notification_is_the_same_with_its_default_left_out(budgets: Any) -> None:
    short = {name: value for name, value in SPENT.items() if name != "ThresholdType"}
    assert subscribers(budgets, short) == [ANN]
    with pytest.raises(ClientError) as error:
        budgets.create_notification(**OF_BUDGET, Notification=short, Subscribers=[BOB])
    assert code(error) == "DuplicateRecordException"


def test_subscribers_come_and_go(budgets: Any) -> None:
    of_notification = {**OF_BUDGET, "Notification": SPENT}
    budgets.create_subscriber(**of_notification, Subscriber=BOB)
    assert subscribers(budgets, SPENT) == [ANN, BOB]
    cleo = {**ANN, "Address": "cleo@example.com"}
    budgets.update_subscriber(**of_notification, OldSubscriber=ANN, NewSubscriber=cleo)
    budgets.delete_subscriber(**of_notification, Subscriber=BOB)
    assert subscribers(budgets, SPENT) == [cleo]
    budgets.delete_subscriber(**of_notification, Subscriber=cleo)
    assert notifications(budgets) == []


@pytest.mark.parametrize(
    ("operation", "given"),
    [
        ("describe_notifications_for_budget", {"BudgetName": "unknown"}),
        ("describe_subscribers_for_notification", {"Notification": FORECAST}),
        ("delete_notification", {"Notification": FORECAST}),
        ("update_budget", {"NewBudget": {**BUDGET, "BudgetName": "unknown"}}),
        ("delete_subscriber", {"Notification": SPENT, "Subscriber": BOB}),
        ("list_tags_for_resource", {"ResourceARN": f"{ARN}-unknown"}),
    ],
)
def test_what_does_not_exist_is_not_found(
    budgets: Any, operation: str, given: dict[str, Any]
) -> None:
    members = budgets.meta.service_model.operation_model(
        budgets.meta.method_to_api_mapping[operation]
    ).input_shape.members
    asked = {name: value for name, value in {**OF_BUDGET, **given}.items() if name in members}
    with pytest.raises(ClientError) as error:
        getattr(budgets, operation)(**asked)
    assert code(error) == "NotFoundException"


def test_tags_are_added_changed_and_removed(budgets: Any) -> None:
    tags = [{"Key": "owner", "Value": "you"}, {"Key": "project", "Value": "kennel"}]
    budgets.tag_resource(ResourceARN=ARN, ResourceTags=tags)
    assert budgets.list_tags_for_resource(ResourceARN=ARN)["ResourceTags"] == tags
    budgets.untag_resource(ResourceARN=ARN, ResourceTagKeys=["owner"])
    assert budgets.list_tags_for_resource(ResourceARN=ARN)["ResourceTags"] == tags[1:]


def test_a_budget_is_there_after_a_restart(aws: LocalAws, budgets: Any) -> None:
    before = budgets.describe_budget(**OF_BUDGET)["Budget"]
    aws.restart()
    assert budgets.describe_budget(**OF_BUDGET)["Budget"] == before
    assert subscribers(budgets, SPENT) == [ANN]
    assert budgets.list_tags_for_resource(ResourceARN=ARN)["ResourceTags"] == [
        {"Key": "owner", "Value": "me"}
    ]
