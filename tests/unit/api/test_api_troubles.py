# SPDX-License-Identifier: Apache-2.0
"""A host that takes no writes: who writes is told to come again, who reads sees nothing of it."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import httpx
import pytest
from api_requests import API, PROXIES, proxy_body, route_body
from disk_troubles import TROUBLES

from epic.cache import store as cached
from epic.cache.store import CachedStore
from epic.model.resources import GWProxy
from epic.store.embedded import database
from epic.store.objects import Key, Put

U1 = f"{API}/accounts/root/proxies/U1"
REFUSED = {
    "error": "the control plane cannot write now; repeat the request later",
    "reason": "NotWritable",
}


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES)
async def test_writes_are_503_with_a_time_to_come_again_and_reads_are_served(
    admin: httpx.AsyncClient,
    store: CachedStore,
    trouble: Any,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(database, "_LOCK_SECONDS", 0.05)
    assert (await admin.post(PROXIES, json=proxy_body())).status_code == 302
    listeners = [
        {"name": f"l{i}", "port": 80, "protocol": "HTTP", "hostname": f"h{i}.example"} for i in range(60)
    ]
    large = {"gateway": {"gatewayClassName": "k", "listeners": listeners}}
    writes: list[tuple[str, str, Any]] = [
        ("POST", PROXIES, proxy_body("U2", **{"display-name": "two", **large})),
        ("PUT", U1, proxy_body("U1", **large)),
    ]
    if trouble is not TROUBLES["FULL"]:  # there is room for little ones
        writes.append(("POST", f"{API}/accounts/root/routes", route_body()))
        writes.append(("POST", f"{API}/accounts", {"account": {"metadata": {"name": "new"}, "spec": {}}}))
        writes.append(("DELETE", U1, None))
    caplog.clear()
    caplog.set_level(logging.INFO)
    with trouble(store):
        for method, path, body in writes * 2:
            reply = await admin.request(method, path, json=body)
            assert (reply.status_code, reply.json()) == (503, REFUSED), (method, path)
            assert reply.headers["retry-after"] == "10"
            read = await admin.get(U1)
            assert (read.status_code, "deletionTimestamp" in read.text) == (200, False)
    logged = [r.getMessage() for r in caplog.records if r.name.startswith("epic.")]
    assert len(logged) == 1, logged
    for method, path, body in writes:
        reply = await admin.request(method, path, json=body)
        assert reply.status_code < 400, reply.text


async def test_a_disk_that_hangs_keeps_who_writes_waiting_and_nobody_who_reads(
    admin: httpx.AsyncClient, store: CachedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cached, "_LOCK_SECONDS", 30.0)
    begun, end = threading.Event(), threading.Event()

    def hang() -> None:
        with store.transaction():
            begun.set()
            end.wait(30)

    await admin.get(U1)
    hanging = asyncio.create_task(asyncio.to_thread(hang))
    await asyncio.to_thread(begun.wait, 10)
    writes = [asyncio.create_task(admin.post(PROXIES, json=proxy_body(f"U{n}"))) for n in range(60)]
    async with asyncio.timeout(20):
        for _ in range(5):
            assert (await admin.get(f"{API}/accounts/root/proxies")).status_code == 200
    assert not any(task.done() for task in writes)
    end.set()
    await hanging
    assert {(await task).status_code for task in writes} == {302, 503}, "the pool has four addresses"


async def test_who_asks_for_an_object_that_cannot_be_read_is_told_so_and_others_are_served(
    admin: httpx.AsyncClient, store: CachedStore
) -> None:
    for name in ("U1", "U2"):
        assert (await admin.post(PROXIES, json=proxy_body(name, **{"display-name": name}))).status_code == 302
    key = Key(GWProxy.kind, "root", "U1")
    expected = store.get(GWProxy, "root", "U1").metadata.resource_version
    broken = await asyncio.to_thread(store._thread.call, store._store.commit(Put(key, b"{}", expected)))
    await asyncio.to_thread(store._thread.call, store._cache.reach(broken))
    reply = await admin.get(U1)
    assert (reply.status_code, reply.json()["reason"]) == (500, "Damaged")
    assert reply.json()["error"].startswith("GWProxy 'U1' of account 'root' cannot be read")
    listed = (await admin.get(f"{API}/accounts/root/proxies")).json()["items"]
    assert [item["metadata"]["name"] for item in listed] == ["U2"]
    assert (await admin.post(PROXIES, json=proxy_body("U1"))).status_code >= 400
    assert (await admin.get(f"{API}/accounts/root/proxies/U2")).status_code == 200
