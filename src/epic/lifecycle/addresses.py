# SPDX-License-Identifier: Apache-2.0
"""Addresses that a gateway asks for and has not got, as conditions of the Gateway API's. Pure.

A gateway keeps the addresses that it got when it was made. It may ask for others later, with whatever else
changes in it: the rest of it is served as it is wanted, and the conditions say what is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address

from epic.model.base import Condition
from epic.model.gatewayapi import GatewayAddress
from epic.model.resources import GWProxy
from epic.model.values.addresses import Address

_SERVED = "IPAddress"


def unsupported_address(proxy: GWProxy) -> Condition | None:
    """That the gateway asks for an address of a type that is not served."""
    types = sorted({address.type for address in _requested(proxy)} - {_SERVED})
    if not types:
        return None
    return Condition(
        type="Accepted",
        status="False",
        reason="UnsupportedAddress",
        message=f"spec.addresses: type {', '.join(map(repr, types))} is not served, only {_SERVED!r}; "
        f"{_what_it_has(proxy)}",
        observed_generation=proxy.metadata.generation,
    )


def unusable_address(proxy: GWProxy) -> Condition | None:
    """That the gateway asks for an address other than those that it has."""
    has = proxy.addresses
    others = [a.value for a in _requested(proxy) if a.type == _SERVED and a.value and not _is(a.value, has)]
    if not others:
        return None
    return Condition(
        type="Programmed",
        status="False",
        reason="AddressNotUsable",
        message=f"spec.addresses: {', '.join(others)} cannot be given to this gateway; {_what_it_has(proxy)}",
    )


def _requested(proxy: GWProxy) -> Sequence[GatewayAddress]:
    return proxy.spec.gateway.addresses if proxy.spec.gateway is not None else ()


def _is(text: str, addresses: Sequence[Address]) -> bool:
    try:
        return ip_address(text) in addresses
    except ValueError:
        return False


def _what_it_has(proxy: GWProxy) -> str:
    if not proxy.addresses:
        return "it has none yet"
    has = " and ".join(map(str, proxy.addresses))
    return f"it has {has} for good: ask for that or for none, or make the gateway anew"
