# SPDX-License-Identifier: Apache-2.0
"""What requests to the REST application take of a processor, without sockets and TLS; what the first takes.

`api_requests.py [GATEWAYS]`; a tenth of the full size without a number. All is processor time, of the event
loop's thread and of the whole process, and is so on a busy machine too.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from ipaddress import IPv4Network
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).parents[1] / "model"))

from control import Calls, fill
from control_process import ADMIN, ControlProcess

from epic.api.app import create_app, make_ready
from epic.api.context import Context
from epic.cache.store import CachedStore
from epic.reconcile.current import CurrentWorld
from epic.runs.events import EventHub
from epic.store.location import StoreLocation

GATEWAYS, TIMES = 100, 60

Call = Callable[[int, int], Awaitable[httpx.Response]]


async def measure(title: str, call: Call, times: int) -> None:
    """Print what one takes, in the mean."""
    loop, process = time.thread_time(), time.process_time()
    for number in range(times):
        reply = await call(number * 7, number + 100)
        assert reply.status_code in {200, 302}, reply.text
    loop, process = time.thread_time() - loop, time.process_time() - process
    print(f"{title:40} {loop / times * 1e3:7.1f} ms of the loop {process / times * 1e3:7.1f} ms in all")


async def ask(store: CachedStore, count: int) -> None:
    """Ask for everything in turn."""
    world = CurrentWorld(store)
    world.prepare()
    pool = IPv4Network("100.64.0.0/10")
    app = create_app(Context(store=store, inside_pool=pool, run_events=EventHub(), world=world))
    begun = time.thread_time()
    await make_ready(app)
    print(f"{'making it ready':40} {(time.thread_time() - begun) * 1e3:7.1f} ms of the loop")
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="https://epic", auth=ADMIN) as client:
        calls = Calls(client, count)
        await measure("the first request, a slice's endpoint", calls.put_slice, 1)
        await measure("one write, a slice's endpoint", calls.put_slice, TIMES)
        await measure("one write, a route", calls.put_route, TIMES)
        await measure("one read, a route", calls.read, TIMES)


def main() -> None:
    """Print the figures."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else GATEWAYS
    with tempfile.TemporaryDirectory() as name:
        location = StoreLocation(sqlite=Path(name) / "store.db")
        ControlProcess(Path(name) / "control", location).prepare()
        fill(location, count)
        with closing(CachedStore(location)) as store:
            asyncio.run(ask(store, count))


if __name__ == "__main__":
    main()
