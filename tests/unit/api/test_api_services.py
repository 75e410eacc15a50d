# SPDX-License-Identifier: Apache-2.0
"""The original's first API: Services of type LoadBalancer and their clusters."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from api_requests import ADMIN
from damage import wait_until_unreadable, write_newer
from life_plant import Plant
from service_requests import (
    DNS,
    HTTP,
    ROOT,
    SERVICES,
    SHARED,
    announce,
    condition,
    endpoint_body,
    left_of,
    service_body,
)

from epic.api.legacy import services
from epic.cache.store import CachedStore
from epic.model.balancers import LoadBalancer, RemoteEndpoint
from epic.model.resources import (
    Account,
    AddressPool,
    GWEndpointSlice,
    GWProxy,
    GWRoute,
    ServicePrefix,
    Tunnel,
)


async def test_a_service_is_found_by_the_groups_link_and_has_an_address_and_a_name(
    tenant: httpx.AsyncClient,
) -> None:
    group = (await tenant.get(f"{ROOT}/groups/gatewayhttp")).json()
    reply = await tenant.post(group["link"]["create-service"], json=service_body())
    path = reply.headers["location"]
    name = path.removeprefix(f"{ROOT}/services/")
    assert reply.status_code == 302
    assert re.fullmatch("gatewayhttp-web-[0-9a-f]{16}", name)
    content = (await tenant.get(path)).json()
    assert content["link"] == {
        "self": path,
        "group": f"{ROOT}/groups/gatewayhttp",
        "create-endpoint": f"{path}/endpoints",
        "create-cluster": f"{path}/clusters",
    }
    spec = content["service"]["spec"]
    assert spec["public-address"] == "203.0.113.10"
    assert spec["endpoints"][0]["targets"] == ["203.0.113.10"]
    assert re.fullmatch(r"web-[0-9a-f]{16}-root\.example\.net", spec["endpoints"][0]["dnsName"])
    assert (spec["true-ingress"], spec["gue-tunnel-endpoints"]) == (True, {})
    listed = (await tenant.get(f"{ROOT}/services")).json()["items"]
    assert [item["spec"]["public-address"] for item in listed] == ["203.0.113.10"]


async def test_a_service_shows_the_addresses_of_both_families(
    tenant: httpx.AsyncClient, store: CachedStore
) -> None:
    with store.transaction() as transaction:
        (prefix,) = transaction.list(ServicePrefix)
        pool = AddressPool.model_validate({"pool": "2001:db8::/125", "subnet": "2001:db8::/64"})
        spec = prefix.spec.model_copy(update={"alt_pool": pool})
        transaction.update(prefix.model_copy(update={"spec": spec}))
    path = (await tenant.post(SERVICES, json=service_body())).headers["location"]
    content = (await tenant.get(path)).json()
    spec = content["service"]["spec"]
    assert (spec["public-address"], spec["alt-address"]) == ("203.0.113.10", "2001:db8::1")
    again = await tenant.post(SERVICES, json=service_body(name="again", **{"alt-address": "2001:db8::1"}))
    assert "warning" not in again.headers, "what is shown may be sent back"


async def test_each_announces_its_own_service_unless_the_template_lets_them_share(
    tenant: httpx.AsyncClient, store: CachedStore
) -> None:
    first, second = [await tenant.post(SERVICES, json=service_body()) for _ in range(2)]
    assert (first.status_code, second.status_code) == (302, 302)
    assert first.headers["location"] != second.headers["location"]
    assert len({proxy.spec.public_address for proxy in store.list(GWProxy)}) == 2


async def test_a_shared_service_that_is_there_is_a_duplicate_with_its_place(
    tenant: httpx.AsyncClient, service: str
) -> None:
    assert service == SHARED
    again = await tenant.post(SERVICES, json=service_body())
    assert (again.status_code, again.headers["location"]) == (409, service)
    assert again.json()["link"] == {"self": service}
    assert "x-epic-error-message" not in again.headers


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (service_body(name=""), "service.metadata.name"),
        (service_body(name="w" * 60), "57 at most"),
        (service_body(name="a/b"), "letters, digits"),
        ({"service": {"metadata": {"name": "w"}, "spec": {}}}, "public-ports: give at least one port"),
        (service_body(HTTP, HTTP), "'TCP 80' is there 2 times"),
        (service_body(**{"upstream-clusters": [""]}), "upstream-clusters"),
        (service_body(**{"upstream-clusters": [f"c{i}" for i in range(65)]}), "at most 64"),
        ({"endpoint": {}}, "service"),
    ],
)
async def test_a_service_that_is_wrong_is_refused_and_its_client_told_why(
    tenant: httpx.AsyncClient, store: CachedStore, body: dict[str, Any], said: str
) -> None:
    reply = await tenant.post(SERVICES, json=body)
    assert reply.status_code == 400
    assert said in reply.headers["x-epic-error-message"]
    assert (store.list(GWProxy), left_of(store)) == ([], [])


async def test_what_is_not_there_is_404_and_deleted_all_the_same(tenant: httpx.AsyncClient) -> None:
    none = f"{ROOT}/services/none"
    assert (await tenant.post(f"{ROOT}/groups/none/services", json=service_body())).status_code == 404
    assert (await tenant.post(f"{none}/clusters", json={"cluster-id": "c1"})).status_code == 404
    assert (await tenant.post(f"{none}/endpoints", json=endpoint_body())).status_code == 404
    for path in (none, f"{none}/clusters/c1", f"{none}/endpoints/e"):
        assert (await tenant.get(path)).status_code == 404
    for path, said in (
        (none, "delete successful"),
        (f"{none}/clusters/c", "delete successful"),
        (f"{none}/endpoints/e", "endpoint deleted"),
    ):
        reply = await tenant.delete(path)
        assert (reply.status_code, reply.json()) == (200, {"message": said})


@pytest.mark.parametrize("cluster", ["c2", "a b/c+d&ü"])
async def test_a_cluster_is_announced_once_and_found_and_deleted_by_its_link(
    tenant: httpx.AsyncClient, service: str, cluster: str
) -> None:
    link = (await tenant.get(service)).json()["link"]["create-cluster"]
    reply = await tenant.post(link, json={"cluster-id": cluster})
    path = reply.headers["location"]
    assert reply.status_code == 302
    assert (await tenant.get(path)).json() == {"link": {"self": path, "service": service}}
    again = await tenant.post(link, json={"cluster-id": cluster})
    assert (again.status_code, again.headers["location"]) == (409, path)
    assert (await tenant.get(service)).json()["service"]["spec"]["upstream-clusters"] == ["c1", cluster]
    assert (await tenant.delete(path)).status_code == 200
    assert (await tenant.get(path)).status_code == 404
    assert (await tenant.get(service)).json()["service"]["spec"]["upstream-clusters"] == ["c1"]


@pytest.mark.parametrize("body", [{}, {"cluster-id": ""}, {"cluster-id": "c", "colour": "red"}])
async def test_a_cluster_without_a_name_or_with_more_is_refused(
    tenant: httpx.AsyncClient, service: str, body: dict[str, Any]
) -> None:
    assert (await tenant.post(f"{service}/clusters", json=body)).status_code == 400


async def test_what_of_a_service_is_not_served_its_conditions_say(
    tenant: httpx.AsyncClient, plant: Plant, store: CachedStore
) -> None:
    replies = [
        await tenant.post(SERVICES, json=body)
        for body in (
            service_body(HTTP, DNS, name="udp"),
            service_body(name="direct", **{"true-ingress": False}),
        )
    ]
    plant.settle()
    udp, direct = [(await tenant.get(r.headers["location"])).json()["service"] for r in replies]
    (proxy,) = [p for p in store.list(GWProxy) if p.spec.display_name == "udp"]
    assert sorted(listener.protocol for listener in proxy.spec.gateway.listeners) == ["TCP", "UDP"]
    assert udp["status"]["conditions"] == [c.wire() for c in proxy.status.conditions]
    assert condition(direct) == ("False", "UnsupportedValue")


async def test_what_is_made_for_a_service_goes_with_it_and_by_nobody_else(
    tenant: httpx.AsyncClient, service: str, store: CachedStore, plant: Plant
) -> None:
    await announce(tenant, service, endpoint_body())
    plant.settle()
    made: list[str] = [f"proxies/{store.list(GWProxy)[0].name}", f"routes/{store.list(GWRoute)[0].name}"]
    made.append(f"slices/{store.list(GWEndpointSlice)[0].name}")
    for path in made:
        refused = await tenant.delete(f"{ROOT}/{path}")
        assert (refused.status_code, service.rpartition("/")[2] in refused.json()["error"]) == (409, True)
    held = await tenant.delete(service)
    assert (held.status_code, "c1" in held.json()["error"]) == (409, True)
    assert (await tenant.delete(f"{service}/clusters/c1")).status_code == 200
    assert store.list(RemoteEndpoint) == store.list(GWEndpointSlice) == []
    assert (await tenant.delete(service)).json() == {"message": "delete successful"}
    assert (await tenant.get(service)).status_code == 404
    going = await tenant.post(SERVICES, json=service_body())
    assert (going.status_code, "is being deleted" in going.json()["error"]) == (409, True)
    plant.settle(turns=30)
    assert (store.list(GWProxy), left_of(store)) == ([], [])
    assert (await tenant.post(SERVICES, json=service_body())).status_code == 302


async def test_nobody_becomes_a_member_of_what_is_made_for_a_service(
    tenant: httpx.AsyncClient, store: CachedStore
) -> None:
    reply = await tenant.post(SERVICES, json=service_body(DNS))
    name = reply.headers["location"].rpartition("/")[2]
    before = store.get(GWProxy, "root", name)
    reference = {"namespace": before.spec.client_ref.namespace, "name": name, "uid": "m1"}
    spec = {"clientRef": reference, "sharing-key": name, "public-ports": [{"protocol": "TCP", "port": 8443}]}
    spec["gateway"] = {"gatewayClassName": "a", "listeners": [{"name": "l", "port": 8443, "protocol": "TCP"}]}
    reply = await tenant.post(f"{ROOT}/groups/gatewayhttp/members", json={"member": {"spec": spec}})
    assert (reply.status_code, name in reply.text) == (409, True)
    assert store.get(GWProxy, "root", name) == before


async def test_a_cluster_goes_with_more_endpoints_than_one_transaction_deletes(
    tenant: httpx.AsyncClient, service: str, store: CachedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "_AT_ONCE", 2)
    for last in range(1, 6):
        await announce(tenant, service, endpoint_body(f"10.1.2.{last}"))
    revision = store.revision
    assert (await tenant.delete(f"{service}/clusters/c1")).status_code == 200
    assert store.list(RemoteEndpoint) == store.list(GWEndpointSlice) == []
    assert store.revision >= revision + 3
    assert (await tenant.get(service)).json()["service"]["spec"]["upstream-clusters"] == []


async def test_a_write_that_is_meant_for_another_version_changes_nothing(
    tenant: httpx.AsyncClient, service: str, store: CachedStore
) -> None:
    content = await announce(tenant, service, endpoint_body())
    old = {"If-Match": '"1"'}
    for reply in (
        await tenant.post(f"{service}/clusters", json={"cluster-id": "c2"}, headers=old),
        await tenant.delete(f"{service}/clusters/c1", headers=old),
        await tenant.delete(content["link"]["self"], headers=old),
        await tenant.delete(service, headers=old),
    ):
        assert (reply.status_code, reply.json()["reason"]) == (412, "PreconditionFailed")
    version = (await tenant.get(service)).json()["service"]["metadata"]["resourceVersion"]
    current = {"If-Match": f'"{version}"'}
    assert (await tenant.delete(f"{service}/clusters/c1", headers=current)).status_code == 200
    assert store.list(RemoteEndpoint) == []


async def test_services_count_as_gateways_and_their_endpoints_as_slices(
    tenant: httpx.AsyncClient, service: str, store: CachedStore
) -> None:
    with store.transaction() as transaction:
        account = transaction.get(Account, "", "root")
        limits = account.spec.model_copy(update={"proxy_limit": 1, "slice_limit": 1})
        transaction.update(account.model_copy(update={"spec": limits}))
    more = await tenant.post(SERVICES, json=service_body(name="more"))
    assert (more.status_code, more.json()["reason"]) == (403, "QuotaExceeded")
    await announce(tenant, service, endpoint_body())
    second = await tenant.post(f"{service}/endpoints", json=endpoint_body("10.1.2.4"))
    assert (second.status_code, second.json()["reason"]) == (403, "QuotaExceeded")
    assert len(store.list(RemoteEndpoint)) == len(store.list(GWEndpointSlice)) == 1


@pytest.mark.parametrize("kind", [LoadBalancer, RemoteEndpoint])
async def test_what_was_made_for_an_object_that_cannot_be_read_goes_with_it(
    tenant: httpx.AsyncClient,
    service: str,
    store: CachedStore,
    kind: type[LoadBalancer] | type[RemoteEndpoint],
) -> None:
    content = await announce(tenant, service, endpoint_body())
    write_newer(store, store.list(kind)[0])
    wait_until_unreadable(store, kind)
    path = service if kind is LoadBalancer else content["link"]["self"]
    assert (await tenant.delete(path)).status_code == 200
    assert store.list(RemoteEndpoint) == store.list(GWEndpointSlice) == []
    assert (store.list(GWRoute) == []) == (kind is LoadBalancer)
    assert store.list(GWProxy)[0].deleting == (kind is LoadBalancer)


async def test_what_a_client_sends_besides_is_warned_of(tenant: httpx.AsyncClient) -> None:
    body = service_body(**{"envoy-replica-count": 1, "public-address": "203.0.113.99"})
    reply = await tenant.post(SERVICES, json=body)
    assert reply.headers.get_list("warning") == [
        '299 - "unknown field \\"service.spec.envoy-replica-count\\""'
    ]
    assert reply.json()["service"]["spec"]["public-address"] == "203.0.113.10"


async def test_an_account_is_deleted_with_services_that_lost_their_gateway(
    anyone: httpx.AsyncClient, tenant: httpx.AsyncClient, service: str, store: CachedStore
) -> None:
    await announce(tenant, service, endpoint_body())
    anyone.auth = httpx.BasicAuth(*ADMIN)
    assert (await anyone.delete(ROOT)).status_code == 409
    with store.transaction() as transaction:
        transaction.delete(GWProxy, "root", "gatewayhttp-web")
    content = (await anyone.get(service)).json()["service"]
    assert condition(content, "Programmed") == ("False", "NoGateway")
    for tunnel in store.list(Tunnel):
        with store.transaction() as transaction:
            transaction.delete(Tunnel, "root", tunnel.name)
    assert (await anyone.delete(ROOT)).status_code == 200
    assert left_of(store) == []
