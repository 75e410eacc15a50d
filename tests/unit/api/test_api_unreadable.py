# SPDX-License-Identifier: Apache-2.0
"""Objects that cannot be read: others are served, what they hold is nobody's, the API ends it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Network
from pathlib import Path

import httpx
import pytest
from api_requests import ADMIN, API, PROXIES, TENANT, Events, proxy_body, route_body, slice_body
from damage import damage, wait_until_unreadable, write_newer
from node_tunnels import tunnels_of
from stores import open_store

from epic.api.app import create_app
from epic.api.context import Context
from epic.cache.store import CachedStore
from epic.errors import Unavailable
from epic.model.backlog import TunnelBacklog, TunnelBacklogSpec
from epic.model.base import Metadata, Resource
from epic.model.nodes import NodeRevocation, Quarantine
from epic.model.releases import ReleasedAddress
from epic.model.resources import (
    Account,
    GWEndpointSlice,
    GWProxy,
    GWRoute,
    LBServiceGroup,
    Node,
    Tunnel,
    User,
)
from epic.reconcile.counts.workload_index import Told, WorkloadIndex
from epic.reconcile.revocation import revoke
from epic.tunnels import WorkloadNode

ROUTES = f"{API}/accounts/root/routes"
SLICES = f"{API}/accounts/root/slices"


@asynccontextmanager
async def client_of(store: CachedStore) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(Context(store=store, inside_pool=IPv4Network("100.64.0.0/10"), run_events=Events()))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="https://epic", auth=ADMIN) as client:
        yield client


@pytest.fixture
async def made(admin: httpx.AsyncClient, store: CachedStore) -> CachedStore:
    """Two gateways with a route, a slice and tunnels; all of the pool's addresses but two are taken."""
    for name in ("U1", "U2"):
        assert (await admin.post(PROXIES, json=proxy_body(name, **{"display-name": name}))).status_code == 302
    assert (await admin.post(ROUTES, json=route_body())).status_code == 302
    assert (await admin.post(SLICES, json=slice_body(nodes=("n1",)))).status_code == 302
    return store


@pytest.fixture
def reopened() -> Iterator[Callable[[CachedStore], CachedStore]]:
    """Opens the store again, as after a restart."""
    opened: list[CachedStore] = []

    def reopen(store: CachedStore) -> CachedStore:
        assert store.location.sqlite is not None
        opened.append(open_store(Path(store.location.sqlite)))
        return opened[-1]

    yield reopen
    for store in opened:
        store.close()


