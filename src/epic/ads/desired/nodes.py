# SPDX-License-Identifier: Apache-2.0
"""What each node should have of all gateways, changed in place by what differs, and by that only."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable

from epic.ads.desired.assemble import THE_NODE, node_state
from epic.ads.desired.parts import NodeChanges, Parts
from epic.ads.desired.siblings import SiblingLists
from epic.ads.snapshot import (
    INSTANCE,
    NODE_STATE,
    SIBLINGS,
    TYPES,
    Changes,
    Differing,
    Snapshot,
    Versioned,
    versioned,
)
from epic.lifecycle.digest import Placed
from epic.model.resources import Node
from epic.model.values.naming import GatewayId
from epic.proto import epic_pb2

# Gateways of a node to put together before others have their turn: a few milliseconds.
_MOST_AT_ONCE = 50

_Snapshot = dict[str, dict[str, Versioned]]
_Changes = dict[str, dict[str, Versioned | None]]


class NodeSnapshots:
    """Collects what changes, and makes it so when a node is brought up to date.

    All of a node changes together: by the digest in its state it says what it has of the rest.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._siblings = SiblingLists()
        self._snapshots: dict[str, _Snapshot] = {}
        self._followed: set[str] = set()
        """The nodes for which changes are collected: those that have a snapshot, or one is being made for."""
        self._changes: dict[str, _Changes] = {}
        self._relisted: dict[str, set[str]] = defaultdict(set)
        self._restated: set[str] = set()

    def begin_anew(self, siblings: SiblingLists) -> None:
        """Go by these lists from now on; each node is made anew, for something may have been missed."""
        self._siblings = siblings
        for node in list(self._followed):
            self.forget(node)

    def collect(self, changes: NodeChanges) -> None:
        """Parts contribute something else to nodes than before."""
        for node in changes.keys() & self._followed:
            mine = self._changes.setdefault(node, {})
            for type_url, resources in changes[node].items():
                mine.setdefault(type_url, {}).update(resources)

    def relist(self, nodes: Iterable[str], gateway: GatewayId) -> None:
        """The list of a gateway's siblings is another."""
        for node in self._followed.intersection(nodes):
            self._relisted[node].add(str(gateway))

    def restate(self, node: str) -> None:
        """Something else is known of the node itself."""
        if node in self._followed:
            self._restated.add(node)

    def is_behind(self, node: str) -> bool:
        """Whether the node is to have something else than when it was brought up to date last."""
        pieces = (self._changes, self._relisted, self._restated)
        return node not in self._snapshots or any(node in piece for piece in pieces)

    async def make(self, node: str) -> None:
        """See to it that there is a snapshot that can be brought up to date, be it an empty one."""
        if node in self._snapshots:
            return
        self.forget(node)
        # What changes from here on is made so when it is brought up to date, as is what is left out here.
        self._followed.add(node)
        snapshot: _Snapshot = {type_url: {} for type_url in TYPES}
        for number, (proxy, part) in enumerate(self._parts.on(node), 1):
            for type_url, resources in part.items():
                snapshot[type_url].update(resources)
            self._relisted[node].add(str(proxy.id))
            if not number % _MOST_AT_ONCE:
                await asyncio.sleep(0)
        self._restated.add(node)
        self._snapshots[node] = snapshot

    def bring_up(self, name: str, node: Node | None) -> tuple[Snapshot, Differing]:
        """What the node is to have now, in the snapshot of the last time, and what differs from then.

        Without `node`, which cannot be read, the state that it is to report is not in it.
        """
        snapshot = self._snapshots[name]
        changes = self._changes.pop(name, {})
        _apply(snapshot, changes)
        moved = changes.get(INSTANCE, {}).keys()
        if lists := self._lists(snapshot, name, self._relisted.pop(name, set()).union(moved)):
            changes[SIBLINGS] = lists
        if node is not None and (moved or name in self._restated):
            changes[NODE_STATE] = {THE_NODE: versioned(self._state(node))}
        self._restated.discard(name)
        _apply(snapshot, {url: changes[url] for url in (SIBLINGS, NODE_STATE) if url in changes})
        return snapshot, {type_url: resources.keys() for type_url, resources in changes.items()}

    def forget(self, node: str) -> None:
        """The node is not served any more, or to be made anew."""
        self._snapshots.pop(node, None)
        self._followed.discard(node)
        self._changes.pop(node, None)
        self._relisted.pop(node, None)
        self._restated.discard(node)

    def _state(self, node: Node) -> epic_pb2.NodeState:
        """Of the same moment as the parts: the node says by it what it has of them."""
        return node_state(
            node,
            (
                Placed(str(proxy.id), instance)
                for proxy, _ in self._parts.on(node.name)
                for instance in proxy.status.instances
                if instance.node == node.name and instance.published
            ),
        )

    def _lists(self, snapshot: _Snapshot, node: str, gateways: Iterable[str]) -> dict[str, Versioned | None]:
        lists = self._siblings.of(node)
        return {g: lists.get(g) if g in snapshot[INSTANCE] else None for g in gateways}


def told(node: Node) -> tuple[object, ...]:
    """All of a node's object that the node is told of: most changes of it are reports of its own."""
    status = node.status
    return status.removals, status.emptied, status.lost, status.returning, status.meant_digest


def _apply(snapshot: _Snapshot, changes: Changes) -> None:
    for type_url, resources in changes.items():
        mine = snapshot[type_url]
        for name, resource in resources.items():
            if resource is None:
                mine.pop(name, None)
            else:
                mine[name] = resource
