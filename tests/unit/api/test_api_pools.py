# SPDX-License-Identifier: Apache-2.0
"""Address pools over REST: what they must not touch, and the address that a gateway asks for."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from api_requests import API, PROXIES, proxy_body
from life_plant import Plant

from epic.cache.store import CachedStore
from epic.model.gatewayapi import GatewayAddress
from epic.model.releases import ReleasedAddress
from epic.model.resources import GWProxy

DEFAULT = f"{API}/service-prefixes/default"


def prefix_body(
    pool: str, subnet: str = "203.0.113.0/24", alt: dict[str, str] | None = None
) -> dict[str, Any]:
    spec = {"public-pool": {"pool": pool, "subnet": subnet}, "alt-pool": alt}
    return {"service-prefix": {"spec": spec}}


def asking(uid: str, address: str) -> dict[str, Any]:
    gateway = proxy_body()["proxy"]["spec"]["gateway"] | {"addresses": [{"value": address}]}
    return proxy_body(uid, gateway=gateway)


@pytest.mark.parametrize("pool", ["100.64.0.0/28", "127.0.0.0/28", "192.0.2.0/28", "240.0.0.0/28"])
async def test_pool_in_the_platforms_own_networks_is_400(admin: httpx.AsyncClient, pool: str) -> None:
    body = prefix_body(pool, pool)
    reply = await admin.put(f"{API}/service-prefixes/bad", json=body)
    assert reply.status_code == 400
    assert reply.json()["error"].startswith("service-prefix.spec.public-pool.pool: ")
    assert "cannot be addresses of gateways" in reply.json()["error"]


async def test_a_management_address_of_a_node_and_a_pool_have_nothing_in_common(
    admin: httpx.AsyncClient,
) -> None:
    def node(management: str) -> dict[str, Any]:
        return {"node": {"spec": {"address": "192.0.2.9", "management-address": management}}}

    refused = await admin.put(f"{API}/nodes/epic9", json=node("203.0.113.12"))
    assert refused.status_code == 400
    assert (
        "node.spec.management-address: 203.0.113.12 is in address pool 'default'" in refused.json()["error"]
    )
    assert (await admin.put(f"{API}/nodes/epic9", json=node("198.18.0.9"))).status_code == 302
    reply = await admin.put(f"{API}/service-prefixes/bad", json=prefix_body("198.18.0.0/28", "198.18.0.0/24"))
    assert reply.status_code == 400
    assert (
        "198.18.0.9 cannot be addresses of gateways: it is the management address of" in reply.json()["error"]
    )


async def test_node_in_a_pool_is_400(admin: httpx.AsyncClient) -> None:
    reply = await admin.put(f"{API}/nodes/epic9", json={"node": {"spec": {"address": "203.0.113.12"}}})
    assert reply.status_code == 400
    assert "203.0.113.12 is in address pool 'default'" in reply.json()["error"]


async def test_pool_stays_under_its_gateways(admin: httpx.AsyncClient) -> None:
    await admin.post(PROXIES, json=proxy_body())
    refused = await admin.put(DEFAULT, json=prefix_body("203.0.113.11-203.0.113.20"))
    assert refused.status_code == 409
    assert "gateway root.U1 has the address 203.0.113.10" in refused.json()["error"]
    grown = await admin.put(DEFAULT, json=prefix_body("203.0.113.10-203.0.113.20"))
    assert grown.status_code == 302


async def test_alternative_pool_gives_what_the_first_has_not(admin: httpx.AsyncClient) -> None:
    alt = {"pool": "198.51.100.1/32", "subnet": "198.51.100.0/24"}
    await admin.put(DEFAULT, json=prefix_body("203.0.113.10/32", alt=alt))
    given = []
    for uid in ("U1", "U2"):
        reply = await admin.post(PROXIES, json=proxy_body(uid))
        given.append(reply.json()["proxy"]["spec"]["public-address"])
    assert given == ["203.0.113.10", "198.51.100.1"]


async def test_gateway_gets_and_keeps_the_address_that_it_asks_for(tenant: httpx.AsyncClient) -> None:
    created = await tenant.post(PROXIES, json=asking("U1", "203.0.113.12"))
    assert created.json()["proxy"]["spec"]["public-address"] == "203.0.113.12"
    path = created.headers["location"]
    assert (await tenant.put(path, json=asking("U1", "203.0.113.12"))).status_code == 302
    again = await tenant.post(PROXIES, json=asking("U2", "203.0.113.12"))
    assert (again.status_code, again.json()["error"][:35]) == (409, "the address 203.0.113.12 is not fre")
    outside = await tenant.post(PROXIES, json=asking("U2", "192.0.2.1"))
    assert outside.status_code == 400
    assert [r.json()["reason"] for r in (again, outside)] == ["AddressNotUsable"] * 2
    hostname = asking("U2", "a.example")
    hostname["proxy"]["spec"]["gateway"]["addresses"][0]["type"] = "Hostname"
    unsupported = await tenant.post(PROXIES, json=hostname)
    assert (unsupported.status_code, unsupported.json()["reason"]) == (400, "UnsupportedAddress")


@pytest.mark.parametrize("earlier", [False, True])
async def test_an_address_that_it_cannot_have_keeps_nothing_else_from_being_changed(
    tenant: httpx.AsyncClient, store: CachedStore, earlier: bool
) -> None:
    path = (await tenant.post(PROXIES, json=proxy_body())).headers["location"]
    body = asking("U1", "192.0.2.1")
    if earlier:  # as one that was stored when nobody looked at addresses
        with store.transaction() as transaction:
            proxy = transaction.get(GWProxy, "root", "U1")
            wanted = proxy.spec.gateway
            assert wanted is not None
            wanted = wanted.model_copy(update={"addresses": (GatewayAddress(value="192.0.2.1"),)})
            spec = proxy.spec.model_copy(update={"gateway": wanted})
            transaction.update(proxy.model_copy(update={"spec": spec}))
    body["proxy"]["spec"]["gateway"]["listeners"] = [{"name": "other", "port": 8080, "protocol": "HTTP"}]
    body["proxy"]["spec"]["public-ports"] = [{"name": "other", "protocol": "TCP", "port": 8080}]
    changed = await tenant.put(path, json=body)
    assert changed.status_code == 302
    found = changed.json()["proxy"]
    assert found["spec"]["public-address"] == "203.0.113.10"
    assert [port["port"] for port in found["spec"]["public-ports"]] == [8080]
    assert conditions(found)["Programmed"] == ("False", "AddressNotUsable")
    body["proxy"]["spec"]["gateway"]["addresses"] = []
    found = (await tenant.put(path, json=body)).json()["proxy"]
    assert conditions(found)["Programmed"] == ("Unknown", "Pending")


DUAL = {
    "public-pool": {"pool": "203.0.113.10-203.0.113.13", "subnet": "203.0.113.0/24"},
    "alt-pool": {"pool": "2001:db8::10-2001:db8::ffff", "subnet": "2001:db8::/64", "aggregation": "/128"},
}


async def test_gateway_of_a_pool_with_both_families_gets_an_address_of_each(
    admin: httpx.AsyncClient, store: CachedStore, plant: Plant
) -> None:
    pool = f"{API}/service-prefixes/default"
    assert (await admin.put(pool, json={"service-prefix": {"spec": DUAL}})).status_code == 302
    created = await admin.post(PROXIES, json=asking("U1", "2001:db8::77"))
    found = created.json()["proxy"]
    assert (found["spec"]["public-address"], found["spec"]["alt-address"]) == ("203.0.113.10", "2001:db8::77")
    name = found["spec"]["endpoints"][0]["dnsName"]
    assert [(e["dnsName"], e["recordType"], e["targets"]) for e in found["spec"]["endpoints"]] == [
        (name, "A", ["203.0.113.10"]),
        (name, "AAAA", ["2001:db8::77"]),
    ]
    taken = await admin.post(PROXIES, json=asking("U2", "2001:db8::77"))
    assert (taken.status_code, taken.json()["reason"]) == (409, "AddressNotUsable")
    refused = await admin.put(pool, json={"service-prefix": {"spec": {"public-pool": DUAL["public-pool"]}}})
    assert (refused.status_code, "has the address 2001:db8::77" in refused.json()["error"]) == (409, True)
    plant.settle()
    await admin.delete(created.headers["location"])
    plant.settle(turns=30)
    assert {released.name for released in store.list(ReleasedAddress)} == {"203.0.113.10", "2001:db8::77"}


async def test_gateway_may_have_an_ipv6_address_only(admin: httpx.AsyncClient) -> None:
    pool = f"{API}/service-prefixes/default"
    await admin.put(pool, json={"service-prefix": {"spec": {"public-pool": DUAL["alt-pool"]}}})
    found = (await admin.post(PROXIES, json=proxy_body())).json()["proxy"]["spec"]
    assert found["public-address"] == "2001:db8::10"
    assert "alt-address" not in found or found["alt-address"] is None
    assert [(e["recordType"], e["targets"]) for e in found["endpoints"]] == [("AAAA", ["2001:db8::10"])]


def conditions(proxy: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {c["type"]: (c["status"], c["reason"]) for c in proxy["status"]["conditions"]}
