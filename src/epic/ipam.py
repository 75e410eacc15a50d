# SPDX-License-Identifier: Apache-2.0
"""Address pools, pure: which address is next, and whether a pool makes sense. Nothing walks a pool."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network, NetmaskValueError

from epic.errors import Exhausted, Invalid
from epic.model.resources import AddressPool


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


@dataclass(frozen=True)
class AddressRange:
    """The addresses `first` to `last`, both included."""

    first: IPv4Address
    last: IPv4Address

    @property
    def size(self) -> int:
        """How many addresses it holds."""
        return int(self.last) - int(self.first) + 1

    def __contains__(self, address: IPv4Address) -> bool:
        return self.first <= address <= self.last

    def overlaps(self, other: AddressRange) -> bool:
        """Whether an address is in both."""
        return self.first <= other.last and other.first <= self.last


def parse_range(text: str) -> AddressRange:
    """A range from `NETWORK/LENGTH` (all its addresses) or `FIRST-LAST`; raises Invalid."""
    try:
        if "-" not in text:
            network = IPv4Network(text)
            return AddressRange(network.network_address, network.broadcast_address)
        first, last = (IPv4Address(part.strip()) for part in text.split("-", 1))
    except (AddressValueError, NetmaskValueError, ValueError) as error:
        raise Invalid(
            f"pool {text!r}: {error}; write an IPv4 network such as 203.0.113.0/24 "
            "or a range such as 203.0.113.10-203.0.113.20"
        ) from None
    if first > last:
        raise Invalid(f"pool {text!r}: the first address is above the last; write {last}-{first}")
    return AddressRange(first, last)


def public_range(pool: AddressPool) -> AddressRange:
    """The range of a ServicePrefix's pool; raises Invalid when it is not inside its subnet."""
    found = parse_range(pool.pool)
    if found.first not in pool.subnet or found.last not in pool.subnet:
        raise Invalid(f"pool {pool.pool!r} is not inside its subnet {pool.subnet}")
    return found


def inside_range(network: IPv4Network) -> AddressRange:
    """The usable host addresses of the inside pool: it is one network to the kernel's eyes."""
    return AddressRange(network.network_address + 1, network.broadcast_address - 1)


def inside6(pool6: IPv6Network, inside: IPv4Address) -> IPv6Address:
    """The IPv6 inside address of an instance: the /96 pool has one for each IPv4 address."""
    return pool6.network_address + int(inside)


def first_free(
    pool: AddressRange, used: Iterable[IPv4Address], name: str, count: int = 1
) -> list[IPv4Address]:
    """The lowest `count` addresses that are not used; raises Exhausted, naming the pool as `name`."""
    candidate = int(pool.first)
    found: list[IPv4Address] = []
    for taken in [*sorted({int(address) for address in used if address in pool}), int(pool.last) + 1]:
        while candidate < taken and len(found) < count:
            found.append(IPv4Address(candidate))
            candidate += 1
        if len(found) == count:
            return found
        candidate = taken + 1
    raise Exhausted(
        f"{name} has not enough free addresses; "
        "delete gateways that are not needed any more or ask the platform's administrators to enlarge it",
        f"of {pool.first}-{pool.last}, {pool.size} addresses, {len(found)} are free and {count} needed",
    )
