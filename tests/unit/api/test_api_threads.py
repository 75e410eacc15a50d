# SPDX-License-Identifier: Apache-2.0
"""A request waits for a thread where it may have to wait or to compute, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio.to_thread
import httpx
import pytest
from api_requests import API, route_body

ROUTES = f"{API}/accounts/root/routes"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What is called in a thread."""
    found: list[object] = []
    run = anyio.to_thread.run_sync

    async def noting(call: Callable[..., Any], *arguments: Any, **settings: Any) -> Any:
        found.append(call)
        return await run(call, *arguments, **settings)

    monkeypatch.setattr(anyio.to_thread, "run_sync", noting)
    return found


async def test_what_reads_is_called_in_a_thread_and_nothing_else(
    tenant: httpx.AsyncClient, calls: list[object]
) -> None:
    assert (await tenant.get(ROUTES, params={"limit": 5})).status_code == 200
    assert len(calls) == 1


async def test_a_body_is_read_in_a_thread_and_what_it_is_for_is_done_in_one(
    tenant: httpx.AsyncClient, calls: list[object]
) -> None:
    assert (await tenant.post(ROUTES, json=route_body(), headers={"If-Match": "*"})).status_code == 302
    assert len(calls) == 2


async def test_an_administrator_is_let_in_without_a_thread(
    admin: httpx.AsyncClient, calls: list[object]
) -> None:
    assert (await admin.get(f"{API}/tunnels")).status_code == 200
    assert len(calls) == 1
