# SPDX-License-Identifier: Apache-2.0
"""Which addresses can be at the other end of a tunnel, and what is said of the others."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest

from epic.model.values.addresses import order, tunnel_address, usable


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("10.0.0.256", "is not an IPv4 or IPv6 address"),
        ("host", "is not an IPv4 or IPv6 address"),
        ("10.0.0.0/8", "is not an IPv4 or IPv6 address"),
        ("fe80::1%eth0", "has a zone id"),
        ("2001:db8::1%7", "has a zone id"),
        ("::ffff:10.0.0.1", "is an IPv4-mapped address; write 10.0.0.1"),
        ("0.0.0.0", "is the unspecified address"),  # noqa: S104
        ("::", "is the unspecified address"),
        ("127.0.0.1", "is a loopback address"),
        ("::1", "is a loopback address"),
        ("224.0.0.1", "is a multicast address"),
        ("ff02::1", "is a multicast address"),
        ("169.254.0.1", "is a link-local address"),
        ("fe80::1", "is a link-local address"),
        ("255.255.255.255", "is the broadcast address"),
    ],
)
def test_what_no_other_host_can_reach_is_refused_with_the_reason(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        tunnel_address(text)
    assert usable(text) is None


@pytest.mark.parametrize("text", ["10.1.2.3", "198.51.100.1", "2001:db8::1", "fd00::1", "240.0.0.1"])
def test_unicast_addresses_of_both_families_are_taken(text: str) -> None:
    assert str(tunnel_address(text)) == text


def test_spellings_of_an_address_are_the_same_address() -> None:
    assert usable("2001:DB8:0:0::A") == usable("2001:db8::a")


def test_ipv4_comes_first_and_both_are_in_order_of_number() -> None:
    mixed = [IPv6Address("::2"), IPv4Address("10.0.0.10"), IPv6Address("::1"), IPv4Address("10.0.0.9")]
    assert [*map(str, sorted(mixed, key=order))] == ["10.0.0.9", "10.0.0.10", "::1", "::2"]
