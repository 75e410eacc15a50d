# SPDX-License-Identifier: Apache-2.0
"""Shared gateways over REST: who joins, whose listeners count, what leaving takes, how a gateway ends."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from api_requests import ADMIN, API, PROXIES, proxy_body, route_body
from damage import wait_until_unreadable, write_newer

from epic.api.gateway import sharing
from epic.cache.store import CachedStore
from epic.model.members import GWMember
from epic.model.resources import GWProxy, LBServiceGroup

ROOT = f"{API}/accounts/root"
JOIN = f"{ROOT}/groups/gatewayhttp/members"
KEY = f"{ROOT}/proxies/K1"


@pytest.fixture(autouse=True)
def shareable(store: CachedStore) -> None:
    let_share(store, allowed=True)


def let_share(store: CachedStore, *, allowed: bool) -> None:
    with store.transaction() as transaction:
        group = transaction.get(LBServiceGroup, "root", "gatewayhttp")
        spec = group.spec.model_copy(update={"can_be_shared": allowed})
        transaction.update(group.model_copy(update={"spec": spec}))


def member_body(cluster: str, port: int = 80, key: str = "K1", **metadata: Any) -> dict[str, Any]:
    spec = proxy_body(f"M-{cluster}")["proxy"]["spec"]
    spec["clientRef"]["clusterID"] = cluster
    spec["display-name"] = "web"
    spec["gateway"] = {
        "gatewayClassName": f"of-{cluster}",
        "listeners": [{"name": "http", "port": port, "protocol": "HTTP"}],
    }
    spec["public-ports"] = []
    return {"member": {"metadata": metadata, "spec": {**spec, "sharing-key": key}}}


async def join(client: httpx.AsyncClient, cluster: str, port: int = 80, key: str = "K1") -> dict[str, Any]:
    reply = await client.post(JOIN, json=member_body(cluster, port, key))
    assert reply.status_code == 302, reply.text
    return dict(reply.json()["member"])


async def leave(client: httpx.AsyncClient, cluster: str) -> None:
    assert (await client.delete(f"{ROOT}/members/M-{cluster}")).status_code == 200


async def gateway(client: httpx.AsyncClient) -> dict[str, Any]:
    return dict((await client.get(KEY)).json()["proxy"])


def conditions(member: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {c["type"]: (c["status"], c["reason"]) for c in member["status"]["conditions"]}


async def members(client: httpx.AsyncClient) -> list[tuple[str, bool, bool]]:
    found = (await gateway(client))["status"].get("members", [])
    return [(m["clusterID"], m["leads"], m["conflicted"]) for m in found]


async def test_the_first_member_makes_the_gateway_and_the_second_shares_it(
    tenant: httpx.AsyncClient, store: CachedStore
) -> None:
    first, second = await join(tenant, "c1"), await join(tenant, "c2")
    (proxy,) = store.list(GWProxy)
    assert (proxy.name, proxy.spec.group, proxy.spec.client_ref.cluster_id) == ("K1", "gatewayhttp", "c1")
    assert second["status"]["gateway"]["public-address"] == str(proxy.spec.public_address)
    assert second["status"]["gateway"]["alt-address"] == ""
    assert second["status"]["gateway"]["endpoints"] == first["status"]["gateway"]["endpoints"]
    assert await members(tenant) == [("c1", True, False), ("c2", False, False)]
    names = [item["metadata"]["name"] for item in (await tenant.get(f"{ROOT}/members")).json()["items"]]
    assert names == ["M-c1", "M-c2"]


async def test_who_leaves_takes_only_its_own_and_the_last_takes_the_gateway(
    tenant: httpx.AsyncClient, store: CachedStore
) -> None:
    for cluster in ("c1", "c2", "c3"):
        await join(tenant, cluster)
    before = store.get(GWProxy, "root", "K1")
    await leave(tenant, "c2")
    assert await members(tenant) == [("c1", True, False), ("c3", False, False)]
    assert store.get(GWProxy, "root", "K1") == before
    await leave(tenant, "c1")
    after = store.get(GWProxy, "root", "K1")
    assert (after.deleting, after.status.instances) == (False, before.status.instances)
    assert (after.spec.public_address, after.spec.endpoints) == (
        before.spec.public_address,
        before.spec.endpoints,
    )
    await leave(tenant, "c3")
    assert store.get(GWProxy, "root", "K1").deleting
    assert store.list(GWMember) == []
    # Once more is no error, as for all that is deleted.
    await leave(tenant, "c3")


async def test_the_firsts_listeners_count_and_the_others_are_told(tenant: httpx.AsyncClient) -> None:
    await join(tenant, "c1")
    second = await join(tenant, "c2", port=8080)
    assert conditions(second) == {
        "Accepted": ("True", "Accepted"),
        "Conflicted": ("True", "ListenersDiffer"),
    }
    (told,) = (c["message"] for c in second["status"]["conditions"] if c["type"] == "Conflicted")
    assert told.startswith("Gateway shop/web of cluster c1 asks for other listeners and was first")
    # However often the second writes, nothing flips.
    for _ in range(2):
        await tenant.put(f"{ROOT}/members/M-c2", json=member_body("c2", port=8080))
        assert (await gateway(tenant))["spec"]["public-ports"][0]["port"] == 80
    changed = await tenant.put(f"{ROOT}/members/M-c1", json=member_body("c1", port=8080))
    assert conditions(changed.json()["member"])["Conflicted"] == ("False", "NoConflicts")
    assert (await gateway(tenant))["spec"]["public-ports"][0]["port"] == 8080
    assert await members(tenant) == [("c1", True, False), ("c2", False, False)]


async def test_a_members_routes_are_taken_from_its_own_namespace(tenant: httpx.AsyncClient) -> None:
    """By `Same`, also beside members in other namespaces, and whoever has the say about listeners."""

    async def joins(cluster: str, namespace: str) -> None:
        body = member_body(cluster)
        body["member"]["spec"]["clientRef"]["namespace"] = namespace
        assert (await tenant.post(JOIN, json=body)).status_code == 302

    async def accepted(cluster: str, namespace: str) -> tuple[str, str]:
        uid = f"R-{cluster}-{namespace}"
        body = route_body(uid, parent="K1")
        body["route"]["spec"]["clientRef"] |= {"clusterID": cluster, "namespace": namespace}
        await tenant.post(f"{ROOT}/routes", json=body)
        route = (await tenant.get(f"{ROOT}/routes/{uid}")).json()["route"]
        (parent,) = route["status"]["parents"]
        (found,) = (c for c in parent["conditions"] if c["type"] == "Accepted")
        return found["status"], found["reason"]

    taken, refused = ("True", "Accepted"), ("False", "NotAllowedByListeners")
    await joins("c1", "shop")
    assert await accepted("c2", "bank") == refused
    await joins("c2", "bank")
    await joins("c3", "shop")
    assert await accepted("c2", "bank") == taken
    assert await accepted("c2", "shop") == refused
    await leave(tenant, "c1")
    assert await accepted("c3", "shop") == taken
    assert await accepted("c3", "bank") == refused


async def test_when_the_first_leaves_who_came_next_has_the_say(tenant: httpx.AsyncClient) -> None:
    await join(tenant, "c1")
    await join(tenant, "c2", port=8080)
    await leave(tenant, "c1")
    assert await members(tenant) == [("c2", True, False)]
    found = await gateway(tenant)
    assert found["spec"]["public-ports"][0]["port"] == 8080
    assert found["spec"]["clientRef"] == {
        "clusterID": "c2", "namespace": "shop", "name": "web", "uid": "K1",
    }  # fmt: skip


async def test_who_came_first_is_first_though_all_came_in_one_second(tenant: httpx.AsyncClient) -> None:
    clusters = ["c4", "c1", "c3", "c2", "c0"]
    for cluster in clusters:
        await join(tenant, cluster)
    assert [cluster for cluster, _, _ in await members(tenant)] == clusters
    # What a member asks for now does not change when it came; who goes to another gateway comes last there.
    await tenant.put(f"{ROOT}/members/M-c4", json=member_body("c4"))
    assert [cluster for cluster, _, _ in await members(tenant)] == clusters
    for cluster in clusters[:-1]:
        await leave(tenant, cluster)
        clusters = clusters[1:]
        assert await members(tenant) == [
            (clusters[0], True, False),
            *((c, False, False) for c in clusters[1:]),
        ]


@pytest.mark.parametrize(("field", "other"), [("clusterID", "c2"), ("namespace", "bank"), ("name", "front")])
async def test_a_member_stays_that_of_one_gateway_of_its_client(
    tenant: httpx.AsyncClient, store: CachedStore, field: str, other: str
) -> None:
    """Else nobody would have the say about the listeners, and the gateway would outlive its last member."""
    await join(tenant, "c1")
    before = store.get(GWMember, "root", "M-c1")
    for key in ("K1", "K2"):
        body = member_body("c1", port=8080, key=key)
        body["member"]["spec"]["clientRef"][field] = other
        reply = await tenant.put(f"{ROOT}/members/M-c1", json=body)
        assert (reply.status_code, reply.json()["reason"]) == (400, "Invalid")
        assert reply.json()["error"].startswith(
            "member.spec.clientRef: member 'M-c1' is that of Gateway shop/web"
        )
        assert "delete it, and join with the other" in reply.json()["error"]
    assert store.get(GWMember, "root", "M-c1") == before


async def test_only_a_template_that_allows_it_lets_a_second_cluster_in(
    tenant: httpx.AsyncClient, store: CachedStore
) -> None:
    let_share(store, allowed=False)
    await join(tenant, "c1")
    reply = await tenant.post(JOIN, json=member_body("c2"))
    assert (reply.status_code, reply.json()["reason"]) == (403, "Forbidden")
    assert "template 'gatewayhttp' does not let gateways be shared" in reply.json()["error"]
    assert [member.name for member in store.list(GWMember)] == ["M-c1"]


async def test_another_template_a_gateway_that_goes_and_too_many_members_are_refused(
    tenant: httpx.AsyncClient, store: CachedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.transaction() as transaction:
        group = transaction.get(LBServiceGroup, "root", "gatewayhttp")
        metadata = group.metadata.model_copy(update={"name": "other", "resource_version": 0})
        transaction.create(group.model_copy(update={"metadata": metadata}))
    await join(tenant, "c1")
    other = await tenant.post(f"{ROOT}/groups/other/members", json=member_body("c2"))
    assert (other.status_code, other.json()["reason"]) == (400, "Invalid")
    assert "was made from template 'gatewayhttp', not from 'other'" in other.json()["error"]
    monkeypatch.setattr(sharing, "MOST_MEMBERS", 1)
    many = await tenant.post(JOIN, json=member_body("c2"))
    assert (many.status_code, many.json()["reason"]) == (403, "QuotaExceeded")
    await tenant.delete(KEY)
    going = await tenant.post(JOIN, json=member_body("c2"))
    assert (going.status_code, going.json()["reason"]) == (409, "Conflict")
    assert "is being deleted" in going.json()["error"]


async def test_its_owners_order_ends_the_gateway_for_all(
    tenant: httpx.AsyncClient, store: CachedStore
) -> None:
    await join(tenant, "c1")
    await join(tenant, "c2")
    await tenant.delete(KEY)
    assert store.get(GWProxy, "root", "K1").deleting
    assert store.list(GWMember) == []


async def test_a_gateway_that_a_client_made_for_itself_outlives_those_who_joined_it(
    tenant: httpx.AsyncClient, store: CachedStore
) -> None:
    """As the original's clients share: one makes it, its UID is the others' key."""
    await tenant.post(PROXIES, json=proxy_body("K1"))
    again = await tenant.post(PROXIES, json=proxy_body("K1"))
    assert (again.status_code, again.headers["location"]) == (409, KEY)
    await join(tenant, "c2")
    assert await members(tenant) == [("c2", False, False)]
    assert (await tenant.put(KEY, json=proxy_body("K1"))).status_code == 302
    await leave(tenant, "c2")
    assert not store.get(GWProxy, "root", "K1").deleting


async def test_listeners_of_a_shared_gateway_are_changed_by_its_member(tenant: httpx.AsyncClient) -> None:
    await join(tenant, "c1")
    reply = await tenant.put(KEY, json=proxy_body("K1"))
    assert (reply.status_code, reply.json()["reason"]) == (409, "Conflict")
    assert "its listeners are those of member 'M-c1'" in reply.json()["error"]


async def test_with_another_key_a_member_goes_to_another_gateway(
    tenant: httpx.AsyncClient, store: CachedStore
) -> None:
    await join(tenant, "c1")
    await join(tenant, "c2")
    body = member_body("c2", key="K2")
    body["member"]["spec"]["display-name"] = "other"
    assert (await tenant.put(f"{ROOT}/members/M-c2", json=body)).status_code == 302
    assert await members(tenant) == [("c1", True, False)]
    assert {proxy.name: proxy.deleting for proxy in store.list(GWProxy)} == {"K1": False, "K2": False}


async def test_a_move_that_is_refused_leaves_the_member_where_it_is(
    tenant: httpx.AsyncClient, store: CachedStore
) -> None:
    await join(tenant, "c1")
    # The DNS name of the new gateway would be the old one's, which stays.
    await join(tenant, "c2")
    reply = await tenant.put(f"{ROOT}/members/M-c2", json=member_body("c2", key="K2"))
    assert reply.status_code == 409
    assert [member.spec.sharing_key for member in store.list(GWMember)] == ["K1", "K1"]


async def test_what_is_wrong_is_said_in_the_members_words(
    tenant: httpx.AsyncClient, store: CachedStore
) -> None:
    body = member_body("c1")
    body["member"]["spec"]["gateway"]["listeners"][0]["protocol"] = "QUIC"
    reply = await tenant.post(JOIN, json=body)
    assert reply.status_code == 400
    assert reply.json()["error"].startswith("member.spec.gateway.listeners.0.protocol: 'QUIC'")
    missing = member_body("c1")
    del missing["member"]["spec"]["sharing-key"]
    assert "member.spec.sharing-key" in (await tenant.post(JOIN, json=missing)).json()["error"]
    assert store.list(GWProxy) == []


async def test_a_member_is_shown_to_its_account_alone(tenant: httpx.AsyncClient) -> None:
    await join(tenant, "c1")
    user = {"user": {"name": "eve", "password": "eve-password"}}
    await tenant.post(f"{API}/accounts/other/users", json=user, auth=ADMIN)
    for path in (f"{ROOT}/members", f"{ROOT}/members/M-c1"):
        assert (await tenant.get(path, auth=("eve", "eve-password"))).status_code == 403
    assert (await tenant.get(f"{API}/accounts/other/members", auth=("eve", "eve-password"))).json()[
        "items"
    ] == []


async def test_while_a_member_cannot_be_read_the_gateway_stays(
    tenant: httpx.AsyncClient, store: CachedStore
) -> None:
    await join(tenant, "c1")
    await join(tenant, "c2")
    write_newer(store, store.get(GWMember, "root", "M-c2"))
    wait_until_unreadable(store, GWMember)
    assert await members(tenant) == [("c1", True, False)]
    await leave(tenant, "c1")
    assert not store.get(GWProxy, "root", "K1").deleting


async def test_who_can_be_read_again_has_the_say_when_it_asks_for_something(
    tenant: httpx.AsyncClient, store: CachedStore
) -> None:
    await join(tenant, "c1")
    await join(tenant, "c2")
    readable = store.get(GWMember, "root", "M-c2")
    write_newer(store, readable)
    wait_until_unreadable(store, GWMember)
    await leave(tenant, "c1")
    with store.transaction() as transaction:
        # As where the newer program has been put back.
        transaction.delete(GWMember, "root", "M-c2")
        transaction.create(readable.at(0))
    assert await members(tenant) == [("c2", False, False)]
    await tenant.put(f"{ROOT}/members/M-c2", json=member_body("c2", port=8080))
    assert await members(tenant) == [("c2", True, False)]
    await leave(tenant, "c2")
    assert store.get(GWProxy, "root", "K1").deleting


@pytest.mark.parametrize("path", ["members/M-c2", "unreadable"])
async def test_with_a_last_member_that_cannot_be_read_the_gateway_goes_too(
    tenant: httpx.AsyncClient, store: CachedStore, path: str
) -> None:
    await join(tenant, "c1")
    await join(tenant, "c2")
    write_newer(store, store.get(GWMember, "root", "M-c2"))
    wait_until_unreadable(store, GWMember)
    await leave(tenant, "c1")
    where = f"{API}/unreadable/GWMember/root/M-c2" if path == "unreadable" else f"{ROOT}/{path}"
    assert (await tenant.delete(where, auth=ADMIN)).status_code == 200
    assert store.get(GWProxy, "root", "K1").deleting


async def test_a_first_member_that_cannot_be_read_leaves_the_say_to_the_next_when_it_is_removed(
    tenant: httpx.AsyncClient, store: CachedStore
) -> None:
    for cluster in ("c1", "c2", "c3"):
        await join(tenant, cluster, port=8080 if cluster == "c3" else 80)
    write_newer(store, store.get(GWMember, "root", "M-c1"))
    wait_until_unreadable(store, GWMember)
    # Until then it has it.
    await leave(tenant, "c2")
    assert await members(tenant) == [("c3", False, True)]
    await leave(tenant, "c1")
    assert await members(tenant) == [("c3", True, False)]
    await leave(tenant, "c3")
    assert store.get(GWProxy, "root", "K1").deleting


async def test_a_gateway_that_a_client_made_for_itself_outlives_a_member_that_cannot_be_read(
    tenant: httpx.AsyncClient, store: CachedStore
) -> None:
    await tenant.post(PROXIES, json=proxy_body("K1"))
    await join(tenant, "c2")
    write_newer(store, store.get(GWMember, "root", "M-c2"))
    wait_until_unreadable(store, GWMember)
    await leave(tenant, "c2")
    assert store.list(GWMember) == []
    assert not store.get(GWProxy, "root", "K1").deleting


async def test_with_a_gateway_that_cannot_be_read_its_members_go_and_make_it_anew(
    tenant: httpx.AsyncClient, store: CachedStore
) -> None:
    await join(tenant, "c1")
    write_newer(store, store.get(GWProxy, "root", "K1"))
    wait_until_unreadable(store, GWProxy)
    assert (await tenant.delete(KEY, auth=ADMIN)).status_code == 200
    assert store.list(GWMember) == []
    await join(tenant, "c1")
    assert await members(tenant) == [("c1", True, False)]


async def test_its_members_go_with_an_account(tenant: httpx.AsyncClient, store: CachedStore) -> None:
    await join(tenant, "c1")
    with store.transaction() as transaction:
        transaction.delete(GWProxy, "root", "K1")
    assert (await tenant.delete(ROOT, auth=ADMIN)).status_code == 200
    assert store.list(GWMember) == []
