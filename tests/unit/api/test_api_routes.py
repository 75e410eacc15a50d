# SPDX-License-Identifier: Apache-2.0
"""Routes and EndpointSlices over REST, and the tunnels that follow from them."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import httpx
import pytest
from api_requests import API, PROXIES, Events, proxy_body, route_body, slice_body

from epic.api.context import Context
from epic.api.tunnel.tunnels import follow, tunnels_of
from epic.cache.store import CachedStore
from epic.ipam.networks import DEFAULT_POOLS
from epic.model.base import now
from epic.model.resources import GWProxy, Node, Tunnel
from epic.model.runs import Run
from epic.tunnels import WorkloadNode

ROUTES, SLICES = f"{API}/accounts/root/routes", f"{API}/accounts/root/slices"
TUNNELS = f"{API}/accounts/root/tunnels"


@pytest.mark.parametrize(
    ("collection", "key", "body", "name"),
    [(ROUTES, "route", route_body(), "R1"), (SLICES, "slice", slice_body(), "E1")],
)
async def test_life_of_a_route_and_a_slice(
    tenant: httpx.AsyncClient, collection: str, key: str, body: dict[str, Any], name: str
) -> None:
    path = f"{collection}/{name}"
    created = await tenant.post(collection, json=body)
    assert (created.status_code, created.headers["location"]) == (302, path)
    again = await tenant.post(collection, json=body)
    assert (again.status_code, again.headers["location"]) == (409, path)
    read = (await tenant.get(path)).json()
    assert read == created.json()
    assert read["link"] == {"self": path}
    same = await tenant.put(path, json=body)
    assert (same.status_code, same.json()) == (302, read)
    assert [i["metadata"]["name"] for i in (await tenant.get(collection)).json()["items"]] == [name]
    assert (await tenant.delete(path)).status_code == 200
    assert (await tenant.delete(path)).status_code == 200
    assert (await tenant.get(path)).status_code == 404
    assert (await tenant.put(path, json=body)).status_code == 404


async def test_a_route_shows_what_its_gateways_make_of_it(tenant: httpx.AsyncClient) -> None:
    def said(route: dict[str, Any]) -> list[tuple[str, str]]:
        conditions = [c for parent in route["status"]["parents"] for c in parent["conditions"]]
        return [(c["status"], c["reason"]) for c in conditions]

    created = (await tenant.post(ROUTES, json=route_body())).json()["route"]
    assert said(created) == [("False", "NoMatchingParent")]
    await tenant.post(PROXIES, json=proxy_body())
    assert said((await tenant.get(f"{ROUTES}/R1")).json()["route"]) == [("True", "Accepted")]
    body = route_body()
    body["route"]["spec"]["http"]["rules"][0]["filters"] = [{"type": "RequestRedirect"}]
    replaced = (await tenant.put(f"{ROUTES}/R1", json=body)).json()["route"]
    assert said(replaced) == [("False", "UnsupportedValue")]
    (item,) = (await tenant.get(ROUTES)).json()["items"]
    assert "status" not in item
    assert replaced["status"] == {
        "parents": [
            {
                "parentRef": {"name": "U1"},
                "controllerName": "epic-gateway.org/puregw",
                "conditions": [
                    {
                        "type": "Accepted",
                        "status": "False",
                        "reason": "UnsupportedValue",
                        "message": "Rule 0: its filters cannot be served.",
                        "observedGeneration": 2,
                    }
                ],
            }
        ]
    }


async def test_hostnames_are_echoed_and_put_replaces_the_whole_spec(tenant: httpx.AsyncClient) -> None:
    reply = await tenant.post(ROUTES, json=route_body())
    assert reply.json()["route"]["spec"]["http"]["hostnames"] == ["a.b"]
    tcp = {"tcp": {"parentRefs": [{"name": "U1"}], "rules": []}, "clientRef": {"uid": "R1"}}
    spec = (await tenant.put(f"{ROUTES}/R1", json={"route": {"spec": tcp}})).json()["route"]["spec"]
    assert "http" not in spec


async def publish(client: httpx.AsyncClient, nodes: tuple[str, ...] = ("n1",)) -> None:
    for path, body in ((PROXIES, proxy_body()), (ROUTES, route_body()), (SLICES, slice_body(nodes=nodes))):
        assert (await client.post(path, json=body)).status_code == 302


async def test_slices_make_tunnels_without_a_run(tenant: httpx.AsyncClient, store: CachedStore) -> None:
    await publish(tenant)
    gue = (await tenant.get(f"{API}/accounts/root/proxies/U1")).json()["proxy"]["spec"][
        "gue-tunnel-endpoints"
    ]
    assert list(gue) == ["10.0.0.1"]
    assert set(gue["10.0.0.1"]["epic-endpoints"]) == {"192.0.2.1", "192.0.2.2"}
    assert len(store.list(Run)) == 2


async def test_tunnels_keep_their_ids_and_keys_while_their_pair_lasts(
    tenant: httpx.AsyncClient, store: CachedStore
) -> None:
    await publish(tenant)
    before = store.list(Tunnel)
    await tenant.put(f"{SLICES}/E1", json=slice_body(nodes=("n1", "n2")))
    after = store.list(Tunnel)
    assert len(after) == 4
    assert all(tunnel in after for tunnel in before)
    await tenant.delete(f"{ROUTES}/R1")
    assert all(tunnel.deleting for tunnel in store.list(Tunnel))
    await tenant.post(ROUTES, json=route_body())
    anew = {int(tunnel.name) for tunnel in store.list(Tunnel) if not tunnel.deleting}
    assert len(anew) == 4
    assert anew.isdisjoint(int(t.name) for t in after)


async def test_gateway_after_its_routes_gets_its_tunnels_too(
    tenant: httpx.AsyncClient, store: CachedStore
) -> None:
    await tenant.post(SLICES, json=slice_body())
    await tenant.post(ROUTES, json=route_body())
    await tenant.post(PROXIES, json=proxy_body())
    assert len(store.list(Tunnel)) == 2


async def test_workload_node_reads_its_tunnels_with_keys_and_endpoints(
    tenant: httpx.AsyncClient, store: CachedStore
) -> None:
    await publish(tenant, ("n1", "n2"))
    reply = await tenant.get(TUNNELS, params={"cluster": "c1", "node": "n2"})
    tunnels = reply.json()["tunnels"]
    assert [t["epic-address"] for t in tunnels] == ["192.0.2.1", "192.0.2.2"]
    stored = store.get(Tunnel, "root", str(tunnels[0]["id"]))
    assert tunnels[0] == {
        "id": int(stored.name),
        "gateway": "root.U1",
        "service": 1,
        "inside-address": str(stored.spec.inside_address),
        "inside-address6": str(DEFAULT_POOLS.inside6.network_address + int(stored.spec.inside_address)),
        "epic-address": "192.0.2.1",
        "epic-port": 6080,
        "keys": [{"epoch": 1, "secret": stored.spec.keys[0].secret.get_secret_value()}],
        "signing-epoch": 1,
        "endpoints": ["10.1.2.2"],
    }
    assert len(tunnels[0]["keys"][0]["secret"]) == 32


async def test_other_clusters_and_nodes_have_no_tunnels(tenant: httpx.AsyncClient) -> None:
    await publish(tenant)
    for query in ({"cluster": "c2", "node": "n1"}, {"cluster": "c1", "node": "n2"}):
        assert (await tenant.get(TUNNELS, params=query)).json()["tunnels"] == []
    assert (await tenant.get(TUNNELS)).status_code == 400


async def test_keys_are_in_no_other_reply(tenant: httpx.AsyncClient, store: CachedStore) -> None:
    await publish(tenant)
    secret = store.list(Tunnel)[0].spec.keys[0].secret.get_secret_value()
    for path in ("proxies", "proxies/U1", "routes", "slices", ""):
        assert secret not in (await tenant.get(f"{API}/accounts/root/{path}".rstrip("/"))).text


async def test_watch_sends_tunnels_at_once_and_on_each_change(
    tenant: httpx.AsyncClient, store: CachedStore
) -> None:
    workload = WorkloadNode("c1", "n1")
    context = Context(store=store, inside_pool=IPv4Network("100.64.0.0/10"), run_events=Events())
    replies = follow(context, "root", workload)
    async with asyncio.timeout(5):
        assert (await anext(replies))["tunnels"] == []
        await publish(tenant)
        told = await anext(replies)
        assert told["tunnels"] == tunnels_of(context, "root", workload)["tunnels"]
        await tenant.delete(f"{SLICES}/E1")
        last = await anext(replies)
        assert last["tunnels"] == []
        deletions = [tunnel.metadata.resource_version for tunnel in store.list(Tunnel) if tunnel.deleting]
        assert last["revision"] >= max(deletions) > told["revision"]
    await replies.aclose()


async def test_streams_that_ask_for_the_same_share_what_is_read(
    tenant: httpx.AsyncClient, store: CachedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await publish(tenant)
    context = Context(store=store, inside_pool=IPv4Network("100.64.0.0/10"), run_events=Events())
    read: list[WorkloadNode] = []

    def counted(ctx: Context, account: str, workload: WorkloadNode) -> dict[str, Any]:
        read.append(workload)
        return tunnels_of(ctx, account, workload)

    monkeypatch.setattr("epic.api.tunnel.tunnels.tunnels_of", counted)
    streams = [follow(context, "root", WorkloadNode("c1", "n1")) for _ in range(50)]
    async with asyncio.timeout(10):
        first = await asyncio.gather(*(anext(stream) for stream in streams))
        assert len(read) == 1
        await tenant.delete(f"{SLICES}/E1")
        second = await asyncio.gather(*(anext(stream) for stream in streams))
    assert all(reply["tunnels"] for reply in first)
    assert not any(reply["tunnels"] for reply in second)
    assert len(read) < 10, "once for each change"
    for stream in streams:
        await stream.aclose()


async def test_a_watch_reads_nothing_again_for_reports_and_for_the_tunnels_of_other_nodes(
    tenant: httpx.AsyncClient, store: CachedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await publish(tenant, ("n1", "n2"))
    workload = WorkloadNode("c1", "n1")
    context = Context(store=store, inside_pool=IPv4Network("100.64.0.0/10"), run_events=Events())
    read: list[int] = []

    def counted(*arguments: Any) -> dict[str, Any]:
        read.append(store.revision)
        return tunnels_of(*arguments)

    monkeypatch.setattr("epic.api.tunnel.tunnels.tunnels_of", counted)
    replies = follow(context, "root", workload)
    async with asyncio.timeout(5):
        await anext(replies)
        waiting = asyncio.create_task(anext(replies))
        for problem in "abcde":
            with store.transaction() as transaction:
                node = transaction.get(Node, "", "epic1")
                status = node.status.model_copy(update={"problems": (problem,)})
                transaction.update(node.model_copy(update={"status": status}))
                (other, *_) = [t for t in transaction.list(Tunnel) if t.spec.node_name != "n1"]
                spec = other.spec.model_copy(update={"signing_since": now()})
                transaction.update(other.model_copy(update={"spec": spec}))
            await asyncio.sleep(0.02)  # each is to be heard of by itself
        with store.transaction() as transaction:
            node = transaction.get(Node, "", "epic1")
            spec_after = node.spec.model_copy(update={"address": IPv4Address("192.0.2.77")})
            transaction.update(node.model_copy(update={"spec": spec_after}))
        told = await waiting
    assert "192.0.2.77" in {t["epic-address"] for t in told["tunnels"]}
    # At the beginning, when the node is first heard of, and for its address.
    assert len(read) <= 3
    await replies.aclose()


def of_ipv6(body: dict[str, Any]) -> dict[str, Any]:
    spec = body["slice"]["spec"]
    endpoints = [{**e, "addresses": [f"2001:DB8::{i}"]} for i, e in enumerate(spec["endpoints"], 1)]
    nodes = dict.fromkeys(spec["nodeAddresses"], "2001:db8:1::1")
    changed = {"addressType": "IPv6", "endpoints": endpoints, "nodeAddresses": nodes}
    return {"slice": {"spec": {**spec, **changed}}}


async def test_ipv6_endpoints_on_ipv6_nodes_are_reached_from_the_ipv6_inside_address(
    tenant: httpx.AsyncClient, store: CachedStore
) -> None:
    await publish(tenant)
    await tenant.put(f"{SLICES}/E1", json=of_ipv6(slice_body()))
    assert (await tenant.get(f"{SLICES}/E1")).json()["slice"]["spec"]["nodeAddresses"] == {
        "n1": "2001:db8:1::1"
    }
    (first, _) = (await tenant.get(TUNNELS, params={"cluster": "c1", "node": "n1"})).json()["tunnels"]
    assert first["endpoints"] == ["2001:db8::1"]
    assert first["inside-address6"] == "fd65:7069:6300::6440:1"
    assert {str(tunnel.spec.node_address) for tunnel in store.list(Tunnel)} == {"2001:db8:1::1"}


async def test_the_first_cluster_behind_a_gateway_keeps_its_addresses_for_ever(
    tenant: httpx.AsyncClient, store: CachedStore
) -> None:
    await publish(tenant)
    other = slice_body("E2")
    other["slice"]["spec"]["clientRef"]["clusterID"] = "a-later-one"
    await tenant.post(SLICES, json=other)
    await tenant.delete(f"{SLICES}/E1")
    assert store.get(GWProxy, "root", "U1").status.unmapped_cluster == "c1"
    reply = await tenant.get(TUNNELS, params={"cluster": "a-later-one", "node": "n1"})
    (first, _) = reply.json()["tunnels"]
    assert first["endpoints"] == ["10.1.2.1"], "workload nodes know real addresses only"
