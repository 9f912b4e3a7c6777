"""What a plan comes to, in lines."""

from typing import Any

import pytest

from terraform.cli.summary import in_short, lines, named
from trainer.target import Target

ENDPOINT = {"name": "kennel-dev", "endpoint_config_name": "new"}


def resource(kind: str, **values: Any) -> dict[str, Any]:
    return {"mode": "managed", "type": kind, "values": values}


def configuration(name: str, machine: str, instances: int) -> dict[str, Any]:
    variant = {
        "variant_name": "main",
        "instance_type": machine,
        "initial_instance_count": instances,
    }
    return resource(
        "aws_sagemaker_endpoint_configuration", name=name, production_variants=[variant]
    )


def scaled(place: str, least: int, most: int) -> dict[str, Any]:
    values = {"resource_id": place, "min_capacity": least, "max_capacity": most}
    return resource("aws_appautoscaling_target", **values)


def warm(executions: int, **more: Any) -> dict[str, Any]:
    return resource(
        "aws_lambda_provisioned_concurrency_config",
        function_name="classify",
        qualifier="live",
        provisioned_concurrent_executions=executions,
        **more,
    )


def told(*resources: dict[str, Any], region: str = "us-east-1") -> list[str]:
    child = {"resources": list(resources)}
    plan = {"resource_changes": [], "planned_values": {"root_module": {"child_modules": [child]}}}
    return list(lines("serving", Target("dev", "kennel", region), plan))


def test_resources_are_counted_by_type_and_action() -> None:
    def change(kind: str, *actions: str) -> dict[str, Any]:
        return {"type": kind, "change": {"actions": list(actions)}}

    changes = [
        *[change("aws_iam_role", "create")] * 2,
        change("aws_sns_topic", "create"),
        change("terraform_data", "update"),
        change("aws_instance", "delete", "create"),
        change("aws_vpc", "read"),
        change("aws_subnet", "no-op"),
    ]
    (line,) = lines("serving", Target("dev", "kennel", "r"), {"resource_changes": changes})
    assert line == (
        "plan of serving (dev): 3 to add (2 iam_role, 1 sns_topic), 1 to change (1 "
        "terraform_data), 1 to replace (1 instance)"
    )
    target = Target("dev", "kennel", "r")
    (line,) = lines("serving", target, {"resource_changes": changes}, applied=True)
    assert line == (
        "applied to serving (dev): 3 added (2 iam_role, 1 sns_topic), 1 changed (1 "
        "terraform_data), 1 replaced (1 instance)"
    )


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (
            "  + Plan: 1\n\nPlan: 1 to add, 0 to change.\nChanges to Outputs:\n",
            "Plan: 1 to add, 0 to change.",
        ),
        (
            "\nNo changes. Your infrastructure matches.\n",
            "No changes. Your infrastructure matches.",
        ),
        ("\nChanges to Outputs:\n  + a = 1\n", "Changes to Outputs:"),
    ],
)
def test_a_plan_that_is_not_shown_is_told_in_terraform_s_words(plan: str, said: str) -> None:
    assert in_short(plan) == [said]
    assert in_short("") == []
    warned = f"{plan}\nWarning: Check block assertion failed\n\n  on main.tf line 3\n"
    assert in_short(warned) == ["Warning: Check block assertion failed", said]


def test_what_a_plan_changes_is_named() -> None:
    plan = (
        '  # module.a.aws_s3_bucket.this["my key"] will be destroyed\n'
        "  # (because aws_s3_bucket.this is not in configuration)\n"
        '  - resource "aws_s3_bucket" "this" {\n      - a = "# x will be y"\n'
        "  # aws_a.b must be replaced\n"
    )
    assert named(plan) == [
        'module.a.aws_s3_bucket.this["my key"] will be destroyed',
        "aws_a.b must be replaced",
    ]


def test_an_endpoint_costs_its_instances_from_the_least_to_the_most() -> None:
    _, line = told(
        resource("aws_sagemaker_endpoint", **ENDPOINT),
        configuration("old", "ml.c5.large", 9),
        configuration("new", "ml.m5.large", 2),
        scaled("endpoint/kennel-dev/variant/main", 2, 4),
    )
    # 730 hours of 0.115 USD.
    assert line.startswith(
        "cost: 167.90 to 335.80 USD a month as it stands (2 to 4 x ml.m5.large 167.90 to 335.80); "
    )
    assert line.endswith("list prices of us-east-1, 2026-11")


def test_warm_environments_are_counted_once() -> None:
    function = resource("aws_lambda_function", function_name="classify", memory_size=1024)
    # The one whose number is followed is the one that stays.
    _, line = told(function, warm(2, skip_destroy=True), warm(9))
    # 2 GB x 730 h x 3600 s x 0.0000033334 USD.
    assert "(2 warm environments of the function 17.52)" in line
    _, line = told(function, warm(2), scaled("function:classify:live", 1, 3))
    assert "(1 to 3 warm environments of the function 8.76 to 26.28)" in line


def test_what_runs_at_times_is_told_by_the_hour() -> None:
    _, line = told(
        resource("aws_sagemaker_notebook_instance", instance_type="ml.t3.medium", volume_size=5),
        resource("aws_launch_template", instance_type="g5.xlarge"),
        region="eu-west-1",
    )
    assert line == (
        "cost: 0.70 USD a month as it stands (5 GB of the notebook 0.70); an hour while it runs: "
        "notebook ml.t3.medium 0.05, EC2 trainer g5.xlarge 1.01; not counted: jobs, requests, "
        "logs, stored data, traffic; list prices of us-east-1, those of eu-west-1 differ, 2026-11"
    )


@pytest.mark.parametrize("name", ["new", "not known yet"])
def test_what_has_no_price_or_no_value_yet_breaks_nothing(name: str) -> None:
    found = told(
        resource("aws_sagemaker_endpoint", endpoint_config_name=name),
        configuration("new", "ml.p9.metal", 1),
        resource("aws_lambda_function", memory_size=512),
        resource("aws_appautoscaling_target", resource_id="else"),
        resource("aws_cloudwatch_metric_alarm", period=10),
    )
    assert ("1 x ml.p9.metal price unknown" in found[1]) == (name == "new")
    assert "1 alarm 0.30" in found[1]
