# SPDX-License-Identifier: Apache-2.0
"""What comes, changes and goes leaves nothing behind in store and memory, whatever it was called."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter, deque

import httpx
from api_requests import API, PROXIES, proxy_body, route_body, slice_body
from life_plant import Plant

from epic.cache.store import CachedStore
from epic.kinds.registry import KINDS

ROOT = f"{API}/accounts/root"
_OF_ROUND = 4
_ROUNDS = 4
_TUNNELS_ARE_GONE = 3600
"""Seconds after which nobody may use them any more."""
_BOUNDED = {"epic.cache.history.History", "epic.cache.history._Key", "epic.tunnels.WorkloadNode"}
"""They know of so many deletions, and so many equal values, and no more."""


async def churn(client: httpx.AsyncClient, plant: Plant, number: int) -> None:
    """What nobody called so before comes, changes and goes, and all who have something of it let go."""
    names = [f"r{number}-{i}" for i in range(_OF_ROUND)]
    for name in names:
        await write(client, "POST", name, f"s-{name}", (f"n-{name}",))
    plant.settle()
    for name in names:
        await write(client, "PUT", name, f"t-{name}", ("n1",))
    plant.settle()
    for name in names:
        for collection in ("routes", "slices"):
            assert (await client.delete(f"{ROOT}/{collection}/{name}")).status_code == 200
    plant.settle()
    plant.clock.pass_(_TUNNELS_ARE_GONE)
    plant.settle()
    for name in names:
        plant.workload.pop(("root", f"n-{name}"))


async def write(
    client: httpx.AsyncClient, method: str, name: str, service: str, nodes: tuple[str, ...]
) -> None:
    """A route of that name to a Service, and the Service's slice of that name."""
    for collection, body in (
        ("routes", route_body(name, service=service)),
        ("slices", slice_body(name, service, nodes)),
    ):
        itself = f"/{name}" if method == "PUT" else ""
        reply = await client.request(method, f"{ROOT}/{collection}{itself}", json=body)
        assert reply.status_code == 302, reply.text


def stored(store: CachedStore) -> Counter[str]:
    return Counter({kind.name: len(store.list(kind.model)) for kind in KINDS})


def in_memory() -> Counter[str]:
    """EPIC's objects by their class, and what lists, sets and mappings of theirs have in them."""
    found: Counter[str] = Counter()
    gc.collect()
    for each in gc.get_objects():
        kind = type(each)
        name = f"{kind.__module__}.{kind.__qualname__}"
        if not name.startswith("epic.") or name in _BOUNDED:
            continue
        found[name] += 1
        for attribute, value in getattr(each, "__dict__", {}).items():
            if isinstance(value, dict | set | list | deque):
                found[f"{name}.{attribute}"] += len(value)
    return found


async def grown(before: Counter[str]) -> dict[str, int]:
    """What there is more of than before by as much as came and went, and not only for a moment."""
    deadline = time.monotonic() + 60
    while True:
        now = in_memory()
        more = {name: now[name] - before[name] for name in now}
        kept = {name: count for name, count in more.items() if count >= _ROUNDS * _OF_ROUND}
        if not kept or time.monotonic() > deadline:
            return kept
        await asyncio.sleep(0.1)


async def test_churn_leaves_nothing_behind(
    tenant: httpx.AsyncClient, store: CachedStore, plant: Plant
) -> None:
    assert (await tenant.post(PROXIES, json=proxy_body())).status_code == 302
    plant.settle()
    for number in range(_ROUNDS):
        await churn(tenant, plant, number)
    rows, objects = stored(store), in_memory()
    for number in range(_ROUNDS, 3 * _ROUNDS):
        await churn(tenant, plant, number)
    assert stored(store) == rows
    assert await grown(objects) == {}
