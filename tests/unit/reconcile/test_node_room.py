# SPDX-License-Identifier: Apache-2.0
"""No node gets more tunnels than its kernel takes, and no account so many that others get none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from epic.bpf.tunnel_table import MAX_TUNNELS
from epic.lifecycle.tunnels import Evidence
from epic.model.base import Metadata, now
from epic.model.naming import NODE_TUNNELS
from epic.model.resources import Account, GWEndpointSlice, GWProxy, GWRoute, LBServiceGroup, Node, Tunnel
from epic.placement import place
from epic.reconcile import tunnel_room, world
from epic.reconcile.current import CurrentWorld
from epic.reconcile.lifecycle import Lifecycle
from epic.reconcile.tunnelling import replan
from epic.reconcile.turn import LifecycleSettings
from epic.reconcile.world import World
from epic.store.sqlite import SqliteStore

ROOM = 24
LET_GO = Evidence(epic_node_known=True, epic_end=False, workload_end=False, applied=None, silent_since=now())


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqliteStore]:
    monkeypatch.setattr(tunnel_room, "NODE_TUNNELS", ROOM)
    store = SqliteStore(tmp_path / "epic.db")
    with store.transaction() as transaction:
        for number in (1, 2):
            fields = {"metadata": {"name": f"e{number}"}, "spec": {"address": f"192.0.2.{number}"}}
            transaction.create(Node.model_validate(fields))
    yield store
    store.close()


def application(store: SqliteStore, account: str, nodes: int, *, on: str = "e1") -> None:
    """An account with a gateway of one instance, and endpoints on so many workload nodes."""
    with CurrentWorld(store).transaction() as (transaction, seen):
        place_ = {"name": "g", "namespace": account}
        group = {"service-prefix": "p", "envoy-replica-count": 1}
        number = transaction.next_number("address")
        instance = {"node": on, "inside-address": f"100.64.0.{number}", "unit": "current"}
        rule = {"backendRefs": [{"name": "s", "port": 80}]}
        pieces = {
            "clientRef": {"clusterID": "c"},
            "parentRef": {"uid": "s"},
            "endpoints": [{"addresses": [f"10.0.0.{n + 1}"], "nodeName": f"n{n:02}"} for n in range(nodes)],
            "nodeAddresses": {f"n{n:02}": f"198.51.100.{n + 1}" for n in range(nodes)},
        }
        transaction.create(Account(metadata=Metadata(name=account)))
        for obj in (
            LBServiceGroup.model_validate({"metadata": place_, "spec": group}),
            GWProxy.model_validate(
                {"metadata": place_, "spec": {"group": "g"}, "status": {"instances": [instance]}}
            ),
            GWRoute.model_validate(
                {"metadata": place_, "spec": {"http": {"parentRefs": [{"name": "g"}], "rules": [rule]}}}
            ),
            GWEndpointSlice.model_validate({"metadata": place_, "spec": pieces}),
        ):
            seen.note(transaction.create(obj))
        replan(transaction, seen, account, {"g"})


def held(store: SqliteStore) -> Counter[str]:
    return Counter(tunnel.account for tunnel in store.list(Tunnel))


def connected(store: SqliteStore, account: str) -> tuple[str, str, str] | None:
    conditions = store.get(GWProxy, account, "g").status.conditions
    return next(((c.status, c.reason, c.message) for c in conditions if c.type == "Connected"), None)


def test_an_account_has_as_many_tunnels_on_a_node_as_are_free_there(store: SqliteStore) -> None:
    for account in ("a", "b", "c"):
        application(store, account, nodes=30)
    assert held(store) == {"a": 12, "b": 6, "c": 3}
    application(store, "d", nodes=1)
    assert held(store)["d"] == 1
    assert connected(store, "d") is None


def test_a_node_is_never_over_full_and_the_gateway_says_what_it_is_without(
    store: SqliteStore, caplog: pytest.LogCaptureFixture
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
    application(store, "elsewhere", nodes=9, on="e2")
    assert connected(store, "elsewhere") is None


def test_room_that_becomes_free_goes_to_whoever_waits(store: SqliteStore) -> None:
    for account in ("a", "b"):
        application(store, account, nodes=10)
    assert held(store) == {"a": 10, "b": 7}
    with CurrentWorld(store).transaction() as (transaction, seen):
        piece = transaction.get(GWEndpointSlice, "a", "g")
        transaction.delete(GWEndpointSlice, "a", "g")
        seen.drop(piece)
        replan(transaction, seen, "a", {"g"})
    assert held(store) == {"a": 10, "b": 7}, "what goes is still on the node"
    work = Lifecycle(store, LifecycleSettings(IPv4Network("100.64.0.0/24"), "1"), lambda _: LET_GO)
    seen_until = work.begin()
    for _ in range(5):
        changes = list(store._changes(seen_until))
        seen_until = changes[-1].revision if changes else seen_until
        work.take_in(changes)
        work.work()
    assert held(store) == {"b": 10}
    assert connected(store, "b") == ("True", "Connected", "")


def test_gateways_are_placed_where_there_is_room_for_tunnels(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world, "_CROWDED", 10)
    application(store, "a", nodes=12, on="e1")
    seen = World.of(store)
    assert {place(f"g{number}", seen.candidates(), 1)[0] for number in range(20)} == {"e2"}
    assert len(place("g", seen.candidates(), 2)) == 2, "rather there than nowhere"


def test_the_control_plane_knows_how_many_tunnels_a_kernel_takes() -> None:
    assert NODE_TUNNELS == MAX_TUNNELS
