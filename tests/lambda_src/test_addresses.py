from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambda_src.addresses import is_public

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "93.184.215.14",
    "172.32.0.1",
    "192.0.1.1",
    "2606:4700::1111",
    "2606:4700::5efe:808:808",  # ISATAP
    "64:ff9b::5db8:d70e",
    "64:ff9b::93.184.215.14",
    "64:ff9b:1::808:808",
    "64:ff9b:1:fffe::808:808",
    "64:ff9b:1:abcd::808:808",
]
FORBIDDEN = [
    "0.0.0.0",
    "10.255.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "168.63.129.16",
    "169.254.169.254",
    "172.31.255.255",
    "192.0.0.192",
    "192.168.1.1",
    "198.19.0.1",
    "224.0.0.1",
    "239.255.255.255",
    "255.255.255.255",
    "::",
    "::1",
    "64:ff9b:1::1",
    # Behind a gateway whose prefix has 48 bits: 127.0.0.1, 10.0.0.1; 56 bits: 10.0.0.1.
    "64:ff9b:1:7f00:0:100:808:808",
    "64:ff9b:1:a00:0:100:808:808",
    "64:ff9b:1:a:0:1:808:808",
    "64:ff9b:1:0:a:0:108:808",  # 64 bits
    "64:ff9b:0:1::808:808",
    "64:ff9b:2::808:808",
    "2606:4700::5efe:10.0.0.1",
    "2606:4700::200:5efe:a9fe:a9fe",
    "100::1",
    "2001:db8::1",
    "3fff::1",
    "5f00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "not an address",
    "",
]
# Every IPv6 form that carries an IPv4 address, by what comes before the address and after it.
EMBEDDINGS = {
    "mapped": ("::ffff:0:0", 0),
    "compatible": ("::", 0),
    "translated": ("::ffff:0:0:0", 0),
    "6to4": ("2002::", 80),
    "Teredo server": ("2001::", 64),
}
# And those that a gateway turns back into it.
GATEWAYS = [IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48")]
TRANSLATED = ["64:ff9b::", "64:ff9b:1::", "64:ff9b:1:fffe::"]


@pytest.mark.parametrize("address", PUBLIC)
def test_a_host_on_the_internet_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", FORBIDDEN)
def test_everything_else_is_not(address: str) -> None:
    assert not is_public(address)


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
def test_what_is_public_here_is_public_to_the_standard_library(
    address: IPv4Address | IPv6Address,
) -> None:
    if is_public(str(address)):
        if any(address in network for network in GATEWAYS):
            address = IPv4Address(int(address) & 0xFFFFFFFF)
        assert address.is_global
        assert not address.is_multicast
        assert not address.is_reserved


@given(
    st.sampled_from(["10.0.0.0", "100.64.0.0", "127.0.0.0", "169.254.0.0", "192.168.0.0"]),
    st.integers(min_value=0, max_value=2**16 - 1),
)
def test_no_address_of_a_private_network_is_public(network: str, offset: int) -> None:
    assert not is_public(str(ip_address(network) + offset))


@pytest.mark.parametrize("prefix", TRANSLATED)
@given(address=st.ip_addresses(v=4))
def test_an_address_for_a_gateway_is_judged_by_the_one_inside(
    prefix: str, address: IPv4Address
) -> None:
    translated = IPv6Address(int(IPv6Address(prefix)) | int(address))
    assert is_public(str(translated)) == is_public(str(address))


@pytest.mark.parametrize("form", EMBEDDINGS)
@given(address=st.ip_addresses(v=4))
def test_no_ipv6_form_of_an_ipv4_address_is_public(form: str, address: IPv4Address) -> None:
    prefix, shift = EMBEDDINGS[form]
    assert not is_public(str(IPv6Address(int(IPv6Address(prefix)) | int(address) << shift)))
