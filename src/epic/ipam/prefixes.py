# SPDX-License-Identifier: Apache-2.0
"""The pools of a ServicePrefix: whether they make sense, and which addresses a gateway gets from them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from epic.errors import AddressNotUsable, Conflict, Exhausted, Invalid, UnsupportedAddress
from epic.ipam.book import AddressBook, Pool
from epic.ipam.networks import PlatformNetworks, node_addresses
from epic.ipam.ranges import is_routers, public_range
from epic.ipam.releases import Asker, Releases
from epic.model.gatewayapi import GatewayAddress
from epic.model.resources import AddressPool, GWProxy, NodeSpec, ServicePrefix, ServicePrefixSpec
from epic.model.values.addresses import Address, parse_address

_WHERE = "proxy.spec.gateway.addresses"
_FEW = 4
"""So many addresses of a pool at most are kept from others after an account's gateways, if it goes on."""


def pools_of(name: str, spec: ServicePrefixSpec) -> list[Pool]:
    """The pools in the order in which they are used; raises Invalid when one is not inside its subnet."""
    pools = [Pool(f"address pool {name!r}", public_range(spec.public_pool))]
    if spec.alt_pool is not None:
        pools.append(Pool(f"the alt-pool of address pool {name!r}", public_range(spec.alt_pool)))
    return pools


def check_prefix(
    name: str, spec: ServicePrefixSpec, others: Iterable[ServicePrefix], platform: PlatformNetworks
) -> None:
    """Raise Invalid when a pool overlaps another one or the platform's own networks."""
    taken = [pool for other in others if other.name != name for pool in pools_of(other.name, other.spec)]
    fields = {"public-pool": spec.public_pool, "alt-pool": spec.alt_pool}
    for pool, (field, written) in zip(pools_of(name, spec), fields.items(), strict=False):
        assert written is not None  # noqa: S101 an absent pool is the last
        where = f"service-prefix.spec.{field}"
        _check_aggregation(where, written)
        for other in taken:
            if other.range.overlaps(pool.range):
                raise Invalid(
                    f"{where}.pool: {written.pool} overlaps {other.name} ({other.range}); "
                    "an address is in one pool only"
                )
        try:
            platform.check(pool.range)
        except Invalid as error:
            raise Invalid(f"{where}.pool: {error}") from None
        taken.append(pool)


def check_kept(name: str, spec: ServicePrefixSpec, proxies: Iterable[GWProxy]) -> None:
    """Raise Conflict when gateways that have addresses of this prefix would be outside its pools."""
    pools = pools_of(name, spec)
    for proxy in proxies:
        if proxy.spec.service_prefix != name:
            continue
        for address in proxy.addresses:
            if not any(address in pool.range for pool in pools):
                raise Conflict(
                    f"address pool {name!r}: gateway {proxy.id} has the address {address}, which would be in "
                    "no pool; delete the gateway first, or keep the address in public-pool or alt-pool"
                )


def check_node_addresses(spec: NodeSpec, prefixes: Iterable[ServicePrefix]) -> None:
    """Raise Invalid for an address of a node that gateways may get."""
    pools = [pool for prefix in prefixes for pool in pools_of(prefix.name, prefix.spec)]
    for what, address in node_addresses(spec):
        for pool in pools:
            if address in pool.range:
                raise Invalid(
                    f"node.spec.{what.replace(' ', '-')}: {address} is in {pool.name} ({pool.range}), whose "
                    "addresses gateways get; give the node another address, or take this one out of the pool"
                )


def choose_addresses(
    prefix: ServicePrefix,
    book: AddressBook,
    releases: Releases,
    requested: Iterable[GatewayAddress],
    asker: Asker,
) -> tuple[Address, ...]:
    """Free addresses for a gateway, one of each family that the prefix has, that of its public pool first.

    Of each family the one that it asks for, else the lowest that nobody had of late. Where there is none of
    these, the one that was released first. Who released more than a few itself, which are kept from others
    for that, gets the first of them. Raises Exhausted, Conflict when somebody has an address asked for, or
    had it a moment ago, and Invalid when it cannot be had.
    """
    pools = pools_of(prefix.name, prefix.spec)
    wanted = requested_addresses(requested)
    for address in wanted.values():
        release = releases.find(address)
        left = release is not None and _is_left(book, address) and asker.may_have(release)
        book.check_requested(pools, address, released=left)
    families = dict.fromkeys(pool.range.first.version for pool in pools)
    return tuple(
        wanted.get(family)
        or _free_address(
            [pool for pool in pools if pool.range.first.version == family], book, releases, asker
        )
        for family in families
    )


def _free_address(pools: Sequence[Pool], book: AddressBook, releases: Releases, asker: Asker) -> Address:
    shortages: list[Exhausted] = []
    for pool in pools:
        own = releases.withheld(pool.range, asker)
        found = next((a for a in own if _is_left(book, a)), None) if len(own) >= _FEW else None
        found = found or _lowest(book, pool, shortages)
        found = found or next((a for a in releases.within(pool.range, asker) if _is_left(book, a)), None)
        if found is not None:
            return found
    resting = sum(releases.count(pool.range) for pool in pools)
    detail = "; ".join(error.detail for error in shortages)
    raise Exhausted(str(shortages[0]), f"{detail}; {resting} were released a moment ago by other accounts")


def _lowest(book: AddressBook, pool: Pool, shortages: list[Exhausted]) -> Address | None:
    try:
        return book.propose([pool])[0]
    except Exhausted as error:
        shortages.append(error)
        return None


def _is_left(book: AddressBook, address: Address) -> bool:
    """Whether nothing but its release holds the address: no gateway, and no node that was lost with it."""
    return len(book.holders(address)) == 1


def requested_addresses(requested: Iterable[GatewayAddress]) -> dict[int, Address]:
    """The addresses that a Gateway asks for, by family. Raises Invalid for what a gateway cannot have."""
    found: dict[int, Address] = {}
    for i, address in enumerate(requested):
        if address.type != "IPAddress":
            raise UnsupportedAddress(
                f"{_WHERE}.{i}.type: {address.type!r} is not served; expected 'IPAddress'"
            )
        if not address.value:
            continue
        wanted = _parse(f"{_WHERE}.{i}.value", address.value)
        if found.setdefault(wanted.version, wanted) != wanted:
            raise AddressNotUsable(
                f"{_WHERE}: {found[wanted.version]} and {wanted} are asked for; "
                "a gateway has one address of a family"
            )
    return found


def _parse(where: str, text: str) -> Address:
    try:
        found = parse_address(text)
    except ValueError as error:
        raise AddressNotUsable(f"{where}: {error}") from None
    if is_routers(found):
        raise AddressNotUsable(
            f"{where}: {found} is the Subnet-Router anycast address of its /64, that of the subnet's "
            "routers; ask for another one, or leave it to EPIC to choose"
        )
    return found


def _check_aggregation(where: str, pool: AddressPool) -> None:
    # A node announces the addresses that its Envoys serve; a wider route would lead it others' requests.
    host = f"/{pool.subnet.max_prefixlen}"
    if pool.aggregation not in ("default", host):
        raise Invalid(
            f"{where}.aggregation: {pool.aggregation!r} is not served; expected 'default' or {host!r}: a "
            "node announces just the addresses that it serves, so aggregate on the upstream routers"
        )
