# SPDX-License-Identifier: Apache-2.0
"""However many tunnels a write needs, no transaction writes many objects, and in the end all are there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from api_requests import API, PROXIES, proxy_body, route_body, slice_body
from life_plant import Plant

from epic.cache.store import CachedStore
from epic.model.backlog import TunnelBacklog
from epic.model.resources import (
    Account,
    GWEndpointSlice,
    GWProxy,
    LBServiceGroup,
    Node,
    ServicePrefix,
    Tunnel,
)
from epic.reconcile.tunnels.tunnelling import Budget

ROUTES, SLICES, NODES = f"{API}/accounts/root/routes", f"{API}/accounts/root/slices", f"{API}/nodes"
MOST = 120
"""Objects in a commit, which is what etcd takes."""


def names(count: int) -> tuple[str, ...]:
    return tuple(f"n{i:03}" for i in range(count))


def count(store: CachedStore) -> tuple[int, int]:
    """Tunnels that live, and that go."""
    tunnels = store.list(Tunnel, "root")
    going = sum(tunnel.deleting for tunnel in tunnels)
    return len(tunnels) - going, going


def connected(store: CachedStore, name: str = "U1") -> tuple[str, str] | None:
    conditions = store.get(GWProxy, "root", name).status.conditions
    return next(((c.status, c.reason) for c in conditions if c.type == "Connected"), None)


@pytest.fixture
def large(store: CachedStore) -> CachedStore:
    """An account that may have much, and addresses for many gateways."""
    set_limits(store, proxy_limit=1000)
    with store.transaction() as transaction:
        prefix = transaction.get(ServicePrefix, "", "default")
        pool = prefix.spec.public_pool.model_copy(update={"pool": "203.0.113.10-203.0.113.200"})
        spec = prefix.spec.model_copy(update={"public_pool": pool})
        transaction.update(prefix.model_copy(update={"spec": spec}))
    return store


@pytest.fixture
def written(large: CachedStore, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many objects each transaction has written."""
    found: list[int] = []
    begin = large.transaction

    @contextmanager
    def counted() -> Iterator[Any]:
        with begin() as transaction:
            yield transaction
            # And the mark of the transaction.
            found.append(len(transaction._touched) + 1)

    monkeypatch.setattr(large, "transaction", counted)
    return found


@pytest.fixture
async def gateway(tenant: httpx.AsyncClient, large: CachedStore) -> None:
    assert (await tenant.post(PROXIES, json=proxy_body())).status_code == 302
    assert (await tenant.post(ROUTES, json=route_body())).status_code == 302


@pytest.mark.usefixtures("gateway")
async def test_the_tunnels_of_a_slice_of_many_nodes_are_made_in_parts(
    tenant: httpx.AsyncClient, large: CachedStore, plant: Plant, written: list[int]
) -> None:
    reply = await tenant.post(SLICES, json=slice_body(nodes=names(200)))
    assert reply.status_code == 302
    assert 0 < count(large)[0] < MOST
    assert connected(large) == ("False", "Pending")
    assert large.get(GWProxy, "root", "U1").status.unmapped_cluster == "c1"
    plant.reconcile()
    assert count(large) == (400, 0)
    assert connected(large) == ("True", "Connected")
    shown = large.get(GWProxy, "root", "U1").spec.gue_tunnel_endpoints
    assert sum(len(node.epic_endpoints) for node in shown.values()) == 400
    assert large.list(TunnelBacklog) == []
    assert (await tenant.delete(f"{SLICES}/E1")).status_code == 200
    assert count(large)[0] > 400 - MOST
    plant.reconcile()
    assert count(large) == (0, 400)
    assert max(written) <= MOST


@pytest.mark.usefixtures("gateway")
async def test_few_tunnels_are_there_with_the_reply(
    tenant: httpx.AsyncClient, large: CachedStore, written: list[int]
) -> None:
    assert (await tenant.post(SLICES, json=slice_body(nodes=names(20)))).status_code == 302
    assert (count(large), connected(large)) == ((40, 0), None)


