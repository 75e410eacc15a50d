# SPDX-License-Identifier: Apache-2.0
"""What one endpoint more costs the ADS of epic-control on a node that has 100,000 of them.

The real index of objects, parts, publication and streams over gRPC, in one event loop; the store is a queue
of changes, Envoy's judgement is left out. The node's agent is a process of its own that takes everything.
Given is the processor time of the event loop's thread: until the change is sent, and from then until nothing
is left to do after the answer; and the longest that one piece of work held the loop.

`ads_change.py [GATEWAYS]`
"""

from __future__ import annotations

import asyncio
import gc
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Self

import grpc
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.service.discovery.v3 import ads_pb2_grpc
from envoy.service.discovery.v3 import discovery_pb2 as pb

sys.path.insert(0, str(Path(__file__).parent))

from control import PARTS, gateway, meta, route, slice_, slice_spec, tunnels

from epic.ads.delta.client import DeltaClient
from epic.ads.desired import configurations
from epic.ads.desired.assemble import Accepted
from epic.ads.desired.configurations import Key
from epic.ads.desired.objects import Inputs, ObjectIndex
from epic.ads.service import AdsService
from epic.ads.settings import AdsSettings
from epic.ads.snapshot import ENDPOINT, TYPES, Resources
from epic.envoy.resources import Bundle
from epic.gatewayapi.translate import translate
from epic.model.base import Resource
from epic.model.resources import GWEndpointSlice, GWRoute, LBServiceGroup, Node
from epic.model.values.naming import GatewayId
from epic.store.interface import Change

GATEWAYS, NODE, ROUNDS, IDLE_SECONDS = 1000, "e1", 21, 0.3
GOAL_MS = 20.0


class Objects:
    """A store of objects that cannot be written to, and a watch that is told what changes."""

    revision = 1

    def __init__(self, count: int) -> None:
        self._objects: list[Resource] = [
            Node.model_validate({"metadata": {"name": name}, "spec": {"address": f"172.30.11.{n}"}})
            for n, name in ((1, "e1"), (2, "e2"))
        ]
        self._numbers = 0
        for number in range(count):
            self.create(gateway(number))
            tunnels(self, number, self._objects[-1])  # type: ignore[arg-type]
            for part in range(PARTS):
                self.create(route(number, part))
                self.create(slice_(number, part))
        self._changes: asyncio.Queue[Change] = asyncio.Queue()

    def create(self, obj: Resource) -> Resource:
        """As a transaction does."""
        self._objects.append(obj)
        return obj

    def next_number(self, _: str) -> int:
        """As a transaction does."""
        self._numbers += 1
        return self._numbers

    def put(self, obj: Resource) -> None:
        """Tell of a change."""
        self._changes.put_nowait(Change(2, obj.kind, obj.account, obj.name, obj))

    def list(self, kind: type[Resource], account: str | None = None) -> list[Resource]:
        return [o for o in self._objects if isinstance(o, kind) and account in {None, o.account}]

    def unreadable(self, *_: object) -> Sequence[Any]:
        return ()

    def exists(self, *_: object) -> bool:
        return True

    async def watch(self, _: int) -> AsyncIterator[Change]:
        while True:
            yield await self._changes.get()


async def _translated(_: object, inputs: Inputs, key: Key, __: object) -> Accepted:
    """Every cluster there is to be, without text and without a judge."""
    routing = translate(inputs.proxy, inputs.routes, key.services).routing
    names = [cluster.name for cluster in routing.clusters]
    return Accepted(routing, Bundle("1", {name: Cluster(name=name) for name in names}, {}, {}))


class _Silent:
    """Statuses that nobody writes down."""

    async def configured(self, *_: object) -> None:
        pass

    async def silent(self, *_: object) -> None:
        pass


class Holds:
    """The longest that a piece of work has held the event loop, in milliseconds of processor time."""

    def __init__(self) -> None:
        self._longest, piece = 0.0, asyncio.events.Handle._run

        def timed(handle: asyncio.Handle) -> None:
            begun = time.thread_time()
            piece(handle)
            self._longest = max(self._longest, time.thread_time() - begun)

        asyncio.events.Handle._run = timed  # type: ignore[method-assign]

    def take(self) -> float:
        """The longest since the last call."""
        found, self._longest = self._longest * 1000, 0.0
        return found


