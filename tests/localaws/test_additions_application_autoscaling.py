"""Application Auto Scaling on localaws."""

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.localaws.conftest import LocalAws

ROLE = "arn:aws:iam::123456789012:role/kennel"
TARGET = {
    "ServiceNamespace": "sagemaker",
    "ResourceId": "endpoint/kennel/variant/main",
    "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
}
TRACKING = {
    "TargetValue": 25.0,
    "PredefinedMetricSpecification": {
        "PredefinedMetricType": "SageMakerVariantConcurrentRequestsPerModelHighResolution"
    },
    "ScaleInCooldown": 30,
    "ScaleOutCooldown": 5,
}


@pytest.fixture(scope="module", autouse=True)
def endpoint(aws: LocalAws) -> Iterator[None]:
    sagemaker = aws.client("sagemaker")
    sagemaker.create_model(ModelName="kennel", ExecutionRoleArn=ROLE)
    variant = {
        "VariantName": "main",
        "ModelName": "kennel",
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
    }
    sagemaker.create_endpoint_config(EndpointConfigName="kennel", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="kennel", EndpointConfigName="kennel")
    yield
    sagemaker.delete_endpoint(EndpointName="kennel")
    sagemaker.delete_endpoint_config(EndpointConfigName="kennel")
    sagemaker.delete_model(ModelName="kennel")


@pytest.fixture
def scaling(aws: LocalAws) -> Iterator[Any]:
    """A client, and the endpoint's variant registered with it."""
    client = aws.client("application-autoscaling")
    client.register_scalable_target(
        **TARGET, MinCapacity=1, MaxCapacity=4, Tags={"owner": "me", "project": "kennel"}
    )
    yield client
    if targets(client):
        client.deregister_scalable_target(**TARGET)


