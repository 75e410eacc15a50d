# SPDX-License-Identifier: Apache-2.0
"""What an account may have at most: more is refused, and what is there beyond a limit is never grown."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from api_requests import API, PROXIES, proxy_body, route_body, slice_body

from epic.cache.store import CachedStore
from epic.model.resources import Account, GWEndpointSlice, GWProxy, GWRoute, Tunnel
from epic.reconcile.counts.sizes import memory_of
from epic.reconcile.current import CurrentWorld
from epic.reconcile.tunnels import tunnel_room
from epic.reconcile.tunnels.tunnelling import replan

ROUTES, SLICES = f"{API}/accounts/root/routes", f"{API}/accounts/root/slices"


def nodes(count: int, first: int = 0) -> tuple[str, ...]:
    return tuple(f"n{i:03}" for i in range(first, first + count))


def limit(store: CachedStore, **limits: int) -> None:
    with store.transaction() as transaction:
        account = transaction.get(Account, "", "root")
        transaction.update(account.model_copy(update={"spec": account.spec.model_copy(update=limits)}))


def living(store: CachedStore) -> list[Tunnel]:
    return [tunnel for tunnel in store.list(Tunnel, "root") if not tunnel.deleting]


async def gateway(tenant: httpx.AsyncClient) -> None:
    assert (await tenant.post(PROXIES, json=proxy_body())).status_code == 302
    assert (await tenant.post(ROUTES, json=route_body())).status_code == 302


def conditions(store: CachedStore) -> dict[str, Any]:
    proxy = store.get(GWProxy, "root", "U1")
    return {c.type: (c.status, c.reason, c.message) for c in proxy.status.conditions}


async def test_workload_nodes_beyond_the_limit_are_403_and_leave_nothing(
    tenant: httpx.AsyncClient, store: CachedStore
) -> None:
    limit(store, workload_node_limit=3)
    await gateway(tenant)
    assert (await tenant.post(SLICES, json=slice_body("E1", nodes=nodes(2)))).status_code == 302
    refused = await tenant.post(SLICES, json=slice_body("E2", nodes=nodes(2, first=2)))
    assert refused.status_code == 403
    assert "would have 4 workload nodes and may have 3" in refused.json()["error"]
    assert "workloadNodeLimit" in refused.json()["error"]
    assert store.find(GWEndpointSlice, "root", "E2") is None
    assert len(living(store)) == 4
    # A node counts once, in however many slices it is.
    assert (await tenant.post(SLICES, json=slice_body("E3", nodes=nodes(3)))).status_code == 302


async def test_nodes_of_one_name_in_two_clusters_are_two(
    tenant: httpx.AsyncClient, store: CachedStore
) -> None:
    limit(store, workload_node_limit=1)
    assert (await tenant.post(SLICES, json=slice_body("E1"))).status_code == 302
    other = slice_body("E2")
    other["slice"]["spec"]["clientRef"]["clusterID"] = "c2"
    assert (await tenant.post(SLICES, json=other)).status_code == 403


async def test_endpoints_beyond_the_limit_are_403(tenant: httpx.AsyncClient, store: CachedStore) -> None:
    limit(store, endpoint_limit=3)
    assert (await tenant.post(SLICES, json=slice_body("E1", nodes=nodes(2)))).status_code == 302
    refused = await tenant.post(SLICES, json=slice_body("E2", nodes=nodes(2)))
    assert refused.status_code == 403
    assert "would have 4 endpoints and may have 3" in refused.json()["error"]
    assert "endpointLimit" in refused.json()["error"]


async def test_ports_count_where_a_slice_has_more_of_them(
    tenant: httpx.AsyncClient, store: CachedStore
) -> None:
    limit(store, endpoint_limit=3)
    body = slice_body("E1")
    body["slice"]["spec"]["ports"] = [{"port": number, "protocol": "TCP"} for number in range(1, 5)]
    refused = await tenant.post(SLICES, json=body)
    assert (refused.status_code, "would have 4 endpoints" in refused.json()["error"]) == (403, True)


async def test_routes_and_slices_beyond_their_limits_are_403_until_others_are_deleted(
    tenant: httpx.AsyncClient, store: CachedStore
) -> None:
    limit(store, route_limit=1, slice_limit=1)
    for path, bodies in (
        (ROUTES, (route_body("R1"), route_body("R2"))),
        (SLICES, (slice_body("E1"), slice_body("E2"))),
    ):
        first, second = bodies
        assert (await tenant.post(path, json=first)).status_code == 302
        refused = await tenant.post(path, json=second)
        assert (refused.status_code, "has 1 " in refused.json()["error"]) == (403, True)
        name = "R1" if path == ROUTES else "E1"
        assert (await tenant.put(f"{path}/{name}", json=first)).status_code == 302
        assert (await tenant.delete(f"{path}/{name}")).status_code == 200
        assert (await tenant.post(path, json=second)).status_code == 302


async def test_bytes_beyond_the_limit_are_403_until_there_are_less(
    tenant: httpx.AsyncClient, store: CachedStore
) -> None:
    def stored(body: dict[str, Any]) -> dict[str, Any]:
        return {"metadata": {"name": "R1", "namespace": "root"}, "spec": body["route"]["spec"]}

    def long(uid: str, length: int) -> dict[str, Any]:
        body = route_body(uid)
        body["route"]["spec"]["http"]["rules"][0]["matches"] = [{"path": {"value": "/" + "x" * length}}]
        return body

    small, large = (memory_of(GWRoute.model_validate(stored(long("R1", n))).spec) for n in (1, 900))
    limit(store, bytes_limit=small + large)
    assert (await tenant.post(ROUTES, json=long("R1", 900))).status_code == 302
    refused = await tenant.post(ROUTES, json=long("R2", 900))
    assert (refused.status_code, "bytesLimit" in refused.json()["error"]) == (403, True)
    assert (await tenant.post(ROUTES, json=long("R2", 1))).status_code == 302
    larger = await tenant.put(f"{ROUTES}/R2", json=long("R2", 900))
    told = f"would take {2 * large} bytes of memory and may take {small + large}; they take {small + large};"
    assert (larger.status_code, told in larger.json()["error"]) == (403, True)
    assert (await tenant.post(SLICES, json=slice_body("E1"))).status_code == 403
    assert (await tenant.put(f"{ROUTES}/R1", json=long("R1", 1))).status_code == 302
    assert (await tenant.put(f"{ROUTES}/R2", json=long("R2", 900))).status_code == 302
    # A limit that was lowered refuses nothing that makes it no worse.
    limit(store, bytes_limit=0)
    assert (await tenant.put(f"{ROUTES}/R2", json=long("R2", 900))).status_code == 302
    assert (await tenant.put(f"{ROUTES}/R2", json=long("R2", 901))).status_code == 403
    assert (await tenant.delete(f"{ROUTES}/R2")).status_code == 200


async def test_endpoints_for_which_a_node_has_no_room_are_503_and_leave_nothing(
    tenant: httpx.AsyncClient, store: CachedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tunnel_room, "NODE_ENDPOINTS", 4)
    await gateway(tenant)
    assert (await tenant.post(SLICES, json=slice_body("E1"))).status_code == 302
    other = slice_body("E4", nodes=("n1",), service="S2")
    assert (await tenant.post(SLICES, json=other)).status_code == 302
    more, less = slice_body("E1", nodes=("n1", "n1")), slice_body("E1", nodes=("n1", "n2"))
    both = route_body()
    both["route"]["spec"]["http"]["rules"][0]["backendRefs"].append({"name": "S2", "port": 80})
    assert (await tenant.put(f"{SLICES}/E1", json=more)).status_code == 302
    for refused in (
        await tenant.post(SLICES, json=slice_body("E2")),
        await tenant.put(f"{SLICES}/E1", json=slice_body("E1", nodes=("n1",) * 3)),
        await tenant.put(f"{ROUTES}/R1", json=both),
    ):
        assert (refused.status_code, refused.json()["reason"]) == (503, "NoRoom")
        assert "no room for more endpoints" in refused.json()["error"]
    assert store.find(GWEndpointSlice, "root", "E2") is None
    assert (await tenant.put(f"{SLICES}/E1", json=less)).status_code == 302
    assert "Connected" not in conditions(store)


async def test_tunnels_beyond_the_limit_are_403_and_leave_nothing(
    tenant: httpx.AsyncClient, store: CachedStore
) -> None:
    limit(store, tunnel_limit=5)
    await gateway(tenant)
    assert (await tenant.post(SLICES, json=slice_body("E1", nodes=nodes(2)))).status_code == 302
    for refused in (
        await tenant.post(SLICES, json=slice_body("E2", nodes=nodes(1, first=2))),
        await tenant.put(f"{SLICES}/E1", json=slice_body("E1", nodes=nodes(3))),
    ):
        assert refused.status_code == 403
        assert "may have 5 tunnels" in refused.json()["error"]
        assert "tunnelLimit" in refused.json()["error"]
    assert len(living(store)) == 4
    assert "Connected" not in conditions(store)


async def test_a_gateway_that_goes_leaves_its_tunnels_to_another_at_once(
    tenant: httpx.AsyncClient, store: CachedStore
) -> None:
    limit(store, tunnel_limit=2)
    await gateway(tenant)
    assert (await tenant.post(SLICES, json=slice_body("E1"))).status_code == 302
    await tenant.post(PROXIES, json=proxy_body("U2"))
    second = route_body("R2", parent="U2")
    assert (await tenant.post(ROUTES, json=second)).status_code == 403
    assert (await tenant.delete(f"{API}/accounts/root/proxies/U1")).status_code == 200
    assert store.get(GWProxy, "root", "U1").deleting
    assert (await tenant.post(ROUTES, json=second)).status_code == 302
    assert len(living(store)) == 2, "there are no more than may be"


async def test_gateway_or_route_that_needs_too_many_tunnels_is_403(
    tenant: httpx.AsyncClient, store: CachedStore
) -> None:
    limit(store, tunnel_limit=5)
    assert (await tenant.post(SLICES, json=slice_body("E1", nodes=nodes(3)))).status_code == 302
    await tenant.post(PROXIES, json=proxy_body("U2"))
    route = await tenant.post(ROUTES, json=route_body("R2", parent="U2"))
    assert (route.status_code, "may have 5 tunnels" in route.json()["error"]) == (403, True)
    assert (await tenant.post(ROUTES, json=route_body())).status_code == 302
    proxy = await tenant.post(PROXIES, json=proxy_body())
    assert (proxy.status_code, "may have 5 tunnels" in proxy.json()["error"]) == (403, True)
    assert store.find(GWProxy, "root", "U1") is None


async def test_what_exceeds_a_limit_that_was_lowered_stays_and_may_shrink(
    tenant: httpx.AsyncClient, store: CachedStore
) -> None:
    await gateway(tenant)
    await tenant.post(SLICES, json=slice_body("E1", nodes=nodes(4)))
    limit(store, tunnel_limit=2, workload_node_limit=1, endpoint_limit=1)
    assert (await tenant.put(f"{SLICES}/E1", json=slice_body("E1", nodes=nodes(3)))).status_code == 302
    assert len(living(store)) == 6
    assert (await tenant.put(f"{SLICES}/E1", json=slice_body("E1", nodes=nodes(4)))).status_code == 403
    assert (await tenant.delete(f"{SLICES}/E1")).status_code == 200


async def test_planning_makes_no_more_than_the_limit_and_the_gateway_says_what_is_left_out(
    tenant: httpx.AsyncClient, admin: httpx.AsyncClient, store: CachedStore
) -> None:
    await gateway(tenant)
    await tenant.post(SLICES, json=slice_body("E1", nodes=nodes(1)))
    limit(store, tunnel_limit=5)
    with CurrentWorld(store).transaction() as (transaction, world):
        stored = transaction.get(GWEndpointSlice, "root", "E1")
        body = slice_body("E1", nodes=nodes(4))["slice"]["spec"]
        spec = type(stored.spec).model_validate(body)
        world.note(transaction.update(stored.model_copy(update={"spec": spec})))
        replan(transaction, world, "root", {"U1"})
    assert len(living(store)) == 4
    status, reason, message = conditions(store)["Connected"]
    assert (status, reason) == ("False", "TunnelLimit")
    assert "2 workload nodes have no tunnels" in message
    assert "tunnelLimit" in message
    # What is not worse than before is not refused.
    assert (await tenant.post(ROUTES, json=route_body("R2"))).status_code == 302
    raised = {"account": {"metadata": {"name": "root"}, "spec": {"tunnelLimit": 8}}}
    assert (await admin.put(f"{API}/accounts/root", json=raised)).status_code == 302
    assert len(living(store)) == 8
    assert conditions(store)["Connected"][:2] == ("True", "Connected")


async def test_room_that_becomes_free_goes_to_who_has_none(
    tenant: httpx.AsyncClient, store: CachedStore
) -> None:
    await gateway(tenant)
    await tenant.post(PROXIES, json=proxy_body("U2"))
    await tenant.post(ROUTES, json=route_body("R2", parent="U2", service="S2"))
    await tenant.post(SLICES, json=slice_body("E1", nodes=nodes(2)))
    limit(store, tunnel_limit=4)
    with CurrentWorld(store).transaction() as (transaction, world):
        spec = GWEndpointSlice.model_validate(
            {
                "metadata": {"name": "E2", "namespace": "root"},
                "spec": slice_body("E2", service="S2", nodes=nodes(2))["slice"]["spec"],
            }
        )
        world.note(transaction.create(spec))
        replan(transaction, world, "root", {"U2"})
    assert {tunnel.spec.proxy for tunnel in living(store)} == {"U1"}
    assert (await tenant.delete(f"{SLICES}/E1")).status_code == 200
    assert [tunnel.spec.proxy for tunnel in living(store)] == ["U2"] * 4


async def test_tunnels_that_are_not_gone_bound_how_many_are_made_anew(
    tenant: httpx.AsyncClient, store: CachedStore
) -> None:
    limit(store, tunnel_limit=4)
    await gateway(tenant)
    refused = None
    for turn in range(8):
        body = slice_body("E1", nodes=nodes(2, first=2 * turn))
        reply = await tenant.post(SLICES, json=body)
        if reply.status_code == 403:
            refused = reply.json()["error"]
            break
        await tenant.delete(f"{SLICES}/E1")
    assert refused is not None
    assert "were deleted and are not gone" in refused
    assert len(store.list(Tunnel, "root")) <= 12


async def test_an_instance_that_moves_has_its_tunnels_at_both_places_at_the_limit(
    tenant: httpx.AsyncClient, store: CachedStore
) -> None:
    limit(store, tunnel_limit=4)
    await gateway(tenant)
    await tenant.post(SLICES, json=slice_body("E1", nodes=nodes(2)))
    with CurrentWorld(store).transaction() as (transaction, world):
        proxy = transaction.get(GWProxy, "root", "U1")
        first = proxy.status.instances[0]
        other = first.model_copy(update={"node": "epic9", "inside_address": first.inside_address + 99})
        instances = (*proxy.status.instances, other)
        status = proxy.status.model_copy(update={"instances": instances})
        world.note(transaction.update(proxy.model_copy(update={"status": status})))
        replan(transaction, world, "root", {"U1"})
    assert len(living(store)) == 6
    assert "Connected" not in conditions(store)
