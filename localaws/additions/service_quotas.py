"""Service Quotas: what this account may use of SageMaker and EC2.

AWS gives a new account none of most machines; this is one that has asked for more.
"""

import functools
import hashlib
from collections.abc import Iterator
from typing import Any

from moto.core.responses import ActionResult
from moto.core.utils import get_service_model
from moto.servicequotas import urls
from moto.servicequotas.exceptions import NoSuchResource
from moto.servicequotas.responses import ServiceQuotasResponse

from localaws.additions import Gap
from localaws.additions._moto import ACCOUNT, answer_with, page, plain_client, refuses

INSTANCES = 20.0
"""Of each of SageMaker's types, for each use."""
VCPUS = 64.0
"""Of each of EC2's groups of types."""
_PAGE = 100
_SERVICES = {"ec2": "Amazon Elastic Compute Cloud (Amazon EC2)", "sagemaker": "Amazon SageMaker"}
# SageMaker's own list of types, and what it calls their use.
_USES = {
    "InstanceType": ["notebook instance usage"],
    "ProductionVariantInstanceType": ["endpoint usage"],
    "TrainingInstanceType": [
        "training job usage",
        "spot training job usage",
        "training warm pool usage",
    ],
}
# https://docs.aws.amazon.com/ec2/latest/instancetypes/ec2-instance-quotas.html
_VCPU_QUOTAS = {
    "L-1216C47A": "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances",
    "L-34B43A08": "All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests",
    "L-DB2E81BA": "Running On-Demand G and VT instances",
    "L-3819A6DF": "All G and VT Spot Instance Requests",
    "L-417A185B": "Running On-Demand P instances",
    "L-7212CCBC": "All P4, P3 and P2 Spot Instance Requests",
}


class Answers(ServiceQuotasResponse):
    """Moto's answers, and those of two more services."""

    def list_service_quotas(self) -> ActionResult:
        """A page of a service's quotas."""
        size = int(self._get_param("MaxResults") or _PAGE)
        quotas, token = page(self._quotas(), self._get_param("NextToken"), size)
        return ActionResult({"Quotas": quotas, **token})

    def get_service_quota(self) -> Any:
        """One quota."""
        code = self._get_param("QuotaCode")
        for quota in self._quotas():
            if quota["QuotaCode"] == code:
                return ActionResult({"Quota": quota})
        raise NoSuchResource

    def _quotas(self) -> list[dict[str, Any]]:
        service = str(self._get_param("ServiceCode"))
        if service in _SERVICES:
            return _known(service, self.region)
        return self.backend.list_aws_default_service_quotas(service)


@functools.cache
def _known(service: str, region: str) -> list[dict[str, Any]]:
    found = _machines() if service == "sagemaker" else _processors()
    return [
        {
            "ServiceCode": service,
            "ServiceName": _SERVICES[service],
            "QuotaArn": f"arn:aws:servicequotas:{region}:{ACCOUNT}:{service}/{code}",
            "QuotaCode": code,
            "QuotaName": name,
            "Value": value,
            "Unit": "None",
            "Adjustable": True,
            "GlobalQuota": False,
        }
        for code, name, value in found
    ]


def _machines() -> Iterator[tuple[str, str, float]]:
    model = get_service_model("sagemaker")
    for shape, uses in _USES.items():
        for kind in model.shape_for(shape).enum:
            for use in uses:
                name = f"{kind} for {use}"
                yield f"L-{hashlib.sha256(name.encode()).hexdigest()[:8].upper()}", name, INSTANCES


def _processors() -> Iterator[tuple[str, str, float]]:
    for code, name in _VCPU_QUOTAS.items():
        yield code, name, VCPUS


def _lists() -> bool:
    with plain_client("service-quotas") as quotas:
        try:
            return bool(quotas.list_service_quotas(ServiceCode="sagemaker")["Quotas"])
        except NotImplementedError:
            return False


def _knows_processors() -> bool:
    with plain_client("service-quotas") as quotas:
        return not refuses(
            lambda: quotas.get_service_quota(ServiceCode="ec2", QuotaCode="L-1216C47A")
        )


GAPS = [
    Gap(
        service="service-quotas",
        operation="ListServiceQuotas",
        effect="nobody can see before a job or an endpoint whether the account has the machines",
        closed=_lists,
    ),
    Gap(
        service="service-quotas",
        operation="GetServiceQuota of ec2",
        effect="nobody can see before a launch whether the account has the processors",
        closed=_knows_processors,
    ),
]


def install() -> None:
    """Answer for SageMaker and EC2, too."""
    answer_with(urls, Answers)