def targets(client: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.describe_scalable_targets(ServiceNamespace="sagemaker")[
        "ScalableTargets"
    ]
    return found


def put_policy(client: Any, **changes: Any) -> str:
    arn: str = client.put_scaling_policy(
        **TARGET,
        PolicyName="concurrency",
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration={**TRACKING, **changes},
    )["PolicyARN"]
    return arn


def put_action(client: Any, **bounds: int) -> None:
    client.put_scheduled_action(
        **TARGET,
        ScheduledActionName="night",
        Schedule="cron(0 20 * * ? *)",
        Timezone="Europe/Berlin",
        ScalableTargetAction={"MinCapacity": 1, "MaxCapacity": 1, **bounds},
    )


def test_a_target_is_described_with_the_role_that_aws_gives_it(scaling: Any) -> None:
    (target,) = targets(scaling)
    assert (target["MinCapacity"], target["MaxCapacity"]) == (1, 4)
    assert target["RoleARN"].endswith(
        "role/aws-service-role/sagemaker.application-autoscaling.amazonaws.com/"
        "AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint"
    )


def test_a_part_of_the_scaling_is_suspended(scaling: Any) -> None:
    scaling.register_scalable_target(**TARGET, SuspendedState={"DynamicScalingInSuspended": True})
    (target,) = targets(scaling)
    assert target["SuspendedState"] == {
        "DynamicScalingInSuspended": True,
        "DynamicScalingOutSuspended": False,
        "ScheduledScalingSuspended": False,
    }
    assert target["MaxCapacity"] == 4


def test_tags_are_added_changed_and_removed(scaling: Any) -> None:
    of_target = {"ResourceARN": targets(scaling)[0]["ScalableTargetARN"]}
    scaling.tag_resource(**of_target, Tags={"owner": "you"})
    assert scaling.list_tags_for_resource(**of_target)["Tags"] == {
        "owner": "you",
        "project": "kennel",
    }
    scaling.untag_resource(**of_target, TagKeys=["owner"])
    assert scaling.list_tags_for_resource(**of_target)["Tags"] == {"project": "kennel"}


def test_tags_of_a_target_that_exists_are_refused(scaling: Any) -> None:
    with pytest.raises(ClientError, match="already exists") as error:
        scaling.register_scalable_target(**TARGET, MaxCapacity=2, Tags={"owner": "you"})
    assert error.value.response["Error"]["Code"] == "ValidationException"
    assert targets(scaling)[0]["MaxCapacity"] == 4


@pytest.mark.parametrize(
    ("namespace", "resource", "dimension"),
    [
        ("sagemaker", "endpoint/unknown/variant/main", TARGET["ScalableDimension"]),
        ("sagemaker", "endpoint/kennel/variant/unknown", TARGET["ScalableDimension"]),
        ("lambda", "function:unknown:live", "lambda:function:ProvisionedConcurrency"),
    ],
)
def test_nothing_is_registered_for_what_does_not_exist(
    scaling: Any, namespace: str, resource: str, dimension: str
) -> None:
    with pytest.raises(ClientError, match="doesn't exist") as error:
        scaling.register_scalable_target(
            ServiceNamespace=namespace,
            ResourceId=resource,
            ScalableDimension=dimension,
            MinCapacity=1,
            MaxCapacity=2,
        )
    assert error.value.response["Error"]["Code"] == "ValidationException"


def test_a_policy_is_changed_and_keeps_its_arn(scaling: Any) -> None:
    assert put_policy(scaling) == put_policy(scaling, TargetValue=30.0)
    (policy,) = scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"]
    assert policy["TargetTrackingScalingPolicyConfiguration"] == {**TRACKING, "TargetValue": 30.0}


def test_a_policy_has_alarms_as_long_as_it_is_there(aws: LocalAws, scaling: Any) -> None:
    put_policy(scaling)
    put_policy(scaling, TargetValue=30.0)
    (policy,) = scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"]
    cloudwatch = aws.client("cloudwatch")
    names = [alarm["AlarmName"] for alarm in policy["Alarms"]]
    high, low = cloudwatch.describe_alarms(AlarmNames=names)["MetricAlarms"]
    assert (high["Threshold"], low["Threshold"]) == (30.0, 27.0)
    assert high["AlarmActions"] == low["AlarmActions"] == [policy["PolicyARN"]]
    assert {d["Name"]: d["Value"] for d in high["Dimensions"]} == {
        "EndpointName": "kennel",
        "VariantName": "main",
    }
    scaling.delete_scaling_policy(**TARGET, PolicyName="concurrency")
    assert not cloudwatch.describe_alarms(AlarmNamePrefix="TargetTracking-")["MetricAlarms"]


def test_a_policy_may_track_a_metric_of_its_own(aws: LocalAws, scaling: Any) -> None:
    metric = {"Namespace": "Kennel", "MetricName": "Waiting"}
    plain = {**metric, "Dimensions": [{"Name": "service", "Value": "a"}], "Statistic": "Maximum"}
    math = {
        "Metrics": [
            {"Id": "w", "MetricStat": {"Metric": metric, "Stat": "Sum"}, "ReturnData": False},
            {"Id": "half", "Expression": "w / 2"},
        ]
    }
    cloudwatch = aws.client("cloudwatch")
    for specification in (plain, math):
        arn = scaling.put_scaling_policy(
            **TARGET,
            PolicyName="own",
            PolicyType="TargetTrackingScaling",
            TargetTrackingScalingPolicyConfiguration={
                "TargetValue": 5.0,
                "CustomizedMetricSpecification": specification,
                "DisableScaleIn": True,
            },
        )["PolicyARN"]
        alarms = cloudwatch.describe_alarms(AlarmNamePrefix="TargetTracking-")["MetricAlarms"]
        (alarm,) = alarms
        assert (alarm["AlarmActions"], alarm["Threshold"]) == ([arn], 5.0)
    assert [query["Id"] for query in alarm["Metrics"]] == ["w", "half"]


def test_nothing_was_done_where_records_are_only_kept(scaling: Any) -> None:
    assert scaling.describe_scaling_activities(**TARGET)["ScalingActivities"] == []


def test_a_schedule_that_is_none_is_refused(scaling: Any) -> None:
    with pytest.raises(ClientError, match="rate") as error:
        scaling.put_scheduled_action(
            **TARGET, ScheduledActionName="night", Schedule="rate(a while)"
        )
    assert error.value.response["Error"]["Code"] == "ValidationException"


def test_bounds_the_wrong_way_round_are_refused(scaling: Any) -> None:
    with pytest.raises(ClientError, match="Maximum capacity cannot be less") as error:
        put_action(scaling, MinCapacity=2)
    assert error.value.response["Error"]["Code"] == "ValidationException"


def test_policies_and_actions_end_with_their_target(scaling: Any) -> None:
    put_policy(scaling)
    put_action(scaling)
    scaling.deregister_scalable_target(**TARGET)
    namespace = {"ServiceNamespace": "sagemaker"}
    assert scaling.describe_scaling_policies(**namespace)["ScalingPolicies"] == []
    assert scaling.describe_scheduled_actions(**namespace)["ScheduledActions"] == []


def test_nothing_is_put_on_a_target_that_is_not_registered(scaling: Any) -> None:
    scaling.deregister_scalable_target(**TARGET)
    for put in (put_policy, put_action):
        with pytest.raises(ClientError) as error:
            put(scaling)
        assert error.value.response["Error"]["Code"] == "ObjectNotFoundException"


def test_an_unknown_scheduled_action_is_not_found(scaling: Any) -> None:
    put_action(scaling)
    scaling.delete_scheduled_action(**TARGET, ScheduledActionName="night")
    with pytest.raises(ClientError) as error:
        scaling.delete_scheduled_action(**TARGET, ScheduledActionName="night")
    assert error.value.response["Error"]["Code"] == "ObjectNotFoundException"


def test_all_is_there_after_a_restart(aws: LocalAws, scaling: Any) -> None:
    put_policy(scaling)
    put_action(scaling)
    (before,) = targets(scaling)
    aws.restart()
    (after,) = targets(scaling)
    assert after == before
    tags = scaling.list_tags_for_resource(ResourceARN=after["ScalableTargetARN"])["Tags"]
    assert tags == {"owner": "me", "project": "kennel"}
    namespace = {"ServiceNamespace": "sagemaker"}
    assert len(scaling.describe_scaling_policies(**namespace)["ScalingPolicies"]) == 1
    assert len(scaling.describe_scheduled_actions(**namespace)["ScheduledActions"]) == 1
