# SPDX-License-Identifier: Apache-2.0
"""What each gateway contributes to the EPIC nodes, kept until something that it is made of changes."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from epic.ads.desired.assemble import Accepted, GatewayParts, gateway_parts, parts_basis
from epic.ads.desired.objects import Inputs
from epic.ads.snapshot import TUNNEL, Changes, Snapshot, difference
from epic.ipam.networks import Pools
from epic.model.resources import GWProxy
from epic.model.values.naming import GatewayId
from epic.workqueue.threads import ThreadPool
from epic.workqueue.turns import AccountTurns

NodeChanges = Mapping[str, Changes]
"""By node what it gets else than before."""

Built = Callable[[GatewayId, NodeChanges], None]
"""Told of a gateway whose parts were built aside, and of what that changes on nodes."""

# Things that parts are made of; as many take some ten milliseconds.
_MOST_AT_ONCE = 1000
_ASIDE = 2


@dataclass(frozen=True)
class _Entry:
    basis: tuple[object, ...]
    proxy: GWProxy
    parts: GatewayParts


@dataclass(frozen=True)
class _Building:
    inputs: Inputs
    task: asyncio.Task[None]

    @property
    def service(self) -> int:
        """The gateway's number."""
        return self.inputs.proxy.status.service


class Parts:
    """The parts of all gateways. What takes long is built in a thread, and holds up no other gateway."""

    def __init__(self, pools: Pools, built: Built) -> None:
        self._pools = pools
        self._told = built
        self._entries: dict[GatewayId, _Entry] = {}
        self._by_node: dict[str, dict[GatewayId, _Entry]] = defaultdict(dict)
        self._building: dict[GatewayId, _Building] = {}
        self._failed: dict[GatewayId, Exception] = {}
        self._turns = AccountTurns(_ASIDE)
        self._threads = ThreadPool("parts", _ASIDE)

    def gateways(self) -> set[GatewayId]:
        """Those that have parts."""
        return set(self._entries)

    def of(self, gateway: GatewayId) -> GatewayParts | None:
        """A gateway's newest parts."""
        entry = self._entries.get(gateway)
        return entry.parts if entry else None

    def on(self, node: str) -> list[tuple[GWProxy, Snapshot]]:
        """What the gateways contribute to the node, in order, each with the gateway as it was then."""
        return [
            (entry.proxy, entry.parts.by_node[node])
            for _, entry in sorted(self._by_node.get(node, {}).items(), key=lambda item: item[0])
        ]

    def gateways_on(self, node: str) -> list[GatewayId]:
        """The gateways that contribute something to the node."""
        return list(self._by_node.get(node, ()))

    def may_give(self, gateway: GatewayId, node: str, tunnel: str) -> bool:
        """Whether the node is to have the tunnel by the newest parts, or by those that are being built.

        May be called from any thread.
        """
        building = self._building.get(gateway)
        if building is not None and tunnel in building.inputs.tunnel_names:
            return True
        parts = self.of(gateway)
        return parts is not None and tunnel in parts.by_node.get(node, {}).get(TUNNEL, {})

    def want(self, inputs: Inputs, accepted: Accepted | None) -> NodeChanges:
        """See to it that the gateway's parts are those of these inputs.

        Returns what nodes get else by what could be built at once. Raises what building them aside raised,
        once.
        """
        gateway = inputs.proxy.id
        if gateway in self._failed:
            raise self._failed.pop(gateway)
        basis, entry = parts_basis(inputs, accepted), self._entries.get(gateway)
        building = self._building.get(gateway)
        if building is not None and building.service == inputs.proxy.status.service:
            return {}  # It looks again at its end.
        if entry is not None and entry.basis == basis:
            return {}
        if _takes_long(inputs, accepted):
            task = asyncio.create_task(self._build_aside(inputs, accepted, basis))
            self._building[gateway] = _Building(inputs, task)
            return {}
        parts, changes = self._build(inputs, accepted)
        # What may still be being built is of an earlier gateway of that name.
        self._building.pop(gateway, None)
        self._keep(gateway, _Entry(basis, inputs.proxy, parts))
        return changes

    def forget(self, gateway: GatewayId) -> NodeChanges:
        """The gateway is gone; returns what nodes lose by that."""
        self._building.pop(gateway, None)
        self._failed.pop(gateway, None)
        entry = self._entries.get(gateway)
        self._keep(gateway, None)
        return _changes(entry, GatewayParts({}))

    def is_building(self, gateway: GatewayId) -> bool:
        """Whether the gateway's parts are being built aside."""
        return gateway in self._building

    async def _build_aside(
        self, inputs: Inputs, accepted: Accepted | None, basis: tuple[object, ...]
    ) -> None:
        gateway = inputs.proxy.id
        changes: NodeChanges = {}
        result: _Entry | Exception
        try:
            async with self._turns.turn(gateway.account):
                parts, changes = await self._threads.run(self._build, inputs, accepted)
            result = _Entry(basis, inputs.proxy, parts)
        except Exception as error:
            result = error
        building = self._building.get(gateway)
        if building is None or building.task is not asyncio.current_task():
            return  # It was deleted, or made anew.
        if isinstance(result, Exception):
            self._failed[gateway] = result
        else:
            self._keep(gateway, result)
        del self._building[gateway]
        self._told(gateway, changes)

    def _build(self, inputs: Inputs, accepted: Accepted | None) -> tuple[GatewayParts, NodeChanges]:
        """The parts, and what they change: while they are built, nothing else takes the entry's place."""
        parts = gateway_parts(inputs, accepted, self._pools)
        return parts, _changes(self._entries.get(inputs.proxy.id), parts)

    def _keep(self, gateway: GatewayId, entry: _Entry | None) -> None:
        before = self._entries.get(gateway)
        for node in before.parts.by_node if before else ():
            del self._by_node[node][gateway]
        if entry is None:
            self._entries.pop(gateway, None)
            return
        self._entries[gateway] = entry
        for node in entry.parts.by_node:
            self._by_node[node][gateway] = entry


def _takes_long(inputs: Inputs, accepted: Accepted | None) -> bool:
    """Whether the parts are made of so many things that the event loop would have to wait for them."""
    instances = sum(instance.published for instance in inputs.proxy.status.instances)
    clusters = Counter(cluster.service for cluster in accepted.routing.clusters) if accepted else Counter()
    work = clusters.total() * instances + len(inputs.tunnels)
    for piece in inputs.slices:
        times = 1 + instances + clusters[piece.spec.parent_ref.uid]
        for endpoint in piece.spec.endpoints:
            work += times * len(endpoint.addresses)
            if work > _MOST_AT_ONCE:
                return True
    return work > _MOST_AT_ONCE


def _changes(before: _Entry | None, parts: GatewayParts) -> NodeChanges:
    """What the gateway contributes to nodes else than before."""
    had: Mapping[str, Snapshot] = before.parts.by_node if before else {}
    nodes = had.keys() | parts.by_node.keys()
    found = {node: difference(had.get(node, {}), parts.by_node.get(node, {})) for node in nodes}
    return {node: changes for node, changes in found.items() if changes}
