# SPDX-License-Identifier: Apache-2.0
"""Gateways that are made, deleted and fail without end: no address is given twice, and none is lost."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epic.errors import Exhausted
from epic.ipam.prefixes import choose_addresses
from epic.ipam.releases import Asker
from epic.lifecycle.claims import Claims
from epic.model.nodes import Quarantine
from epic.model.releases import ReleasedAddress
from epic.model.resources import GWProxy, ServicePrefix
from epic.model.values.addresses import Address

START = datetime(2026, 1, 1, tzinfo=UTC)
PUBLIC = {"pool": "203.0.113.0/27", "subnet": "203.0.113.0/24"}
ONE_FAMILY = {"pool": "198.51.100.0/27", "subnet": "198.51.100.0/24"}
OTHER_FAMILY = {"pool": "2001:db8::/64", "subnet": "2001:db8::/64"}

alt_pools = pytest.mark.parametrize(
    "alt_pool", [ONE_FAMILY, OTHER_FAMILY], ids=["one family", "both families"]
)


class Site:
    """Gateways of one prefix with two pools, and what is left of them."""

    def __init__(self, alt_pool: dict[str, str]) -> None:
        spec = {"public-pool": PUBLIC, "alt-pool": alt_pool}
        self.prefix = ServicePrefix.model_validate({"metadata": {"name": "p"}, "spec": spec})
        self.families = [4] if alt_pool is ONE_FAMILY else [4, 6]
        self.claims = Claims()
        self.time = START
        self.gateways: dict[str, GWProxy] = {}
        self.quarantines: list[str] = []
        self.released: set[Address] = set()
        self._count = 0

    @property
    def given(self) -> set[Address]:
        """What gateways have."""
        return {address for gateway in self.gateways.values() for address in gateway.addresses}

    def create(self, account: str, *, fails: bool = False) -> None:
        """`fails`: whoever chose the addresses gets no further."""
        asker = Asker(account, self.time - timedelta(minutes=5))
        addresses = choose_addresses(self.prefix, self.claims.public, self.claims.releases, (), asker)
        assert [address.version for address in addresses] == self.families
        assert self.given.isdisjoint(addresses)
        if fails:
            return
        self._count += 1
        name = f"g{self._count}"
        spec = dict(zip(("public-address", "alt-address"), map(str, addresses), strict=False))
        gateway = GWProxy.model_validate({"metadata": {"name": name, "namespace": account}, "spec": spec})
        self._apply(gateway)
        self.gateways[name] = gateway
        for address in addresses:
            self.claims.apply(ReleasedAddress.kind, "", str(address), None)
            self.released.discard(address)

    def delete(self, name: str, *, lost: bool = False) -> None:
        """`lost`: with a node that may use them still."""
        gateway = self.gateways.pop(name)
        if lost:
            spec = {
                "gateway": str(gateway.id),
                "node": "epic1",
                "inside-address": "100.64.0.1",
                "public-address": gateway.spec.public_address,
                "alt-address": gateway.spec.alt_address,
                "until": self.time,
            }
            held = Quarantine.model_validate({"metadata": {"name": name}, "spec": spec})
            self._apply(held)
            self.quarantines.append(name)
        self.claims.apply(GWProxy.kind, gateway.account, name, None)
        for address in gateway.addresses:
            values = {"account": gateway.account, "released": self.time}
            self._apply(ReleasedAddress.model_validate({"metadata": {"name": str(address)}, "spec": values}))
            self.released.add(address)

    def forget(self) -> None:
        """Nobody remembers any more who had what."""
        for name in self.quarantines:
            self.claims.apply(Quarantine.kind, "", name, None)
        for address in self.released:
            self.claims.apply(ReleasedAddress.kind, "", str(address), None)
        self.quarantines, self.released = [], set()

    def _apply(self, obj: GWProxy | Quarantine | ReleasedAddress) -> None:
        self.claims.apply(obj.kind, obj.account, obj.name, obj)


def turn(site: Site, chance: random.Random) -> None:
    site.time += timedelta(seconds=chance.randrange(60))
    if site.gateways and chance.random() < 0.5:
        site.delete(chance.choice(sorted(site.gateways)), lost=chance.random() < 0.1)
    elif chance.random() < 0.02:
        site.forget()
    else:
        try:
            site.create(chance.choice("abc"), fails=chance.random() < 0.2)
        except Exhausted:
            site.forget()


def check_nothing_is_lost(site: Site) -> None:
    for name in list(site.gateways):
        site.delete(name)
    site.forget()
    networks = ("203.0.113", "198.51.100") if site.families == [4] else ("203.0.113",)
    for address in (f"{network}.{number}" for network in networks for number in range(32)):
        site.create("d")
        assert IPv4Address(address) in site.given
    with pytest.raises(Exhausted):
        site.create("d")


@alt_pools
def test_10_000_cycles_leave_the_pool_as_it_was(alt_pool: dict[str, str]) -> None:
    site, chance = Site(alt_pool), random.Random(7)
    for _ in range(10_000):
        turn(site, chance)
    check_nothing_is_lost(site)


@alt_pools
@settings(max_examples=30, deadline=None)
@given(chance=st.randoms(use_true_random=False), turns=st.integers(1, 200))
def test_nor_do_others(alt_pool: dict[str, str], chance: random.Random, turns: int) -> None:
    site = Site(alt_pool)
    for _ in range(turns):
        turn(site, chance)
    check_nothing_is_lost(site)
