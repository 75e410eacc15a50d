# SPDX-License-Identifier: Apache-2.0
"""An account's tunnels are counted at the cost of what changed, and as one finds them who counts all."""

from __future__ import annotations

import random

import pytest
from tunnel_site import Turns, add_instance, application, instances_of, move

from epic.cache.store import CachedStore
from epic.model.base import now
from epic.model.resources import Account, GWProxy, LBServiceGroup
from epic.model.values.naming import GatewayId
from epic.reconcile.counts.account_tunnels import TunnelCounts
from epic.reconcile.tunnels import tunnel_room
from epic.reconcile.tunnels.tunnel_room import excess
from epic.reconcile.world import World

LIMIT = 6


def change_replicas(store: CachedStore, account: str, count: int) -> None:
    with store.transaction() as transaction:
        group = transaction.get(LBServiceGroup, account, "g")
        spec = group.spec.model_copy(update={"envoy_replica_count": count})
        transaction.update(group.model_copy(update={"spec": spec}))


def delete(store: CachedStore, account: str, name: str) -> None:
    with store.transaction() as transaction:
        proxy = transaction.find(GWProxy, account, name)
        if proxy is not None and not proxy.deleting:
            metadata = proxy.metadata.model_copy(update={"deletion_timestamp": now()})
            transaction.update(proxy.model_copy(update={"metadata": metadata}))


def limit(store: CachedStore, account: str) -> None:
    with store.transaction() as transaction:
        stored = transaction.get(Account, "", account)
        spec = stored.spec.model_copy(update={"tunnel_limit": LIMIT})
        transaction.update(stored.model_copy(update={"spec": spec}))


@pytest.mark.parametrize("seed", range(6))
def test_counts_follow_what_happens(store: CachedStore, seed: int) -> None:
    dice = random.Random(seed)
    for account in ("a", "b"):
        application(store, account, nodes=2, on=["e1"])
        limit(store, account)
    turns, seen, revision, made = Turns(store), World.of(store), store.revision, 0
    most = TunnelCounts()
    for _ in range(40):
        account = dice.choice("ab")
        match dice.randrange(6):
            case 0:
                move(store, account, dice.sample(range(8), dice.randint(1, 5)))
            case 1:
                change_replicas(store, account, dice.randint(1, 2))
            case 2:
                made += 1
                instances_of(store, account, f"g{made}", on=["e1", "e2"])
            case 3 if made:
                delete(store, account, f"g{dice.randint(1, made)}")
            case 4 if len(store.get(GWProxy, account, "g").status.instances) == 1:
                add_instance(store, account, "e2")
            case _:
                turns.take()
        for change in store.changes(revision):
            seen.apply(change)
            revision = change.revision
        whole = World.of(store)
        for each in ("a", "b"):
            assert excess(store, seen, each) == excess(store, whole, each)
            assert seen.account_tunnels.of(each) == whole.account_tunnels.of(each)
        most = TunnelCounts(*map(max, most, seen.account_tunnels.of("a")))
    assert most.used and most.wanted


def test_who_asks_again_counts_only_what_has_changed(
    store: CachedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    application(store, "a", nodes=1)
    for number in range(5):
        instances_of(store, "a", f"g{number}", on=["e1"])
    seen, counted = World.of(store), []
    excess(store, seen, "a")
    of_gateway = tunnel_room._of_gateway
    monkeypatch.setattr(
        tunnel_room,
        "_of_gateway",
        lambda world, gateway: counted.append(gateway) or of_gateway(world, gateway),
    )
    seen.note(store.get(GWProxy, "a", "g3"))
    excess(store, seen, "a")
    assert counted == [GatewayId("a", "g3")]
