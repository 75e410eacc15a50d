# SPDX-License-Identifier: Apache-2.0
"""A user who speaks for some clusters changes nothing of others, and no object changes its cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from api_requests import ADMIN, API, PROXIES, TENANT, proxy_body, route_body, slice_body
from damage import wait_until_unreadable, write_newer
from service_requests import endpoint_body

from epic.cache.store import CachedStore
from epic.model.members import GWMember
from epic.model.resources import GWEndpointSlice, GWProxy, GWRoute
from epic.model.values.naming import SOURCES_ANNOTATION

ROOT = f"{API}/accounts/root"
USERS = f"{ROOT}/users"
ONE = ("one", "password-of-one")
"""Speaks for cluster c1."""

Ask = Callable[..., Awaitable[httpx.Response]]


@dataclass(frozen=True)
class Collection:
    """How objects of a kind are made and named."""

    kind: type[Any]
    made_at: str
    path: str
    key: str
    body: Callable[[], dict[str, Any]]

    def of(self, cluster: str, sources: str = "") -> dict[str, Any]:
        body = self.body()
        body[self.key]["spec"]["clientRef"]["clusterID"] = cluster
        if sources:
            body[self.key].setdefault("metadata", {})["annotations"] = {SOURCES_ANNOTATION: sources}
        return body


def _member() -> dict[str, Any]:
    spec = proxy_body("M1")["proxy"]["spec"]
    return {"member": {"metadata": {}, "spec": {**spec, "public-ports": [], "sharing-key": "K1"}}}


COLLECTIONS = [
    Collection(GWProxy, PROXIES, f"{ROOT}/proxies/U1", "proxy", proxy_body),
    Collection(GWRoute, f"{ROOT}/routes", f"{ROOT}/routes/R1", "route", route_body),
    Collection(GWEndpointSlice, f"{ROOT}/slices", f"{ROOT}/slices/E1", "slice", slice_body),
    Collection(GWMember, f"{ROOT}/groups/gatewayhttp/members", f"{ROOT}/members/M1", "member", _member),
]
every = pytest.mark.parametrize("collection", COLLECTIONS, ids=lambda each: each.key)


@pytest.fixture
async def as_admin(anyone: httpx.AsyncClient) -> Ask:
    async def ask(method: str, path: str, **more: Any) -> httpx.Response:
        return await anyone.request(method, path, auth=ADMIN, **more)

    return ask


@pytest.fixture
async def as_tenant(anyone: httpx.AsyncClient, shareable: None) -> Ask:
    """Speaks for all clusters of the account."""

    async def ask(method: str, path: str, **more: Any) -> httpx.Response:
        return await anyone.request(method, path, auth=TENANT, **more)

    return ask


@pytest.fixture
async def as_one(anyone: httpx.AsyncClient, as_admin: Ask, shareable: None) -> AsyncIterator[Ask]:
    user = {"name": ONE[0], "password": ONE[1], "clusterIDs": ["c1"]}
    assert (await as_admin("POST", USERS, json={"user": user})).status_code == 302

    async def ask(method: str, path: str, **more: Any) -> httpx.Response:
        return await anyone.request(method, path, auth=ONE, **more)

    yield ask


def refused(reply: httpx.Response) -> str:
    assert reply.status_code == 403, reply.text
    return str(reply.json()["error"])


@every
async def test_it_makes_changes_and_deletes_what_is_of_its_cluster(
    collection: Collection, as_one: Ask
) -> None:
    body = collection.of("c1", "c1/h1")
    assert (await as_one("POST", collection.made_at, json=body)).status_code == 302
    assert (await as_one("PUT", collection.path, json=body)).status_code == 302
    assert (await as_one("DELETE", collection.path)).status_code == 200


@every
@pytest.mark.parametrize("cluster", ["c2", ""], ids=["another", "none"])
async def test_it_makes_nothing_of_another_cluster(
    collection: Collection, cluster: str, as_one: Ask, store: CachedStore
) -> None:
    text = refused(await as_one("POST", collection.made_at, json=collection.of(cluster)))
    assert "user 'one' speaks for 'c1' only" in text
    assert (f"of cluster {cluster!r}" if cluster else "of no cluster") in text
    assert store.list(collection.kind) == []


@every
async def test_it_changes_and_deletes_nothing_of_another_cluster(
    collection: Collection, as_one: Ask, as_tenant: Ask, store: CachedStore
) -> None:
    assert (await as_tenant("POST", collection.made_at, json=collection.of("c2"))).status_code == 302
    before = store.list(collection.kind)
    for cluster in ("c1", "c2"):
        refused(await as_one("PUT", collection.path, json=collection.of(cluster)))
    assert "of cluster 'c2'" in refused(await as_one("DELETE", collection.path))
    assert store.list(collection.kind) == before


@every
async def test_it_names_no_host_of_another_cluster_and_takes_none_away(
    collection: Collection, as_one: Ask, as_tenant: Ask
) -> None:
    text = refused(await as_one("POST", collection.made_at, json=collection.of("c1", "c1/h1,c2/h2")))
    assert "host 'c2/h2'" in text
    body = collection.of("c1", "c1/h1,c2/h2")
    assert (await as_tenant("POST", collection.made_at, json=body)).status_code == 302
    assert "host 'c2/h2'" in refused(await as_one("PUT", collection.path, json=collection.of("c1", "c1/h1")))
    others = collection.of("c1", "c1/h3,c2/h2")
    assert (await as_one("PUT", collection.path, json=others)).status_code == 302


@every
async def test_it_discards_nothing_that_cannot_be_read(
    collection: Collection, as_one: Ask, as_tenant: Ask, store: CachedStore
) -> None:
    assert (await as_tenant("POST", collection.made_at, json=collection.of("c2"))).status_code == 302
    (made,) = store.list(collection.kind)
    write_newer(store, made)
    wait_until_unreadable(store, collection.kind)
    assert "cannot be read" in refused(await as_one("DELETE", collection.path))
    assert store.unreadable(collection.kind)
    assert (await as_tenant("DELETE", collection.path)).status_code == 200


@pytest.mark.parametrize("collection", COLLECTIONS[:3], ids=lambda each: each.key)
async def test_two_clusters_do_not_take_an_object_from_each_other(
    collection: Collection, as_tenant: Ask, store: CachedStore
) -> None:
    assert (await as_tenant("POST", collection.made_at, json=collection.of("c1"))).status_code == 302
    before = store.list(collection.kind)
    reply = await as_tenant("PUT", collection.path, json=collection.of("c2"))
    assert reply.status_code == 409
    assert "is that of cluster 'c1'" in reply.json()["error"]
    assert store.list(collection.kind) == before


async def test_of_a_service_it_changes_what_its_cluster_serves(
    as_one: Ask, as_tenant: Ask, service: str
) -> None:
    own, other = endpoint_body(), endpoint_body("10.1.2.4", cluster="c2")
    made = await as_one("POST", f"{service}/endpoints", json=own)
    assert made.status_code == 302, made.text
    refused(await as_one("POST", f"{service}/clusters", json={"cluster-id": "c2"}))
    assert (await as_tenant("POST", f"{service}/clusters", json={"cluster-id": "c2"})).status_code == 302
    refused(await as_one("POST", f"{service}/endpoints", json=other))
    others = await as_tenant("POST", f"{service}/endpoints", json=other)
    refused(await as_one("DELETE", others.headers["location"]))
    refused(await as_one("DELETE", f"{service}/clusters/c2"))
    assert (await as_one("DELETE", made.headers["location"])).status_code == 200
    assert (await as_one("DELETE", f"{service}/clusters/c1")).status_code == 200


async def test_a_user_keeps_what_is_not_said(as_admin: Ask, as_one: Ask, anyone: httpx.AsyncClient) -> None:
    async def clusters() -> list[str]:
        found: list[str] = (await as_admin("GET", f"{USERS}/one")).json()["user"]["spec"]["cluster-ids"]
        return found

    assert await clusters() == ["c1"]
    other = {"name": "one", "password": "another-password"}
    assert (await as_admin("POST", USERS, json={"user": other})).status_code == 302
    assert await clusters() == ["c1"]
    more = {"name": "one", "clusterIDs": ["c1", "c2"]}
    assert (await as_admin("POST", USERS, json={"user": more})).status_code == 302
    assert await clusters() == ["c1", "c2"]
    assert (await anyone.get(ROOT, auth=("one", "another-password"))).status_code == 200
    reply = await as_admin("POST", USERS, json={"user": {"name": "two", "clusterIDs": ["c1"]}})
    assert (reply.status_code, reply.json()["error"]) == (400, "user.password: a new user needs one")


async def test_what_a_user_speaks_for_counts_from_then_on(as_admin: Ask, as_one: Ask) -> None:
    assert (await as_one("POST", f"{ROOT}/routes", json=route_body())).status_code == 302
    moved = {"name": "one", "clusterIDs": ["c2"]}
    assert (await as_admin("POST", USERS, json={"user": moved})).status_code == 302
    refused(await as_one("DELETE", f"{ROOT}/routes/R1"))
