"""Loading the object, and attaching its programs to interfaces by clsact."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from epic.bpf.syscalls import open_pinned
from epic.errors import Unavailable

MAPS = ("drops", "endpoints", "insides", "instances", "peers", "tunnel_stats", "tunnels")
INGRESS, EGRESS = 0xFFFFFFF2, 0xFFFFFFF3
_CLSACT, _CLSACT_PARENT = 0xFFFF0000, 0xFFFFFFF1
# Our own priority, so that filters of others stay as they are, before and after ours.
_PRIORITY, _HANDLE = 6080, 1
_ALL_PROTOCOLS = 3
_EXISTS, _INVALID, _NO_ENTRY, _NO_DEVICE = 17, 22, 2, 19


@dataclass(frozen=True)
class Attachment:
    """A filter of ours: the interface, the side and the program's name."""

    interface: str
    parent: int
    program: str


class Programs:
    """The programs of one object, pinned below `directory`: `maps/` once, `programs-HASH/` by version."""

    def __init__(self, directory: Path, object_file: Path) -> None:
        self._directory = directory
        self._object = object_file

    @property
    def maps(self) -> Path:
        """Where the maps are pinned."""
        return self._directory / "maps"

    @property
    def directory(self) -> Path:
        """Where this version's programs are pinned."""
        digest = hashlib.sha256(self._object.read_bytes()).hexdigest()[:16]
        return self._directory / f"programs-{digest}"

    def load(self) -> bool:
        """Load this version, with the maps that exist, unless it is loaded; whether it had to."""
        if self.directory.is_dir():
            return False
        self._directory.mkdir(mode=0o700, exist_ok=True)
        command = ["bpftool", "prog", "loadall", str(self._object), str(self.directory), "type", "tc"]
        if self.maps.is_dir():
            for name in MAPS:
                command += ["map", "name", name, "pinned", str(self.maps / name)]
        else:
            command += ["pinmaps", str(self.maps)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            # A load that failed half-way leaves pins behind.
            shutil.rmtree(self.directory, ignore_errors=True)
            raise Unavailable(f"cannot load {self._object}: {done.stderr.strip()[-1000:]}")
        return True

    def remove_other_versions(self) -> None:
        """Unpin the programs of other versions; call it when nothing is attached to them any more."""
        for path in self._directory.glob("programs-*"):
            if path != self.directory:
                shutil.rmtree(path)

    def attach(self, interface: str, parent: int, program: str) -> None:
        """Attach, or replace in place what an earlier version attached."""
        fd = open_pinned(self.directory / program)
        try:
            with IPRoute() as netlink:
                index = _index(netlink, interface)
                with suppress_codes(_EXISTS):
                    netlink.tc("add", "clsact", index)
                netlink.tc(
                    "replace-filter",
                    "bpf",
                    index,
                    fd=fd,
                    name=program,
                    parent=parent,
                    prio=_PRIORITY,
                    handle=_HANDLE,
                    protocol=_ALL_PROTOCOLS,
                    direct_action=True,
                )
        finally:
            os.close(fd)

    def detach(self, interface: str, parent: int) -> None:
        """Remove our filter; the qdisc stays while others have filters there."""
        with IPRoute() as netlink:
            found = netlink.link_lookup(ifname=interface)
            if not found:
                return
            with suppress_codes(_NO_ENTRY, _INVALID):
                netlink.tc(
                    "del-filter",
                    "bpf",
                    found[0],
                    parent=parent,
                    prio=_PRIORITY,
                    handle=_HANDLE,
                    protocol=_ALL_PROTOCOLS,
                )
            if not any(netlink.get_filters(index=found[0], parent=p) for p in (INGRESS, EGRESS)):
                with suppress_codes(_NO_ENTRY, _INVALID):
                    netlink.tc("del", "clsact", found[0])

    def attached(self) -> list[Attachment]:
        """Our filters on all interfaces."""
        found = []
        with IPRoute() as netlink:
            for link in netlink.get_links():
                for parent in (INGRESS, EGRESS):
                    for each in netlink.get_filters(index=link["index"], parent=parent):
                        options = each.get_attr("TCA_OPTIONS")
                        # The kernel lists a priority once without options, then its filters.
                        if each["info"] >> 16 == _PRIORITY and options is not None:
                            name = link.get_attr("IFLA_IFNAME")
                            found.append(Attachment(name, parent, options.get_attr("TCA_BPF_NAME")))
        return found

    def unpin(self) -> None:
        """Remove all pins; the kernel frees what nothing else holds."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self._directory)


class suppress_codes(suppress):  # noqa: N801 - reads like contextlib.suppress
    """Pass over netlink errors with these codes."""

    def __init__(self, *codes: int) -> None:
        super().__init__(NetlinkError)
        self._codes = codes

    def __exit__(self, kind: object, error: object, trace: object) -> bool:
        return isinstance(error, NetlinkError) and error.code in self._codes


def _index(netlink: IPRoute, interface: str) -> int:
    found = netlink.link_lookup(ifname=interface)
    if not found:
        raise Unavailable(f"there is no interface {interface!r}")
    index: int = found[0]
    return index


def interface_index(interface: str) -> int:
    """The index of an interface; raises Unavailable when there is none of that name."""
    with IPRoute() as netlink:
        return _index(netlink, interface)


def interfaces() -> dict[int, str]:
    """All interfaces, index to name."""
    with IPRoute() as netlink:
        return {link["index"]: link.get_attr("IFLA_IFNAME") for link in netlink.get_links()}
