# SPDX-License-Identifier: Apache-2.0
"""Requests beyond the Gateway API's limits: a 400 that names the field, and nothing is stored."""

from __future__ import annotations

import threading
from typing import Any

import httpx
import pytest
from api_requests import API, PROXIES, proxy_body, route_body, slice_body
from pydantic import BaseModel

from epic.api import bodies
from epic.cache.store import CachedStore
from epic.kinds.field_limits import limits_of
from epic.kinds.kind import Kind
from epic.kinds.registry import GW_ENDPOINT_SLICE, GW_PROXY, GW_ROUTE, LB_SERVICE_GROUP
from epic.model.resources import GWEndpointSlice, GWProxy, GWRoute

ROUTES, SLICES, GROUPS = (f"{API}/accounts/root/{name}" for name in ("routes", "slices", "groups"))


async def written(client: httpx.AsyncClient, path: str, uid: str, body: Any) -> list[httpx.Response]:
    """The replies to a creation and, of one that is there, to a change."""
    created = await client.post(path, json=body)
    return [created, await client.put(f"{API}/accounts/root/{path.rpartition('/')[2]}/{uid}", json=body)]


def listeners(count: int) -> list[dict[str, Any]]:
    return [{"name": f"l{i}", "port": 80, "protocol": "HTTP", "hostname": f"h{i}.b"} for i in range(count)]


async def test_a_route_beyond_the_limits_is_400(tenant: httpx.AsyncClient, store: CachedStore) -> None:
    body = route_body()
    body["route"]["spec"]["http"]["rules"] *= 17
    (refused, _) = await written(tenant, ROUTES, "R1", body)
    assert refused.status_code == 400
    wrong = "route.spec.http.rules: 17 rules; at most 16 are possible"
    assert refused.json() == {"error": wrong, "reason": "Invalid"}
    assert refused.headers["x-epic-error-message"] == wrong
    assert store.find(GWRoute, "root", "R1") is None
    body["route"]["spec"]["http"]["rules"].pop()
    assert [reply.status_code for reply in await written(tenant, ROUTES, "R1", body)] == [302, 302]
    body["route"]["spec"]["http"]["hostnames"] = ["a b"]
    changed = await tenant.put(f"{ROUTES}/R1", json=body)
    assert changed.status_code == 400
    assert changed.json()["error"] == (
        "route.spec.http.hostnames.0: it is 'a b', and should be a DNS name, perhaps with '*.' before it"
    )
    assert store.get(GWRoute, "root", "R1").spec.http.hostnames == ("a.b",)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"spec": {"endpoints": [1] * 100_000}}, "slice.spec.endpoints: 100000 endpoints;"),
        ({"spec": {"endpoints": [1] * 1000}}, "slice.spec.endpoints.0"),
        (
            {"spec": {"nodeAddresses": {f"n{i}": 1.5 for i in range(50_000)}}},
            "slice.spec.nodeAddresses: 50000 nodes;",
        ),
        ({"spec": {"nodeAddresses": {f"n{i}": 1.5 for i in range(5000)}}}, "slice.spec.nodeAddresses.n0"),
        ({"metadata": {"annotations": {f"a{i}": 1 for i in range(50_000)}}}, "slice.metadata.annotations.a0"),
    ],
)
async def test_of_many_wrong_items_the_first_is_told_of(
    tenant: httpx.AsyncClient, fields: dict[str, Any], named: str
) -> None:
    body = slice_body()
    for part, content in fields.items():
        body["slice"].setdefault(part, {}).update(content)
    refused = await tenant.post(SLICES, json=body)
    assert refused.status_code == 400
    assert named in refused.json()["error"]
    assert len(refused.content) < 1000


