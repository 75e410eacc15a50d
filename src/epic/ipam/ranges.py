# SPDX-License-Identifier: Apache-2.0
"""How a pool is written, and which addresses that is."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Network, IPv6Network, NetmaskValueError, ip_network

from epic.errors import Invalid
from epic.model.resources import AddressPool
from epic.model.values.addresses import Address, parse_address

_INTERFACES = 1 << 64
"""So many addresses has an IPv6 subnet of hosts."""
_POINT_TO_POINT = 127


@dataclass(frozen=True)
class AddressRange:
    """The addresses `first` to `last` of one family, both included."""

    first: Address
    last: Address

    @property
    def size(self) -> int:
        """How many addresses it holds."""
        return int(self.last) - int(self.first) + 1

    def __contains__(self, address: Address) -> bool:
        same = address.version == self.first.version
        return same and int(self.first) <= int(address) <= int(self.last)

    def overlaps(self, other: AddressRange) -> bool:
        """Whether an address is in both."""
        return other.first in self or self.first in other

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


def parse_range(text: str) -> AddressRange:
    """A range from `NETWORK/LENGTH` (all its addresses) or `FIRST-LAST`; raises Invalid."""
    try:
        if "-" not in text:
            return range_of(ip_network(text))
        first, last = (parse_address(part.strip()) for part in text.split("-", 1))
    except (AddressValueError, NetmaskValueError, ValueError) as error:
        raise Invalid(
            f"pool {text!r}: {error}; write a network such as 203.0.113.0/24 "
            "or a range such as 203.0.113.10-203.0.113.20"
        ) from None
    if first.version != last.version:
        raise Invalid(f"pool {text!r}: the first address is IPv{first.version}, the last IPv{last.version}")
    if int(first) > int(last):
        raise Invalid(f"pool {text!r}: the first address is above the last; write {last}-{first}")
    return AddressRange(first, last)


def range_of(network: IPv4Network | IPv6Network) -> AddressRange:
    """All addresses of the network."""
    return AddressRange(network[0], network[-1])


def public_range(pool: AddressPool) -> AddressRange:
    """The range of a ServicePrefix's pool, without the address of its subnet's routers at its beginning.

    Raises Invalid when it is not inside its subnet, or nothing but that address.
    """
    found = parse_range(pool.pool)
    if found.first not in pool.subnet or found.last not in pool.subnet:
        raise Invalid(f"pool {pool.pool!r} is not inside its subnet {pool.subnet}")
    if not (is_routers(found.first) or found.first == _routers(pool.subnet)):
        return found
    if found.size == 1:
        raise Invalid(
            f"pool {pool.pool!r} has no address but {found.first}, which is that of its subnet's routers "
            "(Subnet-Router anycast); choose others"
        )
    return AddressRange(found.first + 1, found.last)


def is_routers(address: Address) -> bool:
    """Whether it is the Subnet-Router anycast address of a /64 (RFC 4291, 2.6.1): no gateway can have it."""
    return address.version == 6 and not int(address) & (_INTERFACES - 1)


def count_routers(addresses: AddressRange) -> int:
    """How many addresses there are of which `is_routers` says so."""
    if addresses.first.version == 4:
        return 0
    return int(addresses.last) // _INTERFACES - (int(addresses.first) - 1) // _INTERFACES


def _routers(subnet: IPv4Network | IPv6Network) -> Address | None:
    """The Subnet-Router anycast address; a link of two hosts and a host alone have none (RFC 6164)."""
    return subnet[0] if subnet.version == 6 and subnet.prefixlen < _POINT_TO_POINT else None


def inside_range(network: IPv4Network) -> AddressRange:
    """The usable host addresses of the inside pool: it is one network to the kernel's eyes."""
    return AddressRange(network.network_address + 1, network.broadcast_address - 1)
