# SPDX-License-Identifier: Apache-2.0
"""What the siblings of 1,000 gateways cost an EPIC node's agent: a change of one, of all, and the metrics.

The real reconciler and programs, in a network namespace. Besides how long it takes it is measured how long
the event loop, and the kernel's thread, are held at most by one piece of it. Needs root and `make bpf`.

`agent_siblings.py [GATEWAYS]`
"""

from __future__ import annotations

import gc
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/bench")]

from agent_change import NODE, Holds, Node, run  # noqa: E402
from agent_scale import INSTANCE, gateway_state  # noqa: E402

from epic.ads.snapshot import SIBLINGS, TYPES, Resources, versioned  # noqa: E402
from epic.agent.gateway import metrics  # noqa: E402
from epic.agent.gateway.control.report import TunnelReport  # noqa: E402
from epic.proto import epic_pb2  # noqa: E402

INTERFACES, ROUNDS = 10, 31
_OTHERS = [IPv4Address("172.30.11.20") + number for number in range(3)]


def _siblings(number: int, version: int = 0) -> Resources:
    """Of one gateway: this node and three others."""
    siblings = [epic_pb2.Sibling(node=NODE, index=0, address="172.30.11.9")]
    siblings += [
        epic_pb2.Sibling(node=f"other{n}", index=n + 1, address=str(address), draining=version % 2 == n)
        for n, address in enumerate(_OTHERS)
    ]
    message = epic_pb2.Siblings(
        gateway=f"shop.g{number}",
        public_addresses=[str(IPv4Address("203.0.112.0") + number + 1)],
        siblings=siblings,
        keys=[epic_pb2.Key(epoch=1, secret=number.to_bytes(16, "big"))],
        signing_epoch=1,
    )
    return {f"shop.g{number}": versioned(message)}


async def measure(node: Node) -> None:
    """Fill, change one gateway's many times, and all; read and render what is counted; print."""
    gateways = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    await node.start()
    gc.freeze()
    instances = gateway_state(1, 1)[INSTANCE]
    await node.take({url: ({}, ()) for url in TYPES} | {INSTANCE: (instances, ())})
    holds = Holds(node)
    everybody = {name: r for g in range(gateways) for name, r in _siblings(g).items()}
    found = {"all are new": [await node.take({SIBLINGS: (everybody, ())})]}
    held = {"all are new": holds.take()}

    async def note(what: str, work: Callable[[int], Awaitable[float]]) -> None:
        found[what] = [await work(number) for number in range(1, ROUNDS + 1)]
        held[what] = holds.take()

    await note("nothing changes", lambda _: node.take({}))
    await note("one changes", lambda n: node.take({SIBLINGS: (_siblings(n % gateways, n), ())}))
    await note("a look at all", lambda _: node.take({}, whole=True))
    await note("a node is silent, or not any more", lambda n: _silence(node, n))
    await note("metrics", lambda _: _metrics(node))
    assert len(dict(node.plane.siblings())) == gateways
    print(f"siblings of {gateways:,} gateways; the event loop and the kernel's thread held at most at a time")
    for what, times in found.items():
        part = f"1/{found['all are new'][0] / median(times):,.0f} of all"
        loop, thread = held[what]
        print(f"  {what}: {median(times):.2f} ms, {part}; {loop:.1f} ms, {thread:.1f} ms")


async def _silence(node: Node, number: int) -> float:
    begun = time.perf_counter()
    node.second_chance.lost = frozenset(_OTHERS[:1] if number % 2 else ())
    await node.worker.run(node.second_chance.renew)
    await node.worker.repeat(node.second_chance.work)
    return (time.perf_counter() - begun) * 1000


async def _metrics(node: Node) -> float:
    begun = time.perf_counter()
    chances = dict(await node.worker.collect(node.second_chance.counters(), 128))
    text = await metrics.render(TunnelReport([], {}, chances), {}, (), Counter(), {})
    lines = sum(len(vars(counters)) for counters in chances.values())
    assert text.count("epic_second_chance_total{") == lines > 0
    return (time.perf_counter() - begun) * 1000


if __name__ == "__main__":
    run(measure, INTERFACES)
