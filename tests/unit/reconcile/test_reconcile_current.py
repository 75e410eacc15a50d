# SPDX-License-Identifier: Apache-2.0
"""What transactions look things up in: always as the store is, whatever failed before."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from epic.cache import history
from epic.cache.store import CachedStore
from epic.errors import Exhausted
from epic.ipam.book import Pool
from epic.ipam.ranges import parse_range
from epic.model.resources import GWProxy, LBServiceGroup
from epic.reconcile.current import CurrentWorld
from epic.reconcile.world import World
from epic.store.interface import Change
from epic.store.location import StoreLocation

POOL = Pool("pool", parse_range("203.0.113.0/27"))


class FailingStore(CachedStore):
    """The real store, whose commits may fail."""

    fails = False

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        with super().transaction() as transaction:
            yield transaction
            if self.fails:
                raise sqlite3.OperationalError("database or disk is full")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FailingStore]:
    store = FailingStore(StoreLocation(sqlite=tmp_path / "epic.db"))
    yield store
    store.close()


def gateway(name: str, address: str, account: str = "a") -> GWProxy:
    spec = {"public-address": address, "endpoints": [{"dnsName": f"{name}.example", "targets": [address]}]}
    return GWProxy.model_validate({"metadata": {"name": name, "namespace": account}, "spec": spec})


def change(obj: GWProxy) -> Change:
    return Change(0, obj.kind, obj.account, obj.name, obj)


def test_each_transaction_sees_what_those_before_it_wrote(store: FailingStore) -> None:
    current = CurrentWorld(store)
    with current.transaction() as (transaction, world):
        transaction.create(gateway("g", "203.0.113.0"))
        assert world.count_gateways("a") == 0
    with store.transaction() as transaction:  # by somebody who does not know of it
        transaction.create(gateway("h", "203.0.113.1"))
    with current.transaction() as (transaction, world):
        assert world.count_gateways("a") == 2
        assert world.claims.public.propose([POOL]) == [IPv4Address("203.0.113.2")]
        assert world.claims.accounts_with("h.example") == {"a"}
        transaction.delete(GWProxy, "a", "g")
    with current.transaction() as (_, world):
        assert world.claims.public.propose([POOL]) == [IPv4Address("203.0.113.0")]
        assert world.claims.accounts_with("g.example") == set()


def test_the_first_transaction_does_not_read_everything_while_others_wait(
    store: FailingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.transaction() as transaction:
        for number in range(20):
            transaction.create(gateway(f"g{number}", f"203.0.113.{number}"))
    listed, reading = store.list, []

    def overtaken(*args: Any) -> Any:
        found = listed(*args)
        if not reading:  # somebody writes while it reads
            reading.append(args)
            with store.transaction() as transaction:
                transaction.delete(GWProxy, "a", "g0")
                transaction.create(gateway("h", "203.0.113.30"))
        return found

    monkeypatch.setattr(store, "list", overtaken)
    taken_in: list[Change] = []
    apply = World.apply
    current = CurrentWorld(store)
    current._read_all()
    monkeypatch.setattr(World, "apply", lambda self, change: taken_in.append(change) or apply(self, change))
    with current.transaction() as (_, world):
        assert [(c.name, c.object is None) for c in taken_in] == [("g0", True), ("h", False)]
        assert world.count_gateways("a") == 20
        assert world.claims.public.propose([POOL]) == [IPv4Address("203.0.113.0")]


def test_what_was_told_of_and_did_not_become_durable_is_forgotten(store: FailingStore) -> None:
    current = CurrentWorld(store)
    store.fails = True
    with pytest.raises(sqlite3.OperationalError), current.transaction() as (transaction, world):
        world.apply(change(transaction.create(gateway("g", "203.0.113.0"))))
    store.fails = False
    with current.transaction() as (_, world):
        assert world.count_gateways("a") == 0
        assert world.claims.public.propose([POOL]) == [IPv4Address("203.0.113.0")]


def test_transaction_that_fails_without_telling_costs_no_reading(store: FailingStore) -> None:
    current = CurrentWorld(store)
    with current.transaction() as (transaction, before):
        transaction.create(gateway("g", "203.0.113.0"))
    with pytest.raises(Exhausted), current.transaction():
        raise Exhausted("no room")
    with current.transaction() as (_, world):
        assert world is before


def test_transaction_that_fails_after_telling_costs_the_reading_of_what_it_told(store: FailingStore) -> None:
    current = CurrentWorld(store)
    with current.transaction() as (transaction, before):
        for number in range(3):
            transaction.create(gateway(f"g{number}", f"203.0.113.{number}"))
    for _ in range(3):
        with pytest.raises(ValueError, match="fault"), current.transaction() as (transaction, world):
            transaction.delete(GWProxy, "a", "g0")
            world.apply(Change(0, GWProxy.kind, "a", "g0", None))
            world.apply(change(transaction.create(gateway("h", "203.0.113.9"))))
            raise ValueError("a fault")
    with current.transaction() as (_, world):
        assert world is before
        assert {found.proxy for found in world.proxies} == {"g0", "g1", "g2"}
        assert world.claims.public.propose([POOL]) == [IPv4Address("203.0.113.3")]


def test_what_others_write_while_a_failure_is_undone_is_taken_in(
    store: FailingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    current = CurrentWorld(store)
    with current.transaction() as (transaction, _):
        transaction.create(gateway("g", "203.0.113.0"))
    with pytest.raises(ValueError, match="fault"), current.transaction() as (_, world):
        world.apply(Change(0, GWProxy.kind, "a", "g", None))
        raise ValueError("a fault")
    find = store.find

    def overtaken(*args: Any) -> Any:
        monkeypatch.undo()
        found = find(*args)
        with store.transaction() as transaction:
            transaction.delete(GWProxy, "a", "g")
        return found

    monkeypatch.setattr(store, "find", overtaken)
    with pytest.raises(ValueError, match="fault"), current.transaction() as (_, world):
        world.apply(change(gateway("g", "203.0.113.7")))
        raise ValueError("a fault")
    with current.transaction() as (_, world):
        assert not world.proxies


def test_deletions_that_the_store_has_forgotten_are_seen(
    store: FailingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "DELETIONS_KEPT", 0)
    current = CurrentWorld(store)
    with store.transaction() as transaction:
        transaction.create(gateway("g", "203.0.113.0"))
    with current.transaction() as (_, world):
        assert world.count_gateways("a") == 1
    with store.transaction() as transaction:
        transaction.delete(GWProxy, "a", "g")
        transaction.create(gateway("h", "203.0.113.1"))
        transaction.delete(GWProxy, "a", "h")
    with current.transaction() as (_, world):
        assert world.count_gateways("a") == 0
        assert world.claims.public.propose([POOL]) == [IPv4Address("203.0.113.0")]


def test_changes_of_other_kinds_are_not_read(store: FailingStore) -> None:
    with store.transaction() as transaction:
        transaction.create(gateway("g", "203.0.113.0"))
    with store.transaction() as transaction:
        assert [c.name for c in transaction.changes(0, [GWProxy])] == ["g"]
        assert transaction.changes(0, [LBServiceGroup]) == []
        assert transaction.changes(transaction.revision, [GWProxy]) == []
        transaction.create(gateway("h", "203.0.113.1"))
        assert [c.name for c in transaction.changes(0, [GWProxy])] == ["g"]


def test_random_lives_with_failures_leave_the_world_as_the_store_is(store: FailingStore) -> None:
    chance = random.Random(11)
    current = CurrentWorld(store)
    alive: list[str] = []
    for number in range(600):
        name = f"g{number}"
        store.fails = chance.random() < 0.2
        tells = chance.random() < 0.5
        try:
            with current.transaction() as (transaction, world):
                if alive and chance.random() < 0.5:
                    gone = chance.choice(alive)
                    transaction.delete(GWProxy, "a", gone)
                    if tells:
                        world.apply(Change(0, GWProxy.kind, "a", gone, None))
                    if not store.fails:
                        alive.remove(gone)
                else:
                    (address,) = world.claims.public.propose([POOL])
                    created = transaction.create(gateway(name, str(address)))
                    if tells:
                        world.apply(change(created))
                    if not store.fails:
                        alive.append(name)
        except (sqlite3.OperationalError, Exhausted):
            continue
    store.fails = False
    with current.transaction() as (_, world):
        fresh = World.of(store)
        assert world.proxies == fresh.proxies
        taken = {p.spec.public_address for p in world.proxies.values()}
        assert len(taken) == len(alive) == world.count_gateways("a"), "each has an address of its own"
        free = POOL.range.size - len(alive)
        assert world.claims.public.propose([POOL], free) == fresh.claims.public.propose([POOL], free)
        assert not taken & set(world.claims.public.propose([POOL], free))


def test_a_world_that_was_prepared_is_not_read_again_and_is_as_the_store_is(
    store: FailingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.transaction() as transaction:
        transaction.create(gateway("g1", "203.0.113.1"))
    current = CurrentWorld(store)
    current.prepare()
    with store.transaction() as transaction:
        transaction.create(gateway("g2", "203.0.113.2"))
    monkeypatch.setattr(store, "list", None)
    current.prepare()
    with current.transaction() as (_, world):
        assert {gateway_.proxy for gateway_ in world.proxies} == {"g1", "g2"}