async def test_more_instances_for_many_gateways_get_their_tunnels_in_parts(
    tenant: httpx.AsyncClient, large: CachedStore, plant: Plant, written: list[int]
) -> None:
    await tenant.post(SLICES, json=slice_body(nodes=names(5)))
    set_replicas(large, 1)
    for i in range(40):
        assert (
            await tenant.post(PROXIES, json=proxy_body(f"U{i}", **{"display-name": f"u{i}"}))
        ).status_code == 302
        assert (await tenant.post(ROUTES, json=route_body(f"R{i}", f"U{i}"))).status_code == 302
    plant.reconcile()
    assert count(large) == (200, 0)
    set_replicas(large, 2)
    plant.reconcile()
    assert count(large) == (400, 0)
    # One slice is behind all of them.
    assert (await tenant.put(f"{SLICES}/E1", json=slice_body(nodes=names(2)))).status_code == 302
    plant.reconcile()
    assert count(large) == (160, 240)
    assert all(connected(large, f"U{i}") in {None, ("True", "Connected")} for i in range(40))
    assert large.list(TunnelBacklog) == []
    assert max(written) <= MOST


def set_limits(store: CachedStore, **limits: int) -> None:
    with store.transaction() as transaction:
        account = transaction.get(Account, "", "root")
        transaction.update(account.model_copy(update={"spec": account.spec.model_copy(update=limits)}))


def set_replicas(store: CachedStore, count: int) -> None:
    with store.transaction() as transaction:
        group = transaction.get(LBServiceGroup, "root", "gatewayhttp")
        spec = group.spec.model_copy(update={"envoy_replica_count": count})
        transaction.update(group.model_copy(update={"spec": spec}))


@pytest.mark.usefixtures("gateway")
async def test_a_control_plane_that_ends_between_two_parts_goes_on_when_it_begins(
    tenant: httpx.AsyncClient, large: CachedStore, plant: Plant
) -> None:
    await tenant.post(SLICES, json=slice_body(nodes=names(200)))
    for _ in range(10):
        plant.restart_control()
        plant.lifecycle.work()
    assert count(large) == (400, 0)
    plant.reconcile()
    places = {(t.spec.epic_node, t.spec.node_name) for t in large.list(Tunnel, "root")}
    assert (count(large), len(places)) == ((400, 0), 400)
    assert large.list(TunnelBacklog) == []


