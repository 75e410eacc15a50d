# SPDX-License-Identifier: Apache-2.0
"""No node gets more tunnels than its kernel takes, and no account so many that others get none."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Network

import pytest
from clock import Clock
from tunnel_site import Turns, add_instance, announce, application, move

from epic.bpf.tables.tunnel_table import MAX_TUNNELS
from epic.cache.store import CachedStore
from epic.heartbeats import Heartbeats
from epic.model.backlog import TunnelBacklog
from epic.model.resources import GWEndpointSlice, GWProxy, Tunnel
from epic.model.values.naming import NODE_TUNNELS
from epic.placement import place
from epic.reconcile import world
from epic.reconcile.current import CurrentWorld
from epic.reconcile.tunnels import tunnel_room
from epic.reconcile.tunnels.tunnelling import Budget, replan, work_off
from epic.reconcile.turn import LifecycleSettings, Turn
from epic.reconcile.world import Key, World
from epic.store.interface import Change

ROOM = 24


@pytest.fixture(autouse=True)
def little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel_room, "NODE_TUNNELS", ROOM)


def held(store: CachedStore) -> Counter[str]:
    return Counter(tunnel.account for tunnel in store.list(Tunnel))


def connected(store: CachedStore, account: str) -> tuple[str, str, str] | None:
    conditions = store.get(GWProxy, account, "g").status.conditions
    return next(((c.status, c.reason, c.message) for c in conditions if c.type == "Connected"), None)


def test_an_account_has_as_many_tunnels_on_a_node_as_are_free_there(store: CachedStore) -> None:
    for account in ("a", "b", "c"):
        application(store, account, nodes=30)
    assert held(store) == {"a": 12, "b": 6, "c": 3}
    application(store, "d", nodes=1)
    assert held(store)["d"] == 1
    assert connected(store, "d") is None


def test_a_node_is_never_over_full_and_the_gateway_says_what_it_is_without(
    store: CachedStore, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(30):
        application(store, f"a{number}", nodes=9)
    assert held(store).total() <= ROOM
    state = connected(store, "a29")
    assert state is not None
    assert state[:2] == ("False", "NoRoom")
    assert "no room for 9 tunnels" in state[2]
    assert "e1" not in state[2], "tenants are not told of nodes"
    assert "gateway a29.g: no room for 9 tunnels on e1" in caplog.text
    application(store, "elsewhere", nodes=9, on=["e2"])
    assert connected(store, "elsewhere") is None


def test_room_that_becomes_free_goes_to_whoever_waits(store: CachedStore) -> None:
    for account in ("a", "b"):
        application(store, account, nodes=10)
    assert held(store) == {"a": 10, "b": 7}
    with CurrentWorld(store).transaction() as (transaction, seen):
        piece = transaction.get(GWEndpointSlice, "a", "g")
        transaction.delete(GWEndpointSlice, "a", "g")
        seen.drop(piece)
        replan(transaction, seen, "a", {"g"})
    assert held(store) == {"a": 10, "b": 7}, "what goes is still on the node"
    Turns(store).take(5)
    assert held(store) == {"b": 10}
    assert connected(store, "b") == ("True", "Connected", "")


def test_an_instance_without_a_single_tunnel_does_not_pass_for_one_that_has_some(store: CachedStore) -> None:
    for number in range(12):
        application(store, f"a{number}", nodes=9)
    application(store, "b", nodes=2, on=["e1", "e2"])
    instances = store.get(GWProxy, "b", "g").status.instances
    assert {i.node: i.unconnected for i in instances} == {"e1": "no-room", "e2": ""}
    application(store, "c", nodes=2, on=["e1"])
    (alone,) = store.get(GWProxy, "c", "g").status.instances
    assert alone.unconnected == "", "no other is any better"


def test_who_comes_to_wait_is_looked_at_once_more(store: CachedStore) -> None:
    """Room may have become free before one heard that somebody waits for it."""
    seen = World.of(store)
    for number in range(12):
        application(store, f"a{number}", nodes=9)
    proxy = store.get(GWProxy, "a11", "g")
    assert proxy.status.crowded_out
    plan = Key("plan", "a11", "")
    change = Change(proxy.metadata.resource_version, GWProxy.kind, "a11", "g", proxy)
    assert plan in seen.apply(change)
    assert plan not in seen.apply(change)
    (tunnel, *_) = store.list(Tunnel)
    for kind, name, obj in ((Tunnel.kind, tunnel.name, tunnel), (Tunnel.kind, tunnel.name, None)):
        found = seen.apply(Change(0, kind, tunnel.account, name, obj))
    assert found == {plan}, "who waits for room on that node, and nobody else"


def test_who_waits_is_looked_at_from_time_to_time(
    store: CachedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(12):
        application(store, f"a{number}", nodes=9)
    clock = Clock()
    turns = Turns(store, clock.seconds)
    turns.take(5)
    monkeypatch.setattr(tunnel_room, "NODE_TUNNELS", 1000)
    turns.take(5)
    state = connected(store, "a11")
    assert state is not None
    assert state[1] == "NoRoom", "nobody said that there is room now"
    clock.pass_(61)
    turns.take(5)
    assert connected(store, "a11") == ("True", "Connected", "")


@pytest.mark.parametrize("names", [("", "f"), ("f", "")])
def test_who_waits_at_the_end_is_looked_at_however_often_all_begins_anew(
    store: CachedStore, names: tuple[str, str]
) -> None:
    for number in range(12):
        application(store, f"a{number}", nodes=9)
    settings = LifecycleSettings(IPv4Network("100.64.0.0/24"), "1")
    with CurrentWorld(store).transaction() as (transaction, seen):
        turn = Turn(transaction, seen, settings, Turns(store).evidence, Heartbeats())
        for name in names:
            turn.do(Key("plan", "a11", name))
        assert turn.again == {Key("plan", "a11", "")}, "those before it come next"
        turn.finish()
    assert turn.again == {Key("plan", "a11", "")}


def test_a_turn_that_may_write_nothing_leaves_who_waits_as_it_is(store: CachedStore) -> None:
    for number in range(12):
        application(store, f"a{number}", nodes=9)
    state = connected(store, "a11")
    assert state is not None
    assert state[1] == "NoRoom"
    with CurrentWorld(store).transaction() as (transaction, seen):
        work_off(transaction, seen, "a11", (), Budget(0))
    assert (connected(store, "a11"), store.list(TunnelBacklog)) == (state, [])


def test_who_waits_when_nothing_more_may_be_written_comes_next(store: CachedStore) -> None:
    for number in range(12):
        application(store, f"a{number}", nodes=9)
    with CurrentWorld(store).transaction() as (transaction, seen):
        assert work_off(transaction, seen, "a11", (), Budget(0)) == ""


def test_nothing_is_kept_of_what_is_gone() -> None:
    seen = World()
    objects = [
        GWProxy.model_validate(
            {
                "metadata": {"name": "g", "namespace": "a"},
                "spec": {"group": "g"},
                "status": {
                    "crowded-out": 1,
                    "instances": [{"node": "e1", "inside-address": "100.64.0.1"}],
                },
            }
        ),
        Tunnel.model_validate(
            {
                "metadata": {"name": "1", "namespace": "a"},
                "spec": {
                    "proxy": "g",
                    "service": 1,
                    "epic-node": "e1",
                    "inside-address": "100.64.0.1",
                    "cluster-id": "c",
                    "node-name": "n",
                    "node-address": "198.18.0.1",
                    "keys": [],
                    "signing-epoch": 1,
                    "signing-since": "2026-01-01T00:00:00Z",
                },
            }
        ),
    ]
    empty = kept(seen)
    for obj in objects:
        seen.note(obj)
    assert kept(seen) != empty
    for obj in objects:
        seen.drop(obj)
    seen.endpoints.changed.clear()
    assert kept(seen) == empty


def kept(seen: World) -> dict[str, int]:
    parts = (seen, seen.tunnels, seen.endpoints)
    return {
        f"{type(part).__name__}{name}": len(what)
        for part in parts
        for name, what in vars(part).items()
        if hasattr(what, "__len__")
    }


def test_gateways_are_placed_where_there_is_room_for_tunnels(
    store: CachedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world, "_MANY_TUNNELS", 10)
    application(store, "a", nodes=12, on=["e1"])
    seen = World.of(store)
    assert {place(f"g{number}", seen.candidates(), 1)[0] for number in range(20)} == {"e2"}
    assert len(place("g", seen.candidates(), 2)) == 2, "rather there than nowhere"


def test_the_control_plane_knows_how_many_tunnels_a_kernel_takes() -> None:
    assert NODE_TUNNELS == MAX_TUNNELS


def test_who_has_no_room_to_reach_what_another_reaches_does_not_take_its_place(store: CachedStore) -> None:
    application(store, "b", nodes=9, on=["e1"])
    application(store, "a", nodes=10, on=["e2"])
    announce(store, "a", "e2")
    add_instance(store, "a", "e1")
    assert held(store) == {"b": 9, "a": 10 + 7}
    assert unconnected(store, "a") == {"e2": "", "e1": "no-room"}, "it has 7 of 10"
    move(store, "b", range(4))
    Turns(store).take(5)
    assert unconnected(store, "a") == {"e2": "", "e1": ""}


def test_without_another_that_serves_who_has_room_for_some_of_its_tunnels_serves(store: CachedStore) -> None:
    application(store, "b", nodes=9, on=["e1"])
    application(store, "a", nodes=10, on=["e2"])
    announce(store, "a", "e2")
    add_instance(store, "a", "e1")
    turns = Turns(store)
    turns.take(5)
    announce(store, "a")
    turns.take(5)
    assert unconnected(store, "a") == {"e2": "", "e1": ""}
    announce(store, "a", "e1", "e2")
    turns.take(5)
    assert unconnected(store, "a") == {"e2": "", "e1": "short"}, "what serves goes on"


def test_who_served_and_starts_anew_is_not_held_for_want_of_room(store: CachedStore) -> None:
    application(store, "b", nodes=9, on=["e1"])
    application(store, "a", nodes=2, on=["e1", "e2"])
    announce(store, "a", "e1", "e2")
    move(store, "a", range(10))
    announce(store, "a", "e2")
    Turns(store).take(5)
    assert unconnected(store, "a") == {"e1": "short", "e2": ""}


def unconnected(store: CachedStore, account: str) -> dict[str, str]:
    instances = store.get(GWProxy, account, "g").status.instances
    return {i.node: "short" if i.short else i.unconnected for i in instances}


def test_who_was_let_go_while_nobody_served_takes_no_place_of_one_that_reaches_more(
    store: CachedStore,
) -> None:
    application(store, "b", nodes=9, on=["e1"])
    application(store, "a", nodes=10, on=["e1", "e2"])
    assert unconnected(store, "a") == {"e1": "", "e2": ""}
    announce(store, "a", "e1", "e2")
    turns = Turns(store)
    turns.take(5)
    assert unconnected(store, "a") == {"e1": "short", "e2": ""}
    announce(store, "a", "e2")
    turns.take(5)
    assert unconnected(store, "a") == {"e1": "short", "e2": ""}, "it may serve, also when it starts anew"
    announce(store, "a", "e1")
    turns.take(5)
    assert unconnected(store, "a") == {"e1": "", "e2": ""}
