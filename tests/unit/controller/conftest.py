# SPDX-License-Identifier: Apache-2.0
"""An account on the real API, and what a translation wants there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from counted_client import ACCOUNT, CountedClient
from manifests import shop, translated

from epic.client import EpicClient
from epic.controller.desired import Desired, EpicConnection


@pytest.fixture
def admin(live_api: Any) -> EpicClient:
    client = EpicClient(live_api.url, live_api.username, live_api.password)
    client.post("/api/epic/accounts", {"account": {"metadata": {"name": "shop"}}})
    pool = {"pool": "203.0.113.0/28", "subnet": "203.0.113.0/24"}
    client.put("/api/epic/service-prefixes/default", {"service-prefix": {"spec": {"public-pool": pool}}})
    client.put(f"{ACCOUNT}/groups/http", {"group": {"spec": {"service-prefix": "default"}}})
    client.post(f"{ACCOUNT}/users", {"user": {"name": "shop", "password": "shop-password"}})
    return client


@pytest.fixture
def client(live_api: Any, admin: EpicClient) -> Iterator[CountedClient]:
    with CountedClient(live_api.url, "shop", "shop-password") as found:
        found.requests = []
        yield found


@pytest.fixture
def desired(live_api: Any) -> Callable[..., Desired]:
    """A translation whose connection leads to the live API."""

    def make(**changes: Any) -> Desired:
        found = translated(shop(**changes))
        here = EpicConnection(live_api.url, "shop", "shop", "shop-password", "lab")
        moved = {
            name: tuple(replace(item, connection=here) for item in getattr(found, name))
            for name in ("proxies", "slices", "routes")
        }
        return replace(found, connections=(here,), **moved)

    return make
