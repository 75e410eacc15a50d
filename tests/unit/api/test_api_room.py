# SPDX-License-Identifier: Apache-2.0
"""What the owner of a route is told that its gateway has no room for."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import httpx
import pytest
from api_requests import API, PROXIES, proxy_body, route_body, slice_body
from damage import wait_until_unreadable, write_newer

from epic.api.gateway import left_out as api
from epic.cache.store import CachedStore
from epic.gatewayapi.attached import room
from epic.model.base import ClientRef, Metadata
from epic.model.members import GWMember, GWMemberSpec
from epic.model.resources import GWProxy, GWRoute
from epic.model.values.naming import GatewayId

ROUTES, SLICES = f"{API}/accounts/root/routes", f"{API}/accounts/root/slices"


def of_cluster(cluster: str, year: int, path: str, namespace: str = "shop") -> dict[str, Any]:
    body = route_body(f"R-{cluster}")
    spec = body["route"]["spec"]
    created = f"{year}-01-01T00:00:00Z"
    spec["clientRef"] |= {"clusterID": cluster, "namespace": namespace, "creationTimestamp": created}
    spec["http"]["rules"][0]["matches"][0]["path"]["value"] = path
    return body


def accepted(route: dict[str, Any]) -> dict[str, Any]:
    (parent,) = route["status"]["parents"]
    return dict(parent["conditions"][0])


async def test_a_route_says_that_it_is_left_out_until_there_is_room(
    tenant: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def said(cluster: str) -> tuple[str, str]:
        found = accepted((await tenant.get(f"{ROUTES}/R-{cluster}")).json()["route"])
        return found["status"], found["reason"]

    monkeypatch.setattr(room, "LARGEST", 1000)
    await tenant.post(PROXIES, json=proxy_body())
    await tenant.post(SLICES, json=slice_body())
    await tenant.post(ROUTES, json=of_cluster("b", 2026, f"/{'b' * 500}"))
    assert await said("b") == ("True", "Accepted")
    made = await tenant.post(ROUTES, json=of_cluster("a", 2025, f"/{'a' * 500}"))
    assert accepted(made.json()["route"])["status"] == "True"
    assert await said("b") == ("False", "UnsupportedValue")
    huge = accepted(
        (await tenant.put(f"{ROUTES}/R-a", json=of_cluster("a", 2025, f"/{'a' * 990}"))).json()["route"]
    )
    assert (huge["status"], huge["reason"], huge["observedGeneration"]) == ("False", "UnsupportedValue", 2)
    assert "with it the virtual hosts of port 80 would have" in huge["message"]
    assert "at most 1000 are possible: use fewer hostnames or matches" in huge["message"]
    assert await said("b") == ("True", "Accepted")
    await tenant.put(f"{ROUTES}/R-a", json=of_cluster("a", 2025, f"/{'a' * 500}"))
    assert await said("b") == ("False", "UnsupportedValue")
    await tenant.delete(f"{ROUTES}/R-a")
    assert await said("b") == ("True", "Accepted")


async def test_who_shares_a_gateway_decides_on_whose_routes_it_has_room_for(
    tenant: httpx.AsyncClient, store: CachedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "LARGEST", 1000)

    async def said() -> list[str]:
        found = [await tenant.get(f"{ROUTES}/R-{cluster}") for cluster in ("c2", "c1")]
        return [accepted(reply.json()["route"])["reason"] for reply in found]

    def member(namespace: str) -> GWMember:
        spec = GWMemberSpec(client_ref=ClientRef(cluster_id="c2", namespace=namespace), sharing_key="U1")
        return GWMember(metadata=Metadata(name="M-c2", namespace="root"), spec=spec)

    def move(namespace: str) -> None:
        with store.transaction() as transaction:
            stored = transaction.get(GWMember, "root", "M-c2")
            transaction.update(stored.model_copy(update={"spec": member(namespace).spec}))

    refused, served = ["NotAllowedByListeners", "Accepted"], ["Accepted", "UnsupportedValue"]
    await tenant.post(PROXIES, json=proxy_body())
    await tenant.post(ROUTES, json=of_cluster("c2", 2025, f"/{'b' * 600}", namespace="bank"))
    await tenant.post(ROUTES, json=of_cluster("c1", 2026, f"/{'a' * 600}"))
    assert await said() == refused
    with store.transaction() as transaction:
        transaction.create(member("bank"))
    assert await said() == served
    move("fair")
    assert await said() == refused
    move("bank")
    assert await said() == served
    with store.transaction() as transaction:
        transaction.delete(GWMember, "root", "M-c2")
    assert await said() == refused


async def test_what_fits_is_reckoned_when_something_changed_and_not_when_somebody_asks(
    tenant: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    reckoned = 0
    reckon = api.left_out

    def counted(*args: Any) -> Any:
        nonlocal reckoned
        reckoned += 1
        return reckon(*args)

    await tenant.post(PROXIES, json=proxy_body())
    monkeypatch.setattr(api, "left_out", counted)
    await tenant.post(ROUTES, json=route_body())
    before = reckoned
    for _ in range(3):
        await tenant.get(f"{ROUTES}/R1")
    await tenant.post(SLICES, json=slice_body())
    await tenant.get(f"{ROUTES}/R1")
    assert reckoned == before == 1
    await tenant.post(ROUTES, json=route_body("R2"))
    await tenant.get(f"{ROUTES}/R1")
    assert reckoned == 2


def test_one_reckons_for_all_who_ask_at_once(store: CachedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    reckoning, may_end, reckoned = Event(), Event(), []

    def slow(*_: Any) -> dict[str, str]:
        reckoned.append(1)
        reckoning.set()
        assert may_end.wait(60)
        return {"R1": "no room"}

    monkeypatch.setattr(api, "left_out", slow)
    routes, proxy = (
        api.LeftOutRoutes(),
        GWProxy.model_validate(
            {"metadata": {"name": "U1", "namespace": "root"}, "spec": {"public-address": "203.0.113.1"}}
        ),
    )
    with ThreadPoolExecutor(5) as threads:
        first = threads.submit(routes.of, store, proxy, ())
        assert reckoning.wait(60)
        others = [threads.submit(routes.of, store, proxy, ()) for _ in range(4)]
        elsewhere = threads.submit(lambda: routes._gateway(GatewayId("root", "U2")).lock.acquire(timeout=60))
        may_end.set()
        assert [found.result(60) for found in (first, *others)] == [{"R1": "no room"}] * 5
        assert elsewhere.result(60)
    assert len(reckoned) == 1


async def test_routes_that_are_gone_are_not_kept(tenant: httpx.AsyncClient, store: CachedStore) -> None:
    await tenant.post(PROXIES, json=proxy_body())
    await tenant.post(ROUTES, json=route_body())
    assert (await tenant.get(f"{ROUTES}/R1")).status_code == 200
    kept = weakref.ref(store.get(GWRoute, "root", "R1"))
    assert kept() is not None
    await tenant.delete(f"{ROUTES}/R1")
    gc.collect()
    assert kept() is None


async def test_a_route_that_replaces_one_that_cannot_be_read_says_whether_there_is_room(
    tenant: httpx.AsyncClient, store: CachedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await tenant.post(PROXIES, json=proxy_body())
    await tenant.post(ROUTES, json=route_body())
    write_newer(store, store.get(GWRoute, "root", "R1"))
    wait_until_unreadable(store, GWRoute)
    monkeypatch.setattr(room, "LARGEST", 10)
    reply = await tenant.put(f"{ROUTES}/R1", json=route_body())
    assert accepted(reply.json()["route"])["status"] == "False"
