# SPDX-License-Identifier: Apache-2.0
"""What the cache costs over a store on disk: to fill it, in memory, and one change; full size and a tenth.

1,000 gateways, 10,000 routes, 10,000 slices with 100,000 endpoints and 20,000 tunnels. Each size and way of
keeping objects (as bytes, or as the API's typed objects) runs in a process of its own, and the figures are
of that process. `cache.py`
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from epic.cache.draft import Draft
from epic.cache.feed import Cache, FedKind
from epic.cache.kinds import fed_kind
from epic.cache.views import CachedKind, Delta, Entry
from epic.kinds.registry import KINDS
from epic.store.embedded.engine import SqliteEngine
from epic.store.kinds import schema_of
from epic.store.object_store import ObjectStore
from epic.store.objects import Key, Put, Stored

NAMES = ("GWProxy", "GWRoute", "GWEndpointSlice", "Tunnel")
GATEWAYS, ACCOUNTS = 1000, 50
_CHANGES = 500
_PAGE = os.sysconf("SC_PAGE_SIZE")


def gateway(number: int) -> dict[str, Any]:
    listener = {"name": "http", "port": 80, "protocol": "HTTP"}
    return {
        "spec": {
            "display-name": f"web{number}",
            "group": "gatewayhttp",
            "public-address": "203.0.113.7",
            "gateway": {"gatewayClassName": "epic", "listeners": [listener]},
        }
    }


def route(number: int, gateway: str) -> dict[str, Any]:
    rule = {
        "matches": [{"path": {"type": "PathPrefix", "value": f"/{number}"}}],
        "backendRefs": [{"kind": "Service", "name": f"svc-{number}", "port": 80}],
    }
    parent = {"name": gateway}
    http = {"parentRefs": [parent], "hostnames": [f"h{number}.example.net"], "rules": [rule]}
    return {"spec": {"http": http}}


def slice_(number: int) -> dict[str, Any]:
    endpoints = [
        {
            "addresses": [f"10.{number // 250 % 250}.{number % 250}.{i + 1}"],
            "nodeName": f"n{i}",
            "conditions": {"ready": True},
        }
        for i in range(10)
    ]
    nodes = {f"n{i}": f"192.0.2.{i + 1}" for i in range(10)}
    spec = {"parentRef": {"uid": f"svc-{number}"}, "endpoints": endpoints, "nodeAddresses": nodes}
    return {"spec": {**spec, "ports": [{"port": 8080}], "clientRef": {"clusterID": "c1"}}}


def tunnel(number: int, gateway: str) -> dict[str, Any]:
    return {
        "spec": {
            "proxy": gateway,
            "service": number,
            "epic-node": f"epic{number % 8}",
            "inside-address": "100.64.0.9",
            "cluster-id": "c1",
            "node-name": f"n{number % 10}",
            "node-address": "192.0.2.1",
            "keys": [{"epoch": 1, "secret": "00" * 16}],
            "signing-epoch": 1,
            "signing-since": "2026-01-01T00:00:00Z",
        }
    }


def objects(size: int) -> Iterator[tuple[Key, dict[str, Any]]]:
    """All objects with `size` gateways, ten times as many routes and slices, twenty times as many tunnels."""
    for number in range(size):
        account, name = f"team{number % ACCOUNTS}", f"gateway-{number}"
        yield Key("GWProxy", account, name), gateway(number)
        for each in range(number * 10, number * 10 + 10):
            yield Key("GWRoute", account, f"route-{each}"), route(each, name)
            yield Key("GWEndpointSlice", account, f"slice-{each}"), slice_(each)
        for each in range(number * 20, number * 20 + 20):
            yield Key("Tunnel", account, str(each + 1)), tunnel(each, name)


def body(key: Key, content: dict[str, Any]) -> bytes:
    return json.dumps({"metadata": {"name": key.name, "namespace": key.account}, **content}).encode()


Kinds = dict[str, FedKind]


def as_objects() -> Kinds:
    """The API's typed objects, found by what the registry says."""
    return {name: fed_kind(KINDS[name]) for name in NAMES}


def as_bytes() -> Kinds:
    """What is stored, without reading it: what the cache itself costs."""
    indexes: dict[str, Callable[[Any], Iterable[str]]] = {"size": lambda text: [str(len(text))]}
    return {name: FedKind(CachedKind(name, indexes), lambda stored: stored.body) for name in NAMES}


