# SPDX-License-Identifier: Apache-2.0
"""What changes cost an agent of an EPIC node that holds 10,000 tunnels and 100,000 endpoints of 10 gateways.

The real reconciler and programs, in a network namespace: from the resources that arrive until the programs
have an endpoint, or have it no more, and Envoys are told. The 5 ms that it waits for more of a burst do not
count. Of large changes it is measured how long the event loop is held at most by one piece of them, in
processor time. Needs root and `make bpf`.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from ipaddress import IPv4Address
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / f"tests/{room}") for room in ("integration/agent", "integration", "bench")]

from agent_namespaces import Namespace  # noqa: E402
from agent_scale import GATEWAYS, assignment, bpffs, endpoint, gateway_state, inside  # noqa: E402

import epic.bpf  # noqa: E402
from epic.ads.snapshot import ENDPOINT, LOAD_ASSIGNMENT, Resources, versioned  # noqa: E402
from epic.agent.gateway.announcement import Announcer  # noqa: E402
from epic.agent.gateway.chance.second_chance import SecondChance  # noqa: E402
from epic.agent.gateway.control.resource_cache import ResourceCache  # noqa: E402
from epic.agent.gateway.envoy.drain import Drainer  # noqa: E402
from epic.agent.gateway.envoy.readiness import RELEASE_SECONDS  # noqa: E402
from epic.agent.gateway.envoy.registry import EnvoyRegistry  # noqa: E402
from epic.agent.gateway.envoy.xds import XdsSockets  # noqa: E402
from epic.agent.gateway.firewall import Firewall  # noqa: E402
from epic.agent.gateway.kernel import GatewayKernel  # noqa: E402
from epic.agent.gateway.reconcile import Envoys, Reconciler  # noqa: E402
from epic.agent.runtime.worker import Worker  # noqa: E402
from epic.agent.settings import UnderlaySettings  # noqa: E402
from epic.bpf.dataplane import Dataplane  # noqa: E402
from epic.model.values.naming import instance_interface  # noqa: E402
from epic.proto import epic_pb2  # noqa: E402

TUNNELS, ENDPOINTS, MEMBERS = 10_000, 100_000, 100
ROUNDS = 101
NODE = "bench"

LEAVING = 1000
_ALL = frozenset(range(1, TUNNELS + 1))

Change = Mapping[str, tuple[Resources, Sequence[str]]]
"""By type: what is updated, and what is removed."""


class Node:
    """An agent without connections."""

    def __init__(self, directory: Path, pins: Path) -> None:
        self._places = directory, pins
        self.plane = Dataplane(pins, Path(epic.bpf.__file__).with_name("gue.bpf.o"))
        self._cache = ResourceCache()
        self.worker = Worker("kernel")
        registry = EnvoyRegistry(lambda: None)
        self._kernel = GatewayKernel(self.plane, UnderlaySettings(interface="up0"), directory)
        self._routes = Announcer()
        self.second_chance = SecondChance(self.plane, NODE)
        self._reconciler = Reconciler(
            self._cache,
            self._kernel,
            self.worker,
            Envoys(registry, XdsSockets(registry, directory / "xds"), Drainer(Path, lambda: None)),
            self._routes,
            Firewall(directory / "firewall.nft", directory / "ports.nft", lambda: None),
            self.second_chance,
        )

    async def start(self) -> None:
        """Load the programs."""
        await self.worker.run(self._kernel.start)
        await self._routes.open()

    async def take(self, change: Change, *, whole: bool = False) -> float:
        """Make a change; how long it took in milliseconds. `whole`: with a look at all of the node."""
        begun = time.perf_counter()
        if whole:
            self._reconciler.wake()
        for type_url, (updated, removed) in change.items():
            self._cache.update(type_url, updated, removed)
        self._reconciler.accept_resources()
        await self._reconciler.round()
        return (time.perf_counter() - begun) * 1000

    def feed(self, change: Change) -> None:
        """Take a change in, as what comes from disk."""
        for type_url, (updated, removed) in change.items():
            self._cache.update(type_url, updated, removed)
        self._reconciler.accept_resources()

    def set_down(self, down: frozenset[int]) -> None:
        """These tunnels are silent."""
        self._reconciler.set_down(down)

    async def work(self, holds: Holds) -> float:
        """Make the node as it should be; milliseconds for which the event loop was held at most."""

        async def work() -> None:
            # What was done before is none of it.
            holds.take()
            await self._reconciler.round()

        await asyncio.create_task(work())
        return holds.take()[0]

    def has(self, number: int) -> bool:
        """Whether the programs have the endpoint."""
        return bool(self.plane.endpoints([(inside(0), IPv4Address(endpoint(number)))]))

    def another(self) -> Node:
        """An agent that comes after this one."""
        return Node(*self._places)

    def stop(self) -> None:
        """Leave the programs, as an agent that ends."""
        self._routes.close()
        self.worker.close()
        self._kernel.close()

    def close(self) -> None:
        """Leave nothing."""
        self.stop()
        self.plane.unload()


class Holds:
    """Milliseconds of processor time for which the event loop and the kernel's thread were held at a time."""

    def __init__(self, node: Node) -> None:
        self._loop, self._thread = 0.0, 0.0
        piece, call = asyncio.events.Handle._run, node.worker.run

        def timed_piece(handle: asyncio.Handle) -> None:
            begun = time.thread_time()
            piece(handle)
            self._loop = max(self._loop, time.thread_time() - begun)

        async def timed_call(work: Callable[..., Any], *arguments: object) -> Any:
            def timed() -> Any:
                begun = time.thread_time()
                try:
                    return work(*arguments)
                finally:
                    self._thread = max(self._thread, time.thread_time() - begun)

            return await call(timed)

        asyncio.events.Handle._run = timed_piece  # type: ignore[method-assign]
        node.worker.run = timed_call  # type: ignore[method-assign]

    def take(self) -> tuple[float, float]:
        """The longest since the last call, of the loop and of the thread."""
        found = self._loop * 1000, self._thread * 1000
        self._loop = self._thread = 0.0
        return found


