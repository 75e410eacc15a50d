# SPDX-License-Identifier: Apache-2.0
"""On which EPIC nodes a gateway's instances run, pure: rendezvous hashing with room and spread."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

from epic.errors import Exhausted


@dataclass(frozen=True)
class Candidate:
    """A node as placement sees it; `load` counts the instances that run there.

    `unheard`: no router hears it; `crowded`: it has little room for tunnels or endpoints. Such a one is
    chosen only when no other is left. What is placed stays.
    """

    name: str
    capacity: int
    load: int
    schedulable: bool = True
    unheard: bool = False
    crowded: bool = False

    @property
    def has_room(self) -> bool:
        """Whether a new instance may go there."""
        return self.schedulable and self.load < self.capacity


def place(gateway: str, nodes: Iterable[Candidate], count: int, keep: Iterable[str] = ()) -> list[str]:
    """The names of `count` different nodes for the gateway, those of `keep` first.

    With fewer nodes than `count` the gateway gets what there is; raises Exhausted when that is none.
    A node that joins or leaves moves only the gateways that it wins or loses.
    """
    nodes = list(nodes)
    kept = [name for name in keep if any(node.name == name for node in nodes)][:count]
    free = [node for node in nodes if node.has_room and node.name not in kept]
    free.sort(
        key=lambda node: (not node.unheard, not node.crowded, preference(gateway, node.name), node.name),
        reverse=True,
    )
    chosen = kept + [node.name for node in free[: count - len(kept)]]
    if not chosen:
        full = sum(node.schedulable for node in nodes)
        raise Exhausted(
            "the platform has no room for another gateway now; its operators can see why",
            f"of {len(nodes)} EPIC nodes {len(nodes) - full} are not schedulable and {full} are at their "
            "capacity; add a node or raise a node's capacity",
        )
    return chosen


def preference(gateway: str, node: str) -> bytes:
    """How much a gateway belongs on a node: of several nodes, the greatest win."""
    return blake2b(f"{gateway}\0{node}".encode(), digest_size=8).digest()
