# SPDX-License-Identifier: Apache-2.0
"""Which writes of routes and slices have the tunnels of their gateways planned anew, and which do not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import httpx
import pytest
from api_requests import API, PROXIES, proxy_body, route_body, slice_body

from epic.api.gateway import routes
from epic.cache.store import CachedStore
from epic.model.resources import Tunnel
from epic.reconcile.world import World
from epic.store.interface import Transaction

ROUTES, SLICES = f"{API}/accounts/root/routes", f"{API}/accounts/root/slices"


@pytest.fixture
async def planned(tenant: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """A gateway with a route and endpoints on a node; of which gateways tunnels are planned from now on."""
    await tenant.post(PROXIES, json=proxy_body())
    await tenant.post(ROUTES, json=route_body())
    await tenant.post(SLICES, json=slice_body(nodes=("n1",)))
    found: list[set[str]] = []
    replan = routes.replan

    def note(transaction: Transaction, world: World, account: str, names: Iterable[str]) -> None:
        found.append(set(names))
        replan(transaction, world, account, names)

    monkeypatch.setattr(routes, "replan", note)
    return found


async def _put(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> None:
    (content,) = body.values()
    reply = await client.put(f"{path}/{content['spec']['clientRef']['uid']}", json=body)
    assert reply.status_code == 302, reply.text


async def test_a_pod_that_moves_on_its_node_has_no_tunnels_planned(
    tenant: httpx.AsyncClient, planned: list[set[str]]
) -> None:
    body = slice_body(nodes=("n1",))
    body["slice"]["spec"]["endpoints"][0]["addresses"] = ["10.9.9.9"]
    await _put(tenant, SLICES, body)
    stored = (await tenant.get(SLICES)).json()["items"][0]["spec"]["endpoints"]
    assert (stored[0]["addresses"], planned) == (["10.9.9.9"], [])


async def test_a_route_with_another_hostname_has_no_tunnels_planned(
    tenant: httpx.AsyncClient, planned: list[set[str]]
) -> None:
    body = route_body()
    body["route"]["spec"]["http"]["hostnames"] = ["other.example.net"]
    await _put(tenant, ROUTES, body)
    assert planned == []


async def test_endpoints_on_another_node_get_tunnels(
    tenant: httpx.AsyncClient, planned: list[set[str]], store: CachedStore
) -> None:
    before = len(store.list(Tunnel))
    await _put(tenant, SLICES, slice_body(nodes=("n1", "n2")))
    assert (planned, len(store.list(Tunnel))) == ([{"U1"}], 2 * before)


async def test_a_route_to_another_service_has_tunnels_planned(
    tenant: httpx.AsyncClient, planned: list[set[str]], store: CachedStore
) -> None:
    body = route_body()
    body["route"]["spec"]["http"]["rules"][0]["backendRefs"][0]["name"] = "elsewhere"
    await _put(tenant, ROUTES, body)
    assert planned == [{"U1"}]
    assert [tunnel for tunnel in store.list(Tunnel) if not tunnel.deleting] == []
