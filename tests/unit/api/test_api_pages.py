# SPDX-License-Identifier: Apache-2.0
"""Lists come whole while they are small, and in pages as Kubernetes has them."""

from __future__ import annotations

import threading
from typing import Any

import httpx
import pytest
from api_requests import API, route_body

from epic.api import pages

ROUTES = f"{API}/accounts/root/routes"


async def routes(tenant: httpx.AsyncClient, *names: str) -> None:
    for name in names:
        assert (await tenant.post(ROUTES, json=route_body(name))).status_code == 302


async def page(tenant: httpx.AsyncClient, **asked: Any) -> tuple[list[str], dict[str, Any] | None]:
    reply = await tenant.get(ROUTES, params=asked)
    assert reply.status_code == 200, reply.text
    body = reply.json()
    return [item["metadata"]["name"] for item in body["items"]], body.get("metadata")


async def test_a_list_is_whole_for_who_asks_for_no_pages(tenant: httpx.AsyncClient) -> None:
    await routes(tenant, "R2", "R1")
    reply = await tenant.get(ROUTES)
    assert list(reply.json()) == ["link", "items"]
    assert reply.json()["link"] == {"self": ROUTES}
    assert await page(tenant) == (["R1", "R2"], None)
    assert await page(tenant, limit=0) == (["R1", "R2"], None)


async def test_a_page_says_where_the_next_one_begins(tenant: httpx.AsyncClient) -> None:
    await routes(tenant, *(f"R{n}" for n in range(5)))
    assert await page(tenant, limit=2) == (["R0", "R1"], {"continue": "R1", "remainingItemCount": 3})
    following = {"limit": 2, "continue": "R1"}
    assert await page(tenant, **following) == (["R2", "R3"], {"continue": "R3", "remainingItemCount": 1})
    assert await page(tenant, **following | {"continue": "R3"}) == (["R4"], {})
    assert await page(tenant, limit=5) == (["R0", "R1", "R2", "R3", "R4"], {})


async def test_what_is_there_all_the_time_is_in_a_page_whatever_goes_and_comes(
    tenant: httpx.AsyncClient,
) -> None:
    await routes(tenant, "R1", "R3", "R5")
    assert (await page(tenant, limit=2))[0] == ["R1", "R3"]
    assert (await tenant.delete(f"{ROUTES}/R3")).status_code == 200
    await routes(tenant, "R0", "R4")
    assert await page(tenant, **{"limit": 2, "continue": "R3"}) == (["R4", "R5"], {})
    assert await page(tenant, **{"limit": 2, "continue": "R9"}) == ([], {})


async def test_a_list_of_many_bytes_is_refused_as_a_whole_and_told_how_to_ask(
    tenant: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await routes(tenant, "R1", "R2", "R3")
    size = len((await tenant.get(ROUTES)).content)
    monkeypatch.setattr(pages, "MOST_BYTES", size // 2)
    assert len((await tenant.get(ROUTES)).content) == size
    monkeypatch.setattr(pages, "MOST_BYTES_WHOLE", size // 2)
    refused = await tenant.get(ROUTES)
    assert (refused.status_code, refused.json()["reason"]) == (413, "TooLarge")
    assert "ask for them in pages: ?limit=500" in refused.json()["error"]
    assert await page(tenant, limit=3) == (["R1"], {"continue": "R1", "remainingItemCount": 2})
    monkeypatch.setattr(pages, "MOST_BYTES", 1)
    assert await page(tenant, **{"limit": 3, "continue": "R2"}) == (["R3"], {})


async def test_a_limit_is_a_number_of_objects(tenant: httpx.AsyncClient) -> None:
    for wrong in ("-1", "many"):
        assert (await tenant.get(ROUTES, params={"limit": wrong})).status_code == 400


async def test_lists_are_written_beside_the_event_loop(
    tenant: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await routes(tenant, "R1")
    threads: set[threading.Thread] = set()
    known = pages._json

    def written(content: dict[str, Any]) -> bytes:
        threads.add(threading.current_thread())
        return known(content)

    monkeypatch.setattr(pages, "_json", written)
    assert (await page(tenant))[0] == ["R1"]
    assert threads
    assert threading.main_thread() not in threads
