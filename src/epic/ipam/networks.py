# SPDX-License-Identifier: Apache-2.0
"""The platform's own networks, and why addresses of gateways must not be among them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network, summarize_address_range

from epic.errors import Invalid
from epic.ipam.ranges import AddressRange, range_of
from epic.model.resources import Node, NodeSpec
from epic.model.values.addresses import Address, parse_address


@dataclass(frozen=True)
class Pools:
    """Networks that addresses are derived from, without allocating any.

    `inside6` holds the IPv6 inside addresses; `mapped` and `mapped6` what Envoy gets instead of an
    endpoint's own address where that is not unique.
    """

    inside6: IPv6Network
    mapped: IPv4Network
    mapped6: IPv6Network


DEFAULT_POOLS = Pools(
    inside6=IPv6Network("fd65:7069:6300::/96"),
    mapped=IPv4Network("240.0.0.0/4"),
    mapped6=IPv6Network("fd65:7069:6301::/64"),
)

# None of these can be at the end of a route that the platform announces.
_SPECIAL = {
    ip_network("0.0.0.0/8"): "addresses of no host",
    ip_network("127.0.0.0/8"): "loopback addresses",
    ip_network("169.254.0.0/16"): "link-local addresses",
    ip_network("224.0.0.0/4"): "multicast addresses",
    ip_network("255.255.255.255/32"): "the broadcast address",
    ip_network("::/127"): "the unspecified and the loopback address",
    ip_network("::ffff:0:0/96"): "IPv4-mapped addresses",
    ip_network("::/8"): "reserved by the IETF, with those that are translated to IPv4",
    ip_network("100::/64"): "addresses whose packets are discarded",
    ip_network("2002::/16"): "6to4 addresses",
    ip_network("fe80::/10"): "link-local addresses",
    ip_network("fec0::/10"): "site-local addresses, which are no more",
    ip_network("ff00::/8"): "multicast addresses",
}


@dataclass(frozen=True)
class PlatformNetworks:
    """What the platform itself uses: networks by what they are for, nodes' addresses by whose they are."""

    networks: Mapping[str, IPv4Network | IPv6Network]
    nodes: Mapping[Address, str]

    @classmethod
    def of(cls, inside: IPv4Network, pools: Pools, nodes: Iterable[Node]) -> PlatformNetworks:
        """Those of a platform with these pools and nodes."""
        networks: dict[str, IPv4Network | IPv6Network] = {
            "the pool of inside addresses": inside,
            "the pool of IPv6 inside addresses": pools.inside6,
            "the pool of mapped addresses": pools.mapped,
            "the pool of IPv6 mapped addresses": pools.mapped6,
        }
        owners = {
            a: f"the {what} of EPIC node {n.name!r}" for n in nodes for what, a in node_addresses(n.spec)
        }
        return cls(networks, owners)

    def check(self, wanted: AddressRange) -> None:
        """Raise Invalid if gateways must not have these addresses, saying which and why."""
        for common, what in self._conflicts(wanted):
            raise Invalid(
                f"{common} cannot be addresses of gateways: {what}; choose addresses that the upstream "
                "routers send to the EPIC nodes and that nobody else has"
            )

    def _conflicts(self, wanted: AddressRange) -> Iterator[tuple[str, str]]:
        for special, why in _SPECIAL.items():
            if (own := range_of(special)).overlaps(wanted):
                yield _common(own, wanted), f"they are {why}"
        for why, network in self.networks.items():
            if (own := range_of(network)).overlaps(wanted):
                yield _common(own, wanted), f"{why} is {network}"
        for address, owner in self.nodes.items():
            if address in wanted:
                yield str(address), f"it is {owner}"


def node_addresses(spec: NodeSpec) -> Iterator[tuple[str, Address]]:
    """The addresses of a node, each with what it is to it; a management address may be a name instead."""
    yield "address", spec.address
    with suppress(ValueError):
        yield "management address", parse_address(spec.management_address)


def inside6(pool6: IPv6Network, inside: IPv4Address) -> IPv6Address:
    """The IPv6 inside address of an instance: the /96 pool has one for each IPv4 address."""
    return pool6.network_address + int(inside)


def _common(a: AddressRange, b: AddressRange) -> str:
    first, last = max(a.first, b.first, key=int), min(a.last, b.last, key=int)
    networks = list(summarize_address_range(first, last))
    return str(networks[0]) if len(networks) == 1 else f"{first}-{last}"
