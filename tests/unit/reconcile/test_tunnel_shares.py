# SPDX-License-Identifier: Apache-2.0
"""A turn writes only so much, and each account has its share of that, whatever another one does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tunnel_site import Turns, application, move

from epic.model.backlog import TunnelBacklog
from epic.model.resources import GWProxy, Node, Tunnel
from epic.reconcile.current import CurrentWorld
from epic.reconcile.tunnelling import Budget, remember, replan, work_off
from epic.store.sqlite import SqliteStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "epic.db")
    with store.transaction() as transaction:
        for number in (1, 2):
            fields = {"metadata": {"name": f"e{number}"}, "spec": {"address": f"192.0.2.{number}"}}
            transaction.create(Node.model_validate(fields))
    yield store
    store.close()


def living(store: SqliteStore) -> Counter[str]:
    return Counter(tunnel.account for tunnel in store.list(Tunnel) if not tunnel.deleting)


def going(store: SqliteStore) -> Counter[str]:
    return Counter(tunnel.account for tunnel in store.list(Tunnel) if tunnel.deleting)


def test_two_accounts_that_need_many_tunnels_get_them_at_one_pace(store: SqliteStore) -> None:
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


def test_tunnels_that_are_forgotten_hold_up_none_that_are_made(store: SqliteStore) -> None:
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
    store: SqliteStore,
) -> None:
    application(store, "a", nodes=60)
    move(store, "a", range(100, 160))
    names = {tunnel.spec.node_name for tunnel in store.list(Tunnel) if not tunnel.deleting}
    assert {f"n{n:03}" for n in range(100, 160)} <= names
    Turns(store).take(10)
    assert living(store) == {"a": 60}


def test_only_so_many_gateways_are_looked_at_in_a_turn(store: SqliteStore) -> None:
    application(store, "a", nodes=3)
    with CurrentWorld(store).transaction() as (transaction, seen):
        budget = Budget(plans=0)
        assert work_off(transaction, seen, "a", {"g"}, budget) == ""
        assert seen.backlog("a") == ("g",)
    Turns(store).take(5)
    assert store.list(TunnelBacklog) == []


def test_what_routes_name_and_is_no_gateway_is_not_remembered(store: SqliteStore) -> None:
    application(store, "a", nodes=120)
    assert store.get(TunnelBacklog, "a", "a").spec.gateways == ("g",)
    with CurrentWorld(store).transaction() as (transaction, seen):
        replan(transaction, seen, "a", {f"x{number}" for number in range(1000)})
        remember(transaction, seen, "a", {"y"}, Budget())
    assert store.get(TunnelBacklog, "a", "a").spec.gateways == ("g",)


def test_who_does_not_serve_yet_waits_until_its_tunnels_are_made(store: SqliteStore) -> None:
    application(store, "a", nodes=60, on=["e1", "e2"])
    (first, second) = store.get(GWProxy, "a", "g").status.instances
    assert (first.unconnected, second.unconnected) == ("pending", "pending")
    Turns(store).take(5)
    instances = store.get(GWProxy, "a", "g").status.instances
    assert [instance.unconnected for instance in instances] == ["", ""]


def test_who_serves_is_not_called_unconnected_for_what_comes_later(store: SqliteStore) -> None:
    application(store, "a", nodes=1)
    with CurrentWorld(store).transaction() as (transaction, _):
        proxy = transaction.get(GWProxy, "a", "g")
        serving = tuple(i.model_copy(update={"announced": True}) for i in proxy.status.instances)
        status = proxy.status.model_copy(update={"instances": serving})
        transaction.update(proxy.model_copy(update={"status": status}))
    move(store, "a", range(150))
    assert store.list(TunnelBacklog) != []
    assert [i.unconnected for i in store.get(GWProxy, "a", "g").status.instances] == [""]
