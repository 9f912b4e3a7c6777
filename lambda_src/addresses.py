"""Which addresses a caller's URL may lead to: hosts on the public internet, and nothing else.

Source: IANA's special-purpose address registries (RFC 6890 and updates). The lists are written out
here, since what `ipaddress.is_global` says differs between Python versions.
"""

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
# metadata service), multicast, and the IPv4-mapped, IPv4-compatible and NAT64 forms.
_IPV6_HOSTS = IPv6Network("2000::/3")
_IPV6_FORBIDDEN = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments; Teredo (holds an IPv4 address), ORCHID, benchmarks
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4 (holds an IPv4 address)
        "3fff::/20",  # documentation
    )
)


def is_public(address: str) -> bool:
    """Whether `address`, an IPv4 or IPv6 address as text, is a host on the public internet."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, IPv4Address):
        return not any(parsed in network for network in _IPV4_FORBIDDEN)
    return parsed in _IPV6_HOSTS and not any(parsed in network for network in _IPV6_FORBIDDEN)
