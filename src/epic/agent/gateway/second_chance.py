# SPDX-License-Identifier: Apache-2.0
"""Second chance on this node: the programs know the siblings of each gateway. Nothing else waits for it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from epic.agent.gateway.siblings import Plan, Siblings, lost_in, plan, program
from epic.agent.runtime.log_once import LogOnce
from epic.bpf import dataplane as bpf
from epic.bpf.dataplane import Address
from epic.errors import EpicError

log = logging.getLogger(__name__)

_SHOWN = 3
_UNKNOWN = "unknown"
_KERNEL_TYPES = Path("/sys/kernel/btf/vmlinux")


class _Made(NamedTuple):
    """An entry and what it was made from."""

    siblings: Siblings
    namespace: int | None
    lost: frozenset[Address]
    entry: bpf.Siblings


class SecondChance:
    """Owns the programs' siblings. What blocks is for the kernel's thread, which is the only one to write.

    A node with a `refusal` has no siblings: that is why it does not take part.
    """

    def __init__(self, dataplane: bpf.Dataplane, node: str, refusal: str = "") -> None:
        self._dataplane = dataplane
        self._node = node
        self.refusal = refusal
        self._there: dict[Address, bpf.Siblings] = {}
        self._wanted: Mapping[str, Siblings] = {}
        self._namespaces: Mapping[str, int] = {}
        self._made: dict[str, _Made] = {}
        self._troubles = LogOnce(log)
        self.lost: frozenset[Address] = frozenset()
        """Nodes that are silent: nothing is passed on to them."""
        self.applied: Mapping[str, str] = {}
        """By gateway the version of the siblings that the programs have, `_UNKNOWN` for an older list."""

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong, a line each."""
        return self._troubles.problems

    @property
    def known(self) -> tuple[Siblings, ...]:
        """Those that the programs have."""
        applied = self.applied
        return tuple(siblings for gateway, siblings in self._wanted.items() if gateway in applied)

    def start(self, wanted: Mapping[str, Siblings]) -> None:
        """Find out what an earlier agent left; `wanted` is what it was sent last. Blocks."""
        self._wanted = wanted
        try:
            self._there = self._dataplane.siblings()
        except (EpicError, OSError) as error:
            # Nothing else rests on it.
            self._troubles.report("programs", f"the siblings that programs have cannot be read: {error}")
            return
        self.lost = lost_in(self._there.values())
        there = {g: self._there[s.public] for g, s in wanted.items() if s.public in self._there}
        self._namespaces = {g: entry.netns for g, entry in there.items() if entry.netns is not None}
        self._plan(may_delete=False)
        self._note_applied()

    def sync(
        self,
        wanted: Mapping[str, Siblings],
        namespaces: Mapping[str, int],
        *,
        whole: bool,
        may_delete: bool,
    ) -> bool:
        """Make the programs know these siblings; False when something of it failed. Blocks.

        `namespaces` are the ids of instances' network namespaces, by gateway. Unless `whole`, the programs
        are taken to have what they were given.
        """
        if self.refusal:
            wanted, may_delete = {}, True
        self._wanted, self._namespaces = wanted, namespaces
        try:
            if whole:
                self._there = self._dataplane.siblings()
            failed = self._carry_out(self._plan(may_delete))
        except (EpicError, OSError) as error:
            failed = [str(error)]
        self._note_applied()
        shown = "; ".join(failed[:_SHOWN])
        self._troubles.report("programs", shown and f"siblings cannot be set: {shown}")
        return not failed

    def counters(self) -> dict[str, bpf.SecondChanceCounters]:
        """What became of the packets of each gateway. Blocks."""
        gateways = {siblings.public: gateway for gateway, siblings in self._wanted.items()}
        try:
            found = self._dataplane.second_chance_counters()
        except (EpicError, OSError) as error:
            log.debug("what became of packets cannot be read: %s", error)
            return {}
        return {gateways[public]: counts for public, counts in found.items() if public in gateways}

    def renew(self) -> bool:
        """Another node is silent, or one speaks again: tell the programs at once. Blocks."""
        return self.sync(self._wanted, self._namespaces, whole=False, may_delete=False)

    def _plan(self, may_delete: bool) -> Plan:
        entries: dict[Address, bpf.Siblings] = {}
        strange: list[str] = []
        self._made = {gateway: made for gateway, made in self._made.items() if gateway in self._wanted}
        for gateway, siblings in self._wanted.items():
            entry = self._entry(gateway, siblings)
            if entry is None:
                strange.append(gateway)
            else:
                entries[siblings.public] = entry
        self._troubles.report(
            "strange",
            f"this node is not among the siblings of {', '.join(strange[:_SHOWN])}" if strange else "",
        )
        return plan(entries, self._there, may_delete=may_delete)

    def _entry(self, gateway: str, siblings: Siblings) -> bpf.Siblings | None:
        made, namespace = self._made.get(gateway), self._namespaces.get(gateway)
        if made and made.siblings is siblings and made.namespace == namespace and made.lost is self.lost:
            return made.entry
        lost = self.lost
        entry = program(siblings, self._node, namespace, lost)
        if entry is not None:
            self._made[gateway] = _Made(siblings, namespace, lost, entry)
        return entry

    def _carry_out(self, todo: Plan) -> list[str]:
        failed: list[str] = []
        for public, entry in todo.set.items():
            try:
                self._dataplane.set_siblings(public, entry)
                self._there[public] = entry
            except (EpicError, OSError) as error:
                failed.append(f"{public}: {error}")
        for public in todo.delete:
            try:
                self._dataplane.delete_siblings(public)
                self._there.pop(public, None)
            except (EpicError, OSError) as error:
                failed.append(f"{public}: {error}")
        return failed

    def _note_applied(self) -> None:
        """What the programs have is of the version that it was made from; a failed change leaves it."""
        found: dict[str, str] = {}
        for gateway, siblings in self._wanted.items():
            made, there = self._made.get(gateway), self._there.get(siblings.public)
            if made is not None and there == made.entry:
                found[gateway] = siblings.version
            elif there is not None:
                found[gateway] = self.applied.get(gateway, _UNKNOWN)
        if found != self.applied:
            self.applied = found


def namespaces_of(interfaces: Iterable[tuple[str, str]], links: Mapping[str, int]) -> dict[str, int]:
    """By gateway the id of its network namespace, of the (gateway, interface) that are there."""
    return {gateway: links[interface] for gateway, interface in interfaces if interface in links}


def find_refusal(enabled: bool, types: Path = _KERNEL_TYPES) -> str:
    """Why the node does not take part; empty: it does. The programs read sockets by the kernel's `types`."""
    if not enabled:
        return "it is switched off (gateway_node_second_chance)"
    return "" if types.exists() else f"the kernel does not describe its types: there is no {types}"
