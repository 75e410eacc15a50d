# SPDX-License-Identifier: Apache-2.0
"""Pools of a ServicePrefix: what they must not touch, and which address a gateway gets."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network, ip_network

import pytest

from epic.errors import Conflict, Exhausted, Invalid
from epic.ipam.book import AddressBook
from epic.ipam.networks import DEFAULT_POOLS, PlatformNetworks
from epic.ipam.prefixes import check_kept, check_node_addresses, check_prefix, choose_addresses
from epic.ipam.ranges import parse_range
from epic.ipam.releases import Asker, Releases
from epic.model.gatewayapi import GatewayAddress
from epic.model.resources import GWProxy, Node, ServicePrefix


def node(name: str, address: str, management: str = "") -> Node:
    spec = {"address": address, "management-address": management}
    return Node.model_validate({"metadata": {"name": name}, "spec": spec})


PLATFORM = PlatformNetworks.of(
    IPv4Network("100.64.0.0/10"),
    DEFAULT_POOLS,
    [node("epic1", "172.30.11.2", "198.18.0.2"), node("epic2", "172.30.11.3", "epic2.example.net")],
)

ASKER = Asker("a", datetime(2026, 1, 1, tzinfo=UTC))


def prefix(name: str, pool: str, alt: str = "", aggregation: str = "default") -> ServicePrefix:
    def written(text: str) -> dict[str, str]:
        first = text.partition("-")[0].partition("/")[0]
        subnet = str(ip_network(f"{first}/{64 if ':' in first else 24}", strict=False))
        return {"pool": text, "subnet": subnet, "aggregation": aggregation}

    spec = {"public-pool": written(pool)} | ({"alt-pool": written(alt)} if alt else {})
    return ServicePrefix.model_validate({"metadata": {"name": name}, "spec": spec})


@pytest.mark.parametrize(
    ("pool", "why"),
    [
        ("127.0.0.0/28", r"127\.0\.0\.0/28 cannot .*: they are loopback addresses"),
        ("224.0.0.0/28", "multicast"),
        ("169.254.1.0/28", "link-local"),
        ("100.64.0.0/28", r"the pool of inside addresses is 100\.64\.0\.0/10"),
        ("100.63.255.0-100.64.0.9", r"100\.64\.0\.0-100\.64\.0\.9 cannot"),
        ("250.0.0.0/28", "the pool of mapped addresses"),
        ("172.30.11.0/24", r"172\.30\.11\.2 cannot .*: it is the address of EPIC node 'epic1'"),
        ("198.18.0.0/24", r"198\.18\.0\.2 cannot .*: it is the management address of EPIC node 'epic1'"),
    ],
)
def test_the_platforms_own_addresses_are_refused_with_the_reason(pool: str, why: str) -> None:
    with pytest.raises(Invalid, match=why):
        PLATFORM.check(parse_range(pool))


@pytest.mark.parametrize(
    ("pool", "why"),
    [
        ("::1-::9", "loopback"),
        ("fe80::/64", "link-local"),
        ("fd65:7069:6300::/112", "IPv6 inside addresses"),
        ("::10.0.0.0/120", "reserved by the IETF"),
        ("64:ff9b::203.0.113.0/120", "reserved by the IETF, with those that are translated to IPv4"),
        ("100::/64", "discarded"),
        ("2002:cb00:7100::/48", "6to4"),
        ("fec0::/64", "site-local"),
    ],
)
def test_of_ipv6_too(pool: str, why: str) -> None:
    with pytest.raises(Invalid, match=why):
        PLATFORM.check(parse_range(pool))


def test_pools_overlap_none_of_their_own_and_of_other_prefixes() -> None:
    other = prefix("other", "203.0.113.0/28", "203.0.113.32/28")
    check_prefix("new", prefix("new", "203.0.113.16/28").spec, [other], PLATFORM)
    with pytest.raises(Invalid, match=r"public-pool\.pool: .* overlaps the alt-pool of address pool 'other'"):
        check_prefix("new", prefix("new", "203.0.113.40/32").spec, [other], PLATFORM)
    with pytest.raises(Invalid, match=r"alt-pool\.pool: .* overlaps address pool 'new'"):
        check_prefix("new", prefix("new", "198.51.100.0/28", "198.51.100.8/32").spec, [other], PLATFORM)
    check_prefix("other", other.spec, [other], PLATFORM)


def test_alternative_pool_must_not_be_the_platforms_either() -> None:
    with pytest.raises(Invalid, match=r"^service-prefix\.spec\.alt-pool\.pool: .*loopback"):
        check_prefix("p", prefix("p", "203.0.113.0/28", "127.0.0.1/32").spec, [], PLATFORM)


@pytest.mark.parametrize("aggregation", ["default", "/32"])
def test_addresses_are_announced_one_by_one(aggregation: str) -> None:
    check_prefix("p", prefix("p", "203.0.113.0/28", aggregation=aggregation).spec, [], PLATFORM)


@pytest.mark.parametrize("aggregation", ["banana", "/24", "", "/128"])
def test_any_other_aggregation_is_refused(aggregation: str) -> None:
    with pytest.raises(Invalid, match="aggregate on the upstream routers"):
        check_prefix("p", prefix("p", "203.0.113.0/28", aggregation=aggregation).spec, [], PLATFORM)


def test_pool_does_not_move_away_from_under_its_gateways() -> None:
    gateway = GWProxy.model_validate(
        {
            "metadata": {"name": "g", "namespace": "a"},
            "spec": {"service-prefix": "p", "public-address": "203.0.113.5"},
        }
    )
    check_kept("p", prefix("p", "203.0.113.0/29").spec, [gateway])
    check_kept("p", prefix("p", "198.51.100.0/29", "203.0.113.5/32").spec, [gateway])
    check_kept("q", prefix("q", "198.51.100.0/29").spec, [gateway])
    with pytest.raises(Conflict, match=r"gateway a\.g has the address 203\.0\.113\.5"):
        check_kept("p", prefix("p", "198.51.100.0/29").spec, [gateway])


def test_node_has_no_address_of_gateways() -> None:
    pools = [prefix("p", "203.0.113.0/28")]
    check_node_addresses(node("n", "192.0.2.1", "192.0.2.2").spec, pools)
    with pytest.raises(Invalid, match=r"node\.spec\.address: 203\.0\.113\.3 is in address pool 'p'"):
        check_node_addresses(node("n", "203.0.113.3").spec, pools)
    with pytest.raises(Invalid, match=r"node\.spec\.management-address: 203\.0\.113\.3 is in address pool"):
        check_node_addresses(node("n", "192.0.2.1", "203.0.113.3").spec, pools)


def test_alternative_pool_is_used_when_the_first_is_full() -> None:
    book, pools = AddressBook(), prefix("p", "203.0.113.1/32", "203.0.113.9/32")
    got = []
    for gateway in range(2):
        got += choose_addresses(pools, book, Releases(), (), ASKER)
        book.hold(gateway, got[-1:])
    assert [str(address) for address in got] == ["203.0.113.1", "203.0.113.9"]
    with pytest.raises(Exhausted, match="address pool 'p'"):
        choose_addresses(pools, book, Releases(), (), ASKER)


def ask(*values: str, type_: str = "IPAddress") -> list[GatewayAddress]:
    return [GatewayAddress(type=type_, value=value) for value in values]


def test_gateway_gets_the_address_that_it_asks_for() -> None:
    book, pools = AddressBook(), prefix("p", "203.0.113.0/28", "198.51.100.7/32")
    assert choose(pools, book, ask("198.51.100.7")) == ["198.51.100.7"]
    assert choose(pools, book, ask("")) == ["203.0.113.0"]
    book.hold("g", [IPv4Address("203.0.113.5")])
    with pytest.raises(Conflict, match=r"203\.0\.113\.5 is not free"):
        choose(pools, book, ask("203.0.113.5"))


@pytest.mark.parametrize(
    ("requested", "why"),
    [
        (ask("192.0.2.1"), r"does not have the address 192\.0\.2\.1"),
        (ask("203.0.113.1", "203.0.113.2"), r"203\.0\.113\.1 and 203\.0\.113\.2 .* one address of a family"),
        (ask("2001:db8::1"), r"does not have the address 2001:db8::1"),
        (ask("nonsense"), r"addresses\.0\.value: 'nonsense' is not"),
        (ask("x.example", type_="Hostname"), "'Hostname' is not served"),
    ],
)
def test_what_cannot_be_had_is_refused(requested: list[GatewayAddress], why: str) -> None:
    with pytest.raises(Invalid, match=why):
        choose(prefix("p", "203.0.113.0/28"), AddressBook(), requested)


def choose(pools: ServicePrefix, book: AddressBook, requested: list[GatewayAddress]) -> list[str]:
    return [str(address) for address in choose_addresses(pools, book, Releases(), requested, ASKER)]


DUAL = prefix("p", "2001:db8::/64", "203.0.113.0/28")


def test_gateway_gets_an_address_of_each_family_that_of_the_public_pool_first() -> None:
    book = AddressBook()
    assert choose(DUAL, book, []) == ["2001:db8::1", "203.0.113.0"]
    assert choose(prefix("p", "203.0.113.0/28", "2001:db8::/64"), book, []) == ["203.0.113.0", "2001:db8::1"]
    assert choose(prefix("p", "2001:db8::/64"), book, []) == ["2001:db8::1"]


def test_it_may_ask_for_both_or_for_one_of_them() -> None:
    book = AddressBook()
    both = ask("203.0.113.7", "2001:db8::7:7")
    assert choose(DUAL, book, both) == ["2001:db8::7:7", "203.0.113.7"]
    assert choose(DUAL, book, ask("203.0.113.7")) == ["2001:db8::1", "203.0.113.7"]


@pytest.mark.parametrize("asked", ["2001:db8::", "2001:db8:0:7::"])
def test_it_does_not_get_the_address_of_a_subnets_routers(asked: str) -> None:
    pools = {"public-pool": {"pool": "2001:db8::/48", "subnet": "2001:db8::/48"}}
    wide = ServicePrefix.model_validate({"metadata": {"name": "p"}, "spec": pools})
    with pytest.raises(Invalid, match=rf"addresses\.0\.value: {asked} is the Subnet-Router anycast address"):
        choose(wide, AddressBook(), ask(asked))


def test_it_gets_neither_where_one_family_is_used_up() -> None:
    book = AddressBook()
    small = prefix("p", "2001:db8::/64", "203.0.113.0/32")
    book.hold("g", [IPv4Address("203.0.113.0")])
    with pytest.raises(Exhausted, match="the alt-pool of address pool 'p' has not enough"):
        choose(small, book, [])


def test_an_ipv6_pool_does_not_move_away_from_under_the_second_addresses() -> None:
    spec = {"service-prefix": "p", "public-address": "203.0.113.5", "alt-address": "2001:db8::5"}
    gateway = GWProxy.model_validate({"metadata": {"name": "g", "namespace": "a"}, "spec": spec})
    check_kept("p", DUAL.spec, [gateway])
    with pytest.raises(Conflict, match=r"gateway a\.g has the address 2001:db8::5"):
        check_kept("p", prefix("p", "203.0.113.0/28").spec, [gateway])


def test_an_ipv6_pool_overlaps_no_other_and_none_of_the_platforms_networks() -> None:
    check_prefix("new", prefix("new", "2001:db8:0:1::/64", aggregation="/128").spec, [DUAL], PLATFORM)
    with pytest.raises(Invalid, match=r"public-pool\.pool: .* overlaps address pool 'p'"):
        check_prefix("new", prefix("new", "2001:db8::ffff/128").spec, [DUAL], PLATFORM)
    with pytest.raises(Invalid, match="the pool of IPv6 mapped addresses"):
        check_prefix("new", prefix("new", "fd65:7069:6301::/80").spec, [], PLATFORM)
