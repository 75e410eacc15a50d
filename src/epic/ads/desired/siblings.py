# SPDX-License-Identifier: Apache-2.0
"""The lists of siblings by node, as they are sent, pure: a change of one touches nothing else."""

from __future__ import annotations

from collections import defaultdict

from epic.ads.snapshot import Resources, Versioned, versioned
from epic.model.siblings import Siblings
from epic.model.values.naming import GatewayId
from epic.siblings.message import message
from epic.store.interface import Change


class SiblingLists:
    """Kept by the store's changes."""

    def __init__(self) -> None:
        self._nodes: dict[GatewayId, tuple[str, ...]] = {}
        self._by_node: dict[str, dict[str, Versioned]] = defaultdict(dict)

    def apply(self, change: Change) -> set[str]:
        """Take in a change; returns the nodes that are to get something else."""
        if change.kind != Siblings.kind:
            return set()
        gateway = GatewayId(change.account, change.name)
        before = self._nodes.pop(gateway, ())
        for node in before:
            del self._by_node[node][str(gateway)]
        if not isinstance(change.object, Siblings):
            return set(before)
        spec = change.object.spec
        resource = versioned(message(gateway, spec))
        for node in spec.nodes:
            self._by_node[node][str(gateway)] = resource
        self._nodes[gateway] = spec.nodes
        return {*before, *spec.nodes}

    def of(self, node: str) -> Resources:
        """The lists with the node in them, by gateway id."""
        return self._by_node.get(node, {})