Reopen = Callable[[CachedStore], CachedStore]
KINDS: dict[str, type[Resource]] = {
    kind.kind: kind for kind in (GWProxy, GWRoute, GWEndpointSlice, LBServiceGroup, Node, Tunnel)
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
async def test_one_object_that_cannot_be_read_keeps_nobody_from_anything(
    made: CachedStore, reopened: Reopen, kind: type[Resource]
) -> None:
    broken = made.list(kind)[0]
    await asyncio.to_thread(damage, made, broken)
    store = await asyncio.to_thread(reopened, made)
    async with client_of(store) as client:
        for collection in ("accounts", "accounts/root/proxies", "accounts/root/routes", "nodes", "tunnels"):
            assert (await client.get(f"{API}/{collection}")).status_code == 200
        assert (await client.post(ROUTES, json=route_body("R2", parent="U2"))).status_code == 302
        assert (await client.post(SLICES, json=slice_body("E2", "S2", nodes=("n2",)))).status_code == 302
        account = {"account": {"metadata": {"name": "new"}, "spec": {}}}
        assert (await client.post(f"{API}/accounts", json=account)).status_code == 302
        (shown,) = (await client.get(f"{API}/unreadable")).json()["items"]
        assert (shown["kind"], shown["account"], shown["name"]) == (kind.kind, broken.account, broken.name)
        assert shown["reason"] == "its checksum does not fit its content"
        path = f"{API}/unreadable/{kind.kind}/{broken.account or '-'}/{broken.name}"
        assert (await client.delete(path)).status_code == 200
        assert (await client.get(f"{API}/unreadable")).json()["items"] == []
        assert (await client.delete(path)).status_code == 404
        assert not store.exists(kind, broken.account, broken.name)


async def test_nobody_gets_what_a_gateway_has_that_cannot_be_read(
    made: CachedStore, reopened: Reopen
) -> None:
    broken = made.get(GWProxy, "root", "U1")
    has = {broken.spec.public_address, *(i.inside_address for i in broken.status.instances)}
    tunnels = made.list(Tunnel)
    await asyncio.to_thread(damage, made, broken)
    store = await asyncio.to_thread(reopened, made)
    async with client_of(store) as client:
        codes = [
            (await client.post(PROXIES, json=proxy_body(f"N{i}", **{"display-name": f"n{i}"}))).status_code
            for i in range(4)
        ]
        assert codes == [302, 302, 503, 503], "two of four addresses are left"
        for proxy in store.list(GWProxy):
            assert proxy.spec.public_address not in has
            assert not has & {i.inside_address for i in proxy.status.instances}
        # The name of its own account's gateway is not free either.
        reply = await client.post(PROXIES, json=proxy_body("U1", **{"display-name": "U1"}))
        assert (reply.status_code, reply.json()["reason"]) == (500, "Damaged")
        assert (await client.post(ROUTES, json=route_body("R2"))).status_code == 302
        assert [t.name for t in store.list(Tunnel) if not t.deleting] == [t.name for t in tunnels]
        assert (await client.delete(f"{API}/accounts/root/proxies/U1")).status_code == 200
        held = {q.spec.public_address for q in store.list(Quarantine)}
        assert has <= held
        assert (await client.post(PROXIES, json=proxy_body("N9", **{"display-name": "n"}))).status_code == 503
        (backlog,) = store.list(TunnelBacklog)
        assert "U1" in backlog.spec.gateways
    assert store.list(ReleasedAddress) == []


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_a_route_or_slice_that_cannot_be_read_is_replaced_by_its_owner(
    made: CachedStore, reopened: Reopen, method: str
) -> None:
    await asyncio.to_thread(damage, made, made.get(GWRoute, "root", "R1"))
    await asyncio.to_thread(damage, made, made.get(GWEndpointSlice, "root", "E1"))
    store = await asyncio.to_thread(reopened, made)
    named = method == "PUT"
    async with client_of(store) as client:
        client.auth = httpx.BasicAuth(*TENANT)
        assert (await client.get(f"{API}/unreadable")).status_code == 403
        reply = await client.request(method, f"{ROUTES}/R1" if named else ROUTES, json=route_body())
        assert reply.status_code == 302
        reply = await client.request(method, f"{SLICES}/E1" if named else SLICES, json=slice_body())
        assert reply.status_code == 302
    assert store.unreadable() == []
    assert len(store.list(GWRoute)) == len(store.list(GWEndpointSlice)) == 1


async def test_an_account_that_cannot_be_read_is_replaced_with_all_it_has(
    made: CachedStore, reopened: Reopen
) -> None:
    await asyncio.to_thread(damage, made, made.get(Account, "", "root"))
    store = await asyncio.to_thread(reopened, made)
    async with client_of(store) as client:
        account = {"account": {"metadata": {"name": "root"}, "spec": {"proxyLimit": 7}}}
        assert (await client.put(f"{API}/accounts/root", json=account)).status_code == 302
    assert store.get(Account, "", "root").spec.proxy_limit == 7
    assert len(store.list(GWProxy, "root")) == 2


async def test_an_account_is_deleted_with_what_cannot_be_read_of_it(
    made: CachedStore, reopened: Reopen
) -> None:
    await asyncio.to_thread(damage, made, made.get(GWRoute, "root", "R1"))
    await asyncio.to_thread(damage, made, made.get(GWProxy, "root", "U1"))
    store = await asyncio.to_thread(reopened, made)
    with store.transaction() as transaction:
        transaction.delete(GWProxy, "root", "U2")
    async with client_of(store) as client:
        refused = await client.delete(f"{API}/accounts/root")
        assert refused.status_code == 409
        assert "GWProxy 'U1' of account 'root' cannot be read" in refused.json()["error"]
        assert (await client.delete(f"{API}/accounts/root/proxies/U1")).status_code == 200
        assert (await client.delete(f"{API}/accounts/root")).status_code == 200
    assert store.unreadable() == []


async def test_what_waits_for_tunnels_is_looked_at_anew_where_the_list_of_it_cannot_be_read(
    made: CachedStore, reopened: Reopen
) -> None:
    with made.transaction() as transaction:
        metadata = Metadata(name="root", namespace="root")
        backlog = TunnelBacklog(metadata=metadata, spec=TunnelBacklogSpec(gateways=("U2",)))
        transaction.create(backlog)
    await asyncio.to_thread(damage, made, made.get(TunnelBacklog, "root", "root"))
    store = await asyncio.to_thread(reopened, made)
    async with client_of(store) as client:
        assert (await client.post(ROUTES, json=route_body("R2", parent="U2"))).status_code == 302
    assert store.unreadable() == []
    assert set(store.get(TunnelBacklog, "root", "root").spec.gateways) == {"U1", "U2"}


async def test_a_node_whose_revocation_cannot_be_read_is_revoked_anew(
    made: CachedStore, reopened: Reopen
) -> None:
    with made.transaction() as transaction:
        revoke(transaction, "epic2")
    await asyncio.to_thread(damage, made, made.get(NodeRevocation, "", "epic2"))
    store = await asyncio.to_thread(reopened, made)
    async with client_of(store) as client:
        assert (await client.delete(f"{API}/nodes/epic2", params={"force": True})).status_code == 200
    assert store.unreadable() == []
    assert store.find(NodeRevocation, "", "epic2") is not None


async def test_of_an_account_that_cannot_be_read_nodes_are_told_theirs_and_all_is_shown(
    made: CachedStore, reopened: Reopen
) -> None:
    await asyncio.to_thread(damage, made, made.get(Account, "", "root"))
    store = await asyncio.to_thread(reopened, made)
    async with client_of(store) as client:
        for shown in ("proxies", "routes", "slices", "groups", "tunnels/status", "workload-nodes"):
            reply = await client.get(f"{API}/accounts/root/{shown}", auth=TENANT)
            assert reply.status_code in {200, 404, 405}, f"{shown}: {reply.text}"
        assert len(await tunnels_of(store, "n1")) == 2
        refused = await client.post(ROUTES, json=route_body("R2"), auth=TENANT)
        assert (refused.status_code, refused.json()["reason"]) == (500, "Damaged"), "its limits are not known"


async def test_a_user_that_cannot_be_read_is_nobody_and_all_others_are_served(
    made: CachedStore, reopened: Reopen
) -> None:
    await asyncio.to_thread(damage, made, made.get(User, "root", TENANT[0]))
    store = await asyncio.to_thread(reopened, made)
    async with client_of(store) as client:
        for asked in (ROUTES, f"{API}/accounts/root/proxies"):
            assert (await client.get(asked, auth=TENANT)).status_code == 401
            assert (await client.get(asked)).status_code == 200


@pytest.mark.parametrize("known", [False, True])
async def test_a_user_that_cannot_be_read_any_more_is_nobody_from_then_on(
    made: CachedStore, known: bool
) -> None:
    async with client_of(made) as client:
        if known:
            assert (await client.get(ROUTES, auth=TENANT)).status_code == 200
        await asyncio.to_thread(write_newer, made, made.get(User, "root", TENANT[0]))
        await asyncio.to_thread(wait_until_unreadable, made, User)
        assert (await client.get(ROUTES, auth=TENANT)).status_code == 401
        assert (await client.get(ROUTES)).status_code == 200


@pytest.mark.parametrize("kind", [Node, GWRoute, LBServiceGroup, GWProxy])
async def test_a_workload_node_is_told_the_same_as_before(
    made: CachedStore, reopened: Reopen, kind: type[Resource]
) -> None:
    before = await tunnels_of(made, "n1")
    assert len(before) == 2
    assert all(tunnel.endpoints for tunnel in before)
    await asyncio.to_thread(damage, made, made.list(kind)[0])
    assert await tunnels_of(made, "n1") == before
    store = await asyncio.to_thread(reopened, made)
    assert await tunnels_of(store, "n1") == before


@pytest.mark.parametrize("kind", [GWEndpointSlice, Tunnel])
async def test_a_workload_node_is_told_nothing_while_that_cannot_be_read_what_it_is_to_have(
    made: CachedStore, reopened: Reopen, kind: type[Resource], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = made.list(kind)[0]
    await asyncio.to_thread(damage, made, broken)
    store = await asyncio.to_thread(reopened, made)
    refused, told = asyncio.Event(), WorkloadIndex.told

    def noted(index: WorkloadIndex, workload: WorkloadNode) -> Told:
        try:
            return told(index, workload)
        except Unavailable:
            refused.set()
            raise

    monkeypatch.setattr(WorkloadIndex, "told", noted)
    async with client_of(store) as client, asyncio.timeout(60):
        waiting = asyncio.create_task(tunnels_of(store, "n1"))
        await refused.wait()
        path = f"{API}/unreadable/{kind.kind}/{broken.account}/{broken.name}"
        assert (await client.delete(path)).status_code == 200
        ids = {tunnel.id for tunnel in await waiting}
    assert ids == {int(t.name) for t in store.list(Tunnel) if not t.deleting}
