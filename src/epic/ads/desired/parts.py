# SPDX-License-Identifier: Apache-2.0
"""What each gateway contributes to the EPIC nodes, kept until something that it is made of changes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from epic.ads.desired.assemble import Accepted, GatewayParts, gateway_parts, parts_basis
from epic.ads.desired.objects import Inputs
from epic.ads.snapshot import Snapshot
from epic.ipam.networks import Pools
from epic.model.resources import GWProxy
from epic.model.values.naming import GatewayId
from epic.workqueue.turns import AccountTurns

Built = Callable[[GatewayId, set[str]], None]
"""Told of a gateway whose parts were built aside, and of the nodes that get something else by it."""

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
    service: int
    task: asyncio.Task[None]


class Parts:
    """The parts of all gateways. What takes long is built in a thread, and holds up no other gateway."""

    def __init__(self, pools: Pools, built: Built) -> None:
        self._pools = pools
        self._told = built
        self._entries: dict[GatewayId, _Entry] = {}
        self._building: dict[GatewayId, _Building] = {}
        self._failed: dict[GatewayId, Exception] = {}
        self._turns = AccountTurns(_ASIDE)

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
            for _, entry in sorted(self._entries.items(), key=lambda item: item[0])
            if node in entry.parts.by_node
        ]

    def want(self, inputs: Inputs, accepted: Accepted | None) -> set[str]:
        """See to it that the gateway's parts are those of these inputs.

        Returns the nodes that get something else by what could be built at once. Raises what building them
        aside raised, once.
        """
        gateway = inputs.proxy.id
        if gateway in self._failed:
            raise self._failed.pop(gateway)
        basis, entry = parts_basis(inputs, accepted), self._entries.get(gateway)
        building = self._building.get(gateway)
        if building is not None and building.service == inputs.proxy.status.service:
            return set()  # It looks again at its end.
        if entry is not None and entry.basis == basis:
            return set()
        if _takes_long(inputs, accepted):
            task = asyncio.create_task(self._build_aside(inputs, accepted, basis))
            self._building[gateway] = _Building(inputs.proxy.status.service, task)
            return set()
        parts, nodes = self._build(inputs, accepted)
        self._entries[gateway] = _Entry(basis, inputs.proxy, parts)
        return nodes

    def forget(self, gateway: GatewayId) -> set[str]:
        """The gateway is gone; returns the nodes that had something of it."""
        self._building.pop(gateway, None)
        self._failed.pop(gateway, None)
        entry = self._entries.pop(gateway, None)
        return set(entry.parts.by_node) if entry else set()

    def is_building(self, gateway: GatewayId) -> bool:
        """Whether the gateway's parts are being built aside."""
        return gateway in self._building

    async def _build_aside(
        self, inputs: Inputs, accepted: Accepted | None, basis: tuple[object, ...]
    ) -> None:
        gateway, nodes = inputs.proxy.id, set[str]()
        result: _Entry | Exception
        try:
            async with self._turns.turn(gateway.account):
                parts, nodes = await asyncio.to_thread(self._build, inputs, accepted)
            result = _Entry(basis, inputs.proxy, parts)
        except Exception as error:
            result = error
        building = self._building.get(gateway)
        if building is None or building.task is not asyncio.current_task():
            return  # It was deleted, or made anew.
        del self._building[gateway]
        if isinstance(result, Exception):
            self._failed[gateway] = result
        else:
            self._entries[gateway] = result
        self._told(gateway, nodes)

    def _build(self, inputs: Inputs, accepted: Accepted | None) -> tuple[GatewayParts, set[str]]:
        parts = gateway_parts(inputs, accepted, self._pools)
        return parts, _changed(self._entries.get(inputs.proxy.id), parts)


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


def _changed(before: _Entry | None, parts: GatewayParts) -> set[str]:
    """The nodes to which the gateway contributes something else than before."""
    had: Mapping[str, Snapshot] = before.parts.by_node if before else {}
    return {node for node in had.keys() | parts.by_node.keys() if had.get(node) != parts.by_node.get(node)}
