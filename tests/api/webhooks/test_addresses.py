"""Which addresses webhooks may reach."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.webhooks.addresses import AddressRules, parse_networks
from shared.errors import ConfigurationError

PUBLIC = AddressRules()

FORBIDDEN = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "169.254.170.2",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::2",
    "100::1",
    "2001:2::1",
    "2001:db8::1",
    "3fff::1",
    "4000::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
    "2606:4700::1%eth0",
    # IPv6 that stands for forbidden IPv4: mapped, compatible, translated, NAT64, 6to4, Teredo, ISATAP.
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::127.0.0.1",
    "::ffff:0:127.0.0.1",
    "64:ff9b::10.0.0.1",
    "64:ff9b:1::8.8.8.8",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "2001:0:a00:1:0:0:f7f7:f7f7",
    "2001:0:808:808:0:0:80ff:fffe",
    "2606:4700::5efe:10.0.0.1",
    "2606:4700::200:5efe:10.0.0.1",
]

ALLOWED = [
    "1.1.1.1",
    "8.8.8.8",
    "100.63.255.255",
    "100.128.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "223.255.255.255",
    "2001:200::1",
    "2606:4700:4700::1111",
    "2a00:1450:4001::1",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
    "2002:808:808::1",
    "2001:0:808:808:0:0:f7f7:f7f7",
    "2606:4700::5efe:8.8.8.8",
]


@pytest.mark.parametrize("text", FORBIDDEN)
def test_addresses_that_are_not_public_are_forbidden(text: str) -> None:
    assert not PUBLIC.allows(ip_address(text))


@pytest.mark.parametrize("text", ALLOWED)
def test_public_addresses_are_allowed(text: str) -> None:
    assert PUBLIC.allows(ip_address(text))


@pytest.mark.parametrize("text", ["10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::10.1.2.3", "fd00:1::1"])
def test_networks_are_allowed_in_addition(text: str) -> None:
    rules = AddressRules(parse_networks("10.0.0.0/8, fd00:1::/32"))
    assert rules.allows(ip_address(text))
    assert rules.allows(ip_address("8.8.8.8"))
    assert not rules.allows(ip_address("192.168.0.1"))
    assert not rules.allows(ip_address("fd00:2::1"))


def test_a_mapped_address_is_judged_by_its_ipv4_address_even_if_all_of_ipv6_is_allowed() -> None:
    rules = AddressRules((ip_network("::/0"),))
    assert rules.allows(ip_address("::1"))
    assert not rules.allows(ip_address("::ffff:127.0.0.1"))


def test_plain_http_reaches_the_named_networks_only() -> None:
    rules = AddressRules((ip_network("10.0.0.0/8"),))
    assert rules.allows(ip_address("10.0.0.1"), encrypted=False)
    assert not rules.allows(ip_address("8.8.8.8"), encrypted=False)
    assert not rules.allows(ip_address("::ffff:8.8.8.8"), encrypted=False)
    assert not rules.allows(ip_address("2606:4700:4700::1111"), encrypted=False)


@given(st.ip_addresses(v=4))
def test_what_the_standard_library_calls_private_is_forbidden(address: IPv4Address) -> None:
    if not address.is_global or address.is_multicast or address.is_reserved:
        assert not PUBLIC.allows(address)


@given(st.ip_addresses(v=6))
def test_what_the_standard_library_calls_private_is_forbidden_in_ipv6(address: IPv6Address) -> None:
    embeds = address.ipv4_mapped or address.sixtofour or address.teredo
    if not embeds and (not address.is_global or address.is_multicast or address.is_site_local):
        assert not PUBLIC.allows(address)


@given(st.ip_addresses(v=4), st.sampled_from(["::", "::ffff:0:0", "::ffff:0:0:0", "64:ff9b::"]))
def test_an_embedded_address_is_allowed_exactly_if_it_is_allowed_itself(address: IPv4Address, prefix: str) -> None:
    embedding = IPv6Address(int(IPv6Address(prefix)) | int(address))
    assert PUBLIC.allows(embedding) == PUBLIC.allows(address)


@given(st.ip_addresses(v=4), st.integers(0, 2**80 - 1))
def test_a_6to4_address_is_allowed_exactly_if_its_ipv4_address_is(address: IPv4Address, rest: int) -> None:
    embedding = IPv6Address(0x2002 << 112 | int(address) << 80 | rest)
    assert PUBLIC.allows(embedding) == PUBLIC.allows(address)


def test_networks_are_separated_by_commas() -> None:
    assert parse_networks("") == ()
    assert parse_networks(" 10.0.0.0/8 ,fd00::/8,, 192.168.7.9") == (
        ip_network("10.0.0.0/8"),
        ip_network("fd00::/8"),
        ip_network("192.168.7.9/32"),
    )


@pytest.mark.parametrize("text", ["10.0.0.1/8", "intranet", "10.0.0.0/8;fd00::/8", "10.0.0.0/33", "*"])
def test_an_invalid_network_is_an_error_that_names_the_setting(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^RERANKQ_WEBHOOK_NETWORKS must be networks such as 10.0.0.0/8"):
        parse_networks(text)
