# SPDX-License-Identifier: Apache-2.0
"""Our filters on interfaces of the current network namespace: clsact, direct action.

A filter is ours by its preference, handle and name together; all others are left alone.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any, Literal

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from epic.bpf.programs import syscalls
from epic.errors import NotFound, Unavailable

LOOPBACK_INDEX = 1
"""Of `lo`: it has this number in every namespace."""

Hook = Literal["ingress", "egress"]
HOOKS: tuple[Hook, ...] = ("ingress", "egress")

PARENTS = {"ingress": 0xFFFFFFF2, "egress": 0xFFFFFFF3}
_CLSACT_HANDLE = 0xFFFF0000
PRIORITY = 50
FILTER_HANDLE = 0xE71C
PREFIX = "epic_"
_ETH_P_ALL = 0x0003
_ARPHRD_ETHER = 1
_XDP_DRIVER_MODE = 1 << 2
_XDP_NAMES = {name[:15]: name for name in ("gateway_underlay_xdp", "workload_underlay_xdp")}


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

    def addresses(self, index: int) -> set[IPv4Address | IPv6Address]:
        """The interface's addresses, but for those that lead nowhere but to the host itself."""
        found = self._netlink.get_addr(index=index)
        texts = (message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS") for message in found)
        return {address for address in map(ip_address, texts) if not address.is_loopback}

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
                name=PREFIX + pin.name,
                parent=PARENTS[hook],
                prio=PRIORITY,
                handle=FILTER_HANDLE,
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
            parent=PARENTS[hook],
            prio=PRIORITY,
            handle=FILTER_HANDLE,
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
            Attached(index, hook, name.removeprefix(PREFIX))
            for hook in HOOKS
            for name in self._ours(index, hook)
        ]

    def attach_xdp(self, index: int, pin: Path) -> None:
        """Run the pinned program before the kernel makes buffers of packets; ours is replaced in place."""
        self._refuse_foreign_xdp(index)
        fd = syscalls.open_pinned(pin)
        try:
            self._set_xdp(index, fd)
        except NetlinkError as error:
            raise Unavailable(
                f"the driver of interface {index} does not run {pin.name}: {error}; receive with tc instead"
            ) from error
        finally:
            os.close(fd)

    def detach_xdp(self, index: int) -> None:
        """Remove our program."""
        if _xdp_program(self._link_message(index)) in _XDP_NAMES:
            self._set_xdp(index, -1)

    def attached_xdp(self) -> dict[int, str]:
        """Our programs by the index of the interface."""
        found = {message["index"]: _xdp_program(message) for message in self._netlink.get_links()}
        return {index: _XDP_NAMES[name] for index, name in found.items() if name in _XDP_NAMES}

    def _refuse_foreign_xdp(self, index: int) -> None:
        name = _xdp_program(self._link_message(index))
        if name is not None and name not in _XDP_NAMES:
            raise Unavailable(
                f"interface {index} runs the XDP program {name} already; receive with tc instead"
            )

    def _link_message(self, index: int) -> Any:
        (message,) = self._netlink.link("get", index=index)
        return message

    def _set_xdp(self, index: int, fd: int) -> None:
        attributes = [["IFLA_XDP_FD", fd], ["IFLA_XDP_FLAGS", _XDP_DRIVER_MODE]]
        self._netlink.link("set", index=index, IFLA_XDP={"attrs": attributes})

    def _ours(self, index: int, hook: Hook) -> Iterator[str]:
        for message in self._filters(index, hook):
            options = message.get_attr("TCA_OPTIONS")
            name = options.get_attr("TCA_BPF_NAME") or ""
            if (
                message["info"] >> 16 == PRIORITY
                and message["handle"] == FILTER_HANDLE
                and name.startswith(PREFIX)
            ):
                yield name

    def _filters(self, index: int, hook: Hook) -> list[Any]:
        # The kernel lists each chain's head too, as an entry without handle and options.
        found = self._netlink.get_filters(index=index, parent=PARENTS[hook])
        return [message for message in found if message["handle"]]

    def _add_clsact(self, index: int) -> None:
        try:
            self._netlink.tc("add", "clsact", index)
        except NetlinkError as error:
            if error.code != errno.EEXIST:
                raise


def _xdp_program(link: Any) -> str | None:
    xdp = link.get_attr("IFLA_XDP")
    id_ = xdp.get_attr("IFLA_XDP_PROG_ID") if xdp else None
    if not id_:
        return None
    fd = syscalls.program_by_id(id_)
    try:
        return syscalls.program_info(fd).name
    finally:
        os.close(fd)
