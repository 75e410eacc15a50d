# SPDX-License-Identifier: Apache-2.0
"""Addresses of both families: which can be at the other end of a tunnel, and their order. Pure."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address
from typing import Annotated

from pydantic import BeforeValidator

Address = IPv4Address | IPv6Address

_BROADCAST = IPv4Address("255.255.255.255")


def parse_address(text: str) -> Address:
    """An address that means the same everywhere; raises ValueError, saying what would be right."""
    try:
        found = ip_address(text)
    except (AddressValueError, ValueError):
        raise ValueError(f"{text!r} is not an IPv4 or IPv6 address") from None
    if isinstance(found, IPv6Address):
        if found.scope_id is not None:
            raise ValueError(
                f"{text!r} has a zone id, which means something on one host only; write an address without"
            )
        if found.ipv4_mapped is not None:
            raise ValueError(f"{text!r} is an IPv4-mapped address; write {found.ipv4_mapped}")
    return found


def tunnel_address(text: str) -> Address:
    """An address that a packet can be sent to from another host; raises ValueError."""
    found = parse_address(text)
    kinds = {
        "the unspecified address": found.is_unspecified,
        "a loopback address": found.is_loopback,
        "a multicast address": found.is_multicast,
        "a link-local address": found.is_link_local,
        "the broadcast address": found == _BROADCAST,
    }
    for kind, is_it in kinds.items():
        if is_it:
            raise ValueError(f"{text!r} is {kind}, which no other host can reach")
    return found


# The same few thousand texts are asked for again with every change of an endpoint.
@lru_cache(maxsize=1 << 16)
def usable(text: str) -> Address | None:
    """An endpoint's address; None when no other host can reach it."""
    try:
        return tunnel_address(text)
    except ValueError:
        return None


def order(address: Address) -> tuple[int, int]:
    """Sorts addresses of both families: IPv4 first."""
    return address.version, int(address)


def both(*addresses: Address | None) -> tuple[Address, ...]:
    """Those of a gateway's two public addresses that there are."""
    return tuple(address for address in addresses if address is not None)


def _parsed(value: object) -> object:
    return parse_address(value) if isinstance(value, str) else value


AnyAddress = Annotated[Address, BeforeValidator(_parsed)]
"""A model's field that takes both families."""
