# SPDX-License-Identifier: Apache-2.0
"""The original's first API: the endpoints of Services."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from life_plant import Plant
from service_requests import (
    HTTP,
    ROOT,
    SERVICES,
    SHARED,
    announce,
    condition,
    endpoint_body,
    service_body,
)

from epic.cache.store import CachedStore
from epic.model.balancers import RemoteEndpoint
from epic.model.resources import (
    GWEndpointSlice,
    GWRoute,
    Tunnel,
)


async def test_an_endpoint_is_served_through_a_tunnel_to_its_node(
    tenant: httpx.AsyncClient, service: str, store: CachedStore, plant: Plant
) -> None:
    content = await announce(tenant, service, endpoint_body())
    path = content["link"]["self"]
    assert re.fullmatch(rf"{service}/endpoints/10-1-2-3-8080-tcp-[0-9a-f]{{16}}", path)
    assert content["link"]["service"] == service
    assert condition(content["endpoint"]) == ("True", "Accepted")
    plant.settle()
    ends = (await tenant.get(service)).json()["service"]["spec"]["gue-tunnel-endpoints"]
    assert sorted(ends["10.0.0.5"]["epic-endpoints"]) == ["192.0.2.1", "192.0.2.2"]
    assert {t.spec.cluster_id for t in store.list(Tunnel)} == {"c1"}
    (route,) = store.list(GWRoute)
    told = (await tenant.get(f"{ROOT}/routes/{route.name}")).json()["route"]["status"]["parents"]
    (parent,) = told
    assert {c["type"]: c["status"] for c in parent["conditions"]} == {
        "Accepted": "True",
        "ResolvedRefs": "True",
    }
    assert condition((await tenant.get(service)).json()["service"], "Ready")[0] == "True"
    for _ in range(2):
        reply = await tenant.delete(path)
        assert (reply.status_code, reply.json()) == (200, {"message": "endpoint deleted"})
    plant.settle()
    assert store.list(GWEndpointSlice) == store.list(RemoteEndpoint) == []
    assert [tunnel.deleting for tunnel in store.list(Tunnel)] == [True, True]
    assert (await tenant.get(service)).json()["service"]["spec"]["gue-tunnel-endpoints"] == {}


async def test_an_endpoint_that_is_there_is_a_duplicate_and_is_shown(
    tenant: httpx.AsyncClient, service: str
) -> None:
    first = await announce(tenant, service, endpoint_body())
    again = await tenant.post(f"{service}/endpoints", json=endpoint_body())
    assert (again.status_code, again.headers["location"]) == (409, first["link"]["self"])
    assert again.json()["message"] == f"duplicate endpoint: {first['endpoint']['metadata']['name']}"
    assert again.json()["endpoint"]["spec"] == first["endpoint"]["spec"]
    await announce(tenant, service, endpoint_body(port={"port": 8081}))
    names = [item["spec"]["port"]["port"] for item in (await tenant.get(f"{ROOT}/endpoints")).json()["items"]]
    assert sorted(names) == [8080, 8081]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"cluster": "c9"}, "'c9' is not among the clusters"),
        ({"address": "127.0.0.1"}, "loopback"),
        ({"address": "web"}, "not an IPv4 or IPv6 address"),
        ({"node-address": "224.0.0.1"}, "multicast"),
        (
            {"node-address": "192.0.2.1"},
            "endpoint.spec.node-address: 192.0.2.1 is an address of the platform",
        ),
        ({"port": {"port": 0}}, "port"),
    ],
)
async def test_an_endpoint_that_is_wrong_is_refused(
    tenant: httpx.AsyncClient, service: str, store: CachedStore, spec: dict[str, Any], said: str
) -> None:
    reply = await tenant.post(f"{service}/endpoints", json=endpoint_body(**spec))
    assert reply.status_code == 400
    assert said in reply.headers["x-epic-error-message"]
    assert store.list(RemoteEndpoint) == store.list(GWEndpointSlice) == []


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"node-address": ""}, "UnsupportedValue"),
        ({"port": {"name": "http", "port": 8080, "protocol": "SCTP"}}, "UnsupportedProtocol"),
        ({"port": {"name": "other", "port": 8080}}, "NoMatchingPort"),
    ],
)
async def test_an_endpoint_that_is_not_served_says_so_and_gets_no_tunnel(
    tenant: httpx.AsyncClient, shareable: None, store: CachedStore, spec: dict[str, Any], reason: str
) -> None:
    body = service_body(HTTP, {**HTTP, "name": "https", "port": 443}, **{"upstream-clusters": ["c1"]})
    assert (await tenant.post(SERVICES, json=body)).status_code == 302
    content = await announce(tenant, SHARED, endpoint_body(**spec))
    assert condition(content["endpoint"]) == ("False", reason)
    assert store.list(Tunnel) == []


async def test_an_endpoint_whose_slice_is_gone_says_so_until_it_is_announced_anew(
    tenant: httpx.AsyncClient, service: str, store: CachedStore
) -> None:
    content = await announce(tenant, service, endpoint_body())
    path, name = content["link"]["self"], content["endpoint"]["metadata"]["name"]
    with store.transaction() as transaction:
        transaction.delete(GWEndpointSlice, "root", name)
    assert condition((await tenant.get(path)).json()["endpoint"]) == ("False", "NoSlice")
    assert (await tenant.delete(path)).status_code == 200
    content = await announce(tenant, service, endpoint_body())
    assert condition(content["endpoint"]) == ("True", "Accepted")


@pytest.mark.parametrize(
    ("port", "public"),
    [({"name": "https", "port": 8443}, 443), ({"port": 80}, 80), ({"name": "other", "port": 443}, 443)],
)
async def test_an_endpoint_serves_the_public_port_of_its_name_or_else_of_its_number(
    tenant: httpx.AsyncClient, shareable: None, store: CachedStore, port: dict[str, Any], public: int
) -> None:
    body = service_body(HTTP, {**HTTP, "name": "https", "port": 443}, **{"upstream-clusters": ["c1"]})
    await tenant.post(SERVICES, json=body)
    await announce(tenant, SHARED, endpoint_body(port=port))
    (piece,) = store.list(GWEndpointSlice)
    assert [(p.name, p.port) for p in piece.spec.ports] == [(str(public), port["port"])]
    assert sorted(route.name for route in store.list(GWRoute)) == [f"gatewayhttp-web.{p}" for p in (443, 80)]