async def test_a_replacement_is_announced_when_all_its_tunnels_are_made(
    tenant: httpx.AsyncClient, large: CachedStore, plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_replicas(large, 1)
    await tenant.post(PROXIES, json=proxy_body())
    await tenant.post(ROUTES, json=route_body())
    await tenant.post(SLICES, json=slice_body(nodes=names(200)))
    plant.settle(turns=20)
    (old,) = announced(plant)
    with large.transaction() as transaction:
        node = transaction.get(Node, "", old)
        spec = node.spec.model_copy(update={"schedulable": False, "drain": True})
        transaction.update(node.model_copy(update={"spec": spec}))
    # A part of the tunnels with each turn, and everybody else is fast.
    monkeypatch.setattr(Budget.__init__, "__defaults__", (20, 20, 40))
    monkeypatch.setattr(plant, "reconcile", plant.turn)
    for _ in range(60):
        plant.settle(turns=1)
        connected_to = Counter(t.spec.epic_node for t in large.list(Tunnel) if not t.deleting)
        assert announced(plant), "somebody serves at any time"
        assert all(connected_to[name] == 200 for name in announced(plant))
    assert len(announced(plant)) == 1
    assert announced(plant) != {old}


def announced(plant: Plant) -> set[str]:
    """The nodes that announce the gateway."""
    return {name for name, node in plant.epic.items() if "root.U1" in node.announced.values()}


@pytest.mark.usefixtures("gateway")
async def test_what_is_promised_to_one_request_is_refused_to_another(
    tenant: httpx.AsyncClient, large: CachedStore, plant: Plant
) -> None:
    set_limits(large, tunnel_limit=400)
    await tenant.post(PROXIES, json=proxy_body("U2", **{"display-name": "other"}))
    await tenant.post(ROUTES, json=route_body("R2", parent="U2", service="S2"))
    assert (await tenant.post(SLICES, json=slice_body("E1", nodes=names(120)))).status_code == 302
    refused = await tenant.post(SLICES, json=slice_body("E2", service="S2", nodes=names(120)))
    assert refused.status_code == 403
    assert "may have 400 tunnels" in refused.json()["error"]
    assert large.find(GWEndpointSlice, "root", "E2") is None
    reply = await tenant.post(SLICES, json=slice_body("E2", service="S2", nodes=names(80)))
    assert reply.status_code == 302
    assert connected(large, "U2") == ("False", "Pending")
    plant.reconcile()
    assert count(large) == (400, 0)
    assert connected(large) == connected(large, "U2") == ("True", "Connected")


@pytest.mark.usefixtures("gateway")
async def test_a_gateway_that_goes_keeps_its_name_until_all_its_tunnels_are_taken_from_their_ends(
    tenant: httpx.AsyncClient, large: CachedStore, plant: Plant, written: list[int]
) -> None:
    await tenant.post(SLICES, json=slice_body(nodes=names(200)))
    plant.reconcile()
    await tenant.delete(f"{API}/accounts/root/proxies/U1")
    for _ in range(200):
        plant.settle(turns=1)
        if large.find(GWProxy, "root", "U1") is None:
            break
        assert (await tenant.post(PROXIES, json=proxy_body())).status_code in {302, 409}
    assert count(large)[0] == 0
    plant.settle(turns=20)
    assert (large.list(Tunnel), large.list(TunnelBacklog)) == ([], [])
    assert max(written) <= MOST


async def test_a_node_with_another_address_has_its_gateways_show_that_in_parts(
    tenant: httpx.AsyncClient, large: CachedStore, plant: Plant, written: list[int]
) -> None:
    await tenant.post(SLICES, json=slice_body(nodes=names(1)))
    for i in range(60):
        await tenant.post(PROXIES, json=proxy_body(f"U{i}", **{"display-name": f"u{i}"}))
        await tenant.post(ROUTES, json=route_body(f"R{i}", f"U{i}"))
    tenant.auth = httpx.BasicAuth("admin", "admin-password")
    body = {"node": {"spec": {"address": "192.0.2.77"}}}
    assert (await tenant.put(f"{NODES}/epic1", json=body)).status_code == 302
    plant.reconcile()
    for proxy in large.list(GWProxy, "root"):
        (shown,) = proxy.spec.gue_tunnel_endpoints.values()
        assert set(shown.epic_endpoints) == {"192.0.2.77", "192.0.2.2"}
    assert max(written) <= MOST


async def test_a_write_reads_no_more_of_an_account_that_has_more(
    tenant: httpx.AsyncClient, large: CachedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def application(i: int) -> None:
        for path, body in (
            (PROXIES, proxy_body(f"U{i}", **{"display-name": f"u{i}"})),
            (ROUTES, route_body(f"R{i}", f"U{i}", f"S{i}")),
            (SLICES, slice_body(f"E{i}", f"S{i}", names(2))),
        ):
            assert (await tenant.post(path, json=body)).status_code == 302

    async def removal(i: int) -> None:
        for path in (f"{SLICES}/E{i}", f"{ROUTES}/R{i}", f"{API}/accounts/root/proxies/U{i}"):
            assert (await tenant.delete(path)).status_code == 200

    read: list[int] = []
    begin = large.transaction

    @contextmanager
    def counted() -> Iterator[Any]:
        with begin() as transaction:
            find, every = transaction.find, transaction.list

            def found(*key: Any) -> Any:
                read.append(1)
                return find(*key)

            def listed(*what: Any) -> list[Any]:
                objects = every(*what)
                read.append(len(objects))
                return objects

            monkeypatch.setattr(transaction, "find", found)
            monkeypatch.setattr(transaction, "list", listed)
            yield transaction

    monkeypatch.setattr(large, "transaction", counted)
    sums = []
    for first in (0, 30):
        await application(first)
        read.clear()
        await application(first + 1)
        await removal(first + 1)
        sums.append(sum(read))
        for i in range(first + 2, first + 20):
            await application(i)
    assert sums[0] == sums[1]
