# SPDX-License-Identifier: Apache-2.0
"""What administrators do over REST: accounts, templates, address pools, nodes, runs."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from api_requests import API, PROXIES, Events, proxy_body
from life_plant import Plant

from epic.cache.store import CachedStore
from epic.model.nodes import Quarantine
from epic.model.resources import GWProxy, Node
from epic.model.runs import Run
from epic.runs.records import Records

POOL = {"public-pool": {"pool": "198.51.100.0/28", "subnet": "198.51.100.0/24"}}


@pytest.mark.parametrize(
    ("path", "key", "spec"),
    [
        ("accounts", "account", {"proxyLimit": 3}),
        ("service-prefixes", "service-prefix", POOL),
        ("accounts/root/groups", "group", {"service-prefix": "default", "envoy-replica-count": 1}),
    ],
)
async def test_life_of_what_administrators_make(
    admin: httpx.AsyncClient, path: str, key: str, spec: dict[str, Any]
) -> None:
    body = {key: {"metadata": {"name": "new"}, "spec": spec}}
    url = f"{API}/{path}/new"
    created = await admin.post(f"{API}/{path}", json=body)
    assert (created.status_code, created.headers["location"]) == (302, url)
    assert (await admin.post(f"{API}/{path}", json=body)).status_code == 409
    assert (await admin.get(url)).json() == created.json()
    same = await admin.put(url, json=body)
    assert same.json() == created.json()
    names = [item["metadata"]["name"] for item in (await admin.get(f"{API}/{path}")).json()["items"]]
    assert "new" in names
    assert (await admin.delete(url)).status_code == 200
    assert (await admin.delete(url)).status_code == 200
    assert (await admin.get(url)).status_code == 404
    assert (await admin.put(url, json=body)).status_code == 302


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("accounts", {"account": {"metadata": {"name": "A_b"}}}, "lower-case letters"),
        ("accounts", {"account": {}}, "account.metadata.name: ''"),
        (
            "service-prefixes",
            {"service-prefix": {"metadata": {"name": "p"}, "spec": {"public-pool": {"pool": "x"}}}},
            "service-prefix.spec.public-pool.subnet: Field required",
        ),
        (
            "service-prefixes",
            {
                "service-prefix": {
                    "metadata": {"name": "p"},
                    "spec": {"public-pool": {"pool": "203.0.113.0/30-", "subnet": "203.0.113.0/24"}},
                }
            },
            "write a network",
        ),
        (
            "service-prefixes",
            {
                "service-prefix": {
                    "metadata": {"name": "p"},
                    "spec": {"public-pool": {"pool": "203.0.113.8/29", "subnet": "203.0.113.0/24"}},
                }
            },
            "overlaps address pool 'default'",
        ),
        (
            "accounts/root/groups",
            {"group": {"metadata": {"name": "g"}, "spec": {"service-prefix": "nope"}}},
            "there is no address pool 'nope'; there are: default",
        ),
        (
            "accounts/root/groups",
            {
                "group": {
                    "metadata": {"name": "g"},
                    "spec": {
                        "service-prefix": "default",
                        "endpoint-template": {"dnsName": "{{.ClusterServiceName}}"},
                    },
                }
            },
            "write Jinja2 such as",
        ),
    ],
)
async def test_bad_input_is_400_with_what_is_accepted(
    admin: httpx.AsyncClient, path: str, body: dict[str, Any], message: str
) -> None:
    reply = await admin.post(f"{API}/{path}", json=body)
    assert reply.status_code == 400
    assert message in reply.json()["error"]


@pytest.mark.parametrize(
    "path", ["accounts/root", "accounts/root/groups/gatewayhttp", "service-prefixes/default"]
)
async def test_what_is_in_use_is_not_deleted(admin: httpx.AsyncClient, path: str) -> None:
    await admin.post(PROXIES, json=proxy_body())
    reply = await admin.delete(f"{API}/{path}")
    assert reply.status_code == 409
    assert "delete them first" in reply.json()["error"]


async def test_registering_a_node_again_changes_nothing(admin: httpx.AsyncClient, store: CachedStore) -> None:
    body = {"node": {"spec": {"address": "192.0.2.9", "underlay-mtu": 1400}}}
    first = await admin.put(f"{API}/nodes/epic9", json=body)
    revision = store.revision
    second = await admin.put(f"{API}/nodes/epic9", json=body)
    assert first.json() == second.json()
    assert first.json()["node"]["metadata"]["resourceVersion"] == str(revision)
    assert store.revision == revision


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("2001:db8::1%up0", "node.spec.address: '2001:db8::1%up0' has a zone id"),
        ("::ffff:192.0.2.1", "is an IPv4-mapped address; write 192.0.2.1"),
        ("127.0.0.1", "address: '127.0.0.1' is a loopback address"),
        ("epic9", "'epic9' is not an IPv4 or IPv6 address"),
    ],
)
async def test_a_node_needs_an_address_that_others_can_reach(
    admin: httpx.AsyncClient, address: str, problem: str
) -> None:
    reply = await admin.put(f"{API}/nodes/epic9", json={"node": {"spec": {"address": address}}})
    assert reply.status_code == 400
    assert problem in reply.json()["error"]


async def test_registering_an_ipv6_node_in_another_spelling_changes_nothing(admin: httpx.AsyncClient) -> None:
    versions = []
    for address in ("2001:DB8::9", "2001:db8:0::9"):
        reply = await admin.put(f"{API}/nodes/epic9", json={"node": {"spec": {"address": address}}})
        versions.append(reply.json()["node"]["metadata"]["resourceVersion"])
        assert reply.json()["node"]["spec"]["address"] == "2001:db8::9"
    assert versions[0] == versions[1]


async def test_two_nodes_cannot_have_one_address(admin: httpx.AsyncClient) -> None:
    reply = await admin.put(f"{API}/nodes/epic9", json={"node": {"spec": {"address": "192.0.2.1"}}})
    assert reply.status_code == 409
    assert "is the address of node 'epic1'" in reply.json()["error"]


async def test_a_nodes_new_address_reaches_the_tunnels_of_its_gateways(
    admin: httpx.AsyncClient, store: CachedStore
) -> None:
    await admin.post(PROXIES, json=proxy_body())
    before = store.get(GWProxy, "root", "U1").status.instances
    await admin.put(f"{API}/nodes/epic1", json={"node": {"spec": {"address": "192.0.2.77"}}})
    after = store.get(GWProxy, "root", "U1").status.instances
    assert after == before, "nobody waits who is to have no tunnels"


async def test_a_template_with_more_replicas_extends_its_gateways(
    admin: httpx.AsyncClient, store: CachedStore, plant: Plant
) -> None:
    group = f"{API}/accounts/root/groups/gatewayhttp"
    spec = {"service-prefix": "default", "envoy-replica-count": 1}
    await admin.put(group, json={"group": {"spec": spec}})
    await admin.post(PROXIES, json=proxy_body())
    plant.settle()
    assert len(store.get(GWProxy, "root", "U1").status.instances) == 1
    await admin.put(group, json={"group": {"spec": {**spec, "envoy-replica-count": 2}}})
    plant.settle()
    assert [i.phase for i in store.get(GWProxy, "root", "U1").status.instances] == ["Serving", "Serving"]


async def test_a_template_with_fewer_replicas_shrinks_its_gateways(
    admin: httpx.AsyncClient, store: CachedStore, plant: Plant
) -> None:
    group = f"{API}/accounts/root/groups/gatewayhttp"
    await admin.post(PROXIES, json=proxy_body())
    plant.settle()
    await admin.put(group, json={"group": {"spec": {"service-prefix": "default", "envoy-replica-count": 1}}})
    plant.settle()
    assert [i.phase for i in store.get(GWProxy, "root", "U1").status.instances] == ["Serving"]


async def test_another_envoy_in_a_template_reaches_its_gateways(
    admin: httpx.AsyncClient, store: CachedStore, plant: Plant
) -> None:
    group = f"{API}/accounts/root/groups/gatewayhttp"
    await admin.post(PROXIES, json=proxy_body())
    plant.settle()
    for node in plant.epic.values():
        node.envoys.add("2")
    spec = {"service-prefix": "default", "envoy-version": "2"}
    reply = await admin.put(group, json={"group": {"spec": spec}})
    assert (reply.status_code, "does not have Envoy 2; it has 1" in reply.json()["error"]) == (400, True)
    with store.transaction() as transaction:
        for stored in transaction.list(Node):
            status = stored.status.model_copy(update={"envoy_versions": ("1", "2")})
            transaction.update(stored.model_copy(update={"status": status}))
    assert (await admin.put(group, json={"group": {"spec": spec}})).status_code == 302
    plant.settle(turns=30)
    instances = store.get(GWProxy, "root", "U1").status.instances
    assert [(i.phase, i.envoy_version) for i in instances] == [("Serving", "2"), ("Serving", "2")]


async def test_runs_are_listed_and_read(admin: httpx.AsyncClient, store: CachedStore) -> None:
    await admin.post(PROXIES, json=proxy_body())
    run, other = store.list(Run)
    shown = (await admin.get(f"{API}/runs/{run.name}")).json()
    assert shown["link"]["events"] == f"{API}/runs/{run.name}/events"
    assert shown["run"]["status"] == {**shown["run"]["status"], "state": "queued", "waits-for": "its turn"}
    listed = (await admin.get(f"{API}/runs")).json()["items"]
    assert [item["metadata"]["name"] for item in listed] == [other.name, run.name]


async def test_a_run_can_be_canceled_until_it_has_ended(admin: httpx.AsyncClient, store: CachedStore) -> None:
    await admin.post(PROXIES, json=proxy_body())
    assert (await admin.post(f"{API}/runs/1/cancel")).status_code == 302
    assert Records(store).queued()[0].name == "2"
    assert store.get(Run, "", "1").status.state == "canceled"
    assert (await admin.post(f"{API}/runs/1/cancel")).status_code == 409


async def test_events_of_a_run_are_streamed_and_end_with_its_result(
    admin: httpx.AsyncClient, events: Events
) -> None:
    await admin.post(PROXIES, json=proxy_body())
    events.items = [{"event": "task", "node": "epic1", "state": "ok"}]
    reply = await admin.get(f"{API}/runs/1/events")
    assert reply.headers["content-type"].startswith("text/event-stream")
    first, second, rest = reply.text.split("\n\n")
    assert first == 'event: task\ndata: {"event":"task","node":"epic1","state":"ok"}'
    assert second.startswith("event: finished\ndata: ")
    assert rest == ""


async def test_unknown_run_is_404(admin: httpx.AsyncClient) -> None:
    assert (await admin.get(f"{API}/runs/9/events")).status_code == 404


async def test_an_account_inherits_nothing_of_one_of_its_name(
    admin: httpx.AsyncClient, store: CachedStore, plant: Plant
) -> None:
    await admin.post(PROXIES, json=proxy_body())
    plant.settle()
    await admin.delete(f"{API}/nodes/epic2?force=true")
    await admin.delete(f"{API}/accounts/root/proxies/U1")
    plant.settle(turns=30)
    assert (await admin.delete(f"{API}/accounts/root")).status_code == 200
    again = {"account": {"metadata": {"name": "root"}}}
    for reply in (
        await admin.post(f"{API}/accounts", json=again),
        await admin.put(f"{API}/accounts/root", json=again),
    ):
        assert reply.status_code == 409
        assert "1 quarantined instances, the last until" in reply.json()["error"]
    with store.transaction() as transaction:
        for held in transaction.list(Quarantine):
            transaction.delete(Quarantine, "", held.name)
    assert (await admin.post(f"{API}/accounts", json=again)).status_code == 302
