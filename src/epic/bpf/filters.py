"""Our filters on interfaces of the current network namespace: clsact, direct action.

A filter is ours by its preference, handle and name together; all others are left alone.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from epic.bpf import syscalls
from epic.errors import NotFound, Unavailable

Hook = Literal["ingress", "egress"]
HOOKS: tuple[Hook, ...] = ("ingress", "egress")

_PARENT = {"ingress": 0xFFFFFFF2, "egress": 0xFFFFFFF3}
_CLSACT_HANDLE = 0xFFFF0000
_PRIORITY = 50
_FILTER_HANDLE = 0xE71C
_PREFIX = "epic_"
_ETH_P_ALL = 0x0003
_ARPHRD_ETHER = 1


@dataclass(frozen=True)
class Link:
    """An interface."""

    index: int
    kind: str | None
    """Such as `veth`; None for hardware."""
    ethernet: bool


@dataclass(frozen=True)
class Attached:
    """A filter of ours."""

    index: int
    hook: Hook
    program: str
    program_id: int


class Filters:
    """Netlink for one undertaking: `with Filters() as filters`."""

    def __init__(self) -> None:
        self._netlink = IPRoute()

    def __enter__(self) -> Filters:
        return self

    def __exit__(self, *_: object) -> None:
        self._netlink.close()

    def link(self, interface: str) -> Link:
        """The interface of this name; NotFound."""
        try:
            (message,) = self._netlink.link("get", ifname=interface)
        except NetlinkError as error:
            if error.code == errno.ENODEV:
                raise NotFound(f"there is no interface {interface}") from None
            raise
        info = message.get_attr("IFLA_LINKINFO")
        kind = info.get_attr("IFLA_INFO_KIND") if info else None
        return Link(message["index"], kind, message["ifi_type"] == _ARPHRD_ETHER)

    def addresses(self, index: int) -> set[bytes]:
        """The interface's IPv4 addresses in network order."""
        found = self._netlink.get_addr(family=2, index=index)
        texts = (message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS") for message in found)
        return {bytes(map(int, text.split("."))) for text in texts}

    def attach(self, index: int, hook: Hook, pin: Path) -> None:
        """Run the pinned program at this hook; a program of ours that runs there is replaced in place."""
        self._add_clsact(index)
        fd = syscalls.open_pinned(pin)
        try:
            self._netlink.tc(
                "replace-filter",
                "bpf",
                index,
                fd=fd,
                name=_PREFIX + pin.name,
                parent=_PARENT[hook],
                prio=_PRIORITY,
                handle=_FILTER_HANDLE,
                protocol=_ETH_P_ALL,
                direct_action=True,
            )
        except NetlinkError as error:
            raise Unavailable(f"cannot attach {pin.name} to interface {index}: {error}") from error
        finally:
            os.close(fd)

    def detach(self, index: int, hook: Hook) -> None:
        """Remove our filter from the hook, and clsact when nobody's filter is left."""
        if not any(attached.hook == hook for attached in self.attached_to(index)):
            return
        self._netlink.tc(
            "del-filter",
            "bpf",
            index,
            parent=_PARENT[hook],
            prio=_PRIORITY,
            handle=_FILTER_HANDLE,
            protocol=_ETH_P_ALL,
        )
        if not any(self._filters(index, other) for other in HOOKS):
            self._netlink.tc("del", "clsact", index)

    def attached(self) -> list[Attached]:
        """All filters of ours in this namespace."""
        queues = self._netlink.get_qdiscs()
        indexes = {queue["index"] for queue in queues if queue["handle"] == _CLSACT_HANDLE}
        return [attached for index in sorted(indexes) for attached in self.attached_to(index)]

    def attached_to(self, index: int) -> list[Attached]:
        """Our filters on one interface."""
        return [
            Attached(index, hook, name.removeprefix(_PREFIX), program_id)
            for hook in HOOKS
            for name, program_id in self._ours(index, hook)
        ]

    def _ours(self, index: int, hook: Hook) -> Iterator[tuple[str, int]]:
        for message in self._filters(index, hook):
            options = message.get_attr("TCA_OPTIONS")
            name = options.get_attr("TCA_BPF_NAME") or ""
            if (
                message["info"] >> 16 == _PRIORITY
                and message["handle"] == _FILTER_HANDLE
                and name.startswith(_PREFIX)
            ):
                yield name, options.get_attr("TCA_BPF_ID")

    def _filters(self, index: int, hook: Hook) -> list[Any]:
        # The kernel lists each chain's head too, as an entry without handle and options.
        found = self._netlink.get_filters(index=index, parent=_PARENT[hook])
        return [message for message in found if message["handle"]]

    def _add_clsact(self, index: int) -> None:
        try:
            self._netlink.tc("add", "clsact", index)
        except NetlinkError as error:
            if error.code != errno.EEXIST:
                raise
