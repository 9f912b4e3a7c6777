"""What SageMaker needs of a VPC that a job's or a model's containers are to run in.

What runs here uses this machine's network all the same; what AWS refuses is refused, and what would
not reach S3 there fails with AWS's words.

Sources: SageMaker's developer guide, "Give SageMaker training jobs access to resources in your
Amazon VPC"; aws/amazon-sagemaker-operator-for-k8s pull request 22 (the words).
"""

from collections.abc import Iterable, Mapping
from typing import Any

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import ec2_backends

from localaws import regions
from localaws.errors import LocalAwsError
from localaws.execution import ACCOUNT, Execution
from localaws.iam import authorization
from localaws.iam.policy import Request

NO_S3 = (
    "Please ensure that the subnet's route table has a route to an S3 VPC endpoint or a NAT device,"
    " and both the security groups and the subnet's network ACL allow outbound traffic to S3"
)

_HTTPS = 443
_ANYWHERE = "0.0.0.0/0"
_MADE_ON = ("network-interface", "security-group", "subnet")
# What the execution role needs besides the interface itself.
_LOOKS = (
    "DescribeDhcpOptions",
    "DescribeNetworkInterfaces",
    "DescribeSecurityGroups",
    "DescribeSubnets",
    "DescribeVpcs",
)
_MAKES = (
    "CreateNetworkInterface",
    "CreateNetworkInterfacePermission",
    "DeleteNetworkInterface",
    "DeleteNetworkInterfacePermission",
)


class NetworkError(LocalAwsError):
    """SageMaker cannot use a VPC; the message says why."""


def require(vpc: Mapping[str, Any]) -> None:
    """Look whether a `VpcConfig` names what there is, and belongs together.

    Raises:
        NetworkError: It does not.
    """
    backend = ec2_backends[ACCOUNT][regions.current()]
    try:
        subnets: list[Any] = [backend.get_subnet(name) for name in vpc["Subnets"]]
    except EC2ClientError as error:
        raise NetworkError(error.message) from error
    groups: list[Any] = []
    for name in vpc["SecurityGroupIds"]:
        group = backend.get_security_group_from_id(name)
        if not group:
            raise NetworkError(f"The security group '{name}' does not exist")
        groups.append(group)
    first = subnets[0]
    for other in [*subnets[1:], *groups]:
        if other.vpc_id != first.vpc_id:
            raise NetworkError(
                f"{other.id} and subnet {first.id} belong to different networks: all subnets and"
                " security groups must be of one VPC"
            )


def require_rights(access_key: str, role: str) -> None:
    """Look whether a role may do what SageMaker does with network interfaces in its name.

    Raises:
        NetworkError: It may not.
    """
    place = f"arn:aws:ec2:{regions.current()}:{ACCOUNT}"
    asked = [
        Request(f"ec2:{name}", "*", {"aws:RequestedRegion": regions.current()}) for name in _LOOKS
    ]
    for name in _MAKES:
        kinds = _MADE_ON if name == "CreateNetworkInterface" else _MADE_ON[:1]
        asked += [Request(f"ec2:{name}", f"{place}:{kind}/*") for kind in kinds]
    missing = sorted({r.action for r in asked if not authorization.allows(access_key, r)})
    if missing:
        raise NetworkError(
            f"The role {role} does not have the permissions that a VPC needs: {', '.join(missing)}"
        )


def require_s3(vpc: Mapping[str, Any]) -> None:
    """Look whether S3 is reached from all subnets, and let out by the security groups.

    Raises:
        NetworkError: It is not.
    """
    groups = _groups(vpc)
    lets_out = any(_covers(rule, _HTTPS) for group in groups for rule in group.egress_rules)
    if not lets_out or not all(map(_leads_to_s3, vpc["Subnets"])):
        raise NetworkError(NO_S3)


def require_peers(vpc: Mapping[str, Any]) -> None:
    """Look whether instances in the security groups may talk to each other.

    Raises:
        NetworkError: They may not.
    """
    groups = _groups(vpc)
    own = {group.id for group in groups}

    def are_open(rules: Iterable[Any]) -> bool:
        # What is encrypted between them is ESP, no TCP.
        return any(
            str(rule.ip_protocol) == "-1"
            and (rule.source_group.get("GroupId") in own or _is_anywhere(rule))
            for rule in rules
        )

    inward = [rule for group in groups for rule in group.ingress_rules]
    out = [rule for group in groups for rule in group.egress_rules]
    if not (are_open(inward) and are_open(out)):
        raise NetworkError(
            "The instances cannot reach each other: the security groups must allow all traffic"
            " between their members, in and out"
        )


class Interfaces:
    """The network interfaces of a job's instances, which SageMaker makes and removes."""

    def __init__(self, execution: Execution, vpc: Mapping[str, Any], count: int) -> None:
        """Make one for each instance, in the subnets by turns."""
        self._execution = execution
        self._ids: list[str] = []
        backend = ec2_backends[ACCOUNT][regions.current()]
        with execution.changing():
            for number in range(count):
                subnet = backend.get_subnet(vpc["Subnets"][number % len(vpc["Subnets"])])
                made = backend.create_network_interface(
                    subnet,
                    [],
                    group_ids=list(vpc["SecurityGroupIds"]),
                    description="[Do not delete] Network Interface created to access resources in"
                    " your VPC for SageMaker Training Job",
                )
                self._ids.append(made.id)

    def remove(self) -> None:
        """Remove them. Safe to repeat."""
        with self._execution.changing():
            for name in self._ids:
                ec2_backends[ACCOUNT][regions.current()].enis.pop(name, None)


def _groups(vpc: Mapping[str, Any]) -> list[Any]:
    backend = ec2_backends[ACCOUNT][regions.current()]
    found = [backend.get_security_group_from_id(name) for name in vpc["SecurityGroupIds"]]
    return [group for group in found if group]


def _leads_to_s3(subnet: str) -> bool:
    backend = ec2_backends[ACCOUNT][regions.current()]
    vpc = backend.get_subnet(subnet).vpc_id
    tables = [table for table in backend.route_tables.values() if table.vpc_id == vpc]
    own = [table for table in tables if subnet in table._associations.values()]
    (table,) = own or [table for table in tables if table.main_association_id]
    endpoints = [
        endpoint
        for endpoint in backend.vpc_end_points.values()
        if endpoint.vpc_id == vpc
        and endpoint.service_name == f"com.amazonaws.{regions.current()}.s3"
    ]
    if any(table.id in (endpoint.route_table_ids or []) for endpoint in endpoints):
        return True
    if any(endpoint.private_dns_enabled and endpoint.subnet_ids for endpoint in endpoints):
        return True
    # An internet gateway is no way out: SageMaker's interfaces have no public address.
    return any(
        route.destination_cidr_block == _ANYWHERE
        and (route.nat_gateway or route.instance or route.interface or route.transit_gateway)
        for route in table.routes
    )


def _covers(rule: Any, port: int) -> bool:
    if not (_is_anywhere(rule) or rule.prefix_list_id):
        return False
    if str(rule.ip_protocol) == "-1":
        return True
    first, last = rule.from_port, rule.to_port
    return rule.ip_protocol == "tcp" and int(first or 0) <= port <= int(last or 0)


def _is_anywhere(rule: Any) -> bool:
    return bool(rule.ip_range.get("CidrIp") == _ANYWHERE)