async def measure(node: Node) -> None:
    """Fill, change one endpoint many times, print."""
    await node.start()
    filling = await node.take({url: (group, ()) for url, group in gateway_state(TUNNELS, ENDPOINTS).items()})
    # Without Envoys, endpoints may go only when these had the time to let go of them.
    await asyncio.sleep(RELEASE_SECONDS)
    times: dict[str, list[float]] = {"added": [], "removed": [], "added, and its Envoy told": []}
    for _ in range(ROUNDS):
        times["added"].append(await node.take({ENDPOINT: (_endpoint(ENDPOINTS), ())}))
        assert node.has(ENDPOINTS)
        times["removed"].append(await node.take({ENDPOINT: ({}, list(_endpoint(ENDPOINTS)))}))
        assert not node.has(ENDPOINTS)
    for number in range(ENDPOINTS, ENDPOINTS + ROUNDS):
        change = {ENDPOINT: (_endpoint(number), ()), LOAD_ASSIGNMENT: (_assignment(number), ())}
        times["added, and its Envoy told"].append(await node.take(change))
        assert node.has(number)
    node.set_down(_ALL)
    await node.take({})
    times["added while all tunnels are down"] = [
        await node.take({ENDPOINT: (_endpoint(number), ()), LOAD_ASSIGNMENT: (_assignment(number), ())})
        for number in range(ENDPOINTS + ROUNDS, ENDPOINTS + 2 * ROUNDS)
    ]
    print(f"all of {TUNNELS:,} tunnels and {ENDPOINTS:,} endpoints: {filling:,.0f} ms; then one endpoint is")
    for kind, found in times.items():
        middle, most = median(found), max(found)
        print(f"  {kind}: {middle:.2f} ms [{min(found):.2f}..{most:.2f}], 1/{filling / middle:,.0f} of all")
    print("the event loop is held at most, of processor time, when")
    for kind, most in (await _large_changes(node)).items():
        print(f"  {kind}: {most:.1f} ms")


async def _large_changes(node: Node) -> dict[str, float]:
    holds, found = Holds(node), {}
    node.set_down(frozenset())
    found["all tunnels come back"] = await node.work(holds)
    node.set_down(_ALL)
    found["all tunnels go down"] = await node.work(holds)
    leaving = [f"shop.g0/{endpoint(number * GATEWAYS)}" for number in range(LEAVING)]
    node.feed({ENDPOINT: ({}, leaving)})
    found[f"{LEAVING:,} endpoints go that Envoys still name"] = await node.work(holds)
    later = node.another()
    try:
        await later.start()
        later.feed({url: (group, ()) for url, group in gateway_state(TUNNELS, ENDPOINTS).items()})
        found["an agent starts where all is there"] = await later.work(holds)
    finally:
        later.stop()
    return found


def _endpoint(number: int) -> Resources:
    message = epic_pb2.Endpoint(
        gateway="shop.g0", inside_address=str(inside(0)), address=endpoint(number), tunnel=1
    )
    return {f"shop.g0/{endpoint(number)}": versioned(message)}


def _assignment(number: int) -> Resources:
    members = [endpoint(n * GATEWAYS) for n in range(MEMBERS - 1)]
    return {"shop.g0/service0": versioned(assignment("service0", [*members, endpoint(number)]))}


def run(measure: Callable[[Node], Coroutine[None, None, None]], gateways: int) -> None:
    """Measure in a namespace of its own, with interfaces of so many gateways."""
    namespace = Namespace()
    namespace.run(
        "ip link add up0 type veth peer name up1",
        "ip link set up0 up",
        "ip link set up1 up",
        "ip addr add 172.30.11.9/24 dev up0",
    )
    for number in range(gateways):
        name = instance_interface(f"shop.g{number}", inside(number))
        namespace.run(f"ip link add {name} type veth peer name i{number}", f"ip link set {name} up")
    with tempfile.TemporaryDirectory() as directory, bpffs(Path(directory) / "bpffs") as pins, namespace:
        node = Node(Path(directory), pins / "epic")
        try:
            asyncio.run(measure(node))
        finally:
            node.close()


if __name__ == "__main__":
    run(measure, GATEWAYS)
