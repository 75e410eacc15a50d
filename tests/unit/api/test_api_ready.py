# SPDX-License-Identifier: Apache-2.0
"""Who asks first is answered as all others are: everything is made before."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Any

import httpx
import pydantic
import pytest
from api_requests import ADMIN, Events

from epic.api.app import create_app, make_ready
from epic.api.context import Context
from epic.cache.store import CachedStore


@pytest.mark.parametrize("path", ["/healthz", "/accounts/root", "/nodes", "/tunnels"])
async def test_nothing_is_made_when_the_first_request_comes(
    path: str, store: CachedStore, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(Context(store=store, inside_pool=IPv4Network("100.64.0.0/10"), run_events=events))
    await make_ready(app)
    made: list[object] = []
    make = pydantic.TypeAdapter.__init__

    def noting(self: Any, kind: Any, **settings: Any) -> None:
        made.append(kind)
        make(self, kind, **settings)

    monkeypatch.setattr(pydantic.TypeAdapter, "__init__", noting)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="https://epic", auth=ADMIN) as client:
        reply = await client.get(f"/api/epic{path}")
    assert reply.status_code == 200
    assert made == []
