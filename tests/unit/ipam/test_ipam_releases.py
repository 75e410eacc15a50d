# SPDX-License-Identifier: Apache-2.0
"""Public addresses that were released: who may have them, when, and in which order."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address

import pytest

from epic.errors import Conflict, Exhausted, Invalid
from epic.ipam.prefixes import choose_addresses
from epic.ipam.ranges import parse_range
from epic.ipam.releases import Asker, Release, Releases
from epic.lifecycle.claims import Claims
from epic.model.gatewayapi import GatewayAddress
from epic.model.releases import ReleasedAddress
from epic.model.resources import GWProxy, ServicePrefix

START = datetime(2026, 1, 1, tzinfo=UTC)
QUARANTINE = timedelta(minutes=5)


def prefix(pool: str, alt: str | None = None) -> ServicePrefix:
    spec = {"public-pool": {"pool": pool, "subnet": "203.0.113.0/24"}}
    if alt is not None:
        spec["alt-pool"] = {"pool": alt, "subnet": "198.51.100.0/24"}
    return ServicePrefix.model_validate({"metadata": {"name": "p"}, "spec": spec})


class Site:
    """Gateways that come and go."""

    def __init__(self, pool: str, alt: str | None = None) -> None:
        self.claims = Claims()
        self.prefix = prefix(pool, alt)
        self.time = START
        self.owners: dict[str, str] = {}

    def choose(self, account: str, wanted: str | None = None) -> str:
        asker = Asker(account, self.time - QUARANTINE)
        requested = [GatewayAddress(value=wanted)] if wanted else []
        book, releases = self.claims.public, self.claims.releases
        (address,) = choose_addresses(self.prefix, book, releases, requested, asker)
        return str(address)

    def create(self, account: str, wanted: str | None = None) -> str:
        address = self.choose(account, wanted)
        metadata, spec = {"name": address, "namespace": account}, {"public-address": address}
        self.claims.apply(
            GWProxy.kind, account, address, GWProxy.model_validate({"metadata": metadata, "spec": spec})
        )
        self.claims.apply(ReleasedAddress.kind, "", address, None)
        self.owners[address] = account
        return address

    def delete(self, address: str) -> None:
        account = self.owners.pop(address)
        self.claims.apply(GWProxy.kind, account, address, None)
        spec = {"account": account, "released": self.time}
        released = ReleasedAddress.model_validate({"metadata": {"name": address}, "spec": spec})
        self.claims.apply(ReleasedAddress.kind, "", address, released)

    def forget(self, address: str) -> None:
        self.claims.apply(ReleasedAddress.kind, "", address, None)


def test_an_address_that_was_released_comes_after_all_that_nobody_had() -> None:
    site = Site("203.0.113.0/30")
    site.delete(site.create("a"))
    site.time += timedelta(hours=1)
    assert [site.create("b") for _ in range(4)] == [f"203.0.113.{n}" for n in (1, 2, 3, 0)]


def test_of_those_that_were_released_the_first_comes_first() -> None:
    site = Site("203.0.113.0/30")
    for address in [site.create("a") for _ in range(4)][::-1]:
        site.delete(address)
        site.time += timedelta(minutes=1)
    site.time += QUARANTINE
    assert [site.create("b") for _ in range(4)] == [f"203.0.113.{n}" for n in (3, 2, 1, 0)]


def test_who_makes_and_deletes_gateways_without_end_leaves_the_others_the_pool() -> None:
    site = Site("203.0.113.0/28")
    for _ in range(100):
        addresses = [site.create("a") for _ in range(2)]
        for address in addresses:
            site.delete(address)
        site.time += timedelta(seconds=1)
    assert [site.create("b") for _ in range(11)] == [f"203.0.113.{n}" for n in range(5, 16)]
    with pytest.raises(Exhausted):
        site.choose("b")


def test_what_a_lost_node_may_still_use_is_nobodys_however_many_wait() -> None:
    site = Site("203.0.113.0/28")
    addresses = [site.create("a") for _ in range(5)]
    for address in addresses:
        site.delete(address)
    site.claims.public.hold("quarantine", [IPv4Address(address) for address in addresses])
    assert site.choose("a") == "203.0.113.5"


def test_another_account_gets_it_after_the_quarantine_and_the_same_one_at_once() -> None:
    site = Site("203.0.113.7/32")
    site.delete(site.create("a"))
    for wanted, refusal in ((None, Exhausted), ("203.0.113.7", Conflict)):
        with pytest.raises(refusal):
            site.choose("b", wanted)
        assert site.choose("a", wanted) == "203.0.113.7"
    site.time += QUARANTINE
    for account in ("a", "b"):
        assert site.choose(account) == site.choose(account, "203.0.113.7") == "203.0.113.7"


def test_an_address_that_was_taken_out_of_the_pool_cannot_be_asked_for_again() -> None:
    site = Site("203.0.113.0/30")
    site.delete(site.create("a"))
    site.prefix = prefix("203.0.113.4/30")
    with pytest.raises(Invalid, match="does not have the address"):
        site.choose("a", "203.0.113.0")


def test_operators_see_how_many_addresses_wait() -> None:
    site = Site("203.0.113.0/31")
    site.delete(site.create("a"))
    site.create("a")
    site.delete("203.0.113.1")
    with pytest.raises(Exhausted) as refused:
        site.choose("b")
    assert "2 were released a moment ago by other accounts" in refused.value.detail
    assert "other accounts" not in str(refused.value)


def test_what_may_be_had_of_the_first_pool_comes_before_the_alternative_one() -> None:
    site = Site("203.0.113.7/32", "198.51.100.1/32")
    site.delete(site.create("a"))
    assert site.choose("b") == "198.51.100.1"
    site.time += QUARANTINE
    assert site.choose("b") == "203.0.113.7"


def test_an_address_that_a_lost_node_may_still_use_waits_for_that_too() -> None:
    site = Site("203.0.113.7/32")
    site.delete(site.create("a"))
    site.claims.public.hold("quarantine", [IPv4Address("203.0.113.7")])
    site.time += QUARANTINE
    for wanted, refusal in ((None, Exhausted), ("203.0.113.7", Conflict)):
        with pytest.raises(refusal):
            site.choose("a", wanted)
    site.claims.public.hold("quarantine", ())
    assert site.choose("b") == "203.0.113.7"


def test_an_address_whose_release_is_forgotten_is_as_one_that_nobody_had() -> None:
    site = Site("203.0.113.0/30")
    site.delete(site.create("a"))
    site.forget("203.0.113.0")
    assert site.choose("b") == "203.0.113.0"


def test_gateways_that_come_and_go_for_long_get_the_address_that_rested_longest() -> None:
    chance = random.Random(3)
    site = Site("203.0.113.0/28")
    released: dict[str, tuple[datetime, str]] = {}
    for _ in range(3000):
        site.time += timedelta(seconds=chance.randrange(60))
        if site.owners and chance.random() < 0.5:
            address = chance.choice(sorted(site.owners))
            released[address] = (site.time, site.owners[address])
            site.delete(address)
            continue
        account = chance.choice("abc")
        never = [a for n in range(16) if (a := f"203.0.113.{n}") not in released and a not in site.owners]
        free = {a: r for a, r in released.items() if a not in site.owners}
        may = [
            (time, IPv4Address(a))
            for a, (time, owner) in free.items()
            if owner == account or site.time - time >= QUARANTINE
        ]
        own = [(time, IPv4Address(a)) for a, (time, owner) in free.items() if owner == account]
        own = [(time, a) for time, a in own if site.time - time < QUARANTINE]
        if never or may:
            fresh = never[0] if never else str(min(may)[1])
            assert site.create(account) == (str(min(own)[1]) if len(own) >= 4 else fresh)
        else:
            with pytest.raises(Exhausted):
                site.choose(account)


def test_a_release_that_is_noted_again_counts_from_then() -> None:
    releases, pool = Releases(), parse_range("203.0.113.0/30")
    for minute, number in enumerate((1, 2, 1)):
        release = Release("a", START + timedelta(minutes=minute))
        releases.note(IPv4Address(f"203.0.113.{number}"), release)
    found = releases.within(pool, Asker("a", START))
    assert [str(address) for address in found] == ["203.0.113.2", "203.0.113.1"]
    assert releases.count(pool) == 2
