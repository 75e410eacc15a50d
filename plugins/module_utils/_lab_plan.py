# SPDX-License-Identifier: Apache-2.0
"""What the lab should be and which steps lead there from what is seen. Pure: no input or output."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from ansible_collections.epic.gateway.plugins.module_utils._lab_topology import (
    MANAGEMENT,
    Host,
    Link,
    Topology,
)

# systemd-nspawn ends with this when the machine inside asked for a reboot.
REBOOT = 133


@dataclass(frozen=True)
class Names:
    """Every name the lab called `lab` uses on this machine."""

    lab: str

    @property
    def bridge(self) -> str:
        """The bridge of the management network."""
        return f"{self.lab}-mgmt"

    @property
    def cgroup(self) -> str:
        """The control group around those of the hosts."""
        return f"epic-{self.lab}"

    @property
    def runtime(self) -> str:
        """The directory of all that changes while the lab runs."""
        return f"/run/epic-{self.lab}"

    def namespace(self, host: str) -> str:
        """Its network namespace, its port on the management bridge and its systemd-nspawn machine."""
        return f"{self.lab}-{host}"

    def directory(self, host: str) -> str:
        """Its disk and its console log."""
        return f"{self.runtime}/hosts/{host}"


@dataclass(frozen=True)
class File:
    """A file that is written on a host's disk before its first boot."""

    path: str
    content: str
    mode: int = 0o644


@dataclass(frozen=True)
class Machine:
    """A host, the layers of its disk (the uppermost first) and its own files; `digest` identifies it all."""

    host: Host
    layers: tuple[Path, ...]
    files: tuple[File, ...]
    digest: str


@dataclass(frozen=True)
class Keys:
    """A host's SSH host key and the public key that may log in."""

    host_private: str
    host_public: str
    login_public: str


class State(Enum):
    """What a host is seen doing. `SILENT`: its processes run but its SSH server does not answer."""

    STOPPED = "stopped"
    FROZEN = "frozen"
    SILENT = "silent"
    RUNNING = "running"


@dataclass(frozen=True)
class Seen:
    """A host as it was found. `digest` is empty when it was never completed."""

    digest: str
    state: State
    network: frozenset[str]


class Step(Enum):
    """What has to be done about one host."""

    REMOVE = "remove"
    CREATE = "create"  # with a new disk
    START = "start"  # power cycle: the disk stays, all of the kernel's state is new
    THAW = "thaw"
    CONNECT = "connect"  # only its network lacks something


_REMARKS: dict[Step | None, str] = {
    Step.CREATE: " (new disk)",
    Step.START: " (started)",
    Step.CONNECT: " (network repaired)",
}


def machines(
    topology: Topology,
    disks: Mapping[str, Iterable[Path]],
    keys: Mapping[str, Keys],
    files: Mapping[str, Iterable[File]],
) -> list[Machine]:
    """Every host of the topology with the layers and files its disk begins with."""
    names = "".join(f"{host.address} {host.name}\n" for host in topology.hosts)
    return [
        _machine(host, tuple(disks[host.name]), names, keys[host.name], tuple(files.get(host.name, ())))
        for host in topology.hosts
    ]


def _machine(
    host: Host, layers: tuple[Path, ...], names: str, keys: Keys, files: tuple[File, ...]
) -> Machine:
    identity = hashlib.sha256(f"epic lab {host.name}".encode()).hexdigest()[:32]
    own = (
        File("/etc/hostname", f"{host.name}\n"),
        File("/etc/machine-id", f"{identity}\n", 0o444),
        File("/etc/hosts", f"127.0.0.1 localhost\n::1 localhost\n{names}"),
        File("/etc/sysctl.d/50-lab.conf", "".join(f"{key} = {value}\n" for key, value in host.sysctls)),
        File("/etc/systemd/system/multi-user.target.d/lab.conf", _wants(host.services)),
        File("/etc/ssh/ssh_host_ed25519_key", keys.host_private, 0o600),
        File("/etc/ssh/ssh_host_ed25519_key.pub", keys.host_public),
        File("/root/.ssh/authorized_keys", keys.login_public, 0o600),
        *files,
    )
    definition = json.dumps(
        [[layer.name for layer in layers], asdict(host), [asdict(file) for file in own]],
        default=str,
        sort_keys=True,
    )
    return Machine(host, layers, own, hashlib.sha256(definition.encode()).hexdigest())


def _wants(services: Iterable[str]) -> str:
    return "[Unit]\n" + "".join(f"Wants={service}.service\n" for service in services)


def expected_network(host: Host) -> frozenset[str]:
    """What a complete network of the host has, in the words of `seen_network`."""
    facts = {"lo up", f"{MANAGEMENT} up", f"{MANAGEMENT} {host.management}"}
    for end in host.ends:
        facts |= {f"{end.interface} up", f"{end.interface} {end.address}"}
    return frozenset(facts | ({f"default {host.gateway}"} if host.gateway else set()))


def seen_network(
    links: Iterable[Mapping[str, object]], routes: Iterable[Mapping[str, object]]
) -> frozenset[str]:
    """The facts in the answers of `ip -json address` and `ip -json route show default`."""
    facts = {f"default {route['gateway']}" for route in routes if "gateway" in route}
    for link in links:
        if "UP" in _items(link.get("flags")):
            facts.add(f"{link['ifname']} up")
        for address in _items(link.get("addr_info")):
            facts.add(f"{link['ifname']} {address['local']}/{address['prefixlen']}")
    return frozenset(facts)


