# SPDX-License-Identifier: Apache-2.0
"""What a host must be before EPIC comes to it: facts read from it, and what is wrong with them."""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import socket
import struct
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_OVERRIDE = "or, where you know that it works, change base_distributions"
_SIOCGIFMTU = 0x8921
# of /proc/net/tcp's states; UDP sockets that only wait have the other
_LISTENING = {"tcp": "0A", "udp": "07"}


@dataclass(frozen=True)
class Port:
    """A port that a unit of EPIC's is to have on all addresses or one; `protocol` is tcp or udp."""

    protocol: str
    number: int
    unit: str


@dataclass(frozen=True)
class Wanted:
    """What the host must be. An empty text, tuple or mapping asks for nothing."""

    distributions: Mapping[str, Iterable[str]] = field(default_factory=dict)
    """Versions by id, as in os-release."""
    python: str = ""
    """Interpreter, as a path."""
    python_version: str = ""
    """Its minor version and machine, as `3.11 x86_64`."""
    kernel: tuple[int, ...] = ()
    tunnels: bool = False
    """Whether the kernel must carry tunnels: BPF with its file system and types, cgroup v2, IPv6."""
    interfaces: Mapping[str, int] = field(default_factory=dict)
    """Smallest MTU in bytes, by interface."""
    ports: tuple[Port, ...] = ()
    space: Mapping[str, int] = field(default_factory=dict)
    """MiB that must be free, by directory."""


@dataclass(frozen=True)
class Facts:
    """The host as it is."""

    distribution: tuple[str, str]
    kernel: str
    has_systemd: bool
    has_package_bindings: bool
    lacking: tuple[str, ...]
    """Features of the kernel for tunnels that are not there, each with what would bring it."""
    python: str
    mtus: Mapping[str, int]
    users: Mapping[Port, str]
    """Who has a port that another should have."""
    free: Mapping[str, int]


def faults(wanted: Wanted, facts: Facts) -> list[str]:
    """What is wrong, each with what would be right; nothing if the host is fit."""
    return [
        *_distribution(wanted, facts),
        *_python(wanted, facts),
        *_kernel(wanted, facts),
        *_interfaces(wanted, facts),
        *(
            f"{port.protocol.upper()} port {port.number} is in use by {user}; {port.unit} needs it"
            for port, user in facts.users.items()
        ),
        *(
            f"{directory} has {facts.free[directory]} MiB free; {needed} are needed"
            for directory, needed in wanted.space.items()
            if facts.free[directory] < needed
        ),
    ]


def _distribution(wanted: Wanted, facts: Facts) -> list[str]:
    found = []
    name, version = facts.distribution
    if wanted.distributions and version not in map(str, wanted.distributions.get(name, ())):
        supported = ", ".join(
            f"{key} {value}" for key, values in wanted.distributions.items() for value in values
        )
        found.append(f"the distribution is {name} {version}; it must be {supported}, {_OVERRIDE}")
    if not facts.has_systemd:
        found.append("systemd is not what started the host; it must be, for EPIC's programs are its units")
    if not facts.has_package_bindings:
        found.append("Ansible cannot install packages; install python3-apt")
    return found


def _python(wanted: Wanted, facts: Facts) -> list[str]:
    if not wanted.python_version or facts.python == wanted.python_version:
        return []
    return [
        f"{wanted.python} is {facts.python or 'missing'}, and the bundle is for {wanted.python_version}; "
        "set base_python to such a Python, or build the bundle on a machine like this host"
    ]


def _kernel(wanted: Wanted, facts: Facts) -> list[str]:
    found = []
    if version(facts.kernel) < wanted.kernel:
        least = ".".join(map(str, wanted.kernel))
        found.append(f"the kernel is {facts.kernel}; it must be {least} or newer")
    return found + (list(facts.lacking) if wanted.tunnels else [])


def _interfaces(wanted: Wanted, facts: Facts) -> list[str]:
    found = []
    for name, mtu in wanted.interfaces.items():
        if name not in facts.mtus:
            there = ", ".join(sorted(facts.mtus)) or "none"
            found.append(f"there is no underlay interface {name}; interfaces are {there}")
        elif facts.mtus[name] < mtu:
            found.append(
                f"the MTU of {name} is {facts.mtus[name]}; make it {mtu} or gateway_node_underlay_mtu less"
            )
    return found


def version(text: str) -> tuple[int, ...]:
    """The numbers that a kernel's release begins with: `6.1.0-18-amd64` is (6, 1, 0)."""
    return tuple(int(number) for number in re.split(r"[^0-9.]", text)[0].split(".") if number)


