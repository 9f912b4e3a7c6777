"""Which addresses a caller's URL may lead to: hosts on the public internet, and nothing else.

Source: IANA's special-purpose address registries (RFC 6890 and updates). The lists are written out
here, since what `ipaddress.is_global` says differs between Python versions.
"""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address

_IPV4_FORBIDDEN = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT; Alibaba's metadata service
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's platform service
        "169.254.0.0/16",  # link-local; metadata services of AWS, Azure and Google
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments; Oracle's metadata service
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)

# All that is assigned to hosts. Outside it lie loopback, link-local, unique local (with AWS's
# metadata service), multicast, and the IPv4-mapped and IPv4-compatible forms, which never leave a
# machine.
_IPV6_HOSTS = IPv6Network("2000::/3")
_IPV6_FORBIDDEN = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments; Teredo (holds an IPv4 address), ORCHID, benchmarks
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4 (holds an IPv4 address; its relays are gone, RFC 7526)
        "3fff::/20",  # documentation
    )
)

# Where DNS64 answers for hosts that have IPv4 only, their address is inside one of these.
_NAT64 = IPv6Network("64:ff9b::/96")
_LOCAL_NAT64 = IPv6Network("64:ff9b:1::/48")
_LOCAL_NAT64_LENGTHS = (48, 56, 64)
"""Prefix lengths besides 96 that a network may use in `_LOCAL_NAT64` (RFC 6052, 2.2)."""
_NOBODYS = (IPv4Network("0.0.0.0/8"), IPv4Network("240.0.0.0/4"))
"""No hosts, so no packet gets there."""
_ISATAP = frozenset({0x00005EFE, 0x02005EFE})
"""What comes before the IPv4 address in the last 64 bits (RFC 5214, 6.1)."""


def is_public(address: str) -> bool:
    """Whether `address`, an IPv4 or IPv6 address as text, is a host on the public internet.

    An IPv6 address that a gateway turns into an IPv4 one is judged by that.
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, IPv4Address):
        return _is_public_ipv4(parsed)
    last = IPv4Address(int(parsed) & 0xFFFFFFFF)
    if parsed in _NAT64:
        return _is_public_ipv4(last)
    if parsed in _LOCAL_NAT64:
        return _is_public_ipv4(last) and all(
            _is_public_ipv4(other) or any(other in network for network in _NOBODYS)
            for other in _local_readings(int(parsed))
        )
    if int(parsed) >> 32 & 0xFFFFFFFF in _ISATAP and not _is_public_ipv4(last):
        return False
    return parsed in _IPV6_HOSTS and not any(parsed in network for network in _IPV6_FORBIDDEN)


def _is_public_ipv4(address: IPv4Address) -> bool:
    return not any(address in network for network in _IPV4_FORBIDDEN)


def _local_readings(address: int) -> Iterator[IPv4Address]:
    """What a gateway with a shorter prefix than 96 would make of `address`."""
    # Bits 64 to 71 are left out of the IPv4 address.
    bits = address >> 64 << 56 | address & (1 << 56) - 1
    for length in _LOCAL_NAT64_LENGTHS:
        yield IPv4Address(bits >> 120 - 32 - length & 0xFFFFFFFF)
