"""Service Quotas on localaws."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.localaws.conftest import LocalAws


@pytest.fixture
def quotas(aws: LocalAws) -> Any:
    return aws.client("service-quotas")


def test_sagemaker_s_machines_are_found_by_name_over_many_pages(quotas: Any) -> None:
    pages = list(quotas.get_paginator("list_service_quotas").paginate(ServiceCode="sagemaker"))
    found = {quota["QuotaName"]: quota for page in pages for quota in page["Quotas"]}
    assert len(pages) > 2
    assert len(found) == sum(len(page["Quotas"]) for page in pages)
    for name in (
        "ml.g5.xlarge for training job usage",
        "ml.g5.xlarge for spot training job usage",
        "ml.m5.large for endpoint usage",
        "ml.t3.medium for notebook instance usage",
    ):
        asked = quotas.get_service_quota(
            ServiceCode="sagemaker", QuotaCode=found[name]["QuotaCode"]
        )
        assert asked["Quota"] == found[name]


def test_ec2_counts_processors_under_aws_s_own_codes(quotas: Any) -> None:
    found = quotas.get_service_quota(ServiceCode="ec2", QuotaCode="L-DB2E81BA")["Quota"]
    assert found["QuotaName"] == "Running On-Demand G and VT instances"
    assert found["Value"] >= 4


def test_those_that_moto_has_stay(quotas: Any) -> None:
    assert quotas.list_service_quotas(ServiceCode="vpc", MaxResults=3)["NextToken"]


@pytest.mark.parametrize(("service", "code"), [("ec2", "L-0"), ("nothing", "L-DB2E81BA")])
def test_what_is_not_there_is_an_error(quotas: Any, service: str, code: str) -> None:
    with pytest.raises(ClientError) as error:
        quotas.get_service_quota(ServiceCode=service, QuotaCode=code)
    assert error.value.response["Error"]["Code"] == "NoSuchResourceException"
