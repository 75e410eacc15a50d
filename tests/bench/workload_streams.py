# SPDX-License-Identifier: Apache-2.0
"""What a pod that moves costs where an account's workload nodes follow their tunnels, and 1,000 idle streams.

The real REST application without its sockets. An account has 250 workload nodes, 20 gateways of two instances
and 20,000 endpoints, a gateway's on 50 of the nodes. `workload_streams.py`
"""

from __future__ import annotations

import asyncio
import base64
import resource
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from epic.api.access.auth import hash_password
from epic.api.app import create_app
from epic.api.context import Context
from epic.cache.store import CachedStore
from epic.model.base import Metadata
from epic.model.resources import Account, GWEndpointSlice, GWRoute, Node, Tunnel, User, UserSpec
from epic.store.location import StoreLocation

NODES, GATEWAYS, SERVICES, ENDPOINTS, ON_NODES = 250, 20, 10, 100, 50
MOVES, OF_COMMIT = 5, 80
_NOW = datetime.now(UTC).replace(microsecond=0).isoformat()
_AUTHORIZATION = b"Basic " + base64.b64encode(b"admin:secret")


class NoEvents:
    async def follow(self, run: str, *, live: bool) -> AsyncIterator[Mapping[str, object]]:
        for item in ({"event": "finished"},):
            yield item


def node_of(gateway: int, endpoint: int) -> str:
    return f"n{(gateway * NODES // GATEWAYS + endpoint % ON_NODES) % NODES}"


def piece(account: str, gateway: int, service: int, moved: int = 0) -> GWEndpointSlice:
    """A Service's endpoints; the first `moved` are one node further."""
    endpoints = [
        {
            "addresses": [f"10.{gateway}.{service}.{i}"],
            "nodeName": node_of(gateway, i + (i < moved)),
            "conditions": {"ready": True},
        }
        for i in range(ENDPOINTS)
    ]
    uid = f"s{gateway}-{service}"
    spec = {
        "clientRef": {"clusterID": "c", "uid": uid},
        "parentRef": {"clusterID": "c", "uid": uid},
        "endpoints": endpoints,
        "nodeAddresses": {node_of(gateway, i): "192.168.1.1" for i in range(ON_NODES)},
    }
    return GWEndpointSlice.model_validate({"metadata": {"name": uid, "namespace": account}, "spec": spec})


def route(account: str, gateway: int, service: int) -> GWRoute:
    rule = {"backendRefs": [{"kind": "Service", "name": f"s{gateway}-{service}", "port": 80}]}
    http = {"parentRefs": [{"name": f"g{gateway}"}], "rules": [rule]}
    name = f"r{gateway}-{service}"
    return GWRoute.model_validate({"metadata": {"name": name, "namespace": account}, "spec": {"http": http}})


def tunnel(account: str, number: int, gateway: int, epic_node: str, node: str) -> Tunnel:
    spec = {
        "proxy": f"g{gateway}",
        "service": gateway + 1,
        "epic-node": epic_node,
        "inside-address": "100.64.0.1",
        "cluster-id": "c",
        "node-name": node,
        "node-address": "192.168.1.1",
        "keys": [{"epoch": 1, "secret": "00" * 16}],
        "signing-epoch": 1,
        "signing-since": _NOW,
    }
    return Tunnel.model_validate({"metadata": {"name": str(number), "namespace": account}, "spec": spec})


def fill(store: CachedStore, account: str) -> None:
    """An account with all that it may have."""
    with store.transaction() as transaction:
        transaction.create(Account(metadata=Metadata(name=account)))
    for gateway in range(GATEWAYS):
        with store.transaction() as transaction:
            for service in range(SERVICES):
                transaction.create(route(account, gateway, service))
                transaction.create(piece(account, gateway, service))
            for i in range(ON_NODES):
                for epic_node in ("e1", "e2"):
                    number = transaction.next_number("tunnel")
                    transaction.create(tunnel(account, number, gateway, epic_node, node_of(gateway, i)))


