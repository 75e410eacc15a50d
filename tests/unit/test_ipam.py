# SPDX-License-Identifier: Apache-2.0
"""Address pools: how they are written, which address is next, what an empty one says."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epic.errors import Exhausted, Invalid
from epic.ipam import AddressRange, first_free, inside6, inside_range, parse_range, public_range
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
    ],
)
def test_pool_is_a_network_or_a_range(text: str, first: str, last: str) -> None:
    assert parse_range(text) == AddressRange(address(first), address(last))


@pytest.mark.parametrize(
    "text", ["", "x", "203.0.113.1/24", "203.0.113.9-", "::1", "1.2.3.4-5.6.7.8-9.9.9.9"]
)
def test_anything_else_is_refused_with_what_is_accepted(text: str) -> None:
    with pytest.raises(Invalid, match=r"such as 203\.0\.113\.10-203\.0\.113\.20"):
        parse_range(text)


def test_reversed_range_is_refused_with_the_right_order() -> None:
    with pytest.raises(Invalid, match=r"write 203\.0\.113\.1-203\.0\.113\.9"):
        parse_range("203.0.113.9-203.0.113.1")


def test_pool_outside_its_subnet_is_refused() -> None:
    pool = AddressPool(pool="203.0.113.250-203.0.114.2", subnet=IPv4Network("203.0.113.0/24"))
    with pytest.raises(Invalid, match=r"not inside its subnet 203\.0\.113\.0/24"):
        public_range(pool)


def test_exhausted_pool_says_which_how_big_and_what_to_do() -> None:
    pool = parse_range("203.0.113.1-203.0.113.2")
    with pytest.raises(Exhausted, match=r"ServicePrefix 'x' has .*enlarge") as refused:
        first_free(pool, [pool.first, pool.last], "ServicePrefix 'x'")
    assert refused.value.detail == "of 203.0.113.1-203.0.113.2, 2 addresses, 0 are free and 1 needed"


def test_inside_pool_of_millions_answers_at_once_without_its_network_address() -> None:
    assert first_free(inside_range(IPv4Network("100.64.0.0/10")), [], "inside") == [address("100.64.0.1")]


@given(size=st.integers(1, 40), used=st.sets(offsets), count=st.integers(1, 5))
def test_free_addresses_are_the_lowest_unused_ones(size: int, used: set[int], count: int) -> None:
    base = address("203.0.113.100")
    pool = AddressRange(base, base + size - 1)
    free = [base + n for n in range(size) if n not in used]
    taken = [base + n for n in used] + [address("192.0.2.1"), address("203.0.113.99")]
    if len(free) < count:
        with pytest.raises(Exhausted):
            first_free(pool, taken, "p", count)
    else:
        assert first_free(pool, taken, "p", count) == free[:count]


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