def _items(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def steps(
    wanted: Iterable[Machine], seen: Mapping[str, Seen], power_cycle: Collection[str] = ()
) -> dict[str, Step]:
    """What to do, by host, in an order that never changes. Hosts that are as they should be are left out."""
    by_name = {machine.host.name: machine for machine in wanted}
    result = {name: Step.REMOVE for name in sorted(seen) if name not in by_name}
    for name, machine in by_name.items():
        step = _step(machine, seen.get(name), name in power_cycle)
        if step is not None:
            result[name] = step
    return result


def _step(machine: Machine, seen: Seen | None, power_cycle: bool) -> Step | None:
    if seen is None or seen.digest != machine.digest:
        return Step.CREATE
    if power_cycle or seen.state in (State.STOPPED, State.SILENT):
        return Step.START
    if seen.state is State.FROZEN:
        return Step.THAW
    return None if expected_network(machine.host) <= seen.network else Step.CONNECT


def describe(wanted: Iterable[Machine], seen: Mapping[str, Seen], todo: Mapping[str, Step]) -> dict[str, str]:
    """The lab before and after the steps, a line a host, as a diff."""
    before = [f"{name}: {seen[name].state.value}\n" for name in sorted(seen)]
    hosts = sorted(machine.host.name for machine in wanted)
    after = [f"{name}: running{_REMARKS.get(todo.get(name), '')}\n" for name in hosts]
    return {"before": "".join(before), "after": "".join(after)}


def hardware_address(host: str, interface: str) -> str:
    """An interface's own MAC. It survives a power cycle, or neighbours would go on using the old one."""
    digest = hashlib.sha256(f"epic lab {host} {interface}".encode()).hexdigest()
    return ":".join(["02", *(digest[at : at + 2] for at in range(0, 10, 2))])


def link_command(names: Names, link: Link) -> str:
    """For `ip -batch` in the left host's namespace."""
    left, right = link.left, link.right
    return (
        f"link add {left.interface} address {hardware_address(left.host, left.interface)} type veth "
        f"peer name {right.interface} address {hardware_address(right.host, right.interface)} "
        f"netns {names.namespace(right.host)}"
    )


def bridge_command(names: Names) -> str:
    """For `ip -batch` here: the management network's bridge."""
    return f"link add {names.bridge} address {hardware_address('', names.bridge)} type bridge"


def port_commands(names: Names, topology: Topology, missing: Collection[str]) -> list[str]:
    """For `ip -batch` here: the bridge's address, and a port for each missing host."""
    ports = [
        f"link add {names.namespace(host)} up master {names.bridge} type veth "
        f"peer name {MANAGEMENT} address {hardware_address(host, MANAGEMENT)} netns {names.namespace(host)}"
        for host in missing
    ]
    return [
        f"address replace {topology.controller} dev {names.bridge}",
        f"link set {names.bridge} up",
        # An address may have moved to another host.
        f"neighbour flush dev {names.bridge}",
        *ports,
    ]


def network_commands(host: Host) -> list[str]:
    """For `ip -batch` in the host's namespace; harmless where things are as they should be."""
    pairs = [(MANAGEMENT, host.management), *((end.interface, end.address) for end in host.ends)]
    commands = ["link set lo up"]
    for interface, address in pairs:
        commands += [f"address replace {address} brd + dev {interface}", f"link set {interface} up"]
    return commands + ([f"route replace default via {host.gateway}"] if host.gateway else [])


def supervisor_script(names: Names, host: str, cgroups: Iterable[str]) -> str:
    """The shell program that runs a host until it is switched off, and again when it reboots."""
    nspawn = [
        "systemd-nspawn",
        "--quiet",
        "--boot",
        "--keep-unit",
        "--register=no",
        f"--machine={names.namespace(host)}",
        f"--hostname={host}",
        f"--directory={names.directory(host)}/root",
        f"--network-namespace-path=/run/netns/{names.namespace(host)}",
        "--capability=all",
        "--system-call-filter=bpf perf_event_open @keyring",
        "--resolv-conf=off",
        "--timezone=off",
        "--link-journal=no",
        "--console=read-only",
    ]
    lines = [
        # Without a control group of their own all hosts would manage the same one.
        *(f"echo $$ > {shlex.quote(cgroup)}/cgroup.procs" for cgroup in cgroups),
        "export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 SYSTEMD_NSPAWN_API_VFS_WRITABLE=yes",
        f"while :; do {shlex.join(nspawn)}; [ $? -eq {REBOOT} ] || break; done",
    ]
    return "\n".join(lines) + "\n"


def ssh_config(topology: Topology, directory: str) -> str:
    """The SSH client's settings that lead to the hosts by name or management address."""
    common = (
        f"Host {' '.join(f'{host.name} {host.management.ip}' for host in topology.hosts)}\n"
        "  User root\n"
        f"  IdentityFile {directory}/id_ed25519\n"
        "  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {directory}/known_hosts\n"
        "  StrictHostKeyChecking yes\n"
    )
    return "".join(f"Host {host.name}\n  HostName {host.management.ip}\n" for host in topology.hosts) + common


def known_hosts(topology: Topology, keys: Mapping[str, Keys]) -> str:
    """A line for each host, by name and by management address."""
    lines = (f"{host.name},{host.management.ip} {keys[host.name].host_public}" for host in topology.hosts)
    return "".join(lines)
