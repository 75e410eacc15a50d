# SPDX-License-Identifier: Apache-2.0
"""In whatever order what happens: nodes have what they would have if all of it were made anew.

The real service and its streams, with a store in memory and without Envoy. `EPIC_ADS_SEQUENCES=1000` plays
more sequences.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from envoy.config.cluster.v3.cluster_pb2 import Cluster
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from publication_world import (
    Agent,
    Objects,
    Unheard,
    gateway_object,
    node_object,
    route_object,
    siblings_object,
    slice_object,
    tunnel_object,
)
from whole_snapshot import node_snapshot

from epic.ads import service
from epic.ads.delta import unpaced
from epic.ads.desired import configurations, parts
from epic.ads.desired import nodes as nodes_module
from epic.ads.desired.assemble import Accepted, GatewayParts, gateway_parts, node_state
from epic.ads.desired.configurations import Key
from epic.ads.desired.objects import Inputs
from epic.ads.desired.parts import Parts
from epic.ads.desired.siblings import SiblingLists
from epic.ads.service import AdsService
from epic.ads.settings import AdsSettings
from epic.ads.snapshot import NODE_STATE, Resources, Snapshot
from epic.envoy.endpoints import TargetPorts
from epic.envoy.resources import Bundle
from epic.gatewayapi.translate import translate
from epic.ipam.networks import DEFAULT_POOLS, Pools
from epic.lifecycle.digest import Placed
from epic.model.resources import EnvoyResources, GWEndpointSlice, GWProxy, GWRoute, Node, Tunnel
from epic.model.siblings import Siblings
from epic.model.values.naming import GatewayId
from epic.store.interface import Change
from epic.tunnels import proxy_services, route_parents
from epic.workqueue.threads import ThreadPool

EXAMPLES = int(os.environ.get("EPIC_ADS_SEQUENCES", "30"))
ACCOUNTS, NODES, GATEWAYS, SERVICES = ("a", "b"), ("e1", "e2"), ("g1", "g2"), ("S1", "S2")

accounts, nodes = st.sampled_from(ACCOUNTS), st.sampled_from(NODES)
gateways = st.builds(GatewayId, accounts, st.sampled_from(GATEWAYS))
on_nodes = st.sets(nodes)


async def translated(_: object, inputs: Inputs, key: Key, __: object) -> Accepted:
    """Every cluster there is to be, without text."""
    routing = translate(inputs.proxy, inputs.routes, key.services).routing
    names = sorted(cluster.name for cluster in routing.clusters)
    return Accepted(routing, Bundle(",".join(names), {name: Cluster(name=name) for name in names}, {}, {}))


def tunnel_name(number: int, gateway: GatewayId) -> str:
    """A tunnel is of one gateway for ever."""
    return str(number + 10 * ACCOUNTS.index(gateway.account) + 100 * GATEWAYS.index(gateway.proxy))


def _but(account: str, resources: Resources) -> Resources:
    """Those of all other accounts."""
    return {name: resource for name, resource in resources.items() if not name.startswith(account)}


class Comparison(RuleBasedStateMachine):
    """The service, and what would be there if all were made anew of the objects."""

    def __init__(self) -> None:
        super().__init__()
        self.broken: set[GatewayId] = set()
        self.building = asyncio.Event()
        self.building.set()
        self.patches = [
            patch.object(asyncio, "to_thread", self.aside),
            patch.object(parts, "_MOST_AT_ONCE", 6),
            patch.object(nodes_module, "_MOST_AT_ONCE", 1),
            patch.object(unpaced, "_MOST_AT_ONCE", 2),
            patch.object(unpaced, "_MOST_LEAVING", 2),
            patch.object(parts, "gateway_parts", self.parts_of),
            patch.object(configurations._Translator, "translate", translated),
            patch.object(ThreadPool, "run", lambda _, *work: self.aside(*work)),
            patch.object(service, "_DEBOUNCE_SECONDS", 0),
            patch.object(service, "_AGAIN_SECONDS", 3600),
        ]
        for each in self.patches:
            each.start()
        self.loop = asyncio.new_event_loop()
        self.store = Objects()
        settings = AdsSettings("", 0, Path(), Path(), None, Path())  # type: ignore[arg-type]
        self.service = AdsService(self.store, settings)  # type: ignore[arg-type]
        self.service._statuses = Unheard()  # type: ignore[assignment]
        self.service._configurations._validate = lambda _: asyncio.sleep(0)  # type: ignore[assignment]
        self.server = self.service._server
        self.server._authorize = lambda *_: None
        self.server._client_of = lambda agent: str(id(agent))
        self.agents = {node: Agent() for node in NODES}
        self.streams: dict[str, asyncio.Task[None]] = {}
        for node in NODES:
            self.put_node(node, removals=0)
        for account in ACCOUNTS:
            for name in GATEWAYS:
                self.put_gateway(GatewayId(account, name), {"e1"}, draining=False, service=1)
                self.put_tunnel(1, GatewayId(account, name), "e1", deleting=False)
            self.put_route(account, 1, set(GATEWAYS), "S1")
            self.put_slice(account, 1, "S1", {1, 2})
        self.follow()
        for node in NODES:
            self.reconnect(node)

    def teardown(self) -> None:
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.turn()
        self.loop.close()
        for each in self.patches:
            each.stop()

    def turn(self, step: Callable[[], object] = lambda: None) -> None:
        """Do something in the event loop, and all that comes of it."""

        async def work() -> None:
            step()
            for _ in range(50):
                await asyncio.sleep(0)

        self.loop.run_until_complete(work())

    async def aside(self, function: Callable[..., Any], *arguments: object) -> Any:
        """In place of a thread: what builds parts takes until it is let."""
        await asyncio.sleep(0)
        if isinstance(getattr(function, "__self__", None), Parts):
            await self.building.wait()
        return function(*arguments)

    def parts_of(self, inputs: Inputs, accepted: Accepted | None, pools: Pools) -> GatewayParts:
        if inputs.proxy.id in self.broken:
            raise ValueError("a fault with this one's objects")
        return gateway_parts(inputs, accepted, pools)

    def follow(self) -> None:
        def begin() -> None:
            self.following = self.loop.create_task(self.service._follow())

        self.turn(begin)

    # What happens

    @rule(node=nodes, removals=st.integers(0, 1), lost=st.sampled_from([False, False, True]))
    def put_node(self, node: str, removals: int, *, lost: bool = False) -> None:
        self.store.put(node_object(node, removals, lost=lost))

    @rule(node=nodes)
    def delete_node(self, node: str) -> None:
        self.store.delete(Node.kind, "", node)

    @rule(gateway=gateways, on=on_nodes, draining=st.booleans(), service=st.integers(1, 2))
    def put_gateway(self, gateway: GatewayId, on: set[str], draining: bool, service: int) -> None:
        self.store.put(gateway_object(gateway, on, draining=draining, service=service))

    @rule(gateway=gateways)
    def delete_gateway(self, gateway: GatewayId) -> None:
        self.store.delete(GWProxy.kind, *gateway)

    @rule(
        account=accounts,
        number=st.integers(1, 2),
        on=st.sets(st.sampled_from(GATEWAYS)),
        to=st.sampled_from(SERVICES),
    )
    def put_route(self, account: str, number: int, on: set[str], to: str) -> None:
        self.store.put(route_object(account, number, on, to))

    @rule(account=accounts, number=st.integers(1, 2))
    def delete_route(self, account: str, number: int) -> None:
        self.store.delete(GWRoute.kind, account, f"r{number}")

    @rule(
        account=accounts,
        number=st.integers(1, 2),
        of=st.sampled_from(SERVICES),
        last=st.sets(st.integers(1, 5), max_size=4),
    )
    def put_slice(self, account: str, number: int, of: str, last: set[int]) -> None:
        self.store.put(slice_object(account, number, of, last))

    @rule(account=accounts, number=st.integers(1, 2))
    def delete_slice(self, account: str, number: int) -> None:
        self.store.delete(GWEndpointSlice.kind, account, f"s{number}")

    @rule(number=st.integers(1, 4), gateway=gateways, node=nodes, deleting=st.booleans())
    def put_tunnel(self, number: int, gateway: GatewayId, node: str, deleting: bool) -> None:
        self.store.put(tunnel_object(tunnel_name(number, gateway), gateway, node, deleting=deleting))

    @rule(number=st.integers(1, 4), gateway=gateways)
    def delete_tunnel(self, number: int, gateway: GatewayId) -> None:
        self.store.delete(Tunnel.kind, gateway.account, tunnel_name(number, gateway))

    @rule(gateway=gateways, on=on_nodes)
    def put_siblings(self, gateway: GatewayId, on: set[str]) -> None:
        self.store.put(siblings_object(gateway, on))

    @rule(gateway=gateways)
    def delete_siblings(self, gateway: GatewayId) -> None:
        self.store.delete(Siblings.kind, *gateway)

    @rule()
    def hold_building(self) -> None:
        self.building.clear()

    @rule()
    def go_on_building(self) -> None:
        self.turn(self.building.set)

    @rule(gateway=gateways)
    def break_gateway(self, gateway: GatewayId) -> None:
        self.broken.add(gateway)

    @rule()
    def mend_gateways(self) -> None:
        mended, self.broken = self.broken, set()
        self.turn(lambda: [self.service._touch(gateway) for gateway in mended])

    @rule()
    def lose_the_store(self) -> None:
        self.turn(self.store.break_watch)
        self.follow()

    @rule(node=nodes)
    def reconnect(self, node: str) -> None:
        if node in self.streams:
            self.turn(self.streams[node].cancel)
        agent = self.agents[node]
        agent.refused.clear()

        def begin() -> None:
            agent.begin(node)
            work = self.server.DeltaAggregatedResources(agent.requests(), agent)  # type: ignore[arg-type]
            self.streams[node] = self.loop.create_task(work)

        self.turn(begin)

    @precondition(lambda self: any(agent.unanswered for agent in self.agents.values()))
    @rule(node=nodes, refuses=st.sampled_from([False, False, True]))
    def answer(self, node: str, refuses: bool) -> None:
        if self.agents[node].unanswered:
            self.turn(lambda: self.agents[node].answer(refuses=refuses))

    @rule()
    def insist(self) -> None:
        for connections in self.server._connections.values():
            for connection in connections:
                self.turn(connection._ask_again)

    @rule()
    def answer_all(self) -> None:
        for agent in self.agents.values():
            for _ in range(60):
                while agent.unanswered:
                    agent.answer()
                self.turn()
        for node, agent in self.agents.items():
            assert not agent.unanswered
            assert self.lacks(node) <= agent.refused
            assert node not in self.server.published or self.server.takes(node)

    @precondition(lambda self: self.building.is_set() and not self.broken)
    @rule(busy=accounts)
    def one_account_never_pauses(self, busy: str) -> None:
        """What others have on nodes comes to be as it should, though something is always unanswered."""
        for number in range(40):
            self.put_slice(busy, 1, "S1", {number % 5, (number + 2) % 5})
            unanswered = {node: len(agent.unanswered) for node, agent in self.agents.items()}
            self.turn()
            for node, agent in self.agents.items():
                for _ in range(unanswered[node]):
                    agent.answer()
        for node, agent in self.agents.items():
            theirs = {(type_url, name) for type_url, name in self.lacks(node) if not name.startswith(busy)}
            assert theirs <= agent.refused
        for obj in self.store.list(Node):
            if obj.name in self.server.published:
                published, anew = self.server._snapshots[obj.name], self.made_anew(obj)
                for type_url, resources in anew.items():
                    assert _but(busy, published[type_url]) == _but(busy, resources)

    def lacks(self, node: str) -> set[tuple[str, str]]:
        """Types and names of which the node's agent has something else than is published."""
        agent, found = self.agents[node], set()
        for type_url, resources in self.server._snapshots.get(node, {}).items():
            # While it keeps what it should not have, it is not told to report that it has not.
            if type_url != NODE_STATE or not agent.refused:
                wanted = {name: resource.version for name, resource in resources.items()}
                found |= {(type_url, name) for name, _ in agent.held[type_url].items() ^ wanted.items()}
        return found

    # What must hold

    @invariant()
    def nodes_have_what_they_would_have_if_all_were_made_anew(self) -> None:
        self.turn()
        assert not self.following.done()
        for node in self.store.list(Node):
            behind = node.status.lost or self.service._snapshots.is_behind(node.name)
            if node.name in self.server.published and not behind:
                assert self.server._snapshots[node.name] == self.made_anew(node)
        if self.building.is_set() and not self.broken:
            self.all_is_published()

    def all_is_published(self) -> None:
        for proxy in self.store.list(GWProxy):
            accepted = self.service._configurations.accepted(proxy.id)
            made = gateway_parts(self.inputs(proxy), accepted, DEFAULT_POOLS)
            assert self.service._parts.of(proxy.id) == made
        known = {node.name for node in self.store.list(Node) if not node.status.lost}
        assert self.server.published == known
        assert not any(self.service._snapshots.is_behind(node) and self.server.takes(node) for node in known)

    def inputs(self, proxy: GWProxy) -> Inputs:
        """By going through all of the account."""
        account = proxy.account
        routes = tuple(r for r in self.store.list(GWRoute, account) if proxy.name in route_parents(r))
        services = proxy_services(proxy.name, routes)
        slices = [s for s in self.store.list(GWEndpointSlice, account) if s.spec.parent_ref.uid in services]
        return Inputs(
            proxy=proxy,
            routes=routes,
            slices=tuple(slices),
            tunnels=tuple(t for t in self.store.list(Tunnel, account) if t.spec.proxy == proxy.name),
            templates=EnvoyResources(),
            ports={s.name: TargetPorts(s.spec.ports) for s in slices},
        )

    def made_anew(self, node: Node) -> Snapshot:
        lists = SiblingLists()
        for obj in self.store.list(Siblings):
            lists.apply(Change(1, obj.kind, obj.account, obj.name, obj))
        entries = sorted(self.service._parts._entries.items())
        here = [entry for _, entry in entries if node.name in entry.parts.by_node]
        placed = [
            Placed(str(entry.proxy.id), instance)
            for entry in here
            for instance in entry.proxy.status.instances
            if instance.node == node.name
        ]
        contributed = [entry.parts.by_node[node.name] for entry in here]
        return node_snapshot(contributed, lists.of(node.name), node_state(node, placed))


def test_nodes_have_what_they_would_have_if_all_of_it_were_made_anew() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Comparison, settings=settings(max_examples=EXAMPLES, stateful_step_count=40)
    )
