# SPDX-License-Identifier: Apache-2.0
"""Second chance on this node: the programs know the siblings of each gateway. Nothing else waits for it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path

from epic.agent.gateway.chance.siblings import Siblings, SiblingsIndex, lost_in, program
from epic.agent.gateway.desired import Instance
from epic.agent.runtime.log_once import LogOnce
from epic.bpf import dataplane as bpf
from epic.bpf.dataplane import Address
from epic.errors import EpicError

log = logging.getLogger(__name__)

_SHOWN = 3
_UNKNOWN = "unknown"
_KERNEL_TYPES = Path("/sys/kernel/btf/vmlinux")
# The kernel's thread is held for some milliseconds by as many.
_SET_AT_ONCE, _COMPARED_AT_ONCE = 32, 256


class SecondChance:
    """Owns the programs' siblings. What blocks is for the kernel's thread, which is the only one to write.

    Only those gateways are looked at that something was said of; what the programs have is compared with all
    that is wanted in parts. A node with a `refusal` has no siblings: that is why it does not take part.
    """

    def __init__(self, dataplane: bpf.Dataplane, node: str, refusal: str = "") -> None:
        self._dataplane = dataplane
        self._node = node
        self.refusal = refusal
        self._there: dict[Address, bpf.Siblings] = {}
        self._wanted = SiblingsIndex()
        self._namespaces: dict[str, int] = {}
        self._lost: frozenset[Address] = frozenset()
        self._may_delete = False
        self._dirty: dict[Address, None] = {}
        self._written: set[Address] = set()
        self._gone: set[str] = set()
        self._failed: dict[Address, str] = {}
        self._strange: dict[Address, str] = {}
        self._unread = ""
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
        return tuple(siblings for gateway, siblings in self._wanted.all.items() if gateway in applied)

    @property
    def settled(self) -> bool:
        """Whether nothing failed that was to be done."""
        return not (self._failed or self._unread)

    def start(self, wanted: Mapping[str, Siblings]) -> None:
        """Find out what an earlier agent left; `wanted` is what it was sent last. Blocks."""
        self._wanted.change(wanted)
        try:
            self._there = dict(self._dataplane.siblings())
        except (EpicError, OSError) as error:
            # Nothing else rests on it.
            self._troubles.report("programs", f"the siblings that programs have cannot be read: {error}")
            return
        self.lost = self._lost = lost_in(self._there.values())
        there = {g: self._there[p] for g, s in wanted.items() for p in s.publics if p in self._there}
        self._namespaces = {g: entry.netns for g, entry in there.items() if entry.netns is not None}
        self._note_applied({public: self._entry(public) for public in self._there})
        self._touch(self._wanted.publics)

    def take(
        self,
        wanted: Mapping[str, Siblings | None],
        namespaces: Mapping[str, int],
        *,
        whole: bool,
        may_delete: bool,
    ) -> None:
        """These are wanted of these gateways, None: nothing; `whole`: these are all. Then `work`.

        `namespaces` are the ids of the network namespaces of the same gateways' instances that are there.
        Blocks a bit.
        """
        if self.refusal:
            wanted, namespaces, whole, may_delete = {}, {}, True, True
        if whole:
            wanted = {**dict.fromkeys(self._wanted.all), **wanted}
        looked_at: Iterable[str] = {**self._namespaces, **namespaces} if whole else wanted
        self._touch(self._wanted.change(wanted))
        self._gone.update(gateway for gateway, siblings in wanted.items() if siblings is None)
        for gateway in looked_at:
            namespace = namespaces.get(gateway)
            if namespace != self._namespaces.get(gateway):
                self._move(gateway, namespace)
        if may_delete and not self._may_delete:
            self._may_delete = True
            self._touch(self._there.keys() - self._wanted.publics)
        self._touch(self._failed)
        self.renew()

    def renew(self) -> None:
        """Another node may be silent, or one speak again: then `work`. Blocks a bit."""
        before, self._lost = self._lost, self.lost
        for address in before ^ self._lost:
            self._touch(self._wanted.at(address))

    def work(self) -> bool:
        """Carry out a part of what is to be done; whether more of it is left. Blocks a bit."""
        part = [] if self._unread else list(islice(self._dirty, _SET_AT_ONCE))
        for public in part:
            del self._dirty[public]
        self._note_applied({public: self._carry_out(public) for public in part})
        failed = [f"{public}: {error}" for public, error in islice(self._failed.items(), _SHOWN)]
        shown = self._unread or "; ".join(failed)
        self._troubles.report("programs", shown and f"siblings cannot be set: {shown}")
        strange = ", ".join(islice(self._strange.values(), _SHOWN))
        self._troubles.report("strange", strange and f"this node is not among the siblings of {strange}")
        return bool(part and self._dirty)

    def compare(self) -> Iterator[None]:
        """Look for entries that are not as they were set; then `work`. Each step blocks a bit."""
        self._unread = ""
        try:
            yield from self._compare()
        except (EpicError, OSError) as error:
            self._unread = str(error)

    def _compare(self) -> Iterator[None]:
        self._written = set()
        unseen, found = set(self._there), self._dataplane.siblings()
        while part := list(islice(found, _COMPARED_AT_ONCE)):
            for public, entry in part:
                unseen.discard(public)
                # What was written since may have been read before.
                if public not in self._written and self._there.get(public) != entry:
                    self._there[public] = entry
                    self._dirty[public] = None
            yield
        for public in unseen - self._written:
            self._there.pop(public, None)
            self._dirty[public] = None

    def counters(self) -> Iterator[tuple[str, bpf.SecondChanceCounters]]:
        """What became of the packets of each gateway, by public address; blocks for each a little."""
        try:
            for public, counts in self._dataplane.second_chance_counters():
                gateway = self._wanted.owner(public)
                if gateway is not None:
                    yield gateway, counts
        except (EpicError, OSError) as error:
            log.debug("what became of packets cannot be read: %s", error)

    def _touch(self, publics: Iterable[Address]) -> None:
        self._dirty.update(dict.fromkeys(publics))

    def _move(self, gateway: str, namespace: int | None) -> None:
        if namespace is None:
            del self._namespaces[gateway]
        else:
            self._namespaces[gateway] = namespace
        if gateway in self._wanted.all:
            self._touch(self._wanted.all[gateway].publics)

    def _entry(self, public: Address) -> bpf.Siblings | None:
        gateway = self._wanted.owner(public)
        if gateway is None:
            return None
        return program(self._wanted.all[gateway], self._node, self._namespaces.get(gateway), self.lost)

    def _carry_out(self, public: Address) -> bpf.Siblings | None:
        """Returns what the programs are to have."""
        entry, gateway = self._entry(public), self._wanted.owner(public)
        self._strange.pop(public, None)
        self._failed.pop(public, None)
        if gateway is not None and entry is None:
            self._strange[public] = gateway
        try:
            if entry is not None and self._there.get(public) != entry:
                self._dataplane.set_siblings(public, entry)
                self._there[public] = entry
            elif entry is None and self._may_delete and public in self._there:
                self._dataplane.delete_siblings(public)
                del self._there[public]
        except (EpicError, OSError) as error:
            self._failed[public] = str(error)
        self._written.add(public)
        return entry

    def _note_applied(self, entries: Mapping[Address, bpf.Siblings | None]) -> None:
        """What the programs have is of the version that it was made from; a failed change leaves it."""
        wanted = self._wanted.all
        # Another one each time: it is read outside of this thread.
        found = dict(self.applied)
        for gateway in self._gone - wanted.keys():
            found.pop(gateway, None)
        self._gone.clear()
        for owner in {owner for public in entries if (owner := self._wanted.owner(public)) is not None}:
            publics = [public for public in wanted[owner].publics if self._wanted.owner(public) == owner]
            there = [self._there.get(public) for public in publics]
            meant = [entries[p] if p in entries else self._entry(p) for p in publics]
            if not any(there):
                found.pop(owner, None)
            elif there == meant:
                found[owner] = wanted[owner].version
            else:
                found.setdefault(owner, _UNKNOWN)
        if found != self.applied:
            self.applied = found


def by_gateway(
    counters: Iterable[tuple[str, bpf.SecondChanceCounters]],
) -> dict[str, bpf.SecondChanceCounters]:
    """The counts of each gateway: the sums over its public addresses."""
    found: dict[str, bpf.SecondChanceCounters] = {}
    for gateway, counts in counters:
        found[gateway] = found[gateway] + counts if gateway in found else counts
    return found


def namespaces_of(interfaces: Iterable[tuple[str, str]], links: Mapping[str, int]) -> dict[str, int]:
    """By gateway the id of its network namespace, of the (gateway, interface) that are there."""
    return {gateway: links[interface] for gateway, interface in interfaces if interface in links}


def moved(instances: Mapping[str, Instance], before: Mapping[str, int], after: Mapping[str, int]) -> set[str]:
    """Gateways whose interface leads to another network namespace after than before."""
    changed = {interface for interface, _ in before.items() ^ after.items()}
    return {g for g, instance in instances.items() if instance.interface in changed} if changed else set()


def find_refusal(enabled: bool, types: Path = _KERNEL_TYPES) -> str:
    """Why the node does not take part; empty: it does. The programs read sockets by the kernel's `types`."""
    if not enabled:
        return "it is switched off (gateway_node_second_chance)"
    return "" if types.exists() else f"the kernel does not describe its types: there is no {types}"
