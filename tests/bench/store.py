# SPDX-License-Identifier: Apache-2.0
"""What the store costs on each engine: commits, gets, lists, watches, start; etcd as a ratio to SQLite.

`python tests/bench/store.py [SECONDS a point]`; etcd needs tools/setup --etcd. Client and server share the
machine, which is noisy: the engines take turns, ROUNDS times, and the medians are printed.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "model")]

from etcd_server import EtcdServer  # noqa: E402
from store_sites import SCHEMA, EtcdSite, SqliteSite, StoreSite  # noqa: E402

from epic.store.object_store import ObjectStore  # noqa: E402
from epic.store.objects import Batch, Key, Put  # noqa: E402

BODY = b'{"spec":"' + b"x" * 2000 + b'"}'
OBJECTS = 10_000
CLIENTS = 50
ROUNDS = 3
POINTS = [(1, 1), (10, 1), (CLIENTS, 1), (CLIENTS, 3)]

Figures = dict[str, float]


async def measure(site: StoreSite, seconds: float) -> Figures:
    """All figures of one engine: milliseconds, or commits a second."""
    store = await site.open(SCHEMA)
    await fill(store)
    figures: Figures = {}
    for clients, objects in POINTS:
        name = f"{clients} clients, {objects} object{'s' if objects > 1 else ''} a commit"
        figures |= await commits(store, clients, objects, seconds, name)
    keys = [Key("GWRoute", "shop", f"r{i:05}") for i in range(OBJECTS)]
    figures |= latencies("get", await repeat(lambda i: store.get(keys[i * 7 % OBJECTS]), seconds))
    figures |= latencies("list of 500", await repeat(lambda _: store.list("GWRoute", limit=500), seconds))
    figures |= latencies(f"list of {OBJECTS}", await repeat(lambda _: store.list("GWRoute"), seconds))
    figures |= await watching(store, await site.open(SCHEMA), seconds)
    await site.close_all()
    begin = time.perf_counter()
    store = await site.open(SCHEMA)
    await store.get(keys[0])
    figures["open"] = (time.perf_counter() - begin) * 1000
    return figures


async def fill(store: ObjectStore) -> None:
    """OBJECTS objects of 2 kB."""
    for first in range(0, OBJECTS, 100):
        keys = [Key("GWRoute", "shop", f"r{i:05}") for i in range(first, first + 100)]
        await store.commit(*(Put(key, BODY, 0, {"app": "shop"}) for key in keys))


async def commits(store: ObjectStore, clients: int, objects: int, seconds: float, name: str) -> Figures:
    """Each client writes its own objects again and again."""
    end = time.perf_counter() + seconds
    taken: list[float] = []

    async def client(number: int) -> None:
        account = f"c{clients}-{objects}-{number}"
        keys = [Key("GWService", account, f"s{i}") for i in range(objects)]
        revision = 0
        while (begin := time.perf_counter()) < end:
            revision = await store.commit(*(Put(key, BODY, revision) for key in keys))
            taken.append(time.perf_counter() - begin)

    begin = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(clients)))
    rate = len(taken) / (time.perf_counter() - begin)
    await store.compact(await store.revision())
    return {f"{name}: commits/s": rate, **latencies(f"{name}: commit", taken)}


async def repeat(call: Callable[[int], Awaitable[object]], seconds: float) -> list[float]:
    """Call again and again, one after the other."""
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while (begin := time.perf_counter()) < end:
        await call(len(taken))
        taken.append(time.perf_counter() - begin)
    return taken


async def watching(store: ObjectStore, other: ObjectStore, seconds: float) -> Figures:
    """From before a commit until its event is in a watcher; and by how much after the commit's answer."""
    from_commit: list[float] = []
    after_answer: list[float] = []
    key = Key("Node", "", "watched")
    revision = 0
    end = time.perf_counter() + seconds
    async with aclosing(other.watch(None, None, await other.revision())) as batches:
        while time.perf_counter() < end:
            seen = asyncio.create_task(arrival(batches.__anext__, key))
            begin = time.perf_counter()
            revision = await store.commit(Put(key, BODY, revision))
            answered = time.perf_counter()
            arrived = await seen
            from_commit.append(arrived - begin)
            after_answer.append(max(0.0, arrived - answered))
    return {
        **latencies("watch: from before the commit to the event", from_commit),
        **latencies("watch: event after the commit's answer", after_answer),
    }


async def arrival(next_batch: Callable[[], Awaitable[Batch]], key: Key) -> float:
    """When an event of this object came."""
    while True:
        batch = await next_batch()
        if any(event.key == key for event in batch.events):
            return time.perf_counter()


def latencies(name: str, taken: list[float]) -> Figures:
    """p50 and p99 in ms."""
    found = sorted(taken)
    return {
        f"{name}, p50": statistics.median(found) * 1000,
        f"{name}, p99": found[int(len(found) * 0.99)] * 1000,
    }


def syncs(directory: Path) -> Figures:
    """What the disk itself takes to make 4 kB durable."""
    taken = []
    descriptor = os.open(directory / "probe", os.O_WRONLY | os.O_CREAT)
    # As a log that is used again and again: the file has its size already.
    os.pwrite(descriptor, os.urandom(1024 * 1024), 0)
    os.fsync(descriptor)
    for _ in range(300):
        begin = time.perf_counter()
        os.pwrite(descriptor, os.urandom(4096), 0)
        os.fdatasync(descriptor)
        taken.append(time.perf_counter() - begin)
    os.close(descriptor)
    return latencies("the disk: 4 kB made durable", taken)


async def main() -> None:
    """Print the table."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for figure, value in syncs(directory).items():
            print(f"{figure}: {value:.2f} ms")
        server = EtcdServer(directory)
        server.start()
        rounds: list[tuple[Figures, Figures]] = []
        try:
            for number in range(ROUNDS):
                sqlite = await measure(SqliteSite(directory / f"objects{number}.db"), seconds)
                etcd = await measure(EtcdSite(server.settings(f"/round{number}/")), seconds)
                rounds.append((sqlite, etcd))
        finally:
            server.stop()
    print(f"{'':60} {'SQLite':>9} {'etcd':>9} {'ratio':>6}")
    for figure in rounds[0][0]:
        one, other = (statistics.median(each[engine][figure] for each in rounds) for engine in (0, 1))
        print(f"{figure:60} {one:9.2f} {other:9.2f} {other / one:6.2f}")


if __name__ == "__main__":
    asyncio.run(main())
