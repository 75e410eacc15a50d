# SPDX-License-Identifier: Apache-2.0
"""Gateways over REST: what a POST makes, duplicates, changes, deletes, quota, pools, bad input."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from api_requests import ADMIN, API, PROXIES, TENANT, proxy_body, route_body, slice_body
from life_plant import Plant

from epic.ads.reports import reported
from epic.api.gateway import names
from epic.cache.store import CachedStore
from epic.model.resources import Account, AccountSpec, GWProxy, LBServiceGroup, Node, Tunnel
from epic.model.runs import Run
from epic.proto.epic_pb2 import InstanceStatus

U1 = f"{API}/accounts/root/proxies/U1"


async def test_post_answers_302_with_location_and_the_gateway(tenant: httpx.AsyncClient) -> None:
    reply = await tenant.post(PROXIES, json=proxy_body())
    assert (reply.status_code, reply.headers["location"]) == (302, U1)
    body = reply.json()
    assert body["link"] == {"self": U1, "group": f"{API}/accounts/root/groups/gatewayhttp"}
    spec = body["proxy"]["spec"]
    assert spec["public-address"] == "203.0.113.10"
    assert spec["endpoints"] == [
        {
            "dnsName": "web-shop-root.example.net",
            "targets": ["203.0.113.10"],
            "recordType": "A",
            "recordTTL": 180,
        }
    ]
    assert body == (await tenant.get(U1)).json()


async def test_gateway_gets_number_instances_and_a_queued_run(
    tenant: httpx.AsyncClient, store: CachedStore
) -> None:
    await tenant.post(PROXIES, json=proxy_body())
    proxy = store.get(GWProxy, "root", "U1")
    assert proxy.status.service == 1
    assert {i.node for i in proxy.status.instances} == {"epic1", "epic2"}
    assert {str(i.inside_address) for i in proxy.status.instances} == {"100.64.0.1", "100.64.0.2"}
    runs = store.list(Run)
    assert [(run.status.state, run.spec.nodes) for run in runs] == [
        ("queued", ("epic1",)),
        ("queued", ("epic2",)),
    ]
    (condition,) = (c for c in proxy.status.conditions if c.type == "Programmed")
    assert (condition.type, condition.status, condition.message) == (
        "Programmed",
        "Unknown",
        "runs 1, 2 are queued",
    )


async def test_gateways_share_neither_address_nor_number_and_their_runs_coalesce(
    tenant: httpx.AsyncClient, store: CachedStore
) -> None:
    for uid in ("U1", "U2"):
        await tenant.post(PROXIES, json=proxy_body(uid))
    first, second = store.list(GWProxy, "root")
    assert first.spec.public_address != second.spec.public_address
    assert first.status.service != second.status.service
    inside = [i.inside_address for p in (first, second) for i in p.status.instances]
    assert len(set(inside)) == 4
    assert len(store.list(Run)) == 2


async def test_tenant_cannot_choose_what_epic_decides(tenant: httpx.AsyncClient) -> None:
    spoiled = {
        "public-address": "198.51.100.1",
        "service-prefix": "mine",
        "group": "mine",
        "endpoints": [{"dnsName": "bank.example", "targets": []}],
    }
    body = proxy_body(**spoiled)
    body["proxy"]["status"] = {"service": 99}
    spec = (await tenant.post(PROXIES, json=body)).json()["proxy"]["spec"]
    assert (spec["public-address"], spec["service-prefix"]) == ("203.0.113.10", "default")
    assert spec["endpoints"][0]["dnsName"] == "web-shop-root.example.net"


async def test_second_post_of_a_uid_is_409_with_location_also_at_quota(
    tenant: httpx.AsyncClient, store: CachedStore
) -> None:
    with store.transaction() as transaction:
        account = transaction.get(Account, "", "root")
        transaction.update(account.model_copy(update={"spec": AccountSpec(proxy_limit=1)}))
    await tenant.post(PROXIES, json=proxy_body())
    reply = await tenant.post(PROXIES, json=proxy_body())
    assert (reply.status_code, reply.headers["location"]) == (409, U1)
    assert reply.json()["link"] == {"self": U1}
    assert "x-epic-error-message" not in reply.headers
    refused = await tenant.post(PROXIES, json=proxy_body("U2"))
    assert refused.status_code == 403
    assert "has 1 gateways and may have 1" in refused.json()["error"]


async def test_exhausted_pool_is_503_says_which_and_leaves_nothing(
    tenant: httpx.AsyncClient, store: CachedStore
) -> None:
    for i in range(4):
        await tenant.post(PROXIES, json=proxy_body(f"U{i}"))
    reply = await tenant.post(PROXIES, json=proxy_body("U9"))
    assert reply.status_code == 503
    assert reply.json()["error"].startswith("address pool 'default' has not enough free addresses; ")
    assert reply.json()["reason"] == "NoRoom"
    assert store.find(GWProxy, "root", "U9") is None


async def test_unknown_template_is_404_with_those_that_exist(tenant: httpx.AsyncClient) -> None:
    reply = await tenant.post(f"{API}/accounts/root/groups/nope/proxies", json=proxy_body())
    assert reply.status_code == 404
    assert reply.json()["error"] == "account 'root' has no gateway template 'nope'; it has: gatewayhttp"
    assert reply.headers["x-epic-error-message"] == reply.json()["error"]


async def test_name_too_long_for_the_paths_of_a_gateway_is_400_with_the_limit(
    tenant: httpx.AsyncClient,
) -> None:
    reply = await tenant.post(PROXIES, json=proxy_body("x" * 63))
    assert reply.status_code == 302
    long_account = proxy_body("x" * 64)
    reply = await tenant.post(PROXIES, json=long_account)
    assert (reply.status_code, "proxy.spec.clientRef.uid" in reply.json()["error"]) == (400, True)


async def test_no_node_is_503_and_why_is_for_operators_to_see(
    anyone: httpx.AsyncClient, store: CachedStore, caplog: pytest.LogCaptureFixture
) -> None:
    with store.transaction() as transaction:
        for node in transaction.list(Node):
            transaction.delete(Node, "", node.name)
    stable = "the platform has no room for another gateway now; its operators can see why"
    reply = await anyone.post(PROXIES, json=proxy_body(), auth=TENANT)
    assert (reply.status_code, reply.json()) == (503, {"error": stable, "reason": "NoRoom"})
    reply = await anyone.post(PROXIES, json=proxy_body("U2"), auth=ADMIN)
    assert reply.json()["error"].startswith(f"{stable} (of 0 EPIC nodes ")
    logged = [record.getMessage() for record in caplog.records if record.name.startswith("epic.")]
    assert [line for line in logged if "of 0 EPIC nodes" in line] == logged[:1] == logged


async def test_tenants_see_no_node_and_no_agents_words_and_operators_all(
    anyone: httpx.AsyncClient, store: CachedStore, plant: Plant
) -> None:
    await anyone.post(PROXIES, json=proxy_body(), auth=TENANT)
    plant.settle()
    said = {"root.U1": InstanceStatus(gateway="root.U1", error="10.9.8.7: secret")}
    with store.transaction() as transaction:
        proxy = reported(transaction.get(GWProxy, "root", "U1"), "epic2", said)
        waits = {"awaits": ("epic1",), "reason": "WaitsForAgents: epic1: the agent there has not said so"}
        instances = tuple(instance.model_copy(update=waits) for instance in proxy.status.instances)
        status = proxy.status.model_copy(update={"instances": instances})
        transaction.update(proxy.model_copy(update={"status": status}))
    for path in (U1, f"{API}/accounts/root/proxies"):
        told = (await anyone.get(path, auth=TENANT)).text
        assert not any(word in told for word in ("epic1", "epic2", "10.9.8.7", "secret"))
        assert "ConfigurationRefused: an Envoy refused the configuration; " in told
        told = (await anyone.get(path, auth=ADMIN)).text
        assert all(word in told for word in ("epic1", "epic2", "ConfigurationRefused: 10.9.8.7: secret"))
    await anyone.delete(U1, auth=TENANT)
    plant.reconcile()
    again = await anyone.post(PROXIES, json=proxy_body(), auth=TENANT)
    assert "is being deleted (instances: 2 " in again.json()["error"]
    assert "epic1" not in again.text
    assert "epic1" in (await anyone.post(PROXIES, json=proxy_body(), auth=ADMIN)).text


async def test_a_gateway_with_fewer_instances_than_wanted_says_that_there_is_no_room(
    tenant: httpx.AsyncClient, store: CachedStore, plant: Plant
) -> None:
    with store.transaction() as transaction:
        group = transaction.get(LBServiceGroup, "root", "gatewayhttp")
        more = group.spec.model_copy(update={"envoy_replica_count": 3})
        transaction.update(group.model_copy(update={"spec": more}))
    made = (await tenant.post(PROXIES, json=proxy_body())).json()["proxy"]
    assert {c["type"]: c["reason"] for c in made["status"]["conditions"]}["Placed"] == "NoRoom"
    plant.settle()

    async def conditions() -> dict[str, str]:
        shown = (await tenant.get(U1)).json()["proxy"]
        return {c["type"]: c["reason"] for c in shown["status"]["conditions"]}

    assert (await conditions())["Ready"] == "SomeInstancesServe"
    with store.transaction() as transaction:
        epic3 = {"metadata": {"name": "epic3"}, "spec": {"address": "192.0.2.3"}}
        transaction.create(Node.model_validate(epic3))
    plant.settle()
    found = await conditions()
    assert (found["Placed"], found["Ready"]) == ("Placed", "AllInstancesServe")


def listeners(**listener: Any) -> dict[str, Any]:
    given = {"name": "x", "port": 80, "protocol": "HTTP", **listener}
    return {"gateway": {"gatewayClassName": "k", "listeners": [given]}}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"public-ports": [{"port": 0}]}, "proxy.spec.public-ports.0.port: "),
        ({"public-ports": [{"port": 1, "protocol": "ICMP"}]}, "should be 'TCP' or 'UDP' (it is 'ICMP')"),
        (listeners(protocol="FTP"), "use one of HTTP, HTTPS, TLS, TCP, UDP"),
        (listeners(port=81), "not among proxy.spec.public-ports (TCP 80); add it there"),
        ({"clientRef": {"uid": "../x"}}, "proxy.spec.clientRef.uid: "),
        ({"clientRef": {}}, "proxy.spec.clientRef.uid: Field required"),
        ({"display-name": "a b"}, "the DNS name 'a b-shop-root.example.net'"),
        ({"gateway": None, "public-ports": None}, "at least one listener"),
    ],
)
async def test_bad_input_is_400_with_the_place_and_what_is_accepted(
    tenant: httpx.AsyncClient, spec: dict[str, Any], message: str
) -> None:
    reply = await tenant.post(PROXIES, json=proxy_body(**spec))
    assert reply.status_code == 400
    assert message in reply.json()["error"]
    assert reply.headers["x-epic-error-message"]


@pytest.mark.parametrize("unnamed", [{"gatewayClassName": ""}, {}])
async def test_gateway_without_a_class_is_of_the_default_one(
    tenant: httpx.AsyncClient, unnamed: dict[str, Any]
) -> None:
    given = {"name": "web", "port": 80, "protocol": "HTTP"}
    reply = await tenant.post(PROXIES, json=proxy_body(gateway={**unnamed, "listeners": [given]}))
    assert reply.status_code == 302, reply.text
    gateway = reply.json()["proxy"]["spec"]["gateway"]
    assert (gateway["gatewayClassName"], gateway["listeners"][0]["name"]) == ("compatibility", "web")


@pytest.mark.parametrize("empty", [None, {"gatewayClassName": "", "listeners": None}])
async def test_client_that_knows_no_gateway_api_gets_http_on_its_first_port(
    tenant: httpx.AsyncClient, empty: dict[str, Any] | None
) -> None:
    reply = await tenant.post(PROXIES, json=proxy_body(gateway=empty))
    assert reply.status_code == 302, reply.text
    (listener,) = reply.json()["proxy"]["spec"]["gateway"]["listeners"]
    assert (listener["name"], listener["port"], listener["protocol"]) == ("compatibility", 80, "HTTP")


async def test_ports_follow_from_listeners_each_once(tenant: httpx.AsyncClient) -> None:
    given = [{"name": n, "port": p, "protocol": "HTTPS"} for n, p in (("a", 443), ("b", 443), ("c", 8443))]
    gateway = {"gatewayClassName": "k", "listeners": given}
    reply = await tenant.post(PROXIES, json=proxy_body(**{"public-ports": None, "gateway": gateway}))
    ports = reply.json()["proxy"]["spec"]["public-ports"]
    assert [(p["protocol"], p["port"]) for p in ports] == [("TCP", 443), ("TCP", 8443)]


async def test_put_changes_listeners_and_keeps_address_and_place_without_a_run(
    tenant: httpx.AsyncClient, store: CachedStore
) -> None:
    before = (await tenant.post(PROXIES, json=proxy_body())).json()["proxy"]
    reply = await tenant.put(U1, json=proxy_body(**listeners(port=8080), **{"public-ports": None}))
    assert (reply.status_code, reply.headers["location"]) == (302, U1)
    after = reply.json()["proxy"]
    assert after["spec"]["public-ports"][0]["port"] == 8080
    assert after["spec"]["public-address"] == before["spec"]["public-address"]
    assert after["status"] == before["status"]
    assert len(store.list(Run)) == 2


async def test_put_of_an_absent_gateway_is_404_and_of_another_uid_400(tenant: httpx.AsyncClient) -> None:
    assert (await tenant.put(U1, json=proxy_body())).status_code == 404
    assert (await tenant.put(U1, json=proxy_body("U2"))).status_code == 400


async def publish(client: httpx.AsyncClient) -> None:
    await client.post(PROXIES, json=proxy_body())
    await client.post(f"{API}/accounts/root/routes", json=route_body())
    await client.post(f"{API}/accounts/root/slices", json=slice_body())


async def test_a_deleted_gateway_is_shown_until_it_is_gone_and_keeps_its_address_and_name(
    tenant: httpx.AsyncClient, store: CachedStore, plant: Plant
) -> None:
    await publish(tenant)
    plant.settle()
    reply = await tenant.delete(U1)
    assert (reply.status_code, reply.json()) == (200, {"message": "delete successful"})
    plant.reconcile()
    shown = (await tenant.get(U1)).json()["proxy"]
    assert shown["metadata"]["deletionTimestamp"]
    assert [i["phase"] for i in shown["status"]["instances"]] == ["Draining", "Draining"]
    again = await tenant.post(PROXIES, json=proxy_body())
    assert (again.status_code, "location" in again.headers) == (409, False)
    assert "is being deleted (instances: 2 Draining)" in again.json()["error"]
    assert (await tenant.put(U1, json=proxy_body())).status_code == 409
    other = (await tenant.post(PROXIES, json=proxy_body("U2"))).json()["proxy"]
    assert other["spec"]["public-address"] == "203.0.113.11"
    addresses = {str(i.inside_address) for i in store.get(GWProxy, "root", "U2").status.instances}
    assert addresses == {"100.64.0.3", "100.64.0.4"}


async def test_what_a_deleted_gateway_had_is_free_when_all_have_let_go_of_it(
    tenant: httpx.AsyncClient, store: CachedStore, plant: Plant
) -> None:
    await publish(tenant)
    plant.settle()
    assert len(store.list(Tunnel)) == 2
    await tenant.delete(U1)
    plant.settle(turns=30)
    assert store.list(GWProxy) == []
    assert store.list(Tunnel) == []
    again = (await tenant.post(PROXIES, json=proxy_body())).json()["proxy"]
    assert again["spec"]["public-address"] == "203.0.113.11", "one that nobody remembers comes first"
    assert store.get(GWProxy, "root", "U1").status.service == 2


async def test_nothing_is_free_while_a_node_that_had_it_is_away(
    tenant: httpx.AsyncClient, store: CachedStore, plant: Plant
) -> None:
    await publish(tenant)
    plant.settle()
    plant.epic["epic2"].connected = False
    await tenant.delete(U1)
    plant.settle(turns=30)
    assert [i.node for i in store.get(GWProxy, "root", "U1").status.instances] == ["epic2"]
    other = (await tenant.post(PROXIES, json=proxy_body("U2"))).json()["proxy"]
    assert other["spec"]["public-address"] == "203.0.113.11"


async def test_no_account_gets_the_dns_name_of_another(admin: httpx.AsyncClient, store: CachedStore) -> None:
    template = {"dnsName": "{{ ClusterServiceName }}.example.net"}
    spec = {"service-prefix": "default", "endpoint-template": template}
    for account in ("root", "other"):
        await admin.put(f"{API}/accounts/{account}/groups/short", json={"group": {"spec": spec}})
    await admin.post(f"{API}/accounts/root/groups/short/proxies", json=proxy_body())
    reply = await admin.post(f"{API}/accounts/other/groups/short/proxies", json=proxy_body())
    assert (reply.status_code, "is taken by another account" in reply.json()["error"]) == (409, True)


async def test_gateways_of_an_account_never_share_a_dns_name(admin: httpx.AsyncClient) -> None:
    template = {"dnsName": "{{ ClusterServiceName }}.example.net"}
    spec = {"service-prefix": "default", "endpoint-template": template}
    await admin.put(f"{API}/accounts/root/groups/short", json={"group": {"spec": spec}})
    short = f"{API}/accounts/root/groups/short/proxies"
    assert (await admin.post(short, json=proxy_body())).status_code == 302
    same = proxy_body("U2", **{"display-name": "web"})
    reply = await admin.post(short, json=same)
    assert (reply.status_code, reply.json()["reason"]) == (409, "NameTaken")
    assert "is that of gateway 'U1' ('web' of namespace 'shop')" in reply.json()["error"]
    await admin.delete(U1)
    assert (await admin.post(short, json=same)).status_code == 302


async def test_names_that_are_joined_by_the_same_letters_are_apart(tenant: httpx.AsyncClient) -> None:
    async def dns_name(uid: str, name: str, namespace: str) -> str:
        body = proxy_body(uid)
        body["proxy"]["spec"] |= {"display-name": name, "clientRef": {"uid": uid, "namespace": namespace}}
        made = (await tenant.post(PROXIES, json=body)).json()["proxy"]
        return str(made["spec"]["endpoints"][0]["dnsName"])

    one, other = await dns_name("U1", "a-b", "c"), await dns_name("U2", "a", "b-c")
    assert one != other
    assert {name.rpartition("-")[0] for name in (one, other)} == {"a-b-c-root"}
    assert await dns_name("U3", "a", "c") == "a-c-root.example.net"


async def test_a_name_is_the_same_whatever_case_its_parts_are_written_in_and_cannot_be_searched_for(
    tenant: httpx.AsyncClient,
) -> None:
    body, other = proxy_body("U1"), proxy_body("U2")
    body["proxy"]["spec"] |= {"display-name": "a-b"}
    other["proxy"]["spec"] |= {"display-name": "A-b"}
    made = (await tenant.post(PROXIES, json=body)).json()["proxy"]
    assert re.fullmatch(r"a-b-shop-root-[0-9a-f]{16}\.example\.net", made["spec"]["endpoints"][0]["dnsName"])
    assert (await tenant.post(PROXIES, json=other)).status_code == 409


async def test_others_write_while_the_template_of_a_name_is_rendered(
    admin: httpx.AsyncClient, store: CachedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    render, written = names._render, list[int]()

    def render_while_another_writes(template: str, variables: Mapping[str, str]) -> str:
        with store.transaction() as transaction:
            written.append(transaction.next_number("other"))
        return render(template, variables)

    monkeypatch.setattr(names, "_render", render_while_another_writes)
    spec = {"service-prefix": "default", "endpoint-template": {"dnsName": "a{{ IPAddress }}.example"}}
    await admin.put(f"{API}/accounts/root/groups/late", json={"group": {"spec": spec}})
    made = (await admin.post(f"{API}/accounts/root/groups/late/proxies", json=proxy_body())).json()["proxy"]
    assert made["spec"]["endpoints"][0]["dnsName"] == "a203-0-113-10.example"
    assert written == [1]


async def test_delete_of_what_is_not_there_is_200_too(tenant: httpx.AsyncClient) -> None:
    assert (await tenant.delete(U1)).status_code == 200


async def test_list_holds_the_gateways_of_the_account_only(
    tenant: httpx.AsyncClient, store: CachedStore
) -> None:
    with store.transaction() as transaction:
        transaction.create(
            GWProxy.model_validate({"metadata": {"name": "U9", "namespace": "other"}, "spec": {}})
        )
    await tenant.post(PROXIES, json=proxy_body())
    reply = (await tenant.get(f"{API}/accounts/root/proxies")).json()
    assert [item["metadata"]["name"] for item in reply["items"]] == ["U1"]