WAYS = {"objects": as_objects, "bytes": as_bytes}


async def open_store(path: Path) -> ObjectStore:
    return ObjectStore(await SqliteEngine.open(path), schema_of(KINDS))


async def write_store(path: Path, size: int) -> None:
    store = await open_store(path)
    left = objects(size)
    while part := list(islice(left, 100)):
        await store.commit(*(Put(key, body(key, content), 0) for key, content in part))
    await store.close()


def memory() -> float:
    """MiB that the process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE / 2**20


class Blocks:
    """How long others in the event loop had to wait at most, in processor time: the machine may be busy."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._task = asyncio.create_task(self._look())

    async def _look(self) -> None:
        while True:
            before = time.thread_time()
            await asyncio.sleep(0.001)
            self.longest = max(self.longest, time.thread_time() - before)

    def end(self) -> float:
        """The longest, in milliseconds."""
        self._task.cancel()
        return self.longest * 1000


async def measure(path: Path, size: int, kinds: Kinds) -> dict[str, float]:
    store = await open_store(path)
    before = memory()
    cache = Cache(store, kinds.values())
    told: asyncio.Queue[Delta] = asyncio.Queue()
    cache.subscribe(told.put_nowait)
    began, spent, blocks = time.perf_counter(), time.process_time(), Blocks()
    task = asyncio.create_task(cache.run())
    await cache.reach(1)
    figures = {"fill, s": time.perf_counter() - began, "of processor, s": time.process_time() - spent}
    figures["longest block, ms"] = blocks.end()
    for _ in range(size * 41):
        await told.get()
    figures["memory, MiB"] = memory() - before
    figures |= await write_one_by_one(store, told, size)
    figures["one change in memory, us"] = change_in_memory(cache, kinds, size)
    task.cancel()
    await store.close()
    return figures


async def write_one_by_one(store: ObjectStore, told: asyncio.Queue[Delta], size: int) -> dict[str, float]:
    """A slice is written: how long the reply takes, and how long until it is told of after the reply."""
    replies, tellings = [], []
    for number in range(_CHANGES):
        piece = number * size * 10 // _CHANGES
        key = Key("GWEndpointSlice", f"team{piece // 10 % ACCOUNTS}", f"slice-{piece}")
        read = await store.get(key)
        began = time.perf_counter()
        await store.commit(Put(key, body(key, slice_(piece + 1)), read.revision))
        replied = time.perf_counter()
        await told.get()
        replies.append(replied - began)
        tellings.append(time.perf_counter() - replied)
    return {
        "write, ms p50": statistics.median(replies) * 1000,
        "told after, ms p50": statistics.median(tellings) * 1000,
        "told after, ms p99": statistics.quantiles(tellings, n=100)[98] * 1000,
    }


def change_in_memory(cache: Cache, kinds: Kinds, size: int) -> float:
    """One slice is replaced, without any store: reading it, the maps and indexes."""
    name, draft = "GWEndpointSlice", Draft(cache.snapshot)
    taken = []
    for number in range(_CHANGES):
        piece = number * size * 10 // _CHANGES
        key = Key(name, f"team{piece // 10 % ACCOUNTS}", f"slice-{piece}")
        stored = Stored(key, 10**9 + number, body(key, slice_(piece + 2)))
        began = time.perf_counter()
        new = kinds[name].read(stored)
        assert isinstance(new, Entry)
        draft.put(name, key.account, key.name, new)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken) * 1e6


def main() -> None:
    """Measure all of it, or one in this process."""
    if len(sys.argv) == 4:
        size, way, path = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
        print(json.dumps(asyncio.run(measure(path, size, WAYS[way]()))))
        return
    with tempfile.TemporaryDirectory() as directory:
        for size in (GATEWAYS // 10, GATEWAYS):
            path = Path(directory) / f"{size}.db"
            asyncio.run(write_store(path, size))
            for way in WAYS:
                command = [sys.executable, __file__, str(size), way, str(path)]
                found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
                print(f"{size} gateways, {way}: " + "; ".join(f"{k} {v:.2f}" for k, v in found.items()))


if __name__ == "__main__":
    main()