async def test_of_a_list_with_too_many_items_none_is_looked_at(
    tenant: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = []
    known = bodies._check_address

    def check(where: str, text: str, family: str = "") -> None:
        looked.append(text)
        known(where, text, family)

    monkeypatch.setattr(bodies, "_check_address", check)
    body = slice_body()
    assert (await tenant.post(SLICES, json=body)).status_code == 302
    assert looked
    looked.clear()
    body["slice"]["spec"]["endpoints"] *= 1001
    assert (await tenant.post(SLICES, json=body)).status_code == 400
    assert not looked


@pytest.mark.parametrize(
    ("path", "body", "model"),
    [
        (ROUTES, route_body(), bodies.RouteBody),
        (SLICES, slice_body(), bodies.SliceBody),
        (PROXIES, proxy_body(), bodies.ProxyBody),
    ],
)
async def test_bodies_of_tenants_are_parsed_beside_the_event_loop(
    tenant: httpx.AsyncClient, path: str, body: Any, model: type[BaseModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[threading.Thread] = set()
    validate = model.model_validate

    def noting(content: Any) -> BaseModel:
        threads.add(threading.current_thread())
        return validate(content)

    monkeypatch.setattr(model, "model_validate", noting)
    assert (await tenant.post(path, json=body)).status_code == 302
    assert threads
    assert threading.main_thread() not in threads


async def test_a_slice_beyond_the_limits_is_400(tenant: httpx.AsyncClient, store: CachedStore) -> None:
    body = slice_body()
    body["slice"]["spec"]["endpoints"] *= 1001
    for refused in await written(tenant, SLICES, "E1", body):
        assert refused.status_code in {400, 404}
    assert store.find(GWEndpointSlice, "root", "E1") is None
    refused = await tenant.post(SLICES, json=body)
    assert refused.json()["error"] == "slice.spec.endpoints: 1001 endpoints; at most 1000 are possible"
    body["slice"]["spec"]["endpoints"].pop()
    assert [reply.status_code for reply in await written(tenant, SLICES, "E1", body)] == [302, 302]


async def test_a_gateway_beyond_the_limits_is_400(tenant: httpx.AsyncClient, store: CachedStore) -> None:
    body = proxy_body(gateway={"gatewayClassName": "k", "listeners": listeners(65)})
    refused = await tenant.post(PROXIES, json=body)
    assert refused.status_code == 400
    wrong = "proxy.spec.gateway.listeners: 65 listeners; at most 64 are possible"
    assert refused.json()["error"] == wrong
    assert store.find(GWProxy, "root", "U1") is None
    body = proxy_body(gateway={"gatewayClassName": "k", "listeners": listeners(64)})
    assert [reply.status_code for reply in await written(tenant, PROXIES, "U1", body)] == [302, 302]
    twice = proxy_body(gateway={"gatewayClassName": "k", "listeners": listeners(1) * 2})
    changed = await tenant.put(f"{API}/accounts/root/proxies/U1", json=twice)
    assert changed.status_code == 400
    assert "proxy.spec.gateway.listeners.0.name: 2 listeners are called 'l0'" in changed.json()["error"]


async def test_ports_count_once_for_each_that_is_open(tenant: httpx.AsyncClient) -> None:
    ports = [{"name": f"p{i}", "protocol": "TCP", "port": 80 + i} for i in range(64)]
    assert (await tenant.post(PROXIES, json=proxy_body(**{"public-ports": ports * 2}))).status_code == 302
    more = [*ports, {"name": "one", "protocol": "TCP", "port": 8080}]
    refused = await tenant.put(
        f"{API}/accounts/root/proxies/U1", json=proxy_body(**{"public-ports": more, "gateway": None})
    )
    assert refused.status_code == 400
    assert refused.json()["error"] == "proxy.spec.public-ports: 65 ports; at most 64 are possible"


@pytest.mark.parametrize(
    ("spec", "wrong"),
    [
        (
            {"endpoint-template": {"dnsName": "a" * 1001}},
            "group.spec.endpoint-template.dnsName: it has 1001 characters, and should have at most 1000",
        ),
        (
            {"envoy-template": {"envoyResources": {"routes": [{"name": "a", "value": "{{ nope }}: ["}]}}},
            "group.spec.envoy-template.envoyResources.routes.0: template 'a': there is no nope; it may use "
            "AltAddress, Clusters, GatewayProtocol, Port, PortName, Protocol, PublicAddress, "
            "PureLBServiceName, ServiceName, ServiceNamespace, VirtualHosts",
        ),
        (
            {"envoy-template": {"envoyResources": {"routes": [{"name": "a", "value": "b"}] * 17}}},
            "group.spec.envoy-template.envoyResources.routes: 17 templates; at most 16 are possible",
        ),
    ],
)
async def test_a_template_beyond_the_limits_is_400(
    admin: httpx.AsyncClient, spec: dict[str, Any], wrong: str
) -> None:
    body = {"group": {"metadata": {"name": "g"}, "spec": {"service-prefix": "default", **spec}}}
    refused = await admin.post(GROUPS, json=body)
    assert (refused.status_code, refused.json()["error"]) == (400, wrong)


async def test_a_client_changes_nothing_of_epics(tenant: httpx.AsyncClient, store: CachedStore) -> None:
    body = route_body()
    body["route"]["metadata"] = {
        "labels": {"epic.acnodal.io/owning-account": "other"},
        "annotations": {"epic.acnodal.io/x": "y"},
        "creationTimestamp": "2001-01-01T00:00:00Z",
        "generation": 99,
    }
    created, changed = await written(tenant, ROUTES, "R1", body)
    assert (created.status_code, changed.status_code) == (302, 302)
    metadata = store.get(GWRoute, "root", "R1").metadata
    assert metadata.labels == {"epic.acnodal.io/owning-account": "root"}
    assert metadata.annotations == {}
    assert metadata.generation == 1
    assert metadata.creation_timestamp is not None
    assert metadata.creation_timestamp.year > 2001


BODIES: list[tuple[Kind[Any], type[BaseModel]]] = [
    (GW_PROXY, bodies.ProxyInput),
    (GW_ROUTE, bodies.RouteInput),
    (GW_ENDPOINT_SLICE, bodies.SliceInput),
    (LB_SERVICE_GROUP, bodies.GroupInput),
]


@pytest.mark.parametrize(("kind", "body"), BODIES, ids=[kind.name for kind, _ in BODIES])
def test_bodies_have_the_limits_of_their_kind(kind: Kind[Any], body: type[BaseModel]) -> None:
    limits = limits_of(kind.spec, "spec")
    found = limits_of(body)
    assert limits
    assert {path: found.get(path) for path in limits} == limits


async def test_a_slice_has_as_many_ports_as_in_kubernetes_while_it_is_not_too_large(
    tenant: httpx.AsyncClient, store: CachedStore
) -> None:
    body = slice_body()
    ports = [{"name": f"p{n}", "port": 1 + n} for n in range(20_001)]
    body["slice"]["spec"]["ports"] = ports
    refused = await tenant.post(SLICES, json=body)
    assert refused.json()["error"] == "slice.spec.ports: 20001 ports; at most 20000 are possible"
    del ports[16_000:]
    assert [reply.status_code for reply in await written(tenant, SLICES, "E1", body)] == [302, 302]
    assert len(store.get(GWEndpointSlice, "root", "E1").spec.ports) == 16_000


@pytest.mark.parametrize(
    "match",
    [
        {"path": {"type": "RegularExpression", "value": ".*/(a|b)#"}},
        {"headers": [{"type": "RegularExpression", "name": "X-Role", "value": "a|b"}]},
    ],
)
async def test_a_match_that_is_known_and_not_served_is_stored_to_be_refused_by_condition(
    tenant: httpx.AsyncClient, match: dict[str, Any]
) -> None:
    body = route_body()
    body["route"]["spec"]["http"]["rules"][0]["matches"] = [match]
    assert [reply.status_code for reply in await written(tenant, ROUTES, "R1", body)] == [302, 302]
    (kind,) = match
    typed = match[kind] if kind == "path" else match[kind][0]
    typed["type"] = "Glob"
    assert (await tenant.put(f"{ROUTES}/R1", json=body)).status_code == 400


async def test_the_schema_of_the_api_has_the_limits(tenant: httpx.AsyncClient) -> None:
    paths = (await tenant.get(f"{API}/openapi.json")).json()["paths"]

    def spec(collection: str, key: str) -> dict[str, Any]:
        body = paths[f"{API}/accounts/{{account}}/{collection}"]["post"]["requestBody"]
        schema = body["content"]["application/json"]["schema"]
        found: dict[str, Any] = schema["properties"][key]["properties"]["spec"]["properties"]
        return found

    http = spec("routes", "route")["http"]["anyOf"][0]["properties"]
    assert http["rules"]["maxItems"] == 16
    assert http["hostnames"]["items"]["maxLength"] == 253
    piece = spec("slices", "slice")
    assert piece["endpoints"]["maxItems"] == 1000
    assert piece["nodeAddresses"]["maxProperties"] == 5000


def nested(levels: int) -> dict[str, Any]:
    """So many objects in each other."""
    found: dict[str, Any] = {}
    for _ in range(levels - 1):
        found = {"a": found}
    return found


@pytest.mark.parametrize("levels", [1, 50, 58, 59, 200, 300, 430])
async def test_what_is_nested_too_deeply_is_400_and_never_stored(
    tenant: httpx.AsyncClient, levels: int
) -> None:
    """Seven levels are around a filter, six around the TLS of a listener; 64 are possible."""
    route, proxy = route_body(), proxy_body()
    route["route"]["spec"]["http"]["rules"][0]["filters"] = [nested(levels - 1)] if levels > 1 else []
    proxy["proxy"]["spec"]["gateway"]["listeners"][0]["tls"] = nested(levels)
    for path, body in ((ROUTES, route), (PROXIES, proxy)):
        reply = await tenant.post(path, json=body)
        assert reply.status_code == (302 if levels <= 58 else 400)
        assert levels <= 58 or "nested too deeply" in reply.json()["error"]
    for name in ("routes", "proxies"):
        assert (await tenant.get(f"{API}/accounts/root/{name}")).status_code == 200
