# SPDX-License-Identifier: Apache-2.0
"""A turn writes only so much, and each account has its share of that, whatever another one does."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from ipaddress import IPv4Network

import pytest
from clock import Clock
from tunnel_site import Turns, add_instance, announce, application, instances_of, move

from epic.cache.store import CachedStore
from epic.heartbeats import Heartbeats
from epic.model.backlog import TunnelBacklog
from epic.model.base import Metadata, now
from epic.model.resources import Account, GWProxy, Tunnel
from epic.reconcile import turn
from epic.reconcile.current import CurrentWorld
from epic.reconcile.tunnels import tunnel_plans, tunnelling
from epic.reconcile.tunnels.tunnelling import Budget, remember, replan, work_off
from epic.reconcile.turn import LifecycleSettings
from epic.reconcile.world import Key, World


def living(store: CachedStore) -> Counter[str]:
    return Counter(tunnel.account for tunnel in store.list(Tunnel) if not tunnel.deleting)


def going(store: CachedStore) -> Counter[str]:
    return Counter(tunnel.account for tunnel in store.list(Tunnel) if tunnel.deleting)


def states(store: CachedStore, account: str) -> list[str]:
    return [instance.unconnected for instance in store.get(GWProxy, account, "g").status.instances]


def reached(store: CachedStore, account: str, node: str) -> set[str]:
    tunnels = (tunnel for tunnel in store.list(Tunnel, account) if not tunnel.deleting)
    return {tunnel.spec.node_name for tunnel in tunnels if tunnel.spec.epic_node == node}


def test_two_accounts_that_need_many_tunnels_get_them_at_one_pace(store: CachedStore) -> None:
    for account in ("a", "b", "c"):
        application(store, account, nodes=250)
    before, turns = living(store), Turns(store)
    turns.take(2)
    gained = living(store) - before
    assert gained.keys() == {"a", "b", "c"}
    assert max(gained.values()) - min(gained.values()) <= 10
    turns.take(20)
    assert living(store) == {"a": 250, "b": 250, "c": 250}
    assert store.list(TunnelBacklog) == []


def test_tunnels_that_are_forgotten_hold_up_none_that_are_made(store: CachedStore) -> None:
    application(store, "a", nodes=240)
    turns = Turns(store)
    turns.take(10)
    turns.let_go = False
    move(store, "a", [])
    turns.take(10)
    assert going(store) == {"a": 240}
    application(store, "b", nodes=240)
    turns.let_go = True
    while living(store)["b"] < 190:
        before = living(store)["b"]
        turns = Turns(store)
        turns.take()
        assert living(store)["b"] - before >= 50
        assert going(store)["a"] >= 180
    turns.take(20)
    assert going(store) == {}


def test_tunnels_to_where_endpoints_go_are_made_before_those_to_where_they_were_are_deleted(
    store: CachedStore,
) -> None:
    application(store, "a", nodes=60)
    move(store, "a", range(100, 160))
    names = {tunnel.spec.node_name for tunnel in store.list(Tunnel) if not tunnel.deleting}
    assert {f"n{n:03}" for n in range(100, 160)} <= names
    Turns(store).take(10)
    assert living(store) == {"a": 60}


def test_only_so_many_gateways_are_looked_at_in_a_turn(store: CachedStore) -> None:
    application(store, "a", nodes=3)
    with CurrentWorld(store).transaction() as (transaction, seen):
        budget = Budget(plans=0)
        assert work_off(transaction, seen, "a", {"g"}, budget) == ""
        assert seen.backlog("a") == ("g",)
    Turns(store).take(5)
    assert store.list(TunnelBacklog) == []


def test_what_routes_name_and_is_no_gateway_is_not_remembered(store: CachedStore) -> None:
    application(store, "a", nodes=120)
    assert store.get(TunnelBacklog, "a", "a").spec.gateways == ("g",)
    with CurrentWorld(store).transaction() as (transaction, seen):
        replan(transaction, seen, "a", {f"x{number}" for number in range(1000)})
        remember(transaction, seen, "a", {"y"}, Budget())
    assert store.get(TunnelBacklog, "a", "a").spec.gateways == ("g",)


def test_a_write_for_who_waits_in_a_backlog_costs_nothing_for_the_others_in_it(
    store: CachedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    application(store, "a", nodes=120)
    for number in range(5):
        instances_of(store, "a", f"g{number}", on=["e1"])
    before = store.get(TunnelBacklog, "a", "a")
    looked: list[str] = []

    def with_tunnels_later(seen: World, proxy: GWProxy) -> GWProxy:
        looked.append(proxy.name)
        return tunnel_plans.with_tunnels_later(seen, proxy)

    monkeypatch.setattr(tunnelling, "with_tunnels_later", with_tunnels_later)
    with CurrentWorld(store).transaction() as (transaction, seen):
        replan(transaction, seen, "a", {"g3"})
    assert looked == ["g3"]
    assert store.get(TunnelBacklog, "a", "a") == before


def test_tunnels_are_forgotten_also_while_gateways_take_all_that_a_turn_may_write(
    store: CachedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for account in ("a", "b", "c"):
        application(store, account, nodes=1)
    move(store, "c", [])
    assert going(store) == {"c": 1}
    monkeypatch.setattr(turn, "Budget", lambda left=4, *rest: Budget(left, *rest))
    settings = LifecycleSettings(IPv4Network("100.64.0.0/24"), "1")
    with CurrentWorld(store).transaction() as (transaction, seen):
        one = turn.Turn(transaction, seen, settings, Turns(store).evidence, Heartbeats())
        for account in ("a", "b"):
            one.do(Key("gateway", account, "g"))
        one.do(Key("tunnels", "c", ""))
        one.finish()
    assert going(store) == {}


def test_who_does_not_serve_yet_waits_until_its_tunnels_are_made(store: CachedStore) -> None:
    application(store, "a", nodes=60, on=["e1", "e2"])
    (first, second) = store.get(GWProxy, "a", "g").status.instances
    assert (first.unconnected, second.unconnected) == ("pending", "pending")
    Turns(store).take(5)
    instances = store.get(GWProxy, "a", "g").status.instances
    assert [instance.unconnected for instance in instances] == ["", ""]


def test_who_serves_is_not_called_unconnected_for_what_comes_later(store: CachedStore) -> None:
    application(store, "a", nodes=1)
    announce(store, "a", "e1")
    move(store, "a", range(150))
    assert store.list(TunnelBacklog) != []
    assert states(store, "a") == [""]


def test_who_served_and_starts_anew_is_not_held_for_what_comes_later(store: CachedStore) -> None:
    application(store, "a", nodes=1)
    announce(store, "a", "e1")
    announce(store, "a")
    move(store, "a", range(150))
    turns = Turns(store)
    while store.list(TunnelBacklog):
        assert states(store, "a") == [""]
        turns.take()
    assert states(store, "a") == [""]


def test_a_gateway_whose_first_endpoints_are_many_waits_for_its_tunnels(store: CachedStore) -> None:
    application(store, "a", nodes=0)
    assert states(store, "a") == [""]
    move(store, "a", range(150))
    turns = Turns(store)
    while len(reached(store, "a", "e1")) < 150:
        assert states(store, "a") == ["pending"]
        turns.take()
    assert states(store, "a") == [""]


def test_who_waits_behind_others_of_its_account_is_held_until_it_has_tunnels(store: CachedStore) -> None:
    application(store, "a", nodes=0)
    with CurrentWorld(store).transaction() as (transaction, seen):
        remember(transaction, seen, "a", {"g"}, Budget())
    assert states(store, "a") == [""], "it is to have none"
    move(store, "a", range(150))
    assert states(store, "a") == ["pending"]


def test_instances_that_serve_get_their_tunnels_at_one_pace(store: CachedStore) -> None:
    application(store, "a", nodes=1, on=["e1", "e2"])
    announce(store, "a", "e1", "e2")
    move(store, "a", range(150))
    turns = Turns(store)
    while store.list(TunnelBacklog):
        first, second = reached(store, "a", "e1"), reached(store, "a", "e2")
        assert len(first ^ second) <= 1
        turns.take()
    assert len(reached(store, "a", "e1") & reached(store, "a", "e2")) == 150


def test_a_newcomer_may_serve_when_it_reaches_what_the_others_reach(store: CachedStore) -> None:
    application(store, "a", nodes=150)
    Turns(store).take(5)
    announce(store, "a", "e1")
    add_instance(store, "a", "e2")
    move(store, "a", range(50, 300))
    turns = Turns(store)
    while states(store, "a") != ["", ""]:
        turns.take()
        shared = {f"n{n:03}" for n in range(50, 150)}
        assert states(store, "a") == ["", "pending"] or reached(store, "a", "e2") >= shared
    assert store.list(TunnelBacklog) != [], "what both are without keeps it no longer"


def test_changes_without_end_hold_up_no_newcomer(store: CachedStore) -> None:
    """The instance whose place it takes is to be drained, and that must end."""
    stay = range(300, 400)
    for account in ("a", "b"):
        application(store, account, nodes=0)
        move(store, account, stay)
        Turns(store).take(5)
        announce(store, account, "e1")
    turns = Turns(store)
    for account in ("a", "b"):
        add_instance(store, account, "e2")
    for number in range(12):
        for account in ("a", "b"):
            come_and_go = range(150) if number % 2 else range(150, 300)
            move(store, account, [*come_and_go, *stay])
        turns.take()
    assert store.list(TunnelBacklog) != []
    assert (states(store, "a"), states(store, "b")) == (["", ""], ["", ""])


def test_a_newcomer_waits_for_tunnels_that_others_are_to_leave_room_for_but_not_for_ever(
    store: CachedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    application(store, "a", nodes=20)
    announce(store, "a", "e1")
    with store.transaction() as transaction:
        account = transaction.get(Account, "", "a")
        lower = account.spec.model_copy(update={"tunnel_limit": 20})
        transaction.update(account.model_copy(update={"spec": lower}))
    clock = Clock()
    turns = Turns(store, clock.seconds)
    turns.let_go = False
    for first in (100, 200):
        move(store, "a", range(first, first + 20))
    add_instance(store, "a", "e2")
    turns.take(5)
    assert (living(store), going(store)) == ({"a": 20}, {"a": 40})
    assert states(store, "a") == ["", "pending"], "those that are deleted are not gone yet"
    monkeypatch.setattr(tunnel_plans, "now", lambda: now() + timedelta(minutes=16))
    clock.pass_(61)
    turns.take(5)
    assert states(store, "a") == ["", ""]


def test_a_gateway_that_changes_without_end_leaves_its_accounts_others_their_turn(
    store: CachedStore,
) -> None:
    application(store, "a", nodes=200)
    with CurrentWorld(store).transaction() as (transaction, seen):
        remember(transaction, seen, "a", {"g"}, Budget())
        other = transaction.get(GWProxy, "a", "g")
        name = Metadata(name="h", namespace="a")
        seen.note(transaction.create(other.model_copy(update={"metadata": name})))
        remember(transaction, seen, "a", {"h"}, Budget())
        assert work_off(transaction, seen, "a", (), Budget(left=10)) == ""
        assert seen.backlog("a") == ("h", "g")
