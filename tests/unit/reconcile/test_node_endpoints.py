# SPDX-License-Identifier: Apache-2.0
"""No node gets more endpoints than its kernel takes, and no account so many that others' cannot move."""

from __future__ import annotations

import random
import re
from collections import Counter
from pathlib import Path

import pytest
from tunnel_site import Turns, application, instances_of, piece

from epic.cache.store import CachedStore
from epic.errors import Exhausted
from epic.model.resources import GWEndpointSlice, GWProxy, Tunnel
from epic.model.values.naming import NODE_ENDPOINTS, GatewayId
from epic.placement import place
from epic.reconcile import world
from epic.reconcile.current import CurrentWorld
from epic.reconcile.tunnels import tunnel_room
from epic.reconcile.tunnels.tunnel_room import within_room_for_endpoints
from epic.reconcile.tunnels.tunnelling import replan
from epic.reconcile.world import World
from epic.tunnels import WorkloadNode, key_of

ROOM = 24


@pytest.fixture(autouse=True)
def little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel_room, "NODE_ENDPOINTS", ROOM)


def grow(store: CachedStore, account: str, endpoints: int, *, nodes: int = 1) -> None:
    """The account's slice has so many endpoints on each of its nodes, if there is room."""
    with CurrentWorld(store).transaction() as (transaction, seen):
        stored = transaction.get(GWEndpointSlice, account, "g")
        spec = piece(account, range(nodes), each=endpoints).spec
        with within_room_for_endpoints(seen, account):
            seen.note(transaction.update(stored.model_copy(update={"spec": spec})))
        replan(transaction, seen, account, {"g"})


def held(store: CachedStore) -> dict[str, int]:
    """How many endpoints there are on e1 for each account, found by looking at everything."""
    found: Counter[str] = Counter()
    for tunnel in store.list(Tunnel):
        stored = store.find(GWEndpointSlice, tunnel.account, "g")
        if tunnel.deleting or stored is None or tunnel.spec.epic_node != "e1":
            continue
        found[tunnel.account] += sum(
            len(endpoint.addresses)
            for endpoint in stored.spec.endpoints
            if endpoint.node_name == key_of(tunnel).workload.name
        )
    return dict(found)


def connected(store: CachedStore, account: str) -> tuple[str, str, str] | None:
    conditions = store.get(GWProxy, account, "g").status.conditions
    return next(((c.status, c.reason, c.message) for c in conditions if c.type == "Connected"), None)


def test_an_account_has_as_many_endpoints_on_a_node_as_are_free_there(store: CachedStore) -> None:
    for account in ("a", "b"):
        application(store, account, nodes=1)
    grow(store, "a", 11)
    with pytest.raises(Exhausted) as refused:
        grow(store, "a", 12)
    assert "e1" not in str(refused.value), "tenants are not told of nodes"
    assert "12 of 13 endpoints on node e1" in refused.value.whole
    assert held(store) == {"a": 11, "b": 1}, "what serves goes on"
    grow(store, "b", 6)
    with pytest.raises(Exhausted):
        grow(store, "b", 7)
    assert held(store) == {"a": 11, "b": 6}


def test_who_is_beyond_the_room_may_move_and_shrink(
    store: CachedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    application(store, "a", nodes=2)
    grow(store, "a", 5, nodes=2)
    monkeypatch.setattr(tunnel_room, "NODE_ENDPOINTS", 2)
    grow(store, "a", 10, nodes=1)
    grow(store, "a", 9, nodes=1)
    with pytest.raises(Exhausted):
        grow(store, "a", 10, nodes=1)


def test_no_tunnel_is_made_to_endpoints_for_which_the_node_has_no_room(store: CachedStore) -> None:
    application(store, "a", nodes=1)
    grow(store, "a", 4, nodes=4)
    assert held(store) == {"a": 12}
    state = connected(store, "a")
    assert state is not None
    assert state[:2] == ("False", "NoRoom")
    assert "no room for one tunnel" in state[2]
    grow(store, "a", 3, nodes=4)
    assert held(store) == {"a": 12}
    assert connected(store, "a") == ("True", "Connected", "")


def test_one_account_hinders_no_other_however_many_gateways_share_its_endpoints(store: CachedStore) -> None:
    application(store, "a", nodes=1)
    grow(store, "a", 5)
    for number in range(6):
        instances_of(store, "a", f"g{number}", on=["e1"])
    application(store, "b", nodes=1)
    grow(store, "b", 6)
    assert World.of(store).endpoints.shares("a") == {"e1": 10}
    assert connected(store, "b") is None


def test_room_that_an_account_leaves_goes_to_who_waits(store: CachedStore) -> None:
    application(store, "a", nodes=1)
    grow(store, "a", 12)
    application(store, "b", nodes=8)
    assert held(store) == {"a": 12, "b": 6}
    grow(store, "a", 1)
    Turns(store).take(5)
    assert held(store) == {"a": 1, "b": 8}


def test_gateways_are_placed_where_there_is_room_for_endpoints(
    store: CachedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world, "_MANY_ENDPOINTS", 10)
    application(store, "a", nodes=1, on=["e1"])
    grow(store, "a", 10)
    assert {place(f"g{number}", World.of(store).candidates(), 1)[0] for number in range(20)} == {"e2"}


@pytest.mark.parametrize("seed", range(5))
def test_endpoints_are_counted_as_one_finds_them_who_looks_at_everything(
    store: CachedStore, seed: int
) -> None:
    dice = random.Random(seed)
    for account in ("a", "b"):
        application(store, account, nodes=1, on=["e1", "e2"])
    turns = Turns(store)
    for _ in range(15):
        account = dice.choice("ab")
        try:
            grow(store, account, dice.randint(0, 4), nodes=dice.randint(0, 4))
        except Exhausted:
            assert World.of(store).endpoints.on_node("e1") <= ROOM
        if dice.random() < 0.5:
            turns.take()
        seen = World.of(store)
        assert {a: seen.endpoints.shares(a)["e1"] for a in "ab" if "e1" in seen.endpoints.shares(a)} == {
            a: count for a, count in held(store).items() if count
        }
        assert seen.endpoints.on_node("e1") == sum(held(store).values()) <= ROOM


def test_a_pod_that_moves_costs_what_its_gateways_cost_and_no_walk_over_all(store: CachedStore) -> None:
    application(store, "a", nodes=3)
    application(store, "b", nodes=50)
    seen = World.of(store)
    counted: list[tuple[GatewayId, WorkloadNode, int]] = []
    seen.endpoints.change = lambda *change: counted.append(change)  # type: ignore[method-assign]
    stored = store.get(GWEndpointSlice, "a", "g")
    spec = piece("a", (0, 1, 3)).spec
    seen.note(stored.model_copy(update={"spec": spec}))
    gateway = GatewayId("a", "g")
    assert sorted(counted) == [
        (gateway, WorkloadNode("c", "n002"), -1),
        (gateway, WorkloadNode("c", "n003"), 1),
    ]


def test_the_control_plane_knows_how_many_endpoints_a_kernel_takes() -> None:
    header = Path(__file__).parents[3] / "bpf" / "consts.h"
    found = re.search(r"#define MAX_ENDPOINTS (\d+)", header.read_text())
    assert found is not None
    assert int(found[1]) * 7 // 8 == NODE_ENDPOINTS
