# SPDX-License-Identifier: Apache-2.0
"""Routes and EndpointSlices over REST, and the tunnels that follow from them."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from api_requests import API, PROXIES, proxy_body, route_body, slice_body
from node_tunnels import tunnels_of

from epic.cache.store import CachedStore
from epic.ipam.networks import DEFAULT_POOLS
from epic.model.resources import GWProxy, Tunnel
from epic.model.runs import Run
from epic.model.values.naming import SOURCES_ANNOTATION
from epic.proto import epic_pb2

ROUTES, SLICES = f"{API}/accounts/root/routes", f"{API}/accounts/root/slices"


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


@pytest.mark.parametrize(
    ("section", "kind", "rule"),
    [
        ("grpc", "GRPCRoute", {"matches": [{"method": {"service": "shop.Cart"}}]}),
        ("tls", "TLSRoute", {}),
        ("udp", "UDPRoute", {}),
    ],
)
async def test_a_route_of_a_type_that_is_not_served_is_kept_and_says_so(
    tenant: httpx.AsyncClient, store: CachedStore, section: str, kind: str, rule: dict[str, Any]
) -> None:
    await tenant.post(PROXIES, json=proxy_body())
    await tenant.post(SLICES, json=slice_body())
    backends = [{"kind": "Service", "name": "S1", "port": 8080}]
    spec = {"parentRefs": [{"name": "U1"}], "rules": [{**rule, "backendRefs": backends}]}
    body = {"route": {"spec": {"clientRef": {"clusterID": "c1", "uid": "R1"}, section: spec}}}
    made = await tenant.post(ROUTES, json=body)
    assert (made.status_code, "warning" in made.headers) == (302, False)
    route = (await tenant.get(f"{ROUTES}/R1")).json()["route"]
    assert route["spec"][section]["rules"][0]["backendRefs"][0]["name"] == "S1"
    ((accepted, resolved),) = (parent["conditions"] for parent in route["status"]["parents"])
    assert (accepted["status"], accepted["reason"]) == ("False", "NotAllowedByListeners")
    assert accepted["message"].startswith(f"{kind}s are not served, only HTTPRoutes and TCPRoutes")
    assert (resolved["status"], resolved["reason"]) == ("True", "ResolvedRefs")
    assert store.list(Tunnel) == []


async def test_a_route_shows_what_its_gateways_make_of_it(tenant: httpx.AsyncClient) -> None:
    def said(route: dict[str, Any]) -> list[tuple[str, str]]:
        conditions = [c for parent in route["status"]["parents"] for c in parent["conditions"]]
        return [(c["status"], c["reason"]) for c in conditions]

    created = (await tenant.post(ROUTES, json=route_body())).json()["route"]
    assert said(created) == [("False", "NoMatchingParent"), ("False", "BackendNotFound")]
    await tenant.post(PROXIES, json=proxy_body())
    await tenant.post(SLICES, json=slice_body())
    served = (await tenant.get(f"{ROUTES}/R1")).json()["route"]
    assert said(served) == [("True", "Accepted"), ("True", "ResolvedRefs")]
    body = route_body()
    body["route"]["spec"]["http"]["rules"][0]["filters"] = [{"type": "RequestRedirect"}]
    replaced = (await tenant.put(f"{ROUTES}/R1", json=body)).json()["route"]
    assert said(replaced) == [("False", "UnsupportedValue"), ("True", "ResolvedRefs")]
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
                    },
                    {
                        "type": "ResolvedRefs",
                        "status": "True",
                        "reason": "ResolvedRefs",
                        "message": "",
                        "observedGeneration": 2,
                    },
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


@pytest.mark.parametrize(
    ("change", "stays"),
    [
        ({"http": {"hostnames": ["c.d"]}}, True),
        ({"http": {"parentRefs": [{"name": "U1"}, {"name": "U2"}]}}, False),
        ({"http": {"parentRefs": [{"name": "U1", "sectionName": "http"}]}}, False),
        ({"clientRef": {"namespace": "bank"}}, False),
    ],
)
async def test_what_a_host_has_admitted_another_client_cannot_lead_elsewhere_in_its_name(
    tenant: httpx.AsyncClient, change: dict[str, dict[str, Any]], stays: bool
) -> None:
    body = route_body()
    body["route"]["metadata"] = {"annotations": {SOURCES_ANNOTATION: "c1/h1"}}
    await tenant.post(ROUTES, json=body)

    async def sources_after_put(body: dict[str, Any]) -> str | None:
        shown = (await tenant.put(f"{ROUTES}/R1", json=body)).json()["route"]
        return shown["metadata"].get("annotations", {}).get(SOURCES_ANNOTATION)

    assert await sources_after_put(route_body()) == "c1/h1"
    changed = route_body()
    for part, fields in change.items():
        changed["route"]["spec"][part] |= fields
    assert await sources_after_put(changed) == ("c1/h1" if stays else None)
    # The host says that it is still so, or so now.
    changed["route"]["metadata"] = {"annotations": {SOURCES_ANNOTATION: "c1/h1"}}
    assert await sources_after_put(changed) == "c1/h1"


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


async def test_a_workload_node_is_told_its_tunnels_with_keys_and_endpoints(
    tenant: httpx.AsyncClient, store: CachedStore
) -> None:
    await publish(tenant, ("n1", "n2"))
    tunnels = await tunnels_of(store, "n2")
    assert [tunnel.epic_address for tunnel in tunnels] == ["192.0.2.1", "192.0.2.2"]
    stored = store.get(Tunnel, "root", str(tunnels[0].id))
    secret = bytes.fromhex(stored.spec.keys[0].secret.get_secret_value())
    assert tunnels[0] == epic_pb2.WorkloadTunnel(
        id=int(stored.name),
        gateway="root.U1",
        service=1,
        inside_address=str(stored.spec.inside_address),
        inside_address6=str(DEFAULT_POOLS.inside6.network_address + int(stored.spec.inside_address)),
        epic_address="192.0.2.1",
        epic_port=6080,
        keys=[epic_pb2.Key(epoch=1, secret=secret)],
        signing_epoch=1,
        endpoints=["10.1.2.2"],
    )
    assert len(secret) == 16


async def test_other_clusters_and_nodes_have_no_tunnels(
    tenant: httpx.AsyncClient, store: CachedStore
) -> None:
    await publish(tenant)
    for cluster, node in (("c2", "n1"), ("c1", "n2")):
        assert await tunnels_of(store, node, cluster) == []


async def test_keys_are_in_no_reply(tenant: httpx.AsyncClient, store: CachedStore) -> None:
    await publish(tenant)
    secret = store.list(Tunnel)[0].spec.keys[0].secret.get_secret_value()
    of_a_node = "tunnels?cluster=c1&node=n1"
    for path in (
        "proxies",
        "proxies/U1",
        "routes",
        "slices",
        "tunnels/status",
        of_a_node,
        "workload-nodes",
        "",
    ):
        assert secret not in (await tenant.get(f"{API}/accounts/root/{path}".rstrip("/"))).text


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
    (first, _) = await tunnels_of(store, "n1")
    assert list(first.endpoints) == ["2001:db8::1"]
    assert first.inside_address6 == "fd65:7069:6300::6440:1"
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
    (first, _) = await tunnels_of(store, "n1", "a-later-one")
    assert list(first.endpoints) == ["10.1.2.1"], "workload nodes know real addresses only"