class Noted(ads_pb2_grpc.AggregatedDiscoveryServiceServicer):  # type: ignore[misc]
    """The service's streams; notes when it sent something, and when something was said last."""

    def __init__(self, service: AdsService) -> None:
        self._server = service._server
        self._server._authorize = lambda *_: None
        self.sent: list[pb.DeltaDiscoveryResponse] = []
        self.sent_at = self.heard_at = 0.0
        self.streams = 0

    async def DeltaAggregatedResources(  # noqa: N802 - the name that gRPC calls
        self, requests: AsyncIterator[pb.DeltaDiscoveryRequest], context: Any
    ) -> None:
        self.streams += 1
        self.heard_at = time.monotonic()
        write = context.write

        async def noted(response: pb.DeltaDiscoveryResponse) -> None:
            await write(response)
            self.sent.append(response)
            self.sent_at, self.heard_at = time.thread_time(), time.monotonic()

        async def heard() -> AsyncIterator[pb.DeltaDiscoveryRequest]:
            async for request in requests:
                self.heard_at = time.monotonic()
                yield request

        await self._server.DeltaAggregatedResources(heard(), _Context(context, noted))

    async def until_idle(self) -> None:
        """Until nothing was said for a while."""
        while time.monotonic() - self.heard_at < IDLE_SECONDS:  # noqa: ASYNC110 - silence has no event
            await asyncio.sleep(IDLE_SECONDS / 3)


class _Context:
    def __init__(self, context: Any, write: Any) -> None:
        self._context, self.write = context, write

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


class Site:
    """The service on its objects, and how long its loop is held."""

    def __init__(self, count: int, directory: Path) -> None:
        self.objects, self.holds = Objects(count), Holds()
        self.socket = f"unix:{directory}/ads.sock"
        settings = AdsSettings("", 0, directory, directory, None, directory)  # type: ignore[arg-type]
        self.service = AdsService(self.objects, settings)  # type: ignore[arg-type]
        self.service._statuses = _Silent()  # type: ignore[assignment]
        self.service._validate = lambda _: asyncio.sleep(0)  # type: ignore[method-assign]
        self.service._configurations._validate = self.service._validate
        self.noted = Noted(self.service)

    async def __aenter__(self) -> Self:
        await self._listen()
        self._work = asyncio.create_task(self.service._follow())
        while not self.service._server.published:  # noqa: ASYNC110 - there is no event of it
            await asyncio.sleep(0.1)
        gc.collect()
        gc.freeze()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._work.cancel()
        await self._server.stop(None)

    async def _listen(self) -> None:
        self._server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
        ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(self.noted, self._server)
        self._server.add_insecure_port(self.socket)
        await self._server.start()

    async def come_back(self) -> None:
        """The node's stream ends, and it comes back with all that it has."""
        before = self.noted.streams
        await self._server.stop(None)
        await self._listen()
        while self.noted.streams == before:  # noqa: ASYNC110 - likewise
            await asyncio.sleep(0.1)
        await self.noted.until_idle()

    async def node(self) -> asyncio.subprocess.Process:
        """An agent that comes with nothing."""
        node = await asyncio.create_subprocess_exec(sys.executable, __file__, "--node", self.socket)
        while not self.noted.sent:  # noqa: ASYNC110 - likewise
            await asyncio.sleep(0.1)
        await self.noted.until_idle()
        return node

    async def change(self, turn: int) -> tuple[float, float]:
        """One endpoint more: processor time of the loop until it is sent, and from then on, in ms."""
        self.noted.sent.clear()
        begun = time.thread_time()
        self.objects.put(_grown(turn))
        while not self.noted.sent:  # noqa: ASYNC110 - an event would be one of the harness in what is measured
            await asyncio.sleep(0.001)
        await self.noted.until_idle()
        sent = [r.name for response in self.noted.sent for r in response.resources]
        assert any(response.type_url == ENDPOINT for response in self.noted.sent), sent
        return (self.noted.sent_at - begun) * 1000, (time.thread_time() - self.noted.sent_at) * 1000


