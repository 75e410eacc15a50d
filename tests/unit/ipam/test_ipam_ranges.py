# SPDX-License-Identifier: Apache-2.0
"""Address pools: how they are written, and which addresses that is."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epic.errors import Invalid
from epic.ipam.networks import inside6
from epic.ipam.ranges import AddressRange, inside_range, parse_range, public_range
from epic.model.resources import AddressPool

offsets = st.integers(0, 40)


def address(text: str) -> IPv4Address:
    return IPv4Address(text)


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("203.0.113.0/24", "203.0.113.0", "203.0.113.255"),
        ("203.0.113.7/32", "203.0.113.7", "203.0.113.7"),
        ("203.0.113.2-203.0.113.77", "203.0.113.2", "203.0.113.77"),
        ("2001:db8::/64", "2001:db8::", "2001:db8::ffff:ffff:ffff:ffff"),
        ("2001:db8::1-2001:db8::9", "2001:db8::1", "2001:db8::9"),
    ],
)
def test_pool_is_a_network_or_a_range(text: str, first: str, last: str) -> None:
    assert parse_range(text) == AddressRange(ip_address(first), ip_address(last))


@pytest.mark.parametrize(
    "text", ["", "x", "203.0.113.1/24", "203.0.113.9-", "::1/64", "1.2.3.4-5.6.7.8-9.9.9.9"]
)
def test_anything_else_is_refused_with_what_is_accepted(text: str) -> None:
    with pytest.raises(Invalid, match=r"such as 203\.0\.113\.10-203\.0\.113\.20"):
        parse_range(text)


def test_a_range_of_one_hosts_addresses_is_refused() -> None:
    with pytest.raises(Invalid, match="'2001:db8::1%eth0' has a zone id"):
        parse_range("2001:db8::1%eth0-2001:db8::5%eth0")


def test_reversed_range_is_refused_with_the_right_order() -> None:
    with pytest.raises(Invalid, match=r"write 203\.0\.113\.1-203\.0\.113\.9"):
        parse_range("203.0.113.9-203.0.113.1")


def test_families_do_not_mix_in_a_range() -> None:
    with pytest.raises(Invalid, match="the first address is IPv4, the last IPv6"):
        parse_range("203.0.113.1-2001:db8::1")
    assert IPv4Address("0.0.0.1") not in parse_range("::/64")
    assert not parse_range("0.0.0.0/0").overlaps(parse_range("::/0"))


def test_inside_pool_leaves_out_the_addresses_of_its_network() -> None:
    found = inside_range(IPv4Network("100.64.0.0/10"))
    assert (str(found.first), str(found.last)) == ("100.64.0.1", "100.127.255.254")


def test_pool_outside_its_subnet_is_refused() -> None:
    pool = AddressPool(pool="203.0.113.250-203.0.114.2", subnet=IPv4Network("203.0.113.0/24"))
    with pytest.raises(Invalid, match=r"not inside its subnet 203\.0\.113\.0/24"):
        public_range(pool)


@pytest.mark.parametrize(
    ("pool", "subnet", "first"),
    [
        ("2001:db8::/64", "2001:db8::/64", "2001:db8::1"),
        ("2001:db8::-2001:db8::9", "2001:db8::/64", "2001:db8::1"),
        ("2001:db8::/112", "2001:db8::/48", "2001:db8::1"),
        ("2001:db8::7:0/112", "2001:db8::7:0/112", "2001:db8::7:1"),
        ("2001:db8::7:0/112", "2001:db8::/64", "2001:db8::7:0"),
        ("2001:db8::7:0/127", "2001:db8::7:0/127", "2001:db8::7:0"),
        ("203.0.113.0/24", "203.0.113.0/24", "203.0.113.0"),
    ],
)
def test_the_address_of_a_subnets_routers_is_no_gateways(pool: str, subnet: str, first: str) -> None:
    assert public_range(AddressPool(pool=pool, subnet=ip_network(subnet))).first == ip_address(first)


def test_pool_of_nothing_but_the_address_of_its_routers_is_refused() -> None:
    pool = AddressPool(pool="2001:db8::/128", subnet=IPv6Network("2001:db8::/64"))
    with pytest.raises(Invalid, match=r"'2001:db8::/128' has no address but 2001:db8::, .* routers"):
        public_range(pool)


@given(a=st.tuples(offsets, offsets), b=st.tuples(offsets, offsets))
def test_overlap_is_having_an_address_in_common(a: tuple[int, int], b: tuple[int, int]) -> None:
    base = address("203.0.113.0")
    first, second = (AddressRange(base + min(x), base + max(x)) for x in (a, b))
    common = any(base + n in first and base + n in second for n in range(41))
    assert first.overlaps(second) == common


@given(st.ip_addresses(v=4))
def test_the_ipv6_inside_address_ends_with_the_ipv4_one(inside: IPv4Address) -> None:
    pool = IPv6Network("fd65:7069:6300::/96")
    assert inside6(pool, inside) in pool
    assert inside6(pool, inside).packed[-4:] == inside.packed
