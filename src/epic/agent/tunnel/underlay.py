# SPDX-License-Identifier: Apache-2.0
"""The underlay interfaces: the tunnel programs stay attached to them, whatever happens to them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pyroute2 import NetlinkError

from epic.agent.netlink.objects import Link, Netlink
from epic.agent.runtime.files import write_atomically
from epic.agent.runtime.log_once import LogOnce
from epic.agent.settings import UnderlaySettings
from epic.bpf.dataplane import Address, Dataplane, Role
from epic.bpf.programs.filters import Hook
from epic.errors import EpicError, Unavailable

FILE = "underlay"

log = logging.getLogger(__name__)


_HOOKS: Mapping[Role, frozenset[Hook]] = {
    "gateway": frozenset({"ingress", "egress"}),
    "workload": frozenset({"ingress", "egress"}),
}


class Attachment(NamedTuple):
    """What the programs' attachment rests on, and where the kernel runs them."""

    link: Link
    addresses: tuple[Address, ...]
    hooks: frozenset[Hook]
    linked: bool
    xdp: bool


class Underlay:
    """Follows the interfaces; trouble with one does not concern the others. Methods block."""

    def __init__(
        self, dataplane: Dataplane, netlink: Netlink, settings: UnderlaySettings, role: Role
    ) -> None:
        self._dataplane = dataplane
        self._netlink = netlink
        self._settings = settings
        self._role = role
        self._states: dict[str, Attachment] = {}
        self._present: frozenset[str] = frozenset()
        self._troubles = LogOnce(log)

    @property
    def links(self) -> Mapping[str, Link]:
        """The interfaces that are attached, in the order of the settings."""
        names = (name for name in self._settings.names if name in self._states)
        return {name: self._states[name].link for name in names}

    @property
    def indexes(self) -> frozenset[int]:
        """Their indexes."""
        return frozenset(state.link.index for state in self._states.values())

    @property
    def troubled(self) -> bool:
        """Whether an interface is missing or cannot be used."""
        return len(self._states) < len(self._settings.names)

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with them now."""
        return self._troubles.problems

    def address(self) -> Address | None:
        """The first address of the first interface that has one, IPv4 before IPv6."""
        for name in self._settings.names:
            found = self._states[name].addresses if name in self._states else ()
            for address in sorted(found, key=lambda a: a.version):
                return address
        return None

    @property
    def gap(self) -> str:
        """What keeps tunnels from working: packets pass our programs by, or there is no interface."""
        unguarded = [name for name in self._settings.names if name in self._present - self._states.keys()]
        if unguarded:
            return f"the tunnel programs do not run on {', '.join(unguarded)}"
        if not any(state.link.up for state in self._states.values()):
            return f"no underlay interface is up ({', '.join(self._settings.names)})"
        return ""

    def follow(self, links: Mapping[str, Link]) -> set[str]:
        """Look at the interfaces, and attach where the programs do not run or something changed.

        Returns those that are not what they were (or are gone).
        """
        addresses = self._netlink.addresses()
        names = [name for name in self._settings.names if name in links]
        self._present = frozenset(names)
        found = {name: self._look(links[name], addresses) for name in names}
        changed = {name for name in self._settings.names if found.get(name) != self._states.get(name)}
        for name in self._settings.names:
            if name not in found:
                self._states.pop(name, None)
                self._troubles.report(name, f"there is no underlay interface {name}; tunnels do without it")
            elif name in changed:
                self._attach(name, addresses)
        return changed

    def forget_others(self, directory: Path) -> None:
        """Leave the interfaces that an agent with other settings attached, and write down ours."""
        path, names = directory / FILE, set(self._settings.names)
        before = set(path.read_text(encoding="utf-8").split()) if path.exists() else set()
        for name in sorted(before - names):
            self._dataplane.detach_underlay(name)
            log.info("%s is no underlay interface any more", name)
        if before != names:
            try:
                write_atomically(path, "\n".join(sorted(names)).encode())
            except OSError as error:
                log.error(
                    "%s cannot be written: %s; an interface that is ours no more may stay attached",
                    path,
                    error,
                )

    def _look(self, link: Link, addresses: Mapping[int, tuple[Address, ...]]) -> Attachment:
        # Their names are not compared: while an older version's are due to be replaced they may differ.
        hooks = frozenset(hook for hook, _ in self._netlink.filters(link.index))
        linked = self._dataplane.is_linked(link.index)
        return Attachment(link, addresses.get(link.index, ()), hooks, linked, bool(link.xdp))

    def _attach(self, name: str, addresses: Mapping[int, tuple[Address, ...]]) -> None:
        try:
            self._dataplane.attach_underlay(name, self._role, self._settings.receive)
            # What counts is what the kernel says afterwards.
            state = self._look(self._netlink.links()[name], addresses)
            if not _HOOKS[self._role] <= state.hooks:
                raise Unavailable("its filters are not there after they were attached")
        except (EpicError, OSError, KeyError, NetlinkError) as error:
            self._states.pop(name, None)
            self._troubles.report(name, f"the underlay interface {name} cannot be used: {error}")
        else:
            self._states[name] = state
            self._troubles.report(name, "")
