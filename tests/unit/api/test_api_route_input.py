# SPDX-License-Identifier: Apache-2.0
"""What of routes and EndpointSlices is refused as input, and what is taken though it looks odd."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from api_requests import API, route_body, slice_body

ROUTES, SLICES = f"{API}/accounts/root/routes", f"{API}/accounts/root/slices"


@pytest.mark.parametrize(
    ("collection", "spec", "message"),
    [
        (ROUTES, {"clientRef": {"uid": "R"}}, "route.spec: give exactly one of http, tcp, grpc, tls and udp"),
        (
            ROUTES,
            {
                "clientRef": {"uid": "R"},
                "http": {"rules": [{"matches": [{"path": {"type": "Glob", "value": "/"}}]}]},
            },
            "route.spec.http.rules.0.matches.0.path.type: Input should be 'Exact'",
        ),
        (SLICES, {"clientRef": {"uid": "E"}}, "slice.spec.parentRef: Field required"),
        (
            SLICES,
            {"clientRef": {"uid": "E"}, "parentRef": {"uid": "S"}, "endpoints": [{"addresses": ["::1"]}]},
            "endpoints.0.addresses: '::1' is a loopback address",
        ),
        (
            SLICES,
            {"clientRef": {"uid": "E"}, "parentRef": {"uid": "S"}, "endpoints": [{"addresses": []}]},
            "slice.spec.endpoints.0.addresses: it is empty; an endpoint has at least one address",
        ),
        (
            SLICES,
            {"clientRef": {"uid": "E"}, "parentRef": {"uid": "S"}, "endpoints": [{"addresses": ["fd00::1"]}]},
            "endpoints.0.addresses: 'fd00::1' is an IPv6 address in a slice of type IPv4",
        ),
        (
            SLICES,
            {"clientRef": {"uid": "E"}, "parentRef": {"uid": "S"}, "nodeAddresses": {"n1": "::"}},
            "nodeAddresses.n1: '::' is the unspecified address",
        ),
        (
            SLICES,
            {"clientRef": {"uid": "E"}, "parentRef": {"uid": "S"}, "nodeAddresses": {"n1": "fe80::1%eth0"}},
            "slice.spec.nodeAddresses.n1: 'fe80::1%eth0' has a zone id",
        ),
        (
            SLICES,
            {"clientRef": {"uid": "E"}, "parentRef": {"uid": "S"}, "addressType": "FQDN"},
            "slice.spec.addressType: Input should be 'IPv4'",
        ),
    ],
)
async def test_bad_input_is_400_with_the_place(
    tenant: httpx.AsyncClient, collection: str, spec: dict[str, Any], message: str
) -> None:
    reply = await tenant.post(collection, json={collection.rsplit("/", 1)[1][:-1]: {"spec": spec}})
    assert reply.status_code == 400
    assert message in reply.json()["error"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nodeAddresses": {"n1\nINFO all is well": "10.0.0.1"}}, "nodeAddresses"),
        ({"nodeAddresses": {"n" * 254: "10.0.0.1"}}, "nodeAddresses"),
        ({"nodeAddresses": {"": "10.0.0.1"}}, "nodeAddresses"),
        ({"endpoints": [{"addresses": ["10.1.2.1"], "nodeName": "n 1"}]}, "endpoints.0.nodeName"),
        ({"clientRef": {"uid": "E", "name": "we b"}}, "clientRef.name"),
        ({"clientRef": {"uid": "E", "namespace": "a/b"}}, "clientRef.namespace"),
        ({"parentRef": {"uid": "S", "name": "-x"}}, "parentRef.name"),
    ],
)
async def test_names_of_clients_things_are_names(
    tenant: httpx.AsyncClient, change: dict[str, Any], message: str
) -> None:
    body = slice_body()
    body["slice"]["spec"] |= change
    reply = await tenant.post(SLICES, json=body)
    assert reply.status_code == 400
    assert message in reply.json()["error"]
    assert "a name has 1 to 253 letters a-z, digits and inner" in reply.json()["error"]


@pytest.mark.parametrize("name", ["ip-10-0-0-1.eu.compute.internal", "Web_01", "2001:db8::1", "web@n1", "7"])
async def test_names_as_kubernetes_and_inventories_have_them_are_taken(
    tenant: httpx.AsyncClient, name: str
) -> None:
    body = slice_body(nodes=(name,))
    body["slice"]["spec"]["clientRef"] |= {"name": name, "namespace": "", "clusterID": "Zürich (lab)"}
    assert (await tenant.post(SLICES, json=body)).status_code == 302


async def test_a_clusters_name_is_a_line(tenant: httpx.AsyncClient) -> None:
    body = slice_body()
    body["slice"]["spec"]["clientRef"]["clusterID"] = "a\nb"
    reply = await tenant.post(SLICES, json=body)
    assert reply.status_code == 400
    assert "clientRef.clusterID: expected one line of at most 253 characters" in reply.json()["error"]


@pytest.mark.parametrize("character", ["\0", "\x1b", "\x7f", "\x9b", "\ud800"])
async def test_no_text_of_a_request_has_control_characters(tenant: httpx.AsyncClient, character: str) -> None:
    body = route_body()
    body["route"]["spec"]["http"]["rules"][0]["filters"] = [{"type": f"a{character}"}]
    for text in (json.dumps(body), json.dumps({"route": {f"k{character}": 1}})):
        reply = await tenant.post(ROUTES, content=text)
        assert reply.status_code == 400
        assert "there is a control character" in reply.json()["error"]
        assert repr(character)[1:-1] in reply.json()["error"]


async def test_ends_of_lines_in_what_is_not_kept_are_taken(tenant: httpx.AsyncClient) -> None:
    body = slice_body()
    applied = {"kubectl.kubernetes.io/last-applied-configuration": '{"a":\t1}\n'}
    body["slice"]["spec"]["metadata"] = {"annotations": applied}
    assert (await tenant.post(SLICES, json=body)).status_code == 302


@pytest.mark.parametrize(
    ("address", "owner"),
    [
        ("192.0.2.1", "EPIC node epic1"),
        ("203.0.113.11", "address pool 'default'"),
        ("240.0.0.1", "240.0.0.0/4"),
    ],
)
async def test_no_address_of_the_platform_is_a_workload_node(
    tenant: httpx.AsyncClient, address: str, owner: str, caplog: pytest.LogCaptureFixture
) -> None:
    await tenant.post(SLICES, json=slice_body())
    body = slice_body()
    body["slice"]["spec"]["nodeAddresses"] = {"n1": address}
    for reply in (
        await tenant.put(f"{SLICES}/E1", json=body),
        await tenant.post(
            SLICES, json={"slice": {"spec": {**body["slice"]["spec"], "clientRef": {"uid": "E2"}}}}
        ),
    ):
        assert reply.status_code == 400
        assert f"nodeAddresses.n1: {address} is an address of the platform" in reply.json()["error"]
        assert owner not in reply.text
    assert owner in caplog.text
    assert (await tenant.get(f"{SLICES}/E2")).status_code == 404


async def test_a_slice_goes_on_changing_when_a_node_of_epics_comes_to_have_an_address_in_it(
    tenant: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    body = slice_body()
    body["slice"]["spec"]["nodeAddresses"] = {"n1": "192.0.2.99"}
    assert (await tenant.post(SLICES, json=body)).status_code == 302
    added = await admin.put("/api/epic/nodes/epic9", json={"node": {"spec": {"address": "192.0.2.99"}}})
    assert added.status_code < 400, added.text
    body["slice"]["spec"]["endpoints"] = []
    reply = await tenant.put(f"{SLICES}/E1", json=body)
    assert reply.status_code < 400, reply.text
