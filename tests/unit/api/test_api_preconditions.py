# SPDX-License-Identifier: Apache-2.0
"""If-Match: a PUT or DELETE is done to the versions that it is meant for, and to no other."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from api_requests import API, PROXIES, proxy_body, route_body, slice_body

ACCOUNT = f"{API}/accounts/root"
PREFIX = {"public-pool": {"pool": "198.51.100.0/29", "subnet": "198.51.100.0/24"}}

OBJECTS = [
    pytest.param("proxy", PROXIES, f"{ACCOUNT}/proxies/U1", proxy_body(), id="gateway"),
    pytest.param("route", f"{ACCOUNT}/routes", f"{ACCOUNT}/routes/R1", route_body(), id="route"),
    pytest.param("slice", f"{ACCOUNT}/slices", f"{ACCOUNT}/slices/E1", slice_body(), id="slice"),
    pytest.param("account", "", f"{API}/accounts/new", {"account": {"spec": {}}}, id="account"),
    pytest.param(
        "group",
        "",
        f"{ACCOUNT}/groups/new",
        {"group": {"spec": {"service-prefix": "default"}}},
        id="template",
    ),
    pytest.param(
        "service-prefix", "", f"{API}/service-prefixes/new", {"service-prefix": {"spec": PREFIX}}, id="pool"
    ),
    pytest.param("node", "", f"{API}/nodes/new", {"node": {"spec": {"address": "192.0.2.99"}}}, id="node"),
]


async def version_of(admin: httpx.AsyncClient, path: str, key: str) -> str:
    return str((await admin.get(path)).json()[key]["metadata"]["resourceVersion"])


@pytest.mark.parametrize(("key", "collection", "path", "body"), OBJECTS)
async def test_a_write_is_done_to_the_version_that_it_is_meant_for(
    admin: httpx.AsyncClient, key: str, collection: str, path: str, body: dict[str, Any]
) -> None:
    for method in ("PUT", "DELETE"):
        absent = await admin.request(method, path, json=body, headers={"If-Match": "*"})
        # What can only be made by a POST is not found, whatever else is wanted of it.
        assert absent.status_code in {404, 412}, absent.text
    made = await (admin.post(collection, json=body) if collection else admin.put(path, json=body))
    assert made.status_code == 302, made.text
    version = await version_of(admin, path, key)
    for tags in ('"0"', f'W/"{version}"', '"1x", "2x"'):
        for method in ("PUT", "DELETE"):
            refused = await admin.request(method, path, json=body, headers={"If-Match": tags})
            assert (refused.status_code, refused.json()["reason"]) == (412, "PreconditionFailed")
    assert await version_of(admin, path, key) == version
    for tags in ("*", f'"0", "{version}"'):
        assert (await admin.put(path, json=body, headers={"If-Match": tags})).status_code == 302
    version = await version_of(admin, path, key)
    assert (await admin.delete(path, headers={"If-Match": f'"{version}"'})).status_code == 200


async def test_the_version_in_a_body_is_a_conflict_as_before(admin: httpx.AsyncClient) -> None:
    await admin.post(f"{ACCOUNT}/routes", json=route_body())
    body = route_body()
    body["route"]["metadata"] = {"resourceVersion": "1"}
    assert (await admin.put(f"{ACCOUNT}/routes/R1", json=body)).status_code == 409


async def test_what_is_no_entity_tag_is_refused(admin: httpx.AsyncClient) -> None:
    for tags in ("7", '"7', '"7" "8"', ""):
        reply = await admin.delete(f"{ACCOUNT}/routes/R1", headers={"If-Match": tags})
        assert (reply.status_code, "in quotes" in reply.json()["error"]) == (400, True)
