# SPDX-License-Identifier: Apache-2.0
"""Nothing of a body is dropped in silence: what an object does not have is warned of, or else refused."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import httpx
import pytest
from api_requests import API, PROXIES, proxy_body, route_body, slice_body

from epic.cache.store import CachedStore
from epic.model.resources import Account, Node, User

ACCOUNT_ROOT = f"{API}/accounts/root"
ROUTES, SLICES = f"{ACCOUNT_ROOT}/routes", f"{ACCOUNT_ROOT}/slices"
POOL = {"public-pool": {"pool": "198.51.100.1-198.51.100.9", "subnet": "198.51.100.0/24"}}


async def written(client: httpx.AsyncClient, path: str, uid: str, body: Any) -> list[httpx.Response]:
    """The replies to a creation and, of one that is there, to a change."""
    created = await client.post(path, json=body)
    return [created, await client.put(f"{ACCOUNT_ROOT}/{path.rpartition('/')[2]}/{uid}", json=body)]


def unknown(reply: httpx.Response) -> list[str]:
    """The fields that a reply warns of."""
    assert reply.status_code == 302, reply.text
    parts = [warning.split('"', 1)[1] for warning in reply.headers.get_list("warning")]
    return [part.removeprefix(r"unknown field \"").removesuffix(r"\"" + '"') for part in parts]


OBJECTS = [
    ("accounts/root", "account", {"spec": {"proxyLimit": 3}}),
    ("accounts/root/groups/gatewayhttp", "group", {"spec": {"service-prefix": "default"}}),
    ("accounts/root/proxies/U1", "proxy", proxy_body()["proxy"]),
    ("accounts/root/routes/R1", "route", route_body()["route"]),
    ("accounts/root/slices/E1", "slice", slice_body()["slice"]),
    ("service-prefixes/more", "service-prefix", {"spec": POOL}),
    ("nodes/epic1", "node", {"spec": {"address": "192.0.2.1"}}),
]


@pytest.fixture
async def asking(admin: httpx.AsyncClient) -> httpx.AsyncClient:
    """An administrator where all objects are that can be changed."""
    for path, body in ((PROXIES, proxy_body()), (ROUTES, route_body()), (SLICES, slice_body())):
        assert (await admin.post(path, json=body)).status_code == 302
    return admin


@pytest.mark.parametrize(("path", "key", "obj"), OBJECTS, ids=[key for _, key, _ in OBJECTS])
async def test_an_object_is_warned_of_whatever_of_it_is_ignored(
    asking: httpx.AsyncClient, path: str, key: str, obj: dict[str, Any]
) -> None:
    sent = {
        key: {
            **deepcopy(obj),
            "Spec": {"colour": "red"},
            "metadata": {
                "name": path.rpartition("/")[2],
                "labels": {"team": "shop"},
                "annotations": {"contact": "me"},
                "finalizers": ["mine"],
            },
        },
        "zebra": True,
    }
    sent[key]["spec"]["colour"] = "red"
    assert sorted(unknown(await asking.put(f"{API}/{path}", json=sent))) == [
        f"{key}.Spec",
        f"{key}.metadata.annotations.contact",
        f"{key}.metadata.finalizers",
        f"{key}.metadata.labels.team",
        f"{key}.spec.colour",
        "zebra",
    ]


@pytest.mark.parametrize(("path", "key", "obj"), OBJECTS, ids=[key for _, key, _ in OBJECTS])
async def test_an_object_that_is_read_and_written_again_has_no_unknown_fields(
    asking: httpx.AsyncClient, path: str, key: str, obj: dict[str, Any]
) -> None:
    assert unknown(await asking.put(f"{API}/{path}", json={key: obj})) == []
    shown = (await asking.get(f"{API}/{path}")).json()
    assert shown[key]["metadata"]["resourceVersion"]
    shown[key] |= {"apiVersion": "epic.acnodal.io/v1", "kind": "Any"}
    assert unknown(await asking.put(f"{API}/{path}", json=shown)) == []


COUNTED = {
    "account": {"proxyLimit": 4},
    "group": {"envoy-replica-count": 1},
    "proxy": {"display-name": "other"},
    "route": {"http": {"rules": []}},
    "slice": {"ports": []},
    "service-prefix": {"alt-pool": {"pool": "192.0.2.128-192.0.2.129", "subnet": "192.0.2.128/25"}},
    "node": {"capacity": 9},
}


@pytest.mark.parametrize(("path", "key", "obj"), OBJECTS, ids=[key for _, key, _ in OBJECTS])
async def test_the_generation_counts_changes_of_the_spec_once(
    asking: httpx.AsyncClient, path: str, key: str, obj: dict[str, Any]
) -> None:
    async def generation(sent: dict[str, Any]) -> int:
        reply = await asking.put(f"{API}/{path}", json={key: sent})
        assert reply.status_code == 302, reply.text
        found: int = (await asking.get(f"{API}/{path}")).json()[key]["metadata"]["generation"]
        return found

    first = await generation(obj)
    assert await generation(obj) == first
    changed = {**obj, "spec": {**obj["spec"], **COUNTED[key]}}
    assert await generation(changed) == first + 1
    assert await generation(changed) == first + 1


@pytest.mark.parametrize(("path", "key", "obj"), OBJECTS, ids=[key for _, key, _ in OBJECTS])
async def test_a_change_of_a_version_that_is_not_the_newest_is_refused(
    asking: httpx.AsyncClient, path: str, key: str, obj: dict[str, Any]
) -> None:
    assert (await asking.put(f"{API}/{path}", json={key: obj})).status_code == 302
    stale = {key: {**obj, "metadata": {"resourceVersion": "4711"}}}
    refused = await asking.put(f"{API}/{path}", json=stale)
    assert refused.status_code == 409
    assert "has been changed since version 4711" in refused.json()["error"]


PLATFORMS = [(path, key, obj) for path, key, obj in OBJECTS if key not in {"proxy", "route", "slice"}]


@pytest.mark.parametrize(("path", "key", "obj"), PLATFORMS, ids=[key for _, key, _ in PLATFORMS])
async def test_an_object_of_another_name_than_in_the_path_is_refused(
    asking: httpx.AsyncClient, path: str, key: str, obj: dict[str, Any]
) -> None:
    body = {key: {**obj, "metadata": {"name": "other"}}}
    for name in (path, f"{path.rpartition('/')[0]}/not-there-yet"):
        refused = await asking.put(f"{API}/{name}", json=body)
        wrong = f"{key}.metadata.name: 'other' is not the name {name.rpartition('/')[2]!r} in the path"
        assert (refused.status_code, refused.json()["error"]) == (400, wrong)


async def test_a_misspelt_spec_is_told_to_who_sends_it(admin: httpx.AsyncClient, store: CachedStore) -> None:
    reply = await admin.put(f"{API}/accounts/new", json={"account": {"Spec": {"proxyLimit": 3}}})
    assert unknown(reply) == ["account.Spec"]
    assert store.get(Account, "", "new").spec.proxy_limit == 20


async def test_a_request_that_a_node_do_something_unknown_is_refused(
    admin: httpx.AsyncClient, store: CachedStore
) -> None:
    before = store.get(Node, "", "epic1")
    path = f"{API}/nodes/epic1/maintenance"
    for body, wrong in (
        (
            {"maintenance": {"drian": True}},
            "maintenance: there is no field 'drian' here; use drain, schedulable, unheard-ok",
        ),
        ({"maintenance": {}, "drain": True}, "the body: there is no field 'drain' here; use maintenance"),
    ):
        refused = await admin.put(path, json=body)
        assert (refused.status_code, refused.json()["error"]) == (400, wrong)
    assert store.get(Node, "", "epic1") == before


async def test_an_unknown_field_of_a_user_is_refused_and_no_password_is_shown(
    admin: httpx.AsyncClient, store: CachedStore
) -> None:
    user = {"name": "u9", "password": "secret-password", "Password": "secret-too"}
    refused = await admin.post(f"{ACCOUNT_ROOT}/users", json={"user": user})
    wrong = "user: there is no field 'Password' here; use clusterIDs, name, password"
    assert (refused.status_code, refused.json()["error"]) == (400, wrong)
    assert store.find(User, "root", "u9") is None


async def test_warnings_are_as_kubernetes_gives_them(tenant: httpx.AsyncClient) -> None:
    body = route_body()
    body["route"]["spec"]["http"]["rules"][0]["colour"] = "red"
    body["route"]["spec"]["é"] = 1
    for reply in await written(tenant, ROUTES, "R1", body):
        assert reply.status_code == 302
        assert reply.headers.get_list("warning") == [
            r'299 - "unknown field \"route.spec.http.rules[].colour\""',
            r'299 - "unknown field \"route.spec.\u00e9\""',
        ]


async def test_of_many_unknown_fields_some_are_named_and_the_others_counted(
    tenant: httpx.AsyncClient,
) -> None:
    many = proxy_body(**{f"x{i:03}": "y" for i in range(300)})
    for reply in await written(tenant, PROXIES, "U1", many):
        assert reply.status_code == 302
        warnings = reply.headers.get_list("warning")
        assert len(warnings) == 9
        assert warnings[-1] == '299 - "292 more unknown fields"'


async def test_what_kubernetes_writes_into_an_endpointslice_is_known(tenant: httpx.AsyncClient) -> None:
    body = slice_body()
    spec = body["slice"]["spec"]
    spec |= {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "e"}}
    spec["endpoints"][0] |= {
        "conditions": {"ready": True, "serving": True, "terminating": False},
        "deprecatedTopology": {"rack": "r1"},
        "hints": {"forZones": [{"name": "z1"}], "forNodes": [{"name": "n1"}]},
        "hostname": "web-0",
        "targetRef": {"kind": "Pod", "namespace": "shop", "name": "web-0", "uid": "P1"},
        "zone": "z1",
    }
    spec["ports"][0]["appProtocol"] = "http"
    for path, uid, sent in ((PROXIES, "U1", proxy_body()), (SLICES, "E1", body)):
        for reply in await written(tenant, path, uid, sent):
            assert unknown(reply) == []
    spec["endpoints"][0]["zones"] = ["z1"]
    assert unknown(await tenant.put(f"{SLICES}/E1", json=body)) == ["slice.spec.endpoints[].zones"]