def read_facts(
    wanted: Wanted, run: Callable[[list[str]], str], mtus: Mapping[str, int], root: Path = Path("/")
) -> Facts:
    """Look at the host below `root`; `run` gives what a program prints, nothing if it fails."""
    lines = (line.partition("=") for line in _text(root / "etc/os-release").splitlines())
    release = {key: "".join(shlex.split(value)) for key, _equals, value in lines}
    name = release.get("ID", "unknown")
    return Facts(
        distribution=(name, release.get("VERSION_ID", "")),
        kernel=_text(root / "proc/sys/kernel/osrelease").strip(),
        has_systemd=(root / "run/systemd/system").is_dir(),
        has_package_bindings=(root / "usr/lib/python3/dist-packages/apt_pkg").exists()
        or any((root / "usr/lib/python3/dist-packages").glob("apt_pkg.*"))
        or not (root / "usr/bin/dpkg").exists(),
        lacking=tuple(_lacking(root)),
        python=run([wanted.python, "-Ic", _PYTHON]).strip() if wanted.python_version else "",
        mtus=mtus,
        users=dict(_users(wanted.ports, root)),
        free={directory: _free(root / directory.lstrip("/")) for directory in wanted.space},
    )


_PYTHON = "import platform as p; print(*p.python_version_tuple()[:2], sep='.', end=' ' + p.machine())"


def _lacking(root: Path) -> Iterable[str]:
    if "bpf" not in _text(root / "proc/filesystems").split():
        yield "the kernel has no BPF file system; it needs CONFIG_BPF_SYSCALL"
    if not (root / "sys/kernel/btf/vmlinux").exists():
        yield "the kernel does not tell its types (/sys/kernel/btf/vmlinux); it needs CONFIG_DEBUG_INFO_BTF"
    if not (root / "sys/fs/cgroup/cgroup.controllers").exists():
        yield "control groups are not of version 2 alone; boot with systemd.unified_cgroup_hierarchy=1"
    if not (root / "proc/sys/net/ipv6").exists():
        yield "IPv6 is off in the kernel; boot without ipv6.disable=1"


def interface_mtus() -> dict[str, int]:
    """The MTU of every interface. Not from /sys, which in a container may show another network's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        return {name: _mtu(asked, name) for _index, name in socket.if_nameindex()}


def _mtu(asked: socket.socket, name: str) -> int:
    request = struct.pack("16si12x", name.encode(), 0)
    mtu: int = struct.unpack("16si12x", fcntl.ioctl(asked, _SIOCGIFMTU, request))[1]
    return mtu


def _users(ports: Iterable[Port], root: Path) -> Iterable[tuple[Port, str]]:
    """The ports that something other than their unit listens on, and what that is."""
    sockets = {port: _inodes(port, root) for port in ports}
    wanted = {inode for inodes in sockets.values() for inode in inodes}
    owners = _owners(wanted, root) if wanted else {}
    for port, inodes in sockets.items():
        users = {owners.get(inode, ("something", "")) for inode in inodes}
        others = sorted(name for name, unit in users if unit != port.unit)
        if others:
            yield port, ", ".join(others)


def _inodes(port: Port, root: Path) -> set[str]:
    """The sockets that listen on a port."""
    found = set()
    for table in (port.protocol, f"{port.protocol}6"):
        for line in _text(root / "proc/net" / table).splitlines()[1:]:
            words = line.split()
            if words[3] == _LISTENING[port.protocol] and int(words[1].rpartition(":")[2], 16) == port.number:
                found.add(words[9])
    return found


def _owners(inodes: set[str], root: Path) -> dict[str, tuple[str, str]]:
    """By socket, the program that has it, for people, and its unit."""
    found = {}
    for process in (root / "proc").glob("[0-9]*"):
        try:
            links = [str(handle.readlink()) for handle in (process / "fd").iterdir()]
        except OSError:
            continue
        held = {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")} & inodes
        if held:
            unit = _text(process / "cgroup").strip().rpartition("/")[2]
            name = f"{_text(process / 'comm').strip()} (process {process.name}, {unit or 'no unit'})"
            found.update(dict.fromkeys(held, (name, unit)))
    return found


def _free(directory: Path) -> int:
    while not directory.exists():
        directory = directory.parent
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize // 2**20


def _text(place: Path) -> str:
    try:
        return place.read_text("utf-8", "replace")
    except OSError:
        return ""


def run_program(command: list[str]) -> str:
    """What a program prints; nothing if it is not there or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
