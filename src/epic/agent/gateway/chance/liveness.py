# SPDX-License-Identifier: Apache-2.0
"""Pure: which of the nodes that packets are passed on to are silent.

A node is asked all the time, and its tunnel programs answer: that its agent restarts says nothing of it. One
that has not answered a row of probes is lost. The probes count, not the time, so an agent that was held up
itself finds nobody lost because of that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from epic.bpf.dataplane import Address

TICK_SECONDS = 0.1
"""How often probes may be due. Nodes that answer are asked at every second tick."""
LOST_AFTER = 5
"""Probes in a row without an answer. With the ticks that makes 0.5 to 0.7 s."""
CUT_OFF_ENDS_AFTER = 50
"""The same: so long this node may take itself to be cut off. All others may have died at once."""
_REMEMBERED = 16


@dataclass
class _Node:
    lost: bool
    pending: list[int] = field(default_factory=list)
    """Nonces of the probes since the last answer."""
    unanswered: int = 0
    """How many those are; not all of them are remembered."""
    rests: bool = False
    """It has answered the last probe, so it is not asked at the next tick."""


class Liveness:
    """The nodes that are watched. Those that were `lost` when another agent looked still are."""

    def __init__(self, lost: Iterable[Address] = ()) -> None:
        self._inherited = set(lost)
        self._nodes: dict[Address, _Node] = {}
        self._cut_off = False
        self.lost = frozenset(self._inherited)
        """Nodes that are silent; the same object as long as nothing changes."""

    def watch(self, addresses: Collection[Address]) -> None:
        """Watch these and no others. One that is new counts as alive until it is known better."""
        new = {address: _Node(lost=address in self._inherited) for address in addresses}
        self._nodes = {address: self._nodes.get(address, node) for address, node in new.items()}
        self._inherited -= new.keys()
        self._conclude()

    def tick(self) -> list[Address]:
        """Draw conclusions; returns the nodes that are to be asked now.

        When of several nodes none answers any more it is this one that is cut off: nobody is lost by that,
        unless it lasts.
        """
        alive = [node for node in self._nodes.values() if not node.lost]
        silent = [node for node in alive if len(node.pending) >= LOST_AFTER]
        if silent:
            self._cut_off = (
                len(alive) > 1
                and all(len(node.pending) > 1 for node in alive)
                and all(node.unanswered < CUT_OFF_ENDS_AFTER for node in silent)
            )
        if silent and not self._cut_off:
            for node in silent:
                node.lost = True
            self._conclude()
        due: list[Address] = []
        for address, node in self._nodes.items():
            if node.pending or not node.rests:
                due.append(address)
            node.rests = not node.rests
        return due

    def ask(self, address: Address, nonce: int) -> None:
        """A probe is on its way."""
        node = self._nodes[address]
        node.pending = [*node.pending[1 - _REMEMBERED :], nonce]
        node.unanswered += 1

    def waits(self, address: Address) -> bool:
        """Whether its last probe was not answered yet."""
        return bool(self._nodes[address].pending)

    def hear(self, address: Address, nonce: int) -> bool:
        """An answer came; whether it is one to a probe since the last one."""
        node = self._nodes.get(address)
        if node is None or nonce not in node.pending:
            return False
        # Whoever was cut off has to ask all of them anew.
        for other in self._nodes.values() if self._cut_off else (node,):
            other.pending.clear()
            other.unanswered = 0
        self._cut_off = False
        if node.lost:
            node.lost = False
            self._conclude()
        return True

    def _conclude(self) -> None:
        lost = frozenset(address for address, node in self._nodes.items() if node.lost) | self._inherited
        if lost != self.lost:
            self.lost = lost
