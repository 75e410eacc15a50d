# SPDX-License-Identifier: Apache-2.0
"""What siblings cost the control plane: how long new gateways are held, and leading many of them on.

`python tests/bench/siblings.py [GATEWAYS]`; needs the pinned Envoy, which validates. The two agents are no
agents: they say that they have a list as long after it as an agent takes to gather a burst and to report.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from ipaddress import IPv4Network
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "unit/ads")]

from ads_site import Held, Site, eventually, running  # noqa: E402
from node_certificates import issue  # noqa: E402
from stores import open_store  # noqa: E402

from epic.ads.delta.client import DeltaClient  # noqa: E402
from epic.ads.service import AdsService  # noqa: E402
from epic.ads.snapshot import INSTANCE, SIBLINGS, TYPES, Resources  # noqa: E402
from epic.api.bodies import ProxySpecInput  # noqa: E402
from epic.api.gateway.gateways import GatewaySettings, create_gateway  # noqa: E402
from epic.api.gateway.names import DNSNames, with_names  # noqa: E402
from epic.cache.store import CachedStore  # noqa: E402
from epic.model.resources import Account, GWProxy, LBServiceGroup, Node, ServicePrefix  # noqa: E402
from epic.model.siblings import Siblings  # noqa: E402
from epic.model.values.naming import GatewayId  # noqa: E402
from epic.proto import epic_pb2, epic_pb2_grpc  # noqa: E402
from epic.reconcile.service import ReconcilerService  # noqa: E402
from epic.reconcile.siblings import relist_gateway  # noqa: E402
from epic.reconcile.siblings_keeper import SiblingsKeeper  # noqa: E402
from epic.reconcile.world import World  # noqa: E402
from epic.rotation import Policy, Step  # noqa: E402
from epic.siblings.heard import AppliedLists  # noqa: E402

NODES = ("epic1", "epic2")
AGENT_SECONDS = 0.025
BURST = 30


class Agent(Held):
    """A node that has what it is sent at once, and says so; it notes when, by gateway."""

    def __init__(self, name: str, site: Site) -> None:
        super().__init__()
        self.name, self._site = name, site
        self.there: dict[str, float] = {}
        self.free: dict[str, float] = {}
        self._wake = asyncio.Event()
        self._wake.set()

    async def apply(self, type_url: str, updated: Resources, removed: Sequence[str]) -> str | None:
        if type_url == INSTANCE:
            for name, resource in updated.items():
                instance = epic_pb2.Instance.FromString(resource.body.value)
                self.there.setdefault(name, time.monotonic())
                if not instance.hold:
                    self.free.setdefault(name, time.monotonic())
        if type_url == SIBLINGS:
            self._wake.set()
        return await super().apply(type_url, updated, removed)

    async def follow(self) -> None:
        await DeltaClient(lambda: self._site.channel(self.name), self.name, TYPES, self).run()

    async def report(self) -> None:
        async with self._site.channel(self.name) as channel:
            stub = epic_pb2_grpc.AgentServiceStub(channel)
            while True:
                await self._wake.wait()
                await asyncio.sleep(AGENT_SECONDS)
                self._wake.clear()
                await stub.Report(self._said())

    def _said(self) -> epic_pb2.NodeReport:
        report = epic_pb2.NodeReport(node=self.name, second_chance=True, instances_only=True)
        lists = self.resources[SIBLINGS]
        for gateway in self.resources[INSTANCE]:
            version = lists[gateway].version if gateway in lists else ""
            report.instances.add(gateway=gateway, applied_siblings=version)
        return report


async def measure_hold(directory: Path) -> None:
    """From the POST until both nodes have the instance, and until neither is held any more."""
    site = Site(directory)
    issue(directory, "epic2")
    applied = AppliedLists()
    keeper = SiblingsKeeper(site.store, applied, Policy())
    service = ReconcilerService(site.store, keeper)

    def hear(gateways: Iterable[GatewayId]) -> None:
        keeper.hear(gateways)
        service.wake()

    site.service = AdsService(site.store, site.settings, applied=applied, hear_applied=hear)
    fill(site.store)
    agents = [Agent(name, site) for name in NODES]
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(site.serving())
        work = [service.run(), *(w for a in agents for w in (a.follow(), a.report()))]
        for task in work:
            await stack.enter_async_context(running(asyncio.create_task(task)))
        await eventually(lambda: all(node.status.second_chance for node in site.store.list(Node)))
        alone: dict[str, float] = {}
        for number in range(10):
            alone |= await post(site, [f"alone{number}"])
            await until_free(agents, alone)
        tell("a gateway by itself", agents, alone)
        burst = await post(site, [f"burst{number}" for number in range(BURST)])
        await until_free(agents, burst)
        tell(f"{BURST} gateways at once", agents, burst)


def fill(store: CachedStore) -> None:
    """What a gateway needs to be made."""
    pool = {"pool": "203.0.113.0/24", "subnet": "203.0.113.0/24"}
    group = {"metadata": {"name": "g", "namespace": "a"}, "spec": {"service-prefix": "p"}}
    with store.transaction() as transaction:
        transaction.create(
            Node.model_validate({"metadata": {"name": "epic2"}, "spec": {"address": "172.30.11.3"}})
        )
        transaction.create(
            ServicePrefix.model_validate({"metadata": {"name": "p"}, "spec": {"public-pool": pool}})
        )
        transaction.create(Account.model_validate({"metadata": {"name": "a"}, "spec": {"proxyLimit": 1000}}))
        transaction.create(LBServiceGroup.model_validate(group))


async def post(site: Site, names: Sequence[str]) -> dict[str, float]:
    """Make gateways; returns when each was asked for, by its id."""
    asked: dict[str, float] = {}
    for name in names:
        listeners = [{"name": "h", "port": 80, "protocol": "HTTP"}]
        client = {"uid": name, "clusterID": "c", "namespace": "n", "name": name}
        gateway = {"gatewayClassName": "k", "listeners": listeners}
        spec = ProxySpecInput.model_validate({"clientRef": client, "gateway": gateway})
        asked[f"a.{name}"] = time.monotonic()
        await asyncio.to_thread(_create, site.store, spec)
    return asked


def _create(store: CachedStore, spec: ProxySpecInput) -> None:
    def write(names: DNSNames) -> None:
        with store.transaction() as transaction:
            group = transaction.get(LBServiceGroup, "a", "g")
            settings = GatewaySettings(IPv4Network("100.64.0.0/16"), timedelta())
            create_gateway(transaction, World.of(transaction), group, spec, settings, names)

    with_names(write)


async def until_free(agents: Sequence[Agent], asked: Iterable[str]) -> None:
    """Wait until none of these is held on any node."""
    await eventually(lambda: all(gateway in agent.free for gateway in asked for agent in agents))


def tell(what: str, agents: Sequence[Agent], asked: dict[str, float]) -> None:
    """Print both times."""
    there = [max(agent.there[g] for agent in agents) - at for g, at in asked.items()]
    free = [max(agent.free[g] for agent in agents) - at for g, at in asked.items()]
    for name, found in (("POST to instance there", there), ("POST to no hold any more", free)):
        print(f"{what}: {name}: p50 {statistics.median(found) * 1e3:.0f} ms, max {max(found) * 1e3:.0f} ms")


def measure_keeping(directory: Path, gateways: int) -> None:
    """Processor time for many gateways on ten nodes: when nothing is to be done, and for a rotation."""
    store = open_store(directory / "many.db")
    nodes = make_many(store, gateways)
    ahead = [0.0]

    def clock() -> float:
        return time.monotonic() + ahead[0]

    def turn(name: str, keeper: SiblingsKeeper) -> None:
        # More than the grace of a key passes, and all know the newest lists.
        say_newest(store, applied, nodes)
        ahead[0] += 60
        say_newest(store, applied, nodes)
        begun, revision = time.process_time(), store.revision
        work(keeper)
        spent = (time.process_time() - begun) / gateways * 1e6
        print(f"{name}: {spent:.0f} us a gateway, {store.revision - revision} writes")

    applied = AppliedLists(clock)
    keeper = SiblingsKeeper(store, applied, Policy(), clock)
    keeper.begin()
    turn("all are let go", keeper)
    keeper.begin()
    work(keeper)
    turn("nothing is to be done", keeper)
    for step in Step:
        always = SiblingsKeeper(store, applied, Policy(period=timedelta(0)), clock)
        always.begin()
        turn(step.value, always)
    store.close()


def make_many(store: CachedStore, gateways: int) -> list[str]:
    """Gateways of two instances on ten nodes; returns the nodes."""
    names = [f"e{number}" for number in range(10)]
    for number, name in enumerate(names):
        spec = {"address": f"192.0.2.{number + 1}"}
        node = {"metadata": {"name": name}, "spec": spec, "status": {"second-chance": True}}
        with store.transaction() as transaction:
            transaction.create(Node.model_validate(node))
    by_name = {node.name: node for node in store.list(Node)}
    with store.transaction() as transaction:
        for number in range(gateways):
            instances = [
                {
                    "node": names[(number + n) % 10],
                    "inside-address": f"100.{64 + n}.{number // 250}.{number % 250}",
                }
                for n in range(2)
            ]
            proxy = {
                "metadata": {"name": f"u{number}", "namespace": "a"},
                "spec": {"public-address": f"203.0.{number // 250}.{number % 250 + 1}"},
                "status": {"instances": instances},
            }
            made = transaction.create(GWProxy.model_validate(proxy))
            relist_gateway(transaction, made, by_name)
    return names


def say_newest(store: CachedStore, applied: AppliedLists, nodes: Iterable[str]) -> None:
    """All nodes say that they have the newest lists."""
    lists = store.list(Siblings)
    for node in nodes:
        mine = [s for s in lists if node in s.spec.nodes]
        applied.take(node, {GatewayId(s.account, s.name): s.spec.version for s in mine})


def work(keeper: SiblingsKeeper) -> None:
    """Until nothing is due."""
    while keeper.wait() == 0:
        keeper.work()


def measure(what: Callable[[Path], None]) -> None:
    """Measure in a directory of its own."""
    with tempfile.TemporaryDirectory() as directory:
        what(Path(directory))


if __name__ == "__main__":
    measure(lambda directory: asyncio.run(measure_hold(directory)))
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    measure(lambda directory: measure_keeping(directory, count))
