# SPDX-License-Identifier: Apache-2.0
"""What each node should have of all gateways, changed in place by what differs, and by that only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from epic.ads.desired.assemble import THE_NODE, node_snapshot, node_state
from epic.ads.desired.parts import NodeChanges, Parts
from epic.ads.desired.siblings import SiblingLists
from epic.ads.snapshot import (
    INSTANCE,
    NODE_STATE,
    SIBLINGS,
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
        self._changes: dict[str, _Changes] = {}
        self._relisted: dict[str, set[str]] = defaultdict(set)
        self._restated: set[str] = set()

    def begin_anew(self, siblings: SiblingLists) -> None:
        """Go by these lists from now on; each node is made anew, for something may have been missed."""
        self._siblings = siblings
        for node in list(self._snapshots):
            self.forget(node)

    def collect(self, changes: NodeChanges) -> None:
        """Parts contribute something else to nodes than before."""
        for node in changes.keys() & self._snapshots.keys():
            mine = self._changes.setdefault(node, {})
            for type_url, resources in changes[node].items():
                mine.setdefault(type_url, {}).update(resources)

    def relist(self, nodes: Iterable[str], gateway: GatewayId) -> None:
        """The list of a gateway's siblings is another."""
        for node in self._snapshots.keys() & nodes:
            self._relisted[node].add(str(gateway))

    def restate(self, node: str) -> None:
        """Something else is known of the node itself."""
        if node in self._snapshots:
            self._restated.add(node)

    def is_behind(self, node: str) -> bool:
        """Whether the node is to have something else than when it was brought up to date last."""
        pieces = (self._changes, self._relisted, self._restated)
        return node not in self._snapshots or any(node in piece for piece in pieces)

    def bring_up(self, node: Node) -> tuple[Snapshot, Differing | None]:
        """What the node is to have now, and what of it differs from the last time; None: all of it may.

        Where it says what differs it has changed the snapshot of the last time, and returns that.
        """
        name = node.name
        snapshot = self._snapshots.get(name)
        if snapshot is None:
            made = self._snapshots[name] = self._made(node)
            return made, None
        changes = self._changes.pop(name, {})
        _apply(snapshot, changes)
        moved = changes.get(INSTANCE, {}).keys()
        if lists := self._lists(snapshot, name, self._relisted.pop(name, set()).union(moved)):
            changes[SIBLINGS] = lists
        if moved or name in self._restated:
            changes[NODE_STATE] = {THE_NODE: versioned(self._state(node))}
        self._restated.discard(name)
        _apply(snapshot, {url: changes[url] for url in (SIBLINGS, NODE_STATE) if url in changes})
        return snapshot, {type_url: resources.keys() for type_url, resources in changes.items()}

    def forget(self, node: str) -> None:
        """The node is not served any more, or to be made anew."""
        self._snapshots.pop(node, None)
        self._changes.pop(node, None)
        self._relisted.pop(node, None)
        self._restated.discard(node)

    def _made(self, node: Node) -> _Snapshot:
        parts = (part for _, part in self._parts.on(node.name))
        return node_snapshot(parts, self._siblings.of(node.name), self._state(node))

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


def _apply(snapshot: _Snapshot, changes: Changes) -> None:
    for type_url, resources in changes.items():
        mine = snapshot[type_url]
        for name, resource in resources.items():
            if resource is None:
                mine.pop(name, None)
            else:
                mine[name] = resource
