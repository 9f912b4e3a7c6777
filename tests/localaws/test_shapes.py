"""The checker of answers finds what is wrong."""

from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.model import Shape
from botocore.session import get_session

from tests.localaws.shapes import problems

ENDPOINT: dict[str, Any] = {
    "EndpointName": "kennel",
    "EndpointArn": "arn:aws:sagemaker:us-east-1:123456789012:endpoint/kennel",
    "EndpointStatus": "InService",
    "CreationTime": datetime(2026, 1, 1, tzinfo=UTC),
    "LastModifiedTime": datetime(2026, 1, 1, tzinfo=UTC),
    "ProductionVariants": [{"VariantName": "main", "CurrentInstanceCount": 1}],
}


@pytest.fixture(scope="module")
def shape() -> Shape:
    return get_session().get_service_model("sagemaker").shape_for("DescribeEndpointOutput")


def test_a_whole_answer_has_no_problems(shape: Shape) -> None:
    assert problems(ENDPOINT, shape) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"EndpointStatus": "Fine"}, "answer.EndpointStatus is none of"),
        ({"EndpointName": 1}, "answer.EndpointName is no string: 1"),
        ({"CreationTime": "today"}, "answer.CreationTime is no timestamp: 'today'"),
        ({"ProductionVariants": {}}, "answer.ProductionVariants is no list: {}"),
        ({"ProductionVariants": [{}]}, "answer.ProductionVariants[0] lacks VariantName"),
        ({"DataCaptureConfig": "off"}, "answer.DataCaptureConfig is no structure: 'off'"),
        (
            {"ProductionVariants": [{"VariantName": "main", "CurrentInstanceCount": True}]},
            "answer.ProductionVariants[0].CurrentInstanceCount is a boolean, not integer",
        ),
    ],
)
def test_what_does_not_fit_is_named(shape: Shape, change: dict[str, Any], problem: str) -> None:
    (found,) = problems({**ENDPOINT, **change}, shape)
    assert found.startswith(problem)


def test_what_is_required_and_not_there_is_named(shape: Shape) -> None:
    (found,) = problems({**ENDPOINT, "EndpointArn": None}, shape)
    assert found == "answer.EndpointArn is no string: None"
    without = {name: value for name, value in ENDPOINT.items() if name != "EndpointArn"}
    assert problems(without, shape) == ["answer lacks EndpointArn"]