@dataclass
class Stream:
    """An agent that takes what it is sent."""

    node: str
    events: int = 0
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    processor: float = 0.0
    clock: float = 0.0

    async def follow(self, app: FastAPI, account: str) -> None:
        scope = {
            "type": "http",
            "method": "GET",
            "path": f"/api/epic/accounts/{account}/tunnels",
            "raw_path": b"",
            "query_string": f"cluster=c&node={self.node}&watch=true".encode(),
            "headers": [(b"authorization", _AUTHORIZATION)],
            "client": ("192.0.2.1", 1),
            "server": ("192.0.2.2", 443),
            "scheme": "https",
            "http_version": "1.1",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "state": {},
        }
        await app(scope, self.receive, self.take)

    async def receive(self) -> dict[str, Any]:
        if not self.events and not self.heard.is_set():
            return {"type": "http.request", "body": b"", "more_body": False}
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    async def take(self, message: Any) -> None:
        assert message.get("status", 200) == 200, message
        if message.get("body", b"").startswith(b"event:"):
            self.events += 1
            self.processor, self.clock = time.process_time(), time.perf_counter()
            self.heard.set()


@asynccontextmanager
async def following(app: FastAPI, accounts: tuple[str, ...], each: int) -> AsyncIterator[dict[str, Stream]]:
    """So many streams of each node, which have their first list; one of each of the first account's nodes."""
    found = [(a, Stream(f"n{i}")) for a in accounts for i in range(NODES) for _ in range(each)]
    tasks = [asyncio.create_task(stream.follow(app, account)) for account, stream in found]
    for _, stream in found:
        await stream.heard.wait()
    yield {stream.node: stream for account, stream in reversed(found) if account == accounts[0]}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def quiet() -> float:
    """The processor time of this process, when it does nothing any more."""
    before = -1.0
    while time.process_time() - before > 0.02:
        before = time.process_time()
        await asyncio.sleep(0.5)
    return before


async def move_pods(app: FastAPI, store: CachedStore) -> None:
    begun = await quiet()
    async with following(app, ("a0",), 1) as streams:
        print(f"{NODES} nodes begin to follow: {await quiet() - begun:.2f} s of processor time")
        in_all, processor, clock = [], [], []
        for count in range(1, MOVES + 1):
            before = await quiet()
            stream = streams[node_of(0, count)]
            stream.heard.clear()
            then = time.perf_counter()
            with store.transaction() as transaction:
                stored = transaction.get(GWEndpointSlice, "a0", "s0-0")
                spec = piece("a0", 0, 0, moved=count).spec
                transaction.update(stored.model_copy(update={"spec": spec}))
            await stream.heard.wait()
            processor.append(stream.processor - before)
            clock.append(stream.clock - then)
            in_all.append(await quiet() - before)
    all_, own, wall = (statistics.median(found) * 1e3 for found in (in_all, processor, clock))
    print(
        f"a pod moves, median of {MOVES}: {all_:.1f} ms of processor time in all; its node hears after "
        f"{own:.1f} ms of it, {wall:.0f} ms by the clock"
    )


async def idle(app: FastAPI, store: CachedStore) -> None:
    memory = rss()
    async with following(app, ("a0", "a1"), 2):
        await quiet()
        print(f"{4 * NODES} idle streams: {rss() - memory:.0f} MiB")
        spent = []
        for count in range(MOVES):
            before = await quiet()
            with store.transaction() as transaction:
                for number in range(OF_COMMIT):
                    made = tunnel("a2", 10**6 + OF_COMMIT * count + number, 0, "e1", "n0")
                    transaction.create(made)
            await asyncio.sleep(0)
            spent.append(await quiet() - before)
    print(
        f"another account's {OF_COMMIT} tunnels are written: {statistics.median(spent) * 1e3:.1f} ms of "
        "processor time, with writing them"
    )


def rss() -> float:
    """MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / (1 << 20)


async def main(path: Path) -> None:
    with closing(CachedStore(StoreLocation(sqlite=path))) as store:
        with store.transaction() as transaction:
            spec = UserSpec(password_hash=hash_password("secret"), admin=True)
            transaction.create(User(metadata=Metadata(name="admin"), spec=spec))
            for number in (1, 2):
                node = {"metadata": {"name": f"e{number}"}, "spec": {"address": f"192.0.2.{number}"}}
                transaction.create(Node.model_validate(node))
        for account in ("a0", "a1"):
            fill(store, account)
        context = Context(store=store, inside_pool=IPv4Network("100.64.0.0/10"), run_events=NoEvents())
        app = create_app(context)
        await move_pods(app, store)
        await idle(app, store)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(main(Path(directory) / "epic.db"))