def _grown(turn: int) -> GWEndpointSlice:
    """The first gateway's first slice with another last endpoint each time."""
    content = slice_spec(0, 0, 20 + turn)
    content |= {"client-ref": content["clientRef"], "parent-ref": content["parentRef"]}
    return GWEndpointSlice.model_validate({"metadata": meta(0, "s0-0-x"), "spec": content})


async def measure(count: int) -> None:
    """One endpoint more on a node of so many gateways, and the node that comes anew."""
    with tempfile.TemporaryDirectory() as directory:
        async with Site(count, Path(directory)) as site:
            print(f"a node with {count * PARTS * 10:,} endpoints of {count:,} gateways", flush=True)
            # What made the site is a piece of work of the harness, and ends first.
            await asyncio.sleep(0)
            site.holds.take()
            node = await site.node()
            print(f"  it comes with nothing: the loop is held {site.holds.take():.1f} ms at most", flush=True)
            times = [await site.change(turn) for turn in range(ROUNDS)]
            until, after = (median(found) for found in zip(*times, strict=True))
            held = site.holds.take()
            print(f"  one endpoint more: {until:.1f} ms until it is sent, {after:.1f} ms after the answer")
            print(
                f"  … the loop is held {held:.1f} ms at most (goal {GOAL_MS:.0f} ms: {_is_met(held)})",
                flush=True,
            )
            await site.come_back()
            print(
                f"  it comes back with all of it: the loop is held {site.holds.take():.1f} ms at most",
                flush=True,
            )
            node.terminate()
            await node.wait()


def _is_met(held: float) -> str:
    return "met" if held <= GOAL_MS else "missed"


def look_up(count: int) -> None:
    """A change of one slice, of a gateway among so many of its account."""
    index, template = ObjectIndex(), {"metadata": {"name": "g"}, "spec": {"service-prefix": "big"}}
    objects = Objects(count).list(Resource)
    # Last the routes: an index that goes through them with each slice would be filled for ever.
    objects.sort(key=lambda obj: isinstance(obj, GWRoute))
    for obj in (*objects, LBServiceGroup.model_validate(template)):
        index.apply(Change(1, obj.kind, _account(obj), obj.name, _moved(obj)))
    times = []
    for turn in range(ROUNDS):
        changed = _moved(_grown(turn))
        begun = time.thread_time()
        touched = index.apply(Change(2, changed.kind, changed.account, changed.name, changed))
        found = index.inputs(GatewayId("one", "g0"))
        times.append((time.thread_time() - begun) * 1000)
        assert touched == {GatewayId("one", "g0")}
        assert found is not None
        assert len(found.routes) == PARTS
    routes = count * PARTS
    print(f"an account of {routes:,} routes, a slice changes: {median(times):.2f} ms to find what it touches")


def _account(obj: Resource) -> str:
    return "" if isinstance(obj, Node) else "one"


def _moved(obj: Any) -> Any:
    """The object in the one account."""
    metadata = obj.metadata.model_copy(update={"namespace": _account(obj) or None})
    return obj.model_copy(update={"metadata": metadata})


class Taker:
    """An agent that takes everything."""

    def __init__(self) -> None:
        self._held: dict[str, dict[str, str]] = {type_url: {} for type_url in TYPES}

    async def apply(self, type_url: str, updated: Resources, removed: Sequence[str]) -> None:
        self._held[type_url].update((name, resource.version) for name, resource in updated.items())
        for name in removed:
            self._held[type_url].pop(name, None)

    def versions(self, type_url: str) -> dict[str, str]:
        return self._held[type_url]


def main() -> None:
    """Print the figures."""
    if sys.argv[1:2] == ["--node"]:
        options = [("grpc.max_receive_message_length", -1)]
        channel = lambda: grpc.aio.insecure_channel(sys.argv[2], options)  # noqa: E731
        asyncio.run(DeltaClient(channel, NODE, TYPES, Taker()).run())
    configurations._Translator.translate = _translated  # type: ignore[method-assign, assignment]
    count = int(sys.argv[1]) if len(sys.argv) > 1 else GATEWAYS
    for some in (max(count // 100, 1), count):
        look_up(some)
        asyncio.run(measure(some))


if __name__ == "__main__":
    main()
